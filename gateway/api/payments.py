"""POST /api/payments/process, GET /api/payments/{paymentID}/status."""

import re
from typing import Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.api import wire
from gateway.api.middleware import Keys
from gateway.core import cards, money
from gateway.core.errors import CallerError, invalid
from gateway.core.outcome import NextAction
from gateway.core.payment import Payment
from gateway.flows.payments import IdempotencyKey, Order, Payments
from gateway.ports import CardSecret, Clock, Instrument, Response
from gateway.runtime import rfc3339
from gateway.vault import Vault

IDEMPOTENCY_KEY_MAX = 255  # characters (DOMAIN)
YEARS_AHEAD_MAX = 20  # cards are issued for five years at most; further away is a typing error

Digits = Annotated[str, Meta(pattern=r"^[0-9]{12,19}$" + wire.END)]
Month = Annotated[str, Meta(pattern=r"^(0?[1-9]|1[0-2])$" + wire.END)]
Year = Annotated[str, Meta(pattern=r"^[0-9]{4}$" + wire.END)]
Cvv = Annotated[str, Meta(pattern=r"^[0-9]{3,4}$" + wire.END)]
Email = Annotated[str, Meta(pattern=r"^[^@\s]{1,64}@[^@\s]{1,189}$" + wire.END)]
Phone = Annotated[str, Meta(pattern=r"^\+?[0-9 ()-]{5,24}$" + wire.END)]
Vpa = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}@[A-Za-z][A-Za-z0-9.-]{1,63}$" + wire.END)]
BankCode = Annotated[str, Meta(pattern=r"^[A-Z0-9]{4,11}$" + wire.END)]
HttpUrl = Annotated[str, Meta(pattern=r"^https?://[A-Za-z0-9.\[\]:-]{1,255}(/[!#-;=?-\[\]^-~]*)?$" + wire.END, max_length=2000)]
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
    currency: str
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
    payment_id: str = msgspec.field(name="paymentID")
    status: str
    amount: int
    currency: str
    transaction_id: str = msgspec.field(name="transactionID")
    created_at: str
    updated_at: str | None = None
    next_action: NextAction | None = None
    failure_reason: str | None = None
    decline_code: str | None = None


_decoder = msgspec.json.Decoder(ProcessRequest)
_DETAILS = {"card": "cardDetails", "upi": "upiDetails", "netbanking": "netbankingDetails"}


class PaymentHandlers:
    def __init__(self, *, payments: Payments, keys: Keys, vault: Vault, clock: Clock) -> None:
        self._payments = payments
        self._keys = keys
        self._vault = vault
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/api/payments/process", self.process),
            web.get("/api/payments/{paymentID}/status", self.status),
        ]

    async def process(self, request: web.Request) -> web.Response:
        merchant_id = self._keys.merchant(request)
        body = await wire.read_body(request)
        asked = wire.decode(_decoder, body)
        if (card := asked.card_details) is not None and body.count(card.number.encode()) > 1:
            raise CallerError(400, "card_data_misplaced", "the card number belongs into cardDetails.number and nowhere else")
        order = self._order(asked, merchant_id)
        key = self._idempotency_key(request, body)
        response = await self._payments.process(order, key, render)
        return wire.json_response(response.body, response.status)

    async def status(self, request: web.Request) -> web.Response:
        payment = self._payments.payment(self._keys.merchant(request), request.match_info["paymentID"])
        return wire.success(payment_data(payment, updated=True))

    def _idempotency_key(self, request: web.Request, body: bytes) -> IdempotencyKey | None:
        key = idempotency_key(request.headers.getall("Idempotency-Key", []))
        return None if key is None else IdempotencyKey(key, self._vault.fingerprint(body))

    def _order(self, asked: ProcessRequest, merchant_id: str) -> Order:
        """What the types cannot say: fields that need each other, and rules of the trade."""
        if asked.merchant_id != merchant_id:
            raise CallerError(403, "wrong_merchant", "merchantID: this API key belongs to another merchant", "merchantID")
        if asked.currency not in money.CURRENCY_EXPONENTS:
            supported = ", ".join(money.CURRENCY_EXPONENTS)
            raise invalid("currency", f"unsupported currency; supported are {supported}", "unsupported_currency")
        if asked.payment_method != "card" and asked.currency != "INR":
            raise invalid("currency", f"{asked.payment_method} settles in INR only", "unsupported_currency")
        if asked.capture_method == "manual":
            raise invalid("captureMethod", "manual capture is not supported yet; use automatic", "unsupported_capture_method")
        return Order(
            merchant_id=merchant_id,
            order_id=asked.order_id,
            method=asked.payment_method,
            amount_minor=asked.amount,
            currency=asked.currency,
            instrument=self._instrument(asked),
            customer=asked.customer_info,
            metadata=asked.metadata,
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


_BARE_KEY = re.compile(r"[\x21\x23-\x7e]{1,255}")
_QUOTED_KEY = re.compile(r'"([\x20-\x21\x23-\x7e]{1,255})"')


def idempotency_key(headers: list[str]) -> str | None:
    """The key in an `Idempotency-Key` header, quoted as the IETF draft has it, or bare. Raises CallerError 400."""
    if not headers:
        return None
    quoted = _QUOTED_KEY.fullmatch(headers[0])
    key = quoted[1] if quoted else headers[0]
    if len(headers) > 1 or not (quoted or _BARE_KEY.fullmatch(key)):
        raise invalid(
            "Idempotency-Key", f"send it once, 1 to {IDEMPOTENCY_KEY_MAX} printable ASCII characters", "invalid_idempotency_key"
        )
    return key


def payment_data(payment: Payment, *, updated: bool = False) -> PaymentData:
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
    )


def render(payment: Payment) -> Response:
    """The answer to process, which is stored before it is sent."""
    return Response(201, wire.encode(wire.Success(True, payment_data(payment))))
