"""A disk that fails below SQLite: what was acknowledged stays, what was not is an error, and the store goes on as soon as it can."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from gateway.core.errors import StoreError
from gateway.ports import Done
from gateway.storage import schema
from gateway.storage.sqlite import SqliteStore
from tests.gateway.doubles import KEY_ID, intent, make_claim

PAYMENTS = [f"pay_{n:032x}" for n in range(20)]


class Disk(apsw.VFS):
    """The operating system's files, until `fault` names an operation: sync or write."""

    def __init__(self) -> None:
        self.fault: str | None = None
        self.below = apsw.vfs_names()[0]
        super().__init__("faulty", self.below, makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        return File(self, name, flags)


class File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        super().__init__(disk.below, name, flags)

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self._disk.fault == "sync":
            raise apsw.IOError("disk I/O error")
        super().xSync(flags)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        if self._disk.fault == "write":
            raise apsw.FullError("database or disk is full")
        super().xWrite(data, offset)


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    apsw.set_default_vfs(disk.below)
    disk.unregister()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


@pytest.mark.parametrize(("fault", "said"), [("sync", "disk I/O error"), ("write", "disk is full")])
async def test_a_commit_that_the_disk_refuses_is_an_error_and_the_next_one_is_not(
    disk: Disk, path: Path, fault: str, said: str
):
    store = SqliteStore.open(path, vault_key_id=KEY_ID)
    assert await store.commit(intent(1)) == Done()
    disk.fault = fault
    with pytest.raises(StoreError, match=said):
        await store.commit(intent(2, claim=make_claim(payment=2)))
    assert store.healthy()
    disk.fault = None
    assert await store.commit(intent(3, claim=make_claim(payment=3))) == Done(), "the key was not kept by the failed commit"
    assert [store.payment(PAYMENTS[n]) is not None for n in (1, 2, 3)] == [True, False, True]
    await store.close()
    assert found_after_a_restart(path) == [PAYMENTS[1], PAYMENTS[3]]


async def test_what_was_acknowledged_before_the_disk_failed_is_there_after_a_crash(disk: Disk, path: Path, tmp_path: Path):
    store = SqliteStore.open(path, vault_key_id=KEY_ID)
    for n in range(10):
        assert await store.commit(intent(n)) == Done()
    disk.fault = "sync"
    for n in range(10, 12):
        with pytest.raises(StoreError):
            await store.commit(intent(n))
    disk.fault = None
    crashed = tmp_path / "crashed.db"  # the files as a crash would leave them now
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{crashed}{suffix}")
    assert found_after_a_restart(crashed)[:10] == PAYMENTS[:10]
    await store.close()


class Stuck:
    """A connection whose transaction cannot even be rolled back."""

    def __init__(self, inner: apsw.Connection) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def execute(self, sql: str, *arguments: Any) -> Any:
        if sql in ("COMMIT", "ROLLBACK"):
            raise apsw.IOError("disk I/O error")
        return self._inner.execute(sql, *arguments)


async def test_a_connection_that_cannot_roll_back_is_replaced(path: Path, monkeypatch: pytest.MonkeyPatch):
    store = SqliteStore.open(path, vault_key_id=KEY_ID)
    monkeypatch.setattr(store, "_writer", Stuck(store._writer))
    with pytest.raises(StoreError, match="disk I/O error"):
        await store.commit(intent(1))
    assert await store.commit(intent(2)) == Done()
    assert store.payment(PAYMENTS[1]) is None
    await store.close()


async def test_a_store_that_cannot_be_opened_again_says_so_and_is_unhealthy(path: Path, monkeypatch: pytest.MonkeyPatch):
    def cannot_open(*_: Any, **__: Any) -> apsw.Connection:
        raise apsw.CantOpenError("unable to open database file")

    store = SqliteStore.open(path, vault_key_id=KEY_ID)
    assert await store.commit(intent(1)) == Done()
    monkeypatch.setattr(store, "_writer", Stuck(store._writer))
    monkeypatch.setattr(schema, "connect", cannot_open)
    with pytest.raises(StoreError):
        await store.commit(intent(2))
    assert not store.healthy()
    with pytest.raises(StoreError, match="unable to open"):
        await store.commit(intent(3))
    assert store.payment(PAYMENTS[1]) is not None, "what can still be read is served"
    await store.close()
    assert found_after_a_restart(path) == [PAYMENTS[1]]


def found_after_a_restart(path: Path) -> list[str]:
    connection = apsw.Connection(str(path))
    try:
        return [row[0] for row in connection.execute("SELECT id FROM payments ORDER BY id")]
    finally:
        connection.close()
