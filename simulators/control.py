"""Control while it runs: the settings in force, faults, the clock, reset and snapshots. See docs/control.md.

Every change of the settings is an edit of the same document that a configuration file holds, and is judged as a whole by the same
rules: it holds from then on, or it is refused with field and reason and nothing has changed.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web

from simulators import snapshot
from simulators.answers import Kept, ResetDone, Restored, Snapshots, WorldTime
from simulators.clock import ADVANCE_MS_MAX
from simulators.config import PROVIDERS, ConfigError, Simulators, convert, dec_hook, locate, ports_of
from simulators.durations import Duration
from simulators.faults import MATCHES, Fault, Name
from simulators.hints import suggestion
from simulators.routes import Routes
from simulators.site import Site, settings_of
from simulators.snapshot import SNAPSHOTS_MAX, Snapshot
from simulators.wire import JSON, Refused, read

Document = dict[str, Any]
DEPTH_MAX = 32  # of a merge patch; the deepest setting is at 8


class Advance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /admin/clock/advance`."""

    by: Duration


class Reset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /admin/reset`; `config`: the settings go back to those of the start, too."""

    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    config: bool = False


class NewSnapshot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /admin/snapshots`."""

    name: Name


class Start(msgspec.Struct, frozen=True):
    """What the body of `POST /admin/faults` has beside the fields of a fault."""

    provider: Literal["card", "upi", "bank"]
    name: Name


def add(routes: Routes, site: Site) -> None:
    """Adds the routes of this module, once the site is complete."""
    _add_config(routes, site)
    _add_faults(routes, site)
    _add_clock(routes, site)
    snapshots: dict[str, Snapshot] = {}
    _add_snapshots(routes, site, snapshots)
    birth = snapshot.take(site)

    async def reset(request: web.BaseRequest, _: str) -> web.Response:
        asked = await _body(request, Reset)
        snapshot.reset(site, birth, seed=asked.seed, settings=site.base if asked.config else None)
        return reply(ResetDone(site.world.draws.seed, _time(site)))

    routes.add("/admin/reset", POST=reset)


def reply(body: object, *, status: int = 200) -> web.Response:
    """A JSON answer. Durations are text."""
    return web.Response(status=status, body=msgspec.json.encode(body, enc_hook=str), headers=JSON)


def document_of(settings: Simulators) -> Document:
    """The settings as a configuration file has them, complete, and without the secrets and the seed."""
    document: Document = msgspec.to_builtins(settings, enc_hook=str)
    return {name: document[name] for name in Simulators.__struct_fields__}


def edited(settings: Simulators, patch: Document) -> Simulators:
    """The settings with a JSON merge patch (RFC 7396) over them: `null` means the default. Raises Refused (400)."""
    document = document_of(settings)
    _check_nulls(document, patch)
    changed = _converted(_merge(document, patch))
    ports, others = ports_of(settings), ports_of(changed)
    for provider in PROVIDERS:
        if ports.get(provider) != others.get(provider):
            sentence = f"{provider}.port: ports are opened at the start, for the process's own world, and stay as they are"
            raise Refused(400, "invalid_request", sentence)
    return changed


def _check_nulls(document: Document, patch: Document) -> None:
    """Raises Refused where a setting would go back to its default that there is not: the RFC lets it pass, but it is a slip."""
    sections: list[tuple[str, object, object]] = [("", document, patch)]
    sections += [(f"{name}.", document.get(name), below) for name, below in patch.items()]
    for where, known, asked in sections:
        if isinstance(known, dict) and isinstance(asked, dict):
            for name, value in asked.items():
                if value is None and name not in known:
                    raise Refused(400, "invalid_request", f"{where}{name}: there is no such setting{suggestion(name, known)}")


def _merge(target: object, patch: object, depth: int = 0) -> Any:  # noqa: ANN401 - any JSON
    if not isinstance(patch, dict):
        return patch
    if depth > DEPTH_MAX:
        raise Refused(400, "invalid_request", f"the patch is nested deeper than {DEPTH_MAX}")
    merged = dict(target) if isinstance(target, dict) else {}
    # An object with a kind of its own stands for itself: a lognormal over a constant has none of the constant's fields.
    if "kind" in patch and patch["kind"] != merged.get("kind"):
        merged = {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name), value, depth + 1)
    return merged


def _add_config(routes: Routes, site: Site) -> None:
    async def show(_request: web.BaseRequest, _: str) -> web.Response:
        return reply(document_of(site.settings))

    async def change(request: web.BaseRequest, _: str) -> web.Response:
        site.change(edited(site.settings, await _object(request)))
        return reply(document_of(site.settings))

    routes.add("/admin/config", GET=show, PATCH=change)


def _add_faults(routes: Routes, site: Site) -> None:
    async def show(_request: web.BaseRequest, _: str) -> web.Response:
        return reply({"faults": _faults(document_of(site.settings))})

    async def start(request: web.BaseRequest, _: str) -> web.Response:
        fault = await _object(request)
        provider, name = _start(fault)
        document = document_of(site.settings)
        if any(known["name"] == name for known in _faults(document)):
            sentence = f"a fault called {name!r} is there already; DELETE /admin/faults/{name} first, or choose another name"
            raise Refused(409, "fault_exists", sentence)
        own = {field: value for field, value in fault.items() if field != "provider"}
        sections = [document[provider]]
        if own.get("from") is None and own.get("until") is None:  # a phase's faults have the phase's window
            sections += [phase[provider] for phase in document["phases"] if "faults" in phase[provider]]
        for section in sections:
            section["faults"] = (*section["faults"], own)
        settings = _converted(document, f"{provider}.faults[{len(sections[0]['faults']) - 1}]")
        *others, started = settings_of(settings, provider).faults
        shadow = _shadow(others, started.operation)
        if shadow is not None:
            sentence = f"it would never happen: {provider}.{shadow} takes every such call already; stop that first"
            raise Refused(409, "fault_shadowed", sentence)
        site.change(settings)
        return reply({"provider": provider, **own}, status=201)

    async def stop(_request: web.BaseRequest, name: str) -> web.Response:
        document = document_of(site.settings)
        stopped = [fault for fault in _faults(document) if fault["name"] == name]
        if not stopped:
            raise Refused(404, "not_found", f"there is no fault called {name!r}; GET /admin/faults lists them")
        for section in [document, *document["phases"]]:
            for provider in PROVIDERS:
                if "faults" in section[provider]:
                    section[provider]["faults"] = [fault for fault in section[provider]["faults"] if fault["name"] != name]
        site.change(_converted(document))
        return reply({"stopped": stopped})

    routes.add("/admin/faults", GET=show, POST=start)
    routes.add("/admin/faults/*", DELETE=stop)


def _start(fault: Document) -> tuple[str, str]:
    try:
        asked = msgspec.convert(fault, Start)
    except msgspec.ValidationError as error:
        raise _refused(error, Start) from None
    return asked.provider, asked.name


def _shadow(faults: list[Fault], operation: str) -> str | None:
    """The fault after which none of the operation's calls is left for others; faults that ask for something leave some."""
    taken = 0.0
    for index, fault in enumerate(faults):
        asks = fault.windowed or any(getattr(fault, match) is not None for match in MATCHES)
        if fault.operation == operation and not asks:
            taken += fault.probability
            if taken >= 1:
                return f"{operation}.{fault.name or index}"
    return None


def _faults(document: Document) -> list[Document]:
    """All faults there are, those of phases as well, each with what is said of it alone."""
    found = []
    for section in [document, *document["phases"]]:
        where = {"phase": section["name"]} if section is not document else {}
        for provider in PROVIDERS:
            for fault in section[provider].get("faults", ()):
                told = {field: value for field, value in fault.items() if value is not None and field != "name"}
                found.append({"provider": provider, "name": fault.get("name"), **where, **told})
    return found


def _add_clock(routes: Routes, site: Site) -> None:
    async def show(_request: web.BaseRequest, _: str) -> web.Response:
        return reply(_time(site))

    async def advance(request: web.BaseRequest, _: str) -> web.Response:
        by_ms = round((await _body(request, Advance)).by.ms)
        if by_ms > ADVANCE_MS_MAX:
            raise Refused(400, "invalid_request", f"by: the clock moves {ADVANCE_MS_MAX} ms at a time at the most")
        try:
            site.world.clock.advance(by_ms)
        except ValueError as error:
            raise Refused(400, "invalid_request", f"by: {error}") from None
        return reply(_time(site))

    routes.add("/admin/clock", GET=show)
    routes.add("/admin/clock/advance", POST=advance)


def _time(site: Site) -> WorldTime:
    clock, now_ms = site.world.clock, site.world.now_ms()
    return WorldTime(now_ms, clock.offset_ms, clock.waiting, site.callbacks.outstanding, site.world.elapsed_ms(now_ms))


def _add_snapshots(routes: Routes, site: Site, snapshots: dict[str, Snapshot]) -> None:
    def named(name: str) -> Snapshot:
        if name not in snapshots:
            raise Refused(404, "not_found", f"there is no snapshot {name!r}; GET /admin/snapshots lists them")
        return snapshots[name]

    async def show(_request: web.BaseRequest, _: str) -> web.Response:
        return reply(Snapshots([_kept(name, one) for name, one in snapshots.items()], SNAPSHOTS_MAX))

    async def save(request: web.BaseRequest, _: str) -> web.Response:
        name = (await _body(request, NewSnapshot)).name
        if name not in snapshots and len(snapshots) >= SNAPSHOTS_MAX:
            sentence = f"there are {SNAPSHOTS_MAX} snapshots already; DELETE /admin/snapshots/NAME one of them"
            raise Refused(429, "too_many_snapshots", sentence)
        snapshots[name] = snapshot.take(site)
        return reply(_kept(name, snapshots[name]), status=201)

    async def restore(_request: web.BaseRequest, name: str) -> web.Response:
        kept, under_way = named(name), site.callbacks.outstanding
        snapshot.restore(site, kept)
        return reply(Restored(name, under_way, _time(site)))

    async def delete(_request: web.BaseRequest, name: str) -> web.Response:
        named(name)
        del snapshots[name]
        return reply({"deleted": name})

    routes.add("/admin/snapshots", GET=show, POST=save)
    routes.add("/admin/snapshots/*", DELETE=delete)
    routes.add("/admin/snapshots/*/restore", POST=restore)


def _kept(name: str, one: Snapshot) -> Kept:
    return Kept(name, one.at, one.seed, one.mark.entries, len(one.memory), one.callbacks_under_way)


def _converted(document: Document, at: str = "") -> Simulators:
    with _refusing(at):
        return convert(document, Simulators, file="")


@contextmanager
def _refusing(at: str = "") -> Generator[None]:
    """Makes a ConfigError a refusal. What is wrong at the key `at` is told as if that were the whole body."""
    try:
        yield
    except ConfigError as error:
        field = error.key.removeprefix(at).lstrip(".")
        raise Refused(400, "invalid_request", f"{field}: {error.reason}" if field else error.reason) from None


async def _body(request: web.BaseRequest, kind: type) -> Any:  # noqa: ANN401 - a `kind`
    """The body as a `kind`; none at all is an empty object."""
    body = await read(request) or b"{}"
    try:
        return msgspec.json.decode(body, type=kind, dec_hook=dec_hook)
    except msgspec.ValidationError as error:
        raise _refused(error, kind) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, "invalid_request", f"the body is not valid JSON: {error}") from None


async def _object(request: web.BaseRequest) -> Document:
    document: Document = await _body(request, dict[str, Any])
    return document


def _refused(error: msgspec.ValidationError, kind: type) -> Refused:
    field, reason = locate(error, kind)
    return Refused(400, "invalid_request", f"{field}: {reason}" if field else reason)
