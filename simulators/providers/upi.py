"""The UPI switch: a payment is pending until the customer decides in their app, or until it expires (U69).

Flows: `collect` asks the owner of a VPA, `intent` opens an app on the customer's phone, `qr` is scanned. VPAs with a
fixed fate are in `magic.py`, whichever flow they come in. The simulated customer decides even if the answer to the
create call was lost: the switch has the request, and the customer's app shows it.

An execution of a mandate (`mandates.py`) is a payment that asks no customer, so the answer has its outcome.

RB is NPCI's "deemed" (credit timeout): the customer paid, and the payee's bank did not say in time that it has the money. The
payment stays pending with that code until the banks agree, which here always ends well.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta

from simulators.behaviour import Draw
from simulators.charges import Charge
from simulators.magic import APPROVED, DEEMED, DEEMED_CONFIRMED_MS, UPI_EXPIRED, VPAS
from simulators.providers import EXPIRES_MS_MAX, Conduct, Create, Dialect, ExpiresInMs, Opening, Url, Waiting, provider_id, rrn
from simulators.upi_links import payment_link

EXPIRES_MS_DEFAULT = 300_000
CUSTOMER_CODES = frozenset({UPI_EXPIRED, "Z6", "ZA", "ZH", "ZM"})  # what only somebody with a UPI PIN can cause

Vpa = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9._-]{1,255}@[A-Za-z][A-Za-z0-9.-]{0,63}\Z",
        description="a VPA such as name@bank: 1 to 255 of A-Z a-z 0-9 . _ -, then @ and at most 64 of A-Z a-z 0-9 . -, a letter first",
    ),
]


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

    def instrument(self) -> tuple[None, str | None]:
        return None, self.vpa


class Execution(Create, frozen=True, kw_only=True, gc=False):
    """A debit under a mandate; `mandates.py` makes one of a call that the mandate allows."""

    vpa: str
    callbackURL: str

    def instrument(self) -> tuple[None, str]:
        return None, self.vpa


def open_charge(request: CreatePayment | Execution, conduct: Conduct, draw: Draw, now_ms: int, _host: str) -> Opening:
    """A pending payment with what the flow needs, or one that is decided at once."""
    if isinstance(request, Execution):
        return _execute(request, conduct, draw, now_ms)
    script = VPAS.get(request.vpa.lower()) if request.vpa else None
    refused = script is not None and script.at_once
    link = None if refused or request.flow == "collect" else _link(request, request.flow, draw)
    charge = Charge(
        request.reference,
        provider_id("upi", draw),
        "declined" if refused else "pending",
        script.code if script and refused else None,
        request.amount,
        request.currency,
        now_ms,
        now_ms,
        intentURL=link if link and request.flow == "intent" else UNSET,
        qrPayload=link if link and request.flow == "qr" else UNSET,
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


def _link(request: CreatePayment, flow: Literal["intent", "qr"], draw: Draw) -> str:
    return payment_link(
        flow,
        payee=request.merchantID,
        reference=request.reference,
        order=request.orderID,
        amount_paise=request.amount,
        draw=draw,
    )


def _execute(request: Execution, conduct: Conduct, draw: Draw, now_ms: int) -> Opening:
    script = VPAS.get(request.vpa.lower())
    code = script.code if script else conduct.mix.pick(draw.outcome)
    if code in CUSTOMER_CODES:
        code = APPROVED
    status: Literal["approved", "pending", "declined"]
    status = "approved" if code == APPROVED else "pending" if code == DEEMED else "declined"
    charge = Charge(
        request.reference,
        provider_id("upi", draw),
        status,
        code,
        request.amount,
        request.currency,
        now_ms,
        now_ms,
        rrn=rrn(draw) if status == "approved" else UNSET,
    )
    if status != "pending":
        return Opening(charge, moved=request.amount if status == "approved" else 0)
    # It cannot expire: the money has left the customer.
    waiting = Waiting(request.callbackURL, request.merchantID, EXPIRES_MS_MAX, APPROVED, DEEMED_CONFIRMED_MS)
    return Opening(charge, waiting=waiting)


DIALECT = Dialect("upi", "payments", CreatePayment, open_charge, expired=UPI_EXPIRED)
