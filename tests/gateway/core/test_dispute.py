"""Every status of a dispute, times every status that its provider can tell of."""

from itertools import product
from typing import Any, get_args

import msgspec
import pytest

from gateway.core import dispute as core
from gateway.core.dispute import Dispute, Status, Work
from gateway.core.errors import CallerError
from gateway.core.payment import Payment
from tests.gateway.doubles import NOW_MS, make_dispute, make_payment

LATER_MS = NOW_MS + 700
STATUSES: tuple[Status, ...] = get_args(Status)
CHARGEBACK = {"needs_response", "under_review", "won", "lost"}

# What may be told of after what; whatever else is told is older, or the same again, and changes nothing.
FOLLOWED = {
    None: set(STATUSES),
    "warning_needs_response": {"warning_under_review", "warning_closed", *CHARGEBACK},
    "warning_under_review": {"warning_closed", *CHARGEBACK},
    "warning_closed": set(),
    "needs_response": {"under_review", "won", "lost"},
    "under_review": {"won", "lost"},
    "won": set(),
    "lost": set(),
}
EVENTS = {
    "warning_needs_response": "dispute.opened",
    "warning_under_review": "dispute.under_review",
    "warning_closed": "dispute.closed",
    "needs_response": "dispute.opened",
    "under_review": "dispute.under_review",
    "won": "dispute.won",
    "lost": "dispute.lost",
}
PAIRS = list(product(FOLLOWED, STATUSES))


def at(status: Status | None, **fields: Any) -> tuple[Payment, Dispute | None]:
    taken = 600 if status in ("needs_response", "under_review", "lost") else 0
    given = {"captured_minor": 1000, "refunded_minor": 100, "refunding_minor": 200, "disputed_minor": taken}
    payment = make_payment(status="completed", version=3, sequence=2, dispute_status=status, **given | fields)
    return payment, None if status is None else make_dispute(payment, amount_minor=600, status=status)


def tell(payment: Payment, before: Dispute | None, status: Status, amount_minor: int = 600) -> Work | None:
    told = make_dispute(payment, amount_minor=amount_minor, status=status)
    return core.step(payment, before, told, now_ms=LATER_MS, timestamp="T")


def test_the_table_is_complete():
    assert len(PAIRS) == 8 * 7
    assert {before: set(after) for before, after in core.TRANSITIONS.items()} == {k: v for k, v in FOLLOWED.items() if k}


def test_what_is_older_or_told_again_changes_nothing():
    ignored = [(before, told) for before, told in PAIRS if told not in FOLLOWED[before]]
    assert len(ignored) == 56 - 7 - 6 - 5 - 3 - 2
    for status, told in ignored:
        payment, before = at(status)
        encoded = msgspec.json.encode((payment, before))
        assert tell(payment, before, told) is None, (status, told)
        assert msgspec.json.encode((payment, before)) == encoded


@pytest.mark.parametrize("told", STATUSES)
def test_a_dispute_goes_where_the_table_says(told: Status):
    for status in (before for before in FOLLOWED if told in FOLLOWED[before]):
        payment, before = at(status)
        work = tell(payment, before, told)
        assert work is not None, (status, told)
        final = told in ("won", "lost", "warning_closed")
        assert (work.dispute.status, work.dispute.updated_at_ms) == (told, LATER_MS)
        assert work.dispute.due_at_ms == (None if final else NOW_MS + 3_600_000)
        [event] = work.events
        assert (event.type, event.sequence) == (EVENTS[told], 3)
        assert event.body is not None
        data = msgspec.json.decode(event.body)["data"]
        assert (data["disputeID"], data["status"], data["amount"], data["reason"]) == (work.dispute.id, told, 600, "fraudulent")
        changes = {"version": 4, "sequence": 3, "updated_at_ms": LATER_MS, "dispute_status": told}
        disputed = 600 if told in CHARGEBACK - {"won"} else 0
        assert work.payment == msgspec.structs.replace(payment, disputed_minor=disputed, **changes)


def test_money_goes_when_a_dispute_opens_and_comes_back_when_it_is_won():
    for status, told in PAIRS:
        payment, before = at(status)
        work = tell(payment, before, told)
        if work is None:
            continue
        opens = told in CHARGEBACK and status not in CHARGEBACK
        names = [f"ent_{work.dispute.id}_opened"] * opens + [f"ent_{work.dispute.id}_won"] * (told == "won")
        assert [entry.id for entry in work.entries] == names, (status, told)
        for entry in work.entries:
            back = entry.id.endswith("_won")
            moved = {posting.account: posting.debit_minor - posting.credit_minor for posting in entry.postings}
            assert moved == {"payable:merchant_123": -600 if back else 600, "receivable:card": 600 if back else -600}


@pytest.mark.parametrize("told", STATUSES)
def test_more_than_is_left_cannot_be_taken_but_may_be_inquired_about(told: Status):
    for taken in ({"captured_minor": 699}, {"refunded_minor": 401, "refunding_minor": 0}, {"disputed_minor": 301}):
        payment, _ = at(None, **taken)
        before = msgspec.json.encode(payment)
        if told in CHARGEBACK - {"won"}:  # what is won already has come back
            with pytest.raises(CallerError) as caught:
                tell(payment, None, told)
            assert (caught.value.status, caught.value.code) == (409, "dispute_exceeds_captured")
        else:
            assert tell(payment, None, told) is not None
        assert msgspec.json.encode(payment) == before


@pytest.mark.parametrize("told", sorted(CHARGEBACK))
def test_what_is_being_refunded_may_be_disputed(told: Status):
    """The provider decides which of them came first: it refuses the refund, or it has told of less."""
    payment, _ = at(None, captured_minor=1000, refunded_minor=400, refunding_minor=600)
    assert tell(payment, None, told) is not None


@pytest.mark.parametrize("evidence", ["it was delivered", None])
@pytest.mark.parametrize("status", STATUSES)
def test_a_response_is_taken_where_one_is_needed_and_once(status: Status, evidence: str | None):
    payment, dispute = at(status)
    assert dispute is not None
    before = msgspec.json.encode((payment, dispute))
    if status not in ("needs_response", "warning_needs_response"):
        with pytest.raises(CallerError) as caught:
            core.begin_response(payment, dispute, evidence, now_ms=LATER_MS)
        assert (caught.value.status, caught.value.code) == (409, "dispute_not_open")
    else:
        work = core.begin_response(payment, dispute, evidence, now_ms=LATER_MS)
        assert work.dispute.responding == ("accept" if evidence is None else "evidence")
        assert (work.dispute.evidence, work.dispute.status) == (evidence, status)
        assert work.payment == msgspec.structs.replace(payment, version=4, updated_at_ms=LATER_MS)
        assert (work.events, work.entries) == ((), ())
        with pytest.raises(CallerError) as caught:
            core.begin_response(work.payment, work.dispute, evidence, now_ms=LATER_MS)
        assert (caught.value.status, caught.value.code) == (409, "operation_in_progress")
    assert msgspec.json.encode((payment, dispute)) == before
