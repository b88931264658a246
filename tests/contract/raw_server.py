"""A TCP server that reads HTTP requests and then does whatever a test wants on the wire."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.gateway.doubles import PATIENCE_S

Behaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]


def http(status: int, body: bytes = b"", *, headers: str = "", length: int | None = None) -> Behaviour:
    """A plain answer; `length` is what it says about itself, if that is not the truth."""
    head = f"HTTP/1.1 {status} Because\r\nContent-Length: {len(body) if length is None else length}\r\n{headers}\r\n"
    return sending(head.encode() + body)


def answering(document: Any, status: int = 200) -> Behaviour:
    return http(status, json.dumps(document).encode(), headers="Content-Type: application/json\r\n")


def sending(data: bytes) -> Behaviour:
    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return behave


def sending_and_closing(data: bytes) -> Behaviour:
    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        writer.close()

    return behave


async def closing(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def resetting(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def silence(writer: asyncio.StreamWriter) -> None:
    """The request was read, and that is all."""


class RawServer:
    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.behaviour: Behaviour = silence
        self.url = ""
        self.seen = asyncio.Event()
        """Set once a request has been read."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                self.requests.append(await _request(reader))
                self.seen.set()
                await self.behaviour(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client is through with this connection
        finally:
            writer.close()


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return head + await reader.readexactly(int(lengths[0]) if lengths else 0)


@asynccontextmanager
async def raw_server() -> AsyncIterator[RawServer]:
    made = RawServer()
    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.connections += 1
        connections.add(asyncio.create_task(made.serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()
    for connection in connections:
        connection.cancel()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*connections, return_exceptions=True)
