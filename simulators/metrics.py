"""`GET /metrics` in the text format of Prometheus. Nothing is counted for it on the way of a call: the journal keeps a tally
(`tally.py`), and the rest is looked up when somebody asks. docs/observability.md names each series.
"""

from collections.abc import Callable, Iterator

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from simulators.routes import Routes
from simulators.site import Site
from simulators.tally import BOUNDS_MS, Tally
from simulators.world import queue_ms

PREFIX = "paydrome_simulators"


def add(
    routes: Routes,
    site: Site,
    *,
    tenants: Callable[[], int] | None = None,
    refusing: Callable[[], dict[str, bool]] = dict,
) -> None:
    """Adds the route. `tenants` counts those of this process, `refusing` are its providers that have a port of their own; a tenant
    knows nothing of others, and has no ports."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Site(site, tenants, refusing))

    async def metrics(_request: web.BaseRequest, _: str) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    routes.add("/metrics", GET=metrics)


class _Site(Collector):
    def __init__(self, site: Site, tenants: Callable[[], int] | None, refusing: Callable[[], dict[str, bool]]) -> None:
        self._site = site
        self._tenants = tenants
        self._refusing = refusing

    def describe(self) -> list[Metric]:
        """Nothing yet: names are not checked against other collectors, as there are none."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they are now."""
        tally = self._site.world.journal.tally()
        yield _entries(tally)
        yield _delays(tally)
        yield _waits(tally)
        yield _queues(self._site)
        if refusing := self._refusing():
            yield _refusals(refusing)
        yield from self._gauges()

    def _gauges(self) -> Iterator[Metric]:
        site = self._site
        clock = site.world.clock
        yield _gauge("journal_entries", "Entries of the journal", len(site.world.journal))
        yield _gauge("callbacks_outstanding", "Callbacks that wait or are under way", site.callbacks.outstanding)
        yield _gauge("timers_waiting", "Expiries, customers, refunds and deadlines that wait on the clock", clock.waiting)
        yield _gauge("clock_offset_seconds", "How far the clock is ahead of the system's", clock.offset_ms / 1000)
        if self._tenants is not None:
            yield _gauge("tenants", "Tenants of this process, beside its own world", self._tenants())


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)


def _entries(tally: Tally) -> Metric:
    text = "Calls and what else happened, by the state afterwards and the fault that was injected"
    family = CounterMetricFamily(f"{PREFIX}_entries", text, labels=("provider", "operation", "status", "fault"))
    for kind, count in tally.entries().items():
        family.add_metric(kind, count)
    return family


def _delays(tally: Tally) -> Metric:
    text = "Injected delay of answers: latency, queue and fault"
    family = HistogramMetricFamily(f"{PREFIX}_injected_delay_seconds", text, labels=("provider", "operation"))
    bounds = [*(str(bound_ms / 1000) for bound_ms in BOUNDS_MS), "+Inf"]
    for key, delays in tally.delays().items():
        total, buckets = 0, []
        for bound, count in zip(bounds, delays.counts, strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric(key, buckets, delays.sum_ms / 1000)
    return family


def _waits(tally: Tally) -> Metric:
    text = "Time that calls spent in the queue of a station"
    family = CounterMetricFamily(f"{PREFIX}_queue_wait_seconds", text, labels=("provider", "operation"))
    for key, delays in tally.delays().items():
        family.add_metric(key, delays.wait_sum_ms / 1000)
    return family


def _queues(site: Site) -> Metric:
    text = "Calls that wait for a server, where the operation has a capacity"
    family = GaugeMetricFamily(f"{PREFIX}_queue_length", text, labels=("provider", "operation"))
    for provider, operation, waiting in queues(site):
        family.add_metric((provider, operation), waiting)
    return family


def _refusals(refusing: dict[str, bool]) -> Metric:
    text = "Whether a provider with a port of its own refuses connections now"
    family = GaugeMetricFamily(f"{PREFIX}_refusing_connections", text, labels=("provider",))
    for provider, refuses in refusing.items():
        family.add_metric((provider,), refuses)
    return family


def queues(site: Site) -> Iterator[tuple[str, str, int]]:
    """Provider, operation and length of each queue that is in force now."""
    world, now_ms = site.world, queue_ms()
    elapsed_ms = world.elapsed_ms(world.now_ms())
    for provider, conducts in site.conducts.items():
        for operation, station in conducts.at(elapsed_ms).stations.items():
            yield provider, operation, station.waiting(now_ms)
