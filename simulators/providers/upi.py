"""The UPI switch: a payment is pending until the customer decides in their app, or until it expires (U69).

Flows: `collect` asks the owner of a VPA, `intent` opens an app on the customer's phone, `qr` is scanned. VPAs with a
fixed fate are in `magic.py`, whichever flow they come in. The simulated customer decides even if the answer to the
create call was lost: the switch has the request, and the customer's app shows it.
"""

from typing import Annotated, Literal
from urllib.parse import urlencode

from msgspec import UNSET, Meta

from simulators.behaviour import Draw
from simulators.charges import Charge
from simulators.magic import UPI_EXPIRED, VPAS
from simulators.providers import Conduct, Create, Dialect, ExpiresInMs, Opening, Url, Waiting, provider_id

EXPIRES_MS_DEFAULT = 300_000
PAYEE_VPA = "merchant@paydrome"

Vpa = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,255}@[A-Za-z][A-Za-z0-9.-]{0,63}\Z")]


class CreatePayment(Create, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """`POST /upi/payments`."""

    currency: Literal["INR"]  # UPI moves nothing else
    flow: Literal["collect", "intent", "qr"]
    callbackURL: Url
    vpa: Vpa | None = None
    expiresInMs: ExpiresInMs = EXPIRES_MS_DEFAULT

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.flow == "collect" and self.vpa is None:
            raise ValueError("vpa: required for the collect flow")


def open_charge(request: CreatePayment, conduct: Conduct, draw: Draw, now_ms: int, _host: str) -> Opening:
    """A pending payment with what the flow needs, or one that is declined at once."""
    script = VPAS.get(request.vpa.lower()) if request.vpa else None
    refused = script is not None and script.at_once
    link = urlencode(
        {"pa": PAYEE_VPA, "pn": request.merchantID, "tr": request.reference, "am": rupees(request.amount), "cu": "INR"}
    )
    charge = Charge(
        request.reference,
        provider_id("upi", draw),
        "declined" if refused else "pending",
        script.code if script and refused else None,
        request.amount,
        request.currency,
        now_ms,
        now_ms,
        intentURL=f"upi://pay?{link}" if request.flow == "intent" and not refused else UNSET,
        qrPayload=f"upi://pay?{link}&mode=01" if request.flow == "qr" and not refused else UNSET,  # 01: a scanned QR code
    )
    if refused:
        return Opening(charge)
    assert conduct.customer_delay is not None
    decision = script.code if script else conduct.mix.pick(draw.outcome)
    scripted_ms = script.delay_ms if script else None
    waiting = Waiting(
        request.callbackURL,
        request.merchantID,
        request.expiresInMs,
        decision if conduct.customer_acts else None,
        conduct.customer_delay.pick(draw.customer_delay) if scripted_ms is None else scripted_ms,
    )
    return Opening(charge, waiting=waiting, answer_lost=script is not None and script.answer_lost)


def rupees(paise: int) -> str:
    """An amount as a UPI link writes it: rupees with two decimals."""
    return f"{paise // 100}.{paise % 100:02d}"


DIALECT = Dialect("upi", "payments", CreatePayment, open_charge, expired=UPI_EXPIRED)
