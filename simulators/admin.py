"""The operator's side: health, the timeline of faults, the journal, what can be asked of it, and settlement files."""

import asyncio
from collections.abc import Generator, Iterable
from typing import Annotated, TypeVar

import msgspec
from aiohttp import web

from simulators.answers import Balance
from simulators.config import locate
from simulators.digest import Survey as FateSurvey
from simulators.routes import Routes
from simulators.search import TIME_MS_MAX, Search, Window, find
from simulators.settlement import Order, Survey, answers, day_start, survey, written
from simulators.settlement_files import camt053, csv_file
from simulators.verification import Verification, balance, verify
from simulators.wire import JSON, Refused, decode
from simulators.world import World

T = TypeVar("T")
Q = TypeVar("Q", bound=msgspec.Struct)

SETTLING = ("card", "upi", "bank")


class Timeline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body and answer of `POST /admin/timeline`."""

    startAtMs: Annotated[int, msgspec.Meta(ge=0, le=TIME_MS_MAX)]


def add(routes: Routes, world: World, fates: FateSurvey) -> None:
    """Adds the routes of this module. `fates` begins a survey of all charges: see digest.py."""
    timeline_decoder = msgspec.json.Decoder(Timeline)
    verification_decoder = msgspec.json.Decoder(Verification)

    async def health(_request: web.BaseRequest, _: str) -> web.Response:
        return web.Response(body=b'{"status":"ok"}', headers=JSON)

    async def set_timeline(request: web.BaseRequest, _: str) -> web.Response:
        timeline = await decode(request, timeline_decoder)
        world.timeline_start_ms = timeline.startAtMs
        return web.Response(body=msgspec.json.encode(timeline), headers=JSON)

    async def journal(request: web.BaseRequest, _: str) -> web.StreamResponse:
        search = read_query(request, Search)
        found = find(world.journal.chunks(search.since), search)
        return await stream(request, {"Content-Type": "application/x-ndjson"}, found)

    async def verification(request: web.BaseRequest, _: str) -> web.Response:
        asked = await decode(request, verification_decoder)
        return web.Response(body=msgspec.json.encode(await finish(verify(world.journal, asked))), headers=JSON)

    async def show_balance(request: web.BaseRequest, _: str) -> web.Response:
        moved = await finish(balance(world.journal, read_query(request, Window)))
        return web.Response(body=msgspec.json.encode(Balance(moved)), headers=JSON)

    async def digest(_request: web.BaseRequest, _: str) -> web.Response:
        return web.Response(body=msgspec.json.encode(await finish(fates())), headers=JSON)

    routes.add("/health", GET=health)
    routes.add("/health/ready", GET=health)
    routes.add("/journal", GET=journal)
    routes.add("/admin/timeline", POST=set_timeline)
    routes.add("/admin/verify", POST=verification)
    routes.add("/admin/balance", GET=show_balance)
    routes.add("/admin/digest", GET=digest)
    for provider in SETTLING:
        _add_settlements(routes, world, provider)


def _add_settlements(routes: Routes, world: World, provider: str) -> None:
    async def surveyed(request: web.BaseRequest, day: str) -> Survey:
        order = read_query(request, Order)
        try:
            start = day_start(day)
        except ValueError:
            raise Refused(400, "invalid_request", f"the day {day!r} must be YYYY-MM-DD, from 1970 to 9998") from None
        return await finish(survey(world.journal, provider, start, order))

    async def file(request: web.BaseRequest, day: str) -> web.StreamResponse:
        found = await surveyed(request, day)
        rows = written(world.journal, found)
        if found.order.format == "csv":
            kind, suffix, pieces = "text/csv; charset=utf-8; header=present", "csv", csv_file(rows)
        else:
            kind, suffix, pieces = "application/xml; charset=utf-8", "xml", camt053(found, rows)
        name = f'attachment; filename="{provider}-{found.day:%Y-%m-%d}.{suffix}"'
        headers = {"Content-Type": kind, "Content-Disposition": name}
        return await stream(request, headers, (piece.encode() for piece in pieces))

    async def key(request: web.BaseRequest, day: str) -> web.Response:
        return web.Response(body=answers(await surveyed(request, day)), headers=JSON)

    routes.add(f"/settlements/{provider}/*", GET=file)
    routes.add(f"/settlements/{provider}/*/answers", GET=key)


def read_query(request: web.BaseRequest, schema: type[Q]) -> Q:
    """The query as a struct. Raises Refused (400)."""
    query = request.query
    twice = next((name for name in query if len(query.getall(name)) > 1), None)
    if twice is not None:
        raise Refused(400, "invalid_request", f"{twice}: stands there twice")
    try:
        asked = msgspec.convert(dict(query), schema, strict=False)
    except msgspec.ValidationError as error:
        field, reason = locate(error, schema)
        raise Refused(400, "invalid_request", f"{field}: {reason}" if field else reason) from None
    for known in msgspec.structs.fields(schema):
        if known.encode_name in query and getattr(asked, known.name) is None:  # msgspec takes `null` for nothing
            raise Refused(400, "invalid_request", f"{known.encode_name}: null is no value; leave it out to allow any")
    return asked


async def finish(steps: Generator[None, None, T]) -> T:
    """What the steps come to; others have their turn after each."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # typeshed does not say what it carries
        await asyncio.sleep(0)


async def stream(request: web.BaseRequest, headers: dict[str, str], pieces: Iterable[bytes]) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    for piece in pieces:
        if piece:
            await response.write(piece)
        await asyncio.sleep(0)  # a write returns at once while the socket takes it: let others have their turn
    await response.write_eof()
    return response
