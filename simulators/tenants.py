"""Tenants: worlds of their own in one process, each with its seed, clock, faults, records and journal.

A call with the header `X-Paydrome-Tenant: NAME`, or to a path below `/t/NAME`, belongs to the tenant NAME, who is made by the
first such call. All other calls belong to the world that the process was started for. What a tenant answers with leads back to
it: its URLs have the prefix.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from hashlib import blake2b
from typing import Annotated, Any

import msgspec
from aiohttp import web
from yarl import URL

from simulators.answers import Tenant, TenantList
from simulators.config import Config, Simulators
from simulators.control import edited, reply
from simulators.faults import Name
from simulators.site import Site, without_ports
from simulators.wire import Refused, decode

TENANTS_MAX = 256  # one has some 130 kB, and 16 tasks for its callbacks; a CI with so many jobs at once has several machines
HEADER = "X-Paydrome-Tenant"
PREFIX = "/t/"
WATCHING = ("/live", "/admin/live", "/metrics")  # asked for again and again: a tenant that was deleted must not come back by it
SEED_MAX = 2**63 - 1
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class NewTenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /admin/tenants`. `simulators` is a merge patch (RFC 7396) over the sections of the process's configuration."""

    name: Name
    seed: Annotated[int, msgspec.Meta(ge=0, le=SEED_MAX)] | None = None
    simulators: dict[str, Any] = {}


class Tenants:
    """Finds the world of each request. `make` serves one while its context is open."""

    def __init__(self, default: Site, make: Callable[[Config], AbstractAsyncContextManager[Site]]) -> None:
        self._default = default
        self._base = without_ports(default.base)
        self._make = make
        self._sites: dict[str, Site] = {}
        self._ends: dict[str, AsyncExitStack] = {}
        self._changing = asyncio.Lock()
        self._decoder = msgspec.json.Decoder(NewTenant)
        default.routes.add("/admin/tenants", GET=self._list, POST=self._create)
        default.routes.add("/admin/tenants/*", DELETE=self._delete)

    def __call__(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        """The answer to a request. Raises Refused."""
        if request.raw_path.startswith(PREFIX) or HEADER in request.headers:
            return self._serve(request)
        return self._default.routes(request)

    def __len__(self) -> int:
        """How many there are, beside the world that the process was started for."""
        return len(self._sites)

    async def close(self) -> None:
        """Ends all tenants."""
        for name in list(self._sites):
            await self._end(name)
        async with self._changing:  # one whose caller has gone may still be ending
            pass

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        name, path = _addressed(request)
        if name not in self._sites and path.partition("?")[0] in WATCHING:
            raise Refused(404, "not_found", f"there is no tenant {name!r}; its first call to anything else makes it")
        site = self._sites.get(name) or await self._open(name, self._base)
        inner = request.clone(rel_url=URL(path, encoded=True), host=f"{request.host}{PREFIX}{name}")
        return await site.routes(inner)

    async def _open(self, name: str, base: Simulators, seed: int | None = None, *, new: bool = False) -> Site:
        async with self._changing:
            if name in self._sites:
                if new:
                    sentence = f"there is a tenant {name!r} already; DELETE /admin/tenants/{name} first, or choose another name"
                    raise Refused(409, "tenant_exists", sentence)
                return self._sites[name]
            if len(self._sites) >= TENANTS_MAX:
                sentence = f"there are {TENANTS_MAX} tenants already; DELETE /admin/tenants/NAME those that are done"
                raise Refused(429, "too_many_tenants", sentence)
            own_seed = seed_of(self._default.base.seed, name) if seed is None else seed
            sections = {field: getattr(base, field) for field in Simulators.__struct_fields__}
            config = Config(secrets=self._default.base.secrets, seed=own_seed, **sections)
            async with AsyncExitStack() as stack:
                site = await stack.enter_async_context(self._make(config))
                self._sites[name], self._ends[name] = site, stack.pop_all()
            return site

    async def _end(self, name: str) -> None:
        """Goes on to its end where the caller goes away meanwhile and the handler is cancelled."""
        await asyncio.shield(self._finish(name))

    async def _finish(self, name: str) -> None:
        async with self._changing:
            if self._sites.pop(name, None) is None:
                raise Refused(404, "not_found", f"there is no tenant {name!r}; GET /admin/tenants lists them")
            await self._ends.pop(name).aclose()

    async def _list(self, request: web.BaseRequest, _: str) -> web.Response:
        return reply(TenantList([_shown(request, name, site) for name, site in self._sites.items()], TENANTS_MAX))

    async def _create(self, request: web.BaseRequest, _: str) -> web.Response:
        asked = await decode(request, self._decoder)
        settings = edited(self._base, asked.simulators)
        return reply(_shown(request, asked.name, await self._open(asked.name, settings, asked.seed, new=True)), status=201)

    async def _delete(self, _request: web.BaseRequest, name: str) -> web.Response:
        await self._end(name)
        return reply({"deleted": name})


def seed_of(seed: int, name: str) -> int:
    """The seed of a tenant that was given none: a hash of the process's seed and its name, so it is the same in each run."""
    digest = blake2b(f"{seed}\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") & SEED_MAX


def _addressed(request: web.BaseRequest) -> tuple[str, str]:
    """The tenant's name and the path within it, with its query. The path's prefix goes before the header."""
    if request.raw_path.startswith(PREFIX):
        name, slash, rest = request.raw_path.removeprefix(PREFIX).partition("/")
        path = slash + rest
    else:
        name, path = request.headers[HEADER], request.raw_path
    if not _NAME.fullmatch(name):
        raise Refused(400, "invalid_request", "a tenant's name is 1 to 64 of A-Z a-z 0-9 _ -")
    if not path.startswith("/") or path.startswith("//"):
        raise Refused(404, "unknown_path", f"a path follows the tenant's name, as in {PREFIX}{name}/health")
    return name, path


def _shown(request: web.BaseRequest, name: str, site: Site) -> Tenant:
    world = site.world
    return Tenant(name, f"http://{request.host}{PREFIX}{name}", world.draws.seed, world.now_ms(), len(world.journal))
