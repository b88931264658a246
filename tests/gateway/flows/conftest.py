"""A gateway's flows over the real store, with providers that do as they are told."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.api.payments import CustomerInfo, render
from gateway.config import Recovery
from gateway.core.limits import Calls
from gateway.core.payment import Attempt, Method, Payment
from gateway.flows.channels import Channel
from gateway.flows.disputes import Disputes
from gateway.flows.idempotency import IdempotencyKey, Turns
from gateway.flows.operations import Operations
from gateway.flows.payments import Order, Payments
from gateway.flows.publishing import Published, Publisher
from gateway.ports import Instrument, Response
from gateway.storage import export
from gateway.storage.sqlite import SqliteStore
from gateway.vault import Vault
from tests.gateway.doubles import INSTRUMENTS, STEP_PAIRS, CountingIds, ManualClock, ScriptedProvider

METHODS: tuple[Method, ...] = ("card", "upi", "netbanking")
pytest.register_assert_rewrite("tests.gateway.flows.audited")

ENDPOINTS = {"merchant_123": ["ep_1", "ep_2"]}


class Shop:
    """One merchant's view, and an auditor's."""

    def __init__(self, store: SqliteStore, clock: ManualClock, path: Path) -> None:
        self.store, self.clock, self.path = store, clock, path
        self.providers = {method: ScriptedProvider() for method in METHODS}
        self.recovery = Recovery()
        self.announced: list[tuple[str, list[str], list[str]]] = []
        self.stepped = asyncio.Event()
        self._ids = CountingIds()
        self.payments = self.restart()

    def restart(self) -> Payments:
        """A new process over the same database: nothing in memory survives."""
        self.channels = channels = {
            method: Channel(provider, 1_500, 200, Calls(512)) for method, provider in self.providers.items()
        }
        publisher = Publisher(
            store=self.store,
            clock=self.clock,
            endpoints_of=lambda merchant_id, _: ENDPOINTS.get(merchant_id, ()),
            subscribers=(self._hear,),
        )
        shared: dict[str, Any] = {
            "store": self.store,
            "channels": channels,
            "clock": self.clock,
            "ids": self._ids,
            "publisher": publisher,
            "turns": Turns(),
        }
        self.payments = Payments(vault=Vault(bytes(32)), recovery=self.recovery, **shared)
        self.operations = Operations(recovery=self.recovery, **shared)
        self.disputes = Disputes(**shared)
        return self.payments

    def _hear(self, published: Published) -> None:
        self.stepped.set()
        for subject_id in {event.subject_id for event in published.events}:
            told = [f"{d.endpoint_id}:{d.sequence}" for d in published.deliveries]
            self.announced.append((subject_id, [event.type for event in published.events], told))

    # The merchant

    async def pay(self, method: Method = "card", **options: Any) -> dict[str, Any]:
        """The answer's data."""
        return self.read(await self.post(method, **options))

    async def post(
        self,
        method: Method = "card",
        *,
        key: str | None = None,
        body: bytes = b"the request",
        instrument: Instrument | None = None,
        merchant_id: str = "merchant_123",
    ) -> Response:
        order = Order(
            merchant_id=merchant_id,
            order_id="order-1",
            method=method,
            amount_minor=1000,
            currency="INR",
            instrument=instrument or INSTRUMENTS[method],
            customer=CustomerInfo(email="a@example.com", phone="+911234567890"),
            metadata={"cart": "7"},
        )
        return await self.payments.process(order, None if key is None else IdempotencyKey(merchant_id, key, body), render)

    @staticmethod
    def read(response: Response) -> dict[str, Any]:
        assert response.status == 201
        answer = msgspec.json.decode(response.body)
        assert answer["success"] is True
        return answer["data"]

    # The provider and recovery

    async def callback(self, says: str, reference: str, provider: Method = "upi") -> Payment:
        told = {"reference": reference, "provider": "bank" if provider == "netbanking" else provider, "says": says}
        return await self.payments.attempts.callback(provider, msgspec.json.encode(told))

    async def resolve(self, payment_id: str) -> tuple[Payment, Attempt]:
        return await self.payments.attempts.resolve(self.payment(payment_id), self.attempt(payment_id))

    # The auditor

    def payment(self, payment_id: str) -> Payment:
        found = self.store.payment(payment_id)
        assert found is not None
        return found

    def attempt(self, payment_id: str) -> Attempt:
        found = self.store.attempt_of(payment_id)
        assert found is not None
        return found

    def records(self, kind: str) -> list[dict[str, Any]]:
        """What is in the file."""
        return [record for record in export.records(self.path) if record["kind"] == kind]

    def audit(self) -> None:
        """DOMAIN.md's invariants 1, 2, 3 and 7, and the outbox, over everything in the file."""
        by_payment: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
        for record in export.records(self.path):
            if record["kind"] != "idempotency":
                by_payment[record["paymentID"]][record["kind"]].append(record)
        for records in by_payment.values():
            _audit(**records)


def _audit(
    payment: list[dict[str, Any]],
    attempt: list[dict[str, Any]],
    transaction: list[dict[str, Any]],
    event: list[dict[str, Any]],
    entry: Sequence[dict[str, Any]] = (),
    delivery: Sequence[dict[str, Any]] = (),
    authentication: Sequence[dict[str, Any]] = (),
    **_others: Any,
) -> None:
    """Everything about one payment; exactly one payment, with one attempt, or a second one after the first was declined, and a transaction
    for each thing that moved money."""
    [(status, amount, captured)] = [(p["status"], p["amount"], p["capturedAmount"]) for p in payment]
    assert [record["status"] for record in transaction if record["type"] == "payment"] == [status]
    tries = sorted((record["reference"][-2:], record["state"]) for record in attempt)
    assert [number for number, _ in tries] == ["01", "02"][: len(tries)]
    assert all(state in ("declined", "reversing", "reversed") for _, state in tries[:-1])
    assert [record["status"] == "authenticated" for record in authentication] in ([], [len(tries) == 2])
    assert [record["sequence"] for record in event] == list(range(1, len(event) + 1))
    told = [record["type"].removeprefix("payment.") for record in event if record["type"].startswith("payment.")]
    statuses = ["pending", *told]
    assert set(pairwise(statuses)) <= STEP_PAIRS
    assert statuses[-1] == status
    taken = 0
    for booked in entry:
        postings = booked["postings"]
        assert sum(p["debit"] for p in postings) == sum(p["credit"] for p in postings) > 0
        if booked["entryID"].startswith("ent_cap_") or booked["entryID"].endswith("_capture"):
            taken += sum(p["debit"] for p in postings)
    assert captured == taken <= amount
    assert bool(taken) == (status in ("completed", "partially_captured"))
    published = {(endpoint, e["sequence"]) for e in event if e["published"] for endpoint in ENDPOINTS["merchant_123"]}
    assert {(record["endpointID"], record["sequence"]) for record in delivery} == published


@pytest.fixture
async def shop(store: SqliteStore, clock: ManualClock, tmp_path: Path) -> AsyncIterator[Shop]:
    made = Shop(store, clock, tmp_path / "gateway.db")
    yield made
    made.audit()


async def crash(task: "asyncio.Task[Any]") -> None:
    """Ends a request where it stands, as the end of its process would."""
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
