"""How much may be asked of the gateway: how often by one caller, and how much at once. Pure: the time is an argument.

Rates are token buckets in the form of GCRA (ITU-T I.371): all that is kept of a bucket is the time at which it will be full again, so one
that is full need not be kept. Who is turned away is not charged for it.

What is shed first when too much is under way:

    create      a new payment: the costliest, and nothing has happened yet
    write       what merchants do with payments that exist
    read        how things stand: clients who cannot ask would only try again
    callback    what ends payments that are under way: counted apart, so that nothing of the above can hold it up, nor be held up by it
    return      customers who come back from a bank's or issuer's page: counted apart, too, as anybody can call up that address
    health      never: who looks at a busy gateway must see that it is busy
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from types import TracebackType
from typing import Literal

import msgspec

from gateway.core.errors import Overloaded

Priority = Literal["create", "write", "read", "callback", "return", "health"]
Network = IPv4Network | IPv6Network

MINUTE_NS = 60_000_000_000
BUCKETS_MAX = 50_000  # of callers that were seen last: about 10 MB
HOPS_MAX = 10  # proxies in a row that are believed; nobody has as many


class Standing(msgspec.Struct, frozen=True, gc=False):
    """How a caller stands after a request: `remaining` more are let in at once, all `per_min` in `full_s`. `wait_s` is 0 for a request
    that is let in, else the seconds (rounded up) after which one will be."""

    per_min: int
    remaining: int
    full_s: int
    wait_s: int


class Buckets:
    """One bucket a caller: holds a minute's worth of requests, and fills evenly. Of callers beyond `buckets_max`, whoever was seen least
    recently is forgotten, and starts with a full bucket again."""

    def __init__(self, buckets_max: int = BUCKETS_MAX) -> None:
        self._buckets_max = buckets_max
        self._full_at_ns: dict[str, int] = {}  # in the order in which they were used last

    def take(self, caller: str, per_min: int, now_ns: int) -> Standing:
        """Counts a request, if it may pass."""
        buckets = self._full_at_ns
        each_ns = MINUTE_NS // per_min  # rounded down, so that a minute always has room for them all
        before_ns = max(buckets.pop(caller, now_ns), now_ns)
        missing_ns = before_ns + each_ns - now_ns
        wait_ns = missing_ns - MINUTE_NS
        if wait_ns > 0:
            buckets[caller] = before_ns
            return Standing(per_min, 0, _seconds(before_ns - now_ns), _seconds(wait_ns))
        buckets[caller] = before_ns + each_ns
        if len(buckets) > self._buckets_max:
            del buckets[next(iter(buckets))]
        return Standing(per_min, (MINUTE_NS - missing_ns) // each_ns, _seconds(missing_ns), 0)

    def __len__(self) -> int:
        return len(self._full_at_ns)


def _seconds(ns: int) -> int:
    """Rounded up: who comes back then finds what was promised."""
    return -(-ns // 1_000_000_000)


_COUNTED_AS: dict[Priority, str] = {
    "create": "requests",
    "write": "requests",
    "read": "requests",
    "callback": "callbacks",
    "return": "returns",
}


class InFlight:
    """Counts the requests that are under way, and says when there are too many. `most` is the bound for reads; other writes get 7/8 of
    it, creates 3/4. Callbacks have a quarter of it to themselves, customers who come back an eighth."""

    def __init__(self, most: int) -> None:
        self._bounds: dict[Priority, int] = {
            "create": max(1, most * 3 // 4),
            "write": max(1, most * 7 // 8),
            "read": most,
            "callback": max(1, most // 4),
            "return": max(1, most // 8),
        }
        self.under_way = dict.fromkeys(_COUNTED_AS.values(), 0)

    def enter(self, priority: Priority) -> None:
        """Raises Overloaded; otherwise `leave` has to follow."""
        if priority == "health":
            return
        counted = _COUNTED_AS[priority]
        if self.under_way[counted] >= self._bounds[priority]:
            raise Overloaded("in_flight")
        self.under_way[counted] += 1

    def leave(self, priority: Priority) -> None:
        if priority != "health":
            self.under_way[_COUNTED_AS[priority]] -= 1


class Calls:
    """Bounds what merchants have under way at a provider below what its connections can take (`connections_max`): who had to wait for a
    connection would have made an intent durable that then fails for want of one. An eighth is kept for recovery, which is what
    gets a provider's backlog solved, and another for captures and refunds, which are about payments that are made already."""

    def __init__(self, connections_max: int) -> None:
        kept = connections_max // 8
        self.under_way = 0
        self.creating = Slot(self, connections_max - 2 * kept)
        self.changing = Slot(self, connections_max - kept)


class Slot:
    """`with calls.creating:` is a call under way. Raises Overloaded at the bound."""

    def __init__(self, calls: Calls, most: int) -> None:
        self._calls = calls
        self._most = most

    def __enter__(self) -> None:
        if self._calls.under_way >= self._most:
            raise Overloaded("provider")
        self._calls.under_way += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._calls.under_way -= 1


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Sequence[Network]) -> str:
    """Who is at the other end: the peer, or whom it speaks for if it is a trusted proxy. `forwarded_for` are the X-Forwarded-For headers
    as they came. Anybody can write into those: only what a trusted proxy added, at the right end, is believed."""
    client = _parsed(peer)
    hops = [hop.strip() for line in forwarded_for for hop in line.split(",")] if trusted else []
    for hop in reversed(hops[-HOPS_MAX:]):
        if client is None or not any(client in network for network in trusted):
            break
        before = _parsed(hop)
        if before is None:  # nonsense: blame who passed it on
            break
        client = before
    return peer if client is None else str(client)


def bucket_of(address: str) -> str:
    """The bucket for an address. Of IPv6 the network of 64 bits: that much is a single customer's, who can use each address of it."""
    parsed = _parsed(address)
    if isinstance(parsed, IPv6Address):
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return address if parsed is None else str(parsed)


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    """An IPv4 address that is written as an IPv6 one is the IPv4 one. None: not an address, such as the peer of a Unix socket."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed
