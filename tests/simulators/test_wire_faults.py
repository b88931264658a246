"""What a real client sees of each fault, and whether the provider acted: the table in docs/faults.md, executed."""

import asyncio
import errno
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
import pytest
import requests

from simulators.faults import CALLBACK, CALLS, CONNECT, TRAITS

DOCS = Path(__file__).parents[2] / "docs" / "faults.md"
CHARGE = {
    "reference": "ref",
    "amount": 1000,
    "currency": "INR",
    "merchantID": "m",
    "card": {"number": "4111111111111111", "expiryMonth": "12", "expiryYear": "2099", "cvv": "123"},
}


PATIENCE = aiohttp.ClientTimeout(total=10)


class Seen(NamedTuple):
    """What came back: status, kind of body and the JSON in it; without any answer `error` says how it ended."""

    status: int | None = None
    body: str = "nothing"  # "charge", "refusal", "garbage", "page"
    amount: int | None = None
    error: str | None = None


class Case(NamedTuple):
    kind: str
    sees: Seen
    moved: int  # by the call, as the journal has it
    fault: Mapping[str, Any] = {}
    with_requests: str | None = None  # the error as `requests` names it


GOOD = Seen(200, "charge", 1000)
RESET = "ClientOSError"
CASES = [
    Case("reset_before", Seen(error=RESET), 0, with_requests="ConnectionError"),
    Case("reset_after", Seen(error=RESET), 1000, with_requests="ConnectionError"),
    Case("response_lost", Seen(error="ServerDisconnectedError"), 1000, with_requests="ConnectionError"),
    Case("late", GOOD, 1000, {"delay": "20ms"}),
    Case("drip", GOOD, 1000, {"over": "50ms"}),
    Case("truncated", Seen(200, error="ClientPayloadError"), 1000, with_requests="ChunkedEncodingError"),
    Case("garbage", Seen(200, "garbage"), 1000),
    Case("wrong_content_type", Seen(200, "page"), 1000),
    Case("rate_limited", Seen(429, "refusal"), 0),
    Case("unavailable", Seen(503, "refusal"), 0),
    *(Case(f"http_{status}", Seen(status, "refusal"), 0) for status in (500, 502, 503, 504)),
    *(Case(f"http_{status}", Seen(status, "refusal"), 1000, {"acts": True}) for status in (500, 502, 503, 504)),
    Case("wrong_amount", Seen(200, "charge", 1001), 1000),
    Case("duplicate_charge", GOOD, 2000),
]
STALE = {"stale_status"}  # of a status inquiry only: has tests of its own below


def ident(case: Case) -> str:
    return f"{case.kind}-{'acts' if case.fault.get('acts') else 'default'}"


def read(status: int, content_type: str, body: bytes) -> Seen:
    if content_type.startswith("text/html"):
        return Seen(status, "page")
    assert content_type == "application/json"
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Seen(status, "garbage")
    return Seen(status, "refusal") if "code" in fields else Seen(status, "charge", fields["amount"])


async def seen_by_aiohttp(client) -> Seen:
    status = None
    try:
        async with client.session.post(f"{client.url}/card/charges", json=CHARGE, timeout=PATIENCE) as answer:
            status = answer.status
            return read(status, answer.headers["Content-Type"], await answer.read())
    except aiohttp.ClientError as error:
        return Seen(status, error=type(error).__name__)


def seen_by_requests(url: str) -> Seen:
    status = None
    try:
        with requests.post(f"{url}/card/charges", json=CHARGE, timeout=10, stream=True) as answer:
            status = answer.status_code
            return read(status, answer.headers["Content-Type"], answer.content)
    except requests.RequestException as error:
        return Seen(status, error=type(error).__name__)


def of(case: Case) -> list[dict[str, Any]]:
    return [{"kind": case.kind, "first": 1} | case.fault]


@pytest.mark.parametrize("case", CASES, ids=ident)
async def test_an_aiohttp_client_sees_what_was_promised_and_the_journal_has_the_truth(start, case):
    client = await start(hold_s=0.02, card={"faults": of(case)})
    assert await seen_by_aiohttp(client) == case.sees
    entries = [entry for entry in await client.journal() if entry["operation"] == "create"]
    assert sum(entry["moved"] for entry in entries) == case.moved
    assert {entry["amount"] for entry in entries} == ({1000} if case.moved else {None})
    assert (entries[0]["fault"], entries[0]["faultID"]) == (case.kind, "card.create.0")
    assert await seen_by_aiohttp(client) == GOOD  # the next try is healthy, and meets the charge that there is
    assert sum(entry["moved"] for entry in await client.journal()) == max(case.moved, 1000)


@pytest.mark.parametrize("case", CASES, ids=ident)
async def test_so_does_a_client_built_on_requests(start, case):
    client = await start(hold_s=0.02, card={"faults": of(case)})
    assert await asyncio.to_thread(seen_by_requests, client.url) == case.sees._replace(error=case.with_requests)
    assert await asyncio.to_thread(seen_by_requests, client.url) == GOOD


@pytest.mark.parametrize("case", [case for case in CASES if case.sees.status and not case.sees.error], ids=ident)
async def test_headers_name_the_fault_its_id_and_the_delay(start, case):
    client = await start(card={"faults": [case.fault | {"kind": case.kind, "name": "mine"}]})
    async with client.session.post(f"{client.url}/card/charges", json=CHARGE) as answer:
        headers = answer.headers
    assert (headers["X-Paydrome-Fault"], headers["X-Paydrome-Fault-Id"]) == (case.kind, "card.create.mine")
    assert headers["X-Paydrome-Delay-Ms"] == ("20" if case.kind == "late" else "0")
    async with client.session.get(f"{client.url}/card/charges/ref") as answer:
        assert "X-Paydrome-Fault" not in answer.headers


@pytest.mark.parametrize("kind", ["reset_before", "reset_after"])
async def test_a_reset_is_a_reset_and_no_orderly_end(start, kind):
    client = await start(card={"faults": [{"kind": kind}]})
    with pytest.raises(aiohttp.ClientOSError) as error:
        await client.card("ref")
    assert error.value.errno == errno.ECONNRESET


async def test_a_refused_connection_is_refused_to_a_client_of_either_kind_until_it_ends(start):
    client = await start(card={"port": 0, "faults": [{"kind": "connection_refused", "name": "down"}]})
    own = (await client.call("GET", "/admin/ports"))[1]["ports"]["card"]["url"]
    direct = type(client)(client.session, own)
    assert await seen_by_aiohttp(direct) == Seen(error="ClientConnectorError")
    assert await asyncio.to_thread(seen_by_requests, own) == Seen(error="ConnectionError")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", int(own.rpartition(":")[2]))
    assert await seen_by_aiohttp(client) == Seen(error=RESET)  # on the shared port, where others are served
    assert await client.journal() == []
    await client.call("DELETE", "/admin/faults/down")
    assert await seen_by_aiohttp(direct) == await asyncio.to_thread(seen_by_requests, own) == GOOD
    assert [entry["moved"] for entry in await client.journal()] == [1000, 0]


async def test_a_late_answer_comes_after_the_latency_and_the_delay(start):
    late = {"kind": "late", "delay": "30ms"}
    client = await start(card={"latency": {"kind": "constant", "value": "12ms"}, "faults": [late]})
    _, _, headers = await client.call("POST", "/card/charges", json=CHARGE)
    assert headers["X-Paydrome-Delay-Ms"] == "42"
    assert (await client.journal())[0]["delayMs"] == 42


@pytest.mark.parametrize("fault", [{"kind": "late", "delay": "1h"}, {"kind": "drip", "over": "1h"}, {"kind": "response_lost"}])
async def test_who_gives_up_on_a_slow_answer_is_forgotten_and_was_charged_all_the_same(start, fault):
    before = asyncio.all_tasks()
    client = await start(card={"faults": [fault]})
    serving = len(asyncio.all_tasks() - before)
    with pytest.raises(asyncio.TimeoutError):
        await client.call("POST", "/card/charges", json=CHARGE, timeout=aiohttp.ClientTimeout(total=0.05))
    assert [entry["moved"] for entry in await client.journal()] == [1000]
    await client.session.close()
    async with asyncio.timeout(5):
        while len(asyncio.all_tasks() - before) > serving:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.001)


async def test_a_drip_starts_at_once_and_trickles(start):
    client = await start(card={"faults": [{"kind": "drip", "over": "100ms"}]})
    async with client.session.post(f"{client.url}/card/charges", json=CHARGE) as answer:
        pieces = [piece async for piece in answer.content.iter_any()]
    assert len(pieces) > 10
    assert msgspec.json.decode(b"".join(pieces))["status"] == "approved"
    assert len(b"".join(pieces)) == int(answer.headers["Content-Length"])


async def test_a_truncated_answer_is_shorter_than_it_says(start):
    client = await start(card={"faults": [{"kind": "truncated"}]})
    reader, writer = await asyncio.open_connection("127.0.0.1", int(client.url.rpartition(":")[2]))
    body = msgspec.json.encode(CHARGE)
    writer.write(b"POST /card/charges HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    head, _, rest = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
    promised = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
    assert len(rest) == promised // 2
    assert rest.startswith(b'{"reference":"ref"')
    writer.close()


@pytest.mark.parametrize(("retry_after", "header"), [(None, None), ("7s", "7"), ("1500ms", "2"), ("2min", "120")])
async def test_a_429_may_say_when_to_come_back(start, retry_after, header):
    fault = {"kind": "rate_limited"} | ({"retry_after": retry_after} if retry_after else {})
    client = await start(card={"faults": [fault]})
    status, body, headers = await client.call("POST", "/card/charges", json=CHARGE)
    assert (status, body["code"], headers.get("Retry-After")) == (429, "rate_limited", header)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_5xx_looks_the_same_whether_the_provider_acted_or_not(start, status):
    seen = []
    for acts in (False, True):
        client = await start(card={"faults": [{"kind": f"http_{status}", "acts": acts}]})
        async with client.session.post(f"{client.url}/card/charges", json=CHARGE) as answer:
            kept = {name: value for name, value in answer.headers.items() if name != "Date"}
            seen.append((answer.status, kept, await answer.read()))
    assert seen[0] == seen[1]


async def test_only_the_answer_has_the_wrong_amount(start):
    client = await start(card={"faults": [{"kind": "wrong_amount"}]})
    answered = await client.card("ref")
    _, kept, _ = await client.call("GET", "/card/charges/ref")
    assert answered == kept | {"amount": 1001}
    assert (await client.reverse("/card/charges/ref"))[1]["status"] == "reversed"


async def test_a_refusal_has_no_amount_that_could_be_wrong(start):
    client = await start(card={"faults": [{"kind": "wrong_amount", "operation": "status"}]})
    status, body, _ = await client.call("GET", "/card/charges/ref")
    assert (status, body["code"]) == (404, "not_found")


async def test_a_payment_that_waits_for_its_customer_is_charged_twice_when_the_customer_paid(start, ear):
    client = await start(upi={"faults": [{"kind": "duplicate_charge"}]})
    await client.upi("r", ear.url)
    await ear.next()
    rows = [row for row in await client.journal() if row["moved"]]
    assert [(row["operation"], row["moved"], row.get("subject")) for row in rows] == [
        ("decide", 1000, None),
        ("decide", 1000, "duplicate"),
    ]


async def test_a_duplicate_charge_is_in_the_journal_and_nowhere_else(start):
    client = await start(card={"faults": [{"kind": "duplicate_charge"}]})
    assert (await client.card("ref"))["status"] == "approved"
    entries = await client.journal()
    assert [(entry["moved"], entry.get("subject")) for entry in entries] == [(1000, None), (1000, "duplicate")]
    assert (await client.reverse("/card/charges/ref"))[1]["status"] == "reversed"
    assert sum(entry["moved"] for entry in await client.journal()) == 1000  # what reconciliation has to find


async def test_a_stale_status_is_that_before_the_last_change(start):
    client = await start(card={"faults": [{"kind": "stale_status", "operation": "status"}]})
    await client.card("ref")
    status, body, headers = await client.call("GET", "/card/charges/ref")
    assert (status, body["code"], headers["X-Paydrome-Fault"]) == (404, "not_found", "stale_status")
    await client.reverse("/card/charges/ref")
    _, body, _ = await client.call("GET", "/card/charges/ref")
    assert body["status"] == "approved"
    truth = [entry["status"] for entry in await client.journal() if entry["operation"] == "status"]
    assert truth == ["approved", "reversed"]


async def test_a_call_that_changed_nothing_is_no_last_change(start):
    client = await start(card={"faults": [{"kind": "stale_status", "operation": "status"}]})
    await client.card("ref")
    for _ in range(2):
        await client.reverse("/card/charges/ref")
    assert (await client.call("GET", "/card/charges/ref"))[1]["status"] == "approved"


PATHS = {
    "create": ("POST", "/card/charges", CHARGE),
    "increment": ("POST", "/card/charges/ref/increment", {"reference": "more", "amount": 5, "currency": "INR"}),
    "capture": ("POST", "/card/charges/ref/capture", {"reference": "part", "amount": 5, "currency": "INR"}),
    "reverse": ("POST", "/card/charges/ref/reverse", {"amount": 1000, "currency": "INR"}),
    "refund": ("POST", "/card/charges/ref/refunds", {"reference": "back", "amount": 5, "currency": "INR"}),
    "refund_status": ("GET", "/card/refunds/back", None),
    "status": ("GET", "/card/charges/ref", None),
    "dispute": ("GET", "/card/disputes", None),
    "authenticate": ("POST", "/card/3ds/authentications", CHARGE | {"returnURL": "http://127.0.0.1:9/"}),
    "mandate": (
        "POST",
        "/upi/mandates",
        {
            "reference": "mandate",
            "vpa": "a@upi",
            "amountMax": 1000,
            "currency": "INR",
            "frequency": "monthly",
            "startAt": 1,
            "endAt": 2_000_000_000_000,
            "callbackURL": "http://127.0.0.1:9/",
            "merchantID": "m",
        },
    ),
    "payout": ("GET", "/bank/payouts/ref", None),
}


@pytest.mark.parametrize("operation", CALLS)
async def test_every_operation_has_faults_of_its_own(start, operation):
    method, path, body = PATHS[operation]
    provider = path.split("/")[1]
    client = await start(**{provider: {"faults": [{"kind": "unavailable", "operation": operation}]}})
    status, answer, headers = await client.call(method, path, json=body)
    assert (status, answer["code"], headers["X-Paydrome-Fault-Id"]) == (503, "unavailable", f"{provider}.{operation}.0")


@pytest.mark.parametrize(
    ("provider", "match", "other"),
    [
        *((provider, {"merchant": "m"}, {"merchantID": "x"}) for provider in ("card", "upi", "bank")),
        *((provider, {"amount": 1000}, {"amount": 999}) for provider in ("card", "upi", "bank")),
        ("card", {"bin": "411111"}, {"card": CHARGE["card"] | {"number": "4242424242424242"}}),
        ("upi", {"vpa": "a@upi"}, {"vpa": "b@upi"}),
    ],
)
async def test_a_match_is_on_what_the_call_carries(start, ear, provider, match, other):
    bodies = {
        "card": CHARGE,
        "upi": {"callbackURL": ear.url, "flow": "collect", "vpa": "a@upi"},
        "bank": {"callbackURL": ear.url, "bankCode": "HDFC0000001"},
    }
    body = {name: CHARGE[name] for name in ("amount", "currency", "merchantID")} | bodies[provider]
    path = "/card/charges" if provider == "card" else f"/{provider}/payments"
    client = await start(**{provider: {"faults": [{"kind": "unavailable"} | match]}})
    assert (await client.call("POST", path, json=body | {"reference": "hit"}))[0] == 503
    assert (await client.call("POST", path, json=body | other | {"reference": "missed"}))[0] == 200


@pytest.mark.parametrize("operation", ["status", "reverse", "capture", "refund"])
@pytest.mark.parametrize("match", [{"merchant": "m"}, {"amount": 1000}])
async def test_merchant_and_amount_match_later_calls_about_a_charge_too(start, operation, match):
    client = await start(card={"faults": [{"kind": "unavailable", "operation": operation} | match]})
    for reference, changed in (("hit", {}), ("missed", {"merchantID": "x", "amount": 999})):
        body = CHARGE | {"reference": reference, "capture": "manual" if operation == "capture" else "automatic"} | changed
        assert (await client.call("POST", "/card/charges", json=body))[0] == 200
        method, path, asked = PATHS[operation]
        asked = asked and asked | {"amount": body["amount"]}
        status, _, _ = await client.call(method, path.replace("ref", reference, 1), json=asked)
        assert status == (503 if reference == "hit" else 200)


def test_each_kind_is_executed_here_or_in_the_tests_of_callbacks():
    calls = {kind for kind, trait in TRAITS.items() if set(trait.operations) & set(CALLS)}
    assert calls == {case.kind for case in CASES} | STALE
    callbacks = {kind for kind, trait in TRAITS.items() if set(trait.operations) & set(CALLBACK)}
    text = (Path(__file__).parent / "test_callbacks.py").read_text()
    assert callbacks == {kind for kind in callbacks if f'"{kind}"' in text}


def rows(heading: str) -> dict[str, list[str]]:
    """The table below a heading of docs/faults.md, by the name in its first column."""
    section = DOCS.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_the_docs_have_a_row_for_each_kind_that_says_whether_the_provider_acts():
    acts = {True: "yes", False: "no", None: "as `acts` says"}
    for heading, operations in (("Calls", CALLS), ("Callbacks", CALLBACK), ("Connections", CONNECT)):
        kinds = {kind: trait for kind, trait in TRAITS.items() if set(trait.operations) & set(operations)}
        table = rows(heading)
        assert list(table) == list(kinds)
        if heading == "Calls":
            assert {kind: row[1] for kind, row in table.items()} == {kind: acts[trait.acts] for kind, trait in kinds.items()}


@pytest.mark.parametrize("heading", ["Calls", "Callbacks", "Connections"])
def test_each_line_of_configuration_in_the_docs_is_accepted(configure, heading):
    for kind, row in rows(heading).items():
        fault = msgspec.toml.decode(f"fault = {row[-1].strip('`')}")["fault"]
        assert fault["kind"] == kind
        configure(card={"port": 9001, "faults": [fault]})
