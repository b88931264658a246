"""Lanes come and go while events are published: nothing is lost by it, doubled, or out of order."""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator

import pytest

from gateway.config import Webhooks
from gateway.core.event import Event
from gateway.flows import outbox
from gateway.flows.outbox import Outbox
from gateway.flows.publishing import Published
from gateway.flows.webhooks import Sender, Target
from gateway.ports import Commit, Delivery, Receipt
from gateway.runtime import SystemClock
from gateway.storage import sqlite
from gateway.storage.sqlite import SqliteStore
from tests.gateway.doubles import PATIENCE_S, Held, Post, ScriptedCourier, make_delivery, make_endpoint
from tests.gateway.post_office import KEY


@pytest.fixture(autouse=True)
def quick_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REFILL_S", "FLUSH_S", "FAILURE_PAUSE_S", "FAILURE_PAUSE_S_MAX"):
        monkeypatch.setattr(outbox, name, 0.001)


class Street:
    """An outbox over the real store, with one endpoint."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.courier = ScriptedCourier()
        clock = SystemClock()
        sender = Sender(courier=self.courier, clock=clock, config=Webhooks(tries_max=20, backoff_base_ms=1), draw=lambda: 0.5)
        self.outbox = Outbox(store=store, sender=sender, clock=clock, concurrency_max=4)
        self.gone: list[Target] = []

    def open(self, url: str = "http://merchant.example/a") -> None:
        self.outbox.open("m", Target("ep_1", url, KEY), self.note_gone)

    def shut(self, *, bury: bool = False) -> None:
        self.outbox.shut("ep_1", bury=bury)

    async def publish(self, payment: int, *sequences: int) -> None:
        events = [Event(f"evt_{payment}_{n}", f"pay_{payment}", "m", n, "payment.completed", b"{}", 1) for n in sequences]
        deliveries = [make_delivery(f"pay_{payment}", e.sequence, event_id=e.id, due_at_ms=0) for e in events]
        await self.store.commit(Commit(events=events, deliveries=deliveries))
        self.outbox.offer(Published(events, deliveries, "card"))

    async def delivered(self, payment: int, sequence: int) -> Delivery:
        async with asyncio.timeout(PATIENCE_S):
            while (found := self.store.delivery("ep_1", f"pay_{payment}", sequence)) is None or found.state == "pending":
                await self.store.commit(Commit())
        return found

    async def note_gone(self, target: Target) -> None:
        self.gone.append(target)


@pytest.fixture
async def street(store: SqliteStore) -> AsyncIterator[Street]:
    made = Street(store)
    yield made
    async with asyncio.timeout(PATIENCE_S):
        await made.outbox.stop()


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_opens_and_shuts_each_event_is_taken_once_and_in_order(street: Street, seed: int):
    draw = random.Random(seed)
    taken: dict[str, list[str]] = defaultdict(list)

    async def behave(post: Post) -> Receipt:
        for _ in range(draw.randrange(6)):
            await asyncio.sleep(0)
        if draw.random() < 0.2:
            return Receipt(500)
        taken[post.event_id.rpartition("_")[0]].append(post.event_id)
        return Receipt(200)

    street.courier.behave = behave
    is_open = False
    for sequence in range(2, 8):
        for payment in range(6):
            choice = draw.random()
            if choice < 0.3:
                street.open(f"http://merchant.example/{draw.randrange(3)}")
                is_open = True
            elif choice < 0.5 and is_open:
                street.shut()
                is_open = False
            await street.publish(payment, sequence)
    street.open()
    for payment in range(6):
        await street.delivered(payment, 7)
    assert taken == {f"evt_{payment}": [f"evt_{payment}_{n}" for n in range(2, 8)] for payment in range(6)}


async def test_a_lane_that_succeeds_another_waits_for_what_that_one_is_sending(street: Street):
    held = Held(Receipt(200))
    street.courier.behave = lambda _: held()
    street.open()
    await street.publish(1, 2)
    await street.courier.until(1)
    street.shut()
    street.open("http://merchant.example/b")
    await street.publish(1, 3)
    for _ in range(20):  # turns of the loop, in which the second lane would have looked
        await asyncio.sleep(0.001)
    assert len(street.courier.posts) == 1
    held.let_go.set()
    await street.delivered(1, 3)
    assert [(post.url[-1], post.event_id) for post in street.courier.posts] == [("a", "evt_1_2"), ("b", "evt_1_3")]


async def test_an_endpoint_that_is_shut_keeps_what_is_pending_and_gets_it_when_it_opens(street: Street):
    street.open()
    street.shut()
    await street.publish(1, 2)
    assert street.courier.posts == []
    street.open()
    assert (await street.delivered(1, 2)).state == "delivered"


async def test_what_was_on_its_way_to_an_endpoint_that_ends_is_buried_too(street: Street, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sqlite, "SPACING_S", 0.05)  # commits wait that long for others
    await street.store.commit(Commit(endpoint=make_endpoint(state="gone")))
    on_its_way = asyncio.create_task(street.publish(1, 2))
    await asyncio.sleep(0)  # it is handed to the store, which has not written it
    street.shut(bury=True)
    assert (await street.delivered(1, 2)).last_error == "endpoint gone"
    await on_its_way


async def test_410_is_told_once_and_not_about_a_url_that_has_been_replaced(street: Street):
    held = Held(Receipt(410))
    street.courier.behave = lambda post: held() if post.url.endswith("a") else Receipt(200)
    street.open()
    await street.publish(1, 2)
    await street.courier.until(1)
    street.open("http://merchant.example/b")
    held.let_go.set()
    await street.delivered(1, 2)
    await street.publish(2, 2)
    assert (await street.delivered(2, 2)).state == "delivered"
    assert street.gone == []
    street.courier.behave = lambda _: Receipt(410)
    for payment in range(3, 9):
        await street.publish(payment, 2)
    for payment in range(3, 9):
        assert (await street.delivered(payment, 2)).state == "dead"
    assert [target.url[-1] for target in street.gone] == ["b"]


async def test_a_lane_without_work_makes_no_senders_and_one_delivery_makes_one(street: Street):
    street.open()
    lane = street.outbox._lanes["ep_1"]
    assert len(lane._senders) == 0
    await street.publish(1, 2)
    await street.delivered(1, 2)
    await street.publish(2, 2)
    await street.delivered(2, 2)
    assert len(lane._senders) == 1


async def test_the_slow_receivers_of_one_merchant_take_no_more_than_its_share(street: Street):
    slow = Held(Receipt(200))
    street.courier.behave = lambda post: slow() if "slow" in post.url else Receipt(200)
    names = [f"slow_{n}" for n in range(4)]
    for name in names:
        await street.store.commit(Commit(endpoint=make_endpoint(name)))
    for payment in range(4):
        events = [Event(f"evt_{payment}_1", f"pay_{payment}", "m", 1, "payment.completed", b"{}", 1)]
        deliveries = [make_delivery(f"pay_{payment}", 1, endpoint_id=name, due_at_ms=0) for name in names]
        await street.store.commit(Commit(events=events, deliveries=deliveries))
    for name in names:
        street.outbox.open("m", Target(name, f"http://merchant.example/{name}", KEY), street.note_gone)
    await street.courier.until(8)  # of 16 that are due: twice `concurrency_max`
    street.outbox.open("another", Target("ep_1", "http://another.example/", KEY), street.note_gone)
    await street.publish(9, 1)
    assert (await street.delivered(9, 1)).state == "delivered"
    assert sum("slow" in post.url for post in street.courier.posts) == 8
    slow.let_go.set()
    await street.courier.until(17)
