"""Reports as a merchant's finance colleague downloads them: JSON with totals, CSV that a spreadsheet can be trusted with."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp
import apsw
import msgspec
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.api import middleware, reports
from gateway.api.admission import Admission
from gateway.api.keys import Keys
from gateway.api.report_rows import REPORTS
from gateway.api.reports import ReportHandlers
from gateway.api.routing import PRIORITIES, Priorities, add_routes
from gateway.config import Limits
from gateway.core.errors import StoreError
from gateway.observe import Metrics
from gateway.runtime import SystemClock
from gateway.storage.sqlite import SqliteStore
from tests.gateway.api.conftest import GOOD, KEYS, Site
from tests.gateway.doubles import CountingIds, intent

OTHER = KEYS["merchant_2"]
EVER = {"from": "2020-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}
EVIL = '=HYPERLINK("http://evil.example","a, b")\r\nnext line'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(shared_site: Site) -> Site:
    """Three payments, one of which is declined; two refunds, one of which is of evil intent."""
    site = shared_site
    first = await site.pay()
    second = (await site.process(GOOD["card"] | {"orderID": "-order"})).json["data"]
    for paid, amount, reason in ((first, 250, EVIL), (second, 100, "\n=1")):
        body = {"paymentID": paid["paymentID"], "amount": amount, "reason": reason}
        assert (await site.post("/api/refunds/process", body)).status == 201
    site.provider.status, site.provider.code = "declined", "51"
    await site.pay()
    return site


async def report(site: Site, name: str, *, key: str = KEYS["merchant_123"], **query: str) -> Any:
    answer = await site.request("GET", f"/api/reports/{name}?{urlencode(EVER | query)}", key=key)
    assert answer.status == 200, answer.body
    assert "X-Request-ID" in answer.headers
    return answer


def lines(body: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(body.decode(), newline=""), strict=True))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("part", [1, 1_000])
async def test_json_has_rows_and_totals_and_is_what_its_struct_says(site: Site, monkeypatch: pytest.MonkeyPatch, part: int):
    monkeypatch.setattr(reports, "PART", part)
    for kind in REPORTS:
        msgspec.convert((await report(site, kind.name)).json["data"], kind.gives)
    data = (await report(site, "transactions")).json["data"]
    assert (data["report"], data["merchantID"], data["from"]) == ("transactions", "merchant_123", "2020-01-01T00:00:00.000Z")
    assert data["to"] < "2100"  # it ended when it was made
    assert [(row["type"], row["amount"], row["fee"], row["net"]) for row in data["rows"]] == [
        ("payment", 1000, 0, 1000),
        ("payment", 1000, 0, 1000),
        ("refund", -250, 0, -250),
        ("refund", -100, 0, -100),
    ]
    assert data["totals"] == [
        {"currency": "INR", "type": "payment", "count": 2, "amount": 2000, "fee": 0, "net": 2000},
        {"currency": "INR", "type": "refund", "count": 2, "amount": -350, "fee": 0, "net": -350},
    ]
    failures = (await report(site, "failures")).json["data"]
    assert [(row["status"], row["declineCode"], row["amount"]) for row in failures["rows"]] == [("failed", "51", 1000)]
    assert failures["totals"] == [{"currency": "INR", "type": "payment", "count": 1, "amount": 1000}]


@pytest.mark.asyncio(loop_scope="module")
async def test_who_has_no_rows_gets_an_empty_report_that_is_well_formed_and_nobody_elses_rows(site: Site):
    for kind in REPORTS:
        data = (await report(site, kind.name, key=OTHER)).json["data"]
        assert (data["merchantID"], data["rows"], data["totals"]) == ("merchant_2", [], [])
        [names] = lines((await report(site, kind.name, key=OTHER, format="csv")).body)
        assert names == [field.encode_name for field in msgspec.structs.fields(kind.row)]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("part", [1, 1_000])
async def test_csv_says_what_json_says(site: Site, monkeypatch: pytest.MonkeyPatch, part: int):
    monkeypatch.setattr(reports, "PART", part)
    for kind in REPORTS:
        rows = (await report(site, kind.name)).json["data"]["rows"]
        answer = await report(site, kind.name, format="csv")
        names, *cells = lines(answer.body)
        assert answer.headers["Content-Type"].startswith("text/csv; charset=utf-8")
        assert answer.headers["Content-Disposition"].startswith(f'attachment; filename="{kind.name}_2020-01-01_')
        assert answer.body.endswith(b"\r\n")
        told = [dict(zip(names, line, strict=True)) for line in cells]
        assert [{name: value.removeprefix("'") for name, value in row.items()} for row in told] == [
            {name: "" if value is None else str(value) for name, value in row.items()} for row in rows
        ]


@pytest.mark.asyncio(loop_scope="module")
async def test_text_that_a_spreadsheet_would_run_is_text_in_csv_and_itself_in_json(site: Site):
    [evil, plain] = (await report(site, "refunds")).json["data"]["rows"]
    assert (evil["reason"], plain["orderID"]) == (EVIL, "-order")
    names, evil_cells, plain_cells = lines((await report(site, "refunds", format="csv")).body)
    assert evil_cells[names.index("reason")] == "'" + EVIL
    assert plain_cells[names.index("orderID")] == "'-order"
    assert plain_cells[names.index("reason")] == "'\n=1"
    assert plain_cells[names.index("amount")] == "-100"  # a number, and ours


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"to": EVER["to"]}, "from"),
        ({"from": EVER["from"]}, "to"),
        (EVER | {"to": "2020-01-01T00:00:00Z"}, "to"),
        (EVER | {"from": "yesterday"}, "from"),
        (EVER | {"format": "xlsx"}, "format"),
        (EVER | {"merchantID": "merchant_2"}, "merchantID"),
    ],
)
async def test_a_bad_query_is_refused_and_told_which_parameter(site: Site, query: dict[str, str], param: str):
    answer = await site.request("GET", f"/api/reports/refunds?{urlencode(query)}")
    assert (answer.status, answer.json["param"]) == (400, param), answer.body


@pytest.mark.asyncio(loop_scope="module")
async def test_a_period_before_time_or_still_to_come_is_empty(site: Site):
    for period in (("0001-01-01T00:00:00Z", "0001-01-02T00:00:00Z"), ("9999-12-30T00:00:00Z", "9999-12-31T00:00:00Z")):
        answer = await site.request("GET", f"/api/reports/refunds?{urlencode(dict(zip(EVER, period, strict=True)))}")
        assert (answer.status, answer.json["data"]["rows"]) == (200, []), answer.body
        assert "1970" <= answer.json["data"]["from"] <= answer.json["data"]["to"] < "2100"


class Failing:
    """A store whose reads fail from number `at` on, counted from 1."""

    def __init__(self, store: SqliteStore, at: int) -> None:
        self._store = store
        self._left = at

    async def read(self, work: Callable[[apsw.Connection], Any]) -> Any:
        self._left -= 1
        if self._left <= 0:
            raise StoreError("the disk is gone")
        return await self._store.read(work)


Ask = Callable[..., Any]


@asynccontextmanager
async def serving(store: Any) -> AsyncIterator[Ask]:
    """Asks for reports over this store: a context whose value is the answer, as far as its headers."""
    keys, metrics, priorities = Keys({"sk": "merchant_123", "sk_2": "merchant_2"}), Metrics(), Priorities()
    admission = Admission(Limits(), keys=keys, priorities=priorities, per_min={}, metrics=metrics)
    around = middleware.boundary(ids=CountingIds(), metrics=metrics, admission=admission, cors=None)
    app = web.Application(middlewares=[around])
    app[PRIORITIES] = priorities
    add_routes(app, ReportHandlers(store=store, keys=keys, clock=SystemClock()).routes())
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        url = server.make_url("/api/reports/failures")

        def ask(form: str = "json", key: str = "sk") -> Any:
            return session.get(url.with_query(EVER | {"format": form}), headers={"Authorization": f"Bearer {key}"})

        yield ask


@pytest.mark.parametrize("form", ["json", "csv"])
async def test_a_report_that_breaks_off_is_cut_and_cannot_be_taken_for_whole(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, form: str
):
    monkeypatch.setattr(reports, "PART", 1)
    begun = intent(created_at_ms=1_700_000_000_000)
    assert begun.payment is not None
    await store.commit(msgspec.structs.replace(begun, payment=msgspec.structs.replace(begun.payment, status="failed")))
    async with serving(Failing(store, at=2)) as ask, ask(form) as answer:
        assert answer.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


@pytest.mark.parametrize("form", ["json", "csv"])
async def test_a_report_that_cannot_begin_is_an_error_like_any_other(store: SqliteStore, form: str):
    async with serving(Failing(store, at=1)) as ask, ask(form) as answer:
        assert answer.status == 503
        assert json.loads(await answer.read())["code"] == "unavailable"


class Waiting:
    """A store whose reads wait to be let go; `reading` counts them."""

    def __init__(self) -> None:
        self.reading = asyncio.Semaphore(0)
        self.let_go = asyncio.Event()

    async def read(self, work: Callable[[apsw.Connection], Any]) -> Any:
        self.reading.release()
        await self.let_go.wait()
        return [], None


async def test_a_merchant_reads_only_some_reports_at_once_and_others_do_not_notice():
    store = Waiting()
    async with serving(store) as ask:

        async def status(key: str) -> tuple[int, str | None]:
            async with ask(key=key) as answer:
                return answer.status, answer.headers.get("Retry-After")

        first = [asyncio.create_task(status("sk")) for _ in range(reports.REPORTS_MAX)]
        for _ in first:
            await store.reading.acquire()
        assert await status("sk") == (429, "10")
        others = asyncio.create_task(status("sk_2"))
        await store.reading.acquire()
        store.let_go.set()
        assert {*await asyncio.gather(*first, others)} == {(200, None)}
        assert await status("sk") == (200, None)
