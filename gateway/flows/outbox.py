"""The queues of webhooks: a lane for each endpoint that is enabled. They come and go while the gateway runs."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import msgspec
import structlog

from gateway.core.errors import StoreError
from gateway.flows.publishing import Published
from gateway.flows.webhooks import Sender, Target
from gateway.ports import Clock, Commit, Delivery, Store

log = structlog.get_logger("gateway.outbox")

QUEUE_MAX = 1_000  # deliveries of one endpoint in memory; the rest waits in the database
REFILL_S = 0.2  # how soon the database is looked at again for what is not in memory
FLUSH_S = 0.05  # marks of this long share one commit; a crash in between delivers those events again, with the same id
FAILURE_PAUSE_S = 0.05  # after the first failure in a row; doubles with each
FAILURE_PAUSE_S_MAX = 5.0  # so that a dead receiver costs one try in five seconds, and its events wait in the outbox

# What of one merchant's webhooks is on its way at once, as a multiple of what one endpoint may have: a slow receiver does not hold up the
# merchant's others, and sixteen slow ones do not take the courier's connections from everybody else.
MERCHANT_SHARE = 2

Key = tuple[str, int]


class Lane:
    """The deliveries of one endpoint.

    While `_caught_up`, memory holds every pending delivery of the endpoint: new ones are appended as they are committed, and the
    database is not read. When one fails, or does not fit, the queue is dropped and the lane lives from the database, which knows
    what is due and what has to wait for an earlier event of its payment, until it has caught up again. A lane with nothing to do
    sleeps, without timers; its senders are made as they are needed.
    """

    def __init__(
        self,
        target: Target,
        *,
        store: Store,
        sender: Sender,
        clock: Clock,
        concurrency_max: int,
        share: asyncio.Semaphore,
        on_gone: Callable[[Target], object] = lambda _: None,
    ) -> None:
        """`share` bounds what is on its way to all endpoints of the merchant. `on_gone` is called when the receiver answers that the
        endpoint is gone."""
        self._target = target
        self._store = store
        self._sender = sender
        self._clock = clock
        self._concurrency_max = concurrency_max
        self._share = share
        self._on_gone = on_gone
        self._queue: deque[tuple[Delivery, bytes]] = deque()
        self._held: set[Key] = set()  # queued, being sent, or sent and not yet marked
        self._busy: set[str] = set()  # payments with a delivery being sent
        self._marks: list[Delivery] = []
        self._marked = asyncio.Event()
        self._flushing = False
        self._caught_up = False
        self._behind = asyncio.Event()
        self._behind.set()
        self._failures = 0
        self._gone = False
        self._probe = asyncio.Lock()
        self._work = asyncio.Semaphore(0)
        self._idle = 0  # senders that wait for work
        self._stopping = asyncio.Event()
        self._senders: list[asyncio.Task[None]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, after: "asyncio.Task[None] | None" = None) -> None:
        """`after` is what has to end before anything is sent: the lane that this one succeeds."""
        spawn = asyncio.get_running_loop().create_task
        self._tasks = [spawn(self._look_loop(after)), spawn(self._flush_loop())]

    def retarget(self, target: Target) -> None:
        """What is sent from now on goes there, signed so."""
        if target != self._target:
            self._target = target
            self._failures, self._gone = 0, False

    def offer(self, delivery: Delivery, body: bytes) -> None:
        """A delivery that has just been committed."""
        if not self._caught_up:
            return
        if len(self._queue) >= QUEUE_MAX:
            self.look()
            return
        self._enqueue(delivery, body)

    def look(self) -> None:
        """Memory no longer holds all that is pending: look into the database."""
        self._caught_up = False
        self._behind.set()

    async def stop(self) -> None:
        """Lets what is being sent end, and marks it."""
        for event in (self._stopping, self._behind, self._marked):
            event.set()
        for _ in self._senders:
            self._work.release()
        await asyncio.gather(*self._tasks, *self._senders)
        await self.flush()

    def _enqueue(self, delivery: Delivery, body: bytes) -> None:
        key = (delivery.subject_id, delivery.sequence)
        if key in self._held or self._stopping.is_set():
            return
        self._held.add(key)
        self._queue.append((delivery, body))
        self._work.release()
        if len(self._queue) > self._idle and len(self._senders) < self._concurrency_max:
            self._idle += 1
            self._senders.append(asyncio.get_running_loop().create_task(self._send_loop()))

    async def _send_loop(self) -> None:
        while True:
            await self._work.acquire()
            if self._stopping.is_set():
                return
            self._idle -= 1
            if self._queue:
                await self._take_safely(*self._queue.popleft())
            self._idle += 1

    async def _take_safely(self, delivery: Delivery, body: bytes) -> None:
        try:
            await self._take(delivery, body)
        except Exception:
            # The lane must outlive whatever one delivery meets: the outbox still has it.
            log.exception("webhook.crashed", endpoint_id=self._target.endpoint_id, event_id=delivery.event_id)
            self.look()
            self._failures += 1
            self._release(delivery)

    async def _take(self, delivery: Delivery, body: bytes) -> None:
        if delivery.subject_id in self._busy:
            self._release(delivery)  # an earlier event of this payment is on its way: the database brings this one back
            self.look()
            return
        self._busy.add(delivery.subject_id)
        try:
            if self._failures or self._gone:
                async with self._probe:
                    await self._pause()
                    await self._send(delivery, body)
            else:
                await self._send(delivery, body)
        finally:
            self._busy.discard(delivery.subject_id)

    async def _pause(self) -> None:
        """One at a time, and ever slower, while the receiver fails."""
        pause_s = min(FAILURE_PAUSE_S * 2 ** min(self._failures - 1, 10), FAILURE_PAUSE_S_MAX) if self._failures else 0.0
        await pause(self._stopping, pause_s)

    async def _send(self, delivery: Delivery, body: bytes) -> None:
        if self._stopping.is_set():
            return
        if self._gone:
            dead = msgspec.structs.replace(delivery, state="dead", due_at_ms=None, last_error="endpoint gone")
            self._mark(dead)
            return
        async with self._share:
            if self._stopping.is_set():
                return
            target = self._target
            after, fate = await self._sender.send(target, delivery, body)
        if fate == "delivered":
            self._failures = 0
        else:
            self._fail(after, fate, target)
        self._mark(after)

    def _mark(self, delivery: Delivery) -> None:
        self._marks.append(delivery)
        self._marked.set()

    def _fail(self, delivery: Delivery, fate: str, target: Target) -> None:
        self._failures += 1
        self.look()
        while self._queue:
            self._release(self._queue.popleft()[0])
        if fate == "gone" and target is self._target:  # and not one that has been replaced meanwhile
            self._gone = True
            self._failures = 0
            self._on_gone(target)
        level = log.info if fate == "retry" else log.warning
        level(
            "webhook." + fate,
            endpoint_id=delivery.endpoint_id,
            subject_id=delivery.subject_id,
            event_id=delivery.event_id,
            tries=delivery.tries,
            error=delivery.last_error,
        )

    def _release(self, delivery: Delivery) -> None:
        self._held.discard((delivery.subject_id, delivery.sequence))

    async def flush(self) -> None:
        """Makes the marks durable. What cannot be marked will be delivered again."""
        marks, self._marks = self._marks, []
        self._marked.clear()
        if not marks:
            return
        self._flushing = True
        try:
            await self._store.commit(Commit(deliveries=marks))
        except StoreError:
            log.exception("webhook.marks_lost", endpoint_id=self._target.endpoint_id, count=len(marks))
            self.look()
        finally:
            for delivery in marks:
                self._release(delivery)
            self._flushing = False

    async def _refill(self) -> None:
        if self._caught_up or self._queue:
            return
        room = QUEUE_MAX
        page = self._store.due_deliveries(self._target.endpoint_id, self._clock.now_ms(), room)
        for delivery, body in page:
            self._enqueue(delivery, body)
        if len(page) < room and not self._failures and self._comparable():
            self._caught_up = self._store.pending_deliveries(self._target.endpoint_id) <= len(self._held)
        if self._caught_up:
            self._behind.clear()

    def _comparable(self) -> bool:
        """Whether what is held is what is pending. Not while marks are written, and not while a failed delivery, which stays pending
        and is not for memory, is held for its mark."""
        return not self._flushing and all(mark.due_at_ms is None for mark in self._marks)

    async def _look_loop(self, after: "asyncio.Task[None] | None") -> None:
        if after is not None:
            await asyncio.wait([after])
        while await self._needed(self._behind):
            await self._safely(self._refill)
            await pause(self._stopping, REFILL_S)

    async def _flush_loop(self) -> None:
        while await self._needed(self._marked):
            await pause(self._stopping, FLUSH_S)
            await self._safely(self.flush)

    async def _needed(self, event: asyncio.Event) -> bool:
        if not self._stopping.is_set():
            await event.wait()
        return not self._stopping.is_set()

    async def _safely(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception:
            # The lane must outlive whatever one round meets; the next round tries again, and the log says why this one failed.
            log.exception("webhook.failed", endpoint_id=self._target.endpoint_id)


class Outbox:
    """All lanes."""

    def __init__(self, *, store: Store, sender: Sender, clock: Clock, concurrency_max: int) -> None:
        self._store = store
        self._make = partial(Lane, store=store, sender=sender, clock=clock, concurrency_max=concurrency_max)
        self._share = partial(asyncio.Semaphore, MERCHANT_SHARE * concurrency_max)
        self._shares: dict[str, asyncio.Semaphore] = {}  # by merchant
        self._lanes: dict[str, Lane] = {}
        self._shutting: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, merchant_id: str, target: Target, on_gone: Callable[[Target], Coroutine[Any, Any, None]]) -> None:
        """Deliveries of the merchant go there from now on. `on_gone` is run once if the receiver says that the endpoint is gone."""
        lane = self._lanes.get(target.endpoint_id)
        if lane is not None:
            lane.retarget(target)
            return
        share = self._shares.setdefault(merchant_id, self._share())
        lane = self._make(target, share=share, on_gone=lambda gone: self._spawn(on_gone(gone)))
        self._lanes[target.endpoint_id] = lane
        lane.start(self._shutting.get(target.endpoint_id))

    def shut(self, endpoint_id: str, *, bury: bool) -> None:
        """Nothing more is sent there, but for what is being sent. `bury`: what is pending becomes dead letters, as its endpoint, which is
        durably gone or deleted, does not come back for it."""
        lane = self._lanes.pop(endpoint_id, None)
        task = self._spawn(self._shut(lane, bury))
        if lane is not None:
            self._shutting[endpoint_id] = task
            task.add_done_callback(partial(self._forget, endpoint_id))

    def offer(self, published: Published) -> None:
        for delivery in published.deliveries:
            if (lane := self._lanes.get(delivery.endpoint_id)) is None:
                continue  # it has been shut since this was decided: it waits in the database
            body = next(event.body for event in published.events if event.sequence == delivery.sequence)
            if body is not None:
                lane.offer(delivery, body)

    def look(self, endpoint_id: str) -> None:
        """Deliveries of this endpoint are pending again."""
        if (lane := self._lanes.get(endpoint_id)) is not None:
            lane.look()

    async def stop(self) -> None:
        await asyncio.gather(*(lane.stop() for lane in self._lanes.values()))
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _shut(self, lane: Lane | None, bury: bool) -> None:
        if lane is not None:
            await lane.stop()
        if bury:
            # Commits are written in order: once this one is, whatever was on its way to the outbox is there.
            await self._store.commit(Commit())
            await self._store.bury_deliveries()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _logged(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            log.exception("webhook.failed")  # what was left undone is done at the next start

    def _forget(self, endpoint_id: str, task: asyncio.Task[None]) -> None:
        if self._shutting.get(endpoint_id) is task:
            del self._shutting[endpoint_id]


async def pause(stopping: asyncio.Event, seconds: float) -> None:
    """Sleeps, but not beyond the end."""
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return
