"""Ports of their own for single providers, and the fault `connection_refused`, which closes them.

Whether a provider refuses connections follows from its faults and the timeline, and is looked at when either has changed and when
the next window begins or ends. A port that is closed stays bound, so that nobody else gets its number. Of the connections that were
accepted there, idle ones end at once and others with the answer that is under way: what was accepted is answered. Meanwhile the
provider's calls are reset on all other ports: who is down for one caller is not up for another.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiohttp import web

from simulators.clock import SLEEP_S_MAX
from simulators.config import PROVIDERS, ConfigError, Simulators, ports_of
from simulators.control import reply
from simulators.faults import active
from simulators.server import BACKLOG, SHUTDOWN_S, Server
from simulators.site import Site, settings_of

RETRY_S = 1.0  # until the next try to open a port that another program has taken meanwhile

_log = logging.getLogger(__name__)

Find = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving_ports(site: Site, find: Find, beside: socket.socket) -> AsyncIterator["Ports"]:
    """Serves what `find` gives on the providers' own ports, which are on the host of `beside`. Raises ConfigError where one cannot
    be had."""
    ports = Ports(site)
    try:
        for provider, port in ports_of(site.base).items():
            ports.doors[provider] = Door(find, _bound(provider, port, beside))
        ports.begin()
        yield ports
    finally:
        await ports.close()


class Ports:
    """The providers' own ports, by provider."""

    def __init__(self, site: Site) -> None:
        self.doors: dict[str, Door] = {}
        self._site = site
        self._alarm: asyncio.TimerHandle | None = None
        self._failing: set[str] = set()  # those that should be open, and cannot: it is told once of each

    def begin(self) -> None:
        """Opens them, and keeps them as the faults say from now on."""

        async def show(_request: web.BaseRequest, _: str) -> web.Response:
            return reply({"ports": {name: {"url": door.url, "refusing": door.refusing} for name, door in self.doors.items()}})

        self._site.routes.add("/admin/ports", GET=show)
        if self.doors:
            self._site.world.clock.on_change = self._look
            self._look()

    def refusing(self) -> dict[str, bool]:
        """Which of them refuse connections now."""
        return {provider: door.refusing for provider, door in self.doors.items()}

    async def close(self) -> None:
        """Ends them all."""
        self._site.world.clock.on_change = lambda: None
        self._set_alarm(None)
        await asyncio.gather(*(door.close() for door in self.doors.values()))

    def _look(self) -> None:
        """Opens and closes what has to be open and closed now."""
        world, site = self._site.world, self._site
        elapsed_ms, refusing, wait_s = world.elapsed_ms(world.now_ms()), [], SLEEP_S_MAX
        for provider, door in self.doors.items():
            faults = site.conducts[provider].at(elapsed_ms).faults.of("connect")
            if any(active(fault, elapsed_ms) for fault, _ in faults):
                refusing.append(f"/{provider}/")
                door.shut()
                continue
            try:
                door.open()
                self._failing.discard(provider)
            except OSError as error:
                wait_s = RETRY_S
                if provider not in self._failing:
                    _log.error("%s.port: cannot listen on %s again: %s; trying every %g s", provider, door.url, error, RETRY_S)
                self._failing.add(provider)
        site.routes.refuse(tuple(refusing))
        if elapsed_ms is not None:
            waits_ms = [bound_ms - elapsed_ms for bound_ms in _bounds_ms(site.settings) if bound_ms > elapsed_ms]
            wait_s = min([wait_s, *(max(wait_ms, 1) / 1000 for wait_ms in waits_ms)])  # 1 ms: as the clock does
        self._set_alarm(wait_s)

    def _set_alarm(self, wait_s: float | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None if wait_s is None else asyncio.get_running_loop().call_later(wait_s, self._look)


class Door:
    """A provider's own listening socket, which can be shut and opened again. It is given one that is bound, and begins shut."""

    def __init__(self, find: Find, bound: socket.socket) -> None:
        self._address, self._family = bound.getsockname(), bound.family
        self.url = url_of(bound)
        self._find = find
        self._server = Server(self._answer)
        self._socket: socket.socket | None = bound
        self._opening: asyncio.Task[None] | None = None  # `None`: it is shut
        self._listening: asyncio.Server | None = None
        self._busy: set[web.RequestHandler] = set()

    @property
    def refusing(self) -> bool:
        """Whether connections are refused now."""
        return self._opening is None

    def open(self) -> None:
        """From now on who connects is served. Raises OSError where another program has the port."""
        if self.refusing:
            self._socket = self._socket or _bound_to(self._address, self._family)
            self._socket.listen(BACKLOG)
            self._opening = asyncio.get_running_loop().create_task(self._listen(self._socket))

    def shut(self) -> None:
        """From now on connections are refused."""
        if self._opening is None:
            return
        self._opening.cancel()
        self._opening = None
        self._close_socket()
        with suppress(OSError):  # `open` tries again, and tells
            self._socket = _bound_to(self._address, self._family)
        for connection in self._server.connections:
            if connection not in self._busy:
                connection.force_close()

    async def close(self) -> None:
        """Ends it, and what is still under way there."""
        if self._opening is not None:
            self._opening.cancel()
        self._close_socket()
        await self._server.shutdown(SHUTDOWN_S)

    async def _listen(self, listener: socket.socket) -> None:
        # In two steps, so that there is no time at which it listens and `shut` does not know it.
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(self._server, sock=listener, backlog=BACKLOG, start_serving=False)
        await self._listening.start_serving()

    def _close_socket(self) -> None:
        if self._listening is not None:
            self._listening.close()
        if self._socket is not None:
            self._socket.close()
        self._listening = self._socket = None

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        self._busy.add(connection)
        try:
            return await self._find(request)
        finally:
            self._busy.discard(connection)
            if self.refusing:
                connection.close()  # once the answer is out


def url_of(listener: socket.socket) -> str:
    """The URL of what listens on a socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _bound_to(address: Any, family: int) -> socket.socket:  # noqa: ANN401 - what the family has for an address
    """A socket that is bound and does not listen yet. Raises OSError."""
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of before must not keep it from us
        bound.bind(address)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


def _bound(provider: str, port: int, beside: socket.socket) -> socket.socket:
    host = beside.getsockname()[0]
    try:
        return _bound_to((host, port), beside.family)
    except OSError as error:
        reason = f"cannot listen on {host} port {port}: {error.strerror}; another port may be free, and 0 takes any"
        raise ConfigError("configuration", f"{provider}.port", reason) from None


def _bounds_ms(settings: Simulators) -> Iterator[float]:
    """All times of the timeline at which a provider may begin or cease to refuse connections."""
    yield 0  # where a window without `from` begins
    for phase in settings.phases:
        yield from (phase.start.ms, phase.end.ms)
    for provider in PROVIDERS:
        for fault in settings_of(settings, provider).faults:
            if fault.operation == "connect":
                yield from (bound.ms for bound in (fault.start, fault.end) if bound is not None)
