"""How the gateway calls others over HTTP: pooled connections, no cookies, bodies as they come."""

import aiohttp

# aiohttp would add these to each request by itself, at a higher price.
_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "paydrome"}


def open_session(*, connections_max: int) -> aiohttp.ClientSession:
    """`close` it. `connections_max` bounds the connections to all hosts together."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections_max, ttl_dns_cache=60),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers=_HEADERS,
    )
