"""Every state of a capture or refund, times everything that a provider can say about it; and what a payment allows to begin."""

from itertools import product
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core import money
from gateway.core import operation as core
from gateway.core.errors import CallerError
from gateway.core.operation import Kind, Operation, Work
from gateway.core.outcome import Approved, Outcome
from gateway.core.payment import Payment
from tests.gateway.doubles import NOW_MS, OUTCOMES, STEPS_ALLOWED, make_attempt, make_operation, make_payment

LATER_MS = NOW_MS + 700
TIMESTAMP = "2030-03-17T17:46:40.700Z"

# The state afterwards. A dot: nothing follows, nothing changes. What is not listed teaches nothing.
STATES_AFTER = """
           pending     unknown     processing  completed  failed
Approved   completed   completed   completed   .          .
Declined   failed      failed      failed      late       .
Pending    processing  processing  .           .          .
NotSent    failed      .           .           .          .
Unknown    unknown     .           .           .          .
"""
OPEN = {"pending", "unknown", "processing"}
SCENES: list[tuple[Kind, str, bool]] = [
    ("capture", "authorized", False),
    ("capture", "authorized", True),
    ("capture", "partially_captured", False),
    ("capture", "partially_captured", True),
    ("refund", "completed", False),
    ("refund", "partially_captured", False),
]
AMOUNT = 300  # of the operation; beside it 100 were refunded and 200 are being refunded


def states_after() -> dict[tuple[str, str], str]:
    header, *lines = [line.split() for line in STATES_AFTER.strip().splitlines()]
    return {(state, line[0]): cell for line in lines for state, cell in zip(header, line[1:], strict=True) if cell != "."}


TABLE = states_after()
STATES = get_args(core.State)


def state_after(kind: Kind, state: str, found: str) -> str | None:
    after = TABLE.get((state, found))
    if after == "late":  # a refund that the cardholder's bank could not take; a capture is not undone like this
        return "failed" if kind == "refund" else None
    return after


def at(kind: Kind, status: str, final: bool, state: str) -> tuple[Payment, Operation]:
    """A payment with an operation in the middle of its life."""
    captured = {"authorized": 0, "partially_captured": 650, "completed": 1000}[status]
    fields: dict[str, Any] = {"capturing_minor": AMOUNT if kind == "capture" and state in OPEN else 0}
    if kind == "refund":
        fields["refunding_minor"] = 200 + AMOUNT * (state in OPEN)
        fields["refunded_minor"] = 100 + AMOUNT * (state == "completed")
    payment = make_payment(status=status, version=3, sequence=2, captured_minor=captured, capture_method="manual", **fields)
    due_at_ms = NOW_MS + 2_500 if state in OPEN else None
    return payment, make_operation(payment, kind, amount_minor=AMOUNT, final=final, state=state, due_at_ms=due_at_ms)


def take(payment: Payment, operation: Operation, outcome: Outcome, fee: int = 0) -> Work | None:
    attempt = make_attempt(payment, state="authorized")
    return core.step(payment, attempt, operation, outcome, now_ms=LATER_MS, timestamp=TIMESTAMP, fee_basis_points=fee)


def followed(kind: Kind, status: str, final: bool) -> list[tuple[str, Work, Payment, Operation]]:
    found_here = []
    for state, found in product(STATES, OUTCOMES):
        if state_after(kind, state, found) is not None:
            payment, operation = at(kind, status, final, state)
            work = take(payment, operation, OUTCOMES[found])
            assert work is not None, (state, found)
            found_here.append((found, work, payment, operation))
    return found_here


scenes = pytest.mark.parametrize(("kind", "status", "final"), SCENES)


@scenes
def test_what_teaches_nothing_changes_nothing(kind: Kind, status: str, final: bool):
    ignored = [pair for pair in product(STATES, OUTCOMES) if state_after(kind, *pair) is None]
    assert len(ignored) == 5 * 13 - (10 if kind == "capture" else 11)
    for state, found in ignored:
        payment, operation = at(kind, status, final, state)
        before = msgspec.json.encode((payment, operation))
        assert take(payment, operation, OUTCOMES[found]) is None, (state, found)
        assert msgspec.json.encode((payment, operation)) == before


@scenes
def test_an_operation_goes_where_the_table_says(kind: Kind, status: str, final: bool):
    for found, work, payment, before in followed(kind, status, final):
        after = work.operation
        assert after.state == state_after(kind, before.state, found), (before.state, found)
        assert after.due_at_ms == (before.due_at_ms if after.state in OPEN else None)
        assert (after.failure_reason is not None) == (after.state == "failed")
        assert (work.payment.version, work.payment.updated_at_ms) == (4, LATER_MS)
        assert [event.sequence for event in work.events] == list(range(3, 3 + len(work.events)))
        assert work.payment.sequence == payment.sequence + len(work.events)
        kept = (
            "id kind payment_id merchant_id provider charge_reference amount_minor currency final note inquiries created_at_ms"
        )
        for name in kept.split():
            assert getattr(after, name) == getattr(before, name)


@scenes
def test_what_is_set_aside_is_set_free_once_the_operation_has_ended(kind: Kind, status: str, final: bool):
    for found, work, payment, before in followed(kind, status, final):
        now, state = work.payment, work.operation.state
        opened, completed = before.state in OPEN and state not in OPEN, state == "completed"
        taken_back = before.state == "completed"
        capture = kind == "capture"
        assert now.capturing_minor == (0 if capture and opened else payment.capturing_minor), (before.state, found)
        assert now.captured_minor - payment.captured_minor == (AMOUNT if capture and completed else 0)
        assert payment.refunding_minor - now.refunding_minor == (AMOUNT if not capture and opened else 0)
        moved = AMOUNT if completed else -AMOUNT if taken_back else 0
        assert now.refunded_minor - payment.refunded_minor == (0 if capture else moved)
        assert 0 <= now.refunded_minor + now.refunding_minor <= now.captured_minor or capture
        assert now.captured_minor + now.capturing_minor <= now.amount_minor


@scenes
def test_only_a_capture_that_was_made_moves_the_payment(kind: Kind, status: str, final: bool):
    for found, work, payment, _ in followed(kind, status, final):
        captured = kind == "capture" and work.operation.state == "completed"
        expected = ("completed" if final else "partially_captured") if captured else status
        assert work.payment.status == expected, found
        assert (work.attempt is not None) == (captured and final)
        if work.attempt is not None:
            assert (work.attempt.state, work.attempt.due_at_ms, work.attempt.resolved_at_ms) == ("succeeded", None, LATER_MS)
        kept = "id merchant_id amount_minor currency transaction_id disputed_minor dispute_status next_action failure_reason"
        for name in kept.split():
            assert getattr(work.payment, name) == getattr(payment, name)


@scenes
def test_each_end_is_told_and_booked(kind: Kind, status: str, final: bool):
    for found, work, _, before in followed(kind, status, final):
        state, taken_back = work.operation.state, before.state == "completed"
        told = {
            ("capture", "completed"): ["payment.completed" if final else "payment.partially_captured"],
            ("capture", "failed"): ["capture.failed"],
            ("refund", "completed"): ["refund.completed"],
            ("refund", "failed"): ["refund.failed"],
        }.get((kind, state), [])
        assert [event.type for event in work.events] == told, (before.state, found)
        name = {"completed": f"ent_{before.id}", "failed": f"ent_{before.id}_failed" if taken_back else ""}.get(state)
        assert [entry.id for entry in work.entries] == ([name] if name else [])
        for entry in work.entries:
            moved = {posting.account: posting.debit_minor - posting.credit_minor for posting in entry.postings}
            owed = AMOUNT if kind == "capture" or taken_back else -AMOUNT
            assert moved == {"receivable:card": owed, "payable:merchant_123": -owed}


def test_a_failure_says_why_in_the_operation_and_in_the_webhook():
    for kind, found in product(("capture", "refund"), ("Declined", "NotSent")):
        payment, operation = at(kind, "partially_captured", False, "pending")  # type: ignore[arg-type]
        work = take(payment, operation, OUTCOMES[found])
        assert work is not None
        why = ("insufficient_funds", "51") if found == "Declined" else ("provider_unavailable", None)
        assert (work.operation.failure_reason, work.operation.response_code) == why
        [event] = work.events
        assert event.body is not None
        data = msgspec.json.decode(event.body)["data"]
        assert (data["failureReason"], data.get("declineCode")) == why
        assert data["captureID" if kind == "capture" else "refundID"] == operation.id


# Begin


def begin(payment: Payment, kind: Kind, amount: int, **fields: Any) -> Work:
    operation = make_operation(payment, kind, amount_minor=amount, **fields)
    return core.begin(payment, operation, now_ms=LATER_MS, timestamp=TIMESTAMP)


def refused(payment: Payment, kind: Kind, amount: int) -> str:
    before = msgspec.json.encode(payment)
    with pytest.raises(CallerError) as caught:
        begin(payment, kind, amount)
    assert caught.value.status == 409
    assert msgspec.json.encode(payment) == before
    return caught.value.code


@pytest.mark.parametrize("status", STEPS_ALLOWED)
def test_only_what_is_authorized_can_be_captured(status: str):
    payment = make_payment(status=status, version=3)
    if status in ("authorized", "partially_captured"):
        assert begin(payment, "capture", 1).payment == msgspec.structs.replace(
            payment, capturing_minor=1, version=4, updated_at_ms=LATER_MS
        )
    else:
        assert refused(payment, "capture", 1) == "not_capturable"


@pytest.mark.parametrize("busy", [{"capturing_minor": 1}, {"ending": "voided"}, {"ending": "expired"}])
def test_one_capture_or_void_is_under_way_at_a_time(busy: dict[str, Any]):
    assert refused(make_payment(status="authorized", **busy), "capture", 1) == "operation_in_progress"


def test_no_more_is_captured_than_is_left_and_the_last_part_is_final():
    payment = make_payment(status="partially_captured", captured_minor=400)
    assert refused(payment, "capture", 601) == "capture_exceeds_authorized"
    assert [begin(payment, "capture", amount).operation.final for amount in (599, 600)] == [False, True]
    assert begin(payment, "capture", 1, final=True).operation.final


@pytest.mark.parametrize("status", STEPS_ALLOWED)
def test_only_what_was_captured_can_be_refunded(status: str):
    payment = make_payment(status=status, captured_minor=500 if status in ("completed", "partially_captured") else 0)
    if payment.captured_minor:
        work = begin(payment, "refund", 500)
        assert (work.payment.refunding_minor, work.payment.refunded_minor, work.payment.status) == (500, 0, status)
        assert [(event.type, event.body) for event in work.events] == [("refund.created", None)]
    else:
        assert refused(payment, "refund", 1) == "not_captured"


@pytest.mark.parametrize(
    ("taken", "code"),
    [
        ({"refunded_minor": 400}, "refund_exceeds_captured"),
        ({"refunding_minor": 400}, "refund_exceeds_captured"),
        ({"refunding_minor": 150, "refunded_minor": 250}, "refund_exceeds_captured"),
        ({"disputed_minor": 400}, "payment_disputed"),
        ({"refunding_minor": 100, "refunded_minor": 100, "disputed_minor": 200}, "payment_disputed"),
    ],
)
def test_what_is_refunded_being_refunded_or_disputed_cannot_be_refunded_again(taken: dict[str, int], code: str):
    payment = make_payment(status="completed", captured_minor=1000, **taken)
    assert core.refundable_minor(payment) == 600
    assert refused(payment, "refund", 601) == code
    assert begin(payment, "refund", 600).payment.refunding_minor == taken.get("refunding_minor", 0) + 600


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=8), st.integers(0, 10_000))
def test_the_fees_of_partial_captures_add_up_to_the_fee_on_the_whole(parts: list[int], fee: int):
    payment = make_payment(status="authorized", amount_minor=sum(parts))
    fees, payable = 0, 0
    for n, part in enumerate(parts, start=1):
        begun = core.begin(payment, make_operation(payment, "capture", n, amount_minor=part), now_ms=n, timestamp="T")
        work = take(begun.payment, begun.operation, Approved("prov_1", "00"), fee)
        assert work is not None
        payment, [entry] = work.payment, work.entries
        postings = {posting.account: posting for posting in entry.postings}
        assert postings["receivable:card"].debit_minor == part
        payable += postings["payable:merchant_123"].credit_minor
        fees += part - postings["payable:merchant_123"].credit_minor
    assert payment.status == "completed"
    assert (fees, fees + payable) == (money.fee_minor(sum(parts), basis_points=fee), sum(parts))
