"""Wires the simulators together and serves them over HTTP.

The handlers here only decode, perform what was decided (wait, fall silent, answer) and encode. There is no middleware
and no access log: a simulator must cost little beside what is measured with it.
"""

import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web

from simulators import admin
from simulators.answering import perform
from simulators.behaviour import Mix
from simulators.callbacks import Callbacks
from simulators.config import Bank, Card, Config, Upi, secret_key
from simulators.faults import Faults
from simulators.latency import LatencyTable
from simulators.merchant import Receiver
from simulators.pages import BankPages
from simulators.provider import Provider, World
from simulators.providers import Amount, Conduct, Currency, Dialect, card, netbanking, upi
from simulators.routes import Routes
from simulators.server import Server
from simulators.wire import check_ascii, check_reference, decode

HOLD_S = 60.0  # how long a lost answer keeps a caller waiting who never gives up
BACKLOG = 2048  # a burst of new connections waits in the kernel instead of being refused
SHUTDOWN_S = 0.5  # what is still held then is a lost answer, which nobody will get anyway

# To add a provider: its dialect, and its settings in `config.Simulators`.
DIALECTS: tuple[Dialect[Any], ...] = (card.DIALECT, upi.DIALECT, netbanking.DIALECT)


class Reversal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a reverse call."""

    amount: Amount
    currency: Currency


def system_clock_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def serving(
    config: Config, listener: socket.socket, *, now_ms: Callable[[], int] = system_clock_ms, hold_s: float = HOLD_S
) -> AsyncIterator[None]:
    """Serves the whole outside world on a bound socket while the context is open. `hold_s`: see `HOLD_S`."""
    world = World(seed=config.seed, now_ms=now_ms)
    keys = {"upi": secret_key(config.secrets.upi), "bank": secret_key(config.secrets.bank)}
    async with Callbacks(keys=keys, journal=world.journal, now_ms=now_ms) as callbacks:
        runner = web.ServerRunner(Server(_routes(config, world, callbacks, hold_s)), shutdown_timeout=SHUTDOWN_S)
        await runner.setup()
        try:
            await web.SockSite(runner, listener, backlog=BACKLOG).start()
            yield
        finally:
            await runner.cleanup()


def _routes(config: Config, world: World, callbacks: Callbacks, hold_s: float) -> Routes:
    routes = Routes()
    for dialect in DIALECTS:
        provider = _provider(dialect, config, world, callbacks)
        _add_provider(routes, provider, hold_s)
        if dialect is netbanking.DIALECT:
            pages = BankPages(provider)
            routes.add("/bank/pages/*", GET=pages.show, POST=pages.click)
    receiver = Receiver(world, key=secret_key(config.secrets.merchant), latency=LatencyTable(config.merchant.latency))
    routes.add("/merchant/webhooks/*", POST=receiver.receive)
    admin.add(routes, world)
    return routes


def _provider(dialect: Dialect[Any], config: Config, world: World, callbacks: Callbacks) -> Provider[Any]:
    settings: Card | Upi | Bank = getattr(config, dialect.name)
    conduct = Conduct(Mix(settings.outcomes))
    if not isinstance(settings, Card):
        conduct = conduct._replace(customer_delay=LatencyTable(settings.customer.delay), customer_acts=settings.customer.acts)
    return Provider(
        dialect,
        world=world,
        conduct=conduct,
        latency=LatencyTable(settings.latency),
        faults=Faults(settings.faults),
        announce=callbacks.send,
    )


def _add_provider(routes: Routes, provider: Provider[Any], hold_s: float) -> None:
    create_decoder = msgspec.json.Decoder(provider.dialect.create)
    reversal_decoder = msgspec.json.Decoder(Reversal)

    async def create(request: web.BaseRequest, _: str) -> web.Response:
        check_ascii("the Host", request.host)  # it becomes part of the redirectURL
        body = await decode(request, create_decoder)
        return await perform(request, provider.create(body, request.host), hold_s)

    async def status(request: web.BaseRequest, reference: str) -> web.Response:
        return await perform(request, provider.status(check_reference(reference)), hold_s)

    async def reverse(request: web.BaseRequest, reference: str) -> web.Response:
        check_reference(reference)
        body = await decode(request, reversal_decoder)
        return await perform(request, provider.reverse(reference, body.amount, body.currency), hold_s)

    path = f"/{provider.name}/{provider.dialect.collection}"
    routes.add(path, POST=create)
    routes.add(f"{path}/*", GET=status)
    routes.add(f"{path}/*/reverse", POST=reverse)
