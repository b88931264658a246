"""The store on SQLite: one writer with group commit, reads beside it.

Commits are values, so whatever is waiting when the disk is free goes into one transaction and shares one fsync. The statements run on
the event loop, as they only touch memory; the COMMIT, which waits for the disk, runs in a thread. (Running the statements in the
thread, too, makes it fight with the loop for the interpreter's lock at every row.)

Within a batch the conditions are checked in order against the database *and* against what the batch already accepted; one that
does not hold drops out alone. Only then the rows are written, statement by statement for the whole batch.
"""

import asyncio
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import apsw

from gateway.core.authentication import Authentication
from gateway.core.breaks import Reconciled
from gateway.core.dispute import Dispute
from gateway.core.dispute import Status as DisputeStatus
from gateway.core.endpoint import Endpoint
from gateway.core.errors import StoreError, StoreFull
from gateway.core.event import Event
from gateway.core.operation import Kind, Operation
from gateway.core.payment import Attempt, Method, Payment
from gateway.core.settlement import Settlement
from gateway.ports import (
    Card,
    Claim,
    Commit,
    Committed,
    Conflict,
    Delivery,
    Done,
    InFlight,
    Mismatch,
    Replay,
    Response,
    Transaction,
)
from gateway.storage import endpoints, reconciliation, rows, schema, settlements
from gateway.storage.reading import Readers

BATCH_MAX = 256  # bounds the time that one batch keeps the loop: about 20 ms
# Between the starts of two batches. A batch costs about 250 us of CPU beyond its rows, so a busy gateway should make fewer of them.
SPACING_S = 0.008
WAITING_MAX = 10_000  # commits; more than a second's worth of work that nobody has time for
BUSY_S_MAX, BUSY_PAUSE_S = 10.0, 0.02  # while another program holds the database's write lock
VERSIONS_MAX = 20_000  # payments whose version is known without asking: some seconds' worth, 3 MB
PURGE_MAX = 500  # claims a transaction

T = TypeVar("T")

_Waiting = tuple[Commit, "asyncio.Future[Committed]"]


class Batch:
    """What a group of accepted commits writes."""

    def __init__(self) -> None:
        self.versions: dict[str, int] = {}
        self.claims: dict[tuple[str, str], Claim] = {}
        self.writes: dict[str, list[rows.Row]] = {}

    def add(self, sql: str, row: rows.Row) -> None:
        self.writes.setdefault(sql, []).append(row)

    def accept(self, commit: Commit) -> None:
        if (claim := commit.claim) is not None:
            self.claims[claim.merchant_id, claim.key] = claim
            self.add(rows.WRITE_CLAIM, rows.claim_row(claim, commit.response))
        new = commit.payment is not None and commit.payment.version == 1
        if (payment := commit.payment) is not None:
            self.versions[payment.id] = payment.version
            if new:
                self.add(rows.INSERT_PAYMENT, rows.payment_row(payment))
            else:
                self.add(rows.UPDATE_PAYMENT, rows.payment_update(payment))
        if commit.settlement is not None:
            self.versions[commit.settlement.id] = commit.settlement.version
        if (attempt := commit.attempt) is not None:
            # A second attempt comes with a later version; an intent that is written again has had an inquiry.
            if new or (attempt.state == "intent" and not attempt.inquiries):
                self.add(rows.INSERT_ATTEMPT, rows.attempt_row(attempt))
            else:
                self.add(rows.UPDATE_ATTEMPT, rows.attempt_update(attempt))
        self._append(commit)

    def _append(self, commit: Commit) -> None:
        if commit.card is not None:
            self.add(rows.INSERT_CARD, rows.card_row(commit.card))
        if commit.authentication is not None:
            self.add(rows.WRITE_AUTHENTICATION, rows.authentication_row(commit.authentication))
        if commit.operation is not None:
            self.add(rows.WRITE_OPERATION, rows.operation_row(commit.operation))
        if commit.dispute is not None:
            self.add(rows.WRITE_DISPUTE, rows.dispute_row(commit.dispute))
        for entry in commit.entries:
            for row in rows.posting_rows(entry):
                self.add(rows.INSERT_POSTING, row)
        for event in commit.events:
            self.add(rows.INSERT_EVENT, rows.event_row(event))
        for delivery in commit.deliveries:
            self.add(rows.WRITE_DELIVERY, rows.delivery_row(delivery))
        if commit.endpoint is not None:
            self.add(endpoints.WRITE_ENDPOINT, endpoints.endpoint_row(commit.endpoint))
        if commit.settlement is not None:
            self.add(settlements.WRITE_SETTLEMENT, settlements.settlement_row(commit.settlement))
        for settled in commit.settled:
            self.add(settlements.INSERT_SETTLED, settled)
        if commit.reconciled is not None:
            self._append_reconciled(commit.reconciled)
        if commit.response is not None and commit.claim is None:
            self.add(rows.UPDATE_CLAIM, rows.response_update(commit.response))

    def _append_reconciled(self, found: Reconciled) -> None:
        if found.run is not None:
            self.add(reconciliation.WRITE_RUN, reconciliation.run_row(found.run))
        for one in found.breaks:
            self.add(reconciliation.WRITE_BREAK, reconciliation.break_row(one))
        for carried in found.carried:
            self.add(reconciliation.WRITE_CARRIED, reconciliation.carried_row(carried))


class SqliteStore:
    """Use `open`. Belongs to the event loop that is running then."""

    def __init__(self, path: Path, writer: apsw.Connection, reader: apsw.Connection, lock: int) -> None:
        self._path = path
        self._writer = writer
        self._reader = reader
        self._lock = lock
        self._waiting: deque[_Waiting] = deque()
        self._versions: dict[str, int] = {}  # of payments written lately; we are the only writer
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()  # one transaction at a time on the writer's connection
        self._closing = False
        self._broken: str | None = None  # why nothing can be written any more
        self._disk = ThreadPoolExecutor(1, "sqlite-commit")
        self._readers = Readers(path)
        self._payments: int = reader.execute("SELECT count(*) FROM payments").get
        self._transactions: int = reader.execute("SELECT count(*) FROM transactions").get
        self._task = asyncio.get_running_loop().create_task(self._run())

    @classmethod
    def open(cls, path: Path, *, vault_key_id: str) -> "SqliteStore":
        """Opens or makes the database. Raises DatabaseLocked, SchemaTooNew, VaultError or StoreError, each saying what to do."""
        path = path.resolve()  # two names of one file must meet at one lock
        try:
            lock = schema.lock(path)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}; choose another file with --db") from error
        try:
            writer = schema.connect(path, read_only=False)
            schema.migrate(writer, path)
            schema.bind_vault_key(writer, vault_key_id, path)
            writer.set_busy_timeout(0)  # on the event loop: `_begin` waits instead
            return cls(path, writer, schema.connect(path, read_only=True), lock)
        except apsw.Error as error:
            os.close(lock)
            raise StoreError(f"{path}: {error}") from error
        except BaseException:
            os.close(lock)
            raise

    async def commit(self, commit: Commit) -> Committed:
        if self._closing:
            raise StoreError("the store is closed")
        if self._broken is not None:
            raise StoreError(self._broken)
        if len(self._waiting) >= WAITING_MAX:
            raise StoreFull(f"{WAITING_MAX} commits are waiting for the disk")
        future: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        self._waiting.append((commit, future))
        self._wake.set()
        return await future

    async def close(self) -> None:
        self._closing = True
        self._wake.set()
        await self._task
        await self._readers.close()
        self._disk.shutdown()
        self._reader.close()
        self._writer.close()  # last: it may write, so closing it folds the log back into the database file
        os.close(self._lock)

    # Writing

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        started_s = 0.0
        while True:
            if not self._waiting:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            if (early_s := started_s + SPACING_S - loop.time()) > 0:
                await asyncio.sleep(early_s)
            started_s = loop.time()
            batch = [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]
            async with self._writing:
                await self._write(batch)

    async def _write(self, group: Sequence[_Waiting]) -> None:
        try:
            batch = Batch()
            await self._begin()
            results = self._statements([commit for commit, _ in group], batch)
            await asyncio.get_running_loop().run_in_executor(self._disk, self._writer.execute, "COMMIT")
        except Exception as error:  # whatever it was: those who wait have to hear of it, and the next batch has to go on
            self._undo()
            await self._recover(group, error)
            return
        self._remember(batch.versions)
        for (commit, future), result in zip(group, results, strict=True):
            if isinstance(result, Done):
                self._count(commit)
            if not future.done():  # its caller may have been cancelled; the commit stands
                future.set_result(result)

    def _count(self, commit: Commit) -> None:
        if commit.payment is not None and commit.payment.version == 1:
            self._payments += 1
            self._transactions += 1
        elif commit.operation is not None:
            self._transactions += any(event.type == "refund.created" for event in commit.events)
        elif commit.dispute is not None:
            self._transactions += any(entry.id.endswith("_opened") for entry in commit.entries)

    async def _begin(self) -> None:
        """Starts a transaction. Somebody with a shell may hold the write lock for a moment: the loop goes on meanwhile."""
        deadline_s = asyncio.get_running_loop().time() + BUSY_S_MAX
        while True:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
            except apsw.BusyError:
                if asyncio.get_running_loop().time() > deadline_s:
                    raise
                await asyncio.sleep(BUSY_PAUSE_S)
            else:
                return

    def _undo(self) -> None:
        """Rolls back. A connection that cannot even do that is replaced; if that fails, too, the store is done for."""
        self._versions.clear()  # a COMMIT that failed may have reached the disk all the same: ask the file again
        try:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        except apsw.Error:
            try:
                self._writer.close()
                self._writer = schema.connect(self._path, read_only=False)
                self._writer.set_busy_timeout(0)
            except apsw.Error as error:
                self._broken = f"{self._path}: {error}"

    async def _recover(self, group: Sequence[_Waiting], error: Exception) -> None:
        """A batch failed: try its commits one by one, so that one that cannot be written leaves the others whole."""
        if len(group) > 1 and self._broken is None:
            for waiting in group:
                await self._write([waiting])
            return
        for commit, future in group:
            first = commit.payment is not None and commit.payment.version == 1
            if future.done():
                continue
            if isinstance(error, apsw.ConstraintError) and first:
                future.set_result(Conflict())
            else:
                future.set_exception(StoreError(f"{self._path}: {error}"))

    def _remember(self, versions: dict[str, int]) -> None:
        self._versions.update(versions)
        while len(self._versions) > VERSIONS_MAX:
            del self._versions[next(iter(self._versions))]

    def _statements(self, commits: Sequence[Commit], batch: Batch) -> list[Committed]:
        results = []
        for commit in commits:
            refusal = self._refusal(commit, batch)
            if refusal is None:
                batch.accept(commit)
            results.append(refusal or Done())
        for sql, parameters in batch.writes.items():
            self._writer.executemany(sql, parameters)
        return results

    def _refusal(self, commit: Commit, batch: Batch) -> Committed | None:
        """What does not hold for this commit; None if all holds."""
        if commit.claim is not None and (refusal := self._claim_refusal(commit.claim, batch)) is not None:
            return refusal
        if (payment := commit.payment) is not None and self._stale(payment, "payments", batch):
            return Conflict()
        if (settlement := commit.settlement) is not None and self._stale(settlement, "settlements", batch):
            return Conflict()
        return None

    def _stale(self, written: Payment | Settlement, table: str, batch: Batch) -> bool:
        version = batch.versions.get(written.id, self._versions.get(written.id))
        if version is None and written.version > 1:
            version = self._writer.execute(f"SELECT version FROM {table} WHERE id=?", (written.id,)).get  # noqa: S608 - a constant
        return (version or 0) != written.version - 1

    def _claim_refusal(self, claim: Claim, batch: Batch) -> Committed | None:
        staged = batch.claims.get((claim.merchant_id, claim.key))
        if staged is not None:
            return InFlight(staged.subject_id) if staged.fingerprint == claim.fingerprint else Mismatch()
        return self._stored_claim(self._writer, claim)

    @staticmethod
    def _stored_claim(connection: apsw.Connection, claim: Claim) -> Replay | InFlight | Mismatch | None:
        row = connection.execute(
            "SELECT fingerprint, subject_id, response_status, response_body FROM claims"
            " WHERE merchant_id=? AND key=? AND created_at_ms>=?",
            (claim.merchant_id, claim.key, claim.expired_before_ms),
        ).fetchone()
        if row is None:
            return None
        fingerprint, subject_id, status, body = row
        if fingerprint != claim.fingerprint:
            return Mismatch()
        return InFlight(subject_id) if status is None else Replay(Response(status, body))

    # Maintenance: on the same connection, between batches

    async def wake_intents(self, now_ms: int) -> int:
        attempts = await self._maintain(
            "UPDATE attempts SET due_at_ms=? WHERE due_at_ms IS NOT NULL AND state='intent'", (now_ms,)
        )
        operations = "UPDATE operations SET due_at_ms=? WHERE due_at_ms IS NOT NULL AND state='pending'"
        authentications = "UPDATE authentications SET due_at_ms=? WHERE due_at_ms IS NOT NULL"
        return attempts + sum([await self._maintain(sql, (now_ms,)) for sql in (operations, authentications)])

    async def purge_claims(self, created_before_ms: int) -> int:
        sql = (
            f"DELETE FROM claims WHERE created_at_ms<? AND rowid IN (SELECT rowid FROM claims ORDER BY rowid LIMIT {PURGE_MAX})"  # noqa: S608 - a constant
        )
        return await self._maintain(sql, (created_before_ms,))

    async def bury_deliveries(self) -> int:
        buried = 0
        for endpoint_id in endpoints.gone(self._reader):
            while some := await self._maintain(endpoints.BURY, {"endpoint": endpoint_id, "most": endpoints.BURY_MAX}):
                buried += some
        return buried

    async def _maintain(self, sql: str, parameters: rows.Row | dict[str, Any]) -> int:
        """One statement in a transaction of its own. Returns the rows changed. Raises StoreError."""
        loop = asyncio.get_running_loop()
        async with self._writing:
            try:
                await self._begin()
                await loop.run_in_executor(self._disk, self._writer.execute, sql, parameters)
                changes = self._writer.changes()
                await loop.run_in_executor(self._disk, self._writer.execute, "COMMIT")
            except apsw.Error as error:
                self._undo()
                raise StoreError(f"{self._path}: {error}") from error
            return changes

    # Reading

    async def read(self, work: Callable[[apsw.Connection], T]) -> T:
        return await self._readers.read(work)

    def payment(self, payment_id: str) -> Payment | None:
        row = self._reader.execute("SELECT * FROM payments WHERE id=?", (payment_id,)).fetchone()
        return rows.payment(row) if row else None

    def attempt(self, reference: str) -> Attempt | None:
        row = self._reader.execute("SELECT * FROM attempts WHERE reference=?", (reference,)).fetchone()
        return rows.attempt(row) if row else None

    def attempt_of(self, payment_id: str) -> Attempt | None:
        prefix = f"att_{payment_id.removeprefix('pay_')}_"
        sql = "SELECT * FROM attempts WHERE reference>? AND reference<? ORDER BY reference DESC LIMIT 1"
        row = self._reader.execute(sql, (prefix, prefix + "~")).fetchone()
        return rows.attempt(row) if row else None

    def authentication(self, authentication_id: str) -> Authentication | None:
        row = self._reader.execute("SELECT * FROM authentications WHERE id=?", (authentication_id,)).fetchone()
        return rows.authentication(row) if row else None

    def card(self, token: str) -> Card | None:
        row = self._reader.execute("SELECT * FROM cards WHERE token=?", (token,)).fetchone()
        return rows.card(row) if row else None

    def due_authentications(self, provider: Method, now_ms: int, limit: int) -> list[Authentication]:
        sql = "SELECT * FROM authentications WHERE provider=? AND due_at_ms<=? ORDER BY due_at_ms LIMIT ?"
        return [rows.authentication(row) for row in self._reader.execute(sql, (provider, now_ms, limit))]

    def transaction(self, transaction_id: str) -> Transaction | None:
        serial = transaction_id.removeprefix("txn_")
        sql = (
            "SELECT * FROM transactions WHERE id=:id AND payment_id IN (:pay, (SELECT payment_id FROM operations WHERE id=:ref),"
            " (SELECT payment_id FROM disputes WHERE id=:dsp))"
        )
        keys = {"id": transaction_id, "pay": f"pay_{serial}", "ref": f"ref_{serial}", "dsp": f"dsp_{serial}"}
        row = self._reader.execute(sql, keys).fetchone()
        return rows.transaction(row) if row else None

    def due_attempts(self, provider: Method, now_ms: int, limit: int) -> list[Attempt]:
        sql = "SELECT * FROM attempts WHERE provider=? AND due_at_ms<=? ORDER BY due_at_ms LIMIT ?"
        return [rows.attempt(row) for row in self._reader.execute(sql, (provider, now_ms, limit))]

    def claimed(self, claim: Claim) -> Replay | InFlight | Mismatch | None:
        return self._stored_claim(self._reader, claim)

    def operation(self, operation_id: str) -> Operation | None:
        row = self._reader.execute("SELECT * FROM operations WHERE id=?", (operation_id,)).fetchone()
        return rows.operation(row) if row else None

    def operations_of(self, payment_id: str, kind: Kind, limit: int) -> list[Operation]:
        prefix = "cap_" if kind == "capture" else "ref_"
        sql = "SELECT * FROM operations WHERE payment_id=? AND id>? AND id<? ORDER BY id DESC LIMIT ?"
        return [rows.operation(row) for row in self._reader.execute(sql, (payment_id, prefix, prefix + "~", limit))]

    def due_operations(self, provider: Method, now_ms: int, limit: int) -> list[Operation]:
        sql = "SELECT * FROM operations WHERE provider=? AND due_at_ms<=? ORDER BY due_at_ms LIMIT ?"
        return [rows.operation(row) for row in self._reader.execute(sql, (provider, now_ms, limit))]

    def dispute(self, dispute_id: str) -> Dispute | None:
        row = self._reader.execute("SELECT * FROM disputes WHERE id=?", (dispute_id,)).fetchone()
        return rows.dispute(row) if row else None

    def dispute_at(self, provider: Method, provider_id: str) -> Dispute | None:
        sql = "SELECT * FROM disputes WHERE provider=? AND provider_id=?"
        row = self._reader.execute(sql, (provider, provider_id)).fetchone()
        return rows.dispute(row) if row else None

    def disputes_of(self, payment_id: str, limit: int) -> list[Dispute]:
        sql = "SELECT * FROM disputes WHERE payment_id=? ORDER BY id DESC LIMIT ?"
        return [rows.dispute(row) for row in self._reader.execute(sql, (payment_id, limit))]

    def disputes(self, merchant_id: str, *, status: DisputeStatus | None, before_id: str, limit: int) -> list[Dispute]:
        having, values = ("", ()) if status is None else (" AND status=?", (status,))
        sql = f"SELECT * FROM disputes WHERE merchant_id=? AND id<?{having} ORDER BY id DESC LIMIT ?"  # noqa: S608 - a constant
        return [rows.dispute(row) for row in self._reader.execute(sql, (merchant_id, before_id, *values, limit))]

    def events_of(self, subject_id: str, after: int, limit: int) -> list[Event]:
        sql = "SELECT * FROM events WHERE subject_id=? AND sequence>? ORDER BY sequence LIMIT ?"
        return [rows.event(row) for row in self._reader.execute(sql, (subject_id, after, limit))]

    def settlement(self, settlement_id: str) -> Settlement | None:
        return settlements.settlement(self._reader, settlement_id)

    def settlements_on(self, merchant_id: str, date: str) -> list[Settlement]:
        return settlements.on_day(self._reader, merchant_id, date)

    def due_settlements(self, now_ms: int, limit: int) -> list[Settlement]:
        return settlements.due(self._reader, now_ms, limit)

    def due_disputes(self, provider: Method, now_ms: int, limit: int) -> list[Dispute]:
        sql = "SELECT * FROM disputes WHERE provider=? AND due_at_ms<=? ORDER BY due_at_ms LIMIT ?"
        return [rows.dispute(row) for row in self._reader.execute(sql, (provider, now_ms, limit))]

    def due_deliveries(self, endpoint_id: str, now_ms: int, limit: int) -> list[tuple[Delivery, bytes]]:
        sql = (
            "SELECT d.*, e.body FROM deliveries d JOIN events e ON e.subject_id=d.subject_id AND e.sequence=d.sequence"
            " WHERE d.endpoint_id=? AND d.due_at_ms<=? AND NOT EXISTS (SELECT 1 FROM deliveries b WHERE b.endpoint_id=d.endpoint_id"
            " AND b.subject_id=d.subject_id AND b.sequence<d.sequence AND b.due_at_ms IS NOT NULL) ORDER BY d.due_at_ms LIMIT ?"
        )
        return [(rows.delivery(row[:-1]), row[-1]) for row in self._reader.execute(sql, (endpoint_id, now_ms, limit))]

    def pending_deliveries(self, endpoint_id: str) -> int:
        sql = "SELECT count(*) FROM deliveries WHERE endpoint_id=? AND due_at_ms IS NOT NULL"
        count: int = self._reader.execute(sql, (endpoint_id,)).get
        return count

    def delivery(self, endpoint_id: str, subject_id: str, sequence: int) -> Delivery | None:
        sql = "SELECT * FROM deliveries WHERE endpoint_id=? AND subject_id=? AND sequence=?"
        row = self._reader.execute(sql, (endpoint_id, subject_id, sequence)).fetchone()
        return rows.delivery(row) if row else None

    def dead_deliveries(self, endpoint_id: str, limit: int) -> list[Delivery]:
        where = "endpoint_id=? AND state='dead' ORDER BY subject_id, sequence LIMIT ?"
        sql = f"SELECT * FROM deliveries INDEXED BY deliveries_dead WHERE {where}"  # noqa: S608 - a constant
        return [rows.delivery(row) for row in self._reader.execute(sql, (endpoint_id, limit))]

    def endpoints(self) -> list[Endpoint]:
        return [endpoints.endpoint(row) for row in self._reader.execute("SELECT * FROM endpoints ORDER BY id")]

    def healthy(self) -> bool:
        return self._broken is None and not self._closing and not self._task.done()

    def totals(self) -> tuple[int, int]:
        return self._payments, self._transactions
