"""Answers on the wire, byte by byte: those that are written in one piece look like those that aiohttp writes."""

import asyncio
from email.utils import parsedate_to_datetime

import msgspec
import pytest

SAME = ["Content-Type", "X-Paydrome-Delay-Ms", "Content-Length", "Date", "Server"]


async def exchanged(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[list[list[str]], bytes]:
    """Status line and headers, split, and the body."""
    writer.write(request + b"\r\n\r\n")
    first, *lines = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode().splitlines()[:-1]
    head = [first.split(" ", 1), *(line.split(": ", 1) for line in lines)]
    return head, await asyncio.wait_for(reader.readexactly(int(dict(head)["Content-Length"])), 10)


@pytest.mark.parametrize(("latency", "delay_ms"), [("0ms", "0"), ("3ms", "3")])
async def test_an_answer_looks_the_same_whether_the_connection_goes_on_or_not(start, latency, delay_ms):
    client = await start(card={"latency": {"kind": "constant", "value": latency}})
    created = await client.card("ref_1")
    connection = await asyncio.open_connection("127.0.0.1", int(client.url.rpartition(":")[2]))
    path = b"GET /card/charges/ref_1 "
    kept, body = await exchanged(*connection, path + b"HTTP/1.1\r\nHost: x")
    old, body_of_old = await exchanged(*connection, path + b"HTTP/1.0\r\nHost: x\r\nConnection: keep-alive")
    last, body_of_last = await exchanged(*connection, path + b"HTTP/1.1\r\nHost: x\r\nConnection: close")
    assert await asyncio.wait_for(connection[0].read(), 10) == b""  # closed
    connection[1].close()

    assert msgspec.json.decode(body) == created
    assert body == body_of_old == body_of_last
    assert kept[0] == last[0] == ["HTTP/1.1", "200 OK"]
    assert [name for name, _ in kept[1:]] == SAME
    assert [name for name, _ in last[1:]] == [name for name, _ in old[1:]] == [*SAME, "Connection"]
    assert dict(kept)["X-Paydrome-Delay-Ms"] == delay_ms
    dates = [parsedate_to_datetime(dict(head)["Date"]) for head in (kept, old, last)]
    assert dates == sorted(dates)
    for name in ("Content-Type", "X-Paydrome-Delay-Ms", "Content-Length", "Server"):
        assert dict(kept)[name] == dict(old)[name] == dict(last)[name]
    assert (dict(old)["Connection"], dict(last)["Connection"]) == ("keep-alive", "close")


async def test_refusals_are_left_to_aiohttp_on_the_same_connection(start):
    client = await start()
    connection = await asyncio.open_connection("127.0.0.1", int(client.url.rpartition(":")[2]))
    for path, status in (
        (b"/card/charges/none", "404 Not Found"),
        (b"/card/disputes", "200 OK"),
        (b"/card/none", "404 Not Found"),
    ):
        head, _ = await exchanged(*connection, b"GET %b HTTP/1.1\r\nHost: x" % path)
        assert head[0] == ["HTTP/1.1", status]
        assert "Connection" not in dict(head)
    connection[1].close()
