"""Statements: opening balance, movements and closing balance add up, whatever the format; then over HTTP."""

import csv
import io
import re
from datetime import timedelta
from functools import partial
from typing import Any

import msgspec
import mt940
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.clock import Clock
from simulators.journal import BLOCK_WEIGHT, Entry, Journal
from simulators.settlement import DAY_MS, day_start
from simulators.statements import account_of, csv_file, json_file, movements, mt940_file, survey

DAY = "2027-01-15"
START_MS = round(day_start(DAY).timestamp() * 1000)
MESSAGE_LENGTH_MAX = 2000  # SWIFT
X_CHARACTERS = re.compile(r"[A-Za-z0-9/\-?:().,'+{} ]*")  # SWIFT's character set x


class State(msgspec.Struct, frozen=True):
    currency: str
    providerID: str = "bank_0011223344556677"
    status: str = "approved"
    amount: int = 1


def entry(amount: int, ms: int = 0, operation: str = "decide", reference: str = "ref", **fields: Any) -> Entry:
    state = State(fields.pop("currency", "INR"))
    merchant = fields.pop("merchant", "m")
    return Entry(
        START_MS + ms, fields.pop("provider", "bank"), operation, reference, 1, state, amount, merchant=merchant, **fields
    )


def journal_of(*entries: Entry) -> Journal:
    journal = Journal()
    for one in entries:
        journal.append(one)
    return journal


def surveyed(journal: Journal, currency: str = "INR", day: str = DAY):
    steps = survey(journal, "m", day_start(day), currency)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def text(write, journal: Journal, **where: str) -> str:
    found = surveyed(journal, **where)
    return "".join(write(found, movements(journal, found)))


def as_json(journal: Journal, **where: str) -> dict[str, Any]:
    return msgspec.json.decode(text(json_file, journal, **where))


def as_csv(journal: Journal, **where: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text(csv_file, journal, **where), newline="")))


def messages(journal: Journal, **where: str) -> list[list[str]]:
    return [one.split("\r\n") for one in text(mt940_file, journal, **where).split("\r\n-\r\n")[:-1]]


MIXED = (
    entry(5000, -DAY_MS),
    entry(700, -1),
    entry(1000, 0, reference="first"),
    entry(0, 1, "status"),
    entry(1, 2, merchant="other"),
    entry(1, 2, merchant="m\" 'm"),
    entry(1, 2, provider="upi"),
    entry(70, 2, currency="JPY"),
    entry(-200, 3, "refund", subject="refund_1"),
    entry(-300, 4, "reverse"),
    entry(-4000, 5, "payout", "out", subject="123456789012"),
    entry(4000, 6, "payout", "out", subject="123456789012"),
    entry(9, DAY_MS - 1, reference="last"),
    entry(77, DAY_MS),
)


def test_a_statement_has_what_moved_the_merchants_account_that_day_with_running_balances():
    found = as_json(journal_of(*MIXED))
    assert (found["merchantID"], found["currency"], found["day"]) == ("m", "INR", DAY)
    lines = [(line["type"], line["reference"], line["subject"], line["amount"], line["balance"]) for line in found["movements"]]
    assert lines == [
        ("charge", "first", "", 1000, 6700),
        ("refund", "ref", "refund_1", -200, 6500),
        ("reversal", "ref", "", -300, 6200),
        ("payout", "out", "123456789012", -4000, 2200),
        ("payout_return", "out", "123456789012", 4000, 6200),
        ("charge", "last", "", 9, 6209),
    ]
    assert (found["opening"], found["closing"], found["count"]) == (5700, 6209, 6)


def test_an_account_is_of_one_currency():
    found = as_json(journal_of(*MIXED), currency="JPY")
    assert [line["amount"] for line in found["movements"]] == [70]
    assert found["account"] == account_of("m", "JPY") != account_of("m", "INR")


def test_a_day_without_movements_closes_as_it_opened():
    journal = journal_of(entry(-500, -1))
    found = as_json(journal)
    assert (found["opening"], found["movements"], found["closing"], found["count"]) == (-500, [], -500, 0)
    assert [(row["type"], row["balance"]) for row in as_csv(journal)] == [("opening", "-500"), ("closing", "-500")]
    assert [line for line in messages(journal)[0] if line[:3] in (":60", ":61", ":62")] == [
        ":60F:D270114INR5,00",
        ":62F:D270115INR5,00",
    ]


amounts = st.lists(st.integers(-(10**12), 10**12).filter(bool), max_size=2 * BLOCK_WEIGHT // 20)


@given(before=amounts, within=amounts, after=amounts)
def test_opening_and_movements_are_the_closing_in_each_format_and_tomorrows_opening(before, within, after):
    journal = journal_of(
        *(entry(amount, -1) for amount in before),
        *(entry(amount, 1) for amount in within),
        *(entry(amount, DAY_MS) for amount in after),
    )
    found = as_json(journal)
    assert found["opening"] == sum(before)
    assert [line["amount"] for line in found["movements"]] == within
    assert found["closing"] == sum(before) + sum(within)
    rows = as_csv(journal)
    assert [int(row["amount"]) for row in rows[1:-1]] == within
    assert (int(rows[0]["balance"]), int(rows[-1]["balance"])) == (found["opening"], found["closing"])
    assert mt940_balances(messages(journal)) == (found["opening"], within, found["closing"])
    tomorrow = (day_start(DAY) + timedelta(days=1)).strftime("%Y-%m-%d")
    assert as_json(journal, day=tomorrow)["opening"] == found["closing"]


def mt940_balances(found: list[list[str]]) -> tuple[int, list[int], int]:
    """Opening, amounts, closing; checks that each message adds up and goes on from the one before."""
    first, amounts, balance = None, [], None
    for number, message in enumerate(found):
        opening, closing = (minor(find(message, tag)[1:]) for tag in (":60", ":62"))
        assert balance in (None, opening)
        marks = [re.match(r":61:\d{10}(C|D|RC|RD)([0-9,]+)NTRF", line) for line in message if line.startswith(":61:")]
        own = [minor(("C" if mark[1] in ("C", "RD") else "D") + "270115INR" + mark[2]) for mark in marks]
        assert opening + sum(own) == closing
        assert find(message, ":60")[0] == ("F" if number == 0 else "M")
        assert find(message, ":62")[0] == ("F" if number == len(found) - 1 else "M")
        assert f"/{number + 1:05d}" in next(line for line in message if line.startswith(":28C:"))
        first, balance = opening if first is None else first, closing
        amounts += own
    assert first is not None
    assert balance is not None
    return first, amounts, balance


def find(message: list[str], tag: str) -> str:
    """F or M, then the balance."""
    line = next(line for line in message if line.startswith(tag))
    return line[3] + line[5:]


def minor(balance: str) -> int:
    sign, amount = -1 if balance[0] == "D" else 1, balance[10:]
    return sign * int(amount.replace(",", ""))


def test_mt940_says_what_each_movement_was():
    (first, second) = messages(journal_of(*MIXED))
    assert first == [
        ":20:STMT20270115",
        f":25:{account_of('m', 'INR')}",
        ":28C:015/00001",
        ":60F:C270114INR57,00",
        ":61:2701150115C10,00NTRFfirst",
        ":86:/TYPE/charge",
        "/REF/first",
        "/ID/bank.0011223344556677",
        ":61:2701150115D2,00NTRFref//refund.1",
        ":86:/TYPE/refund",
        "/REF/ref",
        "/SUBJ/refund.1",
        "/ID/bank.0011223344556677",
        ":61:2701150115RC3,00NTRFref",
        ":86:/TYPE/reversal",
        "/REF/ref",
        "/ID/bank.0011223344556677",
        ":61:2701150115D40,00NTRFout//123456789012",
        ":86:/TYPE/payout",
        "/REF/out",
        "/SUBJ/123456789012",
        "/ID/bank.0011223344556677",
        ":61:2701150115RD40,00NTRFout//123456789012",
        ":86:/TYPE/payout.return",
        "/REF/out",
        "/SUBJ/123456789012",
        "/ID/bank.0011223344556677",
        ":62M:C270115INR62,00",
    ]
    assert second[2:5] == [":28C:015/00002", ":60M:C270115INR62,00", ":61:2701150115C0,09NTRFlast"]
    assert second[-1] == ":62F:C270115INR62,09"


def test_mt940_is_read_by_others_as_it_was_meant():
    first, second = (mt940.parse("\r\n".join(message)) for message in messages(journal_of(*MIXED)))
    assert {one.data["account_identification"] for one in (first, second)} == {account_of("m", "INR")}
    kinds = ("final_opening_balance", "intermediate_closing_balance", "intermediate_opening_balance", "final_closing_balance")
    assert [str(balance) for one in (first, second) for kind in kinds if (balance := one.data.get(kind))] == [
        "57.00 INR @ 2027-01-14",
        "62.00 INR @ 2027-01-15",
        "62.00 INR @ 2027-01-15",
        "62.09 INR @ 2027-01-15",
    ]
    lines = [line.data for one in (first, second) for line in one]
    names = ("status", "customer_reference", "bank_reference")  # not the sign of the amount, which it does not turn for RC
    assert [(*(line[name] for name in names), str(abs(line["amount"].amount))) for line in lines] == [
        ("C", "first", None, "10.00"),
        ("D", "ref", "refund.1", "2.00"),
        ("RC", "ref", None, "3.00"),
        ("D", "out", "123456789012", "40.00"),
        ("RD", "out", "123456789012", "40.00"),
        ("C", "last", None, "0.09"),
    ]
    assert lines[1]["transaction_details"] == "/TYPE/refund\n/REF/ref\n/SUBJ/refund.1\n/ID/bank.0011223344556677"


@pytest.mark.parametrize(("currency", "amount"), [("JPY", "1234,"), ("KWD", "1,234")])
def test_mt940_amounts_have_the_decimals_of_their_currency(currency, amount):
    journal = journal_of(entry(1234, currency=currency))
    assert f":61:2701150115C{amount}NTRFref" in messages(journal, currency=currency)[0]


@given(references=st.lists(st.text("Aa0_-", min_size=1, max_size=64), min_size=1, max_size=12))
def test_mt940_keeps_to_the_lengths_and_characters_of_swift_whatever_the_reference(references):
    entries = (entry(-(10**14), 1, "payout", reference, subject=reference) for reference in references)
    found = messages(journal_of(*entries))
    for message in found:
        assert len("\r\n".join([*message, "-"])) <= MESSAGE_LENGTH_MAX
        for line in message:
            assert X_CHARACTERS.fullmatch(line)
            assert len(line) <= 4 + 66
            assert line[0] in ":/"
    told = re.findall(r"/REF/([^\r]*)(?:\r\n/CONT/([^\r]*))?", "\r\n".join(line for one in found for line in one))
    assert ["".join(parts).replace(".", "_") for parts in told] == references


def test_a_statement_is_of_what_the_journal_had_when_it_began():
    journal = journal_of(*(entry(1) for _ in range(3 * BLOCK_WEIGHT)))
    found = surveyed(journal)
    pages = movements(journal, found)
    journal.append(entry(1))
    assert sum(len(page) for page in pages) == 3 * BLOCK_WEIGHT


@pytest.fixture
def start(start):
    return partial(start, clock=Clock(lambda: START_MS))


async def test_a_statement_comes_over_http_in_each_format(start):
    client = await start()
    await client.card("card")  # not the bank's money
    order = {"reference": "out", "amount": 5, "currency": "INR", "merchantID": "shop 1", "mode": "IMPS", "purpose": "p"}
    order |= {"beneficiary": {"type": "wallet", "provider": "w", "phone": "9000000000"}, "callbackURL": "http://127.0.0.1:9/"}
    assert (await client.call("POST", "/bank/payouts", json=order))[0] == 200
    await client.call("POST", "/admin/clock/advance", json={"by": "1h"})
    path = f"/bank/statements/shop%201/{DAY}"
    kinds = {"json": "application/json", "csv": "text/csv", "mt940": "text/plain"}
    for wanted, kind in kinds.items():
        async with client.session.get(f"{client.url}{path}?format={wanted}") as answer:
            assert (answer.status, answer.content_type) == (200, kind)
            assert "out" in await answer.text()
    _, found, _ = await client.call("GET", path)
    assert (found["merchantID"], found["closing"], found["movements"][0]["type"]) == ("shop 1", -5, "payout")
    assert (await client.call("GET", f"/bank/statements/other/{DAY}"))[1]["count"] == 0


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("m/2027-1-15", "must be YYYY-MM-DD"),
        ("m/today", "must be YYYY-MM-DD"),
        (f"m%00/{DAY}", "printable"),
        (f"{'m' * 256}/{DAY}", "1 to 255"),
        (f"m/{DAY}?format=xml", "format"),
        (f"m/{DAY}?currency=rupees", "currency"),
        (f"m/{DAY}?from=1", "from"),
    ],
)
async def test_a_statement_that_cannot_be_is_refused(start, path, reason):
    client = await start()
    status, answer, _ = await client.call("GET", f"/bank/statements/{path}")
    assert (status, answer["code"]) == (400, "invalid_request")
    assert reason in answer["error"]


async def test_a_statement_has_two_names_in_its_path(start):
    client = await start()
    for path in ("m", f"m/{DAY}/more", ""):
        assert (await client.call("GET", f"/bank/statements/{path}"))[0] == 404
    assert (await client.call("POST", f"/bank/statements/m/{DAY}"))[0] == 405
