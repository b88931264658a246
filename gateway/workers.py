"""What goes on beside the requests: asking about what is open, settling days, forgetting old keys. The outbox has queues of its own:
flows/outbox.py.

Each worker is a loop around something that can be run once. They stop between two pieces of work, so that nothing is half done.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import date

import structlog

from gateway.config import Recovery, Settlement
from gateway.core.payment import Method
from gateway.flows.disbursements import Disbursements
from gateway.flows.disputes import Disputes
from gateway.flows.idempotency import CLAIM_LIFETIME_MS
from gateway.flows.operations import Operations
from gateway.flows.outbox import pause
from gateway.flows.payments import Payments
from gateway.flows.settlements import Settlements
from gateway.ports import Clock, Store

log = structlog.get_logger("gateway.workers")

PURGE_S = 60.0
SETTLE_S = 1.0
SETTLE_AGAIN_MS = 60_000  # after a run that failed
PAYOUTS_PER_TICK_MAX = 25  # asked about, a second
SETTLE_STOP_S_MAX = (
    5.0  # a call to the bank ends within that; a day with a million entries does not, and is continued at the next start
)


class Recoverer:
    """Asks one provider about its attempts that are due, a bounded number a tick. Each provider has one, so that a provider that hangs
    holds up nobody else's."""

    def __init__(
        self,
        provider: Method,
        *,
        store: Store,
        payments: Payments,
        operations: Operations,
        disputes: Disputes,
        clock: Clock,
        config: Recovery,
    ) -> None:
        self._provider = provider
        self._store = store
        self._payments = payments
        self._operations = operations
        self._disputes = disputes
        self._clock = clock
        self._config = config
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._loop())

    async def run_once(self) -> int:
        """Looks at what is due now: attempts, captures and refunds, authentications, disputes. Returns how many those were."""
        asked = self._provider, self._clock.now_ms(), self._config.inquiries_per_tick_max
        work = [
            self._recover(attempt.reference, self._payments.attempts.recover(attempt))
            for attempt in self._store.due_attempts(*asked)
        ]
        work += [self._recover(due.id, self._operations.recover(due)) for due in self._store.due_operations(*asked)]
        authentications = self._payments.authentications
        work += [self._recover(due.id, authentications.recover(due)) for due in self._store.due_authentications(*asked)]
        work += [self._recover(due.id, self._disputes.recover(due)) for due in self._store.due_disputes(*asked)]
        await asyncio.gather(*work)
        return len(work)

    async def stop(self) -> None:
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def _recover(self, reference: str, asking: Awaitable[str]) -> None:
        try:
            state = await asking
        except Exception:
            # The others of this round must not suffer. This one stays due, and the log says why it failed.
            log.exception("recovery.failed", reference=reference)
            return
        log.info("recovery.asked", reference=reference, state=state)

    async def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                await self.run_once()
            except Exception:
                log.exception("recovery.failed", provider=self._provider)  # the database could not be read: the next round will
            await pause(self._stopping, self._config.interval_ms / 1000)


class Settler:
    """Settles each merchant's days once they are over, and those that were missed; asks about payouts that are due."""

    def __init__(
        self,
        *,
        store: Store,
        settlements: Settlements,
        disbursements: Disbursements,
        merchants: Sequence[str],
        clock: Clock,
        config: Settlement,
    ) -> None:
        self._store = store
        self._settlements = settlements
        self._disbursements = disbursements
        self._clock = clock
        self._delay_ms = config.delay_ms
        self._due_ms = dict.fromkeys(merchants, 0) if config.automatic else {}  # when each one is to be looked at
        self._settled: dict[str, date] = {}  # the last day of each
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._loop())

    async def run_once(self) -> None:
        now_ms = self._clock.now_ms()
        for due in self._store.due_settlements(now_ms, PAYOUTS_PER_TICK_MAX):
            await self._guarded(self._disbursements.recover(due), settlement_id=due.id)
        for merchant_id, due_ms in self._due_ms.items():
            day = self._settlements.yesterday(merchant_id, now_ms - self._delay_ms)
            if now_ms < due_ms or self._settled.get(merchant_id) == day:
                continue
            if await self._guarded(self._settlements.run(merchant_id, day), merchant_id=merchant_id):
                self._settled[merchant_id] = day
            else:
                self._due_ms[merchant_id] = now_ms + SETTLE_AGAIN_MS

    async def stop(self) -> None:
        self._stopping.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=SETTLE_STOP_S_MAX)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _guarded(self, work: Awaitable[object], **about: str) -> bool:
        """Whether it went well. If not, the others of this round must not suffer."""
        try:
            await work
        except Exception:
            log.exception("settlement.failed", **about)
            return False
        return True

    async def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                await self.run_once()
            except Exception:
                log.exception("settlement.failed")  # the database could not be read: the next round will
            await pause(self._stopping, SETTLE_S)


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
            await pause(self._stopping, PURGE_S)
