"""GET /api/payments/{paymentID}: all that is known of a payment. GET /api/payments/{paymentID}/events: how it came to be so."""

from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.api import wire
from gateway.api.captures import CaptureData, capture_data
from gateway.api.disputes import DisputeData, dispute_data
from gateway.api.keys import Keys
from gateway.api.payments import PaymentData, payment_data
from gateway.api.refunds import RefundData, refund_data
from gateway.api.routing import Route
from gateway.core.authentication import State as AuthenticationState
from gateway.core.authentication import id_for
from gateway.core.event import Event, EventData, EventType
from gateway.core.operation import capturable_minor, refund_status, refundable_minor
from gateway.core.payment import Method, Payment
from gateway.flows.payments import Payments
from gateway.ports import Store
from gateway.runtime import rfc3339

SHOWN_MAX = 100  # captures, refunds and disputes each, the newest; of more, GET /api/transactions has the rest
PAGE, PAGE_MAX = 100, 1_000  # events; nearly all payments have fewer than ten


class CardData(msgspec.Struct, frozen=True, rename="camel"):
    brand: str
    bin: str
    last4: str
    expiry_month: str
    expiry_year: str


class UpiData(msgspec.Struct, frozen=True, omit_defaults=True):
    flow: str
    vpa: str | None = None


class NetbankingData(msgspec.Struct, frozen=True, rename="camel"):
    bank_code: str


class CustomerData(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    email: str
    phone: str
    id: str | None = None
    ip: str | None = None
    country: str | None = None
    device_id: str | None = msgspec.field(name="deviceID", default=None)


class _Details(msgspec.Struct, frozen=True, rename="camel"):
    """What `Payment.details` holds. Other than in the request, nothing is checked any more: it was, when it was taken."""

    customer: CustomerData
    card: CardData | None = None
    upi: UpiData | None = None
    netbanking: NetbankingData | None = None
    return_url: str | None = None
    metadata: dict[str, str] | None = None


class AuthenticationData(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """3-D Secure, with EMV's codes (docs/3ds.md). `eci` tells who is liable for fraud."""

    status: AuthenticationState
    trans_status: str | None = None
    trans_status_reason: str | None = None
    eci: str | None = None
    created_at: str
    updated_at: str


class PaymentDetailData(PaymentData, frozen=True, omit_defaults=True, kw_only=True):
    order_id: str = msgspec.field(name="orderID")
    payment_method: Method
    capturable_amount: int
    refundable_amount: int
    refunded_amount: int
    disputed_amount: int
    customer_info: CustomerData
    card_details: CardData | None = None
    upi_details: UpiData | None = None
    netbanking_details: NetbankingData | None = None
    return_url: str | None = None
    metadata: dict[str, str] | None = None
    authentication: AuthenticationData | None = None
    captures: Annotated[list[CaptureData], Meta(description=f"The newest {SHOWN_MAX}")]
    refunds: Annotated[list[RefundData], Meta(description=f"The newest {SHOWN_MAX}")]
    disputes: Annotated[list[DisputeData], Meta(description=f"The newest {SHOWN_MAX}")]


class EventQuery(wire.Request, frozen=True, kw_only=True):
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = PAGE
    cursor: Annotated[int, Meta(ge=0, le=2**53)] = 0


class HistoryData(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """`data` is what the webhook of the event says; an event without it is history only."""

    event_id: str = msgspec.field(name="eventID")
    sequence: int
    type: EventType
    created_at: str
    data: EventData | None = None


class _Body(msgspec.Struct, frozen=True):
    data: EventData


_details = msgspec.json.Decoder(_Details).decode
_bodies = msgspec.json.Decoder(_Body).decode


class DetailHandlers:
    def __init__(self, *, payments: Payments, store: Store, keys: Keys) -> None:
        self._payments = payments
        self._store = store
        self._keys = keys

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/api/payments/{paymentID}",
                handler=self.get,
                summary="All about a payment",
                tag="payments",
                gives=PaymentDetailData,
                errors=(404,),
            ),
            Route(
                method="GET",
                path="/api/payments/{paymentID}/events",
                handler=self.events,
                summary="A payment's history, the oldest event first",
                tag="payments",
                query=EventQuery,
                gives=HistoryData,
                listed=True,
                errors=(404,),
            ),
        ]

    async def get(self, request: web.Request) -> web.Response:
        payment = self._payments.payment(self._keys.merchant(request), request.match_info["paymentID"])
        more = {
            "authentication": self._authentication(payment),
            "captures": [capture_data(made) for made in self._store.operations_of(payment.id, "capture", SHOWN_MAX)],
            "refunds": [refund_data(made) for made in self._store.operations_of(payment.id, "refund", SHOWN_MAX)],
            "disputes": [dispute_data(dispute) for dispute in self._store.disputes_of(payment.id, SHOWN_MAX)],
        }
        return wire.success(_detail(payment, more))

    def _authentication(self, payment: Payment) -> AuthenticationData | None:
        found = self._store.authentication(id_for(payment.id))
        if found is None:
            return None
        return AuthenticationData(
            status=found.state,
            trans_status=found.trans_status,
            trans_status_reason=found.trans_status_reason,
            eci=found.eci,
            created_at=rfc3339(found.created_at_ms),
            updated_at=rfc3339(found.updated_at_ms),
        )

    async def events(self, request: web.Request) -> web.Response:
        merchant_id = self._keys.merchant(request)
        asked = wire.query(request, EventQuery)
        payment = self._payments.payment(merchant_id, request.match_info["paymentID"])
        found = self._store.events_of(payment.id, asked.cursor, asked.limit + 1)
        page = found[: asked.limit]
        more = str(page[-1].sequence) if len(found) > len(page) else None
        return wire.listed([_history(event) for event in page], wire.Pagination(asked.limit, more))


def _detail(payment: Payment, more: dict[str, Any]) -> PaymentDetailData:
    details = _details(payment.details)
    always = {
        "capture_method": payment.capture_method,
        "captured_amount": payment.captured_minor,
        "refund_status": refund_status(payment),
    }
    return PaymentDetailData(
        **msgspec.structs.asdict(payment_data(payment, updated=True)) | always,
        order_id=payment.order_id,
        payment_method=payment.method,
        capturable_amount=capturable_minor(payment),
        refundable_amount=refundable_minor(payment),
        refunded_amount=payment.refunded_minor,
        disputed_amount=payment.disputed_minor,
        customer_info=details.customer,
        card_details=details.card,
        upi_details=details.upi,
        netbanking_details=details.netbanking,
        return_url=details.return_url,
        metadata=details.metadata,
        **more,
    )


def _history(event: Event) -> HistoryData:
    return HistoryData(
        event_id=event.id,
        sequence=event.sequence,
        type=event.type,
        created_at=rfc3339(event.created_at_ms),
        data=None if event.body is None else _bodies(event.body).data,
    )
