"""Net banking: a payment is pending until somebody pays or cancels on the bank's page, or until it expires.

`TESTS` succeeds, `TESTF` fails, `TESTP` stays pending until a person acts or it expires; any other bank follows the mix. The
simulated customer acts even if the answer with the page's address was lost, as if a status inquiry had found it.
"""

from typing import Annotated, Literal

from msgspec import Meta

from simulators.behaviour import Draw
from simulators.charges import Charge
from simulators.magic import (
    APPROVED,
    BANK_EXPIRED,
    BANK_FAILS,
    BANK_FAILURE,
    BANK_SCRIPTS,
    BANK_STAYS_PENDING,
    OTP_THAT_PASSES,
)
from simulators.providers import Conduct, Create, Dialect, ExpiresInMs, Opening, Url, Waiting, provider_id

EXPIRES_MS_DEFAULT = 900_000
CANCELLED = "customer_cancelled"
OTP_FAILED = "otp_failed"


class CreatePayment(Create, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """`POST /bank/payments`."""

    bankCode: Annotated[
        str, Meta(pattern=r"^[A-Z0-9]{4,11}\Z", description="4 to 11 of A-Z 0-9: an IFSC (11) or its bank part (4)")
    ]
    callbackURL: Url
    returnURL: Url | None = None
    expiresInMs: ExpiresInMs = EXPIRES_MS_DEFAULT


def open_charge(request: CreatePayment, conduct: Conduct, draw: Draw, now_ms: int, host: str) -> Opening:
    """A pending payment and the page where the customer decides."""
    page = provider_id("bank", draw)
    charge = Charge(
        request.reference,
        page,
        "pending",
        None,
        request.amount,
        request.currency,
        now_ms,
        now_ms,
        redirectURL=f"http://{host}/bank/pages/{page}",
    )
    script = BANK_SCRIPTS.get(request.bankCode)
    acts = conduct.customer_acts and request.bankCode != BANK_STAYS_PENDING
    decision = script.code if script else conduct.mix.pick(draw.outcome)
    assert conduct.customer_delay is not None
    waiting = Waiting(
        request.callbackURL,
        request.merchantID,
        request.expiresInMs,
        decision if acts else None,
        conduct.customer_delay.pick(draw.customer_delay),
        request.bankCode,
        request.returnURL,
    )
    return Opening(charge, waiting=waiting)


def clicked(action: Literal["pay", "cancel"], *, otp: str, bank_code: str) -> str:
    """The response code of what a person did on the page."""
    if action == "cancel":
        return CANCELLED
    if otp != OTP_THAT_PASSES:
        return OTP_FAILED
    return BANK_FAILURE if bank_code == BANK_FAILS else APPROVED


DIALECT = Dialect("bank", "payments", CreatePayment, open_charge, expired=BANK_EXPIRED)
