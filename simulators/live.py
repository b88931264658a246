"""The live page, for a person: `GET /live`, and what it asks for once a second, `GET /admin/live`.

The page is one file without outside resources (`live.html`). Its Content-Security-Policy allows that file's script and style by
their hashes and nothing else, so that whatever a journal holds cannot run.
"""

import base64
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from simulators.config import Phase, Simulators
from simulators.faults import CALLS, TRAITS
from simulators.journal import Row, decode_rows
from simulators.metrics import queues
from simulators.routes import Routes
from simulators.site import Site
from simulators.wire import JSON

RECENT = 500  # the newest entries, over which shares and percentiles are taken: reading them takes 3 ms
SHOWN = 40  # of them; a screenful or two
FAULTS_MAX = 200  # in an answer; the page is to stay light whatever the configuration
OUTCOMES = ("create", "decide", "expire")  # the operations that decide a charge
APPROVED = ("approved", "authorized")
REFUSED = ("declined", "expired")
PAGE = Path(__file__).with_name("live.html")


class Pulse(msgspec.Struct, rename="camel"):
    """How a provider is. Shares and percentiles are of the newest RECENT entries; `None`: none of them tells."""

    name: str
    entries: int  # in all, so that who asks twice has a rate
    approval_share: float | None
    delay_p50_ms: int | None
    delay_p99_ms: int | None
    faulty_share: float | None
    waiting: int  # in its queues, now


def add(routes: Routes, site: Site) -> None:
    """Adds the routes."""

    async def go(_request: web.BaseRequest, _: str) -> web.Response:
        return web.Response(status=302, headers={"Location": "live"})  # relative: below a tenant's prefix, too

    async def page(_request: web.BaseRequest, _: str) -> web.Response:
        html, policy = _page()
        headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        return web.Response(body=html, content_type="text/html", charset="utf-8", headers=headers)

    async def state(_request: web.BaseRequest, _: str) -> web.Response:
        return web.Response(body=msgspec.json.encode(snapshot(site), enc_hook=str), headers=JSON)

    routes.add("/", GET=go)
    routes.add("/live", GET=page)
    routes.add("/admin/live", GET=state)


def snapshot(site: Site) -> dict[str, Any]:
    """What the page shows."""
    world, settings = site.world, site.settings
    now_ms = world.now_ms()
    elapsed_ms = world.elapsed_ms(now_ms)
    recent = _recent(site)
    faults = list(_faults(settings))
    return {
        "nowMs": now_ms,
        "offsetMs": world.clock.offset_ms,
        "timelineMs": elapsed_ms,
        "phase": site.conducts["card"].phase_at(elapsed_ms),
        "seed": str(world.draws.seed),  # text: a browser's numbers end at 2**53
        "entries": len(world.journal),
        "timersWaiting": world.clock.waiting,
        "callbacksOutstanding": site.callbacks.outstanding,
        "providers": list(_pulses(site, recent)),
        "phases": [{"name": phase.name, "from": phase.start, "until": phase.end} for phase in settings.phases],
        "faults": faults[:FAULTS_MAX],
        "faultsLeftOut": max(len(faults) - FAULTS_MAX, 0),
        "newest": [_shown(row) for row in reversed(recent[-SHOWN:])],
        "kinds": _KINDS,
    }


def _recent(site: Site) -> list[Row]:
    journal = site.world.journal
    return [row for chunk in journal.chunks(max(len(journal) - RECENT, 0)) for row in decode_rows(chunk)]


def _pulses(site: Site, recent: list[Row]) -> Iterator[Pulse]:
    counts, waiting, rows = defaultdict[str, int](int), defaultdict[str, int](int), defaultdict[str, list[Row]](list)
    for (provider, *_), count in site.world.journal.tally().entries().items():
        counts[provider] += count
    for provider, _, length in queues(site):
        waiting[provider] += length
    for row in recent:
        rows[row.provider].append(row)
    for name in site.providers:
        own = rows[name]
        statuses = [row.status for row in own if row.operation in OUTCOMES and row.status in (*APPROVED, *REFUSED)]
        delays = [row.delay_ms for row in own if row.operation in CALLS]
        yield Pulse(
            name,
            counts[name],
            _share(status in APPROVED for status in statuses),
            percentile(delays, 50),
            percentile(delays, 99),
            _share(row.fault is not None for row in own),
            waiting[name],
        )


def percentile(values: list[int], percent: int) -> int | None:
    """The smallest value that `percent` % of the values do not exceed (the nearest rank); `None` of none."""
    ranked = sorted(values)
    return ranked[max(ceil(len(ranked) * percent / 100) - 1, 0)] if ranked else None


def _share(flags: Iterable[bool]) -> float | None:
    told = list(flags)
    return sum(told) / len(told) if told else None


def _faults(settings: Simulators) -> Iterator[dict[str, Any]]:
    sections: list[tuple[str, Simulators | Phase]] = [("", settings), *((phase.name, phase) for phase in settings.phases)]
    for phase, section in sections:
        for provider in ("card", "upi", "bank"):
            for fault in getattr(section, provider).faults or ():
                told = {name: value for name, value in msgspec.to_builtins(fault, enc_hook=str).items() if value is not None}
                yield {"provider": provider, "phase": phase, **told}


def _shown(row: Row) -> dict[str, Any]:
    names = ("seq", "at", "provider", "operation", "reference", "attempt", "status", "currency", "moved", "fault")
    return {name: getattr(row, name) for name in names} | {"responseCode": row.response_code, "delayMs": row.delay_ms}


@lru_cache(maxsize=1)
def _page() -> tuple[bytes, str]:
    """The page, and its Content-Security-Policy."""
    html = PAGE.read_bytes()
    script, style = (_hash(html, tag) for tag in (b"script", b"style"))
    own = f"script-src {script}; style-src {style}; connect-src 'self'; img-src data:"
    return html, f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def _hash(html: bytes, tag: bytes) -> str:
    found = re.search(b"<%s>(.*?)</%s>" % (tag, tag), html, re.DOTALL)
    assert found is not None
    return f"'sha256-{base64.b64encode(hashlib.sha256(found[1]).digest()).decode()}'"


_KINDS = [{"kind": kind, "operations": trait.operations, "needs": trait.needs} for kind, trait in TRAITS.items()]
