"""Everything that a database file knows, as records for auditors. Reads beside a running gateway, or the file of a dead one."""

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import apsw

from gateway.core.errors import StoreError
from gateway.storage import schema

# kind -> query; the names of the columns are the names of the fields. `cards` stays in the vault.
QUERIES = {
    "payment": "SELECT id paymentID, merchant_id merchantID, order_id orderID, status, amount_minor amount, currency, method,"
    " transaction_id transactionID, captured_minor capturedAmount, failure_reason failureReason, decline_code declineCode,"
    " created_at_ms createdAt, updated_at_ms updatedAt FROM payments",
    "attempt": "SELECT reference, payment_id paymentID, provider, state, amount_minor amount, currency, response_code responseCode,"
    " unknown_at_ms unknownAt, resolved_at_ms resolvedAt, inquiries, created_at_ms createdAt FROM attempts",
    "transaction": "SELECT id transactionID, payment_id paymentID, merchant_id merchantID, type, amount_minor amount, currency, status,"
    " created_at_ms createdAt FROM transactions",
    "event": "SELECT id eventID, payment_id paymentID, sequence, type, body IS NOT NULL published, created_at_ms createdAt FROM events",
    "delivery": "SELECT event_id eventID, endpoint_id endpointID, payment_id paymentID, sequence, state, tries, last_error lastError"
    " FROM deliveries",
    "idempotency": "SELECT merchant_id merchantID, key, payment_id paymentID, response_status responseStatus FROM claims",
}
POSTINGS = (
    "SELECT entry_id entryID, payment_id paymentID, created_at_ms createdAt, account, currency, debit_minor debit, credit_minor credit"
    " FROM postings ORDER BY entry_id, line"
)

Record = dict[str, Any]


def records(path: Path) -> Iterator[Record]:
    """One consistent snapshot. Raises StoreError if the file is not a database of this version or older."""
    if not path.exists():
        raise StoreError(f"{path}: no such file")
    try:
        connection = schema.connect(path, read_only=True)
        try:
            _check(connection, path)
            connection.row_trace = _named
            connection.execute("BEGIN")
            yield from _rows(connection)
        finally:
            connection.close()
    except apsw.Error as error:
        raise StoreError(f"{path}: {error}") from error


def _named(cursor: apsw.Cursor, row: tuple[Any, ...]) -> Record:
    return {column[0]: cell for column, cell in zip(cursor.get_description(), row, strict=True)}


def _check(connection: apsw.Connection, path: Path) -> None:
    if connection.execute("PRAGMA application_id").get != schema.APPLICATION_ID:
        raise StoreError(f"{path}: not a paydrome database")
    version = connection.execute("PRAGMA user_version").get
    if version != len(schema.MIGRATIONS):
        raise StoreError(f"{path}: schema {version}, but this paydrome exports schema {len(schema.MIGRATIONS)}")


def _rows(connection: apsw.Connection) -> Iterator[Record]:
    for kind, query in QUERIES.items():
        for row in connection.execute(query):
            record = {"kind": kind, **row}
            if kind == "event":
                record["published"] = bool(record["published"])
            yield record
    for _, lines in groupby(connection.execute(POSTINGS), key=itemgetter("entryID")):
        rows = list(lines)
        head = {key: rows[0][key] for key in ("entryID", "paymentID", "createdAt")}
        postings = [{key: row[key] for key in ("account", "currency", "debit", "credit")} for row in rows]
        yield {"kind": "entry", **head, "postings": postings}
