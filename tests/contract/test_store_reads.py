"""`Store.read`: one snapshot, in a thread, and what becomes of it when things go wrong."""

import asyncio
import threading

import apsw
import pytest

from gateway.core.errors import StoreError, StoreFull
from gateway.ports import Store
from gateway.storage import reading
from tests.contract.conftest import SqliteAdapter
from tests.gateway.doubles import intent

FOREVER = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def payments(connection: apsw.Connection) -> int:
    counted: int = connection.execute("SELECT count(*) FROM payments").get
    return counted


async def held(store: Store) -> tuple[asyncio.Task[list[int]], threading.Event]:
    """A read that counts payments, waits for the event, and counts again. It has counted once when this returns."""
    loop, counted, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def work(connection: apsw.Connection) -> list[int]:
        before = payments(connection)
        loop.call_soon_threadsafe(counted.set)
        assert go_on.wait(10)
        return [before, payments(connection)]

    task = asyncio.create_task(store.read(work))
    await counted.wait()
    return task, go_on


async def test_a_read_sees_every_commit_that_answered(store: Store):
    for n in range(1, 6):
        await store.commit(intent(n))
        assert await store.read(payments) == n


async def test_a_read_sees_one_snapshot_while_others_write(store: Store):
    await store.commit(intent(1))
    task, go_on = await held(store)
    await store.commit(intent(2))
    go_on.set()
    assert await task == [1, 1]
    assert await store.read(payments) == 2


async def test_a_read_cannot_write(store: Store):
    with pytest.raises(StoreError, match="readonly"):
        await store.read(lambda connection: connection.execute("DELETE FROM payments").fetchall())


async def test_a_faulty_query_is_a_store_error_and_the_next_read_is_well(store: Store):
    for _ in range(reading.READERS + 1):
        with pytest.raises(StoreError, match="no such table"):
            await store.read(lambda connection: connection.execute("SELECT * FROM nowhere").fetchall())
    assert await store.read(payments) == 0


async def test_what_the_work_raises_comes_through_and_the_next_read_is_well(store: Store):
    def fail(connection: apsw.Connection) -> None:
        connection.execute("SELECT * FROM payments")
        raise ArithmeticError("mine")

    for _ in range(reading.READERS + 1):
        with pytest.raises(ArithmeticError, match="mine"):
            await store.read(fail)
    assert await store.read(payments) == 0


async def test_too_many_reads_at_once_are_refused_and_the_others_answered(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading, "READS_MAX", 3)
    task, go_on = await held(store)
    others = [asyncio.create_task(store.read(payments)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(StoreFull):
        await store.read(payments)
    go_on.set()
    assert await asyncio.gather(*others) == [0, 0]
    assert await task == [0, 0]
    assert await store.read(payments) == 0


async def test_a_caller_who_leaves_does_not_disturb_the_others(store: Store):
    task, go_on = await held(store)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.gather(*(store.read(payments) for _ in range(5))) == [0] * 5
    go_on.set()


async def test_closing_interrupts_what_is_being_read_and_refuses_what_comes(adapter: SqliteAdapter):
    store = adapter.open()
    endless = [
        asyncio.create_task(store.read(lambda connection: connection.execute(FOREVER).fetchall()))
        for _ in range(reading.READERS + 2)
    ]
    await asyncio.sleep(0)
    await adapter.close(store)
    for outcome in await asyncio.gather(*endless, return_exceptions=True):
        assert isinstance(outcome, StoreError)
    with pytest.raises(StoreError, match="closed"):
        await store.read(payments)
