"""What an issuer does about a payment: inquiries and chargebacks. Pure.

    (inquiry) warning_needs_response -> warning_under_review -> warning_closed
                       |                        |
                       '------------------------'--> needs_response -> under_review -> won | lost

The provider tells of each change, maybe late, twice, or out of order: a status that does not come later than the one that is known
changes nothing, and one that was never told of may be skipped. Money goes when a dispute (not an inquiry) opens, and comes back when it
is won.

What the merchant responds is durable before the provider hears it (`responding`), and sent until the provider has taken or refused it.
"""

from typing import Literal

import msgspec
from msgspec.structs import replace

from gateway.core import ledger
from gateway.core.errors import CallerError
from gateway.core.event import DisputeEvent, Event, EventData
from gateway.core.payment import Method, Payment, tell, touched

Status = Literal[
    "warning_needs_response", "warning_under_review", "warning_closed", "needs_response", "under_review", "won", "lost"
]

_CHARGEBACK: frozenset[Status] = frozenset({"needs_response", "under_review", "won", "lost"})

# Who may follow whom; anything may come first.
TRANSITIONS: dict[Status, frozenset[Status]] = {
    "warning_needs_response": frozenset({"warning_under_review", "warning_closed", *_CHARGEBACK}),
    "warning_under_review": frozenset({"warning_closed", *_CHARGEBACK}),
    "warning_closed": frozenset(),
    "needs_response": frozenset({"under_review", "won", "lost"}),
    "under_review": frozenset({"won", "lost"}),
    "won": frozenset(),
    "lost": frozenset(),
}
FINAL = frozenset(status for status, following in TRANSITIONS.items() if not following)
RESPONDABLE: frozenset[Status] = frozenset({"needs_response", "warning_needs_response"})

_EVENTS: dict[Status, DisputeEvent] = {
    "warning_needs_response": "dispute.opened",
    "needs_response": "dispute.opened",
    "warning_under_review": "dispute.under_review",
    "under_review": "dispute.under_review",
    "warning_closed": "dispute.closed",
    "won": "dispute.won",
    "lost": "dispute.lost",
}


class Dispute(msgspec.Struct, frozen=True, kw_only=True):
    """`provider_id` is the provider's name of it. `due_at_ms` is when it is asked about if nobody tells of it, None once it is final.
    `responding` is what the merchant wants and the provider has not yet taken; `failure_reason` is why it refused the last response."""

    id: str
    provider_id: str
    provider: Method
    payment_id: str
    merchant_id: str
    reason: str
    status: Status
    amount_minor: int
    currency: str
    respond_by_ms: int
    inquiries: int = 0
    due_at_ms: int | None
    created_at_ms: int
    updated_at_ms: int
    responding: Literal["accept", "evidence"] | None = None
    evidence: str | None = None
    failure_reason: str | None = None

    @property
    def transaction_id(self) -> str:
        return f"txn_{self.id.partition('_')[2]}"


class Work(msgspec.Struct, frozen=True, kw_only=True):
    payment: Payment
    dispute: Dispute
    events: tuple[Event, ...]
    entries: tuple[ledger.Entry, ...]


def disputable_minor(payment: Payment) -> int:
    """What was captured and is still the merchant's. Open refunds count: the provider will refuse them, or they came first."""
    return payment.captured_minor - payment.refunded_minor - payment.disputed_minor


def step(payment: Payment, before: Dispute | None, told: Dispute, *, now_ms: int, timestamp: str) -> Work | None:
    """What follows from the provider's word about a dispute, which was `before` (None: never heard of); None if nothing does.

    Raises CallerError 409 for more than there is: what makes room for it (a refund that failed, another dispute that was won) has not
    been told of yet, and the provider tells again."""
    if before is not None and told.status not in TRANSITIONS[before.status]:
        return None
    due_at_ms = None if told.status in FINAL else told.due_at_ms
    dispute = replace(told, due_at_ms=due_at_ms, updated_at_ms=now_ms)
    amount, entries, disputed = dispute.amount_minor, [], payment.disputed_minor
    was_taken = before is not None and before.status in _CHARGEBACK
    if dispute.status in _CHARGEBACK and not was_taken:
        if amount > (left := disputable_minor(payment)) and dispute.status != "won":
            raise CallerError(
                409, "dispute_exceeds_captured", f"callback: only {left} are captured and neither refunded nor disputed"
            )
        entries.append(_entry(payment, dispute, f"{dispute.id}_opened", now_ms))
        disputed += amount
    if dispute.status == "won":
        entries.append(_entry(payment, dispute, f"{dispute.id}_won", now_ms, undone=True))
        disputed -= amount
    changed = touched(payment, now_ms, disputed_minor=disputed, dispute_status=dispute.status)
    data = EventData(
        payment_id=payment.id,
        dispute_id=dispute.id,
        status=dispute.status,
        amount=amount,
        currency=dispute.currency,
        transaction_id=dispute.transaction_id,
        timestamp=timestamp,
        reason=dispute.reason,
    )
    changed, event = tell(changed, _EVENTS[dispute.status], data, now_ms)
    return Work(payment=changed, dispute=dispute, events=(event,), entries=tuple(entries))


def begin_response(payment: Payment, dispute: Dispute, evidence: str | None, *, now_ms: int) -> Work:
    """The merchant's response, to be made durable before the provider hears it: evidence, or None to accept. Raises CallerError 409."""
    if dispute.responding is not None:
        raise CallerError(409, "operation_in_progress", "a response to this dispute is still on its way to the provider")
    if dispute.status not in RESPONDABLE:
        raise CallerError(409, "dispute_not_open", f"the dispute is {dispute.status}; only one that needs a response takes one")
    responding = replace(
        dispute,
        responding="accept" if evidence is None else "evidence",
        evidence=evidence,
        failure_reason=None,
        inquiries=0,
        updated_at_ms=now_ms,
    )
    return Work(payment=touched(payment, now_ms), dispute=responding, events=(), entries=())


def _entry(payment: Payment, dispute: Dispute, name: str, now_ms: int, *, undone: bool = False) -> ledger.Entry:
    return ledger.given_back(
        name=name,
        subject_id=payment.id,
        provider=dispute.provider,
        merchant_id=payment.merchant_id,
        currency=dispute.currency,
        amount_minor=dispute.amount_minor,
        now_ms=now_ms,
        undone=undone,
    )
