"""Which pages may call this API from a browser (the CORS protocol of the Fetch standard): those of the origins that are configured.

Credentials are never allowed: the API key is a header that the page itself sets, and there are no cookies.
"""

from collections.abc import Sequence

from aiohttp import web

from gateway.api import versions

PREFLIGHT_S = 600  # Chromium remembers for two hours at most; this is how long a removed origin may live on

# What callers may send and read beyond what browsers let pass by themselves.
_SENT = f"Authorization, Content-Type, Idempotency-Key, {versions.HEADER}, X-Request-ID"
_READ = f"Content-Disposition, {versions.HEADER}, RateLimit, RateLimit-Policy, Retry-After, X-Request-ID"
_METHODS = "GET, POST, PATCH, DELETE"


class Cors:
    def __init__(self, allowed_origins: Sequence[str]) -> None:
        self._allowed = frozenset(allowed_origins)

    def answer(self, request: web.Request, headers: dict[str, str]) -> web.Response | None:
        """Adds to the `headers` of the answer; gives the answer itself to a browser that asks whether it may send a request."""
        headers["Vary"] = "Origin"  # whoever asks: caches have to know
        origin = request.headers.get("Origin")
        if allowed := origin in self._allowed:
            headers |= {"Access-Control-Allow-Origin": str(origin), "Access-Control-Expose-Headers": _READ}
        if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
            return None
        if allowed:
            headers |= {"Access-Control-Allow-Methods": _METHODS, "Access-Control-Allow-Headers": _SENT}
            headers |= {"Access-Control-Max-Age": str(PREFLIGHT_S)}
        return web.Response(status=204)
