"""The yardstick of the simulators: aiohttp + uvloop, a POST that answers with what it was sent, and nothing else."""

import asyncio
import json
import os

import uvloop
from aiohttp import web


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read(), content_type="application/json")


async def main() -> None:
    app = web.Application()
    app.router.add_post("/echo", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    print(json.dumps({"ready": "bare_echo", "url": f"http://{host}:{port}", "pid": os.getpid()}), flush=True)
    await asyncio.Event().wait()


uvloop.run(main())
