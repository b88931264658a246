"""Why a call became what it is: pure. Everything is computed anew from the draw and the settings of that time.

What the journal does not have cannot be told, and is said so: card numbers and VPAs are kept nowhere, and neither is which of the
calls about a mandate or an authentication an entry was.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from simulators.behaviour import Draw, Draws, Mix, fraction
from simulators.config import Bank, Card, Changes, Simulators, Upi
from simulators.faults import CALLS, TRAITS, Call, Fault, Faults, Injected, applies
from simulators.intake import DUPLICATE
from simulators.journal import Row
from simulators.latency import LatencyTable
from simulators.magic import BANK_SCRIPTS, BANK_STAYS_PENDING, CARD_CODES, VPAS
from simulators.phases import latency_of, latency_table
from simulators.world import Record

# What a client saw of a fault, in words; what is not in here answers in plain text what its kind says.
SEEN = {
    "reset_before": "the connection was reset",
    "reset_after": "the connection was reset, though the provider had acted",
    "response_lost": "no answer ever came, though the provider had acted",
    "late": "the true answer, late",
    "drip": "the true answer, in drops",
    "truncated": "half of the true answer",
    "garbage": "200 with bytes that are no JSON",
    "wrong_content_type": "200 with an HTML page",
    "wrong_amount": "the true answer with one minor unit too much",
    "duplicate_charge": "the true answer; the provider charged twice",
    "stale_status": "the charge as it was before its last change",
    "overloaded": "429: the queue was full",
    "rate_limited": "429",
    "unavailable": "503",
}
FORCED = {
    "14": "the card's number has a wrong check digit",
    "54": "the card's last month is over, or it is the test card for that",
    "1A": "3-D Secure was wanted and not passed",
}
OWN = ("increment", "capture", "refund", "refund_status", "dispute")  # their draws belong to the subject
SHARED_KEYS = ("mandate", "authenticate", "payout")  # of these several calls are one operation, each with draws of its own


class Scene(NamedTuple):
    """What held when an entry was written."""

    provider: str
    settings: Card | Upi | Bank
    changes: Changes  # of the phase
    phase: str
    elapsed_ms: int | None

    @property
    def outcomes(self) -> dict[str, float]:
        """The mix in force."""
        return self.settings.outcomes if self.changes.outcomes is None else self.changes.outcomes

    @property
    def faults(self) -> Faults:
        """The faults in force."""
        if self.changes.faults is None:
            return Faults(self.provider, self.settings.faults)
        return Faults(self.provider, self.changes.faults, phase=self.phase)


def scene(row: Row, settings: Simulators, timeline_start_ms: int | None) -> Scene:
    """The scene of an entry of a provider."""
    elapsed_ms = None if timeline_start_ms is None else row.at - timeline_start_ms
    own: Card | Upi | Bank = getattr(settings, row.provider)
    for phase in settings.phases:
        if elapsed_ms is not None and phase.start.ms <= elapsed_ms < phase.end.ms:
            return Scene(row.provider, own, getattr(phase, row.provider), phase.name, elapsed_ms)
    return Scene(row.provider, own, Changes(), "", elapsed_ms)


def key(row: Row) -> str | None:
    """What the draw of an entry is keyed by, `None` where that cannot be told."""
    subject = row.subject or None
    if row.operation in SHARED_KEYS or subject == DUPLICATE:
        return row.reference if row.operation == "create" else None
    if row.operation == "callback" and row.status is None:
        return None  # of a payment that does not exist: the draw was that of a true callback
    if row.operation == "callback" and subject is not None:
        return f"{row.reference}:cb_{subject}_{row.status}"
    return subject if row.operation in OWN else row.reference


def told(draw: Draw) -> dict[str, float]:
    """The uniforms of a draw that decide something, 0 <= u < 1."""
    return {
        "latency": fraction(draw.latency),
        "fault": fraction(draw.fault),
        "outcome": fraction(draw.outcome),
        "customerDelay": fraction(draw.customer_delay),
    }


def acted(row: Row, injected: Injected | None) -> bool:
    """Whether the provider acted."""
    if row.fault is None:
        return True
    if injected is not None:
        return injected.acts
    trait = TRAITS.get(row.fault)  # type: ignore[call-overload]  # some kinds are the simulators' own
    return trait is not None and trait.acts is True


def of_latency(row: Row, draw: Draw, at: Scene, injected: Injected | None) -> Iterator[str]:
    """Where the delay of a call comes from."""
    if row.operation not in CALLS:
        return
    if not acted(row, injected):
        yield "delay: none, because the fault answers at once"
        return
    latency = latency_of(at.settings, at.changes, row.operation)
    drawn_ms, wait_ms = latency_table(latency).pick(draw.latency), row.wait_ms or 0
    extra_ms = injected.delay_ms if injected else 0
    parts = [f"{drawn_ms} ms is the quantile {fraction(draw.latency):.6f} of {_json(latency)}"]
    parts += [f"{wait_ms} ms in the queue"] if wait_ms else []
    parts += [f"{extra_ms} ms by the fault"] if extra_ms else []
    if drawn_ms + wait_ms + extra_ms == row.delay_ms:
        yield f"delay: {', '.join(parts)}"
    else:
        yield f"delay: {row.delay_ms} ms, which the settings known of that time do not give; they give {', '.join(parts)}"


def of_fault(row: Row, draw: Draw, at: Scene) -> tuple[Injected | None, list[str]]:
    """The configured fault that an entry met, and why."""
    listed = at.faults.of(row.operation)
    share, low, sure = fraction(draw.fault), 0.0, True
    asked = Call(row.operation, row.attempt, at.elapsed_ms, row.merchant or None, row.amount)  # type: ignore[arg-type]
    for fault, injected in listed:
        hidden = fault.bin is not None or fault.vpa is not None
        if injected.id == row.fault_id:
            high = min(low + fault.probability, 1)
            where = f"lies in [{low:g}, {high:g})" if sure else f"falls on its probability of {fault.probability:g}"
            if sure and not low <= share < high:
                where = f"should lie in [{low:g}, {high:g}): the settings known of that time are not those that it met"
            sentence = f"fault: {injected.id} ({_conditions(fault)}) applied, and the draw {share:.6f} {where}"
            return injected, [sentence, f"the client saw: {_seen(injected.kind)}"]
        if hidden:
            sure = False
        elif applies(fault, asked):
            low += fault.probability
    if row.fault is not None:
        reason = _own_fault(row)
        return None, [f"fault: {row.fault}: {reason}", f"the client saw: {_seen(row.fault)}"]
    if listed:
        return None, [f"fault: none; of {len(listed)} for {row.operation} none applied and took the draw {share:.6f}"]
    return None, ["fault: none is set for this operation"]


def of_outcome(code: str | None, draw: Draw, at: Scene, record: Record | None) -> str:
    """What decided the outcome of a charge. `draw` is that of its first create, `code` the response code."""
    mix = Mix(at.outcomes)
    picked, (low, high) = mix.pick(draw.outcome), mix.interval(draw.outcome)
    by_mix = f"the draw {fraction(draw.outcome):.6f} lies in [{low:g}, {high:g}) of {picked} in the mix"
    if record is not None and record.later is not None:
        return "a test card that is approved whatever the mix says"
    if code == picked:
        return by_mix
    if code in FORCED:
        return f"{FORCED[code]} (the mix would have said {picked})"
    cards = [f"...{number[-4:]}" for number, forced in CARD_CODES.items() if forced == code]
    vpas = [vpa for vpa, script in VPAS.items() if script.code == code]
    known = cards if at.provider == "card" else vpas if at.provider == "upi" else []
    values = f"; test values for it: {', '.join(known)}" if known else ""
    return f"forced to {code} by a test value{' or a person' if not cards else ''}{values}; {by_mix}"


def of_customer(record: Record | None, draw: Draw, at: Scene) -> str:
    """What a pending charge waits for."""
    waiting = record.waiting if record else None
    if waiting is None:
        return "waits for its customer"
    if waiting.decision is None:
        stays = "the bank TESTP" if waiting.bank_code == BANK_STAYS_PENDING else "customer.acts = false"
        return f"waits for a person ({stays}), or expires after {waiting.expires_in_ms} ms"
    why = of_outcome(waiting.decision, draw, at, record)
    if waiting.bank_code in BANK_SCRIPTS:
        why = f"the bank {waiting.bank_code} is a test value"
    when = f"{waiting.decides_in_ms} ms after the answer"
    drawn_ms = LatencyTable.pick(latency_table(at.settings.customer.delay), draw.customer_delay)
    if drawn_ms == waiting.decides_in_ms:
        when += f" (the quantile {fraction(draw.customer_delay):.6f} of {_json(at.settings.customer.delay)})"
    return f"the customer decides {waiting.decision} {when}: {why}"


def fate(draws: Draws, provider: str, operation: str, drawn_for: str) -> Draw:
    """The draw that decides what becomes of something: that of the first try, whichever gets through."""
    return draws.draw(provider, operation, drawn_for, 1)


def charge_code(row: Row) -> str:
    """Status and response code in words."""
    return f"{row.status} {row.response_code}" if row.response_code else f"{row.status}"


def _own_fault(row: Row) -> str:
    if row.fault == "overloaded":
        return "all servers of the station were busy and its queue was full"
    if (row.fault_id or "").endswith(".inquiries"):
        return "the reference was asked for more often than inquiries_per_min allows"
    if row.fault == "response_lost" and (row.fault_id or "").endswith((".test_value", ".vpa")):
        return "the test value timeout@upi loses the answer"
    return f"{row.fault_id} is not in the settings known of that time"


def _seen(kind: str) -> str:
    return SEEN.get(kind, kind.replace("http_", "HTTP "))


def _conditions(fault: Fault) -> str:
    told = {
        name: value
        for name, value in msgspec.to_builtins(fault, enc_hook=str).items()
        if value is not None and name not in ("name", "operation")
    }
    if fault.bin is not None:
        told["bin"] = "as configured"  # a prefix of card numbers stays in the configuration
    return ", ".join(f"{name} {value}" for name, value in told.items())


def _json(value: Any) -> str:  # noqa: ANN401 - a latency
    return msgspec.json.encode(value, enc_hook=str).decode()
