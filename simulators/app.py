"""Wires the simulators together and serves them over HTTP.

The handlers here only decode, perform what was decided (wait, fall silent, answer) and encode. There is no middleware
and no access log: a simulator must cost little beside what is measured with it.
"""

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

from aiohttp import web

from simulators import (
    acs,
    admin,
    autopay,
    bank_payouts,
    control,
    digest,
    endpoints,
    explain,
    live,
    metrics,
    openapi,
    pages,
    statements,
)
from simulators.autopay import Mandates
from simulators.bank_payouts import Payouts
from simulators.callbacks import WORKERS as CALLBACK_WORKERS
from simulators.callbacks import Callbacks
from simulators.clock import Clock
from simulators.config import Config, Secrets, secret_key
from simulators.iso8583.server import serving_iso8583
from simulators.latency import LatencyTable
from simulators.merchant import Receiver
from simulators.phases import Conducts
from simulators.ports import serving_ports, url_of
from simulators.provider import Provider, World
from simulators.providers import Dialect, card, netbanking, upi
from simulators.routes import Routes
from simulators.server import BACKLOG, SHUTDOWN_S, Server
from simulators.site import Site, settings_of, terms
from simulators.tenants import Tenants

HOLD_S = 60.0  # how long a lost answer keeps a caller waiting who never gives up
TENANT_CALLBACK_WORKERS = 16  # a tenant is one CI job

# To add a provider: its dialect, and its settings in `config.Simulators`.
DIALECTS: tuple[Dialect[Any], ...] = (card.DIALECT, upi.DIALECT, netbanking.DIALECT)


class Outside(NamedTuple):
    """The outside world while it is served. `fates` begins a survey of its charges' fates, afterwards, too; see digest.py."""

    fates: digest.Survey
    url: str
    ports: dict[str, str]  # the URLs of providers that have a port of their own


@asynccontextmanager
async def serving(
    config: Config,
    listener: socket.socket,
    *,
    iso8583: socket.socket | None = None,
    clock: Clock | None = None,
    hold_s: float = HOLD_S,
) -> AsyncIterator[Outside]:
    """Serves the whole outside world on a bound socket while the context is open, and its card acquirer on another one that
    speaks ISO 8583. `hold_s`: see `HOLD_S`. Providers with a port of their own have it on the same host; raises ConfigError where
    it cannot be had."""
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(_site(config, clock or Clock(), hold_s, workers=CALLBACK_WORKERS))
        tenants = Tenants(site, lambda own: _site(own, Clock(), hold_s, workers=TENANT_CALLBACK_WORKERS))
        stack.push_async_callback(tenants.close)
        ports = await stack.enter_async_context(serving_ports(site, tenants, listener))
        metrics.add(site.routes, site, tenants=tenants.__len__, refusing=ports.refusing)
        runner = web.ServerRunner(Server(tenants), shutdown_timeout=SHUTDOWN_S)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.SockSite(runner, listener, backlog=BACKLOG).start()
        if iso8583:
            await stack.enter_async_context(serving_iso8583(site.providers["card"], iso8583))
        urls = {provider: door.url for provider, door in ports.doors.items()}
        yield Outside(partial(digest.survey, site.providers.values()), url_of(listener), urls)


@asynccontextmanager
async def _site(config: Config, clock: Clock, hold_s: float, *, workers: int) -> AsyncIterator[Site]:
    """One world, as long as the context is open."""
    world = World(seed=config.seed, clock=clock)
    conducts = {
        name: Conducts(name, settings_of(config, name), config.phases) for name in (dialect.name for dialect in DIALECTS)
    }
    async with Callbacks(keys=_keys(config.secrets), world=world, conducts=conducts, workers=workers) as callbacks:
        providers = {
            dialect.name: Provider(
                dialect,
                world=world,
                conducts=conducts[dialect.name],
                terms=terms(settings_of(config, dialect.name)),
                announce=callbacks.send,
            )
            for dialect in DIALECTS
        }
        receiver = Receiver(world, key=secret_key(config.secrets.merchant), latency=LatencyTable(config.merchant.latency))
        routes = _routes(world, providers, callbacks, receiver, hold_s)
        site = Site(
            config,
            world=world,
            conducts=conducts,
            providers=providers,
            callbacks=callbacks,
            receiver=receiver,
            routes=routes,
        )
        control.add(routes, site)
        explain.add(routes, site)
        metrics.add(routes, site)
        live.add(routes, site)
        try:
            yield site
        finally:
            world.clock.close()


def _routes(
    world: World,
    providers: dict[str, Provider[Any]],
    callbacks: Callbacks,
    receiver: Receiver,
    hold_s: float,
) -> Routes:
    routes = Routes()
    for provider in providers.values():
        endpoints.add(routes, provider, hold_s=hold_s)
    endpoints.add_card(routes, providers["card"], hold_s=hold_s)
    acs.add_routes(routes, providers["card"], callbacks.send, hold_s=hold_s)
    switch = providers["upi"]
    autopay.add_routes(routes, Mandates(switch, switch.intake, callbacks.send), hold_s)
    bank_payouts.add_routes(routes, Payouts(providers["bank"].intake, callbacks.send), hold_s)
    statements.add_routes(routes, world)
    pages.add_qr_route(routes, switch)
    pages.add_routes(routes, providers["bank"], world.draws)
    routes.add("/merchant/webhooks/*", POST=receiver.receive)
    admin.add(routes, world, partial(digest.survey, providers.values()))
    openapi.add(routes)
    return routes


def _keys(secrets: Secrets) -> dict[str, bytes]:
    """What each provider signs its callbacks with."""
    return {"card": secret_key(secrets.card or secrets.bank), "upi": secret_key(secrets.upi), "bank": secret_key(secrets.bank)}
