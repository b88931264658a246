"""GET /health, /health/live, /health/ready, /metrics."""

import asyncio
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from gateway.api import wire
from gateway.api.routing import Handler, Route
from gateway.core.errors import CallerError
from gateway.observe import Metrics
from gateway.ports import Clock, Store
from gateway.runtime import rfc3339, timer_s

METRICS_REST = (
    9  # times as long as metrics took to write, they are not written again: no more than a tenth of the time goes there
)


class HealthData(msgspec.Struct, frozen=True, rename="camel"):
    status: str
    timestamp: str
    total_payments: int
    total_transactions: int


class StatusData(msgspec.Struct, frozen=True):
    status: str


def _route(path: str, handler: Handler, summary: str, gives: type[msgspec.Struct] | None, **more: Any) -> Route:  # noqa: ANN401
    return Route(
        method="GET",
        path=path,
        handler=handler,
        summary=summary,
        tag="health",
        gives=gives,
        bare=True,
        security="none",
        priority="health",
        **more,
    )


class HealthHandlers:
    def __init__(self, *, store: Store, metrics: Metrics, clock: Clock) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._writing: asyncio.Task[bytes] | None = None
        self._rests_until_s = 0.0

    def routes(self) -> list[Route]:
        return [
            _route("/health", self.health, "Status, and how many payments and transactions there are", HealthData),
            _route("/health/live", self.live, "The process answers", StatusData),
            _route("/health/ready", self.ready, "The database can be written", StatusData, errors=(503,)),
            _route("/metrics", self.metrics, "Prometheus metrics", None, content_type="text/plain"),
        ]

    async def health(self, request: web.Request) -> web.Response:  # noqa: ARG002
        payments, transactions = self._store.totals()
        told = HealthData("healthy", rfc3339(self._clock.now_ms()), payments, transactions)
        return wire.json_response(wire.encode(told), 200)

    async def live(self, request: web.Request) -> web.Response:  # noqa: ARG002
        """The process answers."""
        return wire.json_response(b'{"status":"live"}', 200)

    async def ready(self, request: web.Request) -> web.Response:  # noqa: ARG002
        """Served only once the database is open and the workers run; 503 if the database has become unusable since."""
        if not self._store.healthy():
            raise CallerError(503, "unavailable", "the database cannot be written")
        return wire.json_response(b'{"status":"ready"}', 200)

    async def metrics(self, request: web.Request) -> web.Response:  # noqa: ARG002
        """Anybody may ask, as often as they like, and writing them takes the time of many payments: whoever asks meanwhile waits for the
        next ones, and shares them."""
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_metrics())
        return web.Response(body=await asyncio.shield(self._writing), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _write_metrics(self) -> bytes:
        await asyncio.sleep(self._rests_until_s - timer_s())
        self._writing = None
        started_s = timer_s()
        written = self._metrics.render()
        ended_s = timer_s()
        self._rests_until_s = ended_s + METRICS_REST * (ended_s - started_s)
        return written
