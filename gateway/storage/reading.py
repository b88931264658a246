"""Long reads (lists, reports, settlement, reconciliation) beside the event loop: a few threads, each with a connection of its own."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import apsw

from gateway.core.errors import StoreError, StoreFull
from gateway.storage import schema

READERS = 4  # SQLite works outside the interpreter's lock; a list does not wait though some of them are busy for seconds
READS_MAX = 64  # at once, the waiting ones included: a list takes milliseconds
STEPS = 100_000  # of SQLite's machine, about a millisecond: how often a read looks whether the store is closing

T = TypeVar("T")


class Readers:
    """The threads and connections start with the first read. Belongs to one event loop."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = ThreadPoolExecutor(READERS, "sqlite-read")
        self._idle: list[apsw.Connection] = []
        self._reads: set[asyncio.Future[Any]] = set()
        self._closing = False

    async def read(self, work: Callable[[apsw.Connection], T]) -> T:
        """See `ports.Store.read`."""
        if self._closing:
            raise StoreError("the store is closed")
        if len(self._reads) >= READS_MAX:
            raise StoreFull(f"{READS_MAX} reads are under way")
        read = asyncio.get_running_loop().run_in_executor(self._threads, self._snapshot, work)
        self._reads.add(read)
        read.add_done_callback(self._ended)
        return await asyncio.shield(read)  # a caller who leaves does not free the thread

    async def close(self) -> None:
        """Interrupts what is being read: it raises StoreError."""
        self._closing = True
        await asyncio.gather(*self._reads, return_exceptions=True)
        self._threads.shutdown()
        for connection in self._idle:
            connection.close()

    def _ended(self, read: asyncio.Future[Any]) -> None:
        self._reads.discard(read)
        read.exception()  # it has been seen, though whoever asked may have left

    def _snapshot(self, work: Callable[[apsw.Connection], T]) -> T:
        try:
            connection = self._take()
            connection.execute("BEGIN")
            try:
                return work(connection)
            finally:
                connection.execute("ROLLBACK")
                self._idle.append(connection)
        except apsw.InterruptError as error:
            raise StoreError("the store was closed while it was read") from error
        except apsw.Error as error:
            raise StoreError(f"{self._path}: {error}") from error

    def _take(self) -> apsw.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            pass
        connection = schema.connect(self._path, read_only=True)
        connection.set_progress_handler(lambda: self._closing, STEPS)
        return connection
