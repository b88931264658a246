"""The payment's life as pure data: two tables and one function.

A payment is what the merchant asked for; an attempt is one try of it at one provider, under one reference. `step` takes both, and
what was learnt about the attempt (an `Outcome`), and returns both as they are afterwards, with the events to publish and the
ledger entry to book. It asks nobody anything: no clock, no database, no randomness.

Rules that the tables carry:

- Only definite answers end a payment. `Unknown` leaves it `processing`.
- An inquiry that finds nothing (`NotFound`) ends nothing either: the request may still be on its way. The attempt is reversed at the
  provider, which blocks the reference, and only the acknowledged reversal fails the payment.
- A success that arrives after the payment failed or expired is reversed at the provider, not revived.
- A provider that takes back a success it reported leaves the books alone and puts the attempt up for `manual_review`.
- `manual_review` is left by a definite answer, as long as the payment is open; once it is not, by a person.
- A charge that is pending and asks nothing of the customer leaves the payment `processing`.
- Repeating a finding changes nothing: callbacks may arrive twice, late and out of order.

The attempt's state `sent` exists only in memory: `intent` is written before the call, and after a crash it means "maybe sent".
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from gateway.core import ledger, money
from gateway.core.outcome import (
    Approved,
    Declined,
    Expired,
    GaveUp,
    NextAction,
    NotFound,
    NotSent,
    Outcome,
    Overdue,
    Pending,
    Reversed,
    Unknown,
)

Method = Literal["card", "upi", "netbanking"]
Status = Literal["pending", "requires_action", "processing", "completed", "failed", "expired"]
AttemptState = Literal["intent", "pending", "unknown", "reversing", "succeeded", "declined", "reversed", "manual_review"]

# Who may follow whom. Everything else is a bug and raises.
TRANSITIONS: dict[Status, frozenset[Status]] = {
    "pending": frozenset({"requires_action", "processing", "failed", "expired"}),
    "requires_action": frozenset({"processing", "failed", "expired"}),
    "processing": frozenset({"completed", "failed", "requires_action"}),
    "completed": frozenset(),
    "failed": frozenset(),
    "expired": frozenset(),
}

# What merchants are told of. The other events are history.
PUBLISHED: frozenset[Status] = frozenset({"completed", "failed", "expired"})

# Statuses in which the provider's word decides what becomes of the payment.
UNSETTLED: frozenset[Status] = frozenset({"processing", "requires_action"})

OPEN_STATES: frozenset[AttemptState] = frozenset({"intent", "pending", "unknown", "reversing"})

_SUCCEED: dict[type, AttemptState] = {Approved: "succeeded", Declined: "declined", Expired: "declined", Reversed: "reversed"}
_DOUBT: dict[type, AttemptState] = {NotFound: "reversing", GaveUp: "manual_review"}

# (state, what was learnt) -> state. A pair that is absent changes nothing.
ATTEMPT_TRANSITIONS: dict[AttemptState, dict[type, AttemptState]] = {
    "intent": {**_SUCCEED, **_DOUBT, NotSent: "declined", Pending: "pending", Unknown: "unknown"},
    "unknown": {**_SUCCEED, **_DOUBT, Pending: "pending"},
    "pending": {**_SUCCEED, **_DOUBT, Overdue: "reversing"},
    "reversing": {Reversed: "reversed", Declined: "declined", Expired: "declined", GaveUp: "manual_review"},
    "succeeded": {Declined: "manual_review", Expired: "manual_review", Reversed: "manual_review"},
    "declined": {Approved: "reversing"},
    "reversed": {},
    "manual_review": _SUCCEED,
}


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """`version` counts the writes: storing version n needs version n-1 to be there. `sequence` is the number of the last event.

    `details` is JSON that never changes: customer, instrument (a token, never a number), metadata.
    """

    id: str
    version: int
    merchant_id: str
    order_id: str
    method: Method
    amount_minor: int
    currency: str
    status: Status
    transaction_id: str
    captured_minor: int = 0
    sequence: int = 0
    failure_reason: str | None = None
    decline_code: str | None = None
    next_action: NextAction | None = None
    details: msgspec.Raw
    created_at_ms: int
    updated_at_ms: int


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """`due_at_ms` is when recovery looks at it next, None once its state is final. `expires_at_ms` is when the provider closes it."""

    reference: str
    payment_id: str
    provider: Method
    state: AttemptState
    amount_minor: int
    currency: str
    provider_id: str | None = None
    response_code: str | None = None
    inquiries: int = 0
    due_at_ms: int | None
    expires_at_ms: int
    unknown_at_ms: int | None = None
    resolved_at_ms: int | None = None
    created_at_ms: int


class Event(msgspec.Struct, frozen=True):
    """An immutable fact, numbered per payment from 1. `body` is the webhook's body, byte for byte, if the event is published."""

    id: str
    payment_id: str
    merchant_id: str
    sequence: int
    type: str
    body: bytes | None
    created_at_ms: int


class Step(msgspec.Struct, frozen=True):
    payment: Payment
    attempt: Attempt
    events: tuple[Event, ...] = ()
    entry: ledger.Entry | None = None


class WebhookData(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    payment_id: str = msgspec.field(name="paymentID")
    status: str
    amount: int
    currency: str
    transaction_id: str = msgspec.field(name="transactionID")
    timestamp: str
    failure_reason: str | None = None
    decline_code: str | None = None


class WebhookBody(msgspec.Struct, frozen=True):
    event: str
    data: WebhookData
    id: str
    sequence: int


_encode = msgspec.json.Encoder().encode


def begin(payment: Payment, attempt: Attempt, *, timestamp: str) -> Step:
    """The new payment's first step, `pending -> processing`: the intent, to be made durable before anyone is called."""
    moved, event = _move(payment, "processing", {}, now_ms=payment.created_at_ms, timestamp=timestamp)
    return Step(moved, attempt, (event,))


def step(
    payment: Payment, attempt: Attempt, outcome: Outcome, *, now_ms: int, timestamp: str, fee_basis_points: int
) -> Step | None:
    """What follows from `outcome`; None if nothing does. `timestamp` is `now_ms` as RFC 3339, for the webhook."""
    state = ATTEMPT_TRANSITIONS[attempt.state].get(type(outcome))
    if state is None or (attempt.state == "manual_review" and payment.status not in UNSETTLED):
        return None
    path = _path(payment.status, state, outcome)
    new_attempt = _attempt_after(attempt, state, outcome, now_ms)
    if not path:
        return Step(_touched(payment, now_ms), new_attempt)
    fields = {"version": payment.version + 1, **_fields_after(payment, state, outcome)}
    events = []
    for status in path:
        payment, event = _move(payment, status, fields, now_ms=now_ms, timestamp=timestamp)
        events.append(event)
    entry = _capture_entry(payment, attempt, now_ms, fee_basis_points) if state == "succeeded" else None
    return Step(payment, new_attempt, tuple(events), entry)


def _path(status: Status, state: AttemptState, outcome: Outcome) -> tuple[Status, ...]:
    """The statuses that the payment passes through, given the attempt's new state."""
    waiting = status == "requires_action"
    if status not in UNSETTLED:
        return ()
    if state == "succeeded":
        return ("processing", "completed") if waiting else ("completed",)
    if state == "declined":
        return ("expired",) if waiting and isinstance(outcome, Expired) else ("failed",)
    if state == "reversed":
        return ("expired",) if waiting else ("failed",)
    if isinstance(outcome, Pending) and outcome.next_action is not None and not waiting:
        return ("requires_action",)
    return ()


def _attempt_after(attempt: Attempt, state: AttemptState, outcome: Outcome, now_ms: int) -> Attempt:
    is_open = state in OPEN_STATES
    return msgspec.structs.replace(
        attempt,
        state=state,
        provider_id=getattr(outcome, "provider_id", None) or attempt.provider_id,
        response_code=getattr(outcome, "response_code", None) or attempt.response_code,
        due_at_ms=attempt.due_at_ms if is_open else None,
        unknown_at_ms=now_ms if state == "unknown" else attempt.unknown_at_ms,
        resolved_at_ms=None if is_open or state == "manual_review" else now_ms,
    )


def _fields_after(payment: Payment, state: AttemptState, outcome: Outcome) -> dict[str, Any]:
    """What changes about the payment besides its status."""
    if state == "succeeded":
        return {"captured_minor": payment.amount_minor, "next_action": None}
    if state == "pending":
        assert isinstance(outcome, Pending)
        return {"next_action": outcome.next_action}
    reason, code = _failure(outcome)
    return {"failure_reason": reason, "decline_code": code, "next_action": None}


def _failure(outcome: Outcome) -> tuple[str, str | None]:
    """(failureReason, declineCode) of an outcome that ends a payment without money."""
    match outcome:
        case Declined():
            return outcome.reason, outcome.response_code
        case Expired():
            return "expired", outcome.response_code
        case NotSent():
            return "provider_unavailable", None
        case _:
            return "provider_did_not_process", None


def _move(payment: Payment, status: Status, fields: Mapping[str, Any], *, now_ms: int, timestamp: str) -> tuple[Payment, Event]:
    if status not in TRANSITIONS[payment.status]:
        raise ValueError(f"payment {payment.id} cannot go from {payment.status} to {status}")
    sequence = payment.sequence + 1
    moved = msgspec.structs.replace(payment, status=status, sequence=sequence, updated_at_ms=now_ms, **fields)
    event_id = f"evt_{payment.id.removeprefix('pay_')}_{sequence}"
    body = _webhook_body(moved, event_id, timestamp) if status in PUBLISHED else None
    return moved, Event(event_id, payment.id, payment.merchant_id, sequence, f"payment.{status}", body, now_ms)


def _webhook_body(payment: Payment, event_id: str, timestamp: str) -> bytes:
    data = WebhookData(
        payment_id=payment.id,
        status=payment.status,
        amount=payment.amount_minor,
        currency=payment.currency,
        transaction_id=payment.transaction_id,
        timestamp=timestamp,
        failure_reason=payment.failure_reason,
        decline_code=payment.decline_code,
    )
    return _encode(WebhookBody(f"payment.{payment.status}", data, event_id, payment.sequence))


def _touched(payment: Payment, now_ms: int) -> Payment:
    """The attempt moved and the payment did not: still a new version, so that concurrent steps notice each other."""
    return msgspec.structs.replace(payment, version=payment.version + 1, updated_at_ms=now_ms)


def _capture_entry(payment: Payment, attempt: Attempt, now_ms: int, fee_basis_points: int) -> ledger.Entry:
    return ledger.capture(
        payment_id=payment.id,
        provider=attempt.provider,
        merchant_id=payment.merchant_id,
        currency=payment.currency,
        amount_minor=payment.amount_minor,
        fee_minor=money.fee_minor(payment.amount_minor, basis_points=fee_basis_points),
        now_ms=now_ms,
    )
