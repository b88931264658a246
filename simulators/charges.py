"""The life of a charge: pure.

    (never arrived) --create--> pending --customer--> approved | declined
          |            |           |----time--------> expired
          |            |           '----reverse-----> reversed
          |            '------> approved --reverse--> reversed
          |            '------> declined
          '--reverse--> reversed, a tombstone: a create that comes later moves no money

Nothing else ever changes: declined, expired and reversed are final, and an operation on a final charge answers it as it is.
"""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from simulators.magic import APPROVED

Status = Literal["pending", "approved", "declined", "expired", "reversed"]


class Charge(msgspec.Struct, frozen=True, gc=False):
    """A charge as it goes over the wire; amounts in minor units, times in ms since 1970."""

    reference: str
    providerID: str
    status: Status
    responseCode: str | None
    amount: int
    currency: str
    createdAt: int
    updatedAt: int
    rrn: str | UnsetType = UNSET
    authorizationCode: str | UnsetType = UNSET
    intentURL: str | UnsetType = UNSET
    qrPayload: str | UnsetType = UNSET
    redirectURL: str | UnsetType = UNSET


class Change(msgspec.Struct, frozen=True, gc=False):
    """What an operation does: the charge afterwards, and the money that moved (+ charged, - reversed, minor units)."""

    charge: Charge
    moved: int = 0


class ReferenceConflict(Exception):
    """The reference already stands for another amount or currency."""

    def __init__(self, charge: Charge) -> None:
        self.charge = charge
        super().__init__(f"reference {charge.reference!r} already stands for {charge.amount} {charge.currency} (minor units)")


def repeat(charge: Charge, *, amount: int, currency: str) -> Change:
    """A create whose reference is known: the same charge again. Raises ReferenceConflict."""
    if (charge.amount, charge.currency) != (amount, currency):
        raise ReferenceConflict(charge)
    return Change(charge)


def tombstone(reference: str, *, provider_id: str, amount: int, currency: str, now_ms: int) -> Change:
    """A reversal of a reference that never arrived blocks it."""
    return Change(Charge(reference, provider_id, "reversed", None, amount, currency, now_ms, now_ms))


def reverse(charge: Charge, *, amount: int, currency: str, now_ms: int) -> Change:
    """Undoes an approved charge, cancels a pending one, leaves any other as it is. Raises ReferenceConflict."""
    repeat(charge, amount=amount, currency=currency)
    if charge.status not in ("approved", "pending"):
        return Change(charge)
    undone = msgspec.structs.replace(charge, status="reversed", updatedAt=now_ms)
    return Change(undone, -amount if charge.status == "approved" else 0)


def decide(charge: Charge, *, code: str, rrn: str, now_ms: int) -> Change | None:
    """The customer approved (code 00) or declined; `None` where there is nothing left to decide."""
    if charge.status != "pending":
        return None
    if code != APPROVED:
        return Change(msgspec.structs.replace(charge, status="declined", responseCode=code, updatedAt=now_ms))
    approved = msgspec.structs.replace(charge, status="approved", responseCode=APPROVED, rrn=rrn, updatedAt=now_ms)
    return Change(approved, charge.amount)


def expire(charge: Charge, *, code: str, now_ms: int) -> Change | None:
    """Time ran out; `None` where the charge is no longer pending."""
    if charge.status != "pending":
        return None
    return Change(msgspec.structs.replace(charge, status="expired", responseCode=code, updatedAt=now_ms))
