"""How an answer goes out: late, damaged, or not at all."""

import asyncio

from aiohttp import web

from simulators.provider import Answer
from simulators.wire import DELAY_HEADER, FAULT_HEADER, JSON


async def perform(request: web.BaseRequest, answer: Answer, hold_s: float) -> web.Response:
    """Sends what was decided. `hold_s` bounds how long a lost answer keeps a caller waiting who never gives up."""
    if answer.fault is None and answer.delay_ms == 0:
        return web.Response(status=answer.http_status, body=answer.body, headers=JSON)
    if answer.fault == "response_lost":
        await _fall_silent(request, hold_s)
    elif answer.delay_ms:
        await asyncio.sleep(answer.delay_ms / 1000)
    headers = JSON | {DELAY_HEADER: str(answer.delay_ms)} | ({FAULT_HEADER: answer.fault} if answer.fault else {})
    return web.Response(status=answer.http_status, body=answer.body, headers=headers)


async def _fall_silent(request: web.BaseRequest, hold_s: float) -> None:
    """Keeps the caller waiting until it gives up (which cancels the handler) or `hold_s` is over, then hangs up."""
    await asyncio.sleep(hold_s)
    if request.transport is not None:
        request.transport.abort()
