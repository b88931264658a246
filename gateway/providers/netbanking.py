"""Net banking: the customer is sent to the bank's page, the answer comes later. Banks answer in words."""

import msgspec

from gateway.core.outcome import NextAction
from gateway.core.payment import Attempt, Payment
from gateway.ports import Instrument
from gateway.providers.client import Charge


class Request(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    reference: str
    amount: int
    currency: str
    merchant_id: str = msgspec.field(name="merchantID")
    order_id: str = msgspec.field(name="orderID")
    bank_code: str
    callback_url: str = msgspec.field(name="callbackURL")
    expires_in_ms: int
    return_url: str | None = msgspec.field(name="returnURL", default=None)


_encode = msgspec.json.Encoder().encode


class NetbankingDialect:
    collection = "/payments"

    def encode(self, payment: Payment, attempt: Attempt, instrument: Instrument, callback_url: str) -> bytes:
        assert instrument.bank_code is not None
        return _encode(
            Request(
                reference=attempt.reference,
                amount=attempt.amount_minor,
                currency=attempt.currency,
                merchant_id=payment.merchant_id,
                order_id=payment.order_id,
                bank_code=instrument.bank_code,
                callback_url=callback_url,
                expires_in_ms=attempt.expires_at_ms - attempt.created_at_ms,
                return_url=instrument.return_url,
            )
        )

    def reason(self, response_code: str) -> str:
        return response_code or "declined"

    def next_action(self, charge: Charge) -> NextAction | None:
        return None if charge.redirect_url is None else NextAction("redirect", url=charge.redirect_url)
