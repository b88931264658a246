"""Limits as callers meet them: 429, 503, CORS, versions, and connections that are no good."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from gateway import observe
from gateway.api.versions import NEWEST
from gateway.config import Limits, Merchant
from tests.gateway.api.conftest import GOOD, KEYS, Answer, Site, running_site
from tests.gateway.doubles import PATIENCE_S

SHOP = {"Origin": "https://shop.example"}
shared = pytest.mark.asyncio(loop_scope="module")  # as is the site

NOWHERE = "/api/payments/pay_0/status"


async def metric(site: Site, sample: str) -> float:
    text = (await site.request("GET", "/metrics", key=None)).body.decode()
    return float(next((line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(sample)), 0))


def code_of(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["code"]


# Rates. Buckets of a few a minute: none of these tests takes the 20 s after which there would be another one.


async def test_a_key_has_its_own_rate_and_is_told_how_it_stands(tmp_path: Path):
    merchants = [Merchant(id=name, key=key) for name, key in KEYS.items()]
    merchants.append(Merchant(id="small", key="sk_test_small", requests_per_min=2))
    async with running_site(tmp_path, merchants=merchants, limits=Limits(requests_per_min_per_key=3)) as site:
        first, second, third = [await site.request("GET", NOWHERE, key="sk_test_small") for _ in range(3)]
        assert [first.status, second.status, third.status] == [404, 404, 429]
        assert [each.headers["RateLimit"] for each in (first, second)] == ['"key";r=1;t=30', '"key";r=0;t=60']
        assert {each.headers["RateLimit-Policy"] for each in (first, second, third)} == {'"key";q=2;w=60'}
        assert code_of(third) == (429, "rate_limited")
        assert 1 <= int(third.headers["Retry-After"]) <= 30
        assert third.headers["X-Request-ID"] == third.json["requestID"]
        assert (await site.request("GET", NOWHERE)).headers["RateLimit"] == '"key";r=2;t=20'
        assert await metric(site, 'paydrome_limited_requests_total{by="key"}') == 1


async def test_what_is_over_the_rate_is_not_done(tmp_path: Path):
    async with running_site(tmp_path, limits=Limits(requests_per_min_per_key=1)) as site:
        await site.pay()
        assert (await site.process(GOOD["card"])).status == 429
        assert await site.totals() == (1, 1)
        assert len(site.provider.requests) == 1


async def test_without_a_valid_key_the_address_counts_and_keys_are_not_held_up(tmp_path: Path):
    async with running_site(tmp_path, limits=Limits(requests_per_min_per_address=3)) as site:
        answers = [await site.request("GET", NOWHERE, key=key) for key in (None, "sk_wrong", "sk_guess", "sk_again")]
        answers.append(await site.request("GET", "/nowhere", key=None))
        assert [answer.status for answer in answers] == [401, 401, 401, 429, 429]
        assert answers[2].headers["RateLimit-Policy"] == '"address";q=3;w=60'
        assert int(answers[3].headers["Retry-After"]) <= 20
        assert "key" not in answers[3].headers["RateLimit"]
        assert (await site.request("GET", NOWHERE)).status == 404
        assert await metric(site, 'paydrome_limited_requests_total{by="address"}') == 2
        for path in ("/health", "/health/live", "/health/ready", "/metrics"):
            assert (await site.request("GET", path, key=None)).status == 200
        assert code_of(await site.call_back({"reference": "att_0", "provider": "upi"})) == (404, "not_found")


@pytest.mark.parametrize(("trusted", "statuses"), [([], [401, 429, 429]), (["127.0.0.0/8"], [401, 401, 429])])
async def test_forwarded_addresses_count_where_the_proxy_is_trusted(tmp_path: Path, trusted: list[str], statuses: list[int]):
    limits = Limits(requests_per_min_per_address=1, trusted_proxies=trusted)
    async with running_site(tmp_path, limits=limits) as site:
        senders = [{"X-Forwarded-For": address} for address in ("203.0.113.1", "203.0.113.2", "1.1.1.1, 203.0.113.2")]
        assert [(await site.request("GET", NOWHERE, key=None, headers=each)).status for each in senders] == statuses


@shared
async def test_streamed_answers_tell_the_same(shared_site: Site):
    query = "from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z&format=csv"
    answer = await shared_site.request("GET", f"/api/reports/failures?{query}")
    assert (answer.status, answer.headers["Paydrome-Version"]) == (200, NEWEST)
    assert answer.headers["RateLimit-Policy"] == '"key";q=60000;w=60'


# Shedding


class Crowd:
    """A provider's wait: `full` is set once so many calls are waiting, `let_go` ends it."""

    def __init__(self, size: int) -> None:
        self._left = size
        self.full, self.let_go = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.full.set()
        await self.let_go.wait()


@asynccontextmanager
async def held(site: Site, size: int) -> AsyncIterator[None]:
    """`size` payments wait for their provider; in the end they are all answered."""
    crowd = Crowd(size)
    site.provider.wait = crowd
    paying = [asyncio.create_task(site.process(GOOD["card"])) for _ in range(size)]
    try:
        async with asyncio.timeout(PATIENCE_S):
            await crowd.full.wait()
        yield
    finally:
        crowd.let_go.set()
        site.provider.wait = None
    assert [answer.status for answer in await asyncio.gather(*paying)] == [201] * size


async def test_too_many_in_flight_shed_creates_first_and_nothing_of_them_is_left(tmp_path: Path):
    again = {"headers": {"Idempotency-Key": "order-77"}}
    async with running_site(tmp_path, limits=Limits(in_flight_max=8)) as site:
        paid = await site.pay()
        async with held(site, 6):
            shed = await site.process(GOOD["card"], **again)
            assert code_of(shed) == (503, "unavailable")
            assert shed.headers["Retry-After"] == "1"
            assert await site.totals() == (7, 7)
            assert await site.get(f"/api/payments/{paid['paymentID']}/status")
            refund = await site.post("/api/refunds/process", {"paymentID": "pay_0"})
            assert code_of(refund) == (404, "not_found")
            assert code_of(await site.call_back({"reference": "att_0", "provider": "upi"})) == (404, "not_found")
        assert await metric(site, 'paydrome_shed_requests_total{bound="in_flight",priority="create"}') == 1
        assert (await site.process(GOOD["card"], **again)).status == 201
        assert await site.totals() == (8, 8)


async def test_what_ends_without_an_answer_is_no_longer_in_flight(tmp_path: Path):
    async with running_site(tmp_path, limits=Limits(in_flight_max=1)) as site:
        for _ in range(3):
            assert (await site.process(b"{")).status == 400
            assert (await site.request("GET", "/nowhere")).status == 404
        assert (await site.process(GOOD["card"])).status == 201


async def test_a_provider_with_all_its_calls_under_way_gets_no_more_payments_but_captures_and_refunds(tmp_path: Path):
    async with running_site(tmp_path, connections_max=16) as site:
        paid = await site.pay()
        async with held(site, 12):
            assert code_of(await site.process(GOOD["card"])) == (503, "unavailable")
            assert await site.totals() == (13, 13)
            site.provider.wait = None
            assert (await site.post("/api/refunds/process", {"paymentID": paid["paymentID"]})).status == 201
            assert (await site.pay("upi"))["status"] == "requires_action"  # another provider, which has time
        assert await metric(site, 'paydrome_shed_requests_total{bound="provider",priority="create"}') == 1
        assert (await site.process(GOOD["card"])).status == 201


SLOW_CALLBACK = (
    b"POST /api/webhooks/payment HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n"
    b"Expect: 100-continue\r\n\r\n"
)


async def test_nobody_holds_up_callbacks_by_sending_one_slowly(tmp_path: Path):
    async with running_site(tmp_path, limits=Limits(in_flight_max=8)) as site:
        host, port = site.url.removeprefix("http://").split(":")
        slow = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
        try:
            for reader, writer in slow:
                writer.write(SLOW_CALLBACK)
                async with asyncio.timeout(PATIENCE_S):
                    assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"  # from now on it waits for the body
            for _ in range(3):
                assert code_of(await site.call_back({"reference": "att_0", "provider": "upi"})) == (404, "not_found")
        finally:
            for _, writer in slow:
                writer.close()


async def test_metrics_are_written_once_for_all_who_ask_and_then_not_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    written: list[float] = []

    def write(registry: CollectorRegistry) -> bytes:
        written.append(time.monotonic())
        time.sleep(0.01)  # as they do when there is much to write
        return generate_latest(registry)

    monkeypatch.setattr(observe, "generate_latest", write)
    async with running_site(tmp_path) as site:
        assert await metric(site, "paydrome_payment_events_total") == 0
        await site.pay()
        counted = await asyncio.gather(*(metric(site, "paydrome_payment_events_total") for _ in range(10)))
        assert set(counted) == {1}  # what happened before they asked is in it
    assert len(written) == 2
    assert written[1] - written[0] > 0.09


# CORS


@shared
async def test_cors_is_off_unless_origins_are_named(shared_site: Site):
    asking = SHOP | {"Access-Control-Request-Method": "POST"}
    preflight = await shared_site.request("OPTIONS", "/api/payments/process", key=None, headers=asking)
    answer = await shared_site.request("GET", NOWHERE, headers=SHOP)
    assert (preflight.status, answer.status) == (405, 404)
    for name in [*preflight.headers, *answer.headers]:
        assert not name.lower().startswith(("access-control-", "vary"))


async def test_pages_of_named_origins_may_call_and_no_others(tmp_path: Path):
    async with running_site(tmp_path, cors_allowed_origins=["https://shop.example"]) as site:
        asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,idempotency-key"}
        preflight = await site.request("OPTIONS", "/api/payments/process", key=None, headers=SHOP | asking)
        assert (preflight.status, preflight.body) == (204, b"")
        assert preflight.headers["Access-Control-Allow-Origin"] == "https://shop.example"
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        assert {"Authorization", "Idempotency-Key"} <= set(preflight.headers["Access-Control-Allow-Headers"].split(", "))
        paid = await site.process(GOOD["card"], headers=SHOP)
        refused = await site.request("GET", NOWHERE, key=None, headers=SHOP)
        for answer, status in ((paid, 201), (refused, 401)):
            assert answer.status == status
            assert answer.headers["Access-Control-Allow-Origin"] == "https://shop.example"
            assert "RateLimit" in answer.headers["Access-Control-Expose-Headers"]
        for origin in ({"Origin": "https://shop.example.evil"}, {"Origin": "null"}, {"Origin": "http://shop.example"}, {}):
            for method, more in (("OPTIONS", asking), ("GET", {})):
                answer = await site.request(method, NOWHERE, headers=origin | more)
                assert answer.headers["Vary"] == "Origin"
                assert not [name for name in answer.headers if name.startswith("Access-Control-")]
        assert (await site.request("OPTIONS", NOWHERE, headers=SHOP)).status == 405  # no preflight without the question


# Versions


@shared
async def test_answers_say_which_version_they_follow_and_unknown_ones_are_refused(shared_site: Site):
    for headers in ({}, {"Paydrome-Version": NEWEST}):
        for path in ("/health", NOWHERE, "/nowhere"):
            assert (await shared_site.request("GET", path, headers=headers)).headers["Paydrome-Version"] == NEWEST
    before = await shared_site.totals()
    for unknown in ("1999-01-01", "", "newest", f"{NEWEST}, {NEWEST}"):
        answer = await shared_site.process(GOOD["card"], headers={"Paydrome-Version": unknown})
        assert code_of(answer) == (400, "unknown_version")
        assert (answer.json["param"], answer.headers["Paydrome-Version"]) == ("Paydrome-Version", NEWEST)
        assert NEWEST in answer.json["error"]
    assert await shared_site.totals() == before


# Connections


@pytest.mark.parametrize(
    ("request_bytes", "why"),
    [
        (b"hello\r\n\r\n", "cannot be read"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "cannot be read"),  # somebody speaks TLS
        (b"GET / HTTP/9.9\r\n\r\n", "cannot be read"),
        (b"GET / HTTP/1.1\r\n4111111111111111\r\n\r\n", "cannot be read"),
        (b"GET /" + b"4111111111111111" * 1_000 + b" HTTP/1.1\r\n\r\n", "too long"),
        (b"GET / HTTP/1.1\r\nX: " + b"4111111111111111" * 1_000 + b"\r\n\r\n", "too long"),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", "cannot be read"),
    ],
    ids=range(7),
)
@shared
async def test_what_is_no_http_is_refused_in_the_envelope_and_not_repeated(shared_site: Site, request_bytes: bytes, why: str):
    head, _, body = (await shared_site.raw(request_bytes)).partition(b"\r\n\r\n")
    told: dict[str, Any] = json.loads(body)
    assert head.split()[1] == b"400"
    assert (told["success"], told["code"]) == (False, "invalid_http")
    assert why in told["error"]
    assert f"X-Request-ID: {told['requestID']}".encode() in head
    assert b"4111111111111111" not in body


@pytest.mark.parametrize("before", [b"", b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"], ids=["new", "used"])
async def test_a_connection_on_which_no_request_gets_complete_is_closed(tmp_path: Path, before: bytes):
    async with running_site(tmp_path, keepalive_s=0.05) as site:
        answered = await site.raw(before + b"GET /health/live HTTP/1.1\r\nHo")
        assert answered.count(b"HTTP/1.1 200 OK") == bool(before)


async def test_connections_beyond_the_bound_are_closed_and_those_within_go_on(tmp_path: Path):
    async with running_site(tmp_path, callers_max=2) as site:
        assert (await site.request("GET", "/health/live", key=None)).status == 200  # the first, which is kept open
        host, port = site.url.removeprefix("http://").split(":")
        _, second = await asyncio.open_connection(host, int(port))
        reader, third = await asyncio.open_connection(host, int(port))
        async with asyncio.timeout(PATIENCE_S):
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
        assert (await site.request("GET", "/health/live", key=None)).status == 200
        for writer in (second, third):
            writer.close()
