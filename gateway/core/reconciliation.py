"""Whether a provider's settlement file says what our books say: pure.

Both sides are movements of money, signed as the merchant sees them: a reference of a charge, the subject (capture, refund, dispute;
empty for a charge that was captured at once), and an amount. What has the same reference, subject and sort is one group, and in it

- a row with the amount of a booked movement, and the right fee, is `matched`;
- one more row like it is a `duplicate`;
- a row and a movement that are left, of the same sign, are an `amount_mismatch`, and so is a wrong fee;
- rows that cancel each other out (a charge that we had reversed before it was ever booked) are matched;
- what is then left is `missing_in_gateway` or `missing_in_provider`, unless another day explains it.

The days of both sides are UTC, and need not agree: a provider acts at 23:59:59.9 and we book at 00:00:00.1. A movement that is
found in the file of another day than its own is `carried` to that day. One that comes in a later day's file than it should have is
`late`, which closes by itself.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec

from gateway.core import money
from gateway.core.payment import Method

Kind = Literal["amount_mismatch", "missing_in_provider", "missing_in_gateway", "duplicate", "late"]
RowType = Literal["charge", "refund", "chargeback", "reversal", "payout"]
Sort = Literal["charge", "refund", "chargeback", "payout"]
Status = Literal["open", "resolved"]
FileFormat = Literal["csv", "camt.053"]
RunState = Literal["running", "completed", "failed"]

KINDS: tuple[Kind, ...] = ("amount_mismatch", "missing_in_provider", "missing_in_gateway", "duplicate", "late")
DAY_MS = 86_400_000
BOUNDARY_MS = (
    60_000  # our clock and the provider's may differ by this: what we book in a day's last minute may be in the next file
)


class Row(NamedTuple):
    """A line of the file. A tuple: there are millions. `fee_minor` is what the provider keeps of `gross_minor`."""

    reference: str
    subject: str
    sort: Sort
    type: RowType
    gross_minor: int
    fee_minor: int
    currency: str
    at_ms: int
    provider_id: str
    merchant_id: str


class Booked(NamedTuple):
    """A movement in our books: the posting of an entry on what the provider owes us, or of a payout. `payment_id` is empty for those."""

    reference: str
    subject: str
    sort: Sort
    amount_minor: int
    currency: str
    at_ms: int
    entry_id: str
    payment_id: str
    merchant_id: str


class Rules(msgspec.Struct, frozen=True):
    """`fee_basis_points`: what the provider may keep of a charge; None: whatever the file says."""

    provider: Method
    date: str
    fee_basis_points: int | None = None

    @property
    def start_ms(self) -> int:
        return start_ms(self.date)

    @property
    def end_ms(self) -> int:
        return self.start_ms + DAY_MS


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One per provider and date. `rows` are the file's, `movements` our own; `uncovered` are ours in currencies that the file is not
    about."""

    id: str
    provider: Method
    date: str
    format: FileFormat
    source: Literal["fetched", "uploaded"]
    state: RunState
    error: str | None = None
    rows: int = 0
    movements: int = 0
    matched: int = 0
    amount_mismatch: int = 0
    missing_in_provider: int = 0
    missing_in_gateway: int = 0
    duplicate: int = 0
    late: int = 0
    uncovered: int = 0
    runs: int = 1
    created_at_ms: int
    updated_at_ms: int


class Carried(msgspec.Struct, frozen=True):
    """A booked movement that belongs into the file of another day than its own."""

    entry_id: str
    provider: Method
    date: str


class Finding(msgspec.Struct, frozen=True):
    """A row, a movement, or a pair of them that is not as it should be. `number` tells rows apart that say the same."""

    kind: Kind
    row: Row | None = None
    booked: Booked | None = None
    number: int = 0


class Group(msgspec.Struct, frozen=True):
    """How a group came out; `rows` and `booked` are left for other days to explain."""

    matched: int
    findings: list[Finding]
    rows: list[Row]
    booked: list[Booked]


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A booked movement that is not among this day's, and what earlier runs made of it: the date of the file that it was carried to or was
    late in, whether it is being missed, whether the run of the day that it belongs to is done."""

    booked: Booked
    found_date: str | None = None
    missed: bool = False
    day_done: bool = False


def date_of(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1000, UTC).date().isoformat()


@lru_cache(maxsize=16)  # once for each row of a file
def start_ms(day: str) -> int:
    """Of a date written YYYY-MM-DD."""
    return (date.fromisoformat(day).toordinal() - date(1970, 1, 1).toordinal()) * DAY_MS


def fee_minor(row: Row, basis_points: int) -> int:
    """What the provider may keep: of charges, and gives back with a reversal (rounded half to even). A refund or chargeback keeps it."""
    if row.sort != "charge":
        return 0
    fee = money.fee_minor(abs(row.gross_minor), basis_points=basis_points)
    return fee if row.gross_minor > 0 else -fee


def fee_is_wrong(row: Row, rules: Rules) -> bool:
    return rules.fee_basis_points is not None and row.fee_minor != fee_minor(row, rules.fee_basis_points)


def compare(rows: Sequence[Row], booked: Sequence[Booked], rules: Rules) -> Group:
    """One group: rows and movements of one reference, subject and sort."""
    matched, findings = 0, list[Finding]()
    ours, theirs, seen = list(booked), list[Row](), Counter[tuple[int, str]]()
    for row in rows:
        money_moved = (row.gross_minor, row.currency)
        pair = next((one for one in ours if (one.amount_minor, one.currency) == money_moved), None)
        if pair is not None:
            ours.remove(pair)
            seen[money_moved] += 1
            if fee_is_wrong(row, rules):
                findings.append(Finding("amount_mismatch", row, pair))
            elif row.at_ms < rules.start_ms:
                findings.append(Finding("late", row, pair))
            else:
                matched += 1
        elif money_moved in seen:
            findings.append(Finding("duplicate", row, number=seen[money_moved]))
            seen[money_moved] += 1
        else:
            theirs.append(row)
    unlike = list[Row]()
    for row in theirs:
        pair = next((one for one in ours if _same_side(one, row)), None)
        if pair is None:
            unlike.append(row)
        else:
            ours.remove(pair)
            findings.append(Finding("amount_mismatch", row, pair))
    return Group(matched, findings, unlike, ours)


def cancelled(rows: Sequence[Row]) -> tuple[int, list[Row]]:
    """How many rows of a group cancel each other out, and those that are left."""
    left = list[Row]()
    for row in rows:
        opposite = next((one for one in left if one.gross_minor == -row.gross_minor and one.currency == row.currency), None)
        if opposite is None:
            left.append(row)
        else:
            left.remove(opposite)
    return len(rows) - len(left), left


def explain(row: Row, known: Sequence[Known], rules: Rules) -> Finding | Carried | None:
    """What a row is that none of this day's movements explains, given the movements of other days in its group. `Carried`: matched, and
    counted to this day from now on. None: no movement of ours."""
    exact = [one for one in known if (one.booked.amount_minor, one.booked.currency) == (row.gross_minor, row.currency)]
    free = next((one for one in exact if _is_free(one, rules.date)), None)
    if free is None and exact:
        return Finding("duplicate", row)
    if free is None:
        free = next((one for one in known if one.missed and _same_side(one.booked, row)), None)
        return None if free is None else Finding("amount_mismatch", row, free.booked)
    if fee_is_wrong(row, rules):
        return Finding("amount_mismatch", row, free.booked)
    if min(row.at_ms, free.booked.at_ms) < rules.start_ms:
        return Finding("late", row, free.booked)
    return Carried(free.booked.entry_id, rules.provider, rules.date)


def _is_free(known: Known, day: str) -> bool:
    """Whether no other day's file has this movement."""
    return known.missed or known.found_date == day or (known.found_date is None and not known.day_done)


def _same_side(booked: Booked, row: Row) -> bool:
    return booked.currency == row.currency and (booked.amount_minor > 0) == (row.gross_minor > 0)
