"""The payment's life as pure data: two tables and one function.

A payment is what the merchant asked for; an attempt is one try of it at one provider, under one reference. `step` takes both, and
what was learnt about the attempt (an `Outcome`), and returns both as they are afterwards, with the events to publish and the
ledger entries to book. It asks nobody anything: no clock, no database, no randomness. What merchants do with a payment afterwards
(capture, refund) is in operation.py, what issuers do in dispute.py.

Rules that the tables carry:

- Only definite answers end a payment. `Unknown` leaves it `processing`.
- An inquiry that finds nothing (`NotFound`) ends nothing either: the request may still be on its way. The attempt is reversed at the
  provider, which blocks the reference, and only the acknowledged reversal fails the payment.
- A success that arrives after the payment failed or expired is reversed at the provider, not revived.
- A provider that takes back a success it reported leaves the books alone and puts the attempt up for `manual_review`.
- `manual_review` is left by a definite answer, as long as the payment waits for one; once it does not, by a person.
- While a capture is open, nothing that is heard of its authorization counts: the capture's own answer will say.
- A void, and the expiry of an authorization, are reversals that somebody asked for: `ending` says what the payment becomes once the
  provider has acknowledged it. A customer who pays meanwhile changes nothing: the reversal undoes that, too. One that was given up
  goes on when the provider is heard again, or when the merchant asks again.
- A reversal that is refused because the money was taken and is disputed or refunded already completes a payment that waits for the
  provider's word, whatever was asked for; one that waits no more, or that was to be captured by hand, is put up for `manual_review`.
- A charge that is pending and asks nothing of the customer leaves the payment `processing`.
- A decline that asks for authentication (authentication.py) leads to a second attempt. From then on the payment goes by that one; should
  the first one turn out to have succeeded after all, it is reversed like any late success.
- Repeating a finding changes nothing: callbacks may arrive twice, late and out of order.

The attempt's state `sent` exists only in memory: `intent` is written before the call, and after a crash it means "maybe sent".
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from gateway.core import ledger, money
from gateway.core.errors import CallerError
from gateway.core.event import Event, EventData, EventType, event
from gateway.core.outcome import (
    Approved,
    Authorized,
    Declined,
    Expired,
    GaveUp,
    Irreversible,
    Lapsed,
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
Status = Literal[
    "pending",
    "requires_action",
    "processing",
    "authorized",
    "partially_captured",
    "completed",
    "voided",
    "failed",
    "expired",
]
AttemptState = Literal[
    "intent", "pending", "unknown", "reversing", "authorized", "succeeded", "declined", "reversed", "manual_review"
]
Ending = Literal["voided", "expired"]

# Who may follow whom. Everything else is a bug and raises.
TRANSITIONS: dict[Status, frozenset[Status]] = {
    "pending": frozenset({"requires_action", "processing", "failed", "expired"}),
    "requires_action": frozenset({"processing", "failed", "expired", "voided"}),
    "processing": frozenset({"authorized", "completed", "failed", "requires_action"}),
    "authorized": frozenset({"partially_captured", "completed", "voided", "expired"}),
    "partially_captured": frozenset({"partially_captured", "completed"}),  # the first: one more partial capture
    "completed": frozenset(),
    "voided": frozenset(),
    "failed": frozenset(),
    "expired": frozenset(),
}

# Statuses in which the provider's word decides what becomes of the payment.
UNSETTLED: frozenset[Status] = frozenset({"processing", "requires_action"})
VOIDABLE: frozenset[Status] = frozenset({"requires_action", "authorized"})

# What recovery has to look at, sooner or later. An authorization is looked at when it expires.
OPEN_STATES: frozenset[AttemptState] = frozenset({"intent", "pending", "unknown", "reversing", "authorized"})

_SUCCEED: dict[type, AttemptState] = {
    Approved: "succeeded",
    Authorized: "authorized",
    Declined: "declined",
    Expired: "declined",
    Reversed: "reversed",
}
_DOUBT: dict[type, AttemptState] = {NotFound: "reversing", GaveUp: "manual_review"}

# (state, what was learnt) -> state. A pair that is absent changes nothing.
ATTEMPT_TRANSITIONS: dict[AttemptState, dict[type, AttemptState]] = {
    "intent": {**_SUCCEED, **_DOUBT, NotSent: "declined", Pending: "pending", Unknown: "unknown"},
    "unknown": {**_SUCCEED, **_DOUBT, Pending: "pending"},
    "pending": {**_SUCCEED, **_DOUBT, Overdue: "reversing"},
    "reversing": {
        Reversed: "reversed",
        Declined: "declined",
        Expired: "declined",
        Irreversible: "succeeded",
        GaveUp: "manual_review",
    },
    # The provider lets an authorization go when it expires; we ask for that ourselves a little earlier.
    "authorized": {Expired: "reversed", Reversed: "reversed", Lapsed: "succeeded", Declined: "manual_review"},
    "succeeded": {Declined: "manual_review", Expired: "manual_review", Reversed: "manual_review"},
    "declined": {Approved: "reversing", Authorized: "reversing"},
    "reversed": {},
    "manual_review": _SUCCEED,
}


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """`version` counts the writes: storing version n needs version n-1 to be there. `sequence` is the number of the last event.

    `capturing_minor` and `refunding_minor` are asked for at the provider and not answered yet; `disputed_minor` is in disputes that are
    open or lost. `ending` is set while a void or expiry waits for the provider. `details` is JSON that never changes: customer,
    instrument (a token, never a number), metadata.
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
    capture_method: Literal["automatic", "manual"] = "automatic"
    capturing_minor: int = 0
    refunding_minor: int = 0
    refunded_minor: int = 0
    disputed_minor: int = 0
    dispute_status: str | None = None
    ending: Ending | None = None


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


class Step(msgspec.Struct, frozen=True):
    payment: Payment
    attempt: Attempt
    events: tuple[Event, ...] = ()
    entries: tuple[ledger.Entry, ...] = ()


def begin(payment: Payment, attempt: Attempt, *, timestamp: str) -> Step:
    """The new payment's first step, `pending -> processing`: the intent, to be made durable before anyone is called."""
    moved, event = move(payment, "processing", {}, now_ms=payment.created_at_ms, timestamp=timestamp)
    return Step(moved, attempt, (event,))


def begin_ending(payment: Payment, attempt: Attempt, ending: Ending, *, now_ms: int) -> Step:
    """The intent to void, or to let an authorization expire: the attempt is to be reversed. Raises CallerError 409."""
    if payment.status not in VOIDABLE:
        raise CallerError(
            409, "not_voidable", f"the payment is {payment.status}; only one that is authorized or waits can be voided"
        )
    under_way = payment.ending is not None or attempt.state not in OPEN_STATES
    if payment.capturing_minor or (under_way and attempt.state != "manual_review"):  # then nobody is at it any more
        raise operation_in_progress()
    reversing = msgspec.structs.replace(attempt, state="reversing", due_at_ms=now_ms)
    return Step(touched(payment, now_ms, ending=ending), reversing)


def step(
    payment: Payment,
    attempt: Attempt,
    outcome: Outcome,
    *,
    now_ms: int,
    timestamp: str,
    fee_basis_points: int,
    superseded: bool = False,
) -> Step | None:
    """What follows from `outcome`; None if nothing does. `timestamp` is `now_ms` as RFC 3339, for the webhook. `superseded`: the payment no
    longer goes by this attempt, which was declined; it is all that can change."""
    state = _state_after(payment, attempt, outcome, superseded)
    if state is None or (superseded and attempt.state == "manual_review"):
        return None
    path = () if superseded else _path(payment, state, outcome)
    new_attempt = _attempt_after(attempt, state, outcome, now_ms)
    if not path:
        return Step(touched(payment, now_ms), new_attempt)
    before, events = payment, []
    fields = {"version": payment.version + 1, **_fields_after(payment, path[-1], outcome)}
    answered = path == ("requires_action",) and attempt.state == "intent"  # later, nobody waits for the answer any more
    for status in path:
        payment, event = move(payment, status, fields, now_ms=now_ms, timestamp=timestamp, answered=answered)
        events.append(event)
    if payment.captured_minor == before.captured_minor:
        return Step(payment, new_attempt, tuple(events))
    entry = capture_entry(before, payment.captured_minor, f"{_serial(payment)}_capture", now_ms, fee_basis_points)
    return Step(payment, new_attempt, tuple(events), (entry,))


def _state_after(payment: Payment, attempt: Attempt, outcome: Outcome, superseded: bool) -> AttemptState | None:
    """The attempt's state, given what its payment is waiting for; None if nothing follows."""
    state = ATTEMPT_TRANSITIONS[attempt.state].get(type(outcome))
    if isinstance(outcome, Irreversible) and state is not None:
        taken = payment.status in UNSETTLED and payment.capture_method == "automatic" and not superseded
        return state if taken else "manual_review"
    if attempt.state == "manual_review" and payment.ending is not None:
        return "reversing" if state in ("succeeded", "authorized") else state  # what was asked for can go on
    if attempt.state == "manual_review" and payment.status not in UNSETTLED:
        return None
    if attempt.state == "authorized":
        if payment.capturing_minor:
            return None  # the capture's answer says what became of the authorization
        if payment.status == "partially_captured":
            # If it is reversed: money was taken, and the provider says that there was none.
            return "manual_review" if state == "reversed" else state
        return None if state == "succeeded" else state
    return state


def _path(payment: Payment, state: AttemptState, outcome: Outcome) -> tuple[Status, ...]:
    """The statuses that the payment passes through, given the attempt's new state."""
    status = payment.status
    if status == "authorized":
        return (payment.ending or "expired",) if state in ("reversed", "declined") else ()
    if status == "partially_captured":
        return ("completed",) if state == "succeeded" else ()
    if status not in UNSETTLED:
        return ()
    waiting = status == "requires_action"
    if state in ("succeeded", "authorized"):
        reached: Status = "completed" if state == "succeeded" else "authorized"
        return ("processing", reached) if waiting else (reached,)
    if state == "declined":
        return ("expired",) if waiting and isinstance(outcome, Expired) else ("failed",)
    if state == "reversed":
        return (payment.ending or "expired",) if waiting else ("failed",)
    if isinstance(outcome, Pending) and outcome.next_action is not None and not waiting:
        return ("requires_action",)
    return ()


def _attempt_after(attempt: Attempt, state: AttemptState, outcome: Outcome, now_ms: int) -> Attempt:
    is_open = state in OPEN_STATES
    resolved = not is_open and state != "manual_review"
    return msgspec.structs.replace(
        attempt,
        state=state,
        provider_id=getattr(outcome, "provider_id", None) or attempt.provider_id,
        response_code=getattr(outcome, "response_code", None) or attempt.response_code,
        due_at_ms=attempt.due_at_ms if is_open else None,
        unknown_at_ms=now_ms if state == "unknown" else attempt.unknown_at_ms,
        resolved_at_ms=now_ms if resolved or state == "authorized" else None,
    )


def _fields_after(payment: Payment, status: Status, outcome: Outcome) -> dict[str, Any]:
    """What changes about the payment besides its status, which will be `status`."""
    if status == "requires_action":
        assert isinstance(outcome, Pending)
        return {"next_action": outcome.next_action}
    fields: dict[str, Any] = {"next_action": None, "ending": None}
    if status == "completed" and payment.status in UNSETTLED:
        fields["captured_minor"] = payment.amount_minor
    elif status in ("failed", "expired"):
        fields["failure_reason"], fields["decline_code"] = _failure(payment, status, outcome)
    return fields


def _failure(payment: Payment, status: Status, outcome: Outcome) -> tuple[str, str | None]:
    """(failureReason, declineCode) of an outcome that ends a payment without money."""
    if status == "expired" and payment.status == "authorized":
        return "authorization_expired", None
    match outcome:
        case Declined():
            return outcome.reason, outcome.response_code
        case Expired():
            return "expired", outcome.response_code
        case NotSent():
            return "provider_unavailable", None
        case _:
            return "provider_did_not_process", None


def move(
    payment: Payment,
    status: Status,
    fields: Mapping[str, Any],
    *,
    now_ms: int,
    timestamp: str,
    answered: bool = False,
    capture_id: str | None = None,
) -> tuple[Payment, Event]:
    """The payment in its next status, and the event that tells of it. `answered`: the answer to the merchant's request tells it, too."""
    if status not in TRANSITIONS[payment.status]:
        raise ValueError(f"payment {payment.id} cannot go from {payment.status} to {status}")
    moved = msgspec.structs.replace(payment, status=status, sequence=payment.sequence + 1, updated_at_ms=now_ms, **fields)
    data = EventData(
        payment_id=moved.id,
        status=status,
        amount=moved.amount_minor,
        currency=moved.currency,
        transaction_id=moved.transaction_id,
        timestamp=timestamp,
        failure_reason=moved.failure_reason,
        decline_code=moved.decline_code,
        captured_amount=moved.captured_minor if moved.capture_method == "manual" and moved.captured_minor else None,
        capture_id=capture_id,
    )
    return moved, _event(moved, f"payment.{status}", data, now_ms, answered=answered)  # type: ignore[arg-type]


def tell(payment: Payment, kind: EventType, data: EventData, now_ms: int) -> tuple[Payment, Event]:
    """The payment with one more event about something of its own: a capture, refund or dispute."""
    told = msgspec.structs.replace(payment, sequence=payment.sequence + 1, updated_at_ms=now_ms)
    return told, _event(told, kind, data, now_ms)


def touched(payment: Payment, now_ms: int, **fields: Any) -> Payment:  # noqa: ANN401 - fields of a Payment
    """A new version without an event, so that concurrent steps notice each other."""
    return msgspec.structs.replace(payment, version=payment.version + 1, updated_at_ms=now_ms, **fields)


def capture_entry(payment: Payment, captured_minor: int, name: str, now_ms: int, fee_basis_points: int) -> ledger.Entry:
    """Books what raises the captured amount from the payment's to `captured_minor`. Its fee is what it adds to the fee on the whole, so
    that the fees of partial captures add up to it."""
    fee = money.fee_minor(captured_minor, basis_points=fee_basis_points)
    return ledger.capture(
        name=name,
        subject_id=payment.id,
        provider=payment.method,
        merchant_id=payment.merchant_id,
        currency=payment.currency,
        amount_minor=captured_minor - payment.captured_minor,
        fee_minor=fee - money.fee_minor(payment.captured_minor, basis_points=fee_basis_points),
        now_ms=now_ms,
    )


def operation_in_progress() -> CallerError:
    return CallerError(
        409, "operation_in_progress", "a capture or void of this payment is still under way; ask for its status first"
    )


def _event(payment: Payment, kind: EventType, data: EventData, now_ms: int, *, answered: bool = False) -> Event:
    return event(
        kind,
        data,
        subject_id=payment.id,
        merchant_id=payment.merchant_id,
        sequence=payment.sequence,
        now_ms=now_ms,
        answered=answered,
    )


def _serial(payment: Payment) -> str:
    return payment.id.removeprefix("pay_")
