"""All that a client can meet here, as one list: each provider, its operations, the faults that they can have, the test values.

The rows come from the tables that the simulators themselves work by (`faults.TRAITS`, the natures in `config.py`, `magic.py`); what
is written down here is only what a client sees of each. `python -m simulators.registry --write docs/reference-table.md` prints them
as a page; the tests execute every row and compare what a real client saw with these very words.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from simulators import magic
from simulators.charges import Status
from simulators.config import BANK, CARD, UPI, Nature
from simulators.faults import TRAITS, Kind, Operation
from simulators.payouts import RETURNED, SHORT_OF_FUNDS, STAYS_PENDING, TEST_PAYEES
from simulators.providers.card import EXPIRED_CARD, INVALID_CARD
from simulators.providers.upi import CUSTOMER_CODES

NATURES: dict[str, Nature] = {"card": CARD, "upi": UPI, "bank": BANK}
READING: tuple[Operation, ...] = ("status", "refund_status")  # change nothing, so it does not matter whether the provider acts
TRUE = "the true answer"
BY_MIX = "as the mix says"
# What the example of a fault has for a parameter: short, so that the rows can be executed.
EXAMPLES = {"delay": "20ms", "over": "20ms", "retry_after": "2s", "acts": True}
CALLBACK_DELAY = "30s"  # on the world's clock, which can be moved

# Of calls. A kind that answers with an HTTP status of its own is not in here: see `_seen`.
CALLS_SEEN: dict[Kind, str] = {
    "reset_before": "the connection is reset",
    "reset_after": "the connection is reset",
    "response_lost": "no answer",
    "late": f"{TRUE}, after `delay`",
    "drip": f"{TRUE}, in pieces",
    "truncated": f"half of {TRUE}",
    "garbage": "200 with bytes that are no JSON",
    "wrong_content_type": "200 with an HTML page",
    "wrong_amount": f"{TRUE}, but one minor unit too much",
    "duplicate_charge": f"{TRUE}; the money moves twice",
    "stale_status": "the charge as it was before its last change",
}
CALLBACKS_SEEN: dict[Kind, str] = {
    "late": "the callback, after `delay`",
    "lost": "nothing",
    "twice": "the callback, and again once it was answered",
    "twice_at_once": "the callback twice at the same time",
    "out_of_order": "the callback after the next one about the same charge",
    "bad_signature": "the callback with a signature that does not verify",
    "old_timestamp": "the callback with a timestamp 600 s old",
    "unknown_payment": "the callback, and one for a reference that does not exist",
}


CONNECTIONS_SEEN: dict[Kind, str] = {"connection_refused": "the connection is refused"}


class Row(NamedTuple):
    """One thing that can be met. `fault` is as a configuration has it, without its `operation`; `value` is a test value."""

    provider: str
    operation: Operation
    sees: str  # the client; of a callback, its receiver
    fault: Mapping[str, Any] = {}
    value: str = ""
    acts: str = ""  # whether the provider does what was asked: "yes", "no", "" where the question means nothing


def rows() -> Iterator[Row]:
    """All of them, by provider."""
    for provider, nature in NATURES.items():
        for operation in nature.operations:
            for kind, trait in TRAITS.items():
                if operation in trait.operations:
                    yield from _fault_rows(provider, operation, kind)
        yield from _VALUES[provider]()


def _fault_rows(provider: str, operation: Operation, kind: Kind) -> Iterator[Row]:
    trait = TRAITS[kind]
    if operation == "callback":
        needed = {"delay": CALLBACK_DELAY} if trait.needs else {}
        yield Row(provider, operation, CALLBACKS_SEEN[kind], {"kind": kind, **needed})
        return
    if operation == "connect":
        yield Row(provider, operation, CONNECTIONS_SEEN[kind], {"kind": kind}, acts="no")
        return
    plain = {"kind": kind, **({trait.needs: EXAMPLES[trait.needs]} if trait.needs else {})}
    seen = CALLS_SEEN.get(kind) or f"{trait.http_status} `{kind}`"
    yield Row(provider, operation, seen, plain, acts=_acts(operation, acts=bool(trait.acts)))
    if trait.takes == "acts":
        yield Row(provider, operation, seen, plain | {"acts": True}, acts=_acts(operation, acts=True))
    elif trait.takes:
        wait = EXAMPLES[trait.takes]
        yield Row(
            provider,
            operation,
            f"{seen}, `Retry-After: {str(wait).rstrip('s')}`",
            plain | {trait.takes: wait},
            acts=_acts(operation, acts=bool(trait.acts)),
        )


def _acts(operation: Operation, *, acts: bool) -> str:
    if operation in READING:
        return ""
    return "yes" if acts else "no"


def _card_values() -> Iterator[Row]:
    for number in sorted(magic.ORDINARY_CARDS):
        yield Row("card", "create", BY_MIX, value=number)
    for number, code in magic.CARD_CODES.items():
        yield Row("card", "create", states("declined", code), value=number)
    yield Row("card", "create", states("declined", INVALID_CARD), value="4242424242424241")  # a wrong check digit
    yield Row("card", "create", states("declined", EXPIRED_CARD), value="expired in 2020")
    for number, story in magic.CARD_STORIES.items():
        approved = states("approved", magic.APPROVED)
        if story.dispute:
            yield Row("card", "create", f"{approved}; disputed: `{story.dispute}`", value=number)
        elif story.refund:
            refund = "`pending`, then `completed`" if story.refund == "completes_late" else "`completed`, then `failed`"
            yield Row("card", "refund", refund, value=number)
        else:
            yield Row("card", "create", approved, value=number)
    for evidence, end in (("winning", "won"), ("losing", "lost")):
        yield Row("card", "dispute", f"`under_review`, then `{end}`", value=f"evidence: {evidence}")
    yield from _authentication_values()


def _authentication_values() -> Iterator[Row]:
    for number, status in magic.AUTHENTICATIONS.items():
        seen = f"`{status}`"
        if status == "D":
            seen = "`D`, then `N`" if number == magic.DECOUPLED_REFUSED else "`D`, then `Y`"
        yield Row("card", "authenticate", seen, value=number)
    yield Row("card", "authenticate", "`C`, then `Y`", value=f"OTP {magic.OTP_THAT_PASSES}")
    yield Row("card", "authenticate", "`C`, then `N`", value="any other OTP, three times")
    for number, code in magic.CHALLENGED_CARDS.items():
        seen = BY_MIX if code == magic.APPROVED else states("declined", code)
        yield Row("card", "create", seen, value=f"{number}, authenticated")


def _upi_values() -> Iterator[Row]:
    for vpa, script in magic.VPAS.items():
        deemed = f"{states('pending', magic.DEEMED)}, then " if script.code == magic.DEEMED else ""
        yield Row("upi", "create", _first(script) + deemed + _end(script.code), value=vpa)
    for vpa, script in magic.VPAS.items():
        end = _end(script.code) if script.code in CUSTOMER_CODES else states("active", magic.APPROVED)
        yield Row("upi", "mandate", _first(script) + end, value=vpa)


def _first(script: magic.Script) -> str:
    return "" if script.at_once else "no answer, then " if script.answer_lost else "`pending`, then "


def _end(code: str) -> str:
    """How a UPI payment or mandate ends whose customer does this."""
    status = "expired" if code == magic.UPI_EXPIRED else "approved" if code in (magic.APPROVED, magic.DEEMED) else "declined"
    return states(status, magic.APPROVED if status == "approved" else code)


def _bank_values() -> Iterator[Row]:
    ends: dict[str, tuple[Status, str]] = {
        magic.BANK_SUCCEEDS: ("approved", magic.APPROVED),
        magic.BANK_FAILS: ("declined", magic.BANK_FAILURE),
        magic.BANK_STAYS_PENDING: ("expired", magic.BANK_EXPIRED),
    }
    for bank, (status, code) in ends.items():
        yield Row("bank", "create", f"`pending`, then {states(status, code)}", value=bank)
    clicks: dict[str, tuple[Status, str]] = {
        f"page: OTP {magic.OTP_THAT_PASSES}": ("approved", magic.APPROVED),
        "page: any other OTP": ("declined", "otp_failed"),
        "page: cancel": ("declined", "customer_cancelled"),
    }
    for click, (status, code) in clicks.items():
        yield Row("bank", "create", f"`pending`, then {states(status, code)}", value=click)
    yield from _payout_values()


def _payout_values() -> Iterator[Row]:
    failed = {SHORT_OF_FUNDS: ""}  # what the bank knows by itself it says at once
    for kind, payees in TEST_PAYEES.items():
        for payee, code in payees.items():
            completed = states("completed", magic.APPROVED)
            ends = {magic.APPROVED: completed, RETURNED: f"{completed}, then {states('returned', RETURNED)}", STAYS_PENDING: ""}
            end = ends.get(code, states("failed", code))
            first = failed.get(code, "`pending`, then " if end else "`pending`")
            yield Row("bank", "payout", first + end, value=f"{kind}: {payee}")


def states(status: str, code: str | None) -> str:
    """A state and its response code as the table has them."""
    return f"`{status}` `{code}`" if code else f"`{status}`"


_VALUES = {"card": _card_values, "upi": _upi_values, "bank": _bank_values}

HEAD = """\
# Everything that you can meet

Each provider, each of its operations, each fault that it can have, each test value, and what a client sees. This page is generated from
the tables that the simulators work by, and the tests execute every row over HTTP (`tests/simulators/test_registry.py`).
What the faults mean and which calls they take: [faults.md](faults.md). The protocol: [providers.md](providers.md).

A fault damages an answer and a test value decides an outcome; neither changes the other.
Of a callback, the client is its receiver. *Acts*: whether the provider does what it was asked to do, whatever the client sees of it.
Empty: it was asked a question only. `connect` is no call but what comes before all of them.
*As the mix says*: the `outcomes` of the configuration decide.

| provider | operation | fault | test value | what the client sees | acts |
|---|---|---|---|---|---|
"""


def page() -> str:
    """docs/reference-table.md."""
    return HEAD + "".join(_line(row) for row in rows())


def _line(row: Row) -> str:
    parameters = ", ".join(f"{name} = {_toml(value)}" for name, value in row.fault.items() if name != "kind")
    fault = f"`{row.fault['kind']}`" + (f", `{parameters}`" if parameters else "") if row.fault else ""
    return f"| {row.provider} | `{row.operation}` | {fault} | {row.value and f'`{row.value}`'} | {row.sees} | {row.acts} |\n"


def _toml(value: object) -> str:
    return "true" if value is True else f'"{value}"'


def main(argv: list[str] | None = None) -> int:
    """Prints the page, or writes it."""
    parser = argparse.ArgumentParser(
        prog="python -m simulators.registry", description="The page of all that a client can meet."
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="write it there instead of printing it")
    options = parser.parse_args(argv)
    if options.write is None:
        print(page(), end="")
        return 0
    try:
        options.write.write_text(page())
    except OSError as error:
        print(f"registry: cannot write {options.write}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
