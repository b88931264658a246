"""How the gateway calls others over HTTP: pooled connections, no cookies, bodies as they come.

Providers are the operator's choice. Where webhooks go is the merchants', who could name an address that only this machine can reach
(server-side request forgery): `Guard` keeps those out. It judges the very address that a socket is about to connect to, so that it does
not matter how a URL spells it, or what DNS says the next time.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

# aiohttp would add these to each request by itself, at a higher price.
_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "paydrome"}

DNS_CACHE_S = 60
LOOKUPS_MAX = (
    4  # threads that wait for name servers, apart from everyone else's: merchants choose the names, and may choose slow ones
)
LOOKUP_S_MAX = 3.0
REMEMBERED_MAX = 1_000  # names whose last address is known: more than there are endpoints
URL_SIZE_MAX = 2_000

Address = IPv4Address | IPv6Address
Lookup = Callable[[str, int], Sequence[tuple[Any, ...]]]

# IANA's special-purpose registries (RFC 6890 and after): whatever is not the public internet. 169.254.169.254 serves metadata in clouds.
_NOT_PUBLIC_IPV4 = [
    IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
        "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
]  # fmt: skip
# Of IPv6 only this part is handed out; loopback, link-local, unique local (fd00:ec2::254), multicast, IPv4-mapped and NAT64 are outside.
_PUBLIC_IPV6 = IPv6Network("2000::/3")
# Protocol assignments (Teredo, ORCHID), documentation, 6to4, documentation.
_NOT_PUBLIC_IPV6 = [IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]


class NotAllowed(OSError):
    """This address is not for webhooks."""


def open_session(*, connections_max: int, guard: "Guard | None" = None) -> aiohttp.ClientSession:
    """`close` it. `connections_max` bounds the connections to all hosts together; `guard` says where they may go."""
    limits: dict[str, Any] = {"limit": connections_max, "ttl_dns_cache": DNS_CACHE_S}
    if guard is not None:
        limits |= {"resolver": guard.resolver, "socket_factory": guard.open_socket}
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(**limits),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers=_HEADERS,
    )


def is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_IPV4)
    return address in _PUBLIC_IPV6 and not any(address in network for network in _NOT_PUBLIC_IPV6)


def http_url_fault(url: str) -> str | None:
    """What is wrong with a URL to call, None if nothing is."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        host.encode("idna")  # labels of 1 to 63 characters: others fail only when somebody connects
        good = parts.scheme in ("http", "https") and bool(host) and parts.port != 0 and "%" not in host
    except ValueError:
        good = False
    return None if good else "expected an http:// or https:// URL with a host name that can exist"


class Guard:
    """Where webhooks may go: the public internet, and the networks that the operator names. Raises NotAllowed for the rest."""

    def __init__(self, allowed_networks: Sequence[str], *, lookup: Lookup | None = None) -> None:
        """`lookup` is `socket.getaddrinfo`, or stands in for it."""
        self._allowed = [ip_network(network) for network in allowed_networks]
        self.resolver = _Resolver(lookup or _getaddrinfo)

    def admits(self, address: str) -> None:
        """Raises NotAllowed. An IPv6 address that carries an IPv4 one is judged as what it is."""
        parsed = ip_address(address)
        if not is_public(parsed) and not any(parsed in network for network in self._allowed):
            raise NotAllowed("not a public address, nor in a network that webhooks.allowed_networks names")

    def open_socket(self, info: tuple[Any, ...]) -> socket.socket:
        """The socket that will connect to just this address; what has been checked is what is used."""
        family, kind, protocol, _, address = info
        self.admits(address[0])
        return socket.socket(family, kind, protocol)

    async def check(self, url: str) -> str | None:
        """What is wrong with a URL for webhooks, None if nothing is now. DNS may change: each connection is judged again."""
        if (fault := http_url_fault(url)) is not None:
            return fault
        parts = urlsplit(url)
        if len(url) > URL_SIZE_MAX or not url.isascii() or not url.isprintable() or " " in url:
            return f"expected at most {URL_SIZE_MAX} printable ASCII characters"
        if "@" in parts.netloc:
            return "a user or password in it would be sent to whoever answers; the signature says who we are"
        assert parts.hostname is not None
        try:
            found = await self.resolver.resolve(parts.hostname, parts.port or 443)
        except OSError as error:
            return f"{parts.hostname} cannot be resolved ({error.strerror or error})"
        for result in found:
            try:
                self.admits(result["host"])
            except NotAllowed as error:
                return f"{parts.hostname} is at {result['host']}: {error}"
        return None

    def close(self) -> None:
        self.resolver.shut()


class _Resolver(AbstractResolver):
    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(LOOKUPS_MAX, "webhook-dns")
        self._remembered: dict[tuple[str, int], Sequence[tuple[Any, ...]]] = {}

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        """Raises OSError where there is no such name, or no answer in time and never was one. Otherwise the last answer serves (RFC 8767):
        what holds up the threads may be somebody else's name."""
        waiting = asyncio.get_running_loop().run_in_executor(self._threads, self._lookup, host, port)
        try:
            found = await asyncio.wait_for(waiting, LOOKUP_S_MAX)
        except TimeoutError as error:
            known = self._remembered.get((host, port))
            if known is None:
                raise OSError(None, f"no answer within {LOOKUP_S_MAX:g} s") from error
            found = known
        self._remember((host, port), found)
        return [
            ResolveResult(
                hostname=host, host=address[0], port=address[1], family=kind, proto=protocol, flags=socket.AI_NUMERICHOST
            )
            for kind, _, protocol, _, address in found
            if family in (socket.AF_UNSPEC, kind)
        ]

    def _remember(self, name: tuple[str, int], found: Sequence[tuple[Any, ...]]) -> None:
        """Of names beyond the bound, whichever was asked for least recently is forgotten."""
        self._remembered.pop(name, None)
        self._remembered[name] = found
        if len(self._remembered) > REMEMBERED_MAX:
            del self._remembered[next(iter(self._remembered))]

    async def close(self) -> None:
        """The connector calls this where it made the resolver itself; `shut` is for the one who did."""

    def shut(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _getaddrinfo(host: str, port: int) -> Sequence[tuple[Any, ...]]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
