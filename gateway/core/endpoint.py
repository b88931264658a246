"""Where a merchant wants to be told of events, and of which: pure.

enabled <--> disabled         by the merchant: no deliveries are made; what was waiting is sent once it is enabled again
   |   ^---- gone             it answered 410: what was waiting is dead letters; the merchant may enable it again
   '-> deleted                for good
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from gateway.core.event import PUBLISHED, EventType

State = Literal["enabled", "disabled", "gone", "deleted"]

ENDPOINTS_MAX = 16  # of a merchant: each event is signed and sent once for each of them
EVERYTHING = "*"
FAMILIES = tuple(sorted({name.partition(".")[0] + ".*" for name in PUBLISHED}))


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """`events` are names, families such as `payment.*`, or `*`. The secrets are as the vault seals them; the old one signs, too, until
    `old_secret_until_ms`. `configured` is the fingerprint of the configuration that was last applied, None if it comes from the API."""

    id: str
    merchant_id: str
    url: str
    events: tuple[str, ...] = (EVERYTHING,)
    description: str | None = None
    state: State = "enabled"
    secret: bytes
    old_secret: bytes | None = None
    old_secret_until_ms: int | None = None
    configured: bytes | None = None
    created_at_ms: int
    updated_at_ms: int


def unknown_names(events: Sequence[str]) -> list[str]:
    """Those that are neither `*`, nor a family, nor the name of an event that is published."""
    return [name for name in events if name != EVERYTHING and name not in FAMILIES and name not in PUBLISHED]


def wants(endpoint: Endpoint, event_type: EventType) -> bool:
    family = event_type.partition(".")[0] + ".*"
    return any(name in (EVERYTHING, family, event_type) for name in endpoint.events)
