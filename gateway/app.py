"""Composition root: the only place where things are wired together, started in order and stopped in the opposite order."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import structlog
from aiohttp import web

from gateway.api import middleware, wire
from gateway.api.callbacks import CallbackHandlers
from gateway.api.health import HealthHandlers
from gateway.api.payments import PaymentHandlers
from gateway.api.transactions import TransactionHandlers
from gateway.config import Config
from gateway.core import signature
from gateway.core.payment import Event, Method, Payment
from gateway.courier import HttpCourier
from gateway.flows.payments import Channel, Payments
from gateway.flows.webhooks import Sender, Target
from gateway.observe import Metrics
from gateway.ports import Delivery
from gateway.providers.card import CardDialect
from gateway.providers.client import Dialect, HttpProvider
from gateway.providers.netbanking import NetbankingDialect
from gateway.providers.upi import UpiDialect
from gateway.runtime import RandomIds, SystemClock, uniform
from gateway.storage.sqlite import SqliteStore
from gateway.vault import Vault
from gateway.workers import Lane, Outbox, Purger, Recoverer

log = structlog.get_logger("gateway")

DIALECTS: dict[Method, Dialect] = {"card": CardDialect(), "upi": UpiDialect(), "netbanking": NetbankingDialect()}

CALLBACK_PATH = "/api/webhooks/payment"


class Gateway:
    """A running gateway. `start` it on the event loop that will serve it, `stop` it there."""

    def __init__(self, config: Config, *, vault: Vault, db: Path) -> None:
        self._config = config
        self._vault = vault
        self._db = db

    async def start(self) -> web.Application:
        """Opens the database and starts the workers. Raises GatewayError if it cannot. Returns what is to be served."""
        config, clock, ids = self._config, SystemClock(), RandomIds()
        self._store = SqliteStore.open(self._db, vault_key_id=self._vault.key_id)
        interrupted = await self._store.wake_intents(clock.now_ms())
        if interrupted:
            log.warning("recovery.interrupted", attempts=interrupted)
        removed = await self._store.bury_deliveries([endpoint.id for endpoint in config.webhook_endpoints])
        if removed:
            log.warning("webhook.endpoint_removed", deliveries=removed)
        self._metrics = Metrics()
        self._providers = self._open_providers()
        self._courier = HttpCourier(timeout_ms=config.webhooks.timeout_ms)
        sender = Sender(courier=self._courier, clock=clock, config=config.webhooks, draw=uniform)
        targets = [Target.of(endpoint) for endpoint in config.webhook_endpoints]
        self._outbox = Outbox(
            {
                target.endpoint_id: Lane(
                    target,
                    store=self._store,
                    sender=sender,
                    clock=clock,
                    concurrency_max=config.webhooks.concurrency_max,
                )
                for target in targets
            }
        )
        payments = Payments(
            store=self._store,
            channels=self._channels(),
            vault=self._vault,
            clock=clock,
            ids=ids,
            recovery=config.recovery,
            endpoints_of=_endpoints_of(config),
            announce=self._announce,
        )
        self._workers: list[Recoverer | Purger] = [
            Recoverer(method, store=self._store, payments=payments, clock=clock, config=config.recovery) for method in DIALECTS
        ]
        self._workers.append(Purger(store=self._store, clock=clock))
        self._outbox.start()
        for worker in self._workers:
            worker.start()
        keys = middleware.Keys({merchant.key: merchant.id for merchant in config.merchants})
        app = web.Application(
            middlewares=[middleware.boundary(ids=ids, metrics=self._metrics)], client_max_size=wire.BODY_BYTES_MAX
        )
        app.add_routes(PaymentHandlers(payments=payments, keys=keys, vault=self._vault, clock=clock).routes())
        app.add_routes(TransactionHandlers(payments=payments, keys=keys).routes())
        app.add_routes(CallbackHandlers(payments=payments, keys=self._callback_keys(), clock=clock).routes())
        app.add_routes(HealthHandlers(store=self._store, metrics=self._metrics, clock=clock).routes())
        return app

    async def stop(self) -> None:
        """After the last request has been answered: what is being delivered ends and is marked, then the database closes."""
        await asyncio.gather(*(worker.stop() for worker in self._workers), self._outbox.stop())
        for provider in self._providers.values():
            await provider.close()
        await self._courier.close()
        await self._store.close()

    def _announce(self, payment: Payment, events: Sequence[Event], deliveries: Sequence[Delivery]) -> None:
        self._metrics.stepped(payment, events)
        self._outbox.offer(events, deliveries)

    def _open_providers(self) -> dict[Method, HttpProvider]:
        callback_url = self._config.public_url.rstrip("/") + CALLBACK_PATH
        return {
            method: HttpProvider(getattr(self._config.providers, method), dialect, callback_url=callback_url)
            for method, dialect in DIALECTS.items()
        }

    def _channels(self) -> dict[Method, Channel]:
        channels = {}
        for method, provider in self._providers.items():
            config = getattr(self._config.providers, method)
            channels[method] = Channel(provider, config.timeout_ms, config.fee_basis_points)
        return channels

    def _callback_keys(self) -> dict[Method, bytes]:
        secrets = {method: getattr(self._config.providers, method).callback_secret for method in DIALECTS}
        return {method: signature.secret_key(secret) for method, secret in secrets.items() if secret is not None}


def _endpoints_of(config: Config) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for endpoint in config.webhook_endpoints:
        found.setdefault(endpoint.merchant_id, []).append(endpoint.id)
    return found
