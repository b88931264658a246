"""Who is let in: the rates and bounds of core/limits.py, applied to requests."""

from collections.abc import Mapping
from ipaddress import ip_network

from aiohttp import web

from gateway.api import wire
from gateway.api.keys import Keys
from gateway.api.routing import UNCOUNTED, Priorities
from gateway.config import Limits
from gateway.core.errors import CallerError, Overloaded
from gateway.core.limits import Buckets, InFlight, Priority, Standing, bucket_of, client_address
from gateway.observe import Metrics

OPERATOR = "the operator"  # no merchant's id has a space

ARRIVING_MAX = (
    2_048  # bodies that are waited for before it is known whose they are: 128 MiB, if all are as large as they may be
)


class Admission:
    def __init__(
        self, limits: Limits, *, keys: Keys, priorities: Priorities, per_min: Mapping[str, int], metrics: Metrics
    ) -> None:
        """`per_min` is the rate of merchants who have one of their own."""
        self._per_min_per_key = limits.requests_per_min_per_key
        self._per_min_per_address = limits.requests_per_min_per_address
        self._keys = keys
        self._priorities = priorities
        self._per_min = per_min
        self._metrics = metrics
        self._trusted = [ip_network(network) for network in limits.trusted_proxies]
        self._by_key, self._by_address = Buckets(), Buckets()
        self._in_flight = InFlight(limits.in_flight_max)
        self._arriving = 0

    def priority(self, request: web.Request) -> Priority:
        return self._priorities.get(request.match_info.route, "read")  # what has no route is answered as quickly as a read

    async def arrival(self, request: web.Request) -> None:
        """Until a callback's body is there. Anybody may send one, and slowly: it takes no place among those under way meanwhile, nor does
        one wait that came with its head, as honest ones do. Raises Overloaded, and what `wire.read_body` does."""
        if request.content.is_eof():
            return
        if self._arriving >= ARRIVING_MAX:
            raise Overloaded("in_flight")
        self._arriving += 1
        try:
            await wire.read_body(request)
        finally:
            self._arriving -= 1

    def enter(self, request: web.Request, priority: Priority, headers: dict[str, str], now_s: float) -> None:
        """Lets the request in, and adds to the `headers` of its answer how its caller stands; `leave` has to follow. Raises CallerError
        429 or Overloaded."""
        if priority not in UNCOUNTED:
            self._count(request, headers, int(now_s * 1e9))
        self._in_flight.enter(priority)

    def leave(self, priority: Priority) -> None:
        self._in_flight.leave(priority)

    def _count(self, request: web.Request, headers: dict[str, str], now_ns: int) -> None:
        try:
            caller = self._keys.identify(request) or OPERATOR
        except CallerError:
            self._count_address(request, headers, now_ns)
            return
        per_min = self._per_min.get(caller, self._per_min_per_key)
        standing = self._by_key.take(caller, per_min, now_ns)
        _tell(headers, "key", standing)
        if standing.wait_s:
            self._metrics.limited("key")
            raise _too_many(f"more than {per_min} requests a minute with this API key", standing)

    def _count_address(self, request: web.Request, headers: dict[str, str], now_ns: int) -> None:
        address = client_address(request.remote or "", request.headers.getall("X-Forwarded-For", []), self._trusted)
        standing = self._by_address.take(bucket_of(address), self._per_min_per_address, now_ns)
        _tell(headers, "address", standing)
        if standing.wait_s:
            self._metrics.limited("address")
            raise _too_many(f"more than {standing.per_min} requests a minute without a valid API key", standing)


def _tell(headers: dict[str, str], policy: str, standing: Standing) -> None:
    """draft-ietf-httpapi-ratelimit-headers-10: q requests in w seconds; r remain, in t seconds there are q again."""
    headers["RateLimit-Policy"] = f'"{policy}";q={standing.per_min};w=60'
    headers["RateLimit"] = f'"{policy}";r={standing.remaining};t={standing.full_s}'
    if standing.wait_s:
        headers["Retry-After"] = str(standing.wait_s)


def _too_many(what: str, standing: Standing) -> CallerError:
    return CallerError(429, "rate_limited", f"{what}; retry in {standing.wait_s} s")
