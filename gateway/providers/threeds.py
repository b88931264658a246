"""3-D Secure 2 as the acquirer speaks it (docs/3ds.md): names are those of EMV 3-D Secure 2.2.0."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.core.authentication import Authentication, Told
from gateway.core.outcome import Unknown
from gateway.core.payment import Payment
from gateway.ports import CardSecret
from gateway.providers.calls import ABOUT_SOMETHING_ELSE, ProviderId, read

COLLECTION = "/3ds/authentications"  # path below the acquirer's base URL

AcsUrl = Annotated[str, Meta(pattern=r"^https?://[!-~]{1,2000}\Z")]
TwoDigits = Annotated[str, Meta(pattern=r"^[0-9]{2}\Z")]


class _Card(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """An AReq carries no CVV."""

    number: str
    expiry_month: str
    expiry_year: str
    holder_name: str | None = None


class _Request(msgspec.Struct, frozen=True, rename="camel"):
    reference: str
    amount: int
    currency: str
    merchant_id: str = msgspec.field(name="merchantID")
    order_id: str = msgspec.field(name="orderID")
    card: _Card
    return_url: str = msgspec.field(name="returnURL")
    callback_url: str = msgspec.field(name="callbackURL")


class _Answer(msgspec.Struct, frozen=True, rename="camel"):
    """The ARes, or later the RReq's content. Unknown fields are ignored."""

    reference: str
    amount: int
    currency: str
    trans_id: ProviderId = msgspec.field(name="threeDSServerTransID")
    trans_status: Literal["Y", "A", "N", "U", "R", "I", "C", "D"]
    trans_status_reason: TwoDigits | None = None
    eci: TwoDigits | None = None
    acs_url: AcsUrl | None = msgspec.field(name="acsURL", default=None)


_answers = msgspec.json.Decoder(_Answer)


def request(payment: Payment, authentication: Authentication, card: CardSecret, *, return_url: str, callback_url: str) -> bytes:
    return msgspec.json.encode(
        _Request(
            authentication.id,
            authentication.amount_minor,
            authentication.currency,
            payment.merchant_id,
            payment.order_id,
            _Card(card.number, card.expiry_month, card.expiry_year, card.holder_name),
            return_url,
            callback_url,
        )
    )


def read_authentication(body: bytes, authentication: Authentication) -> Told | Unknown:
    answer = read(_answers, body)
    if isinstance(answer, Unknown):
        return answer
    ours = authentication.id, authentication.amount_minor, authentication.currency
    if (answer.reference, answer.amount, answer.currency) != ours:
        return ABOUT_SOMETHING_ELSE
    return Told(
        trans_id=answer.trans_id,
        trans_status=answer.trans_status,
        trans_status_reason=answer.trans_status_reason,
        eci=answer.eci,
        url=answer.acs_url,
    )
