"""What a store keeps of settlements: whole, in versions, an entry in one of them; and that asking for them looks at nothing else."""

from datetime import date
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from gateway.core import settlement as core
from gateway.core.errors import StoreError
from gateway.core.ledger import Entry, Posting
from gateway.core.settlement import Line, Payee, Settlement
from gateway.ports import Commit, Conflict, Done
from gateway.storage import schema, settlements
from gateway.storage.settlements import Place
from gateway.storage.sqlite import SqliteStore
from tests.gateway.doubles import NOW_MS

FIRST = core.begin(
    "set_1", merchant_id="m_1", day=date(2030, 3, 17), timezone="UTC", currency="INR", until_ms=NOW_MS, now_ms=NOW_MS
)
WHOLE = msgspec.structs.replace(
    FIRST,
    version=2,
    state="completed",
    reason="returned",
    sequence=3,
    lines=(Line(provider="card", captured_minor=5, captures=1), Line(provider="upi", refunds_minor=7, refunds=1)),
    opening_minor=-4,
    net_minor=-2,
    payouts=2,
    payee=Payee("000123456789", "HDFC0000001", "A. Payee"),
    provider_id="bank_1",
    utr="123456789012",
    inquiries=4,
    due_at_ms=NOW_MS + 1,
    updated_at_ms=NOW_MS + 2,
)


async def test_a_settlement_comes_back_as_it_was_written(store: SqliteStore):
    assert store.settlement("set_1") is None
    for written in (FIRST, WHOLE):
        assert await store.commit(Commit(settlement=written)) == Done()
        assert store.settlement("set_1") == written
    assert store.settlements_on("m_1", "2030-03-17") == [WHOLE]
    assert store.settlements_on("m_1", "2030-03-18") == store.settlements_on("m_2", "2030-03-17") == []


@pytest.mark.parametrize("version", [1, 3, 4])
async def test_another_version_than_the_next_is_a_conflict(store: SqliteStore, version: int):
    for written in (FIRST, WHOLE):
        await store.commit(Commit(settlement=written))
    entry = Entry("ent_1", "set_1", NOW_MS, (Posting("bank", "INR", 1, 0), Posting("payable:m_1", "INR", 0, 1)))
    later = msgspec.structs.replace(WHOLE, version=version, state="failed")
    expected = Done() if version == 3 else Conflict()
    assert await store.commit(Commit(settlement=later, entries=[entry])) == expected
    assert store.settlement("set_1") == (later if version == 3 else WHOLE)


async def test_an_entry_is_settled_once(store: SqliteStore):
    await store.commit(Commit(settlement=FIRST, settled=[("ent_1", "set_1"), ("ent_2", "set_1")]))
    other = msgspec.structs.replace(FIRST, id="set_2", currency="USD")
    with pytest.raises(StoreError):
        await store.commit(Commit(settlement=other, settled=[("ent_3", "set_2"), ("ent_1", "set_2")]))
    assert store.settlement("set_2") is None, "all or nothing"


async def test_a_day_has_one_settlement_in_each_currency(store: SqliteStore):
    await store.commit(Commit(settlement=FIRST))
    with pytest.raises(StoreError):
        await store.commit(Commit(settlement=msgspec.structs.replace(FIRST, id="set_2")))
    assert await store.commit(Commit(settlement=msgspec.structs.replace(FIRST, id="set_3", currency="USD"))) == Done()
    assert [made.id for made in store.settlements_on("m_1", "2030-03-17")] == ["set_1", "set_3"]


async def test_the_longest_due_come_first(store: SqliteStore):
    for n, due_at_ms in enumerate([NOW_MS + 5, NOW_MS, None, NOW_MS + 6]):
        made: Settlement = msgspec.structs.replace(FIRST, id=f"set_{n}", date=f"2030-03-{n + 1:02}", due_at_ms=due_at_ms)
        await store.commit(Commit(settlement=made))
    assert [found.id for found in store.due_settlements(NOW_MS + 5, 10)] == ["set_1", "set_0"]
    assert [found.id for found in store.due_settlements(NOW_MS + 5, 1)] == ["set_1"]


def test_nothing_is_searched_for_without_an_index(tmp_path: Path):
    connection = schema.connect(tmp_path / "gateway.db", read_only=False)
    schema.migrate(connection, tmp_path / "gateway.db")
    asked: list[tuple[str, Any]] = []

    def note(_: apsw.Cursor, sql: str, bindings: Any) -> bool:
        asked.append((sql, bindings))
        return True

    connection.exec_trace = note
    settlements.on_day(connection, "m_1", "2030-03-17")
    settlements.due(connection, NOW_MS, 10)
    settlements.ready(connection, "m_1", "2030-03-17")
    settlements.opening_minor(connection, FIRST)
    settlements.standing(connection, "m_1")
    settlements.unsettled(connection, "m_1", after=Place(0, ""), until_ms=NOW_MS, limit=10)
    settlements.balances(connection, "m_1", until_ms=NOW_MS)
    settlements.movements(connection, "set_1", after="", limit=10)
    settlements.lines(connection, "set_1")
    connection.exec_trace = None
    for sql, bindings in asked:
        plan = [row[-1] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", bindings)]
        scans = [step for step in plan if step.startswith("SCAN") and "(subquery" not in step and "CONSTANT" not in step]
        assert scans == [], sql
        if "LIMIT" in sql:
            assert not any("TEMP B-TREE FOR ORDER BY" in step for step in plan), (sql, plan)
    connection.close()
