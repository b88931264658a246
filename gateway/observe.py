"""Logs and metrics. Nothing here ever sees a card number: callers pass ids, states and codes."""

import logging
import sys
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Literal

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from gateway.core.event import Event
from gateway.core.limits import Priority
from gateway.core.payment import Method

# Seconds. The 2 s target is an edge, so that a dashboard can count what met it.
LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 5.0, 10.0)


request_id: ContextVar[str] = ContextVar("request_id")
"""Of the request that is being served: in every log line. Each request has a task, and so a context, of its own."""


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._events = Counter(
            "paydrome_payment_events", "Durable steps of payments", ["method", "event"], registry=self.registry
        )
        self._latency = Histogram(
            "paydrome_request_seconds", "Time to answer", ["route", "status"], buckets=LATENCY_BUCKETS, registry=self.registry
        )
        self._limited = Counter(
            "paydrome_limited_requests", "Answered 429: over the rate of a key or an address", ["by"], registry=self.registry
        )
        self._shed = Counter(
            "paydrome_shed_requests", "Answered 503: too much was under way", ["priority", "bound"], registry=self.registry
        )
        self._event_children: dict[tuple[str, str], Counter] = {}
        self._latency_children: dict[tuple[str, int], Histogram] = {}

    def stepped(self, events: Sequence[Event], method: Method | None) -> None:
        """`method` None: the events are about something without one, such as a settlement."""
        for event in events:
            key = (method or "none", event.type)
            child = self._event_children.get(key)
            if child is None:
                child = self._event_children[key] = self._events.labels(*key)
            child.inc()

    def answered(self, route: str, status: int, seconds: float) -> None:
        """`route` is the route's pattern, never the path as sent: labels must stay few."""
        key = (route, status)
        child = self._latency_children.get(key)
        if child is None:
            child = self._latency_children[key] = self._latency.labels(route, str(status))
        child.observe(seconds)

    def limited(self, by: Literal["key", "address"]) -> None:
        self._limited.labels(by).inc()

    def shed(self, priority: Priority, bound: Literal["in_flight", "provider", "store"]) -> None:
        self._shed.labels(priority, bound).inc()

    def render(self) -> bytes:
        return generate_latest(self.registry)


def configure_logging(level: str) -> None:
    """JSON lines on stderr, or readable lines if that is a terminal. Levels: debug, info, warning, error."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared = [_with_request_id, structlog.processors.add_log_level]
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    if sys.stderr.isatty():
        structlog.configure(
            # Plain tracebacks: the pretty ones print local variables, and those may be card data.
            processors=[*shared, stamp, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)],
            wrapper_class=structlog.make_filtering_bound_logger(threshold),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
            cache_logger_on_first_use=True,
        )
    else:
        structlog.configure(
            processors=[*shared, stamp, structlog.processors.format_exc_info, _render_json],
            wrapper_class=structlog.make_filtering_bound_logger(threshold),
            logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
            cache_logger_on_first_use=True,
        )
    logging.basicConfig(level=logging.WARNING, handlers=[_Forward()], force=True)


class _Forward(logging.Handler):
    """What libraries log, in the same form as our own lines. Only the message: aiohttp attaches a traceback to each malformed request."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger(record.name).warning("library", logger=record.name, message=record.getMessage())


def _with_request_id(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    if (current := request_id.get(None)) is not None:
        event.setdefault("request_id", current)
    return event


def _render_json(_logger: object, _name: str, event: structlog.typing.EventDict) -> bytes:
    return msgspec.json.encode(event, enc_hook=str)
