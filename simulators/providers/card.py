"""The card acquirer: answers at once, approved (or authorized, for a capture that comes later) or declined with an ISO 8583
field 39 code.

A charge may show that its customer was authenticated by 3-D Secure (`threeds.py`); test cards that want it are declined with 1A
(additional authentication required) without. Test cards with a fixed fate are in `magic.py`; an invalid number is declined with
14, a card of the past with 54, and all others follow the mix.
"""

import time
from functools import lru_cache
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta

from simulators.behaviour import Draw
from simulators.charges import Charge
from simulators.magic import APPROVED, CARD_CODES, CARD_STORIES, ORDINARY_CARDS
from simulators.providers import (
    Conduct,
    Create,
    Dialect,
    Later,
    Opening,
    Text,
    Url,
    authorization_code,
    provider_id,
    rrn,
)
from simulators.threeds import Proof, response_code

INVALID_CARD = "14"
EXPIRED_CARD = "54"
DAY_MS = 86_400_000
_DOUBLED = bytes.maketrans(b"0123456789", b"0246813579")  # doubling a digit and adding up the digits of the result


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """Card data of a create call. It is used for the decision and kept nowhere."""

    number: Annotated[str, Meta(min_length=12, max_length=19)]
    expiryMonth: Annotated[str, Meta(min_length=1, max_length=2)]
    expiryYear: Annotated[str, Meta(min_length=2, max_length=4)]
    cvv: Annotated[str, Meta(min_length=3, max_length=4)]
    holderName: Text | None = None

    def __post_init__(self) -> None:
        if not _digits(self.number + self.expiryMonth + self.expiryYear + self.cvv):  # one look instead of four patterns
            name = next(name for name in self.__struct_fields__ if not _digits(getattr(self, name)))
            raise ValueError(f"{name}: must be digits")
        if not 1 <= int(self.expiryMonth) <= 12:
            raise ValueError("expiryMonth: must be 1 to 12")

    def __repr__(self) -> str:
        return "Card(...)"  # card data must not reach a log by way of a repr


class ThreeDS(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The authentication of a charge: by its id, or by what a 3DS server of the caller's own got for it."""

    threeDSServerTransID: Text | None = None
    eci: Text | None = None
    authenticationValue: Text | None = None
    dsTransID: Text | None = None

    def __post_init__(self) -> None:
        values = (self.eci, self.authenticationValue, self.dsTransID)
        given = sum(value is not None for value in values)
        if given != (0 if self.threeDSServerTransID is not None else len(values)):
            raise ValueError("needs either threeDSServerTransID, or eci, authenticationValue and dsTransID")


class CreateCharge(Create, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """`POST /card/charges`."""

    card: Card
    capture: Literal["automatic", "manual"] = "automatic"
    disputeURL: Url | None = None
    threeDS: ThreeDS | None = None

    def instrument(self) -> tuple[str | None, str | None]:
        return self.card.number, None


def open_charge(
    request: CreateCharge, conduct: Conduct, draw: Draw, now_ms: int, _host: str, proof: Proof | None = None
) -> Opening:
    """Authorizes, and captures in the same step unless the capture is manual. `proof` is what its `threeDS` turned out to be worth."""
    code = forced_code(request.card, now_ms)
    if proof is not None:
        code = response_code(request.card.number, code, proof)
    code = code or conduct.mix.pick(draw.outcome)
    approved, manual = code == APPROVED, request.capture == "manual"
    charge = Charge(
        request.reference,
        provider_id("card", draw),
        ("authorized" if manual else "approved") if approved else "declined",
        code,
        request.amount,
        request.currency,
        now_ms,
        now_ms,
        rrn(draw) if approved else UNSET,
        authorization_code(draw) if approved else UNSET,
        authorizedAmount=request.amount if approved and manual else UNSET,
        capturedAmount=0 if approved and manual else UNSET,
        eci=proof.eci if proof is not None else UNSET,
    )
    story = CARD_STORIES.get(request.card.number) if approved else None
    later = Later(story, request.disputeURL) if story else None
    return Opening(charge, request.amount if approved and not manual else 0, later=later)


def forced_code(card: Card, now_ms: int) -> str | None:
    """The code that the card itself forces without 3-D Secure, `None` where the mix decides."""
    if card.number not in ORDINARY_CARDS and not luhn_valid(card.number):
        return INVALID_CARD
    if _expired(card.expiryYear, card.expiryMonth, now_ms // DAY_MS):
        return EXPIRED_CARD
    return APPROVED if card.number in CARD_STORIES else CARD_CODES.get(card.number)


def luhn_valid(number: str) -> bool:
    """Whether a card number's last digit is its Luhn check digit (ISO/IEC 7812-1, annex B)."""
    digits = number.encode()
    total = sum(digits[::-2]) + sum(digits[-2::-2].translate(_DOUBLED))
    return (total - ord("0") * len(digits)) % 10 == 0


def _digits(text: str) -> bool:
    return text.isascii() and text.isdecimal()


@lru_cache(maxsize=4096)
def _expired(year: str, month: str, day: int) -> bool:
    """Whether a card's last month is over on this day since 1970."""
    today = time.gmtime(day * DAY_MS // 1000)
    full_year = int(year) if len(year) > 2 else 2000 + int(year)
    return (full_year, int(month)) < (today.tm_year, today.tm_mon)


DIALECT = Dialect("card", "charges", CreateCharge, open_charge)
