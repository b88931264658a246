"""What the admin API answers with, where it is not what it was asked with. `openapi.py` describes these."""

import msgspec


class WorldTime(msgspec.Struct, frozen=True, rename="camel"):
    """The world's time, ms since 1970, and what waits. `timelineMs`: since the timeline's zero, `null` before it has one."""

    now_ms: int
    offset_ms: int
    timers_waiting: int
    callbacks_under_way: int
    timeline_ms: int | None


class ResetDone(msgspec.Struct, frozen=True):
    """Answer of `POST /admin/reset`."""

    seed: int
    clock: WorldTime


class Restored(msgspec.Struct, frozen=True, rename="camel"):
    """Answer of `POST /admin/snapshots/NAME/restore`. `callbacksForgotten` were under way before."""

    restored: str
    callbacks_forgotten: int
    clock: WorldTime


class Kept(msgspec.Struct, frozen=True, rename="camel"):
    """A snapshot. Callbacks that were under way when it was made are not in it."""

    name: str
    at_ms: int
    seed: int
    entries: int
    bytes: int
    callbacks_under_way: int


class Snapshots(msgspec.Struct, frozen=True):
    """Answer of `GET /admin/snapshots`."""

    snapshots: list[Kept]
    max: int


class Tenant(msgspec.Struct, frozen=True, rename="camel"):
    """A tenant. Append the providers' paths to `url`."""

    name: str
    url: str
    seed: int
    now_ms: int
    entries: int


class TenantList(msgspec.Struct, frozen=True):
    """Answer of `GET /admin/tenants`."""

    tenants: list[Tenant]
    max: int


class Balance(msgspec.Struct, frozen=True):
    """Answer of `GET /admin/balance`: by currency, in minor units."""

    balance: dict[str, int]
