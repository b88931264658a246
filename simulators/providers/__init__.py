"""What the dialects share: the fields of a create call, and what opening a charge results in.

Each dialect is one module with a `DIALECT`, all pure; `app.py` registers them.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Generic, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from simulators.behaviour import Draw, Mix
from simulators.capacity import Station
from simulators.charges import AMOUNT_MAX, Charge
from simulators.faults import Faults
from simulators.inquiries import InquiryLimit
from simulators.latency import LatencyTable
from simulators.magic import CardStory

EXPIRES_MS_MAX = 24 * 3_600_000

# `\Z`, not `$`: `$` would let a trailing line break through.
REFERENCE = r"^[A-Za-z0-9_-]{1,64}\Z"
Reference = Annotated[str, Meta(pattern=REFERENCE, description="1 to 64 of A-Z a-z 0-9 _ -")]
Amount = Annotated[int, Meta(ge=1, le=AMOUNT_MAX)]
Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z", description="three capital letters (ISO 4217), such as INR")]
Text = Annotated[str, Meta(min_length=1, max_length=255)]  # printable: see `Create.__post_init__`
Url = Annotated[
    str,
    Meta(
        pattern=r"^https?://[^\x00-\x20\x7f-\U0010ffff\"<>\\/?#][^\x00-\x20\x7f-\U0010ffff\"<>\\]{0,2000}\Z",
        description="an http:// or https:// URL of at most 2000 ASCII characters, without blanks, quotes, < > or backslashes",
    ),
]
ExpiresInMs = Annotated[int, Meta(ge=1, le=EXPIRES_MS_MAX)]


class Create(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """The fields that every create call has."""

    reference: Reference
    amount: Amount
    currency: Currency
    merchantID: Text
    orderID: Text | None = None

    def __post_init__(self) -> None:
        if not self.merchantID.isprintable():  # a tenth of the cost of a pattern
            raise ValueError("merchantID: contains a control character")
        if self.orderID is not None and not self.orderID.isprintable():
            raise ValueError("orderID: contains a control character")

    def instrument(self) -> tuple[str | None, str | None]:
        """The card number and the VPA that it carries, for faults that ask."""
        return None, None


C = TypeVar("C", bound=Create)


class Conduct(NamedTuple):
    """How a provider and its customers behave for a stretch of time, ready to draw from. What is per operation is by its name."""

    mix: Mix
    customer_delay: LatencyTable | None = None
    customer_acts: bool = False
    challenge: Literal["person", "simulated"] = "person"  # who meets a 3-D Secure challenge that does not say so itself
    authentication: Mix | None = None  # 3-D Secure, of the card acquirer
    payouts: Mix | None = None  # of the bank
    latencies: Mapping[str, LatencyTable] = {}  # each operation that is called has one
    stations: Mapping[str, Station] = {}  # none: the operation has no bound
    faults: Faults = Faults("", ())


class Terms(NamedTuple):
    """How long things take that happen after the charge. `refund_delay` is `None` where a refund completes at once."""

    refund_delay: LatencyTable | None = None
    authorization_lifetime_ms: int = 7 * 24 * 3_600_000
    dispute_delay_ms: int = 2_000
    inquiry_limit: InquiryLimit | None = None


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """What a pending charge waits for. `decision` is the simulated customer's, `None` where none will act."""

    callback_url: str
    merchant_id: str
    expires_in_ms: int
    decision: str | None
    decides_in_ms: int
    bank_code: str = ""
    return_url: str | None = None


class Later(msgspec.Struct, frozen=True, gc=False):
    """What will become of a charge by a test card that forces its approval."""

    story: CardStory
    dispute_url: str | None  # where to tell of a dispute


class Opening(msgspec.Struct, frozen=True, gc=False):
    """A new charge. `moved` is the money that it moves at once."""

    charge: Charge
    moved: int = 0
    waiting: Waiting | None = None
    answer_lost: bool = False
    later: Later | None = None


class Dialect(NamedTuple, Generic[C]):
    """One kind of provider. `open_charge(request, conduct, draw, now_ms, host)` decides what becomes of a new reference; `host`
    is where the caller reached the simulators."""

    name: str
    collection: str  # the last part of the create call's path
    create: type[C]
    open_charge: Callable[[C, Conduct, Draw, int, str], Opening]
    expired: str = ""  # the response code of an expired charge; cards are never pending


def provider_id(provider: str, draw: Draw) -> str:
    """The provider's own id of a charge."""
    return f"{provider}_{draw.identity.to_bytes(8).hex()}"


def rrn(draw: Draw) -> str:
    """The retrieval reference number: 12 digits."""
    return str(draw.numbers % 10**12).zfill(12)


def authorization_code(draw: Draw) -> str:
    """The issuer's authorization code: 6 digits."""
    return str(draw.numbers // 10**12 % 10**6).zfill(6)
