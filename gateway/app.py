"""Composition root: the only place where things are wired together, started in order and stopped in the opposite order."""

import asyncio
import logging
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from aiohttp import web

from gateway.api import middleware, wire
from gateway.api.admission import Admission
from gateway.api.breaks import BreakHandlers
from gateway.api.callbacks import CallbackHandlers
from gateway.api.captures import CaptureHandlers
from gateway.api.cors import Cors
from gateway.api.details import DetailHandlers
from gateway.api.disputes import DisputeHandlers
from gateway.api.docs import DocsHandlers
from gateway.api.endpoints import EndpointHandlers
from gateway.api.health import HealthHandlers
from gateway.api.keys import Keys
from gateway.api.payments import PaymentHandlers
from gateway.api.reconciliation import ReconciliationHandlers
from gateway.api.redirects import BANK_RETURN_PATH, CHALLENGE_RETURN_PATH, RedirectHandlers
from gateway.api.refunds import RefundHandlers
from gateway.api.reports import ReportHandlers
from gateway.api.routing import PRIORITIES, ROUTES, Priorities, add_routes
from gateway.api.settlements import SettlementHandlers
from gateway.api.transactions import TransactionHandlers
from gateway.api.webhooks import WebhookHandlers
from gateway.config import Config, ProviderConfig
from gateway.core import signature
from gateway.core.limits import Calls
from gateway.core.payment import Method
from gateway.courier import HttpCourier
from gateway.flows.channels import Channel
from gateway.flows.disbursements import Disbursements
from gateway.flows.disputes import Disputes
from gateway.flows.endpoints import Endpoints
from gateway.flows.idempotency import Turns
from gateway.flows.operations import Operations
from gateway.flows.outbox import Outbox
from gateway.flows.payments import Payments
from gateway.flows.publishing import Published, Publisher, Subscriber
from gateway.flows.reconciliation import Reconciliation, Source
from gateway.flows.replays import Replays
from gateway.flows.settlements import Settlements
from gateway.flows.webhooks import Sender
from gateway.observe import Metrics
from gateway.outbound import Guard
from gateway.ports import Clock, Ids
from gateway.providers.card import CardDialect
from gateway.providers.client import Dialect, HttpProvider
from gateway.providers.netbanking import NetbankingDialect
from gateway.providers.payouts import HttpPayouts
from gateway.providers.settlement_source import HttpSettlementFiles
from gateway.providers.upi import UpiDialect
from gateway.runtime import RandomIds, SystemClock, uniform
from gateway.storage.sqlite import SqliteStore
from gateway.vault import Vault
from gateway.workers import Purger, Recoverer, Settler

log = structlog.get_logger("gateway")

DIALECTS: dict[Method, Dialect] = {"card": CardDialect(), "upi": UpiDialect(), "netbanking": NetbankingDialect()}

CALLBACK_PATH, REFUND_CALLBACK_PATH = "/api/webhooks/payment", "/api/webhooks/refund"


class _Flows(NamedTuple):
    payments: Payments
    operations: Operations
    disputes: Disputes
    disbursements: Disbursements
    settlements: Settlements
    reconciliation: Reconciliation
    endpoints: Endpoints
    replays: Replays


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
        self._metrics = Metrics()
        self._providers = self._open_providers()
        self._payouts = HttpPayouts(config.providers.netbanking, callback_url=config.public_url.rstrip("/") + CALLBACK_PATH)
        self._guard = Guard(config.webhooks.allowed_networks)
        self._courier = HttpCourier(timeout_ms=config.webhooks.timeout_ms, guard=self._guard)
        self._outbox = Outbox(
            store=self._store,
            sender=Sender(courier=self._courier, clock=clock, config=config.webhooks, draw=uniform),
            clock=clock,
            concurrency_max=config.webhooks.concurrency_max,
        )
        flows = self._flows(clock, ids)
        self._reconciliation = flows.reconciliation
        self._workers = self._open_workers(flows, clock)
        await flows.endpoints.start(config.webhook_endpoints)
        if removed := await self._store.bury_deliveries():
            log.warning("webhook.endpoint_removed", deliveries=removed)
        for worker in self._workers:
            worker.start()
        keys = Keys({merchant.key: merchant.id for merchant in config.merchants}, config.operator_key)
        app = self._application(keys, ids)
        self._add_routes(app, flows, keys, clock)
        return app

    def _flows(self, clock: Clock, ids: Ids) -> _Flows:
        config, store, vault, channels = self._config, self._store, self._vault, self._channels()
        endpoints = Endpoints(store=store, outbox=self._outbox, fault_of=self._guard.check, vault=vault, clock=clock, ids=ids)
        subscribers: list[Subscriber] = [self._measure, self._outbox.offer]
        if log.is_enabled_for(logging.DEBUG):
            subscribers.append(log_events)
        publisher = Publisher(store=store, clock=clock, endpoints_of=endpoints.endpoints_of, subscribers=subscribers)
        shared: dict[str, Any] = {"store": store, "clock": clock, "publisher": publisher}
        of_payments: dict[str, Any] = {"channels": channels, "ids": ids, "turns": Turns()} | shared
        disbursements = Disbursements(
            bank=self._payouts,
            merchants=config.merchants,
            recovery=config.recovery,
            timeout_ms=config.providers.netbanking.timeout_ms,
            **shared,
        )
        return _Flows(
            payments=Payments(vault=vault, recovery=config.recovery, **of_payments),
            operations=Operations(recovery=config.recovery, **of_payments),
            disputes=Disputes(**of_payments),
            disbursements=disbursements,
            settlements=Settlements(
                disbursements=disbursements,
                merchants=config.merchants,
                ids=ids,
                early=config.settlement.early,
                **shared,
            ),
            reconciliation=self._open_reconciliation(clock, ids),
            endpoints=endpoints,
            replays=Replays(store=store, endpoints=endpoints, outbox=self._outbox, clock=clock),
        )

    def _open_workers(self, flows: _Flows, clock: Clock) -> list[Recoverer | Purger | Settler]:
        config, store = self._config, self._store
        recoverers = [
            Recoverer(
                method,
                store=store,
                payments=flows.payments,
                operations=flows.operations,
                disputes=flows.disputes,
                clock=clock,
                config=config.recovery,
            )
            for method in DIALECTS
        ]
        settler = Settler(
            store=store,
            settlements=flows.settlements,
            disbursements=flows.disbursements,
            merchants=[merchant.id for merchant in config.merchants],
            clock=clock,
            config=config.settlement,
        )
        return [*recoverers, Purger(store=store, clock=clock), settler]

    def _add_routes(self, app: web.Application, flows: _Flows, keys: Keys, clock: Clock) -> None:
        payments, operations, store = flows.payments, flows.operations, self._store
        keyed: dict[str, Any] = {"keys": keys, "vault": self._vault}
        callbacks = CallbackHandlers(
            payments=payments,
            operations=operations,
            disputes=flows.disputes,
            disbursements=flows.disbursements,
            keys=self._callback_keys(),
            clock=clock,
        )
        for handlers in (
            PaymentHandlers(payments=payments, clock=clock, **keyed),
            CaptureHandlers(payments=payments, operations=operations, **keyed),
            RefundHandlers(operations=operations, **keyed),
            DisputeHandlers(disputes=flows.disputes, store=store, **keyed),
            DetailHandlers(payments=payments, store=store, keys=keys),
            TransactionHandlers(payments=payments, store=store, keys=keys),
            ReportHandlers(store=store, keys=keys, clock=clock),
            callbacks,
            RedirectHandlers(payments=payments),
            EndpointHandlers(endpoints=flows.endpoints, replays=flows.replays, **keyed),
            WebhookHandlers(replays=flows.replays, **keyed),
            ReconciliationHandlers(reconciliation=flows.reconciliation, **keyed),
            BreakHandlers(reconciliation=flows.reconciliation, **keyed),
            SettlementHandlers(settlements=flows.settlements, **keyed),
            HealthHandlers(store=store, metrics=self._metrics, clock=clock),
        ):
            add_routes(app, handlers.routes())
        add_routes(app, DocsHandlers(app[ROUTES]).routes())  # the last: it tells of all others

    def _application(self, keys: Keys, ids: Ids) -> web.Application:
        config, priorities = self._config, Priorities()
        admission = Admission(
            config.limits,
            keys=keys,
            priorities=priorities,
            per_min={merchant.id: merchant.requests_per_min for merchant in config.merchants if merchant.requests_per_min},
            metrics=self._metrics,
        )
        cors = Cors(config.cors_allowed_origins) if config.cors_allowed_origins else None
        around = middleware.boundary(ids=ids, metrics=self._metrics, admission=admission, cors=cors)
        app = web.Application(middlewares=[around], client_max_size=wire.BODY_BYTES_MAX)
        app[PRIORITIES] = priorities
        return app

    async def stop(self) -> None:
        """After the last request has been answered: what is being delivered ends and is marked, then the database closes."""
        await asyncio.gather(*(worker.stop() for worker in self._workers), self._outbox.stop())
        await self._reconciliation.close()
        for files in self._settlement_files.values():
            await files.close()
        for provider in self._providers.values():
            await provider.close()
        await self._payouts.close()
        await self._courier.close()
        self._guard.close()
        await self._store.close()

    def _measure(self, published: Published) -> None:
        self._metrics.stepped(published.events, published.method)

    def _open_providers(self) -> dict[Method, HttpProvider]:
        here = self._config.public_url.rstrip("/")
        return {
            method: HttpProvider(
                getattr(self._config.providers, method),
                dialect,
                callback_url=here + CALLBACK_PATH,
                refund_callback_url=here + REFUND_CALLBACK_PATH,
                return_url=here + (CHALLENGE_RETURN_PATH if method == "card" else BANK_RETURN_PATH),
            )
            for method, dialect in DIALECTS.items()
        }

    def _open_reconciliation(self, clock: Clock, ids: Ids) -> Reconciliation:
        sources = {}
        self._settlement_files: dict[Method, HttpSettlementFiles] = {}
        for method in DIALECTS:
            provider: ProviderConfig = getattr(self._config.providers, method)
            if provider.settlement_url is not None:
                self._settlement_files[method] = HttpSettlementFiles(provider.settlement_url)
            files = self._settlement_files.get(method)
            sources[method] = Source(files, provider.settlement_currencies, provider.settlement_fee_basis_points)
        merchants = frozenset(merchant.id for merchant in self._config.merchants)
        return Reconciliation(store=self._store, sources=sources, merchants=merchants, clock=clock, ids=ids)

    def _channels(self) -> dict[Method, Channel]:
        channels = {}
        for method, provider in self._providers.items():
            config = getattr(self._config.providers, method)
            channels[method] = Channel(provider, config.timeout_ms, config.fee_basis_points, Calls(config.connections_max))
        return channels

    def _callback_keys(self) -> dict[Method, bytes]:
        secrets = {method: getattr(self._config.providers, method).callback_secret for method in DIALECTS}
        return {method: signature.secret_key(secret) for method, secret in secrets.items() if secret is not None}


def log_events(published: Published) -> None:
    """One line an event, for who wants them all."""
    for event in published.events:
        log.debug(event.type, subject_id=event.subject_id, event_id=event.id)
