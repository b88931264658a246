"""The outbox: at least once, in order per payment, and nobody waits for anybody else's receiver."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.core import signature
from gateway.core.event import Event
from gateway.flows import outbox
from gateway.ports import Commit, Receipt
from tests.gateway.doubles import KEY_ID, PATIENCE_S, Held, ManualClock, Post, ScriptedCourier, make_delivery
from tests.gateway.post_office import (
    CONCURRENCY_MAX,
    KEY,
    TRIES_MAX,
    ObservedStore,
    Office,
    all_through,
    failing,
    looked,
    rounds,
    tried,
)


@pytest.fixture
async def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Office]:
    for name, value in {"REFILL_S": 0.004, "FLUSH_S": 0.002, "FAILURE_PAUSE_S": 0.001, "FAILURE_PAUSE_S_MAX": 0.002}.items():
        monkeypatch.setattr(outbox, name, value)
    store = ObservedStore.open(tmp_path / "gateway.db", vault_key_id=KEY_ID)
    assert isinstance(store, ObservedStore)
    store.looked, store.read, store._commits, store.read_errors = asyncio.Event(), asyncio.Event(), asyncio.Event(), []
    made = Office(store, tmp_path / "gateway.db")
    yield made
    await made.close()


# Delivery


async def test_what_is_offered_is_delivered_signed_and_marked_at_the_latest_when_the_lane_stops(office: Office):
    lane = office.lane()
    await looked(office)
    await office.publish(1, 2, to=lane)
    await office.courier.until(1)
    await office.stop(lane)
    assert office.states() == {"evt_1_2": ("delivered", 1)}
    [post] = office.courier.posts
    assert (post.url, post.body) == ("http://merchant.example/ep_1", b'{"n":2}')
    headers = post.headers
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Webhook-Signature"] == signature.sign_body(KEY, post.body)
    assert signature.verifies(
        KEY,
        message_id=headers["webhook-id"],
        timestamp=headers["webhook-timestamp"],
        body=post.body,
        signatures=headers["webhook-signature"],
        now_s=office.clock.now_ms() // 1000,
    )


async def test_what_was_pending_before_the_start_is_delivered(office: Office):
    await office.publish(1, 2, 3)
    await office.publish(2, 2)
    lane = office.lane()
    await office.courier.until(3)
    await office.stop(lane)
    assert set(office.states().values()) == {("delivered", 1)}


async def test_stopping_waits_for_what_is_being_sent_and_marks_it(office: Office):
    held = Held(Receipt(200))
    office.courier.behave = lambda _: held()
    await office.publish(1, 2, 3)
    lane = office.lane()
    async with asyncio.timeout(PATIENCE_S):
        await held.reached.wait()
    stopping = asyncio.create_task(office.stop(lane))
    await asyncio.sleep(0)
    assert not stopping.done()
    held.let_go.set()
    await stopping
    assert office.states() == {"evt_1_2": ("delivered", 1), "evt_1_3": ("pending", 0)}
    assert office.courier.event_ids == ["evt_1_2"]


async def test_an_event_delivered_but_not_marked_at_a_crash_comes_again_with_the_same_id_and_body(
    office: Office, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(outbox, "FLUSH_S", 1_000.0)
        await office.publish(1, 2)
        office.lane()  # its marks never reach the database while the test runs, as if it had died
        await office.courier.until(1)
    assert office.states() == {"evt_1_2": ("pending", 0)}
    office.lane()
    await office.courier.until(2)
    first, second = office.courier.posts
    assert (first.event_id, first.body) == (second.event_id, second.body)


async def test_no_more_are_sent_at_once_than_configured(office: Office):
    held, full = Held(Receipt(200)), asyncio.Event()
    running = most = 0

    async def behave(post: Post) -> Receipt:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == CONCURRENCY_MAX:
            full.set()
        receipt = await held()
        running -= 1
        return receipt

    office.courier.behave = behave
    for payment in range(10):
        await office.publish(payment, 2)
    office.lane()
    async with asyncio.timeout(PATIENCE_S):
        await full.wait()
    for _ in range(20):  # turns of the loop, in which one more would have come
        await asyncio.sleep(0)
    held.let_go.set()
    await all_through(office)
    assert most == CONCURRENCY_MAX


async def test_of_one_payment_one_event_is_under_way_at_a_time(office: Office):
    held = Held(Receipt(200))
    office.courier.behave = lambda post: held() if post.event_id == "evt_1_2" else Receipt(200)
    lane = office.lane()
    await looked(office)
    await office.publish(1, 2, 3, to=lane)
    await office.publish(2, 2, 3, to=lane)
    await office.courier.until(3)
    assert office.courier.event_ids == ["evt_1_2", "evt_2_2", "evt_2_3"]
    held.let_go.set()
    await office.courier.until(4)
    assert office.courier.event_ids[3] == "evt_1_3"


# Failures


async def test_an_event_behind_a_failed_one_of_its_payment_waits(office: Office):
    office.courier.behave = failing("evt_1_2", "evt_1_2")
    lane = office.lane()
    await looked(office)
    await office.publish(1, 2, 3, 4, to=lane)
    await office.publish(2, 2, 3, to=lane)
    await office.courier.until(7)
    await office.stop(lane)
    assert [e for e in office.courier.event_ids if e.startswith("evt_1")] == ["evt_1_2"] * 3 + ["evt_1_3", "evt_1_4"]
    assert [e for e in office.courier.event_ids if e.startswith("evt_2")] == ["evt_2_2", "evt_2_3"]
    assert office.states()["evt_1_2"] == ("delivered", 3)


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_fails_each_payments_events_arrive_in_order_and_all_of_them(office: Office, seed: int):
    draw = random.Random(seed)
    payments, sequences = range(12), (2, 3, 4)
    done = asyncio.Event()
    arrived: list[str] = []
    tries: dict[str, int] = {}

    async def behave(post: Post) -> Receipt:
        tries[post.event_id] = tries.get(post.event_id, 0) + 1
        for _ in range(draw.randrange(4)):
            await asyncio.sleep(0)
        if tries[post.event_id] < TRIES_MAX and draw.random() < 0.3:
            return Receipt(draw.choice([500, 503, 302, 404, None]))
        arrived.append(post.event_id)
        if len(set(arrived)) == len(payments) * len(sequences):
            done.set()
        return Receipt(200)

    office.courier.behave = behave
    lane = office.lane()
    await looked(office)
    for sequence in sequences:
        for payment in payments:
            await office.publish(payment, sequence, to=lane)
    async with asyncio.timeout(PATIENCE_S):
        await done.wait()
    for payment in payments:
        firsts = list(dict.fromkeys(e for e in arrived if e.startswith(f"evt_{payment}_")))
        assert firsts == [f"evt_{payment}_{sequence}" for sequence in sequences]
    await office.stop(lane)
    assert {state for state, _ in office.states().values()} == {"delivered"}


@pytest.mark.parametrize("receipt", [Receipt(500), Receipt(302), Receipt(404), Receipt(None, "TimeoutError")], ids=str)
async def test_after_the_last_try_an_event_is_a_dead_letter_and_its_successor_goes(office: Office, receipt: Receipt):
    office.courier.behave = failing(*["evt_1_2"] * TRIES_MAX, receipt=receipt)
    await office.publish(1, 2, 3)
    lane = office.lane()
    await office.courier.until(TRIES_MAX + 1)
    await office.stop(lane)
    assert office.states() == {"evt_1_2": ("dead", TRIES_MAX), "evt_1_3": ("delivered", 1)}
    assert office.courier.event_ids == ["evt_1_2"] * TRIES_MAX + ["evt_1_3"]


async def test_an_endpoint_that_is_gone_gets_nothing_more(office: Office):
    office.courier.behave = lambda _: Receipt(410)
    for payment in range(20):
        await office.publish(payment, 2)
    lane = office.lane()
    await looked(office)
    await office.publish(99, 2, to=lane)
    await all_through(office)
    assert {state for state, _ in office.states().values()} == {"dead"}
    assert len(office.courier.posts) <= CONCURRENCY_MAX  # those that were under way when the first 410 came


@pytest.mark.parametrize(("retry_after_s", "wait_ms"), [(30, 30_000), (None, 1_500), (10**9, 3_600_000)])
async def test_a_receiver_may_ask_for_more_time(office: Office, retry_after_s: int | None, wait_ms: int):
    clock = office.clock = ManualClock()
    office.courier.behave = lambda _: Receipt(503, retry_after_s=retry_after_s)
    await office.publish(1, 2)
    lane = office.lane(backoff_ms=2_000)
    await office.courier.until(1)
    await office.stop(lane)
    assert office.states() == {"evt_1_2": ("pending", 1)}
    assert office.store.due_deliveries("ep_1", clock.at_ms + wait_ms - 1, 10) == []
    assert len(office.store.due_deliveries("ep_1", clock.at_ms + wait_ms, 10)) == 1


async def test_one_failure_among_successes_is_tried_again(office: Office, monkeypatch: pytest.MonkeyPatch):
    """Even if memory and database were compared while the failure's mark was on its way."""
    monkeypatch.setattr(outbox, "FLUSH_S", 1_000.0)
    office.courier.behave = failing("evt_1_2")
    lane = office.lane()
    await looked(office)
    await office.publish(1, 2, to=lane)
    await office.publish(2, 2, to=lane)
    await office.courier.until(2)
    await rounds(office, 3)
    await lane.flush()
    await office.courier.until(3)
    assert sorted(office.courier.event_ids) == ["evt_1_2", "evt_1_2", "evt_2_2"]


async def test_an_event_does_not_overtake_a_waiting_one_while_marks_are_being_written(office: Office):
    """Even if memory and database were compared after a mark was durable and before the lane had heard of it."""
    office.courier.behave = failing("evt_1_2", receipt=Receipt(503, retry_after_s=3_600))
    await office.publish(1, 2)
    lane = office.lane()
    await tried(office, "evt_1_2")
    await office.publish(2, 2)
    held = Held(None)
    office.store.after_commit = held
    async with asyncio.timeout(PATIENCE_S):
        await held.reached.wait()  # the delivery of evt_2_2 is durable, and the lane waits to hear of it
    assert office.states()["evt_2_2"] == ("delivered", 1)
    await rounds(office, 3)
    office.store.after_commit = None
    held.let_go.set()
    await office.publish(1, 3, to=lane)
    await office.publish(3, 2, to=lane)
    await office.courier.until(3)
    assert office.courier.event_ids == ["evt_1_2", "evt_2_2", "evt_3_2"]


async def test_a_failing_receiver_does_not_hold_up_the_stop(office: Office, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outbox, "FAILURE_PAUSE_S", 1_000.0)
    monkeypatch.setattr(outbox, "FAILURE_PAUSE_S_MAX", 1_000.0)
    office.courier.behave = lambda _: Receipt(500)
    for payment in range(10):
        await office.publish(payment, 2)
    lane = office.lane()
    await office.courier.until(1)
    await office.stop(lane)
    assert {state for state, _ in office.states().values()} == {"pending"}


async def test_a_database_that_fails_once_does_not_end_the_deliveries(office: Office):
    office.store.read_errors.append(OSError("disk on fire"))
    await office.publish(1, 2)
    office.lane()
    await office.courier.until(1)


async def test_a_courier_that_breaks_does_not_end_the_deliveries(office: Office):
    broken = [True, True]

    def behave(post: Post) -> Receipt:
        if broken:
            broken.pop()
            raise RuntimeError("a bug in the courier")
        return Receipt(200)

    office.courier.behave = behave
    for payment in range(10):
        await office.publish(payment, 2)
    lane = office.lane()
    await all_through(office)
    await office.stop(lane)
    assert {state for state, _ in office.states().values()} == {"delivered"}


# Several receivers, and too much at once


@pytest.mark.parametrize("answer", [None, Receipt(500)], ids=["slow", "dead"])
async def test_a_slow_or_dead_receiver_holds_up_no_other(office: Office, answer: Receipt | None):
    held = Held(Receipt(200))
    bad = ScriptedCourier(lambda _: held() if answer is None else answer)
    lanes = {"ep_1": office.lane("ep_1", courier=bad), "ep_2": office.lane("ep_2")}
    await looked(office)
    for payment in range(50):
        events = [Event(f"evt_{payment}_2", f"pay_{payment}", "m", 2, "payment.x", b"{}", 1)]
        deliveries = [make_delivery(f"pay_{payment}", endpoint_id=name, event_id=events[0].id, due_at_ms=0) for name in lanes]
        await office.store.commit(Commit(events=events, deliveries=deliveries))
        for delivery in deliveries:
            lanes[delivery.endpoint_id].offer(delivery, b"{}")
    await office.courier.until(50)
    assert len(set(office.courier.event_ids)) == 50
    held.let_go.set()


async def test_more_than_fits_into_memory_is_delivered_all_the_same(office: Office, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outbox, "QUEUE_MAX", 5)
    held = Held(Receipt(200))
    office.courier.behave = lambda _: held()
    lane = office.lane()
    await looked(office)
    for payment in range(60):  # one event each, so that nothing but the overflow sends the lane back to the database
        await office.publish(payment, 2, to=lane)
    held.let_go.set()
    await office.courier.until(60)
    await office.stop(lane)
    assert set(office.states().values()) == {("delivered", 1)}
    assert len(office.courier.posts) == 60
