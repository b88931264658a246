"""Structs to rows and back. The order of columns is the order of the tables in 0001.sql."""

from typing import Any

import msgspec

from gateway.core.ledger import Entry
from gateway.core.outcome import NextAction
from gateway.core.payment import Attempt, Event, Payment
from gateway.ports import Card, Claim, Delivery, StoredResponse, Transaction

Row = tuple[Any, ...]

INSERT_PAYMENT = "INSERT INTO payments VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
UPDATE_PAYMENT = (
    "UPDATE payments SET version=?, status=?, captured_minor=?, sequence=?, failure_reason=?, decline_code=?, next_action=?,"
    " updated_at_ms=? WHERE id=?"
)
INSERT_ATTEMPT = "INSERT INTO attempts VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
UPDATE_ATTEMPT = (
    "UPDATE attempts SET state=?, provider_id=?, response_code=?, inquiries=?, due_at_ms=?, unknown_at_ms=?, resolved_at_ms=?"
    " WHERE reference=?"
)
INSERT_CARD = "INSERT INTO cards VALUES (?,?,?,?) ON CONFLICT DO NOTHING"
INSERT_POSTING = "INSERT INTO postings VALUES (?,?,?,?,?,?,?,?)"
INSERT_EVENT = "INSERT INTO events VALUES (?,?,?,?,?,?,?)"
WRITE_DELIVERY = (
    "INSERT INTO deliveries VALUES (?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET"
    " state=excluded.state, tries=excluded.tries, due_at_ms=excluded.due_at_ms, last_error=excluded.last_error"
)
WRITE_CLAIM = "INSERT OR REPLACE INTO claims VALUES (?,?,?,?,NULL,NULL,?)"
UPDATE_CLAIM = "UPDATE claims SET response_status=?, response_body=? WHERE merchant_id=? AND key=?"

_encode = msgspec.json.Encoder().encode
_decode_action = msgspec.json.Decoder(NextAction).decode


def _action(payment: Payment) -> str | None:
    return None if payment.next_action is None else _encode(payment.next_action).decode()


def payment_row(p: Payment) -> Row:
    return (
        p.id, p.version, p.merchant_id, p.order_id, p.method, p.amount_minor, p.currency, p.status, p.transaction_id, p.captured_minor,
        p.sequence, p.failure_reason, p.decline_code, _action(p), bytes(p.details).decode(), p.created_at_ms, p.updated_at_ms,
    )  # fmt: skip


def payment_update(p: Payment) -> Row:
    return (
        p.version, p.status, p.captured_minor, p.sequence, p.failure_reason, p.decline_code, _action(p), p.updated_at_ms, p.id
    )  # fmt: skip


def payment(row: Row) -> Payment:
    return Payment(
        id=row[0],
        version=row[1],
        merchant_id=row[2],
        order_id=row[3],
        method=row[4],
        amount_minor=row[5],
        currency=row[6],
        status=row[7],
        transaction_id=row[8],
        captured_minor=row[9],
        sequence=row[10],
        failure_reason=row[11],
        decline_code=row[12],
        next_action=None if row[13] is None else _decode_action(row[13]),
        details=msgspec.Raw(row[14].encode()),
        created_at_ms=row[15],
        updated_at_ms=row[16],
    )


def attempt_row(a: Attempt) -> Row:
    return msgspec.structs.astuple(a)


def attempt_update(a: Attempt) -> Row:
    return (
        a.state, a.provider_id, a.response_code, a.inquiries, a.due_at_ms, a.unknown_at_ms, a.resolved_at_ms, a.reference
    )  # fmt: skip


def attempt(row: Row) -> Attempt:
    return Attempt(**dict(zip(Attempt.__struct_fields__, row, strict=True)))


def transaction(row: Row) -> Transaction:
    return Transaction(**dict(zip(Transaction.__struct_fields__, row, strict=True)))


def card_row(c: Card) -> Row:
    return (c.token, c.merchant_id, c.sealed, c.created_at_ms)


def posting_rows(e: Entry) -> list[Row]:
    return [
        (e.id, line, e.payment_id, p.account, p.currency, p.debit_minor, p.credit_minor, e.created_at_ms)
        for line, p in enumerate(e.postings)
    ]


def event_row(e: Event) -> Row:
    return (e.payment_id, e.sequence, e.id, e.merchant_id, e.type, e.body, e.created_at_ms)


def delivery_row(d: Delivery) -> Row:
    return (d.endpoint_id, d.payment_id, d.sequence, d.event_id, d.state, d.tries, d.due_at_ms, d.last_error)


def delivery(row: Row) -> Delivery:
    return Delivery(**dict(zip(Delivery.__struct_fields__, row, strict=True)))


def claim_row(c: Claim) -> Row:
    return (c.merchant_id, c.key, c.fingerprint, c.payment_id, c.created_at_ms)


def response_update(r: StoredResponse) -> Row:
    return (r.response.status, r.response.body, r.merchant_id, r.key)
