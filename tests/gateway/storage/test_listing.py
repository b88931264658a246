"""Pages of transactions: what they show is what the view `transactions` holds, and what they cost is a range of an index."""

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from gateway.ports import Transaction
from gateway.storage import listing, rows, schema
from gateway.storage.listing import Filter, Position
from tests.gateway.doubles import NOW_MS, make_dispute, make_operation, make_payment

PAYMENTS = 200
MERCHANTS = ("merchant_1", "merchant_2")
METHODS = ("card", "upi", "netbanking")

FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "payments": {"type": "payment"},
    "refunds": {"type": "refund"},
    "chargebacks": {"type": "chargeback"},
    "status": {"status": "completed"},
    "rare status": {"status": "voided"},
    "a status that none has": {"status": "unknown"},
    "method": {"method": "upi"},
    "type, status and method": {"type": "refund", "status": "failed", "method": "card"},
    "from": {"from_ms": NOW_MS + 50},
    "to": {"to_ms": NOW_MS + 50},
    "from and to": {"from_ms": NOW_MS + 30, "to_ms": NOW_MS + 70, "status": "failed"},
    "a time without any": {"from_ms": NOW_MS + 1_000_000},
}

INDEX_RANGE = re.compile(
    r"SEARCH \w+ USING (COVERING )?INDEX \w+ \(merchant_id=\? AND created_at_ms>\? AND \(created_at_ms,id\)<\(\?,\?\)\)"
)


def add_payment(connection: apsw.Connection, n: int, draws: random.Random, created_at_ms: int) -> None:
    """With a refund of every third and a dispute of every fourth, about the same time."""
    payment = make_payment(
        3 * n,
        merchant_id=draws.choice(MERCHANTS),
        method=draws.choice(METHODS),
        status="voided" if n % 60 == 0 else draws.choice(["completed", "failed"]),
        created_at_ms=created_at_ms,
    )
    connection.execute(rows.INSERT_PAYMENT, rows.payment_row(payment))
    later = {"created_at_ms": created_at_ms + draws.randrange(3), "amount_minor": draws.randrange(1, 1000)}
    if n % 3 == 0:
        refund = make_operation(payment, "refund", 3 * n + 1, state=draws.choice(["completed", "failed"]), **later)
        capture = make_operation(payment, "capture", 3 * n + 1, **later)
        for operation in (refund, capture):
            connection.execute(rows.WRITE_OPERATION, rows.operation_row(operation))
    if n % 4 == 0:
        status = draws.choice(["needs_response", "won", "lost", "warning_closed"])
        dispute = make_dispute(payment, 3 * n + 2, status=status, **later)
        connection.execute(rows.WRITE_DISPUTE, rows.dispute_row(dispute))


def add_payments(connection: apsw.Connection, count: int) -> None:
    """Four a millisecond, not written in the order of their times."""
    draws = random.Random(8)
    connection.execute("BEGIN")
    for n in draws.sample(range(1, count + 1), count):
        add_payment(connection, n, draws, NOW_MS + n // 4)
    connection.execute("COMMIT")


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[apsw.Connection]:
    path = tmp_path / "listing.db"
    made = schema.connect(path, read_only=False)
    schema.migrate(made, path)
    yield made
    made.close()


def expected(connection: apsw.Connection, asked: Filter) -> list[Transaction]:
    """By the view, without an index or a limit."""
    every = [rows.transaction(row) for row in connection.execute("SELECT * FROM transactions")]
    matching = [
        transaction
        for transaction in every
        if transaction.merchant_id == asked.merchant_id
        and asked.type in (None, transaction.type)
        and asked.status in (None, transaction.status)
        and asked.method in (None, transaction.method)
        and asked.from_ms <= transaction.created_at_ms < asked.to_ms
    ]
    return sorted(matching, key=lambda found: (found.created_at_ms, found.id), reverse=True)


def walk(
    connection: apsw.Connection, asked: Filter, limit: int, between: Callable[[], None] = lambda: None
) -> list[list[Transaction]]:
    pages, position = [], None
    while True:
        page = listing.after(connection, asked, position, limit)
        pages.append(page.transactions)
        assert len(page.transactions) <= limit
        if page.next is None:
            return pages
        assert position is None or page.next < position
        position = page.next
        between()


def steps(connection: apsw.Connection, work: Callable[[], object]) -> int:
    """What `work` costs in tens of steps of SQLite's machine."""
    counted = 0

    def count() -> bool:
        nonlocal counted
        counted += 1
        return False

    connection.set_progress_handler(count, 10)
    work()
    connection.set_progress_handler(None)
    return counted


@pytest.mark.parametrize("scan_max", [7, 100_000])
def test_pages_together_are_what_the_view_holds_each_once_and_in_order(
    connection: apsw.Connection, monkeypatch: pytest.MonkeyPatch, scan_max: int
):
    monkeypatch.setattr(listing, "SCAN_MAX", scan_max)
    add_payments(connection, PAYMENTS)
    for name, fields in FILTERS.items():
        asked = Filter(merchant_id="merchant_1", **fields)
        wanted = expected(connection, asked)
        assert bool(wanted) != name.startswith("a "), name
        for limit in (3, 1000):
            pages = walk(connection, asked, limit)
            assert [found for page in pages for found in page] == wanted, name


def test_pages_by_offset_are_parts_of_the_same_list_with_its_length(connection: apsw.Connection):
    add_payments(connection, PAYMENTS)
    for name, fields in FILTERS.items():
        asked = Filter(merchant_id="merchant_1", **fields)
        wanted = expected(connection, asked)
        for offset in (0, 1, 19, len(wanted) - 1, len(wanted)):
            page = listing.at(connection, asked, max(offset, 0), 20)
            assert page.total == len(wanted), name
            assert page.transactions == wanted[max(offset, 0) :][:20], name
            assert (page.next is not None) == (max(offset, 0) + 20 < len(wanted)), name


def test_a_walk_shows_what_was_there_when_it_began_each_once_while_rows_are_added(connection: apsw.Connection):
    add_payments(connection, PAYMENTS)
    asked, draws, added = Filter(merchant_id="merchant_1"), random.Random(3), iter(range(PAYMENTS + 1, 10_000))
    wanted = expected(connection, asked)

    def add() -> None:
        add_payment(connection, next(added), draws, NOW_MS + 1_000)

    pages = walk(connection, asked, 10, add)
    assert [found for page in pages for found in page] == wanted
    assert len(expected(connection, asked)) > len(wanted)


def plans(connection: apsw.Connection, work: Callable[[], object]) -> list[dict[int, tuple[int, str]]]:
    """How SQLite carries out each statement of `work`: number -> (number of the step it is part of, what it does)."""
    statements: list[tuple[str, Any]] = []

    def note(_: apsw.Cursor, sql: str, values: Any) -> bool:
        statements.append((sql, values))
        return True

    connection.exec_trace = note
    work()
    connection.exec_trace = None
    asked = [connection.execute("EXPLAIN QUERY PLAN " + sql, values) for sql, values in statements]
    return [{number: (parent, detail) for number, parent, _, detail in plan} for plan in asked]


@pytest.mark.parametrize("fields", [{}, {"type": "refund"}, {"status": "completed"}, {"method": "upi", "from_ms": NOW_MS}])
def test_each_part_of_a_page_is_a_range_of_an_index_in_order(
    connection: apsw.Connection, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
):
    monkeypatch.setattr(listing, "SCAN_MAX", 7)
    add_payments(connection, PAYMENTS)
    asked = Filter(merchant_id="merchant_1", **fields)
    for plan in plans(connection, lambda: listing.after(connection, asked, Position(NOW_MS + 60, "f" * 32), 20)):
        searches = [step for step in plan.values() if re.match("(SEARCH|SCAN) (?!.subquery)", step[1])]
        assert searches
        for _, detail in searches:
            assert INDEX_RANGE.fullmatch(detail)
        sorts = {parent for parent, detail in plan.values() if "B-TREE" in detail}
        assert sorts.isdisjoint(parent for parent, _ in searches)  # what is left to sort are the parts' first rows, together


def test_a_page_costs_the_same_wherever_it_is(connection: apsw.Connection):
    add_payments(connection, 1_500)
    asked = Filter(merchant_id="merchant_1")
    costs, position = [], None
    while True:
        page = listing.after(connection, asked, position, 20)
        if page.next is None:
            break
        costs.append(steps(connection, lambda at=position: listing.after(connection, asked, at, 20)))
        position = page.next
    assert len(costs) > 50
    assert max(costs) < 1.2 * min(costs[:-5])  # on the last ones the refunds or disputes have come to their end


def test_looking_for_what_is_rare_costs_no_more_where_there_is_more_to_look_at(
    connection: apsw.Connection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(listing, "SCAN_MAX", 50)
    monkeypatch.setattr(listing, "COUNT_MAX", 100)
    asked = Filter(merchant_id="merchant_1", status="unknown")
    for look in (lambda: listing.after(connection, asked, None, 20), lambda: listing.at(connection, asked, 10, 20)):
        connection.execute("DELETE FROM payments; DELETE FROM operations; DELETE FROM disputes")
        add_payments(connection, 400)
        few = steps(connection, look)
        connection.execute("DELETE FROM payments; DELETE FROM operations; DELETE FROM disputes")
        add_payments(connection, 1_200)
        assert steps(connection, look) < 1.5 * few


def test_no_total_is_given_where_counting_would_take_too_long(connection: apsw.Connection, monkeypatch: pytest.MonkeyPatch):
    add_payments(connection, PAYMENTS)
    monkeypatch.setattr(listing, "COUNT_MAX", 50)
    page = listing.at(connection, Filter(merchant_id="merchant_1", status="failed"), 0, 5)
    assert page.total is None
    assert page.next is not None
    assert len(page.transactions) == 5
    assert listing.at(connection, Filter(merchant_id="merchant_1"), 0, 5).total is not None
