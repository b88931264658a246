"""The same seed, the same fate: whatever the order, however many at once, and in whichever process."""

import asyncio
import json
import random
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from simulators.config import encode

PATIENCE_S = 30
REFERENCES = [("card", f"ref_{index}") for index in range(9_200)] + [
    (provider, f"ref_{index}") for provider in ("upi", "bank") for index in range(400)
]
BODIES = {
    "card": ("/card/charges", '"card":{"number":"4111111111111111","expiryMonth":"12","expiryYear":"2099","cvv":"123"}'),
    "upi": ("/upi/payments", '"flow":"collect","vpa":"a@upi","callbackURL":"SINK"'),
    "bank": ("/bank/payments", '"bankCode":"HDFC0000001","callbackURL":"SINK"'),
}

RARELY_SLOW = {"kind": "mixture", "parts": [{"weight": 97, "latency": {"kind": "constant", "value": "0ms"}}]}
RARELY_SLOW["parts"].append({"weight": 3, "latency": {"kind": "uniform", "low": "1ms", "high": "4ms"}})
CUSTOMER = {"delay": {"kind": "uniform", "low": "0ms", "high": "9ms"}}
FAULTS = [
    {"kind": "unavailable", "probability": 0.03},
    {"kind": "http_502", "acts": True, "probability": 0.03},
    {"kind": "garbage", "probability": 0.02},
]
MIXED = {
    "card": {"outcomes": {"00": 0.7, "05": 0.2, "51": 0.1}, "latency": RARELY_SLOW, "faults": FAULTS},
    "upi": {"outcomes": {"00": 0.6, "ZA": 0.3, "U69": 0.1}, "latency": RARELY_SLOW, "faults": FAULTS, "customer": CUSTOMER},
    "bank": {"outcomes": {"00": 0.6, "otp_failed": 0.4}, "latency": RARELY_SLOW, "faults": FAULTS, "customer": CUSTOMER},
}


@pytest.fixture
async def process(tmp_path, configure):
    """`async with process(seed=1) as (url, stopped)`: simulators in a process of their own; `stopped` has its last line, afterwards."""

    @asynccontextmanager
    async def running(seed: int) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        file: Path = tmp_path / f"{seed}.json"
        file.write_bytes(encode(configure(seed=seed, **MIXED)))
        command = [sys.executable, "-m", "simulators", "--config", str(file)]
        child = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
        stopped: dict[str, Any] = {}
        try:
            yield json.loads(await child.stdout.readline())["url"], stopped
            child.terminate()
            _, log = await asyncio.wait_for(child.communicate(), PATIENCE_S)
            stopped.update(json.loads(log.splitlines()[-1]))
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()

    return running


class Connection(asyncio.Protocol):
    """One call at a time. As frugal as can be, for there are ten thousand references and little time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._answer, self._received = transport, None, bytearray()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, _, body = self._received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r", 1)[0] or -1)
        if len(body) == length:
            self._received = bytearray()
            if not self._answer.done():  # whoever failed has cancelled the others
                self._answer.set_result((int(head[9:12]), bytes(body)))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("closed before the answer"))

    async def call(self, request: str, body: str = "") -> tuple[int, bytes]:
        """Status and body of an answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(f"{request} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        return await self._answer

    def close(self) -> None:
        self._transport.close()


class Sink(asyncio.Protocol):
    """Takes every callback, and looks at none."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._received = transport, b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(b"}"):  # the body is one JSON object, without others in it
            self._received = b""
            self._transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")


async def create(connection: Connection, provider: str, reference: str, sink: str) -> None:
    """Creates a charge, again and again until an answer says what became of it."""
    path, fields = BODIES[provider]
    common = f'"reference":"{reference}","amount":1000,"currency":"INR","merchantID":"m"'
    body = f"{{{common},{fields.replace('SINK', sink)}}}"
    for _ in range(20):  # at 8% each, no charge meets a fault 20 times in a row
        status, answer = await connection.call(f"POST {path}", body)
        if status == 200 and answer.startswith(b'{"reference"'):
            return
    raise AssertionError(f"{provider} did not answer for {reference}: {status} {answer!r}")


async def fates(running: Any, *, callers: int, shuffled: bool) -> tuple[dict[Any, Any], dict[str, Any], dict[str, Any]]:
    """What the journal says of each charge when all are decided, the digest, and the last line of the process."""
    async with running as (url, stopped):
        order = iter(random.Random(1).sample(REFERENCES, len(REFERENCES)) if shuffled else REFERENCES)
        port = int(url.rpartition(":")[2])
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Sink, "127.0.0.1", 0)
        sink = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/callbacks"
        connections = [(await loop.create_connection(Connection, "127.0.0.1", port))[1] for _ in range(callers)]

        async def work(connection: Connection) -> None:
            for provider, reference in order:
                await create(connection, provider, reference, sink)

        async with asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(work(connection))
        for _ in range(1_000):
            digest = json.loads((await connections[0].call("GET /admin/digest"))[1])
            if not digest["undecided"]:
                break
        found = await journal(port)
        for connection in connections:
            connection.close()
    server.close()  # afterwards, as callbacks may be under way until then
    return found, digest, stopped


async def journal(port: int) -> dict[Any, Any]:
    """What was drawn for each charge and each try to create it. What a try found depends on when the customer decided."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /journal HTTP/1.0\r\nHost: x\r\n\r\n")  # 1.0: not in chunks
    await reader.readuntil(b"\r\n\r\n")
    entries = msgspec.json.Decoder().decode_lines(await reader.read())
    writer.close()
    found = {}
    for entry in entries:
        if entry["operation"] in ("create", "decide", "expire"):
            key = (entry["provider"], entry["reference"], entry["operation"], entry["attempt"])
            assert key not in found
            code = entry["responseCode"] if entry["provider"] == "card" or entry["operation"] != "create" else None
            found[key] = (code, *(entry.get(name) for name in ("providerID", "moved", "delayMs", "fault", "faultID")))
    return found


async def test_ten_thousand_references_meet_the_same_fates_in_any_order_at_any_concurrency_in_any_process(process):
    (one_by_one, *one_end), (all_at_once, *all_end) = await asyncio.gather(
        fates(process(seed=11), callers=1, shuffled=False), fates(process(seed=11), callers=200, shuffled=True)
    )
    assert one_by_one == all_at_once
    assert one_end == all_end
    digest, stopped = one_end
    assert stopped == {"stopped": "simulators", **digest}
    assert (digest["charges"], digest["undecided"]) == (len(REFERENCES), 0)
    assert {fault for *_, fault, _ in one_by_one.values()} == {None, "unavailable", "http_502", "garbage"}
    assert {delay_ms for *_, delay_ms, _, _ in one_by_one.values()} == {0, 1, 2, 3, 4}
