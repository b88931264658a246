"""Every state of an attempt, times everything that can be learnt about it, times every status of the payment."""

from itertools import product
from typing import Any, get_args

import msgspec
import pytest

from gateway.core import payment as core
from gateway.core.errors import CallerError
from gateway.core.ledger import Posting
from gateway.core.outcome import NextAction, Outcome, Pending
from gateway.core.payment import Attempt, Payment, Step
from tests.gateway.doubles import NOW_MS, OUTCOMES, STEPS_ALLOWED, make_attempt, make_payment

LATER_MS = NOW_MS + 700
TIMESTAMP = "2030-03-17T17:46:40.700Z"

# The attempt's state afterwards. A dot: nothing follows, nothing changes.
STATES_AFTER = """
            intent         unknown        pending        reversing      authorized     succeeded      declined   reversed  manual_review
Approved    succeeded      succeeded      succeeded      .              .              .              reversing  .         succeeded
Authorized  authorized     authorized     authorized     .              .              .              reversing  .         authorized
Declined    declined       declined       declined       declined       manual_review  manual_review  .          .         declined
Expired     declined       declined       declined       declined       reversed       manual_review  .          .         declined
Pending     pending        pending        .              .              .              .              .          .         .
NotSent     declined       .              .              .              .              .              .          .         .
Unknown     unknown        .              .              .              .              .              .          .         .
Reversed    reversed       reversed       reversed       reversed       reversed       manual_review  .          .         reversed
Irreversible .             .              .              manual_review  .              .              .          .         .
NotFound    reversing      reversing      reversing      .              .              .              .          .         .
Overdue     .              .              reversing      .              .              .              .          .         .
Lapsed      .              .              .              .              .              .              .          .         .
GaveUp      manual_review  manual_review  manual_review  manual_review  .              .              .          .         .
"""

# What the payment is waiting for, where that makes a difference to its attempt: (scene, state, found) -> state.
# While a capture is open, nothing counts that is heard of its authorization.
CAPTURING = {
    (f"{status} capturing", "authorized", found): "." for status in ("authorized", "partially_captured") for found in OUTCOMES
}
# Of what was captured in part, money has been taken; its remainder may lapse.
CAPTURED = {
    ("partially_captured", "authorized", "Reversed"): "manual_review",
    ("partially_captured", "authorized", "Expired"): "manual_review",
    ("partially_captured", "authorized", "Lapsed"): "succeeded",
}
# A void that was given up goes on.
ENDING = {
    (f"{status} ending", "manual_review", found): "reversing"
    for status in ("requires_action", "authorized")
    for found in ("Approved", "Authorized")
}
# Money that was taken and cannot be given back by a reversal completes what waits for the provider's word.
TAKEN = {
    (scene, "reversing", "Irreversible"): "succeeded" for scene in ("processing", "requires_action", "requires_action ending")
}
EXCEPTIONS = CAPTURING | CAPTURED | ENDING | TAKEN
# What a person has to look at is left to them once the payment waits for nothing.
REVIEWED = {"processing", "requires_action", "requires_action ending", "authorized ending"}

# The statuses that the payment passes through, by what it was and what became of the attempt. A payment that is
# not waiting for anything (pending, completed, voided, failed, expired) never moves because of its attempt.
PATHS = {
    ("processing", "succeeded"): ["completed"],
    ("processing", "authorized"): ["authorized"],
    ("processing", "declined"): ["failed"],
    ("processing", "reversed"): ["failed"],
    ("processing", "pending"): ["requires_action"],
    ("requires_action", "succeeded"): ["processing", "completed"],
    ("requires_action", "authorized"): ["processing", "authorized"],
    ("requires_action", "declined"): ["failed"],
    ("requires_action", "reversed"): ["expired"],
    ("requires_action ending", "succeeded"): ["processing", "completed"],
    ("requires_action ending", "authorized"): ["processing", "authorized"],
    ("requires_action ending", "declined"): ["failed"],
    ("requires_action ending", "reversed"): ["voided"],
    **{(scene, end): ["expired"] for scene in ("authorized", "authorized capturing") for end in ("declined", "reversed")},
    ("authorized ending", "declined"): ["voided"],
    ("authorized ending", "reversed"): ["voided"],
    ("partially_captured", "succeeded"): ["completed"],
    ("partially_captured capturing", "succeeded"): ["completed"],
}
EXPIRED_WHILE_WAITING = ["expired"]  # requires_action, and the provider says that the customer's time is up

FAILURES = {
    "Declined": ("insufficient_funds", "51"),
    "Expired": ("expired", "U69"),
    "NotSent": ("provider_unavailable", None),
    "Reversed": ("provider_did_not_process", None),
}

STATUSES = list(STEPS_ALLOWED)
SCENES = [*STATUSES, "authorized capturing", "partially_captured capturing", "requires_action ending", "authorized ending"]
OPEN = {"intent", "pending", "unknown", "reversing", "authorized"}
FINAL = {"succeeded", "declined", "reversed"}


def states_after() -> dict[tuple[str, str], str]:
    header, *lines = [line.split() for line in STATES_AFTER.strip().splitlines()]
    return {(state, line[0]): cell for line in lines for state, cell in zip(header, line[1:], strict=True)}


TABLE = states_after()
STATES = sorted({state for state, _ in TABLE})
CASES = list(product(SCENES, STATES, OUTCOMES))


def state_after(scene: str, state: str, found: str) -> str | None:
    """What the tables say; None if nothing follows."""
    if state == "manual_review" and scene not in REVIEWED:
        return None
    after = EXCEPTIONS.get((scene, state, found), TABLE[state, found])
    return None if after == "." else after


def at(scene: str, state: str) -> tuple[Payment, Attempt]:
    """A payment and its attempt in the middle of their lives."""
    status, _, facet = scene.partition(" ")
    payment = make_payment(
        status=status,
        version=3,
        sequence=2,
        next_action=NextAction("redirect", url="https://bank.example/1") if status == "requires_action" else None,
        capture_method="manual" if "authorized" in status or "captured" in status else "automatic",
        captured_minor={"completed": 1000, "partially_captured": 400}.get(status, 0),
        capturing_minor=300 if facet == "capturing" else 0,
        ending="voided" if facet == "ending" else None,
    )
    return payment, make_attempt(payment, state=state, response_code="00" if state == "succeeded" else None)


def take(payment: Payment, attempt: Attempt, outcome: Outcome, *, fee: int = 0) -> Step | None:
    return core.step(payment, attempt, outcome, now_ms=LATER_MS, timestamp=TIMESTAMP, fee_basis_points=fee)


def path_of(scene: str, state: str, found: str) -> list[str]:
    if (scene.partition(" ")[0], state, found) == ("requires_action", "declined", "Expired"):
        return EXPIRED_WHILE_WAITING
    return PATHS.get((scene, state), [])


def followed(scene: str) -> list[tuple[str, str, Step, Payment, Attempt]]:
    """Each case of a scene in which something follows: the attempt's state, what was found, what follows, and what was before."""
    found_here = []
    for state, found in product(STATES, OUTCOMES):
        if state_after(scene, state, found) is not None:
            payment, attempt = at(scene, state)
            after = take(payment, attempt, OUTCOMES[found])
            assert after is not None, (state, found)
            found_here.append((state, found, after, payment, attempt))
    return found_here


def test_the_table_is_complete():
    assert len(TABLE) == 9 * 13
    assert len(CASES) == 13 * 9 * 13
    assert {found for _, found in TABLE} == set(OUTCOMES)
    assert {type(outcome) for outcome in OUTCOMES.values()} == set(get_args(Outcome))
    assert set(STATES) == set(get_args(core.AttemptState))
    assert set(STATUSES) == set(get_args(core.Status))


@pytest.mark.parametrize("scene", SCENES)
def test_what_teaches_nothing_changes_nothing(scene: str):
    ignored = [case[1:] for case in CASES if case[0] == scene and state_after(*case) is None]
    for state, found in ignored:
        payment, attempt = at(scene, state)
        before = msgspec.json.encode((payment, attempt))
        assert take(payment, attempt, OUTCOMES[found]) is None, (state, found)
        assert msgspec.json.encode((payment, attempt)) == before


@pytest.mark.parametrize("scene", SCENES)
def test_attempt_and_payment_go_where_the_table_says(scene: str):
    for state, found, after, before, _ in followed(scene):
        expected_state = state_after(scene, state, found)
        path = path_of(scene, str(expected_state), found)
        assert after.attempt.state == expected_state, (state, found)
        assert after.payment.status == (path or [before.status])[-1], (state, found)
        assert [event.type for event in after.events] == [f"payment.{name}" for name in path]
        assert [event.sequence for event in after.events] == list(range(3, 3 + len(path)))
        assert after.payment.sequence == 2 + len(path)
        assert after.payment.version == 4
        assert after.payment.updated_at_ms == LATER_MS
        assert after.payment.ending == (None if path else before.ending)


@pytest.mark.parametrize("scene", SCENES)
def test_money_is_booked_exactly_when_a_charge_succeeds(scene: str):
    for state, found, after, before, _ in followed(scene):
        charged = after.payment.status == "completed" and before.status in ("processing", "requires_action")
        assert bool(after.entries) == charged, (state, found)
        assert after.payment.captured_minor == (1000 if charged else before.captured_minor)


@pytest.mark.parametrize("scene", SCENES)
def test_a_failed_payment_says_why(scene: str):
    for state, found, after, before, _ in followed(scene):
        ended = path_of(scene, after.attempt.state, found)[-1:] in (["failed"], ["expired"])
        why = ("authorization_expired", None) if before.status == "authorized" else FAILURES.get(found)
        assert (after.payment.failure_reason, after.payment.decline_code) == (why if ended else (None, None)), (state, found)


@pytest.mark.parametrize("scene", SCENES)
def test_recovery_looks_at_open_attempts_and_at_no_others(scene: str):
    for state, found, after, _, attempt in followed(scene):
        now = after.attempt.state
        assert after.attempt.due_at_ms == (attempt.due_at_ms if now in OPEN else None), (state, found)
        assert after.attempt.resolved_at_ms == (LATER_MS if now in FINAL | {"authorized"} else None), (state, found)
        assert after.attempt.unknown_at_ms == (LATER_MS if now == "unknown" else None)


PAYMENT_KEPT = "id merchant_id order_id method amount_minor currency transaction_id created_at_ms details capture_method"
FACETS_KEPT = "capturing_minor refunding_minor refunded_minor disputed_minor dispute_status"
ATTEMPT_KEPT = "reference payment_id provider amount_minor currency expires_at_ms inquiries created_at_ms"


@pytest.mark.parametrize("scene", SCENES)
def test_what_a_step_must_not_touch_stays(scene: str):
    for state, found, after, payment, attempt in followed(scene):
        for name in (PAYMENT_KEPT + " " + FACETS_KEPT).split():
            assert getattr(after.payment, name) == getattr(payment, name), (state, found)
        for name in ATTEMPT_KEPT.split():
            assert getattr(after.attempt, name) == getattr(attempt, name), (state, found)


# Void and expiry


def refusal(scene: str, state: str) -> str | None:
    """Why a void is refused here, if it is."""
    if not scene.startswith(("requires_action", "authorized")):
        return "not_voidable"
    if "capturing" in scene:
        return "operation_in_progress"
    if state == "manual_review":  # nobody is at it any more
        return None
    return "operation_in_progress" if "ending" in scene or state not in OPEN else None


@pytest.mark.parametrize("ending", ["voided", "expired"])
@pytest.mark.parametrize("scene", SCENES)
def test_what_waits_or_is_authorized_can_be_ended_and_nothing_else(scene: str, ending: Any):
    for state in STATES:
        payment, attempt = at(scene, state)
        before, expected = msgspec.json.encode((payment, attempt)), refusal(scene, state)
        if expected is not None:
            with pytest.raises(CallerError) as caught:
                core.begin_ending(payment, attempt, ending, now_ms=LATER_MS)
            assert (caught.value.status, caught.value.code) == (409, expected), state
        else:
            begun = core.begin_ending(payment, attempt, ending, now_ms=LATER_MS)
            changes = {"ending": ending, "version": 4, "updated_at_ms": LATER_MS}
            assert begun.payment == msgspec.structs.replace(payment, **changes)
            assert begun.attempt == msgspec.structs.replace(attempt, state="reversing", due_at_ms=LATER_MS)
            assert (begun.events, begun.entries) == ((), ())
        assert msgspec.json.encode((payment, attempt)) == before


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


@pytest.mark.parametrize(("method", "superseded"), [("manual", False), ("automatic", True)])
def test_money_that_nobody_asked_to_take_and_cannot_be_given_back_is_left_to_a_person(method: Any, superseded: bool):
    payment = make_payment(status="processing", capture_method=method)
    found = {"now_ms": LATER_MS, "timestamp": TIMESTAMP, "fee_basis_points": 0, "superseded": superseded}
    after = core.step(payment, make_attempt(payment, state="reversing"), OUTCOMES["Irreversible"], **found)
    assert after is not None
    assert (after.payment.status, after.attempt.state, after.entries) == ("processing", "manual_review", ())


def test_a_capture_is_booked_with_its_fee():
    payment = make_payment(status="processing", amount_minor=1005)
    after = take(payment, make_attempt(payment), OUTCOMES["Approved"], fee=200)
    assert after is not None
    [entry] = after.entries
    assert entry.postings == (
        Posting("receivable:card", "INR", 1005, 0),
        Posting("payable:merchant_123", "INR", 0, 985),
        Posting("fees", "INR", 0, 20),
    )
    assert entry.id == f"ent_{1:032x}_capture"


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


@pytest.mark.parametrize(("state", "published"), [("intent", False), ("unknown", True)])
def test_that_the_customer_has_to_act_is_published_where_the_answer_could_not_tell_it(state: Any, published: bool):
    payment = make_payment(status="processing", sequence=1)
    after = take(payment, make_attempt(payment, state=state), OUTCOMES["Pending"])
    assert after is not None
    assert [(event.type, event.body is not None) for event in after.events] == [("payment.requires_action", published)]


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
