"""How a call to a provider ended, as far as we know.

`Approved`, `Authorized`, `Declined`, `Expired`, `Reversed` and `Irreversible` are definite: the provider said so. `NotSent` is definite as
well: no byte left.
`Unknown` is neither success nor failure, ever.
"""

import msgspec


class NextAction(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the customer has to do now. `type` is redirect, upi_intent, upi_qr or upi_collect."""

    type: str
    url: str | None = None
    payload: str | None = None


class Approved(msgspec.Struct, frozen=True):
    provider_id: str
    response_code: str


class Authorized(msgspec.Struct, frozen=True):
    """The issuer approved and holds the money; none has moved."""

    provider_id: str
    response_code: str


class Declined(msgspec.Struct, frozen=True):
    response_code: str
    reason: str
    provider_id: str | None = None


class Expired(msgspec.Struct, frozen=True):
    """The customer did not act in time; the provider closed the charge without moving money."""

    response_code: str
    provider_id: str | None = None


class Pending(msgspec.Struct, frozen=True):
    provider_id: str
    next_action: NextAction | None


class NotSent(msgspec.Struct, frozen=True):
    """No request byte left this process."""

    reason: str


class Unknown(msgspec.Struct, frozen=True):
    """The provider may or may not have acted."""

    reason: str


class Reversed(msgspec.Struct, frozen=True):
    """The provider undid or blocked the charge: no money is, or will be, moved under this reference."""


class Irreversible(msgspec.Struct, frozen=True):
    """Answer to a reversal: the money was taken, and is refunded or disputed by now, so that there is nothing left to undo."""

    provider_id: str
    response_code: str


class NotFound(msgspec.Struct, frozen=True):
    """Answer to an inquiry: the provider has not seen the reference *so far*. The request may still be on its way."""


class Overdue(msgspec.Struct, frozen=True):
    """Our own finding: still pending at the provider long after it should have expired."""


class Lapsed(msgspec.Struct, frozen=True):
    """Our own finding: an authorization, of which a part was captured, has expired; the rest is released."""


class GaveUp(msgspec.Struct, frozen=True):
    """Our own finding: inquiries and reversals brought no answer before the recovery deadline."""


Outcome = (
    Approved
    | Authorized
    | Declined
    | Expired
    | Pending
    | NotSent
    | Unknown
    | Reversed
    | Irreversible
    | NotFound
    | Overdue
    | Lapsed
    | GaveUp
)
