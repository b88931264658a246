"""What a reconciliation found and somebody has to look at: pure.

    open <--> resolved by `system`    it explains itself; it opens again if it is there again
      '-----> resolved by a person    stays so, as long as the file says the same or all is well

A break has an id that follows from what it is about. So the same file again finds the same breaks: those that are still there stay,
those that are gone close by themselves, those that somebody resolved stay resolved.
"""

import hashlib
from typing import Any

import msgspec
from msgspec.structs import replace

from gateway.core.errors import CallerError
from gateway.core.payment import Method
from gateway.core.reconciliation import Carried, Finding, Kind, Rules, Run, Status, date_of, fee_minor

SYSTEM = "system"  # who resolves what explains itself
OPERATOR = "operator"

NOTES_MAX = 50  # of a break's history: a person writes a few; the oldest of more are dropped


class Note(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One line of a break's history."""

    at_ms: int
    by: str
    status: Status
    kind: Kind
    note: str


class Break(msgspec.Struct, frozen=True, kw_only=True):
    """`date` is the day that it belongs to; `found_date` is the day of the file that it was found in, where that is another one.
    `expected_` is what our books have, `actual_` what the file has."""

    id: str
    run_id: str
    provider: Method
    date: str
    kind: Kind
    status: Status
    reference: str
    subject: str
    type: str
    currency: str
    expected_minor: int | None = None
    actual_minor: int | None = None
    expected_fee_minor: int | None = None
    actual_fee_minor: int | None = None
    merchant_id: str
    payment_id: str | None = None
    entry_id: str | None = None
    provider_id: str | None = None
    found_date: str | None = None
    resolved_by: str | None = None
    at_ms: int
    created_at_ms: int
    updated_at_ms: int
    history: tuple[Note, ...] = ()


class Reconciled(msgspec.Struct, frozen=True, kw_only=True):
    """What a run writes."""

    run: Run | None = None
    breaks: tuple[Break, ...] = ()
    carried: tuple[Carried, ...] = ()


def made(finding: Finding, rules: Rules, run_id: str, merchant_id: str, payment_id: str | None, *, now_ms: int) -> Break:
    """The break that a finding is. `merchant_id` and `payment_id` are for those without a booked movement; may be empty, None."""
    row, booked, late = finding.row, finding.booked, finding.kind == "late"
    about = row or booked
    assert about is not None
    expected_fee = None
    if row is not None and rules.fee_basis_points is not None:
        expected_fee = fee_minor(row, rules.fee_basis_points)
    since_ms = min(one.at_ms for one in (row, booked) if one is not None)
    earlier = row is not None and booked is not None and since_ms < rules.start_ms
    fresh = Break(
        id=_id(finding, rules),
        run_id=run_id,
        provider=rules.provider,
        date=date_of(since_ms) if earlier else rules.date,
        kind=finding.kind,
        status="resolved" if late else "open",
        reference=about.reference,
        subject=about.subject,
        type=row.type if row else about.sort,
        currency=about.currency,
        expected_minor=None if booked is None else booked.amount_minor,
        actual_minor=None if row is None else row.gross_minor,
        expected_fee_minor=expected_fee,
        actual_fee_minor=None if row is None else row.fee_minor,
        merchant_id=booked.merchant_id if booked else merchant_id,
        payment_id=booked.payment_id or None if booked else payment_id,
        entry_id=booked.entry_id if booked else None,
        provider_id=(row.provider_id or None) if row else None,
        found_date=rules.date if earlier else None,
        resolved_by=SYSTEM if late else None,
        at_ms=about.at_ms,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
    )
    return _noted(fresh, SYSTEM, f"in the file of {rules.date}" if late else "found", now_ms)


def _id(finding: Finding, rules: Rules) -> str:
    """Of a movement of ours, whatever becomes of it; else of the row in this day's file."""
    row, booked = finding.row, finding.booked
    if booked is not None:
        about = f"entry\0{rules.provider}\0{booked.entry_id}"
    else:
        assert row is not None
        parts = (rules.provider, rules.date, row.reference, row.subject, row.sort, row.gross_minor, row.currency)
        about = "\0".join(map(str, ("row", *parts, finding.number)))
    return "brk_" + hashlib.blake2b(about.encode(), digest_size=16).hexdigest()


def merged(before: Break | None, found: Break) -> Break:
    """The break as it is after it was found once more; `before` itself where nothing has changed."""
    if before is None:
        return found
    if found.kind == "missing_in_provider" and before.found_date not in (None, found.date):
        return before  # the file of another day had it
    if found.kind in ("missing_in_gateway", "duplicate") and before.found_date is not None:
        return before  # taken back in the file of another day
    same = (before.kind, before.actual_minor, before.actual_fee_minor, before.expected_fee_minor) == (
        found.kind,
        found.actual_minor,
        found.actual_fee_minor,
        found.expected_fee_minor,
    )
    told = (before.kind, before.actual_minor, before.actual_fee_minor) == (
        found.kind,
        found.actual_minor,
        found.actual_fee_minor,
    )
    by_hand = before.status == "resolved" and before.resolved_by != SYSTEM and (told or found.status == "resolved")
    status: Status = "resolved" if by_hand else found.status
    if same and status == before.status:
        return before
    resolved_by = before.resolved_by if by_hand else found.resolved_by
    text = found.history[-1].note if same or found.kind == "late" else f"now {found.kind}"
    kept = replace(
        found,
        created_at_ms=before.created_at_ms,
        date=found.date if found.kind == "missing_in_provider" else before.date,
        history=before.history,
        status=status,
        resolved_by=resolved_by,
    )
    return _noted(kept, SYSTEM, text, found.updated_at_ms)


def explained(before: Break, *, note: str, found_date: str | None, now_ms: int) -> Break:
    """An open break that closes by itself."""
    closed = replace(before, status="resolved", resolved_by=SYSTEM, found_date=found_date, updated_at_ms=now_ms)
    return _noted(closed, SYSTEM, note, now_ms)


def missed_again(before: Break, *, now_ms: int) -> Break:
    """A break whose movement was found in the file of another day, which has it no more."""
    file_had: dict[str, Any] = {"actual_minor": None, "actual_fee_minor": None, "expected_fee_minor": None, "found_date": None}
    missed = replace(
        before, kind="missing_in_provider", status="open", resolved_by=None, provider_id=None, updated_at_ms=now_ms, **file_had
    )
    return _noted(missed, SYSTEM, f"no longer in the file of {before.found_date}", now_ms)


def resolve(before: Break, *, by: str, note: str, now_ms: int) -> Break:
    """A person's word. Raises CallerError 409 where the break is not open."""
    if before.status != "open":
        raise CallerError(409, "already_resolved", f"the break is resolved already, by {before.resolved_by}")
    return _noted(replace(before, status="resolved", resolved_by=by, updated_at_ms=now_ms), by, note, now_ms)


def _noted(one: Break, by: str, note: str, now_ms: int) -> Break:
    line = Note(now_ms, by, one.status, one.kind, note)
    return replace(one, history=(*one.history, line)[-NOTES_MAX:])
