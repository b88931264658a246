"""The story of a reconciliation: begin, fetch, sort, compare, write.

run      commit 1 (key claimed, run `running`) -> the file, into a temporary one -> sorted with the books -> breaks -> last commit (counts)
resolve  a person's word about a break -> commit

The file is read and compared in threads, over one snapshot of the books, and nothing is written before all of it is. What is written
follows from the file and the books alone, so a run that was interrupted is simply done again. One run is at work at a time; breaks are
written under a lock, as a person may be resolving one of them.
"""

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date as calendar
from typing import Any, BinaryIO, Literal

import apsw
import msgspec
import structlog
from msgspec.structs import replace

from gateway.core.breaks import Break, Reconciled, explained, merged, missed_again, resolve
from gateway.core.errors import CallerError, FileRefused, GatewayError, StoreError, invalid, not_found
from gateway.core.payment import Method
from gateway.core.reconciliation import KINDS, FileFormat, Rules, Run, date_of
from gateway.flows.comparing import Comparison, Explained, Found
from gateway.flows.idempotency import IdempotencyKey, begin, still_running
from gateway.ports import Clock, Commit, Ids, InFlight, Response, SettlementFiles, Store
from gateway.providers.camt053 import camt053_rows
from gateway.providers.settlement_files import csv_rows
from gateway.storage import reconciliation as storage
from gateway.storage.reconciliation import BreaksAsked
from gateway.storage.sorting import Sides

ANSWER_S = 1.0  # callers wait 2 s (DOMAIN): a run that takes longer is answered while it is running
BREAKS_PER_COMMIT = 500  # 5 ms of the event loop
WAITING_MAX = 16  # runs at a time, of which one works: each holds a file on disk

log = structlog.get_logger("gateway.reconciliation")

RenderRun = Callable[[Run], Response]
RenderBreak = Callable[[Break], Response]


class Source(msgspec.Struct, frozen=True):
    """A provider's files: `files` None if they only come by upload. `currencies` are those that it has camt.053 statements of."""

    files: SettlementFiles | None
    currencies: Sequence[str]
    fee_basis_points: int | None


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    provider: Method
    date: str
    format: FileFormat


class _Stopping(GatewayError):
    """The gateway is."""


class Reconciliation:
    """`close` it before the store."""

    def __init__(
        self, *, store: Store, sources: Mapping[Method, Source], merchants: frozenset[str], clock: Clock, ids: Ids
    ) -> None:
        self._store = store
        self._sources = sources
        self._merchants = merchants
        self._clock = clock
        self._ids = ids
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by run: those of this process that are not done
        self._rows: dict[str, int] = {}  # how far they are
        self._turn = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._threads = ThreadPoolExecutor(1, "reconcile")
        self._stopping = False

    async def close(self) -> None:
        """What is at work stops within milliseconds; its run stays unfinished, and can be asked for again."""
        self._stopping = True
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._threads.shutdown()

    # Run

    async def run(self, ask: Ask, key: IdempotencyKey | None, render: RenderRun, uploaded: BinaryIO | None = None) -> Response:
        """Reconciles a day with the provider's file, or with one that was uploaded (and is closed here). Raises CallerError 400, 409, or
        422 for the key's sake. Answered when done, but after `ANSWER_S` at the latest: then the run is `running`."""
        handed_over = False
        try:
            self._check(ask, uploaded)
            async with self._writing:
                before = await self._store.read(lambda connection: storage.run_of(connection, ask.provider, ask.date))
                began = await self._begin(ask, before, key, "fetched" if uploaded is None else "uploaded")
            if isinstance(began, Response):
                return began
            if isinstance(began, InFlight):  # of a process that is gone: it is done again
                began = await self.found(began.subject_id)
                if began.id in self._tasks:
                    raise still_running()
            task = asyncio.get_running_loop().create_task(self._work(began, uploaded))
            handed_over = True
        finally:
            if uploaded is not None and not handed_over:
                uploaded.close()
        self._tasks[began.id] = task
        await asyncio.wait({task}, timeout=ANSWER_S)
        response = render(await self.found(began.id))
        if key is not None:
            await self._store.commit(Commit(response=key.answer(response)))
        return response

    def _check(self, ask: Ask, uploaded: BinaryIO | None) -> None:
        try:
            known = calendar.fromisoformat(ask.date).isoformat() == ask.date
        except ValueError:
            known = False
        if not known or not "1970-01-01" <= ask.date <= date_of(self._clock.now_ms()):
            raise invalid("date", "expected a day that has begun, as YYYY-MM-DD in UTC")
        if uploaded is None and self._sources[ask.provider].files is None:
            raise CallerError(
                409,
                "no_settlement_url",
                f"providers.{ask.provider}.settlement_url is not configured; upload the file instead",
            )
        if len(self._tasks) >= WAITING_MAX:
            raise CallerError(409, "too_many_runs", f"{WAITING_MAX} runs are under way; wait until one is done")

    async def _begin(
        self, ask: Ask, before: Run | None, key: IdempotencyKey | None, source: Literal["fetched", "uploaded"]
    ) -> Run | InFlight | Response:
        now_ms = self._clock.now_ms()
        fresh = Run(
            id=self._ids.new("rec") if before is None else before.id,
            provider=ask.provider,
            date=ask.date,
            format=ask.format,
            source=source,
            state="running",
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
        )
        if before is not None:
            told: dict[str, Any] = {"format": fresh.format, "source": fresh.source, "state": "running", "error": None}
            fresh = replace(before, **told, runs=before.runs + 1, updated_at_ms=now_ms)

        def decide() -> tuple[Commit, Run]:
            if fresh.id in self._tasks:
                raise CallerError(
                    409, "run_in_progress", f"run {fresh.id} of this day is still running; ask for it until it is done"
                )
            return Commit(reconciled=Reconciled(run=fresh)), fresh

        return await begin(decide, key, subject_id=fresh.id, store=self._store, commit=self._store.commit, clock=self._clock)

    async def _work(self, run: Run, uploaded: BinaryIO | None) -> None:
        files = [] if uploaded is None else [uploaded]
        try:
            async with self._turn:
                if uploaded is None:
                    await self._fetch(run, files)
                await self._reconcile(run, files)
        except (FileRefused, OSError) as error:
            log.warning("reconciliation.refused", run_id=run.id, provider=run.provider, date=run.date, reason=str(error))
            await self._fail(run, str(error))
        except Exception as error:
            log.exception("reconciliation.failed", run_id=run.id, provider=run.provider, date=run.date)
            await self._fail(run, f"a fault of the gateway ({type(error).__name__}); its log says more")
        finally:
            for file in files:
                file.close()
            self._tasks.pop(run.id, None)
            self._rows.pop(run.id, None)

    async def _fail(self, run: Run, error: str) -> None:
        failed = replace(run, state="failed", error=error, updated_at_ms=self._clock.now_ms())
        try:
            await self._store.commit(Commit(reconciled=Reconciled(run=failed)))
        except StoreError:
            log.exception("reconciliation.unwritten", run_id=run.id)  # it stays `running`, and is shown as interrupted

    async def _fetch(self, run: Run, files: list[BinaryIO]) -> None:
        source = self._sources[run.provider]
        assert source.files is not None
        for currency in source.currencies if run.format == "camt.053" else (None,):
            file = tempfile.TemporaryFile(prefix="paydrome-settlement-")  # noqa: SIM115 - closed by whoever gets it
            files.append(file)
            await source.files.fetch(run.date, run.format, file, currency=currency)
            file.seek(0)

    async def _reconcile(self, run: Run, files: Sequence[BinaryIO]) -> None:
        rules = Rules(run.provider, run.date, self._sources[run.provider].fee_basis_points)
        covered: set[str] | None = None if run.format == "csv" else set()
        loop, now_ms = asyncio.get_running_loop(), self._clock.now_ms()
        sides = await loop.run_in_executor(self._threads, self._sort, run, files, covered)

        def compare(connection: apsw.Connection) -> Found:
            try:
                comparison = Comparison(connection, rules, run_id=run.id, merchants=self._merchants, now_ms=now_ms)
                return comparison.run(sides, covered)
            finally:
                sides.close()

        found = await self._store.read(compare)
        await self._write(run, found, covered)

    def _sort(self, run: Run, files: Sequence[BinaryIO], covered: set[str] | None) -> Sides:
        sides = Sides(lambda rows: self._tick(run.id, rows))
        try:
            for file in files:
                sides.add_rows(csv_rows(file, run.date) if covered is None else camt053_rows(file, run.date, covered))
        except BaseException:
            sides.close()
            raise
        return sides

    def _tick(self, run_id: str, rows: int) -> None:
        """From the threads."""
        self._rows[run_id] = rows
        if self._stopping:
            raise _Stopping("the gateway is stopping")

    # Write

    async def _write(self, run: Run, found: Found, covered: set[str] | None) -> None:
        counts = dict.fromkeys(KINDS, 0)
        for start in range(0, len(found.carried), BREAKS_PER_COMMIT):
            carried = tuple(found.carried[start : start + BREAKS_PER_COMMIT])
            await self._store.commit(Commit(reconciled=Reconciled(carried=carried)))
        for start in range(0, len(found.breaks), BREAKS_PER_COMMIT):
            for one in await self._keep(found.breaks[start : start + BREAKS_PER_COMMIT]):
                counts[one.kind] += 1
        await self._close(run, found, covered)
        tally = found.tally
        done = replace(
            run,
            state="completed",
            error=None,
            rows=tally.rows,
            movements=tally.movements,
            matched=tally.matched,
            uncovered=tally.uncovered,
            updated_at_ms=self._clock.now_ms(),
            **counts,
        )
        await self._store.commit(Commit(reconciled=Reconciled(run=done)))
        log.info(
            "reconciliation.completed", run_id=run.id, provider=run.provider, date=run.date, matched=done.matched, **counts
        )

    async def _keep(self, fresh: Sequence[Break]) -> list[Break]:
        """Writes breaks that were found, as they are now with what is known of them already."""
        async with self._writing:
            ids = [one.id for one in fresh]
            before = await self._store.read(lambda connection: [storage.break_by_id(connection, one) for one in ids])
            after = [merged(known, one) for known, one in zip(before, fresh, strict=True)]
            changed = tuple(one for known, one in zip(before, after, strict=True) if one is not known)
            if changed:
                await self._store.commit(Commit(reconciled=Reconciled(breaks=changed)))
            return after

    async def _close(self, run: Run, found: Found, covered: set[str] | None) -> None:
        """Closes what this run explains: breaks of other days, and those of this file that are no longer so. What only this file had, and
        has no more, is missed again."""
        still = {one.id for one in found.breaks} | {one.break_id for one in found.explained}
        async with self._writing:
            of_file = await self._store.read(lambda connection: storage.breaks_of_file(connection, run.provider, run.date))
            unseen = [one for one in of_file if one.id not in still and (covered is None or one.currency in covered)]
            found_here = [one for one in unseen if one.entry_id is not None and one.found_date is not None]
            missed = await self._store.read(lambda connection: storage.of_other_days(connection, found_here, run.date))
            missed_ids = {one.id for one in missed}
            for start in range(0, len(missed), BREAKS_PER_COMMIT):
                now_ms = self._clock.now_ms()
                again = tuple(missed_again(one, now_ms=now_ms) for one in missed[start : start + BREAKS_PER_COMMIT])
                await self._store.commit(Commit(reconciled=Reconciled(breaks=again)))
            gone = [
                Explained(one.id, "no longer so when the day was reconciled again", one.found_date or run.date)
                for one in unseen
                if one.id not in missed_ids
            ]
            todo = [*found.explained, *gone]
            for start in range(0, len(todo), BREAKS_PER_COMMIT):
                await self._store.commit(await self._closed(todo[start : start + BREAKS_PER_COMMIT]))

    async def _closed(self, todo: Sequence[Explained]) -> Commit:
        now_ms = self._clock.now_ms()
        before = await self._store.read(lambda connection: [storage.break_by_id(connection, one.break_id) for one in todo])
        after = tuple(
            explained(one, note=why.note, found_date=None if why.found_date == one.date else why.found_date, now_ms=now_ms)
            for one, why in zip(before, todo, strict=True)
            if one is not None and one.status == "open"
        )
        carried = tuple(why.carried for why in todo if why.carried is not None)
        return Commit(reconciled=Reconciled(breaks=after, carried=carried))

    # Resolve

    async def resolve(
        self, by: str, merchant_id: str | None, break_id: str, note: str, key: IdempotencyKey | None, render: RenderBreak
    ) -> Response:
        """A person's word about a break. Raises CallerError 404, 409, or 422 for the key's sake."""
        async with self._writing:
            before = await self.break_(merchant_id, break_id)

            def decide() -> tuple[Commit, Response]:
                after = resolve(before, by=by, note=note, now_ms=self._clock.now_ms())
                response = render(after)
                answer = None if key is None else key.answer(response)
                return Commit(reconciled=Reconciled(breaks=(after,)), response=answer), response

            began = await begin(
                decide, key, subject_id=break_id, store=self._store, commit=self._store.commit, clock=self._clock
            )
            if isinstance(began, InFlight):
                raise still_running()
            return began

    # Read

    async def found(self, run_id: str) -> Run:
        """Raises CallerError 404. One that is under way has as many rows as were read so far; one whose process is gone has failed."""
        found = await self._runs(lambda connection: [storage.run_by_id(connection, run_id)])
        if not found:
            raise not_found("run")
        return found[0]

    async def runs(self, before_id: str, limit: int) -> list[Run]:
        return await self._runs(lambda connection: storage.runs(connection, before_id, limit))

    async def _runs(self, read: Callable[[apsw.Connection], Sequence[Run | None]]) -> list[Run]:
        for _ in range(2):  # one that ends while it is read looks as if nobody was at it: the second time it has ended
            found = [run for run in await self._store.read(read) if run is not None]
            lost = {run.id for run in found if run.state == "running"} - self._tasks.keys()
            if not lost:
                break
        return [self._now(run) for run in found]

    def _now(self, run: Run) -> Run:
        if run.state != "running":
            return run
        if run.id in self._tasks:
            return replace(run, rows=self._rows.get(run.id, 0))
        return replace(run, state="failed", error="interrupted: the gateway was stopped; run it again")

    async def break_(self, merchant_id: str | None, break_id: str) -> Break:
        """`merchant_id` None: the operator asks. Raises CallerError 404 if there is none, or if it is somebody else's."""
        found = await self._store.read(lambda connection: storage.break_by_id(connection, break_id))
        if found is None or merchant_id not in (None, found.merchant_id):
            raise not_found("break")
        return found

    async def breaks(self, asked: BreaksAsked) -> list[Break]:
        return await self._store.read(lambda connection: storage.breaks(connection, asked))
