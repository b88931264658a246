"""Settlements in rows, and how the ledger's entries come into them.

An entry is a merchant's if it posts to `payable:{merchant}`. Settlements' own entries do, too, and are not settled: they are what settling
comes to. Their subject is the settlement, that of all others a payment.

The ledger of a merchant is read in the order of time, in pages that an index holds, so that neither a day with a million entries nor the
years before it cost memory.
"""

from datetime import date
from typing import Any, Literal, NamedTuple

import apsw
import msgspec

from gateway.core import ledger
from gateway.core.errors import StoreError
from gateway.core.payment import Method
from gateway.core.settlement import Line, Payee, Settlement
from gateway.storage.rows import Row

INSERT_SETTLED = "INSERT INTO settled_entries VALUES (?,?)"
WRITE_SETTLEMENT = (
    "INSERT INTO settlements VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET version=excluded.version,"
    " state=excluded.state, reason=excluded.reason, sequence=excluded.sequence, lines=excluded.lines,"
    " opening_minor=excluded.opening_minor, net_minor=excluded.net_minor, payouts=excluded.payouts, payee=excluded.payee,"
    " provider_id=excluded.provider_id, utr=excluded.utr, inquiries=excluded.inquiries, due_at_ms=excluded.due_at_ms,"
    " updated_at_ms=excluded.updated_at_ms"
)

# An entry may become durable after others that were made later: by seconds, or by what a clock was set back. And what came too late for
# its day is in the next one. An entry that is more than this behind is not found any more.
LATE_MS_MAX = 3 * 24 * 3600 * 1000

_encode = msgspec.json.Encoder().encode
_decode_lines = msgspec.json.Decoder(tuple[Line, ...]).decode
_decode_payee = msgspec.json.Decoder(Payee).decode


class Place(NamedTuple):
    """Of an entry in a merchant's ledger."""

    created_at_ms: int
    entry_id: str


class Unsettled(NamedTuple):
    place: Place
    currency: str


class Standing(NamedTuple):
    """Where settling a merchant stands: the day that was begun and not closed, the last one of all, and from when on entries may be in
    no settlement."""

    computing: date | None
    last: date | None
    since_ms: int


class Movement(msgspec.Struct, frozen=True, kw_only=True):
    """An entry as it counts in a settlement, signed as `Line` has it."""

    entry_id: str
    payment_id: str
    kind: Literal["capture", "refund", "chargeback"]
    provider: Method
    gross_minor: int
    fee_minor: int
    net_minor: int
    created_at_ms: int


# Rows


def settlement_row(s: Settlement) -> Row:
    return (
        s.id, s.version, s.merchant_id, s.date, s.timezone, s.currency, s.until_ms, s.state, s.reason, s.sequence,
        _encode(s.lines).decode(), s.opening_minor, s.net_minor, s.payouts, None if s.payee is None else _encode(s.payee).decode(),
        s.provider_id, s.utr, s.inquiries, s.due_at_ms, s.created_at_ms, s.updated_at_ms,
    )  # fmt: skip


def _settlement(row: Row) -> Settlement:
    made: dict[str, Any] = dict(zip(Settlement.__struct_fields__, row, strict=True))
    made["lines"] = _decode_lines(made["lines"])
    made["payee"] = None if made["payee"] is None else _decode_payee(made["payee"])
    return Settlement(**made)


def settlement(connection: apsw.Connection, settlement_id: str) -> Settlement | None:
    row = connection.execute("SELECT * FROM settlements WHERE id=?", (settlement_id,)).fetchone()
    return _settlement(row) if row else None


def on_day(connection: apsw.Connection, merchant_id: str, day: str) -> list[Settlement]:
    sql = "SELECT * FROM settlements WHERE merchant_id=? AND date=? ORDER BY currency"
    return [_settlement(row) for row in connection.execute(sql, (merchant_id, day))]


def due(connection: apsw.Connection, now_ms: int, limit: int) -> list[Settlement]:
    sql = "SELECT * FROM settlements WHERE due_at_ms<=? ORDER BY due_at_ms LIMIT ?"
    return [_settlement(row) for row in connection.execute(sql, (now_ms, limit))]


def ready(connection: apsw.Connection, merchant_id: str, until: str) -> list[Settlement]:
    """A merchant's settlements up to a day that wait to be paid, the oldest first."""
    sql = "SELECT * FROM settlements WHERE merchant_id=? AND date<=? AND state='ready' ORDER BY date, currency"
    return [_settlement(row) for row in connection.execute(sql, (merchant_id, until))]


def opening_minor(connection: apsw.Connection, of: Settlement) -> int:
    """What a settlement opens with: what the one before it left below zero."""
    sql = (
        "SELECT opening_minor + net_minor FROM settlements"
        " WHERE merchant_id=? AND currency=? AND date<? ORDER BY date DESC LIMIT 1"
    )
    closing: int | None = connection.execute(sql, (of.merchant_id, of.currency, of.date)).get
    return min(0, closing or 0)


def standing(connection: apsw.Connection, merchant_id: str) -> Standing:
    sql = "SELECT min(date) FILTER (WHERE state='computing'), max(date), max(until_ms) FROM settlements WHERE merchant_id=?"
    computing, last, until_ms = connection.execute(sql, (merchant_id,)).get
    return Standing(
        None if computing is None else date.fromisoformat(computing),
        None if last is None else date.fromisoformat(last),
        0 if until_ms is None else until_ms - LATE_MS_MAX,
    )


# Entries

# The condition on the account is that of the index `postings_of_merchant`.
_UNSETTLED = (
    "FROM postings p WHERE p.account=:account AND p.account >= 'payable:' AND p.account < 'payable;'"
    " AND p.created_at_ms < :until AND p.subject_id >= 'pay_' AND p.subject_id < 'pay`'"
    " AND NOT EXISTS (SELECT 1 FROM settled_entries s WHERE s.entry_id=p.entry_id)"
)


def unsettled(connection: apsw.Connection, merchant_id: str, *, after: Place, until_ms: int, limit: int) -> list[Unsettled]:
    """A merchant's entries that are in no settlement and were made before `until_ms`: those that follow `after`."""
    sql = (
        f"SELECT p.created_at_ms, p.entry_id, p.currency {_UNSETTLED} AND (p.created_at_ms, p.entry_id) > (:at, :entry)"
        " ORDER BY p.created_at_ms, p.entry_id LIMIT :limit"
    )
    values = {"account": ledger.payable(merchant_id), "until": until_ms, "at": after[0], "entry": after[1], "limit": limit}
    return [Unsettled(Place(at_ms, entry), currency) for at_ms, entry, currency in connection.execute(sql, values)]


def balances(connection: apsw.Connection, merchant_id: str, *, until_ms: int) -> list[tuple[str, int, int]]:
    """(currency, net amount, entries) of what was made before `until_ms` and is in no settlement."""
    since_ms = standing(connection, merchant_id).since_ms
    sql = (
        f"SELECT p.currency, sum(p.credit_minor - p.debit_minor), count(*) {_UNSETTLED} AND p.created_at_ms >= :since"
        " GROUP BY p.currency ORDER BY p.currency"
    )
    values = {"account": ledger.payable(merchant_id), "until": until_ms, "since": since_ms}
    return list(connection.execute(sql, values))


# Of each entry: what its provider moved, what we earned, what the merchant gets. The id says what was booked (core/payment.py,
# operation.py, dispute.py): a capture, a refund or one that failed after all, a chargeback or one that was won.
_MOVEMENTS = (
    "SELECT s.entry_id, min(p.subject_id) AS payment_id,"
    " CASE WHEN s.entry_id GLOB 'ent_ref_*' THEN 'refund' WHEN s.entry_id GLOB 'ent_dsp_*' THEN 'chargeback' ELSE 'capture' END AS kind,"
    " max(CASE WHEN p.account GLOB 'receivable:*' THEN substr(p.account, 12) END) AS provider,"
    " sum(CASE WHEN p.account GLOB 'receivable:*' THEN p.debit_minor - p.credit_minor ELSE 0 END) AS gross_minor,"
    " sum(CASE WHEN p.account = 'fees' THEN p.credit_minor - p.debit_minor ELSE 0 END) AS fee_minor,"
    " sum(CASE WHEN p.account GLOB 'payable:*' THEN p.credit_minor - p.debit_minor ELSE 0 END) AS net_minor,"
    " min(p.created_at_ms) AS created_at_ms"
    " FROM settled_entries s CROSS JOIN postings p ON p.entry_id = s.entry_id"
    " WHERE s.settlement_id = :settlement AND s.entry_id > :after GROUP BY s.entry_id"
)


def movements(connection: apsw.Connection, settlement_id: str, *, after: str, limit: int) -> list[Movement]:
    """The entries of a settlement whose ids come after `after`, in the order of ids."""
    sql = f"{_MOVEMENTS} ORDER BY s.entry_id LIMIT :limit"
    found = connection.execute(sql, {"settlement": settlement_id, "after": after, "limit": limit})
    return [Movement(**dict(zip(Movement.__struct_fields__, row, strict=True))) for row in found]


def lines(connection: apsw.Connection, settlement_id: str) -> tuple[Line, ...]:
    """What the entries of a settlement come to, by provider. Raises StoreError for an entry that posts elsewhere."""
    sql = (
        "SELECT provider, sum(gross_minor) FILTER (WHERE kind='capture'), sum(fee_minor),"  # noqa: S608 - constants
        " -sum(gross_minor) FILTER (WHERE kind='refund'),"
        " -sum(gross_minor) FILTER (WHERE kind='chargeback'), count(*) FILTER (WHERE kind='capture'),"
        f" count(*) FILTER (WHERE kind='refund'), count(*) FILTER (WHERE kind='chargeback'), sum(net_minor) FROM ({_MOVEMENTS})"
        " GROUP BY provider ORDER BY provider"
    )
    made = []
    for provider, *sums, net_minor in connection.execute(sql, {"settlement": settlement_id, "after": ""}):
        captured, fees, refunds, chargebacks, captures, refund_count, chargeback_count = (part or 0 for part in sums)
        line = Line(
            provider=provider,
            captured_minor=captured,
            fees_minor=fees,
            refunds_minor=refunds,
            chargebacks_minor=chargebacks,
            captures=captures,
            refunds=refund_count,
            chargebacks=chargeback_count,
        )
        if line.net_minor != net_minor:
            raise StoreError(f"settlement {settlement_id}: an entry of {provider} is neither capture, refund nor chargeback")
        made.append(line)
    return tuple(made)
