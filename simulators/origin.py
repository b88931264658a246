"""Keeps other sites' pages away from the admin API.

Any page in any browser on this machine can send requests to a port on localhost. Three signs tell such a page's call from that of a
tool or of our own page: what the browser says of it (`Sec-Fetch-Site`, Fetch Metadata), an `Origin` that is not the host that was
called, and a host with a public name (a page that had its own name resolve to this machine: DNS rebinding). Tools send no `Origin`.
"""

from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import web

from simulators.wire import Refused

Handler = Callable[[web.BaseRequest, str], Awaitable[web.StreamResponse]]
OWN = ("same-origin", "none")  # none: the person typed the address


def guarded(handler: Handler) -> Handler:
    """The handler, but it refuses (403) what another site's page sends."""

    def check(request: web.BaseRequest, variable: str) -> Awaitable[web.StreamResponse]:
        headers = request.headers
        if not ours(headers.get("Host", ""), origin=headers.get("Origin"), site=headers.get("Sec-Fetch-Site")):
            sentence = "a page of another site may not do this; open /live here by IP address or localhost, or use a tool"
            raise Refused(403, "cross_origin", sentence)
        return handler(request, variable)

    return check


def ours(host: str, *, origin: str | None, site: str | None) -> bool:
    """Whether a request with these headers comes from a tool, or from a page that this process served."""
    if site is not None and site not in OWN:
        return False
    if origin is None:
        return True
    return origin in (f"http://{host}", f"https://{host}") and _private(host)


def _private(host: str) -> bool:
    """Whether no stranger can own this host's name: an address, localhost, or a name without a dot."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return "." not in name or name.endswith(".localhost") or bool(ip_address(name))
    except ValueError:
        return False
