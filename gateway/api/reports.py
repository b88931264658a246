"""GET /api/reports/...: what a merchant's finance colleague asks for, of a period, as JSON or CSV (RFC 4180).

Rows are streamed in parts, each from a snapshot of its own: entries never change, so that parts fit together, and no snapshot waits for
a slow client. What breaks off does so visibly: the connection is cut in the middle of the body.
"""

import asyncio
import csv
import io
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, Literal

import apsw
import msgspec
import structlog
from aiohttp import web

from gateway.api import wire
from gateway.api.instants import Instant, instant_ms
from gateway.api.keys import Keys
from gateway.api.report_rows import REPORTS, Report, ReportData, Row, Total, add_up
from gateway.api.routing import Route
from gateway.core.errors import CallerError, invalid
from gateway.ports import Clock, Store
from gateway.runtime import rfc3339
from gateway.storage.reports import Place

log = structlog.get_logger("gateway.api")

PART = 250  # rows: about 75 kB, 2 ms of a thread, 1 ms of the event loop
REPORTS_MAX = 4  # at once, of each merchant: a slow reader holds a place among the requests in flight for as long as it likes
WRITE_S_MAX = 60.0  # a client that does not take a part within a minute is gone

FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "\uff1d",
    "\uff0b",
    "\uff0d",
    "\uff20",
)  # what spreadsheets run, OWASP's list with wide forms


class ReportQuery(wire.Request, frozen=True, kw_only=True):
    """`from` is included, `to` is not; a `to` that is still to come means now."""

    from_: Instant = msgspec.field(name="from")
    to: Instant
    format: Literal["json", "csv"] = "json"


class ReportHandlers:
    def __init__(self, *, store: Store, keys: Keys, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._under_way: Counter[str] = Counter()  # by merchant

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path=f"/api/reports/{report.name}",
                handler=partial(self._get, report),
                summary=report.summary,
                tag="reports",
                query=ReportQuery,
                gives=report.gives,
                offers=("text/csv",),
            )
            for report in REPORTS
        ]

    async def _get(self, report: Report, request: web.Request) -> web.StreamResponse:
        merchant_id = self._keys.merchant(request)
        asked = wire.query(request, ReportQuery)
        from_ms, to_ms = instant_ms("from", asked.from_), instant_ms("to", asked.to)
        if from_ms >= to_ms:
            raise invalid("to", "must be later than from")
        now_ms = self._clock.now_ms()
        from_ms, to_ms = (min(max(at_ms, 0), now_ms) for at_ms in (from_ms, to_ms))
        head = ReportData(report=report.name, merchant_id=merchant_id, from_=rfc3339(from_ms), to=rfc3339(to_ms))
        if self._under_way[merchant_id] >= REPORTS_MAX:
            request[wire.HEADERS]["Retry-After"] = "10"
            raise CallerError(
                429, "rate_limited", f"{REPORTS_MAX} reports are under way with this API key; take one after the other"
            )
        self._under_way[merchant_id] += 1
        try:
            if asked.format == "csv":
                return await _stream(request, _csv_headers(head), self._csv(report, head, from_ms, to_ms))
            return await _stream(request, {"Content-Type": "application/json"}, self._json(report, head, from_ms, to_ms))
        finally:
            self._under_way[merchant_id] -= 1

    async def _parts(self, report: Report, merchant_id: str, from_ms: int, to_ms: int) -> AsyncIterator[Sequence[Row]]:
        place: Place | None = Place(from_ms)
        while place is not None:

            def part(connection: apsw.Connection, after: Place = place) -> tuple[Sequence[Row], Place | None]:
                return report.part(connection, merchant_id, after, to_ms, PART)

            rows, place = await self._store.read(part)
            yield rows

    async def _json(self, report: Report, head: ReportData, from_ms: int, to_ms: int) -> AsyncIterator[bytes]:
        totals: dict[tuple[str, str], Total] = {}
        before = b'{"success":true,"data":' + wire.encode(head)[:-1] + b',"rows":['
        async for rows in self._parts(report, head.merchant_id, from_ms, to_ms):
            add_up(totals, rows)
            if rows:
                yield before + wire.encode(rows)[1:-1]
                before = b","
        ending = b'],"totals":' + wire.encode([totals[key] for key in sorted(totals)]) + b"}}"
        yield ending if before == b"," else before + ending

    async def _csv(self, report: Report, head: ReportData, from_ms: int, to_ms: int) -> AsyncIterator[bytes]:
        names: list[tuple[Any, ...]] = [tuple(field.encode_name for field in msgspec.structs.fields(report.row))]
        async for rows in self._parts(report, head.merchant_id, from_ms, to_ms):
            yield _lines(names + [msgspec.structs.astuple(row) for row in rows])
            names = []


def _csv_headers(head: ReportData) -> dict[str, str]:
    name = f"{head.report}_{head.from_[:10]}_{head.to[:10]}.csv"
    return {
        "Content-Type": "text/csv; charset=utf-8; header=present",
        "Content-Disposition": f'attachment; filename="{name}"',
        "X-Content-Type-Options": "nosniff",
    }


def _lines(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


def _cell(value: object) -> object:
    """Numbers are ours. Text may be anybody's: what a spreadsheet would run as a formula is given an apostrophe to stand behind."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


async def _stream(request: web.Request, headers: dict[str, str], parts: AsyncIterator[bytes]) -> web.StreamResponse:
    """What fails before the first part is answered as usual; later there is nothing left to answer with."""
    first = await anext(parts)
    response = web.StreamResponse(headers=headers | request[wire.HEADERS])
    try:
        await _write(request, response, first, parts)
    except ConnectionError:
        pass  # the client hung up
    except Exception:
        log.exception("report.broken_off", path=request.path)
        if request.transport is not None:
            request.transport.abort()
    return response


async def _write(request: web.Request, response: web.StreamResponse, first: bytes, parts: AsyncIterator[bytes]) -> None:
    await response.prepare(request)
    await _send(response, first)
    async for part in parts:
        await _send(response, part)
    await response.write_eof()


async def _send(response: web.StreamResponse, part: bytes) -> None:
    async with asyncio.timeout(WRITE_S_MAX):
        await response.write(part)
