"""Whose file it is, who may open it, and what is said to those who may not."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from gateway.core.errors import DatabaseLocked, SchemaTooNew, StoreError, VaultError
from gateway.ports import Done
from gateway.storage import export, schema, sqlite
from gateway.storage.sqlite import SqliteStore
from tests.gateway.doubles import KEY_ID, NOW_MS, intent

HOLDER = """
import sys
from pathlib import Path
from gateway.storage import schema
schema.lock(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the database open."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


async def open_and_close(path: Path, *, key_id: str = KEY_ID) -> None:
    await SqliteStore.open(path, vault_key_id=key_id).close()


async def test_a_second_gateway_is_refused_and_told_who_is_there(path: Path, holder: subprocess.Popen[str]):
    with pytest.raises(
        DatabaseLocked, match=rf"gateway\.db: another gateway \(process {holder.pid}\) uses this database.*--db"
    ):
        await open_and_close(path)
    with pytest.raises(DatabaseLocked, match=str(holder.pid)):  # being refused does not take the lock away
        await open_and_close(path)


async def test_the_lock_goes_when_its_holder_is_killed(path: Path, holder: subprocess.Popen[str]):
    os.kill(holder.pid, signal.SIGKILL)
    assert holder.wait(10) == -signal.SIGKILL
    await open_and_close(path)


async def test_the_lock_goes_when_the_store_closes(path: Path):
    first = SqliteStore.open(path, vault_key_id=KEY_ID)
    with pytest.raises(DatabaseLocked, match=str(os.getpid())):
        await open_and_close(path)
    await first.close()
    await open_and_close(path)


async def test_another_name_of_the_file_is_the_same_file(path: Path, holder: subprocess.Popen[str]):
    (path.parent / "alias.db").symlink_to(path)
    with pytest.raises(DatabaseLocked, match=str(holder.pid)):
        await open_and_close(path.parent / "alias.db")


async def test_a_newer_schema_is_refused_and_left_alone(path: Path):
    await open_and_close(path)
    with closing(apsw.Connection(str(path))) as database:
        database.execute(f"PRAGMA user_version={len(schema.MIGRATIONS) + 1}")
    before = path.read_bytes()
    known = len(schema.MIGRATIONS)
    with pytest.raises(
        SchemaTooNew,
        match=rf"gateway\.db: written by a newer paydrome \(schema {known + 1}, .* up to {known}\); upgrade paydrome",
    ):
        await open_and_close(path)
    assert path.read_bytes() == before


async def test_somebody_elses_database_is_refused_and_left_alone(path: Path):
    with closing(apsw.Connection(str(path))) as database:
        database.execute("CREATE TABLE bookmarks (url TEXT)")
    with pytest.raises(StoreError, match=r"gateway\.db: this SQLite database is not paydrome's; choose another file with --db"):
        await open_and_close(path)
    with closing(apsw.Connection(str(path))) as database:
        assert database.execute("SELECT name FROM sqlite_schema").fetchall() == [("bookmarks",)]


async def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path):
    path.write_bytes(b"Dear diary,\n" * 200)
    with pytest.raises(StoreError, match=r"gateway\.db: file is not a database"):
        await open_and_close(path)
    assert path.read_bytes() == b"Dear diary,\n" * 200


@pytest.mark.parametrize("spoil", ["version", "foreign", "key"])
async def test_a_refused_file_is_not_kept_locked(path: Path, spoil: str):
    await open_and_close(path)
    with closing(apsw.Connection(str(path))) as database:
        (kept,) = database.execute("PRAGMA application_id" if spoil == "foreign" else "PRAGMA user_version").fetchone()
        if spoil != "key":
            database.execute("PRAGMA application_id=1" if spoil == "foreign" else "PRAGMA user_version=99")
    with pytest.raises((StoreError, VaultError)):
        await open_and_close(path, key_id="another" if spoil == "key" else KEY_ID)
    with closing(apsw.Connection(str(path))) as database:
        if spoil != "key":
            database.execute(f"PRAGMA {'application_id' if spoil == 'foreign' else 'user_version'}={kept}")
    await open_and_close(path)


async def test_another_vault_key_is_refused_by_name(path: Path):
    await open_and_close(path)
    with pytest.raises(VaultError, match=f"sealed under vault key {KEY_ID}, but the key given is fedcba"):
        await open_and_close(path, key_id="fedcba")
    await open_and_close(path)


async def test_a_database_is_made_with_its_folder(tmp_path: Path):
    await open_and_close(tmp_path / "a" / "b" / "gateway.db")
    assert (tmp_path / "a" / "b" / "gateway.db").exists()


async def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises((StoreError, DatabaseLocked), match=r"file/gateway\.db: .*--db"):
        await open_and_close(tmp_path / "file" / "gateway.db")


async def test_commits_are_synced_to_the_disk_and_readers_do_not_wait(path: Path):
    with closing(schema.connect(path, read_only=False)) as writer:
        assert writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# Somebody with a shell


async def test_a_commit_waits_for_somebody_elses_transaction_and_the_loop_goes_on(path: Path):
    store = SqliteStore.open(path, vault_key_id=KEY_ID)
    with closing(apsw.Connection(str(path))) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(store.commit(intent(1)))
        for _ in range(5):  # the loop is free, and reads are served
            await asyncio.sleep(sqlite.BUSY_PAUSE_S / 2)
            assert store.payment(f"pay_{1:032x}") is None
        assert not waiting.done()
        other.execute("COMMIT")
    assert await waiting == Done()
    await store.close()


async def test_maintenance_waits_for_another_programs_transaction(path: Path):
    store = SqliteStore.open(path, vault_key_id=KEY_ID)
    await store.commit(intent(1))
    with closing(apsw.Connection(str(path))) as other:
        other.execute("BEGIN IMMEDIATE")
        waking = asyncio.create_task(store.wake_intents(NOW_MS))
        await store.read(lambda connection: None)
        assert not waking.done()
        other.execute("COMMIT")
    assert await waking == 1
    await store.close()


async def test_a_transaction_that_does_not_end_fails_commits_until_it_does(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sqlite, "BUSY_S_MAX", 0.05)
    store = SqliteStore.open(path, vault_key_id=KEY_ID)
    with closing(apsw.Connection(str(path))) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="database is locked"):
            await store.commit(intent(1))
        other.execute("COMMIT")
    assert await store.commit(intent(1)) == Done()
    await store.close()


# Export


async def test_the_export_reads_beside_a_running_gateway(path: Path):
    store = SqliteStore.open(path, vault_key_id=KEY_ID)
    await asyncio.gather(*(store.commit(intent(n)) for n in (1, 2)))
    assert [record["kind"] for record in export.records(path)] == ["payment"] * 2 + ["attempt"] * 2 + ["transaction"] * 2 + [
        "event"
    ] * 2
    await store.close()


def test_the_export_of_nothing_names_the_file(path: Path):
    with pytest.raises(StoreError, match=r"gateway\.db: no such file"):
        list(export.records(path))


def test_the_export_of_something_else_says_so(path: Path):
    path.write_bytes(b"Dear diary,\n" * 200)
    with pytest.raises(StoreError, match=r"gateway\.db: file is not a database"):
        list(export.records(path))
    path.unlink()
    apsw.Connection(str(path)).close()
    path.touch()
    with pytest.raises(StoreError, match=r"gateway\.db: not a paydrome database"):
        list(export.records(path))
