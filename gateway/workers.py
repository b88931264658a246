"""What goes on beside the requests: delivering the outbox, asking about what is open, forgetting old keys.

Each worker is a loop around something that can be run once. They stop between two pieces of work, so that nothing is half done.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
import structlog

from gateway.config import Recovery
from gateway.core.errors import StoreError
from gateway.core.payment import Attempt, Event, Method
from gateway.flows.payments import CLAIM_LIFETIME_MS, Payments
from gateway.flows.webhooks import Sender, Target
from gateway.ports import Clock, Commit, Delivery, Store

log = structlog.get_logger("gateway.workers")

QUEUE_MAX = 1_000  # deliveries of one endpoint in memory; the rest waits in the database
REFILL_S = 0.2  # how soon the database is looked at again for what is not in memory
FLUSH_S = 0.05  # marks of this long share one commit; a crash in between delivers those events again, with the same id
FAILURE_PAUSE_S = 0.05  # after the first failure in a row; doubles with each
FAILURE_PAUSE_S_MAX = 5.0  # so that a dead receiver costs one try in five seconds, and its events wait in the outbox
PURGE_S = 60.0

Key = tuple[str, int]


class Lane:
    """The deliveries of one endpoint.

    While `_caught_up`, memory holds every pending delivery of the endpoint: new ones are appended as they are committed, and the
    database is not read. When one fails, or does not fit, the queue is dropped and the lane lives from the database, which knows
    what is due and what has to wait for an earlier event of its payment, until it has caught up again.
    """

    def __init__(self, target: Target, *, store: Store, sender: Sender, clock: Clock, concurrency_max: int) -> None:
        self._target = target
        self._store = store
        self._sender = sender
        self._clock = clock
        self._concurrency_max = concurrency_max
        self._queue: deque[tuple[Delivery, bytes]] = deque()
        self._held: set[Key] = set()  # queued, being sent, or sent and not yet marked
        self._busy: set[str] = set()  # payments with a delivery being sent
        self._marks: list[Delivery] = []
        self._flushing = False
        self._caught_up = False
        self._failures = 0
        self._gone = False
        self._probe = asyncio.Lock()
        self._work = asyncio.Semaphore(0)
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        spawn = asyncio.get_running_loop().create_task
        self._tasks = [spawn(self._send_loop()) for _ in range(self._concurrency_max)]
        self._tasks += [spawn(self._every(REFILL_S, self._refill)), spawn(self._every(FLUSH_S, self.flush))]

    def offer(self, delivery: Delivery, body: bytes) -> None:
        """A delivery that has just been committed."""
        if not self._caught_up:
            return
        if len(self._queue) >= QUEUE_MAX:
            self._caught_up = False
            return
        self._enqueue(delivery, body)

    async def stop(self) -> None:
        """Lets what is being sent end, and marks it."""
        self._stopping.set()
        for _ in range(self._concurrency_max):
            self._work.release()
        await asyncio.gather(*self._tasks)
        await self.flush()

    def _enqueue(self, delivery: Delivery, body: bytes) -> None:
        key = (delivery.payment_id, delivery.sequence)
        if key not in self._held:
            self._held.add(key)
            self._queue.append((delivery, body))
            self._work.release()

    async def _send_loop(self) -> None:
        while True:
            await self._work.acquire()
            if self._stopping.is_set():
                return
            if not self._queue:
                continue
            delivery, body = self._queue.popleft()
            try:
                await self._take(delivery, body)
            except Exception:
                # The lane must outlive whatever one delivery meets: the outbox still has it.
                log.exception("webhook.crashed", endpoint_id=self._target.endpoint_id, event_id=delivery.event_id)
                self._caught_up = False
                self._failures += 1
                self._release(delivery)

    async def _take(self, delivery: Delivery, body: bytes) -> None:
        if delivery.payment_id in self._busy:
            self._release(delivery)  # an earlier event of this payment is on its way: the database brings this one back
            self._caught_up = False
            return
        self._busy.add(delivery.payment_id)
        try:
            if self._failures or self._gone:
                async with self._probe:
                    await self._pause()
                    await self._send(delivery, body)
            else:
                await self._send(delivery, body)
        finally:
            self._busy.discard(delivery.payment_id)

    async def _pause(self) -> None:
        """One at a time, and ever slower, while the receiver fails."""
        pause_s = min(FAILURE_PAUSE_S * 2 ** min(self._failures - 1, 10), FAILURE_PAUSE_S_MAX) if self._failures else 0.0
        await _pause(self._stopping, pause_s)

    async def _send(self, delivery: Delivery, body: bytes) -> None:
        if self._stopping.is_set():
            return
        if self._gone:
            dead = msgspec.structs.replace(delivery, state="dead", due_at_ms=None, last_error="endpoint gone")
            self._mark(dead)
            return
        after, fate = await self._sender.send(self._target, delivery, body)
        if fate == "delivered":
            self._failures = 0
        else:
            self._fail(after, fate)
        self._mark(after)

    def _mark(self, delivery: Delivery) -> None:
        self._marks.append(delivery)

    def _fail(self, delivery: Delivery, fate: str) -> None:
        self._failures += 1
        self._caught_up = False
        while self._queue:
            self._release(self._queue.popleft()[0])
        if fate == "gone":
            self._gone = True
            self._failures = 0
        level = log.info if fate == "retry" else log.warning
        level(
            "webhook." + fate,
            endpoint_id=delivery.endpoint_id,
            payment_id=delivery.payment_id,
            event_id=delivery.event_id,
            tries=delivery.tries,
            error=delivery.last_error,
        )

    def _release(self, delivery: Delivery) -> None:
        self._held.discard((delivery.payment_id, delivery.sequence))

    async def flush(self) -> None:
        """Makes the marks durable. What cannot be marked will be delivered again."""
        marks, self._marks = self._marks, []
        if not marks:
            return
        self._flushing = True
        try:
            await self._store.commit(Commit(deliveries=marks))
        except StoreError:
            log.exception("webhook.marks_lost", endpoint_id=self._target.endpoint_id, count=len(marks))
            self._caught_up = False
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

    def _comparable(self) -> bool:
        """Whether what is held is what is pending. Not while marks are written, and not while a failed delivery, which stays pending
        and is not for memory, is held for its mark."""
        return not self._flushing and all(mark.due_at_ms is None for mark in self._marks)

    async def _every(self, period_s: float, work: Callable[[], Awaitable[None]]) -> None:
        while not self._stopping.is_set():
            try:
                await work()
            except Exception:
                # The lane must outlive whatever one round meets; the next round tries again, and the log says why this one failed.
                log.exception("webhook.failed", endpoint_id=self._target.endpoint_id)
            await _pause(self._stopping, period_s)


class Outbox:
    """All lanes."""

    def __init__(self, lanes: Mapping[str, Lane]) -> None:
        self._lanes = lanes

    def start(self) -> None:
        for lane in self._lanes.values():
            lane.start()

    def offer(self, events: Sequence[Event], deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            body = next(event.body for event in events if event.sequence == delivery.sequence)
            if body is not None:
                self._lanes[delivery.endpoint_id].offer(delivery, body)

    async def stop(self) -> None:
        await asyncio.gather(*(lane.stop() for lane in self._lanes.values()))


class Recoverer:
    """Asks one provider about its attempts that are due, a bounded number a tick. Each provider has one, so that a provider that hangs
    holds up nobody else's."""

    def __init__(self, provider: Method, *, store: Store, payments: Payments, clock: Clock, config: Recovery) -> None:
        self._provider = provider
        self._store = store
        self._payments = payments
        self._clock = clock
        self._config = config
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._loop())

    async def run_once(self) -> int:
        """Looks at what is due now; returns how many attempts that were."""
        due = self._store.due_attempts(self._provider, self._clock.now_ms(), self._config.inquiries_per_tick_max)
        await asyncio.gather(*(self._recover(attempt) for attempt in due))
        return len(due)

    async def stop(self) -> None:
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def _recover(self, due: Attempt) -> None:
        try:
            payment, attempt = await self._payments.recover(due)
        except Exception:
            # The others of this round must not suffer. This one stays due, and the log says why it failed.
            log.exception("recovery.failed", payment_id=due.payment_id, reference=due.reference)
            return
        log.info(
            "attempt.resolved" if attempt.due_at_ms is None else "attempt.open",
            payment_id=payment.id,
            reference=due.reference,
            was=due.state,
            state=attempt.state,
            status=payment.status,
            inquiries=attempt.inquiries,
        )

    async def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                await self.run_once()
            except Exception:
                log.exception("recovery.failed", provider=self._provider)  # the database could not be read: the next round will
            await _pause(self._stopping, self._config.interval_ms / 1000)


class Purger:
    """Forgets idempotency keys that have lapsed."""

    def __init__(self, *, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._loop())

    async def run_once(self) -> None:
        while await self._store.purge_claims(self._clock.now_ms() - CLAIM_LIFETIME_MS):
            pass

    async def stop(self) -> None:
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                await self.run_once()
            except Exception:
                log.exception("purge.failed")  # old keys stay for another minute
            await _pause(self._stopping, PURGE_S)


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    """Sleeps, but not beyond the end."""
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return
