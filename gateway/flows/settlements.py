"""The story of a settlement: collect a day's entries, close it, have it paid.

run  each day that is over and not settled yet: settlements (one for each currency) that collect its entries, some hundred in a commit;
     then, in one commit, what they come to, what providers remit for it, and the event. What waits to be paid is ordered from the bank
     (disbursements.py)

Whatever is interrupted goes on where it was: an entry is in one settlement or in none, a settlement that is `computing` is continued, a
payout that may have been ordered is asked about.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import date, tzinfo
from functools import partial

import structlog

from gateway.config import Merchant, time_zone
from gateway.core import settlement as core
from gateway.core.days import DAY, day_of, end_ms
from gateway.core.errors import CallerError, StoreError, not_found
from gateway.core.settlement import ASKED_STATES, Settlement
from gateway.flows.disbursements import Disbursements
from gateway.flows.idempotency import IdempotencyKey, Running, Turns, begin
from gateway.flows.publishing import Publisher
from gateway.ports import Clock, Commit, Done, Ids, Response, Store
from gateway.runtime import rfc3339
from gateway.storage import settlements as storage
from gateway.storage.settlements import Movement, Place

PAGE = 500  # entries a commit: about 2 ms of the event loop

log = structlog.get_logger("gateway.settlements")

Render = Callable[[Sequence[Settlement]], Response]


class Settlements:
    def __init__(
        self,
        *,
        store: Store,
        disbursements: Disbursements,
        merchants: Sequence[Merchant],
        clock: Clock,
        ids: Ids,
        publisher: Publisher,
        early: bool = False,
    ) -> None:
        """`early`: today may be settled, too, up to the moment at which it is asked for; what is booked later is in the next day's."""
        self._store = store
        self._disbursements = disbursements
        self._timezones = {merchant.id: merchant.timezone for merchant in merchants}
        self._zones = {merchant.id: time_zone(merchant.timezone) for merchant in merchants}
        self._clock = clock
        self._ids = ids
        self._publisher = publisher
        self._early = early
        self._turns = Turns()  # of merchants, whose days are closed one after the other
        self._running = Running()

    # Process

    async def process(self, merchant_id: str, day: date, key: IdempotencyKey | None, render: Render) -> Response:
        """Settles a day, and those before it that were missed; pays, also what could not be paid before. Raises CallerError 409 for a day
        that is not over, 409 or 422 for the key's sake."""
        with self._running.of(key):
            return await self._process(merchant_id, day, key, render)

    async def _process(self, merchant_id: str, day: date, key: IdempotencyKey | None, render: Render) -> Response:
        def decide() -> tuple[Commit, None]:
            self._check_over(merchant_id, day)
            return Commit(), None

        subject_id = f"{merchant_id}/{day}"
        began = await begin(decide, key, subject_id=subject_id, store=self._store, commit=self._store.commit, clock=self._clock)
        if isinstance(began, Response):
            return began
        # InFlight: by a process that is gone. What it did is found, the rest is done here.
        for settlement in self.on(merchant_id, day):
            if settlement.state == "failed":
                await self._disbursements.pay(settlement)
            elif settlement.state in ASKED_STATES:
                await self._disbursements.recover(settlement)
        await self.run(merchant_id, day)
        response = render(self.on(merchant_id, day))
        if key is not None:
            await self._store.commit(Commit(response=key.answer(response)))
        return response

    def _check_over(self, merchant_id: str, day: date) -> None:
        now_ms, zone = self._clock.now_ms(), self._zones[merchant_id]
        today = day_of(now_ms, zone)
        if day > today or (day == today and not self._early):
            until = f", today until {rfc3339(end_ms(day, zone))}" if day == today else ""
            name = self.timezone(merchant_id)
            raise CallerError(
                409, "day_not_over", f"date: {day} is not over in {name}{until}; a day is settled after it", "date"
            )

    async def run(self, merchant_id: str, day: date) -> None:
        """Settles what is not settled up to the end of a day that is over, and pays what waits to be paid."""
        async with self._turns.of(merchant_id):
            while (missed := await self._next(merchant_id, day)) is not None:
                await self._close_day(merchant_id, *missed)
        for settlement in await self._store.read(partial(storage.ready, merchant_id=merchant_id, until=day.isoformat())):
            await self._disbursements.pay(settlement)

    # Close

    async def _next(self, merchant_id: str, day: date) -> tuple[date, int] | None:
        """The first day, up to `day`, that is to be settled, and from when on entries may be in no settlement."""
        standing = await self._store.read(partial(storage.standing, merchant_id=merchant_id))
        if standing.computing is not None:
            return standing.computing, standing.since_ms
        zone = self._zones[merchant_id]
        work = partial(
            storage.unsettled,
            merchant_id=merchant_id,
            after=Place(standing.since_ms, ""),
            until_ms=self._until_ms(day, zone),
            limit=1,
        )
        if not (oldest := await self._store.read(work)):
            return None
        # What came too late for its own day, which is settled, is in the next one.
        first = day_of(oldest[0].place.created_at_ms, zone)
        due = first if standing.last is None else max(first, standing.last + DAY)
        return (due, standing.since_ms) if due <= day else None

    async def _close_day(self, merchant_id: str, day: date, since_ms: int) -> None:
        made = {settlement.currency: settlement for settlement in self.on(merchant_id, day)}
        zone = self._zones[merchant_id]
        until_ms = max((settlement.until_ms for settlement in made.values()), default=self._until_ms(day, zone))
        page, after = PAGE, Place(since_ms, "")
        while page == PAGE:
            work = partial(storage.unsettled, merchant_id=merchant_id, after=after, until_ms=until_ms, limit=PAGE)
            entries = await self._store.read(work)
            collected: defaultdict[str, list[str]] = defaultdict(list)
            for entry in entries:
                collected[entry.currency].append(entry.place.entry_id)
                after = entry.place
            for currency, entry_ids in collected.items():
                if currency not in made:
                    made[currency] = await self._collect(self._new(merchant_id, day, currency, until_ms), entry_ids, new=True)
                elif made[currency].state == "computing":
                    await self._collect(made[currency], entry_ids)
            page = len(entries)
        for settlement in made.values():
            if settlement.state == "computing":
                await self._close(settlement)

    def _until_ms(self, day: date, zone: tzinfo) -> int:
        """Up to when a day's entries are there: its end, or now."""
        return min(end_ms(day, zone), self._clock.now_ms() + 1)

    def _new(self, merchant_id: str, day: date, currency: str, until_ms: int) -> Settlement:
        return core.begin(
            self._ids.new("set"),
            merchant_id=merchant_id,
            day=day,
            timezone=self.timezone(merchant_id),
            currency=currency,
            until_ms=until_ms,
            now_ms=self._clock.now_ms(),
        )

    async def _collect(self, settlement: Settlement, entry_ids: list[str], *, new: bool = False) -> Settlement:
        settled = [(entry_id, settlement.id) for entry_id in entry_ids]
        committed = await self._store.commit(Commit(settlement=settlement if new else None, settled=settled))
        if not isinstance(committed, Done):
            raise StoreError(f"settlement id {settlement.id} was given out twice")
        return settlement

    async def _close(self, settlement: Settlement) -> None:
        lines = await self._store.read(partial(storage.lines, settlement_id=settlement.id))
        opening_minor = await self._store.read(partial(storage.opening_minor, of=settlement))
        now_ms = self._clock.now_ms()
        work = core.close(settlement, lines, opening_minor, now_ms=now_ms, timestamp=rfc3339(now_ms))
        commit = Commit(settlement=work.settlement, entries=work.entries, events=work.events)
        if not isinstance(await self._publisher.commit(commit), Done):
            raise StoreError(f"settlement {settlement.id} was closed by somebody else")
        closed = work.settlement
        log.info("settlement.closed", settlement_id=closed.id, date=closed.date, entries=closed.entries, state=closed.state)

    # Read

    def timezone(self, merchant_id: str) -> str:
        return self._timezones[merchant_id]

    def yesterday(self, merchant_id: str, now_ms: int) -> date:
        """The last day that is over for a merchant."""
        return day_of(now_ms, self._zones[merchant_id]) - DAY

    def settlement(self, merchant_id: str, settlement_id: str) -> Settlement:
        """Raises CallerError 404 if there is none, or if it is somebody else's."""
        settlement = self._store.settlement(settlement_id)
        if settlement is None or settlement.merchant_id != merchant_id:
            raise not_found("settlement")
        return settlement

    def on(self, merchant_id: str, day: date) -> list[Settlement]:
        """A merchant's settlements of a day, one for each currency."""
        return self._store.settlements_on(merchant_id, day.isoformat())

    async def unsettled(self, merchant_id: str, day: date) -> list[tuple[str, int, int]]:
        """(currency, net amount, entries) of what was made up to the end of a day and is in no settlement."""
        now_ms, zone = self._clock.now_ms(), self._zones[merchant_id]
        until_ms = end_ms(day, zone) if day < day_of(now_ms, zone) else now_ms + 1
        return await self._store.read(partial(storage.balances, merchant_id=merchant_id, until_ms=until_ms))

    async def movements(self, settlement: Settlement, *, after: str, limit: int) -> list[Movement]:
        """A settlement's entries with ids after `after`, in the order of ids."""
        work = partial(storage.movements, settlement_id=settlement.id, after=after, limit=limit)
        return await self._store.read(work)
