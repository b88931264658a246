"""What merchants are told of, and what the history of an object is made of.

An event is an immutable fact about a subject (a payment, with its refunds and disputes; or a settlement), numbered per subject from 1
without gaps. A published event carries the webhook's body, byte for byte as it is sent and signed.
"""

from typing import Literal, get_args

import msgspec

PaymentEvent = Literal[
    "payment.processing",
    "payment.requires_action",
    "payment.authorized",
    "payment.partially_captured",
    "payment.completed",
    "payment.voided",
    "payment.failed",
    "payment.expired",
]
RefundEvent = Literal["refund.created", "refund.completed", "refund.failed"]
DisputeEvent = Literal["dispute.opened", "dispute.under_review", "dispute.won", "dispute.lost", "dispute.closed"]
SettlementEvent = Literal["settlement.created", "settlement.completed", "settlement.failed"]
EventType = Literal[PaymentEvent, "capture.failed", RefundEvent, DisputeEvent, SettlementEvent]

# History only: the answer to the merchant's own request says as much, and a refund that is complete at once would tell of itself twice.
UNPUBLISHED: frozenset[EventType] = frozenset({"payment.processing", "refund.created"})
PUBLISHED: tuple[EventType, ...] = tuple(name for name in get_args(EventType) if name not in UNPUBLISHED)

SUBJECT_PREFIXES = ("pay", "set")  # of what events are about: payments, settlements


class Event(msgspec.Struct, frozen=True):
    """`body` is the webhook's body if the event is published."""

    id: str
    subject_id: str
    merchant_id: str
    sequence: int
    type: EventType
    body: bytes | None
    created_at_ms: int


class EventData(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """A webhook's `data`: of the payment, or of the refund or dispute of that payment which the event is about."""

    payment_id: str | None = msgspec.field(name="paymentID", default=None)
    settlement_id: str | None = msgspec.field(name="settlementID", default=None)
    status: str
    amount: int
    currency: str
    transaction_id: str | None = msgspec.field(name="transactionID", default=None)
    timestamp: str
    captured_amount: int | None = None
    capture_id: str | None = msgspec.field(name="captureID", default=None)
    refund_id: str | None = msgspec.field(name="refundID", default=None)
    dispute_id: str | None = msgspec.field(name="disputeID", default=None)
    failure_reason: str | None = None
    decline_code: str | None = None
    reason: str | None = None
    date: str | None = None


class WebhookBody(msgspec.Struct, frozen=True):
    event: EventType
    data: EventData
    id: str
    sequence: int


_encode = msgspec.json.Encoder().encode


def event(
    kind: EventType,
    data: EventData,
    *,
    subject_id: str,
    merchant_id: str,
    sequence: int,
    now_ms: int,
    answered: bool = False,
) -> Event:
    """Event number `sequence` of a subject. Its id follows from both, so that it cannot be made twice. `answered`: it is not published, as
    the answer to the merchant's request tells it."""
    event_id = f"evt_{subject_id.partition('_')[2]}_{sequence}"
    body = None if answered or kind in UNPUBLISHED else _encode(WebhookBody(kind, data, event_id, sequence))
    return Event(event_id, subject_id, merchant_id, sequence, kind, body, now_ms)
