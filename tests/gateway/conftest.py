from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.storage import sqlite
from gateway.storage.sqlite import SqliteStore
from tests.gateway.doubles import KEY_ID, ManualClock


@pytest.fixture(autouse=True)
def commits_without_spacing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store waits between batches so that busy moments share them; tests are not busy, and there are many of them."""
    monkeypatch.setattr(sqlite, "SPACING_S", 0.0)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore.open(tmp_path / "gateway.db", vault_key_id=KEY_ID)
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
