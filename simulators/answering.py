"""How an answer goes out: late, damaged, or not at all. What each fault looks like to a client: docs/faults.md."""

import asyncio
import socket
import struct
import time
from email.utils import formatdate
from functools import lru_cache

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import SERVER_SOFTWARE, HttpVersion11

from simulators.faults import Injected
from simulators.intake import Answer, error_body
from simulators.wire import DELAY_HEADER, FAULT_HEADER, FAULT_ID_HEADER, JSON

DRIP_PIECES_MAX = 100  # a slow drip, and still only so many wake-ups an answer
GARBAGE_MASK = 0xA5  # turns a JSON text into bytes of the same length that are neither JSON nor UTF-8
PAGE = b"<!doctype html><html><head><title>Maintenance</title></head><body><h1>We will be back soon</h1></body></html>"
LINGER_NOT = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: closing sends RST instead of FIN


async def perform(request: web.BaseRequest, answer: Answer, hold_s: float) -> web.StreamResponse:
    """Sends what was decided. `hold_s` bounds how long a lost answer keeps a caller waiting who never gives up.

    A caller who gives up earlier cancels this; nothing stays behind.
    """
    fault, delay_ms = answer.fault, answer.delay_ms
    if fault is None:
        if delay_ms:
            await asyncio.sleep(delay_ms / 1000)
        if answer.http_status == 200 and request.keep_alive and request.version is HttpVersion11:
            await request.writer.write_eof(_whole(delay_ms, answer.body))
            return _SENT
        return web.Response(status=answer.http_status, body=answer.body, headers=JSON | {DELAY_HEADER: str(delay_ms)})
    await asyncio.sleep(hold_s if fault.kind == "response_lost" else answer.delay_ms / 1000)
    headers = JSON | {DELAY_HEADER: str(answer.delay_ms), FAULT_HEADER: fault.kind, FAULT_ID_HEADER: fault.id}
    return await _damaged(request, answer, fault, headers)


class _Sent(web.StreamResponse):
    """Tells aiohttp that the answer is out and the connection goes on."""

    keep_alive = True

    async def prepare(self, _: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        pass


_SENT = _Sent()


def _whole(delay_ms: int, body: bytes) -> bytes:
    """What `web.Response` would send for an answer with nothing special, as nearly all are, in a fifth of the time."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Paydrome-Delay-Ms: %d\r\nContent-Length: %d\r\n%b%b"
    return head % (delay_ms, len(body), _date_and_server(int(time.time())), body)


@lru_cache(maxsize=1)
def _date_and_server(now_s: int) -> bytes:
    return f"Date: {formatdate(now_s, usegmt=True)}\r\nServer: {SERVER_SOFTWARE}\r\n\r\n".encode()


async def _damaged(request: web.BaseRequest, answer: Answer, fault: Injected, headers: dict[str, str]) -> web.StreamResponse:
    status, body = answer.http_status, answer.body
    match fault.kind:
        case "response_lost" | "reset_before" | "reset_after":
            hang_up(request, reset=fault.kind != "response_lost")
        case "drip":
            return await _drip(request, answer, fault.over_ms, headers)
        case "truncated":
            return await _truncate(request, answer, headers)
        case "garbage":
            status, body = 200, bytes(byte ^ GARBAGE_MASK for byte in body)
        case "wrong_content_type":
            status, body, headers = 200, PAGE, headers | {"Content-Type": "text/html; charset=utf-8"}
        case "rate_limited" if fault.retry_after_s is not None:
            headers = headers | {"Retry-After": str(fault.retry_after_s)}
        case "http_500" | "http_502" | "http_503" | "http_504":
            # The same words whether the provider acted or not: a client that could tell would not have to find out.
            status, body = int(fault.kind.removeprefix("http_")), error_body(fault.kind, "the provider failed")
        case "wrong_amount":
            body = _with_wrong_amount(body)
    return web.Response(status=status, body=body, headers=headers)


def hang_up(request: web.BaseRequest, *, reset: bool) -> None:
    """Ends the connection at once; what the handler returns afterwards reaches nobody."""
    transport = request.transport
    if transport is None:
        return
    if reset:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    transport.abort()


async def _drip(request: web.BaseRequest, answer: Answer, over_ms: int, headers: dict[str, str]) -> web.StreamResponse:
    response = await _opened(request, answer, headers)
    size = -(-len(answer.body) // DRIP_PIECES_MAX)
    pieces = [answer.body[start : start + size] for start in range(0, len(answer.body), size)]
    for index, piece in enumerate(pieces):
        if index:
            await asyncio.sleep(over_ms / 1000 / (len(pieces) - 1))
        await response.write(piece)
    return response


async def _truncate(request: web.BaseRequest, answer: Answer, headers: dict[str, str]) -> web.StreamResponse:
    response = await _opened(request, answer, headers)
    await response.write(answer.body[: len(answer.body) // 2])
    if request.transport is not None:
        request.transport.close()  # what was written still goes out
    return response


async def _opened(request: web.BaseRequest, answer: Answer, headers: dict[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.http_status, headers=headers)
    response.content_length = len(answer.body)
    await response.prepare(request)
    return response


def _with_wrong_amount(body: bytes) -> bytes:
    fields = msgspec.json.decode(body)
    if "amount" not in fields:  # a refusal
        return body
    return msgspec.json.encode(fields | {"amount": fields["amount"] + 1})
