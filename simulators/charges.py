"""The life of a charge: pure.

    (never arrived) --create--> pending --customer--> approved | declined
          |            |           |----time--------> expired
          |            |           '----reverse-----> reversed
          |            |------> approved --reverse--> reversed
          |            |------> declined
          |            '------> authorized --capture--> partially_captured --capture--> approved
          |                        |  |                        '----time--------------> approved, the rest is released
          |                        |  '----time-----> expired
          |                        '-------reverse--> reversed (a void)
          '--reverse--> reversed, a tombstone: a create that comes later moves no money

Nothing else ever changes the status: declined, expired and reversed are final, and a create or reverse of a final charge answers it
as it is. What was captured can be refunded or disputed, and never more than that; once it was captured by a capture call,
refunded or disputed, money goes back by refund alone, because a reversal on top could return it twice. What is refused raises Conflict.
"""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import astuple, replace

from simulators.magic import APPROVED, DEEMED

AMOUNT_MAX = 10**15  # far beyond any payment, far below where a sum of them could leave 64 bits

Status = Literal["pending", "authorized", "partially_captured", "approved", "declined", "expired", "reversed"]


class Charge(msgspec.Struct, frozen=True, gc=False):
    """A charge as it goes over the wire; amounts in minor units, times in ms since 1970."""

    reference: str
    providerID: str
    status: Status
    responseCode: str | None
    amount: int  # as created
    currency: str
    createdAt: int
    updatedAt: int
    rrn: str | UnsetType = UNSET
    authorizationCode: str | UnsetType = UNSET
    intentURL: str | UnsetType = UNSET
    qrPayload: str | UnsetType = UNSET
    redirectURL: str | UnsetType = UNSET
    authorizedAmount: int | UnsetType = UNSET  # of a charge that is captured by calls of its own; with its increments
    capturedAmount: int | UnsetType = UNSET  # the same
    refundedAmount: int | UnsetType = UNSET  # by refunds that are pending or completed
    disputedAmount: int | UnsetType = UNSET  # by a dispute that is open or lost
    eci: str | UnsetType = UNSET  # of a card charge that came with a 3-D Secure authentication: who is liable


# What comes before the RRN, every charge has; what comes after the authorization code, few have.
_RRN, _RARE = (Charge.__struct_fields__.index(name) for name in ("rrn", "intentURL"))
_NOTHING = (UNSET,) * (len(Charge.__struct_fields__) - _RARE)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Any]).decode


def pack(charge: Charge) -> bytes:
    """The charge in a third of the memory. It takes 1 us, as long as to unpack it."""
    fields = astuple(charge)
    end = _RARE if fields[_RARE:] == _NOTHING else None
    return _encode((*fields[:_RRN], *[None if field is UNSET else field for field in fields[_RRN:end]]))


def unpack(packed: bytes | None) -> Charge | None:
    """The charge that was packed; `None` for none."""
    if packed is None:
        return None
    fields = _decode(packed)
    fields[_RRN:] = [UNSET if field is None else field for field in fields[_RRN:]]
    return Charge(*fields)


class Change(msgspec.Struct, frozen=True, gc=False):
    """What an operation does: the charge afterwards, and the money that moved (+ charged, - reversed, minor units)."""

    charge: Charge
    moved: int = 0


class Conflict(Exception):
    """What is asked for cannot be done in the state that things are in. Nothing has changed."""

    def __init__(self, code: str, sentence: str) -> None:
        self.code = code
        super().__init__(sentence)


class ReferenceConflict(Conflict):
    """The reference already stands for something else."""

    def __init__(self, charge: Charge) -> None:
        super().__init__(
            "reference_conflict",
            f"reference {charge.reference!r} already stands for {charge.amount} {charge.currency} (minor units)",
        )


def captured(charge: Charge) -> int:
    """The money that was taken and not reversed."""
    if charge.capturedAmount is not UNSET:
        return charge.capturedAmount
    return charge.amount if charge.status == "approved" else 0


def refundable(charge: Charge) -> int:
    """What can still be refunded or disputed."""
    return captured(charge) - (charge.refundedAmount or 0) - (charge.disputedAmount or 0)


def repeat(charge: Charge, *, amount: int, currency: str) -> Change:
    """A create whose reference is known: the same charge again. Raises ReferenceConflict."""
    if (charge.amount, charge.currency) != (amount, currency):
        raise ReferenceConflict(charge)
    return Change(charge)


def tombstone(reference: str, *, provider_id: str, amount: int, currency: str, now_ms: int) -> Change:
    """A reversal of a reference that never arrived blocks it."""
    return Change(Charge(reference, provider_id, "reversed", None, amount, currency, now_ms, now_ms))


def reverse(charge: Charge, *, amount: int, currency: str, now_ms: int) -> Change:
    """Undoes an approved charge, cancels a pending one, voids an authorization, leaves one that is over as it is.

    Raises Conflict `not_reversible` for what was captured by a capture call, refunded or disputed, and ReferenceConflict.
    """
    repeat(charge, amount=amount, currency=currency)
    if charge.status not in ("approved", "pending", "authorized", "partially_captured"):
        return Change(charge)
    if charge.capturedAmount or charge.refundedAmount or charge.disputedAmount:
        raise Conflict("not_reversible", f"{_named(charge)} was captured, refunded or disputed; refund what is left instead")
    return Change(_with(charge, now_ms, status="reversed"), -captured(charge))


def increment(charge: Charge, *, amount: int, currency: str, code: str, now_ms: int) -> Change:
    """Raises what is authorized by `amount` if the issuer's `code` is 00. Raises Conflict unless the charge is authorized."""
    authorized = _authorized(charge, currency, "not_incrementable", ("authorized",))
    if authorized + amount > AMOUNT_MAX:
        raise Conflict("amount_too_large", f"amount: no more than {AMOUNT_MAX} can be authorized in all")
    if code != APPROVED:
        return Change(charge)
    return Change(_with(charge, now_ms, authorizedAmount=authorized + amount))


def capture(charge: Charge, *, amount: int, currency: str, final: bool, now_ms: int) -> Change:
    """Takes `amount` of what is authorized; `final` releases the rest. Raises Conflict."""
    authorized = _authorized(charge, currency, "not_capturable", ("authorized", "partially_captured"))
    left = authorized - captured(charge)
    if amount > left:
        raise Conflict("capture_exceeds_authorized", f"{_named(charge)} has {left} {currency} (minor units) left to capture")
    status = "approved" if final or amount == left else "partially_captured"
    return Change(_with(charge, now_ms, status=status, capturedAmount=captured(charge) + amount), amount)


def reserve_refund(charge: Charge, *, amount: int, currency: str, now_ms: int) -> Change:
    """Sets `amount` aside for a refund, which moves it. Raises Conflict if that is more than is left."""
    _check_currency(charge, currency)
    left = refundable(charge)
    if amount > left:
        code = "charge_disputed" if charge.disputedAmount else "refund_exceeds_captured"
        raise Conflict(code, f"{_named(charge)} has {left} {currency} (minor units) left to refund")
    return Change(_with(charge, now_ms, refundedAmount=(charge.refundedAmount or 0) + amount))


def release_refund(charge: Charge, *, amount: int, now_ms: int) -> Change:
    """A refund of `amount` failed: it can be asked for again."""
    return Change(_with(charge, now_ms, refundedAmount=((charge.refundedAmount or 0) - amount) or UNSET))


def dispute(charge: Charge, *, amount: int, now_ms: int) -> Change:
    """The cardholder's bank takes `amount` back; 0 gives it back to the merchant."""
    return Change(_with(charge, now_ms, disputedAmount=amount or UNSET))


def decide(charge: Charge, *, code: str, rrn: str, now_ms: int) -> Change | None:
    """The customer approved (code 00) or declined, or paid and the banks have yet to agree (RB: it stays pending).

    `None` where there is nothing left to decide.
    """
    if charge.status != "pending" or (charge.responseCode == DEEMED and code != APPROVED):
        return None
    if code == DEEMED:
        return Change(_with(charge, now_ms, responseCode=DEEMED))
    if code != APPROVED:
        return Change(_with(charge, now_ms, status="declined", responseCode=code))
    return Change(_with(charge, now_ms, status="approved", responseCode=APPROVED, rrn=rrn), charge.amount)


def expire(charge: Charge, *, code: str, now_ms: int) -> Change | None:
    """Time ran out, for a customer (`code`) or for an authorization; `None` where neither is waited for."""
    match charge.status:
        case "pending" if charge.responseCode != DEEMED:
            return Change(_with(charge, now_ms, status="expired", responseCode=code))
        case "authorized":  # the issuer's code stays: it did approve
            return Change(_with(charge, now_ms, status="expired"))
        case "partially_captured":
            return Change(_with(charge, now_ms, status="approved"))
        case _:
            return None


def _authorized(charge: Charge, currency: str, code: str, statuses: tuple[str, ...]) -> int:
    """How much is authorized, in one of these statuses. Raises Conflict."""
    _check_currency(charge, currency)
    if charge.authorizedAmount is UNSET:
        raise Conflict(code, f'{_named(charge)} is {charge.status} and was not created with capture "manual"')
    if charge.status == "expired":
        raise Conflict("authorization_expired", f"the authorization of {_named(charge)} has expired; create a new one")
    if charge.status not in statuses:
        raise Conflict(code, f"{_named(charge)} is {charge.status}, not {' or '.join(statuses)}")
    return charge.authorizedAmount


def _check_currency(charge: Charge, currency: str) -> None:
    if currency != charge.currency:
        raise Conflict("currency_mismatch", f"currency: {_named(charge)} is in {charge.currency}, not in {currency}")


def _named(charge: Charge) -> str:
    return f"charge {charge.reference!r}"


def _with(charge: Charge, now_ms: int, **fields: Any) -> Charge:  # noqa: ANN401 - the fields of a Charge
    return replace(charge, updatedAt=now_ms, **fields)
