"""A merchant's transactions, the newest first: the view `transactions`, asked so that a page is a range of an index on each of its parts.

A page by cursor costs the same wherever it is. The indexes do not know status and method: with one of these filters a page by cursor
looks at no more than SCAN_MAX transactions of each type, and may be shorter than asked for, or empty, though more follow: `next` says
where to go on. Pages by offset count and skip what is before them, which takes longer the more there is: with such a filter no further
than COUNT_MAX, without one only the index is read, a tenth of a second per million.
"""

from typing import Any, NamedTuple

import apsw
import msgspec

from gateway.ports import Transaction, TransactionType
from gateway.storage import rows

SCAN_MAX = 5_000  # about 10 ms
COUNT_MAX = 50_000  # of each type: about 100 ms
END_MS = 2**62  # later than every transaction


class Position(NamedTuple):
    """Of a transaction in time. `serial` is its id without the prefix."""

    created_at_ms: int
    serial: str


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """From `from_ms` on and before `to_ms`, of one type, status and method, or (None) of all."""

    merchant_id: str
    type: TransactionType | None = None
    status: str | None = None
    method: str | None = None
    from_ms: int = -END_MS
    to_ms: int = END_MS


class Page(NamedTuple):
    """`next` is where the next page begins, None on the last. `total` counts all that match, if it was asked for."""

    transactions: list[Transaction]
    next: Position | None
    total: int | None = None


class _Part(NamedTuple):
    """A table of the view, with the names that columns have there."""

    table: str
    prefix: str
    transaction_id: str
    payment_id: str
    method: str
    status: str
    condition: str


_PARTS: dict[TransactionType, _Part] = {
    "payment": _Part("payments", "pay_", "transaction_id", "id", "method", "status", "TRUE"),
    "refund": _Part("operations", "ref_", "'txn_' || substr(id, 5)", "payment_id", "provider", "state", "kind = 'refund'"),
    "chargeback": _Part(
        "disputes", "dsp_", "'txn_' || substr(id, 5)", "payment_id", "provider", "status", "status NOT LIKE 'warning%'"
    ),
}

_POSITION = "created_at_ms, substr(id, 5) AS serial"


def after(connection: apsw.Connection, asked: Filter, position: Position | None, limit: int) -> Page:
    """The page of up to `limit` that follows `position`, or (None) the first."""
    start = Position(asked.to_ms, "")
    before = start if position is None else min(position, start)
    return _page(connection, asked, before, _floor(connection, asked, before, SCAN_MAX), limit)


def at(connection: apsw.Connection, asked: Filter, offset: int, limit: int) -> Page:
    """The page of up to `limit` that follows the first `offset`, with the total, which is None where there are too many to look at."""
    start = Position(asked.to_ms, "")
    floor = _floor(connection, asked, start, COUNT_MAX)
    total = _total(connection, asked) if floor is None else None
    before = _skip(connection, asked, floor, offset) if offset else start
    page = Page([], floor) if before is None else _page(connection, asked, before, floor, limit)
    return page._replace(total=total)


def _page(connection: apsw.Connection, asked: Filter, before: Position, floor: Position | None, limit: int) -> Page:
    found = list(connection.execute(page_sql(asked, floor), _values(asked, before, floor) | {"limit": limit + 1}))
    transactions = [rows.transaction(row[:-1]) for row in found[:limit]]
    if len(found) > limit:
        return Page(transactions, Position(transactions[-1].created_at_ms, found[limit - 1][-1]))
    return Page(transactions, floor)


def _floor(connection: apsw.Connection, asked: Filter, before: Position, scan_max: int) -> Position | None:
    """The last position to look at: where the first of the parts has shown `scan_max`. None if none has so many, or the indexes know
    the answer."""
    if asked.status is None and asked.method is None:
        return None
    everything = msgspec.structs.replace(asked, status=None, method=None)
    values = _values(everything, before, None) | {"skipped": scan_max - 1}
    floors = []
    for part in _parts(asked):
        sql = f"{_select(part, _POSITION, everything, None)} ORDER BY {_newest(part)} LIMIT 1 OFFSET :skipped"
        floors += [Position(*row) for row in connection.execute(sql, values)]
    return max(floors, default=None)


def _skip(connection: apsw.Connection, asked: Filter, floor: Position | None, offset: int) -> Position | None:
    """The position of number `offset`, from 1; None if there are fewer."""
    values = _values(asked, Position(asked.to_ms, ""), floor) | {"limit": offset, "skipped": offset - 1}
    row = connection.execute(f"{_merged(asked, _POSITION, floor)} LIMIT 1 OFFSET :skipped", values).fetchone()
    return Position(*row) if row else None


def _total(connection: apsw.Connection, asked: Filter) -> int:
    counts = (f"({_select(part, 'count(*)', asked, None)})" for part in _parts(asked))
    total: int = connection.execute("SELECT " + " + ".join(counts), _values(asked, Position(asked.to_ms, ""), None)).get
    return total


def page_sql(asked: Filter, floor: Position | None) -> str:
    columns = (
        "{0.transaction_id} AS id, {0.payment_id} AS payment_id, merchant_id, '{1}' AS type, {0.method} AS method, amount_minor, currency,"
        " {0.status} AS status, created_at_ms, updated_at_ms, substr({0.table}.id, 5) AS serial"
    )
    return f"{_merged(asked, columns, floor)} LIMIT :limit"


def _merged(asked: Filter, columns: str, floor: Position | None) -> str:
    """The first `:limit` of each part, all together in order."""
    parts = []
    for name, part in _PARTS.items():
        if asked.type in (None, name):
            select = _select(part, columns.format(part, name), asked, floor)
            parts.append(f"SELECT * FROM ({select} ORDER BY {_newest(part)} LIMIT :limit)")  # noqa: S608
    return " UNION ALL ".join(parts) + " ORDER BY created_at_ms DESC, serial DESC"


def _parts(asked: Filter) -> list[_Part]:
    return [part for name, part in _PARTS.items() if asked.type in (None, name)]


def _newest(part: _Part) -> str:
    """The order of its index, backwards."""
    return f"created_at_ms DESC, {part.table}.id DESC"


def _select(part: _Part, columns: str, asked: Filter, floor: Position | None) -> str:
    """Values come as parameters; everything else is a constant of this file."""
    terms = [
        "merchant_id = :merchant",
        "created_at_ms >= :from",
        f"(created_at_ms, {part.table}.id) < (:before_ms, '{part.prefix}' || :before)",
        part.condition,
    ]
    if floor is not None:
        terms.append(f"(created_at_ms, {part.table}.id) >= (:floor_ms, '{part.prefix}' || :floor)")
    if asked.status is not None:
        terms.append(f"{part.table}.{part.status} = :status")
    if asked.method is not None:
        terms.append(f"{part.table}.{part.method} = :method")
    return f"SELECT {columns} FROM {part.table} WHERE {' AND '.join(terms)}"  # noqa: S608


def _values(asked: Filter, before: Position, floor: Position | None) -> dict[str, Any]:
    return {
        "merchant": asked.merchant_id,
        "from": floor.created_at_ms if floor else asked.from_ms,  # the floor is not earlier, and this is what bounds the index
        "before_ms": before.created_at_ms,
        "before": before.serial,
        "status": asked.status,
        "method": asked.method,
        "floor_ms": floor.created_at_ms if floor else None,
        "floor": floor.serial if floor else None,
    }
