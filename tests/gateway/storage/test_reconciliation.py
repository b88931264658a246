"""A day's movements and a page of breaks are found by an index: their cost does not grow with the tables."""

from pathlib import Path

import apsw
import pytest

from gateway.core.reconciliation import Rules
from gateway.storage import reconciliation, schema
from gateway.storage.reconciliation import BreaksAsked


@pytest.fixture
def connection(tmp_path: Path) -> apsw.Connection:
    path = tmp_path / "gateway.db"
    made = schema.connect(path, read_only=False)
    schema.migrate(made, path)
    return made


def plans(connection: apsw.Connection, run: object) -> list[str]:
    """How SQLite goes about the statements that `run` executes."""
    seen: list[tuple[str, object]] = []
    connection.exec_trace = lambda _, sql, bindings: seen.append((sql, bindings)) or True
    run()  # type: ignore[operator]
    connection.exec_trace = None
    return [
        detail for sql, bindings in seen for *_, detail in connection.execute(f"EXPLAIN QUERY PLAN {sql}", bindings).fetchall()
    ]


@pytest.mark.parametrize("provider", ["card", "netbanking"])
def test_a_day_is_a_range_of_an_index(connection, provider):
    found = plans(connection, lambda: list(reconciliation.booked_on(connection, Rules(provider, "2030-03-17"))))
    assert "SEARCH p USING INDEX postings_of_provider (account=? AND created_at_ms>? AND created_at_ms<?)" in found
    assert [one for one in found if one.startswith("SCAN")] == []


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"status": "open"},
        {"merchant_id": "m"},
        {"merchant_id": "m", "status": "open", "kind": "late", "provider": "card"},
        {"date": "2030-03-17"},
    ],
)
@pytest.mark.parametrize("before", [None, ("2030-03-17", "brk_1")])
def test_a_page_of_breaks_is_a_range_of_an_index(connection, asked, before):
    found = plans(connection, lambda: reconciliation.breaks(connection, BreaksAsked(**asked, before=before, limit=3)))
    assert all("INDEX breaks_" in one for one in found), found
