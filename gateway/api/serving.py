"""aiohttp's server, with manners: what is not even HTTP is refused in the envelope, and nobody holds a connection without asking."""

import asyncio
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from gateway.api import wire
from gateway.core.errors import CallerError
from gateway.runtime import RandomIds

# A connection without a complete head of a request is closed after this, whether nothing came since the last answer or the head comes
# byte by byte. Longer than proxies in front keep theirs (60 s with nginx and cloud load balancers), or they would send into a closed one.
KEEPALIVE_S = 75.0

CONNECTIONS_MAX = 20_000  # of callers, silent ones included: about 5 kB each

_ids = RandomIds()


class _Connection(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        # aiohttp's own message quotes what was sent, which may be anything.
        why = "a line of its head is too long" if isinstance(exc, LineTooLong) else "its head cannot be read"
        request_id = _ids.new("req")
        response = wire.failure(
            request, CallerError(status, "invalid_http", f"this is not a valid HTTP request: {why}"), request_id
        )
        response.headers["X-Request-ID"] = request_id
        response.force_close()
        return response


class _Server(web.Server):
    connections_max: int

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self._connections) > self.connections_max:
            transport.abort()

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Serves the application of a gateway."""

    def __init__(
        self,
        app: web.Application,
        *,
        shutdown_s: float,
        keepalive_s: float = KEEPALIVE_S,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        """Connections beyond `connections_max` are closed at once."""
        self._connections_max = connections_max
        # No decompression: signatures and fingerprints are over the bytes that were sent, and nobody gets to send a zip bomb.
        options: dict[str, Any] = {"access_log": None, "auto_decompress": False, "keepalive_timeout": keepalive_s}
        super().__init__(app, shutdown_timeout=shutdown_s, **options)

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        loop = asyncio.get_running_loop()
        server = _Server(made.request_handler, request_factory=made.request_factory, loop=loop, **self._kwargs)
        server.connections_max = self._connections_max
        return server
