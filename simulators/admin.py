"""The operator's side: health, the timeline of faults, and the journal."""

import asyncio
from typing import Annotated

import msgspec
from aiohttp import web

from simulators.provider import World
from simulators.routes import Routes
from simulators.wire import JSON, Refused, decode

TIME_MS_MAX = 253_402_300_800_000  # the end of the year 9999


class Timeline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /admin/timeline`."""

    startAtMs: Annotated[int, msgspec.Meta(ge=0, le=TIME_MS_MAX)]


def add(routes: Routes, world: World) -> None:
    """Adds the routes of this module."""
    timeline_decoder = msgspec.json.Decoder(Timeline)

    async def health(_request: web.BaseRequest, _: str) -> web.Response:
        return web.Response(body=b'{"status":"ok"}', headers=JSON)

    async def set_timeline(request: web.BaseRequest, _: str) -> web.Response:
        timeline = await decode(request, timeline_decoder)
        world.timeline_start_ms = timeline.startAtMs
        return web.Response(body=msgspec.json.encode(timeline), headers=JSON)

    async def journal(request: web.BaseRequest, _: str) -> web.StreamResponse:
        since = _since(request)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        for chunk in world.journal.chunks(since):
            await response.write(chunk)
            await asyncio.sleep(0)  # a write returns at once while the socket takes it: let others have their turn
        await response.write_eof()
        return response

    routes.add("/health", GET=health)
    routes.add("/health/ready", GET=health)
    routes.add("/admin/timeline", POST=set_timeline)
    routes.add("/journal", GET=journal)


def _since(request: web.BaseRequest) -> int:
    text = request.query.get("since", "0")
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise Refused(400, "invalid_request", "since: must be the seq of a journal entry; the entries after it are answered")
    return int(text)
