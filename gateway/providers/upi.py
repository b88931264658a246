"""UPI switch: the customer pays in their own app, the answer comes later. Codes as NPCI publishes them."""

import msgspec

from gateway.core.outcome import NextAction
from gateway.core.payment import Attempt, Payment
from gateway.ports import Instrument
from gateway.providers.client import Charge

REASONS = {
    "U16": "risk_threshold_exceeded",
    "U30": "debit_failed",
    "U48": "transaction_not_found",
    "U67": "debit_timeout",
    "U68": "credit_timeout",
    "U69": "collect_expired",
    "XH": "account_does_not_exist",
    "Z6": "pin_tries_exceeded",
    "Z7": "velocity_exceeded",
    "Z8": "exceeds_limit",
    "Z9": "insufficient_funds",
    "ZA": "declined_by_customer",
    "ZH": "invalid_vpa",
    "ZM": "incorrect_pin",
}


class Request(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    reference: str
    amount: int
    currency: str
    merchant_id: str = msgspec.field(name="merchantID")
    order_id: str = msgspec.field(name="orderID")
    flow: str
    callback_url: str = msgspec.field(name="callbackURL")
    expires_in_ms: int
    vpa: str | None = None


_encode = msgspec.json.Encoder().encode


class UpiDialect:
    collection = "/payments"

    def encode(self, payment: Payment, attempt: Attempt, instrument: Instrument, callback_url: str) -> bytes:
        assert instrument.upi_flow is not None
        return _encode(
            Request(
                reference=attempt.reference,
                amount=attempt.amount_minor,
                currency=attempt.currency,
                merchant_id=payment.merchant_id,
                order_id=payment.order_id,
                flow=instrument.upi_flow,
                callback_url=callback_url,
                expires_in_ms=attempt.expires_at_ms - attempt.created_at_ms,
                vpa=instrument.vpa,
            )
        )

    def reason(self, response_code: str) -> str:
        return REASONS.get(response_code, "declined")

    def next_action(self, charge: Charge) -> NextAction:
        if charge.intent_url is not None:
            return NextAction("upi_intent", url=charge.intent_url)
        if charge.qr_payload is not None:
            return NextAction("upi_qr", payload=charge.qr_payload)
        return NextAction("upi_collect")
