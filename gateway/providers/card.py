"""Card acquirer: answers at once, in ISO 8583 field 39 codes."""

import msgspec

from gateway.core.outcome import NextAction
from gateway.core.payment import Attempt, Payment
from gateway.ports import Instrument
from gateway.providers.client import Charge

# ISO 8583:1987 field 39, N7 (Visa) and 1A (Visa, strong customer authentication required).
REASONS = {
    "04": "pick_up_card",
    "05": "do_not_honor",
    "07": "pick_up_card",
    "12": "invalid_transaction",
    "13": "invalid_amount",
    "14": "invalid_card_number",
    "1A": "authentication_required",
    "41": "lost_card",
    "43": "stolen_card",
    "51": "insufficient_funds",
    "54": "expired_card",
    "55": "incorrect_pin",
    "57": "transaction_not_permitted",
    "59": "suspected_fraud",
    "61": "exceeds_limit",
    "62": "restricted_card",
    "65": "velocity_exceeded",
    "68": "response_received_too_late",
    "75": "pin_tries_exceeded",
    "91": "issuer_unavailable",
    "92": "no_route_to_issuer",
    "94": "duplicate_transaction",
    "96": "processing_error",
    "N7": "incorrect_cvc",
}


class CardData(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    number: str
    expiry_month: str
    expiry_year: str
    cvv: str
    holder_name: str | None = None


class ThreeDS(msgspec.Struct, frozen=True):
    trans_id: str = msgspec.field(name="threeDSServerTransID")


class Request(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    reference: str
    amount: int
    currency: str
    merchant_id: str = msgspec.field(name="merchantID")
    order_id: str = msgspec.field(name="orderID")
    card: CardData
    dispute_url: str | None = msgspec.field(name="disputeURL", default=None)
    capture: str = "automatic"
    three_ds: ThreeDS | None = msgspec.field(name="threeDS", default=None)


_encode = msgspec.json.Encoder().encode


class CardDialect:
    collection = "/charges"

    def encode(self, payment: Payment, attempt: Attempt, instrument: Instrument, callback_url: str) -> bytes:
        card = instrument.card
        assert card is not None
        return _encode(
            Request(
                attempt.reference,
                attempt.amount_minor,
                attempt.currency,
                payment.merchant_id,
                payment.order_id,
                CardData(card.number, card.expiry_month, card.expiry_year, card.cvv, card.holder_name),
                callback_url,
                payment.capture_method,
                None if instrument.authenticated_by is None else ThreeDS(instrument.authenticated_by),
            )
        )

    def reason(self, response_code: str) -> str:
        return REASONS.get(response_code, "declined")

    def next_action(self, charge: Charge) -> NextAction | None:  # noqa: ARG002 - a card charge that is pending asks nothing of the customer
        return None
