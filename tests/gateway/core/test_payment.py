"""Every state of an attempt, times everything that can be learnt about it, times every status of the payment."""

from itertools import product
from typing import Any

import msgspec
import pytest

from gateway.core import payment as core
from gateway.core.ledger import Posting
from gateway.core.outcome import NextAction, Outcome, Pending
from gateway.core.payment import Attempt, Payment, Step
from tests.gateway.doubles import NOW_MS, OUTCOMES, make_attempt, make_payment

LATER_MS = NOW_MS + 700
TIMESTAMP = "2030-03-17T17:46:40.700Z"

# The attempt's state afterwards. A dot: nothing follows, nothing changes.
STATES_AFTER = """
              intent         unknown        pending        reversing      succeeded      declined   reversed  manual_review
Approved      succeeded      succeeded      succeeded      .              .              reversing  .         succeeded
Declined      declined       declined       declined       declined       manual_review  .          .         declined
Expired       declined       declined       declined       declined       manual_review  .          .         declined
Pending       pending        pending        .              .              .              .          .         .
NotSent       declined       .              .              .              .              .          .         .
Unknown       unknown        .              .              .              .              .          .         .
Reversed      reversed       reversed       reversed       reversed       manual_review  .          .         reversed
NotFound      reversing      reversing      reversing      .              .              .          .         .
Overdue       .              .              reversing      .              .              .          .         .
GaveUp        manual_review  manual_review  manual_review  manual_review  .              .          .         .
"""

# The statuses that the payment passes through, by what it was and what became of the attempt. A payment that is
# not waiting for anything (pending, completed, failed, expired) never moves because of its attempt.
PATHS = {
    ("processing", "succeeded"): ["completed"],
    ("processing", "declined"): ["failed"],
    ("processing", "reversed"): ["failed"],
    ("processing", "pending"): ["requires_action"],
    ("requires_action", "succeeded"): ["processing", "completed"],
    ("requires_action", "declined"): ["failed"],
    ("requires_action", "reversed"): ["expired"],
}
EXPIRED_WHILE_WAITING = ["expired"]  # requires_action, and the provider says that the customer's time is up

FAILURES = {
    "Declined": ("insufficient_funds", "51"),
    "Expired": ("expired", "U69"),
    "NotSent": ("provider_unavailable", None),
    "Reversed": ("provider_did_not_process", None),
}

# DOMAIN.md, without what needs capture, void and 3-D Secure.
STEPS_ALLOWED = {
    "pending": {"requires_action", "processing", "failed", "expired"},
    "requires_action": {"processing", "failed", "expired"},
    "processing": {"completed", "failed", "requires_action"},
    "completed": set(),
    "failed": set(),
    "expired": set(),
}
STATUSES = list(STEPS_ALLOWED)
FINAL = {"succeeded", "declined", "reversed"}


def states_after() -> dict[tuple[str, str], str | None]:
    header, *lines = [line.split() for line in STATES_AFTER.strip().splitlines()]
    return {
        (state, line[0]): None if cell == "." else cell for line in lines for state, cell in zip(header, line[1:], strict=True)
    }


def at(status: str, state: str) -> tuple[Payment, Attempt]:
    """A payment and its attempt in the middle of their lives."""
    waiting = NextAction("redirect", url="https://bank.example/1") if status == "requires_action" else None
    payment = make_payment(status=status, version=3, sequence=2, next_action=waiting)
    return payment, make_attempt(payment, state=state, response_code="00" if state == "succeeded" else None)


def take(payment: Payment, attempt: Attempt, outcome: Outcome, *, fee: int = 0) -> Step | None:
    return core.step(payment, attempt, outcome, now_ms=LATER_MS, timestamp=TIMESTAMP, fee_basis_points=fee)


def path_of(status: str, state: str, found: str) -> list[str]:
    if (status, state, found) == ("requires_action", "declined", "Expired"):
        return EXPIRED_WHILE_WAITING
    return PATHS.get((status, state), [])


CASES = [(status, state, found) for status, (state, found) in product(STATUSES, states_after())]


def is_followed(status: str, state: str, found: str) -> bool:
    """What a person has to look at is left to them once the payment has ended."""
    if state == "manual_review" and status not in ("processing", "requires_action"):
        return False
    return states_after()[state, found] is not None


FOLLOWED = [case for case in CASES if is_followed(*case)]


def followed(status: str) -> list[tuple[str, str]]:
    return [case[1:] for case in FOLLOWED if case[0] == status]


def ignored(status: str) -> list[tuple[str, str]]:
    return [case[1:] for case in CASES if case[0] == status and case not in FOLLOWED]


def test_the_table_is_complete():
    assert len(CASES) == 6 * 8 * 10
    assert {found for _, _, found in CASES} == set(OUTCOMES)


@pytest.mark.parametrize("status", STATUSES)
def test_what_teaches_nothing_changes_nothing(status: str):
    for state, found in ignored(status):
        payment, attempt = at(status, state)
        before = msgspec.json.encode((payment, attempt))
        assert take(payment, attempt, OUTCOMES[found]) is None
        assert msgspec.json.encode((payment, attempt)) == before


@pytest.mark.parametrize(("status", "state", "found"), FOLLOWED)
def test_attempt_and_payment_go_where_the_table_says(status: str, state: str, found: str):
    payment, attempt = at(status, state)
    after = take(payment, attempt, OUTCOMES[found])
    assert after is not None
    expected_state = states_after()[state, found]
    path = path_of(status, str(expected_state), found)
    assert after.attempt.state == expected_state
    assert after.payment.status == (path or [status])[-1]
    assert [event.type for event in after.events] == [f"payment.{name}" for name in path]
    assert [event.sequence for event in after.events] == list(range(3, 3 + len(path)))
    assert after.payment.sequence == 2 + len(path)
    assert after.payment.version == 4
    assert after.payment.updated_at_ms == LATER_MS


@pytest.mark.parametrize("status", STATUSES)
def test_money_is_booked_exactly_when_the_payment_completes(status: str):
    for state, found in followed(status):
        after = take(*at(status, state), OUTCOMES[found])
        assert after is not None
        completes = after.payment.status == "completed" != status
        assert (after.entry is not None) == completes
        assert after.payment.captured_minor == (1000 if completes else 0)


@pytest.mark.parametrize("status", STATUSES)
def test_a_failed_payment_says_why(status: str):
    for state, found in followed(status):
        after = take(*at(status, state), OUTCOMES[found])
        assert after is not None
        ended = path_of(status, after.attempt.state, found)[-1:] in (["failed"], ["expired"])
        expected = FAILURES[found] if ended else (None, None)
        assert (after.payment.failure_reason, after.payment.decline_code) == expected


@pytest.mark.parametrize("status", STATUSES)
def test_recovery_looks_at_open_attempts_and_at_no_others(status: str):
    for state, found in followed(status):
        payment, attempt = at(status, state)
        after = take(payment, attempt, OUTCOMES[found])
        assert after is not None
        is_open = after.attempt.state in {"intent", "pending", "unknown", "reversing"}
        assert after.attempt.due_at_ms == (attempt.due_at_ms if is_open else None)
        assert after.attempt.resolved_at_ms == (LATER_MS if after.attempt.state in FINAL else None)
        assert after.attempt.unknown_at_ms == (LATER_MS if after.attempt.state == "unknown" else None)


@pytest.mark.parametrize("status", STATUSES)
def test_what_a_step_must_not_touch_stays(status: str):
    for state, found in followed(status):
        payment, attempt = at(status, state)
        after = take(payment, attempt, OUTCOMES[found])
        assert after is not None
        for name in (
            "id",
            "merchant_id",
            "order_id",
            "method",
            "amount_minor",
            "currency",
            "transaction_id",
            "created_at_ms",
            "details",
        ):
            assert getattr(after.payment, name) == getattr(payment, name)
        for name in (
            "reference",
            "payment_id",
            "provider",
            "amount_minor",
            "currency",
            "expires_at_ms",
            "inquiries",
            "created_at_ms",
        ):
            assert getattr(after.attempt, name) == getattr(attempt, name)


def test_the_table_of_transitions_is_the_documented_one():
    assert {status: set(after) for status, after in core.TRANSITIONS.items()} == STEPS_ALLOWED


@pytest.mark.parametrize("status", STATUSES)
def test_a_transition_outside_the_table_raises_and_changes_nothing(status: str):
    payment: Any = make_payment(status=status)
    if "processing" in STEPS_ALLOWED[status]:
        assert core.begin(payment, make_attempt(payment), timestamp=TIMESTAMP).payment.status == "processing"
    else:
        with pytest.raises(ValueError, match=f"cannot go from {status} to processing"):
            core.begin(payment, make_attempt(payment), timestamp=TIMESTAMP)
    assert payment == make_payment(status=status)


def test_a_payment_begins_by_processing_at_version_one():
    payment = make_payment()
    begun = core.begin(payment, make_attempt(payment), timestamp=TIMESTAMP)
    assert (begun.payment.status, begun.payment.version, begun.payment.sequence) == ("processing", 1, 1)
    assert [(event.type, event.sequence, event.body) for event in begun.events] == [("payment.processing", 1, None)]


def test_a_capture_is_booked_with_its_fee():
    payment = make_payment(status="processing", amount_minor=1005)
    after = take(payment, make_attempt(payment), OUTCOMES["Approved"], fee=200)
    assert after is not None
    assert after.entry is not None
    assert after.entry.postings == (
        Posting("receivable:card", "INR", 1005, 0),
        Posting("payable:merchant_123", "INR", 0, 985),
        Posting("fees", "INR", 0, 20),
    )
    assert after.entry.id == f"ent_{1:032x}_capture"


def test_the_customers_next_action_comes_and_goes():
    payment = make_payment(status="processing")
    asked = take(payment, make_attempt(payment), Pending("prov_1", NextAction("upi_qr", payload="upi://pay")))
    assert asked is not None
    assert asked.payment.next_action == NextAction("upi_qr", payload="upi://pay")
    done = take(asked.payment, asked.attempt, OUTCOMES["Approved"])
    assert done is not None
    assert done.payment.next_action is None


def test_a_pending_charge_that_asks_nothing_of_the_customer_leaves_the_payment_processing():
    payment = make_payment(status="processing", sequence=1)
    after = take(payment, make_attempt(payment), Pending("prov_1", None))
    assert after is not None
    assert (after.attempt.state, after.payment.status, after.events) == ("pending", "processing", ())


def test_only_the_end_of_a_payment_is_published_and_its_body_is_the_documented_one():
    payment = make_payment(status="requires_action", version=3, sequence=2)
    after = take(payment, make_attempt(payment, state="pending"), OUTCOMES["Approved"])
    assert after is not None
    processing, completed = after.events
    assert processing.body is None
    assert completed.body is not None
    assert msgspec.json.decode(completed.body) == {
        "event": "payment.completed",
        "data": {
            "paymentID": payment.id,
            "status": "completed",
            "amount": 1000,
            "currency": "INR",
            "transactionID": payment.transaction_id,
            "timestamp": TIMESTAMP,
        },
        "id": completed.id,
        "sequence": 4,
    }


def test_the_webhook_of_a_decline_says_why():
    payment = make_payment(status="processing")
    after = take(payment, make_attempt(payment), OUTCOMES["Declined"])
    assert after is not None
    assert after.events[0].body is not None
    data = msgspec.json.decode(after.events[0].body)["data"]
    assert (data["status"], data["failureReason"], data["declineCode"]) == ("failed", "insufficient_funds", "51")
