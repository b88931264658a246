"""What every courier keeps to (gateway/ports.py): one POST, an answer or the reason why there is none."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from gateway.courier import ANSWER_BYTES_MAX, KEPT_BYTES_MAX, HttpCourier
from gateway.outbound import Guard
from gateway.ports import Receipt
from tests.contract import raw_server as wire
from tests.contract.raw_server import Behaviour, RawServer, http, raw_server

LOOPBACK = Guard(["127.0.0.0/8"])
BODY = b'{"event":"payment.completed"}'
HEADERS = {"Content-Type": "application/json", "webhook-id": "evt_1"}


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with raw_server() as made:
        yield made


@pytest.fixture
async def courier() -> AsyncIterator[HttpCourier]:
    made = HttpCourier(timeout_ms=5_000, guard=LOOPBACK)
    yield made
    await made.close()


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299, 400, 404, 410, 429, 500, 503])
async def test_the_receipt_tells_the_status(server: RawServer, courier: HttpCourier, status: int):
    server.behaviour = http(status)
    assert await courier.post(server.url, HEADERS, BODY) == Receipt(status)


async def test_body_and_headers_arrive_as_they_are(server: RawServer, courier: HttpCourier):
    server.behaviour = http(200)
    await courier.post(server.url + "/hooks?shop=7", HEADERS, BODY)
    head, body = server.requests[0].split(b"\r\n\r\n")
    assert head.startswith(b"POST /hooks?shop=7 HTTP/1.1\r\n")
    assert b"webhook-id: evt_1" in head
    assert b"Content-Type: application/json" in head
    assert body == BODY


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(server: RawServer, courier: HttpCourier, status: int):
    server.behaviour = http(status, headers="Location: /elsewhere\r\n")
    assert await courier.post(server.url, HEADERS, BODY) == Receipt(status)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("9" * 40, None),
    ],
)
async def test_retry_after_is_read_in_seconds(server: RawServer, courier: HttpCourier, header: str, seconds: int | None):
    server.behaviour = http(503, headers=f"Retry-After: {header}\r\n")
    assert await courier.post(server.url, HEADERS, BODY) == Receipt(503, retry_after_s=seconds)


@pytest.mark.parametrize(
    "behaviour",
    [
        wire.closing,
        wire.resetting,
        wire.sending_and_closing(b"\x00\xff what?\r\n\r\n"),
        wire.sending_and_closing(b"HTTP/1.1 2"),
        wire.sending_and_closing(b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n"),
        wire.sending_and_closing(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        wire.sending_and_closing(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000),
    ],
)
async def test_without_an_answer_there_is_a_reason(server: RawServer, courier: HttpCourier, behaviour: Behaviour):
    server.behaviour = behaviour
    receipt = await courier.post(server.url, HEADERS, BODY)
    assert receipt.status is None
    assert receipt.error


async def test_a_receiver_that_is_not_there_or_too_slow_is_given_up(server: RawServer):
    courier = HttpCourier(timeout_ms=100, guard=LOOPBACK)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert (await courier.post(f"http://127.0.0.1:{port}", HEADERS, BODY)).error == "ClientConnectorError"
    assert await courier.post(server.url, HEADERS, BODY) == Receipt(None, "TimeoutError")
    await courier.close()


async def test_a_receiver_that_talks_without_end_is_not_listened_to(server: RawServer, courier: HttpCourier):
    async def talk(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
        while True:
            writer.write(b"x" * ANSWER_BYTES_MAX)
            await writer.drain()

    server.behaviour = talk
    receipt = await courier.post(server.url, HEADERS, BODY)
    assert receipt == Receipt(200, body=b"x" * KEPT_BYTES_MAX)


async def test_a_connection_is_used_again(server: RawServer, courier: HttpCourier):
    server.behaviour = http(200, b"thank you")
    for _ in range(5):
        await courier.post(server.url, HEADERS, BODY)
    assert len(server.requests) == 5
    assert server.connections == 1
