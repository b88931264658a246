from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.storage.sqlite import SqliteStore
from tests.gateway.doubles import KEY_ID, ManualClock


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore.open(tmp_path / "gateway.db", vault_key_id=KEY_ID)
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
