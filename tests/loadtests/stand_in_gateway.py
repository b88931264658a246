"""Small servers that answer payments, run in a process of their own by test_generator.py. Each line of options that comes in opens one
more of them, and its port goes out.

They honour idempotency keys, and take voids and refunds. With `--stall-at N --stall-s S` all stand still when request N comes in; with
`--misbehave` payment i of a run gets the answer i % 8 of ANSWERS; with `--refuse` or `--redirect` every one gets that. `GET /seen` tells
what one saw.
"""

import argparse
import asyncio
import sys
import time
from typing import Any

from aiohttp import web

ANSWERS = ("ok", "declined", "unauthorized", "broken", "nothing", "nonsense", "half", "silence")
WORK_S = 0.03  # long enough for the second of two simultaneous requests to find the first still running


class Gateway:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.stored: dict[str, bytes | None] = {}
        self.requests: list[dict[str, Any]] = []
        self.stall: list[float] = []

    async def process(self, request: web.Request) -> web.StreamResponse:
        body, key = await request.json() if request.can_read_body else {}, request.headers["Idempotency-Key"]
        self.requests.append({"key": key, "authorization": request.headers["Authorization"], "body": body})
        if len(self.requests) == self.options.stall_at:
            self.stall.append(time.time())
            time.sleep(self.options.stall_s)  # noqa: ASYNC251 - the whole server stands still, as in a garbage collection
            self.stall.append(time.time())
        if self.options.refuse:
            return _answer(401, b'{"success":false,"error":"no","code":"unauthorized"}')
        if self.options.redirect:
            raise web.HTTPTemporaryRedirect(request.path)
        if self.options.misbehave:
            return await self.misbehave(request, ANSWERS[int(key.rpartition("-")[2]) % len(ANSWERS)], body)
        if key in self.stored:
            stored = self.stored[key]
            return _answer(201, stored) if stored else _answer(409, b'{"success":false,"code":"in_flight"}')
        self.stored[key] = None
        await asyncio.sleep(WORK_S)
        self.stored[key] = _done(request, body)
        return _answer(201, _done(request, body))

    async def misbehave(self, request: web.Request, how: str, body: dict[str, Any]) -> web.StreamResponse:
        assert request.transport is not None
        match how:
            case "ok":
                return _answer(201, _payment(body, "completed"))
            case "declined":
                return _answer(201, _payment(body, "failed"))
            case "unauthorized":
                return _answer(401, b'{"success":false,"error":"no","code":"unauthorized"}')
            case "broken":
                return _answer(503, b"<html>out of order</html>")
            case "nothing":
                return _answer(201, b"")
            case "nonsense":
                return _answer(200, b'{"success":true}')
            case "half":
                request.transport.write(b'HTTP/1.1 201 Created\r\nContent-Length: 1000\r\n\r\n{"success":true,')
            case "silence":
                await asyncio.sleep(60)
        request.transport.close()
        return web.Response()

    async def seen(self, _: web.Request) -> web.Response:
        return web.json_response({"requests": self.requests, "stall": self.stall})


def _done(request: web.Request, body: dict[str, Any]) -> bytes:
    if "orderID" in body:
        return _payment(body, "authorized" if body.get("captureMethod") == "manual" else "completed")
    payment_id = (request.match_info.get("paymentID") or body["paymentID"]).encode()
    if request.path.endswith("/void"):
        return b'{"success":true,"data":{"paymentID":"%s","status":"voided"}}' % payment_id
    return b'{"success":true,"data":{"refundID":"ref_%s","paymentID":"%s","status":"completed"}}' % (payment_id, payment_id)


def _payment(body: dict[str, Any], status: str) -> bytes:
    return b'{"success":true,"data":{"paymentID":"pay_%s","status":"%s","amount":100}}' % (
        body["orderID"].encode(),
        status.encode(),
    )


def _answer(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")


async def opened(options: argparse.Namespace) -> web.AppRunner:
    gateway, app = Gateway(options), web.Application()
    app.router.add_post("/api/payments/process", gateway.process)
    app.router.add_post("/api/payments/{paymentID}/void", gateway.process)
    app.router.add_post("/api/refunds/process", gateway.process)
    app.router.add_get("/seen", gateway.seen)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner


async def main(parser: argparse.ArgumentParser) -> None:
    serving = []
    while line := await asyncio.to_thread(sys.stdin.readline):
        serving.append(await opened(parser.parse_args(line.split())))
        print(serving[-1].addresses[0][1], flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--stall-at", type=int, default=0)
    parser.add_argument("--stall-s", type=float, default=0)
    for behaviour in ("--misbehave", "--refuse", "--redirect"):
        parser.add_argument(behaviour, action="store_true")
    asyncio.run(main(parser))
