"""GET /health, /health/live, /health/ready, /metrics."""

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from gateway.api import wire
from gateway.core.errors import CallerError
from gateway.observe import Metrics
from gateway.ports import Clock, Store
from gateway.runtime import rfc3339


class HealthHandlers:
    def __init__(self, *, store: Store, metrics: Metrics, clock: Clock) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/health", self.health),
            web.get("/health/live", self.live),
            web.get("/health/ready", self.ready),
            web.get("/metrics", self.metrics),
        ]

    async def health(self, request: web.Request) -> web.Response:  # noqa: ARG002
        payments, transactions = self._store.totals()
        now = rfc3339(self._clock.now_ms())
        body = {"status": "healthy", "timestamp": now, "totalPayments": payments, "totalTransactions": transactions}
        return wire.json_response(wire.encode(body), 200)

    async def live(self, request: web.Request) -> web.Response:  # noqa: ARG002
        """The process answers."""
        return wire.json_response(b'{"status":"live"}', 200)

    async def ready(self, request: web.Request) -> web.Response:  # noqa: ARG002
        """Served only once the database is open and the workers run; 503 if the database has become unusable since."""
        if not self._store.healthy():
            raise CallerError(503, "unavailable", "the database cannot be written")
        return wire.json_response(b'{"status":"ready"}', 200)

    async def metrics(self, request: web.Request) -> web.Response:  # noqa: ARG002
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})
