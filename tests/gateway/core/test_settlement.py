"""A settlement's states, its sum, and what it books."""

from datetime import date
from itertools import product
from typing import Any, get_args

import msgspec
import pytest

from gateway.core import settlement as core
from gateway.core.errors import CallerError
from gateway.core.ledger import Entry
from gateway.core.outcome import Declined, NotSent, Unknown
from gateway.core.settlement import Line, Payee, PayoutTold, Settlement, State, begin_payout, close, hold, step

NOW_MS = 1_900_000_000_000
STAMP = "2030-03-17T17:46:40.000Z"
PAYEE = Payee("000123456789", "HDFC0000001", "A. Payee")
SET = f"set_{1:032x}"
REFERENCE = f"out_{1:032x}_01"

CARD = Line(provider="card", captured_minor=1000, fees_minor=20, refunds_minor=300, captures=2, refunds=1)
UPI = Line(provider="upi", captured_minor=500, chargebacks_minor=200, captures=1, chargebacks=1)
IN_DEBT = Line(provider="card", captured_minor=100, refunds_minor=900, captures=1, refunds=1)

SAID: dict[str, Any] = {
    **{name: PayoutTold(status=name, provider_id="bank_1") for name in get_args(core.PayoutStatus)},
    "refused": Declined("invalid_request", "invalid_request"),
    "not sent": NotSent("ClientConnectorError"),
    "unknown": Unknown("TimeoutError"),
}
ANSWERED = {
    "pending": "processing",
    "processing": "processing",
    "completed": "completed",
    "failed": "failed",
    "returned": "failed",
    "refused": "failed",
}
# (state, what the bank said) -> state. All others change nothing.
ALLOWED: dict[tuple[str, str], str] = {
    **{("processing", said): after for said, after in ANSWERED.items()},
    **{("unknown", said): after for said, after in ANSWERED.items()},
    ("processing", "not sent"): "unknown",
    ("processing", "unknown"): "unknown",
    ("completed", "returned"): "failed",
}


def new() -> Settlement:
    return core.begin(
        SET, merchant_id="m_1", day=date(2030, 3, 16), timezone="UTC", currency="INR", until_ms=NOW_MS, now_ms=NOW_MS
    )


def closed(*lines: Line, opening: int = 0) -> core.Work:
    return close(new(), lines, opening, now_ms=NOW_MS, timestamp=STAMP)


def in_state(state: State) -> Settlement:
    """One that owes 980, which has been ordered if that can be."""
    if state == "computing":
        return new()
    ready = closed(CARD, UPI).settlement
    if state == "ready":
        return ready
    return msgspec.structs.replace(begin_payout(ready, PAYEE, now_ms=NOW_MS), state=state)


def moves(entries: tuple[Entry, ...]) -> list[tuple[str, str, int]]:
    """(debit, credit, amount) of entries with two postings."""
    made = []
    for entry in entries:
        debit, credit = entry.postings
        assert debit.debit_minor == credit.credit_minor > 0
        made.append((debit.account, credit.account, debit.debit_minor))
    return made


def told(settlement: Settlement, said: str) -> core.Work | None:
    return step(settlement, REFERENCE, SAID[said], now_ms=NOW_MS + 1, timestamp=STAMP)


@pytest.mark.parametrize(("state", "said"), list(product(get_args(State), SAID)))
def test_every_word_of_the_bank_in_every_state(state: State, said: str):
    settlement = in_state(state)
    work = told(settlement, said)
    after = ALLOWED.get((state, said))
    if after is None:
        assert work is None
        return
    assert work is not None
    assert work.settlement.state == after
    assert work.settlement.version == settlement.version + 1
    assert (work.settlement.reason is not None) == (after == "failed")


def test_a_sum_is_less_fees_refunds_and_chargebacks():
    work = closed(CARD, UPI)
    made = work.settlement
    assert (CARD.net_minor, UPI.net_minor) == (680, 300)
    assert (made.net_minor, made.amount_minor, made.carried_minor, made.entries) == (980, 980, 0, 5)
    assert made.state == "ready"
    assert [event.type for event in work.events] == ["settlement.created"]
    assert moves(work.entries) == [("bank", "receivable:card", 700), ("bank", "receivable:upi", 300)]


def test_what_a_provider_gets_back_is_remitted_the_other_way_round():
    assert moves(closed(IN_DEBT, UPI).entries) == [("receivable:card", "bank", 800), ("bank", "receivable:upi", 300)]


def test_a_provider_that_owes_nothing_remits_nothing():
    even = Line(provider="card", captured_minor=100, refunds_minor=100, captures=1, refunds=1)
    assert closed(even).entries == ()


@pytest.mark.parametrize(
    ("lines", "opening", "amount", "carried", "reason"),
    [
        ((IN_DEBT,), 0, 0, -800, "negative_balance"),
        ((IN_DEBT,), -50, 0, -850, "negative_balance"),
        ((UPI,), -300, 0, 0, "nothing_to_pay"),
        ((UPI,), -299, 1, 0, None),
        ((CARD,), -700, 0, -20, "negative_balance"),
    ],
)
def test_nothing_is_paid_below_zero(lines: tuple[Line, ...], opening: int, amount: int, carried: int, reason: str | None):
    work = closed(*lines, opening=opening)
    made = work.settlement
    assert (made.amount_minor, made.carried_minor, made.reason) == (amount, carried, reason)
    assert made.state == ("ready" if amount else "completed")
    assert [event.sequence for event in work.events] == ([1] if amount else [1, 2])
    assert made.sequence == len(work.events)


def test_the_payout_is_booked_once_it_is_completed_and_back_once_it_returns():
    paid = told(in_state("processing"), "completed")
    assert paid is not None
    assert moves(paid.entries) == [("payable:m_1", "bank", 980)]
    back = told(paid.settlement, "returned")
    assert back is not None
    assert moves(back.entries) == [("bank", "payable:m_1", 980)]
    assert [event.type for event in (*paid.events, *back.events)] == ["settlement.completed", "settlement.failed"]
    assert back.settlement.reason == "returned"


def test_a_payout_that_returned_before_anyone_knew_that_it_completed_is_booked_both_ways():
    work = told(in_state("unknown"), "returned")
    assert work is not None
    assert moves(work.entries) == [("payable:m_1", "bank", 980), ("bank", "payable:m_1", 980)]


@pytest.mark.parametrize("said", ["pending", "processing", "failed", "refused", "unknown"])
def test_nothing_is_booked_as_long_as_nothing_was_paid(said: str):
    work = told(in_state("processing"), said)
    assert work is not None
    assert work.entries == ()


def test_the_same_word_twice_changes_nothing():
    once = told(in_state("processing"), "processing")
    assert once is not None
    assert told(once.settlement, "processing") is None


def test_another_payout_has_another_reference_and_hears_nothing_of_the_one_before():
    failed = in_state("failed")
    again = begin_payout(failed, PAYEE, now_ms=NOW_MS)
    assert failed.payout is not None
    assert again.payout is not None
    assert (failed.payout.reference, again.payout.reference) == (REFERENCE, f"out_{1:032x}_02")
    assert core.settlement_of(again.payout.reference) == SET
    assert all(told(again, said) is None for said in SAID)


@pytest.mark.parametrize("state", ["computing", "processing", "unknown", "completed"])
def test_only_what_waits_or_has_failed_is_paid(state: State):
    with pytest.raises(CallerError, match=state):
        begin_payout(in_state(state), PAYEE, now_ms=NOW_MS)


def test_why_it_cannot_be_paid_is_noted_once():
    held = hold(in_state("ready"), "no_payout_account", now_ms=NOW_MS)
    assert held is not None
    assert (held.state, held.reason) == ("ready", "no_payout_account")
    assert hold(held, "no_payout_account", now_ms=NOW_MS) is None
    assert begin_payout(held, PAYEE, now_ms=NOW_MS).reason is None
