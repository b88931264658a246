"""What reconciliation reads of the books and writes of its own; and the sorter that brings a file and the books into one order."""

from collections.abc import Iterator
from typing import Any

import apsw
import msgspec

from gateway.core.breaks import Break, Note
from gateway.core.payment import Method
from gateway.core.reconciliation import Booked, Carried, Kind, Known, Row, Rules, Run, Status, date_of, start_ms
from gateway.storage import rows

WRITE_RUN = "INSERT OR REPLACE INTO reconciliations VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
WRITE_BREAK = "INSERT OR REPLACE INTO breaks VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
WRITE_CARRIED = "INSERT OR REPLACE INTO carried VALUES (?,?,?)"

CHARGES_MAX = 1_000  # captures of one payment


_encode = msgspec.json.Encoder().encode
_decode_history = msgspec.json.Decoder(tuple[Note, ...]).decode


def run_row(run: Run) -> rows.Row:
    return msgspec.structs.astuple(run)


def run(row: rows.Row) -> Run:
    return Run(**dict(zip(Run.__struct_fields__, row, strict=True)))


def break_row(one: Break) -> rows.Row:
    *fields, history = msgspec.structs.astuple(one)
    return (*fields, _encode(history).decode())


def break_(row: rows.Row) -> Break:
    made = dict(zip(Break.__struct_fields__, row, strict=True))
    return Break(**made | {"history": _decode_history(made["history"])})


def carried_row(one: Carried) -> rows.Row:
    return msgspec.structs.astuple(one)


# Reading what was found


def run_of(connection: apsw.Connection, provider: Method, date: str) -> Run | None:
    row = connection.execute("SELECT * FROM reconciliations WHERE provider=? AND date=?", (provider, date)).fetchone()
    return None if row is None else run(row)


def run_by_id(connection: apsw.Connection, run_id: str) -> Run | None:
    row = connection.execute("SELECT * FROM reconciliations WHERE id=?", (run_id,)).fetchone()
    return None if row is None else run(row)


def runs(connection: apsw.Connection, before_id: str, limit: int) -> list[Run]:
    """The newest first; ids sort by time."""
    sql = "SELECT * FROM reconciliations WHERE id<? ORDER BY id DESC LIMIT ?"
    return [run(row) for row in connection.execute(sql, (before_id, limit)).fetchall()]


class BreaksAsked(msgspec.Struct, frozen=True, kw_only=True):
    """`merchant_id` None: of all. `before` is the date and id of a break: those that come after it in the list follow."""

    merchant_id: str | None = None
    kind: Kind | None = None
    status: Status | None = None
    provider: Method | None = None
    date: str | None = None
    before: tuple[str, str] | None = None
    limit: int


def breaks(connection: apsw.Connection, asked: BreaksAsked) -> list[Break]:
    """The newest day first."""
    exact = {name: getattr(asked, name) for name in ("merchant_id", "kind", "status", "provider", "date")}
    given = {name: value for name, value in exact.items() if value is not None}
    having = [f"{name}=:{name}" for name in given]
    if asked.status == "open":
        having.append("status='open'")
    bindings: dict[str, Any] = {**given, "limit": asked.limit}
    if asked.before is not None:
        having.append("(date, id) < (:before_date, :before_id)")
        bindings |= {"before_date": asked.before[0], "before_id": asked.before[1]}
    where = f"WHERE {' AND '.join(having)}" if having else ""
    sql = f"SELECT * FROM breaks {where} ORDER BY date DESC, id DESC LIMIT :limit"  # noqa: S608 - names of fields
    return [break_(row) for row in connection.execute(sql, bindings).fetchall()]


def break_by_id(connection: apsw.Connection, break_id: str) -> Break | None:
    row = connection.execute("SELECT * FROM breaks WHERE id=?", (break_id,)).fetchone()
    return None if row is None else break_(row)


def breaks_of_file(connection: apsw.Connection, provider: Method, date: str) -> list[Break]:
    """Those that were seen in, or missed from, the file of a day: the open ones, and what is closed only because that file has it."""
    sql = (
        "SELECT * FROM breaks WHERE provider=? AND ifnull(found_date, date)=?"
        " AND (status='open' OR (kind='late' AND resolved_by='system'))"
    )
    return [break_(row) for row in connection.execute(sql, (provider, date)).fetchall()]


def of_other_days(connection: apsw.Connection, found: list[Break], date: str) -> list[Break]:
    """Those whose movement belongs into the file of a day before `date`."""
    sql = (
        "SELECT created_at_ms<? AND NOT EXISTS (SELECT 1 FROM carried WHERE entry_id=p.entry_id AND date=?)"
        " FROM postings p WHERE entry_id=? LIMIT 1"
    )
    return [one for one in found if connection.execute(sql, (start_ms(date), date, one.entry_id)).get]


def breaks_about(connection: apsw.Connection, provider: Method, reference: str) -> list[Break]:
    sql = "SELECT * FROM breaks WHERE provider=? AND reference=?"
    return [break_(row) for row in connection.execute(sql, (provider, reference)).fetchall()]


# The books

# A posting on what a provider owes us, as the provider knows it. Entries of settlements are not in its files.
_BOOKED = """
SELECT CASE substr(p.entry_id, 5, 4)
    WHEN 'cap_' THEN (SELECT charge_reference FROM operations WHERE id=substr(p.entry_id, 5, 36))
    WHEN 'ref_' THEN (SELECT charge_reference FROM operations WHERE id=substr(p.entry_id, 5, 36))
    ELSE (SELECT reference FROM attempts WHERE reference>'att_' || substr(p.subject_id, 5) || '_'
      AND reference<'att_' || substr(p.subject_id, 5) || '_~' ORDER BY state='succeeded' DESC, reference DESC LIMIT 1) END,
  CASE substr(p.entry_id, 5, 4)
    WHEN 'cap_' THEN substr(p.entry_id, 5, 36)
    WHEN 'ref_' THEN substr(p.entry_id, 5, 36)
    WHEN 'dsp_' THEN (SELECT provider_id FROM disputes WHERE id=substr(p.entry_id, 5, 36))
    ELSE '' END,
  CASE substr(p.entry_id, 5, 4) WHEN 'ref_' THEN 'refund' WHEN 'dsp_' THEN 'chargeback' ELSE 'charge' END,
  p.debit_minor - p.credit_minor, p.currency, p.created_at_ms, p.entry_id, p.subject_id, pay.merchant_id
FROM postings p CROSS JOIN payments pay ON pay.id=p.subject_id
"""
# What the bank paid out to a merchant, or got back. The reference has the time in it, so that a range of the ledger's key will do.
_PAID_OUT = """
SELECT substr(p.entry_id, 5, length(p.entry_id) - 4 - length(iif(p.credit_minor, '_paid', '_returned'))), '', 'payout',
  p.debit_minor - p.credit_minor, p.currency, p.created_at_ms, p.entry_id, '', s.merchant_id
FROM postings p CROSS JOIN settlements s ON s.id=p.subject_id WHERE p.account='bank'
"""
PAYOUT_MS_MAX = 400 * 24 * 3600 * 1000  # from a settlement to the last word about its payout

_OF_PROVIDER = " WHERE p.account=:account AND p.account>='receivable:' AND p.account<'receivable;'"


def booked_on(connection: apsw.Connection, rules: Rules) -> Iterator[Booked]:
    """What belongs into the file of that day: what was booked on it and not carried elsewhere, and what was carried to it."""
    keys = {
        "account": f"receivable:{rules.provider}",
        "start": rules.start_ms,
        "end": rules.end_ms,
        "provider": rules.provider,
        "date": rules.date,
    }
    within = " AND p.created_at_ms>=:start AND p.created_at_ms<:end"
    here = " AND ifnull((SELECT date FROM carried WHERE entry_id=p.entry_id), :date)=:date"
    yield from map(Booked._make, connection.execute(_BOOKED + _OF_PROVIDER + within + here, keys))
    others = (
        " WHERE p.account=:account AND p.entry_id IN (SELECT entry_id FROM carried WHERE provider=:provider AND date=:date)"
        " AND NOT (p.created_at_ms>=:start AND p.created_at_ms<:end)"
    )
    yield from map(Booked._make, connection.execute(_BOOKED + others, keys))
    if rules.provider == "netbanking":
        keys |= {"low": f"ent_out_{rules.start_ms - PAYOUT_MS_MAX:012x}", "high": f"ent_out_{rules.end_ms:012x}"}
        paid_out = (
            " AND p.entry_id>:low AND p.entry_id<:high AND ifnull((SELECT date FROM carried WHERE entry_id=p.entry_id),"
            " date(p.created_at_ms / 1000, 'unixepoch'))=:date"
        )
        yield from map(Booked._make, connection.execute(_PAID_OUT + paid_out, keys))


def payment_at(connection: apsw.Connection, provider: Method, reference: str) -> tuple[str, str] | None:
    """(payment id, merchant id) of a charge's reference."""
    sql = "SELECT a.payment_id, p.merchant_id FROM attempts a JOIN payments p ON p.id=a.payment_id WHERE a.reference=? AND a.provider=?"
    row: tuple[str, str] | None = connection.execute(sql, (reference, provider)).fetchone()
    return row


def known(connection: apsw.Connection, rules: Rules, row: Row) -> list[Known]:
    """Our movements with a row's reference, subject and sort, of whatever day."""
    return [
        _known(connection, rules, booked)
        for booked in _booked(connection, rules, _entry_ids(connection, rules, row))
        if same(booked, row)
    ]


def same(booked: Booked, row: Row) -> bool:
    return (booked.reference, booked.subject, booked.sort) == (row.reference, row.subject, row.sort)


def charges_of(connection: apsw.Connection, rules: Rules, payment_id: str) -> list[Booked]:
    """All that was taken for a payment."""
    sql = "SELECT 'ent_' || id FROM operations WHERE payment_id=? AND kind='capture' LIMIT ?"
    found = [name for (name,) in connection.execute(sql, (payment_id, CHARGES_MAX))]
    return _booked(connection, rules, [f"ent_{payment_id.removeprefix('pay_')}_capture", *found])


def _entry_ids(connection: apsw.Connection, rules: Rules, row: Row) -> list[str]:
    match row.sort:
        case "charge" if row.subject:
            return [f"ent_{row.subject}"]
        case "charge":
            found = payment_at(connection, rules.provider, row.reference)
            return [] if found is None else [f"ent_{found[0].removeprefix('pay_')}_capture"]
        case "refund":
            return [f"ent_{row.subject}", f"ent_{row.subject}_failed"]
        case "chargeback":
            sql = "SELECT id FROM disputes WHERE provider=? AND provider_id=?"
            dispute_id = connection.execute(sql, (rules.provider, row.subject)).get
            return [] if dispute_id is None else [f"ent_{dispute_id}_opened", f"ent_{dispute_id}_won"]
        case "payout":
            return [f"ent_{row.reference}_paid", f"ent_{row.reference}_returned"]


def _booked(connection: apsw.Connection, rules: Rules, entry_ids: list[str]) -> list[Booked]:
    keys = {"account": f"receivable:{rules.provider}", "ids": msgspec.json.encode(entry_ids).decode()}
    one_of = "p.entry_id IN (SELECT value FROM json_each(:ids))"
    found = connection.execute(f"{_BOOKED} WHERE {one_of} AND p.account=:account", keys).fetchall()
    if rules.provider == "netbanking":
        found += connection.execute(f"{_PAID_OUT} AND {one_of}", keys).fetchall()
    return [Booked._make(row) for row in found]


def _known(connection: apsw.Connection, rules: Rules, booked: Booked) -> Known:
    carried_to = connection.execute("SELECT date FROM carried WHERE entry_id=?", (booked.entry_id,)).get
    sql = "SELECT found_date, kind FROM breaks WHERE entry_id=?"
    missed_on = connection.execute(sql, (booked.entry_id,)).fetchone()
    found_date, kind = missed_on or (None, None)
    done = "SELECT 1 FROM reconciliations WHERE provider=? AND date=? AND (state='completed' OR rows>0 OR movements>0)"
    own = carried_to or date_of(booked.at_ms)
    return Known(
        booked=booked,
        found_date=found_date,
        missed=found_date is None and kind == "missing_in_provider",
        day_done=own != rules.date and connection.execute(done, (rules.provider, own)).get is not None,
    )
