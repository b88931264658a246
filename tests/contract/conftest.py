"""The adapters that the suites run over."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.ports import Store
from gateway.storage import export, sqlite
from gateway.storage.sqlite import SqliteStore
from tests.gateway.doubles import KEY_ID


class SqliteAdapter:
    """A store on a file of its own. `records` reads the file by another connection, so it sees what is in the file and nothing else."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._path = path
        self._monkeypatch = monkeypatch
        self._opened: list[Store] = []
        monkeypatch.setattr(sqlite, "SPACING_S", 0.0)  # it pays under load only

    def open(self) -> Store:
        store = SqliteStore.open(self._path, vault_key_id=KEY_ID)
        self._opened.append(store)
        return store

    def records(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in export.records(self._path) if record["kind"] == kind]

    def limit_waiting(self, commits: int) -> None:
        self._monkeypatch.setattr(sqlite, "WAITING_MAX", commits)

    async def close(self, store: Store) -> None:
        self._opened.remove(store)
        await store.close()

    async def clean_up(self) -> None:
        for store in self._opened[:]:
            await self.close(store)


@pytest.fixture(params=[SqliteAdapter])
async def adapter(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SqliteAdapter]:
    made = request.param(tmp_path / "store.db", monkeypatch)
    yield made
    await made.clean_up()


@pytest.fixture
async def store(adapter: SqliteAdapter) -> Store:
    return adapter.open()
