"""POST /api/payments/process, GET /api/payments/{paymentID}/status."""

from typing import Annotated, Literal, get_args

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.api import idempotency, wire
from gateway.api.keys import Keys
from gateway.api.routing import Route
from gateway.core import cards, money
from gateway.core.dispute import Status as DisputeStatus
from gateway.core.errors import CallerError, invalid
from gateway.core.operation import refund_status
from gateway.core.outcome import NextAction
from gateway.core.payment import Payment, Status
from gateway.flows.payments import Order, Payments
from gateway.ports import CardSecret, Clock, Instrument, Response
from gateway.runtime import rfc3339
from gateway.vault import Vault

YEARS_AHEAD_MAX = 20  # cards are issued for five years at most; further away is a typing error

Digits = Annotated[str, Meta(pattern=r"^[0-9]{12,19}$" + wire.END)]
Month = Annotated[str, Meta(pattern=r"^(0?[1-9]|1[0-2])$" + wire.END)]
Year = Annotated[str, Meta(pattern=r"^[0-9]{4}$" + wire.END)]
Cvv = Annotated[str, Meta(pattern=r"^[0-9]{3,4}$" + wire.END)]
_NO_SPACE = r"[^@\s\x00-\x1f\x7f-\x9f\ufeff]"  # Python and JSON Schema disagree on which of these are spaces
Email = Annotated[str, Meta(pattern=f"^{_NO_SPACE}{{1,64}}@{_NO_SPACE}{{1,189}}$" + wire.END)]
Phone = Annotated[str, Meta(pattern=r"^\+?[0-9 ()-]{5,24}$" + wire.END)]
Vpa = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}@[A-Za-z][A-Za-z0-9.-]{1,63}$" + wire.END)]
BankCode = Annotated[str, Meta(pattern=r"^[A-Z0-9]{4,11}$" + wire.END)]
# Of hosts a name or an IPv4 address: what stands in brackets can be malformed in more ways than a pattern can tell.
HttpUrl = Annotated[
    str, Meta(pattern=r"^https?://[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?(/[!#-;=?-\[\]^-~]*)?$" + wire.END, max_length=2000)
]
Currency = Annotated[
    str, Meta(extra_json_schema={"enum": list(money.CURRENCY_EXPONENTS)})
]  # checked by hand, for a code of its own
Metadata = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=50)
]


class CardDetails(wire.Request, frozen=True, kw_only=True):
    number: Digits
    expiry_month: Month
    expiry_year: Year
    cvv: Cvv
    holder_name: wire.Text | None = None


class UpiDetails(wire.Request, frozen=True, kw_only=True):
    flow: Literal["collect", "intent", "qr"] = "collect"
    vpa: Vpa | None = None


class NetbankingDetails(wire.Request, frozen=True, kw_only=True):
    bank_code: BankCode


class CustomerInfo(wire.Request, frozen=True, kw_only=True, omit_defaults=True):
    email: Email
    phone: Phone
    id: wire.Text | None = None
    ip: Annotated[str, Meta(max_length=45)] | None = None
    country: Annotated[str, Meta(pattern=r"^[A-Z]{2}$" + wire.END)] | None = None
    device_id: wire.Text | None = msgspec.field(name="deviceID", default=None)


class ProcessRequest(wire.Request, frozen=True, kw_only=True):
    merchant_id: wire.ShortId = msgspec.field(name="merchantID")
    amount: Annotated[int, Meta(ge=1, le=money.AMOUNT_MINOR_MAX)]
    currency: Currency
    payment_method: Literal["card", "upi", "netbanking"]
    customer_info: CustomerInfo
    order_id: wire.ShortId = msgspec.field(name="orderID")
    card_details: CardDetails | None = None
    upi_details: UpiDetails | None = None
    netbanking_details: NetbankingDetails | None = None
    capture_method: Literal["automatic", "manual"] = "automatic"
    return_url: HttpUrl | None = None
    metadata: Metadata | None = None


class PaymentData(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """What does not apply is left out. `ending` is what the payment becomes once the provider has acknowledged a void or expiry that is
    under way."""

    payment_id: str = msgspec.field(name="paymentID")
    status: Status
    amount: int
    currency: str
    transaction_id: str = msgspec.field(name="transactionID")
    created_at: str
    updated_at: str | None = None
    next_action: NextAction | None = None
    failure_reason: str | None = None
    decline_code: str | None = None
    capture_method: Literal["automatic", "manual"] | None = None
    captured_amount: int | None = None
    refund_status: Literal["none", "partial", "full"] | None = None
    dispute_status: Annotated[str, Meta(extra_json_schema={"enum": list(get_args(DisputeStatus))})] | None = None
    ending: Literal["voided", "expired"] | None = None


_decoder = msgspec.json.Decoder(ProcessRequest)
_DETAILS = {"card": "cardDetails", "upi": "upiDetails", "netbanking": "netbankingDetails"}


class PaymentHandlers:
    def __init__(self, *, payments: Payments, keys: Keys, vault: Vault, clock: Clock) -> None:
        self._payments = payments
        self._keys = keys
        self._vault = vault
        self._clock = clock

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path="/api/payments/process",
                handler=self.process,
                summary="Pay; a decline is a 201 with status failed",
                tag="payments",
                takes=ProcessRequest,
                gives=PaymentData,
                status=201,
                errors=(403,),
                idempotent=True,
                priority="create",
            ),
            Route(
                method="GET",
                path="/api/payments/{paymentID}/status",
                handler=self.status,
                summary="How a payment stands",
                tag="payments",
                gives=PaymentData,
                errors=(404,),
            ),
        ]

    async def process(self, request: web.Request) -> web.Response:
        merchant_id = self._keys.merchant(request)
        body = await wire.read_body(request)
        asked = wire.decode(_decoder, body)
        if (card := asked.card_details) is not None and _is_repeated(card.number, body, asked):
            raise CallerError(400, "card_data_misplaced", "the card number belongs into cardDetails.number and nowhere else")
        order = self._order(asked, merchant_id)
        key = idempotency.key_of(request, merchant_id, body, self._vault)
        if card is not None and key is not None and card.number in key.key:
            raise invalid(
                "Idempotency-Key", "a card number would be stored with it; make up a random one", "card_data_misplaced"
            )
        response = await self._payments.process(order, key, render)
        return wire.json_response(response.body, response.status)

    async def status(self, request: web.Request) -> web.Response:
        payment = self._payments.payment(self._keys.merchant(request), request.match_info["paymentID"])
        return wire.success(payment_data(payment, updated=True))

    def _order(self, asked: ProcessRequest, merchant_id: str) -> Order:
        """What the types cannot say: fields that need each other, and rules of the trade."""
        if asked.merchant_id != merchant_id:
            raise CallerError(403, "wrong_merchant", "merchantID: this API key belongs to another merchant", "merchantID")
        if asked.currency not in money.CURRENCY_EXPONENTS:
            supported = ", ".join(money.CURRENCY_EXPONENTS)
            raise invalid("currency", f"unsupported currency; supported are {supported}", "unsupported_currency")
        if asked.payment_method != "card" and asked.currency != "INR":
            raise invalid("currency", f"{asked.payment_method} settles in INR only", "unsupported_currency")
        if asked.capture_method == "manual" and asked.payment_method != "card":
            reason = f"{asked.payment_method} cannot hold money to be captured later; use automatic"
            raise invalid("captureMethod", reason, "unsupported_capture_method")
        return Order(
            merchant_id=merchant_id,
            order_id=asked.order_id,
            method=asked.payment_method,
            amount_minor=asked.amount,
            currency=asked.currency,
            instrument=self._instrument(asked),
            customer=asked.customer_info,
            metadata=asked.metadata,
            capture_method=asked.capture_method,
        )

    def _instrument(self, asked: ProcessRequest) -> Instrument:
        given = {"card": asked.card_details, "upi": asked.upi_details, "netbanking": asked.netbanking_details}
        for method, details in given.items():
            if details is None and method == asked.payment_method:
                raise invalid(_DETAILS[method], f"required for paymentMethod {method}", "missing_field")
            if details is not None and method != asked.payment_method:
                raise invalid(_DETAILS[method], f"does not go with paymentMethod {asked.payment_method}")
        if (card := asked.card_details) is not None:
            return Instrument(card=self._card(card), return_url=asked.return_url)
        if (upi := asked.upi_details) is not None:
            if upi.flow == "collect" and upi.vpa is None:
                raise invalid("upiDetails.vpa", "required for flow collect", "missing_field")
            return Instrument(upi_flow=upi.flow, vpa=upi.vpa, return_url=asked.return_url)
        assert asked.netbanking_details is not None
        return Instrument(bank_code=asked.netbanking_details.bank_code, return_url=asked.return_url)

    def _card(self, card: CardDetails) -> CardSecret:
        if not cards.passes_luhn(card.number):
            raise invalid("cardDetails.number", "not a card number (its check digit is wrong)", "invalid_card_number")
        today = rfc3339(self._clock.now_ms())
        month, year, now_year = int(card.expiry_month), int(card.expiry_year), int(today[:4])
        if cards.has_expired(month=month, year=year, now_year=now_year, now_month=int(today[5:7])):
            raise invalid("cardDetails.expiryYear", "the card has expired", "expired_card")
        if year > now_year + YEARS_AHEAD_MAX:
            raise invalid("cardDetails.expiryYear", f"more than {YEARS_AHEAD_MAX} years ahead", "invalid_expiry")
        return CardSecret(card.number, card.expiry_month, card.expiry_year, card.cvv, card.holder_name)


def _is_repeated(number: str, body: bytes, asked: ProcessRequest) -> bool:
    """Whether a card number is in the request more than once, however it is spelled: in groups, or in JSON's escapes."""
    plain = wire.encode(asked) if b"\\" in body else body
    return plain.translate(None, b" -.").count(number.encode()) > 1


def payment_data(payment: Payment, *, updated: bool = False) -> PaymentData:
    manual = payment.capture_method == "manual"
    return PaymentData(
        payment_id=payment.id,
        status=payment.status,
        amount=payment.amount_minor,
        currency=payment.currency,
        transaction_id=payment.transaction_id,
        created_at=rfc3339(payment.created_at_ms),
        updated_at=rfc3339(payment.updated_at_ms) if updated else None,
        next_action=payment.next_action,
        failure_reason=payment.failure_reason,
        decline_code=payment.decline_code,
        capture_method=payment.capture_method if manual else None,
        captured_amount=payment.captured_minor if manual else None,
        refund_status=refund_status(payment) if payment.refunded_minor else None,
        dispute_status=payment.dispute_status,
        ending=payment.ending,
    )


def render(payment: Payment) -> Response:
    """The answer to process, which is stored before it is sent."""
    return Response(201, wire.encode(wire.Success(True, payment_data(payment))))
