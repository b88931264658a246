"""What the providers' journal says: what became of each charge, capture, refund, dispute and authentication. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from loadtests.evidence import JournalEntry

ChargeID = tuple[str, str]  # provider, reference: a reference sent to two providers is two charges
SubjectID = tuple[str, str]  # provider, id of a capture, refund or dispute there

DECISIONS = frozenset({"approved", "authorized", "declined", "expired"})
CHARGE_OPERATIONS = frozenset({"create", "status", "reverse", "decide", "expire"})  # those after which `status` is the charge's
REFUND_OPERATIONS = frozenset({"refund", "refund_status"})
# A call that was refused is journalled with the charge's status instead of these.
REFUND_STATUSES = frozenset({"pending", "completed", "failed"})


class Charge(Struct, frozen=True):
    """What a provider did under one reference."""

    provider: str
    reference: str
    amount: int
    currency: str
    status: (
        str  # pending, authorized, partially_captured, approved, declined, expired, reversed; captures do not change it here
    )
    moved: int = 0  # captured minus reversed, minor units
    parts: int = 0  # what of it was taken by capture calls
    captures: int = 0  # how often money was taken; captures of parts are one together
    reversals: int = 0  # how often it was given back
    decision: str | None = None  # the first of approved, authorized, declined, expired; what the issuer or the customer decided
    changed_at: int = 0  # ms

    @property
    def unreversed(self) -> int:
        return self.captures - self.reversals


class Movement(Struct, frozen=True):
    """A capture, refund or dispute at a provider. `moved` as in the journal: refunds and chargebacks are negative."""

    provider: str
    charge_reference: str
    subject: str
    amount: int
    currency: str
    status: str
    moved: int
    times: int  # how often money moved in its direction; once at the most is right
    changed_at: int  # ms

    @property
    def charge_id(self) -> ChargeID:
        return self.provider, self.charge_reference


class Truth(Struct):
    """Folded from a journal, oldest entry first. `authentications`: the latest transStatus of each reference."""

    charges: dict[ChargeID, Charge] = {}
    captures: dict[SubjectID, Movement] = {}
    refunds: dict[SubjectID, Movement] = {}
    disputes: dict[SubjectID, Movement] = {}
    authentications: dict[str, str] = {}


def fold(journal: Iterable[JournalEntry]) -> Truth:
    """What there is at the end of a journal."""
    truth = Truth()
    for entry in journal:
        if entry.reference is None or entry.status is None:
            continue
        charge_id, subject_id = (entry.provider, entry.reference), (entry.provider, entry.subject or "")
        match entry.operation:
            case operation if operation in CHARGE_OPERATIONS:
                truth.charges[charge_id] = _charge_after(truth.charges.get(charge_id), entry)
            case "capture" if entry.moved > 0:  # all others took nothing: refused, or answered once more
                truth.charges[charge_id] = _captured(truth.charges.get(charge_id), entry, again=subject_id in truth.captures)
                truth.captures[subject_id] = _movement_after(truth.captures.get(subject_id), entry, status="completed", sign=1)
            case operation if operation in REFUND_OPERATIONS and entry.subject and entry.status in REFUND_STATUSES:
                truth.refunds[subject_id] = _movement_after(truth.refunds.get(subject_id), entry, status=entry.status, sign=-1)
            case "dispute" if entry.subject:
                truth.disputes[subject_id] = _movement_after(
                    truth.disputes.get(subject_id), entry, status=entry.status, sign=-1
                )
            case "authenticate":
                truth.authentications[entry.reference] = entry.status
    return truth


def _charge_after(charge: Charge | None, entry: JournalEntry) -> Charge:
    changed = charge is None or charge.status != entry.status or entry.moved != 0
    return Charge(
        provider=entry.provider,
        reference=entry.reference or "",
        amount=entry.amount or 0,
        currency=entry.currency or "",
        status=entry.status or "",
        moved=(charge.moved if charge else 0) + entry.moved,
        parts=charge.parts if charge else 0,
        captures=(charge.captures if charge else 0) + (entry.moved > 0),
        reversals=(charge.reversals if charge else 0) + (entry.moved < 0),
        decision=(charge.decision if charge else None) or (entry.status if entry.status in DECISIONS else None),
        changed_at=entry.at if charge is None or changed else charge.changed_at,
    )


def _captured(charge: Charge | None, entry: JournalEntry, *, again: bool) -> Charge:
    """`again`: the same capture took money before, which is a charge too many."""
    before = charge or Charge(entry.provider, entry.reference or "", 0, entry.currency or "", "authorized")
    return Charge(
        provider=before.provider,
        reference=before.reference,
        amount=before.amount,
        currency=before.currency,
        status=before.status,
        moved=before.moved + entry.moved,
        parts=before.parts + entry.moved,
        captures=before.captures + (not before.parts or again),
        reversals=before.reversals,
        decision=before.decision,
        changed_at=entry.at,
    )


def _movement_after(before: Movement | None, entry: JournalEntry, *, status: str, sign: int) -> Movement:
    changed = before is None or before.status != status or entry.moved != 0
    return Movement(
        provider=entry.provider,
        charge_reference=entry.reference or "",
        subject=entry.subject or "",
        amount=entry.amount or 0,
        currency=entry.currency or "",
        status=status,
        moved=(before.moved if before else 0) + entry.moved,
        times=(before.times if before else 0) + (entry.moved * sign > 0),
        changed_at=entry.at if before is None or changed else before.changed_at,
    )
