"""What reports are made of: a merchant's ledger, what failed, what was settled; the oldest first, in parts that start where the last one
ended.
"""

from typing import Literal, NamedTuple

import apsw

from gateway.core import ledger
from gateway.core.settlement import Settlement
from gateway.storage.settlements import settlement

Subject = Literal["all", "refund", "dispute"]

# What entries are named after (see core): only those of refunds, only those of disputes.
_NAMED: dict[Subject, str] = {
    "all": "TRUE",
    "refund": "entry_id >= 'ent_ref_' AND entry_id < 'ent_ref`'",
    "dispute": "entry_id >= 'ent_dsp_' AND entry_id < 'ent_dsp`'",
}

# The account's condition is said again for the index. A part is found in the index alone, so that what is not asked for costs little.
_ENTRIES = """
SELECT found.created_at_ms, found.entry_id, found.line, p.currency, p.credit_minor - p.debit_minor,
  (SELECT coalesce(sum(credit_minor - debit_minor), 0) FROM postings WHERE entry_id = p.entry_id AND account = '{fees}'),
  pay.id, pay.transaction_id, pay.order_id, pay.method, o.id, o.state, o.note, d.id, d.status, d.reason
FROM (
  SELECT created_at_ms, entry_id, line FROM postings
  WHERE account = :account AND account >= 'payable:' AND account < 'payable;'
    AND (created_at_ms, entry_id, line) > (:after_ms, :after_id, :after_line) AND created_at_ms < :to AND {named}
  ORDER BY created_at_ms, entry_id, line LIMIT :limit
) found
JOIN postings p ON p.entry_id = found.entry_id AND p.line = found.line
LEFT JOIN payments pay ON pay.id = p.subject_id
LEFT JOIN operations o ON o.id = substr(found.entry_id, 5, 36) AND o.kind = 'refund'
LEFT JOIN disputes d ON d.id = substr(found.entry_id, 5, 36)
ORDER BY found.created_at_ms, found.entry_id, found.line
"""

_FAILURES = """
SELECT * FROM (
  SELECT created_at_ms, substr(id, 5) AS serial, 'payment', transaction_id, id, order_id, method, amount_minor, currency, status,
    failure_reason, decline_code, updated_at_ms FROM payments
  WHERE merchant_id = :merchant AND (created_at_ms, id) > (:after_ms, 'pay_' || :after_id) AND created_at_ms < :to
    AND status IN ('failed', 'expired')
  ORDER BY created_at_ms, id LIMIT :limit
) UNION ALL SELECT * FROM (
  SELECT o.created_at_ms, substr(o.id, 5) AS serial, 'refund', 'txn_' || substr(o.id, 5), o.payment_id, pay.order_id, o.provider,
    o.amount_minor, o.currency, o.state, o.failure_reason, o.response_code, o.updated_at_ms
  FROM operations o JOIN payments pay ON pay.id = o.payment_id
  WHERE o.merchant_id = :merchant AND o.kind = 'refund' AND (o.created_at_ms, o.id) > (:after_ms, 'ref_' || :after_id)
    AND o.created_at_ms < :to AND o.state = 'failed'
  ORDER BY o.created_at_ms, o.id LIMIT :limit
) ORDER BY created_at_ms, serial LIMIT :limit
"""

# By the last millisecond of their days. A merchant has a few thousand in ten years, so that no index knows this order.
_SETTLEMENTS = """
SELECT id FROM settlements
WHERE merchant_id = :merchant AND state <> 'computing' AND (until_ms - 1, id) > (:after_ms, :after_id) AND until_ms - 1 < :to
ORDER BY until_ms, id LIMIT :limit
"""


class Place(NamedTuple):
    """Where a part ended, and the next one starts. `line` is of an entry; others have none."""

    at_ms: int
    id: str = ""
    line: int = -1


class Booked(NamedTuple):
    """A posting on what we owe the merchant: positive amounts are the merchant's, negative ones are taken. `fee_minor` is what we kept of
    the entry. Of the payment, refund and dispute, those that the entry is about are set."""

    at_ms: int
    entry_id: str
    line: int
    currency: str
    net_minor: int
    fee_minor: int
    payment_id: str | None
    payment_transaction_id: str | None
    order_id: str | None
    method: str | None
    refund_id: str | None
    refund_status: str | None
    refund_note: str | None
    dispute_id: str | None
    dispute_status: str | None
    dispute_reason: str | None

    @property
    def place(self) -> Place:
        return Place(self.at_ms, self.entry_id, self.line)


class Failed(NamedTuple):
    created_at_ms: int
    serial: str
    type: Literal["payment", "refund"]
    transaction_id: str
    payment_id: str
    order_id: str
    method: str
    amount_minor: int
    currency: str
    status: str
    failure_reason: str | None
    decline_code: str | None
    updated_at_ms: int

    @property
    def place(self) -> Place:
        return Place(self.created_at_ms, self.serial)


def booked(
    connection: apsw.Connection, merchant_id: str, *, subject: Subject, after: Place, to_ms: int, limit: int
) -> list[Booked]:
    """What was booked after `after` and before `to_ms`: up to `limit` postings."""
    values = {
        "account": ledger.payable(merchant_id),
        "after_ms": after.at_ms,
        "after_id": after.id,
        "after_line": after.line,
        "to": to_ms,
        "limit": limit,
    }
    return [Booked(*row) for row in connection.execute(_ENTRIES.format(fees=ledger.FEES, named=_NAMED[subject]), values)]


def failures(connection: apsw.Connection, merchant_id: str, *, after: Place, to_ms: int, limit: int) -> list[Failed]:
    """Payments that failed or expired and refunds that failed, if they were created after `after` and before `to_ms`: up to `limit`."""
    values = {"merchant": merchant_id, "after_ms": after.at_ms, "after_id": after.id, "to": to_ms, "limit": limit}
    return [Failed(*row) for row in connection.execute(_FAILURES, values)]


def settlements(connection: apsw.Connection, merchant_id: str, *, after: Place, to_ms: int, limit: int) -> list[Settlement]:
    """Those that are computed, of days whose last millisecond is after `after` and before `to_ms`: up to `limit`."""
    values = {"merchant": merchant_id, "after_ms": after.at_ms, "after_id": after.id, "to": to_ms, "limit": limit}
    ids = [row[0] for row in connection.execute(_SETTLEMENTS, values)]
    return [found for settlement_id in ids if (found := settlement(connection, settlement_id)) is not None]
