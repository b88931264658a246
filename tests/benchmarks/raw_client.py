"""A load client that costs little: raw HTTP/1.1 over kept connections, one request in flight on each.

    python raw_client.py URL PATH --body FILE [--header H]... [--unique TOKEN] [--connections 64] [--seconds 5]

Every occurrence of TOKEN in headers and body is replaced by a number of the same length that is unique in the run. Prints one line of
JSON: {"answers", "ok", "seconds", "rate"}; `ok` counts 2xx.
"""

import argparse
import asyncio
import itertools
import json
import time
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

WARM_UP_S = 0.5  # connections open, pools fill, code paths are loaded; not counted


class Tally:
    def __init__(self) -> None:
        self.answers = 0
        self.ok = 0
        self.stopped = False


class Connection(asyncio.Protocol):
    def __init__(self, head: bytes, body: bytes, unique: bytes, numbers: "itertools.count[int]", tally: Tally) -> None:
        self._template = head + body
        self._unique = unique
        self._width = len(unique)
        self._numbers = numbers
        self._tally = tally
        self._buffer = b""
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(exc)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(self._buffer) < end + 4 + length:
            return
        self._tally.answers += 1
        self._tally.ok += head[9:10] == b"2"
        self._buffer = b""
        if self._tally.stopped:
            self._transport.close()
        else:
            self._send()

    def _send(self) -> None:
        request = self._template
        if self._unique:
            request = request.replace(self._unique, b"%0*d" % (self._width, next(self._numbers)))
        self._transport.write(request)


async def run(options: argparse.Namespace) -> dict[str, float]:
    parts = urlsplit(options.url)
    body = Path(options.body).read_bytes() if options.body else b""
    lines = [
        f"POST {options.path} HTTP/1.1",
        f"Host: {parts.netloc}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    head = "\r\n".join([*lines, *options.header, "", ""]).encode()
    tally, numbers, loop = Tally(), itertools.count(1), asyncio.get_running_loop()
    start = time.time_ns() % 10**9  # so that a second run on the same server repeats no key
    numbers = itertools.count(start * 10**6)

    def connection() -> Connection:
        return Connection(head, body, options.unique.encode(), numbers, tally)

    connections = [
        (await loop.create_connection(connection, parts.hostname, parts.port))[1] for _ in range(options.connections)
    ]
    await asyncio.sleep(WARM_UP_S)
    before, ok_before, began = tally.answers, tally.ok, time.perf_counter()
    print("started", flush=True)
    await asyncio.sleep(options.seconds)
    seconds = time.perf_counter() - began
    answers, ok = tally.answers - before, tally.ok - ok_before
    print(json.dumps({"answers": answers, "ok": ok, "seconds": seconds, "rate": ok / seconds}), flush=True)
    tally.stopped = True
    await asyncio.wait([connection.closed for connection in connections], timeout=5)
    return {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("path")
    parser.add_argument("--body")
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--unique", default="")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    uvloop.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
