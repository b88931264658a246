"""What every provider adapter keeps to (gateway/ports.py): how the network's and the provider's misbehaviour becomes an outcome.

`NotSent` only if no byte of the request left. Definite only if the provider said so, about this reference, amount and currency.
"""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

from gateway.config import ProviderConfig
from gateway.core.outcome import (
    Approved,
    Declined,
    Expired,
    Irreversible,
    NotFound,
    NotSent,
    Outcome,
    Pending,
    Reversed,
    Unknown,
)
from gateway.core.payment import Attempt, Method, Payment
from gateway.providers.calls import ANSWER_BYTES_MAX
from gateway.providers.card import CardDialect
from gateway.providers.client import Dialect, HttpProvider
from gateway.providers.netbanking import NetbankingDialect
from gateway.providers.upi import UpiDialect
from tests.contract import raw_server as wire
from tests.contract.raw_server import Behaviour, RawServer, answering, http, raw_server
from tests.gateway.doubles import CVV, INSTRUMENTS, NUMBER, PATIENCE_S, make_attempt, make_payment

DIALECTS: dict[Method, Dialect] = {"card": CardDialect(), "upi": UpiDialect(), "netbanking": NetbankingDialect()}
OPERATIONS = ("create", "inquire", "reverse")
ALL_UNKNOWN = dict.fromkeys(OPERATIONS, Unknown)
CALLBACK_URL = "http://gateway.example/api/webhooks/payment"
SOON_S = 0.15  # a deadline for those who will not be answered


class Caller:
    """One payment at one provider."""

    def __init__(self, provider: HttpProvider, method: Method) -> None:
        self.provider = provider
        self.payment: Payment = make_payment(method=method)
        self.attempt: Attempt = make_attempt(self.payment)
        self.instrument = INSTRUMENTS[method]

    async def call(self, operation: str, *, deadline_s: float = PATIENCE_S) -> Outcome:
        if operation == "create":
            return await self.provider.create(self.payment, self.attempt, self.instrument, deadline_s=deadline_s)
        return await getattr(self.provider, operation)(self.attempt, deadline_s=deadline_s)

    def charge(self, **changed: Any) -> dict[str, Any]:
        whole = {
            "reference": self.attempt.reference,
            "providerID": "prov_1",
            "status": "approved",
            "responseCode": "00",
            "amount": self.attempt.amount_minor,
            "currency": self.attempt.currency,
            "createdAt": 1,
        }
        return {key: value for key, value in (whole | changed).items() if value is not ...}


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with raw_server() as made:
        yield made


@asynccontextmanager
async def calling(url: str, method: Method = "card", **config: Any) -> AsyncIterator[Caller]:
    provider = HttpProvider(
        ProviderConfig(url=url, **config),
        DIALECTS[method],
        callback_url=CALLBACK_URL,
        refund_callback_url=CALLBACK_URL,
        return_url="http://gateway.example/payments/{paymentID}/return",
    )
    try:
        yield Caller(provider, method)
    finally:
        await provider.close()


@pytest.fixture(params=DIALECTS)
async def caller(request: pytest.FixtureRequest, server: RawServer) -> AsyncIterator[Caller]:
    async with calling(server.url + "/base/", request.param) as made:
        yield made


operations = pytest.mark.parametrize("operation", OPERATIONS)


# No byte left


@operations
async def test_a_refused_connection_is_not_sent(operation: str):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with calling(f"http://127.0.0.1:{port}") as caller:
        assert isinstance(await caller.call(operation), NotSent)


async def test_a_connection_that_is_not_answered_is_not_sent():
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        waiting = []
        for _ in range(4):  # fills the queue of connections, so that the kernel answers no further one
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(deaf.getsockname())
        async with calling(f"http://127.0.0.1:{deaf.getsockname()[1]}") as caller:
            assert await caller.call("create", deadline_s=SOON_S) == NotSent("ConnectionTimeoutError")
        for connection in waiting:
            connection.close()


async def test_a_name_that_does_not_resolve_is_not_sent():
    async with calling("http://nowhere.invalid") as caller:
        assert isinstance(await caller.call("create"), NotSent)


async def test_waiting_in_vain_for_a_pooled_connection_is_not_sent(server: RawServer):
    async with calling(server.url, connections_max=1) as caller:
        first = asyncio.create_task(caller.call("create"))
        await server.seen.wait()
        assert isinstance(await caller.call("create", deadline_s=SOON_S), NotSent)
        assert len(server.requests) == 1
    assert isinstance(await first, Unknown)


# Anything may have happened


def broken() -> dict[str, Behaviour]:
    """Answers that tell nothing about any charge."""
    approved = Caller.__new__(Caller)
    approved.attempt = make_attempt(make_payment())
    good = json.dumps(Caller.charge(approved)).encode()
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    elsewhere = "Location: /base/answered-elsewhere\r\n"
    return {
        "reset": wire.resetting,
        "closed": wire.closing,
        "no http": wire.sending_and_closing(b"\x00\xff\x16\x03 what?\r\n\r\n"),
        "half a status line": wire.sending_and_closing(b"HTTP/1.1 2"),
        "half a header": wire.sending_and_closing(b"HTTP/1.1 200 OK\r\nContent-Le"),
        "half a body": wire.sending_and_closing(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + good),
        "half a chunk": wire.sending_and_closing(chunked + b"FF\r\n" + good),
        "no last chunk": wire.sending_and_closing(chunked + b"%x\r\n%b\r\n" % (len(good), good)),
        "no chunk size": wire.sending_and_closing(chunked + b"zz\r\n" + good),
        "length too short": http(200, good, length=len(good) - 9),
        "length no number": wire.sending_and_closing(b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n" + good),
        "length negative": wire.sending_and_closing(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" + good),
        "a huge body": http(200, good[:-1] + b" " * ANSWER_BYTES_MAX + b"}"),
        "a huge body in chunks": wire.sending_and_closing(chunked + b"100000\r\n" + b" " * 0x100000 + b"\r\n0\r\n\r\n"),
        "a huge header": wire.sending_and_closing(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n" + good),
        "empty": http(200),
        "html": http(200, b"<html>Welcome to nginx</html>"),
        "half a document": http(200, good[: len(good) // 2]),
        "two documents": http(200, good + good),
        "no utf-8": http(200, good.replace(b"prov_1", b"\xff\xfe")),
        "the card number in another place": http(200, good.replace(b"approved", NUMBER.encode())),
        "a list": http(200, b"[" + good + b"]"),
        "null": http(200, b"null"),
        "brackets": http(200, b"[" * 60_000),
        "brackets in an extra field": http(200, b'{"extra":' + b"[" * 60_000),
        "compressed": http(200, b"\x1f\x8b\x08\x00garbage", headers="Content-Encoding: gzip\r\n"),
        **{f"HTTP {status}": http(status, good) for status in (201, 202, 204, 400, 401, 402, 403, 409, 422, 429)},
        **{f"HTTP {status}": http(status, good) for status in (500, 501, 502, 503, 504, 599)},
        **{f"HTTP {status}": http(status, good, headers=elsewhere) for status in (300, 301, 302, 303, 304, 307, 308)},
    }


@pytest.mark.parametrize("how", broken())
async def test_an_answer_that_tells_nothing_is_unknown(server: RawServer, caller: Caller, how: str):
    server.behaviour = broken()[how]
    assert {operation: type(await caller.call(operation)) for operation in OPERATIONS} == ALL_UNKNOWN
    assert b"answered-elsewhere" not in b"".join(server.requests)


@operations
async def test_no_answer_within_the_deadline_is_unknown(server: RawServer, caller: Caller, operation: str):
    assert isinstance(await caller.call(operation, deadline_s=SOON_S), Unknown)
    assert len(server.requests) == 1


@pytest.mark.parametrize("part", [b"HTTP/1.1 200 OK\r\n", b'HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n{"reference":'])
async def test_an_answer_that_stops_in_the_middle_is_unknown(server: RawServer, caller: Caller, part: bytes):
    server.behaviour = wire.sending(part)
    assert isinstance(await caller.call("create", deadline_s=SOON_S), Unknown)


@pytest.mark.parametrize(
    "changed",
    [
        {"reference": "att_somebody_else_01"},
        {"reference": ...},
        {"amount": 1001},
        {"amount": "1000"},
        {"amount": 1000.5},
        {"amount": 10**30},
        {"amount": None},
        {"amount": ...},
        {"currency": "USD"},
        {"currency": "inr"},
        {"currency": ...},
        {"status": "APPROVED"},
        {"status": "success"},
        {"status": None},
        {"status": ...},
        {"providerID": ...},
        {"providerID": 5},
        {"providerID": ""},
        {"providerID": "prov 1"},
        {"providerID": "x" * 65},
        {"responseCode": 0},
        {"responseCode": ""},
        {"responseCode": "51\n"},
        {"responseCode": "<b>51</b>"},
        {"responseCode": "x" * 33},
        {"redirectURL": "javascript:alert(1)"},
        {"redirectURL": "https://bank.example/ <script>"},
        {"intentURL": "https://phishing.example"},
        {"qrPayload": "4111111111111111"},
    ],
    ids=str,
)
async def test_a_charge_that_is_not_exactly_ours_is_unknown(server: RawServer, caller: Caller, changed: dict[str, Any]):
    server.behaviour = answering(caller.charge(**changed))
    assert {operation: type(await caller.call(operation)) for operation in OPERATIONS} == ALL_UNKNOWN


async def test_a_create_is_sent_once_even_if_a_reused_connection_breaks(server: RawServer, caller: Caller):
    server.behaviour = answering(caller.charge())
    assert isinstance(await caller.call("create"), Approved)
    server.behaviour = wire.closing
    assert isinstance(await caller.call("create"), Unknown)
    assert len(server.requests) == 2


# Definite answers

DECLINES = {
    "card": ("51", "insufficient_funds"),
    "upi": ("ZA", "declined_by_customer"),
    "netbanking": ("otp_failed", "otp_failed"),
}


@operations
@pytest.mark.parametrize("status", ["approved", "declined", "expired", "reversed", "pending"])
async def test_a_charge_about_our_reference_is_what_it_says(server: RawServer, caller: Caller, operation: str, status: str):
    code, reason = DECLINES[caller.payment.method]
    server.behaviour = answering(caller.charge(status=status, responseCode=None if status == "pending" else code))
    outcome = await caller.call(operation)
    if status == "pending":
        assert isinstance(outcome, Pending)
        assert outcome.provider_id == "prov_1"
        return
    expected = {
        "approved": Approved("prov_1", code),
        "declined": Declined(code, reason, "prov_1"),
        "expired": Expired(code, "prov_1"),
        "reversed": Reversed(),
    }
    assert outcome == expected[status]


@operations
@pytest.mark.parametrize("code", ["not_found", "no_such_route", None])
async def test_only_an_inquirys_own_404_means_that_the_provider_has_not_seen_it(
    server: RawServer, caller: Caller, operation: str, code: str | None
):
    server.behaviour = answering({"error": "?"} if code is None else {"error": "?", "code": code}, 404)
    expected = NotFound if operation == "inquire" and code == "not_found" else Unknown
    assert isinstance(await caller.call(operation), expected)


@pytest.mark.parametrize(
    ("stands", "expected"),
    [
        ("approved", Irreversible("prov_1", "00")),
        ("reversed", Reversed()),
        ("nonsense", Unknown),
    ],
)
async def test_a_reversal_that_is_refused_ends_as_what_the_charge_is(
    server: RawServer, caller: Caller, stands: str, expected: Any
):
    async def behave(writer: asyncio.StreamWriter) -> None:
        refused = answering({"error": "?", "code": "not_reversible"}, 409)
        await (refused if len(server.requests) == 1 else answering(caller.charge(status=stands)))(writer)

    server.behaviour = behave
    found = await caller.call("reverse")
    assert (type(found) if isinstance(expected, type) else found) == expected


@pytest.mark.parametrize("body", [b"", b"null", b"<html>", b'{"code":5}', b'{"code":' + b"[" * 60_000])
async def test_a_404_from_something_in_between_tells_nothing(server: RawServer, caller: Caller, body: bytes):
    server.behaviour = http(404, body)
    assert isinstance(await caller.call("inquire"), Unknown)


async def test_the_largest_answer_that_is_read_is_read_whole(server: RawServer, caller: Caller):
    good = json.dumps(caller.charge()).encode()
    padded = good[:-1] + b" " * (ANSWER_BYTES_MAX - len(good)) + b"}"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (padded[:5], padded[5:20_000], padded[20_000:]))
    for answer in (
        http(200, padded),
        wire.sending(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"),
    ):
        server.behaviour = answer
        assert isinstance(await caller.call("create"), Approved)


@operations
async def test_requests_go_where_the_protocol_has_them(server: RawServer, caller: Caller, operation: str):
    server.behaviour = answering(caller.charge())
    await caller.call(operation)
    collection = "/base/charges" if caller.payment.method == "card" else "/base/payments"
    one = f"{collection}/{caller.attempt.reference}"
    path = {"create": f"POST {collection}", "inquire": f"GET {one}", "reverse": f"POST {one}/reverse"}[operation]
    [request] = server.requests
    assert request.startswith(path.encode() + b" HTTP/1.1\r\n")
    if operation == "reverse":
        assert json.loads(request.split(b"\r\n\r\n")[1]) == {"amount": 1000, "currency": "INR"}


# Card data


async def test_card_data_is_in_the_request_once_and_nowhere_else(
    server: RawServer, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
):
    caplog.set_level(logging.DEBUG)
    said: list[object] = []
    with structlog.testing.capture_logs() as logs:
        async with calling(server.url) as caller:
            for how in (answering(caller.charge()), *broken().values()):
                server.behaviour = how
                said.append(await caller.call("create"))
            creates = len(server.requests)
            server.behaviour = answering(caller.charge())
            said += [await caller.call("inquire"), await caller.call("reverse"), caller.instrument]
    for request in server.requests[:creates]:
        assert (request.count(NUMBER.encode()), request.count(CVV.encode())) == (1, 1)
    for text in (str(server.requests[creates:]), repr(said), str(logs), caplog.text, *capsys.readouterr()):
        assert NUMBER not in text
        assert CVV not in text
