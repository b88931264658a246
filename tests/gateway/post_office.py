"""Lanes of the outbox over the real store, with places to look in."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.config import Webhooks
from gateway.core import signature
from gateway.core.event import Event
from gateway.flows.outbox import Lane
from gateway.flows.webhooks import Sender, Target
from gateway.ports import Clock, Commit, Committed, Delivery, Receipt
from gateway.runtime import SystemClock
from gateway.storage import export
from gateway.storage.sqlite import SqliteStore
from tests.gateway.doubles import PATIENCE_S, Post, ScriptedCourier, make_delivery, secret

TRIES_MAX = 3
CONCURRENCY_MAX = 4
KEY = signature.secret_key(secret("m"))
REFUSED = Receipt(500)


class ObservedStore(SqliteStore):
    """The real store, with places to look in and to interfere."""

    looked: asyncio.Event
    """Set when a lane has compared its memory with the database."""
    read: asyncio.Event
    """Set when a lane has read what is due."""
    after_commit: Callable[[], Any] | None = None
    """Runs between a commit's durability and its answer."""
    read_errors: list[Exception]

    def pending_deliveries(self, endpoint_id: str) -> int:
        self.looked.set()
        return super().pending_deliveries(endpoint_id)

    def due_deliveries(self, endpoint_id: str, now_ms: int, limit: int) -> list[tuple[Delivery, bytes]]:
        if self.read_errors:
            raise self.read_errors.pop()
        self.read.set()
        return super().due_deliveries(endpoint_id, now_ms, limit)

    async def commit(self, commit: Commit) -> Committed:
        result = await super().commit(commit)
        self._commits.set()
        if self.after_commit is not None:
            await self.after_commit()
        return result

    async def written(self) -> None:
        """Waits for the next commit."""
        self._commits = asyncio.Event()
        await self._commits.wait()


class Office:
    """Lanes over one database, and what is in it."""

    def __init__(self, store: ObservedStore, path: Path) -> None:
        self.store, self._path = store, path
        self.courier = ScriptedCourier()
        self.clock: Clock = SystemClock()
        self._started: list[Lane] = []

    def lane(self, endpoint: str = "ep_1", *, courier: ScriptedCourier | None = None, backoff_ms: int = 1) -> Lane:
        """A started lane. With the real clock, failures are tried again after about a millisecond."""
        config = Webhooks(tries_max=TRIES_MAX, backoff_base_ms=backoff_ms)
        sender = Sender(courier=courier or self.courier, clock=self.clock, config=config, draw=lambda: 0.5)
        target = Target(endpoint, f"http://merchant.example/{endpoint}", KEY)
        share = asyncio.Semaphore(CONCURRENCY_MAX)
        lane = Lane(target, store=self.store, sender=sender, clock=self.clock, concurrency_max=CONCURRENCY_MAX, share=share)
        lane.start()
        self._started.append(lane)
        return lane

    async def publish(
        self, payment: int, *sequences: int, to: Lane | None = None, endpoint: str = "ep_1", due_ms: int | None = None
    ) -> None:
        """Commits events with their deliveries, and offers them as the flows do."""
        payment_id = f"pay_{payment}"
        events = [Event(f"evt_{payment}_{s}", payment_id, "m", s, "payment.completed", b'{"n":%d}' % s, 1) for s in sequences]
        due_ms = self.clock.now_ms() if due_ms is None else due_ms
        deliveries = [
            make_delivery(payment_id, e.sequence, endpoint_id=endpoint, event_id=e.id, due_at_ms=due_ms) for e in events
        ]
        await self.store.commit(Commit(events=events, deliveries=deliveries))
        if to is not None:
            for event, delivery in zip(events, deliveries, strict=True):
                assert event.body is not None
                to.offer(delivery, event.body)

    def states(self, endpoint: str = "ep_1") -> dict[str, tuple[str, int]]:
        """In the file: event id -> (state, tries)."""
        rows = [record for record in export.records(self._path) if record["kind"] == "delivery"]
        return {row["eventID"]: (row["state"], row["tries"]) for row in rows if row["endpointID"] == endpoint}

    async def stop(self, lane: Lane) -> None:
        self._started.remove(lane)
        async with asyncio.timeout(PATIENCE_S):
            await lane.stop()

    async def close(self) -> None:
        for lane in self._started[:]:
            await self.stop(lane)
        self.store.after_commit = None
        await self.store.close()


async def looked(office: Office) -> None:
    """Waits until a lane has compared its memory with the database once more."""
    office.store.looked.clear()
    async with asyncio.timeout(PATIENCE_S):
        await office.store.looked.wait()


async def rounds(office: Office, count: int) -> None:
    """Waits until a lane has read what is due `count` times more."""
    for _ in range(count):
        office.store.read.clear()
        async with asyncio.timeout(PATIENCE_S):
            await office.store.read.wait()


async def all_through(office: Office) -> None:
    """Waits until no delivery is pending."""
    async with asyncio.timeout(PATIENCE_S):
        while any(state == "pending" for state, _ in office.states().values()):
            await office.store.written()


async def tried(office: Office, event_id: str) -> None:
    """Waits until the mark of a first try is in the file."""
    async with asyncio.timeout(PATIENCE_S):
        while office.states()[event_id][1] == 0:
            await office.store.written()


def failing(*event_ids: str, receipt: Receipt = REFUSED) -> Callable[[Post], Receipt]:
    """A receiver that answers the first posts of these events with `receipt`."""
    left = list(event_ids)

    def behave(post: Post) -> Receipt:
        if post.event_id not in left:
            return Receipt(200)
        left.remove(post.event_id)
        return receipt

    return behave
