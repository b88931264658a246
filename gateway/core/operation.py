"""What a merchant does with money that was authorized or taken: captures and refunds. Pure.

    pending --> completed            the intent is durable, the provider did it
       |------> processing           it took the refund, and will tell how it ended
       |------> unknown              it may have done it: the same call is repeated under the same reference until it answers
       '------> failed               it refused

A refund that was completed may still fail, when the cardholder's bank cannot take the money: the books get it back. One capture of a
payment is under way at a time; refunds that are open or completed never exceed what was captured and is not disputed, however many
are asked for at once: the amount is set aside, on the payment, in the commit that makes the intent durable.
"""

from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from gateway.core import ledger
from gateway.core.errors import CallerError
from gateway.core.event import Event, EventData, RefundEvent
from gateway.core.outcome import Approved, Declined, NotSent, Outcome, Pending, Unknown
from gateway.core.payment import Attempt, Method, Payment, capture_entry, move, operation_in_progress, tell, touched

Kind = Literal["capture", "refund"]
State = Literal["pending", "processing", "unknown", "completed", "failed"]

OPEN_STATES: frozenset[State] = frozenset({"pending", "processing", "unknown"})
CAPTURABLE = frozenset({"authorized", "partially_captured"})

_DEFINITE: dict[type, State] = {Approved: "completed", Declined: "failed"}

# (state, what was learnt) -> state. A pair that is absent changes nothing.
TRANSITIONS: dict[State, dict[type, State]] = {
    "pending": {**_DEFINITE, NotSent: "failed", Pending: "processing", Unknown: "unknown"},
    "unknown": {**_DEFINITE, Pending: "processing"},
    "processing": {**_DEFINITE},
    "completed": {Declined: "failed"},  # refunds; of a capture it is ignored: a refund would give the money back
    "failed": {},
}


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """`id` (`cap_...`, `ref_...`) is our reference at the provider. `due_at_ms` is when recovery looks at it next, None once it is
    final. `note` is the merchant's reason for a refund."""

    id: str
    kind: Kind
    payment_id: str
    merchant_id: str
    provider: Method
    charge_reference: str
    amount_minor: int
    currency: str
    final: bool = False
    state: State = "pending"
    provider_id: str | None = None
    response_code: str | None = None
    failure_reason: str | None = None
    note: str | None = None
    inquiries: int = 0
    due_at_ms: int | None
    created_at_ms: int
    updated_at_ms: int

    @property
    def transaction_id(self) -> str:
        return f"txn_{self.id.partition('_')[2]}"


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What to write: the payment and the operation as they are now, the attempt where it ends, events and ledger entries."""

    payment: Payment
    operation: Operation
    attempt: Attempt | None = None
    events: tuple[Event, ...] = ()
    entries: tuple[ledger.Entry, ...] = ()


def capturable_minor(payment: Payment) -> int:
    return payment.amount_minor - payment.captured_minor if payment.status in CAPTURABLE else 0


def refundable_minor(payment: Payment) -> int:
    """What is captured and neither refunded, being refunded, nor disputed."""
    return max(0, payment.captured_minor - payment.refunded_minor - payment.refunding_minor - payment.disputed_minor)


def refund_status(payment: Payment) -> Literal["none", "partial", "full"]:
    if not payment.refunded_minor:
        return "none"
    return "full" if payment.refunded_minor == payment.captured_minor else "partial"


def begin(payment: Payment, operation: Operation, *, now_ms: int, timestamp: str) -> Work:
    """The intent, to be made durable before the provider is called. Raises CallerError 409 where the payment does not allow it."""
    if operation.kind == "capture":
        return _begin_capture(payment, operation, now_ms)
    _check_refund(payment, operation)
    reserved = touched(payment, now_ms, refunding_minor=payment.refunding_minor + operation.amount_minor)
    told, event = _tell_refund(reserved, operation, "refund.created", now_ms, timestamp)
    return Work(payment=told, operation=operation, events=(event,))


def _begin_capture(payment: Payment, operation: Operation, now_ms: int) -> Work:
    if payment.status not in CAPTURABLE:
        raise CallerError(409, "not_capturable", f"the payment is {payment.status}; only an authorized one can be captured")
    if payment.capturing_minor or payment.ending is not None:
        raise operation_in_progress()
    left = capturable_minor(payment)
    if operation.amount_minor > left:
        raise CallerError(409, "capture_exceeds_authorized", f"amount: only {left} (minor units) are left to capture", "amount")
    final = operation.final or operation.amount_minor == left
    return Work(
        payment=touched(payment, now_ms, capturing_minor=operation.amount_minor), operation=replace(operation, final=final)
    )


def _check_refund(payment: Payment, operation: Operation) -> None:
    if not payment.captured_minor:
        raise CallerError(409, "not_captured", f"the payment is {payment.status}: no money was taken that could be refunded")
    left = refundable_minor(payment)
    if operation.amount_minor > left:
        code = "payment_disputed" if payment.disputed_minor else "refund_exceeds_captured"
        said = f"only {left} (minor units) are left" if left else "nothing is left"
        raise CallerError(409, code, f"amount: {said} to refund", "amount")


def step(
    payment: Payment,
    attempt: Attempt,
    operation: Operation,
    outcome: Outcome,
    *,
    now_ms: int,
    timestamp: str,
    fee_basis_points: int,
) -> Work | None:
    """What follows from the provider's answer; None if nothing does."""
    state = TRANSITIONS[operation.state].get(type(outcome))
    if state is None or (operation.kind == "capture" and operation.state == "completed"):
        return None
    after = _operation_after(operation, state, outcome, now_ms)
    if state in OPEN_STATES:
        return Work(payment=touched(payment, now_ms), operation=after)
    if operation.kind == "refund":
        return _refunded(payment, operation, after, now_ms, timestamp)
    if state == "failed":
        return _not_captured(payment, after, now_ms, timestamp)
    return _captured(payment, attempt, after, now_ms, timestamp, fee_basis_points)


def _operation_after(operation: Operation, state: State, outcome: Outcome, now_ms: int) -> Operation:
    reason = outcome.reason if isinstance(outcome, Declined) else "provider_unavailable"  # NotSent
    return replace(
        operation,
        state=state,
        provider_id=getattr(outcome, "provider_id", None) or operation.provider_id,
        response_code=getattr(outcome, "response_code", None) or operation.response_code,
        failure_reason=reason if state == "failed" else None,
        due_at_ms=operation.due_at_ms if state in OPEN_STATES else None,
        updated_at_ms=now_ms,
    )


def _captured(
    payment: Payment, attempt: Attempt, operation: Operation, now_ms: int, timestamp: str, fee_basis_points: int
) -> Work:
    captured = payment.captured_minor + operation.amount_minor
    entry = capture_entry(payment, captured, operation.id, now_ms, fee_basis_points)
    fields = {"version": payment.version + 1, "captured_minor": captured, "capturing_minor": 0}
    status: Literal["completed", "partially_captured"] = "completed" if operation.final else "partially_captured"
    moved, event = move(payment, status, fields, now_ms=now_ms, timestamp=timestamp, capture_id=operation.id)
    ended = replace(attempt, state="succeeded", due_at_ms=None, resolved_at_ms=now_ms) if operation.final else None
    return Work(payment=moved, operation=operation, attempt=ended, events=(event,), entries=(entry,))


def _not_captured(payment: Payment, operation: Operation, now_ms: int, timestamp: str) -> Work:
    data = EventData(
        payment_id=payment.id,
        status="failed",
        amount=operation.amount_minor,
        currency=payment.currency,
        transaction_id=payment.transaction_id,
        timestamp=timestamp,
        capture_id=operation.id,
        failure_reason=operation.failure_reason,
        decline_code=operation.response_code,
    )
    told, event = tell(touched(payment, now_ms, capturing_minor=0), "capture.failed", data, now_ms)
    return Work(payment=told, operation=operation, events=(event,))


def _refunded(payment: Payment, before: Operation, operation: Operation, now_ms: int, timestamp: str) -> Work:
    """A refund ended: completed, failed, or failed after it was completed."""
    amount = operation.amount_minor
    reserved, refunded = payment.refunding_minor, payment.refunded_minor
    entries: tuple[ledger.Entry, ...] = ()
    kind: RefundEvent
    if operation.state == "completed":
        kind, fields = "refund.completed", {"refunding_minor": reserved - amount, "refunded_minor": refunded + amount}
        entries = (_entry(payment, operation, operation.id, now_ms),)
    elif before.state == "completed":
        kind, fields = "refund.failed", {"refunded_minor": refunded - amount}
        entries = (_entry(payment, operation, f"{operation.id}_failed", now_ms, undone=True),)
    else:
        kind, fields = "refund.failed", {"refunding_minor": reserved - amount}
    told, event = _tell_refund(touched(payment, now_ms, **fields), operation, kind, now_ms, timestamp)
    return Work(payment=told, operation=operation, events=(event,), entries=entries)


def _entry(payment: Payment, refund: Operation, name: str, now_ms: int, *, undone: bool = False) -> ledger.Entry:
    return ledger.given_back(
        name=name,
        subject_id=payment.id,
        provider=refund.provider,
        merchant_id=payment.merchant_id,
        currency=refund.currency,
        amount_minor=refund.amount_minor,
        now_ms=now_ms,
        undone=undone,
    )


def _tell_refund(
    payment: Payment, operation: Operation, kind: RefundEvent, now_ms: int, timestamp: str
) -> tuple[Payment, Event]:
    optional: dict[str, Any] = {"failure_reason": operation.failure_reason, "decline_code": None}
    if operation.state == "failed":
        optional["decline_code"] = operation.response_code
    data = EventData(
        payment_id=payment.id,
        refund_id=operation.id,
        status=operation.state,
        amount=operation.amount_minor,
        currency=operation.currency,
        transaction_id=operation.transaction_id,
        timestamp=timestamp,
        reason=operation.note,
        **optional,
    )
    return tell(payment, kind, data, now_ms)
