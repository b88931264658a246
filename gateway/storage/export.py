"""Everything that a database file knows, as records for auditors. Reads beside a running gateway, or the file of a dead one."""

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import apsw
import msgspec

from gateway.core.errors import StoreError
from gateway.storage import schema

# Of what is about a payment, or about something else.
_PAYMENT = "CASE WHEN subject_id GLOB 'pay_*' THEN subject_id END paymentID"
_SETTLEMENT = "CASE WHEN subject_id GLOB 'set_*' THEN subject_id END settlementID"
_OPERATION = (
    "payment_id paymentID, merchant_id merchantID, provider, charge_reference chargeReference, amount_minor amount, currency,"
    " state status, response_code responseCode, inquiries, created_at_ms createdAt, updated_at_ms updatedAt"
)

# kind -> query; the names of the columns are the names of the fields. `cards` stays in the vault.
QUERIES = {
    "payment": "SELECT id paymentID, merchant_id merchantID, order_id orderID, status, amount_minor amount, currency, method,"
    " transaction_id transactionID, capture_method captureMethod, captured_minor capturedAmount, refunded_minor refundedAmount,"
    " disputed_minor disputedAmount, dispute_status disputeStatus, failure_reason failureReason, decline_code declineCode, ending,"
    " created_at_ms createdAt, updated_at_ms updatedAt FROM payments",
    "attempt": "SELECT reference, payment_id paymentID, provider, state, amount_minor amount, currency, response_code responseCode,"
    " unknown_at_ms unknownAt, resolved_at_ms resolvedAt, inquiries, created_at_ms createdAt FROM attempts",
    "transaction": "SELECT id transactionID, payment_id paymentID, merchant_id merchantID, type, amount_minor amount, currency, status,"
    " created_at_ms createdAt FROM transactions",
    "capture": f"SELECT id captureID, {_OPERATION}, final FROM operations WHERE kind = 'capture'",  # noqa: S608 - constants
    "refund": f"SELECT id refundID, 'txn_' || substr(id, 5) transactionID, {_OPERATION} FROM operations WHERE kind = 'refund'",  # noqa: S608 - constants
    "dispute": "SELECT id disputeID, 'txn_' || substr(id, 5) transactionID, provider_id providerID, provider, payment_id paymentID,"
    " merchant_id merchantID, reason, status, amount_minor amount, currency, responding, created_at_ms createdAt,"
    " updated_at_ms updatedAt FROM disputes",
    "authentication": "SELECT id authenticationID, payment_id paymentID, provider, state status, trans_status transStatus,"
    " amount_minor amount, currency, inquiries, created_at_ms createdAt, updated_at_ms updatedAt FROM authentications",
    "event": f"SELECT id eventID, {_PAYMENT}, {_SETTLEMENT}, sequence, type, body IS NOT NULL published,"  # noqa: S608 - constants
    " created_at_ms createdAt FROM events",
    "delivery": f"SELECT event_id eventID, endpoint_id endpointID, {_PAYMENT}, {_SETTLEMENT}, sequence, state, tries,"  # noqa: S608 - constants
    " last_error lastError FROM deliveries",
    "idempotency": f"SELECT merchant_id merchantID, key, subject_id subjectID, {_PAYMENT}, response_status responseStatus FROM claims",  # noqa: S608 - constants
    "settlement": "SELECT id settlementID, merchant_id merchantID, date, timezone, currency, until_ms endsAt, state status, reason,"
    " opening_minor openingBalance, net_minor net, max(0, opening_minor + net_minor) totalAmount, lines, payouts, utr,"
    " created_at_ms createdAt, updated_at_ms updatedAt FROM settlements",
}
_FLAGS = {"event": "published", "capture": "final"}  # SQLite has no booleans
# `settlementID` is the settlement whose own entry it is, `settledIn` the one that it was settled in.
_ENTRY = ("entryID", "paymentID", "settlementID", "settledIn", "createdAt")
POSTINGS = (
    f"SELECT entry_id entryID, {_PAYMENT}, {_SETTLEMENT}, settlement_id settledIn, created_at_ms createdAt,"  # noqa: S608 - constants
    " account, currency, debit_minor debit, credit_minor credit"
    " FROM postings LEFT JOIN settled_entries USING (entry_id) ORDER BY entry_id, line"
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
            if kind in _FLAGS:
                record[_FLAGS[kind]] = bool(record[_FLAGS[kind]])
            elif kind == "settlement":
                record["lines"] = msgspec.json.decode(record["lines"])
            yield record
    for _, lines in groupby(connection.execute(POSTINGS), key=itemgetter("entryID")):
        rows = list(lines)
        head = {key: rows[0][key] for key in _ENTRY}
        postings = [{key: row[key] for key in ("account", "currency", "debit", "credit")} for row in rows]
        yield {"kind": "entry", **head, "postings": postings}
