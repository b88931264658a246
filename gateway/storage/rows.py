"""Structs to rows and back. The order of columns is the order of the tables in the .sql files."""

from typing import Any

import msgspec

from gateway.core.authentication import Authentication
from gateway.core.dispute import Dispute
from gateway.core.event import Event
from gateway.core.ledger import Entry
from gateway.core.operation import Operation
from gateway.core.outcome import NextAction
from gateway.core.payment import Attempt, Payment
from gateway.ports import Card, Claim, Delivery, StoredResponse, Transaction, Try

Row = tuple[Any, ...]

INSERT_PAYMENT = "INSERT INTO payments VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
UPDATE_PAYMENT = (
    "UPDATE payments SET version=?, status=?, captured_minor=?, sequence=?, failure_reason=?, decline_code=?, next_action=?,"
    " updated_at_ms=?, capturing_minor=?, refunding_minor=?, refunded_minor=?, disputed_minor=?, dispute_status=?, ending=? WHERE id=?"
)
INSERT_ATTEMPT = "INSERT INTO attempts VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
UPDATE_ATTEMPT = (
    "UPDATE attempts SET state=?, provider_id=?, response_code=?, inquiries=?, due_at_ms=?, unknown_at_ms=?, resolved_at_ms=?"
    " WHERE reference=?"
)
WRITE_AUTHENTICATION = (
    "INSERT INTO authentications VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET state=excluded.state,"
    " trans_id=excluded.trans_id, trans_status=excluded.trans_status, trans_status_reason=excluded.trans_status_reason,"
    " eci=excluded.eci, url=excluded.url, inquiries=excluded.inquiries, due_at_ms=excluded.due_at_ms,"
    " expires_at_ms=excluded.expires_at_ms, updated_at_ms=excluded.updated_at_ms"
)
WRITE_OPERATION = (
    "INSERT INTO operations VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET state=excluded.state,"
    " provider_id=excluded.provider_id, response_code=excluded.response_code, failure_reason=excluded.failure_reason,"
    " inquiries=excluded.inquiries, due_at_ms=excluded.due_at_ms, updated_at_ms=excluded.updated_at_ms"
)
WRITE_DISPUTE = (
    "INSERT INTO disputes VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET status=excluded.status,"
    " reason=excluded.reason, respond_by_ms=excluded.respond_by_ms, inquiries=excluded.inquiries, due_at_ms=excluded.due_at_ms,"
    " updated_at_ms=excluded.updated_at_ms, responding=excluded.responding, evidence=excluded.evidence,"
    " failure_reason=excluded.failure_reason"
)
INSERT_CARD = "INSERT INTO cards VALUES (?,?,?,?) ON CONFLICT DO NOTHING"
INSERT_POSTING = "INSERT INTO postings VALUES (?,?,?,?,?,?,?,?)"
INSERT_EVENT = "INSERT INTO events VALUES (?,?,?,?,?,?,?)"
WRITE_DELIVERY = (
    "INSERT INTO deliveries VALUES (?,?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET"
    " state=excluded.state, tries=excluded.tries, due_at_ms=excluded.due_at_ms, last_error=excluded.last_error, log=excluded.log"
)
WRITE_CLAIM = "INSERT OR REPLACE INTO claims VALUES (?,?,?,?,?,?,?)"
UPDATE_CLAIM = "UPDATE claims SET response_status=?, response_body=? WHERE merchant_id=? AND key=?"

_encode = msgspec.json.Encoder().encode
_decode_action = msgspec.json.Decoder(NextAction).decode
_decode_log = msgspec.json.Decoder(tuple[Try, ...]).decode


def _action(payment: Payment) -> str | None:
    return None if payment.next_action is None else _encode(payment.next_action).decode()


def payment_row(p: Payment) -> Row:
    return (
        p.id, p.version, p.merchant_id, p.order_id, p.method, p.amount_minor, p.currency, p.status, p.transaction_id, p.captured_minor,
        p.sequence, p.failure_reason, p.decline_code, _action(p), bytes(p.details).decode(), p.created_at_ms, p.updated_at_ms,
        p.capture_method, p.capturing_minor, p.refunding_minor, p.refunded_minor, p.disputed_minor, p.dispute_status, p.ending,
    )  # fmt: skip


def payment_update(p: Payment) -> Row:
    return (
        p.version, p.status, p.captured_minor, p.sequence, p.failure_reason, p.decline_code, _action(p), p.updated_at_ms,
        p.capturing_minor, p.refunding_minor, p.refunded_minor, p.disputed_minor, p.dispute_status, p.ending, p.id,
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
        capture_method=row[17],
        capturing_minor=row[18],
        refunding_minor=row[19],
        refunded_minor=row[20],
        disputed_minor=row[21],
        dispute_status=row[22],
        ending=row[23],
    )


def attempt_row(a: Attempt) -> Row:
    return msgspec.structs.astuple(a)


def attempt_update(a: Attempt) -> Row:
    return (
        a.state, a.provider_id, a.response_code, a.inquiries, a.due_at_ms, a.unknown_at_ms, a.resolved_at_ms, a.reference
    )  # fmt: skip


def attempt(row: Row) -> Attempt:
    return Attempt(**dict(zip(Attempt.__struct_fields__, row, strict=True)))


def authentication_row(a: Authentication) -> Row:
    return msgspec.structs.astuple(a)


def authentication(row: Row) -> Authentication:
    return Authentication(**dict(zip(Authentication.__struct_fields__, row, strict=True)))


def transaction(row: Row) -> Transaction:
    return Transaction(**dict(zip(Transaction.__struct_fields__, row, strict=True)))


def operation_row(o: Operation) -> Row:
    return msgspec.structs.astuple(o)


def operation(row: Row) -> Operation:
    made = dict(zip(Operation.__struct_fields__, row, strict=True))
    return Operation(**made | {"final": bool(made["final"])})


def dispute_row(d: Dispute) -> Row:
    return msgspec.structs.astuple(d)


def dispute(row: Row) -> Dispute:
    return Dispute(**dict(zip(Dispute.__struct_fields__, row, strict=True)))


def card_row(c: Card) -> Row:
    return (c.token, c.merchant_id, c.sealed, c.created_at_ms)


def card(row: Row) -> Card:
    return Card(*row)


def posting_rows(e: Entry) -> list[Row]:
    return [
        (e.id, line, e.subject_id, p.account, p.currency, p.debit_minor, p.credit_minor, e.created_at_ms)
        for line, p in enumerate(e.postings)
    ]


def event_row(e: Event) -> Row:
    return (e.subject_id, e.sequence, e.id, e.merchant_id, e.type, e.body, e.created_at_ms)


def event(row: Row) -> Event:
    subject_id, sequence, event_id, merchant_id, kind, body, created_at_ms = row
    return Event(event_id, subject_id, merchant_id, sequence, kind, body, created_at_ms)


def delivery_row(d: Delivery) -> Row:
    log = _encode(d.log).decode() if d.log else None
    return (d.endpoint_id, d.subject_id, d.sequence, d.event_id, d.state, d.tries, d.due_at_ms, d.last_error, log)


def delivery(row: Row) -> Delivery:
    *fields, log = row
    made = dict(zip(Delivery.__struct_fields__[:-1], fields, strict=True))
    return Delivery(**made, log=_decode_log(log) if log else ())


def claim_row(c: Claim, r: StoredResponse | None) -> Row:
    """`r` is given where the claim is made and answered by one commit."""
    status, body = (None, None) if r is None else (r.response.status, r.response.body)
    return (c.merchant_id, c.key, c.fingerprint, c.subject_id, status, body, c.created_at_ms)


def response_update(r: StoredResponse) -> Row:
    return (r.response.status, r.response.body, r.merchant_id, r.key)
