"""One comparison of a provider's file with the books: what it finds, and which earlier breaks it explains. Reads only."""

from collections import Counter

import apsw
import msgspec

from gateway.core.breaks import Break, made
from gateway.core.errors import FileRefused
from gateway.core.reconciliation import (
    BOUNDARY_MS,
    DAY_MS,
    Booked,
    Carried,
    Finding,
    Row,
    Rules,
    cancelled,
    compare,
    date_of,
    explain,
)
from gateway.storage import reconciliation as storage
from gateway.storage.sorting import Sides, Tally

BREAKS_MAX = 10_000  # of a run: more are not worked one by one, but are the wrong file


class Explained(msgspec.Struct, frozen=True):
    """A break of another day that closes by itself. `carried`: with the movement that it was about, or that explains it; both are written
    at once, as neither would be found again without the other."""

    break_id: str
    note: str
    found_date: str
    carried: Carried | None = None


class Found(msgspec.Struct, frozen=True):
    """`carried` are those that explain no break."""

    tally: Tally
    breaks: list[Break]
    explained: list[Explained]
    carried: list[Carried]


class Comparison:
    """Over one snapshot of the books."""

    def __init__(
        self, connection: apsw.Connection, rules: Rules, *, run_id: str, merchants: frozenset[str], now_ms: int
    ) -> None:
        self._connection = connection
        self._rules = rules
        self._run_id = run_id
        self._merchants = merchants
        self._now_ms = now_ms
        self._breaks: list[Break] = []
        self._explained: list[Explained] = []
        self._carried: list[Carried] = []

    def run(self, sides: Sides, covered: set[str] | None) -> Found:
        """`sides` has the file's rows. Raises FileRefused where so much is wrong that it must be the wrong file."""
        sides.add_booked(storage.booked_on(self._connection, self._rules), covered)
        for rows, booked in sides.groups(self._rules):
            sides.tally.matched += self._group(rows, booked)
        return Found(sides.tally, self._breaks, self._explained, self._carried)

    def _group(self, rows: list[Row], booked: list[Booked]) -> int:
        """How many rows of a group are matched."""
        group = compare(rows, booked, self._rules)
        for finding in group.findings:
            self._add(finding)
        used = {one.entry_id for one in booked}
        matched, left = group.matched, group.rows
        if len(left) > 1 and left[0].sort == "charge" and self._payment_at(left[0]) is not None:
            pairs, left = cancelled(left)
            matched += pairs
        again = Counter[tuple[int, str]]()
        for row in left:
            money_moved = (row.gross_minor, row.currency)
            matched += self._row(row, used, again[money_moved])
            again[money_moved] += 1
        return matched + sum(self._movement(one) for one in group.booked)

    def _row(self, row: Row, used: set[str], number: int) -> bool:
        """Whether another day explains a row of the file."""
        known = [one for one in storage.known(self._connection, self._rules, row) if one.booked.entry_id not in used]
        verdict = explain(row, known, self._rules)
        match verdict:
            case Carried():
                used.add(verdict.entry_id)
                self._carry(row, verdict)
                return True
            case Finding():
                if verdict.booked is not None:
                    used.add(verdict.booked.entry_id)
                self._add(msgspec.structs.replace(verdict, number=number))
                return False
            case None:
                return self._stray(row, number)

    def _carry(self, row: Row, carried: Carried) -> None:
        for one in storage.breaks_about(self._connection, self._rules.provider, row.reference):
            if one.entry_id == carried.entry_id and one.status == "open":
                day = self._rules.date
                self._explained.append(Explained(one.id, f"in the file of {day}", day, carried))
                return  # a movement has one break
        self._carried.append(carried)

    def _stray(self, row: Row, number: int) -> bool:
        """A row without a movement of ours."""
        for one in self._open_rows(row.reference, row.subject, row.currency, -row.gross_minor):
            if row.sort == "charge" and one.type in ("charge", "reversal"):
                day = self._rules.date
                self._explained.append(Explained(one.id, f"taken back in the file of {day}", day))
                return True
        again = row.sort == "charge" and row.gross_minor > 0 and self._was_taken(row)
        self._add(Finding("duplicate" if again else "missing_in_gateway", row, number=number))
        return False

    def _was_taken(self, row: Row) -> bool:
        """Whether this is money that we have taken before, as where a provider charges twice."""
        place = self._payment_at(row)
        if place is None or row.subject.startswith("cap_"):
            return False
        taken = storage.charges_of(self._connection, self._rules, place[0])
        return any((one.amount_minor, one.currency) == (row.gross_minor, row.currency) for one in taken)

    def _movement(self, booked: Booked) -> bool:
        """Whether another day explains a movement that the file does not have."""
        rules = self._rules
        for one in self._open_rows(booked.reference, booked.subject, booked.currency, booked.amount_minor):
            carried = Carried(booked.entry_id, rules.provider, one.date)
            self._explained.append(Explained(one.id, f"booked on {date_of(booked.at_ms)}", one.date, carried))
            return True
        tomorrow = date_of(rules.start_ms + DAY_MS)
        if booked.at_ms >= rules.end_ms - BOUNDARY_MS:
            after = storage.run_of(self._connection, rules.provider, tomorrow)
            if after is None or after.state != "completed":
                self._carried.append(Carried(booked.entry_id, rules.provider, tomorrow))
                return False
        self._add(Finding("missing_in_provider", booked=booked))
        return False

    def _open_rows(self, reference: str, subject: str, currency: str, amount_minor: int) -> list[Break]:
        """Rows of other days' files that nothing explains, or that this day's file did when it was read before."""
        day = self._rules.date
        return [
            one
            for one in storage.breaks_about(self._connection, self._rules.provider, reference)
            if one.kind == "missing_in_gateway"
            and (one.subject, one.currency, one.actual_minor) == (subject, currency, amount_minor)
            and one.date != day
            and (one.found_date == day or (one.found_date is None and one.status == "open"))
        ]

    def _payment_at(self, row: Row) -> tuple[str, str] | None:
        return storage.payment_at(self._connection, self._rules.provider, row.reference)

    def _add(self, finding: Finding) -> None:
        if len(self._breaks) >= BREAKS_MAX:
            raise FileRefused(
                f"more than {BREAKS_MAX} breaks: is it the file of {self._rules.provider} for {self._rules.date}, with the right fee?"
            )
        merchant_id, payment_id = "", None
        if finding.booked is None and finding.row is not None:
            place = self._payment_at(finding.row)
            if place is not None:
                payment_id, merchant_id = place
            elif finding.row.merchant_id in self._merchants:
                merchant_id = finding.row.merchant_id
        self._breaks.append(made(finding, self._rules, self._run_id, merchant_id, payment_id, now_ms=self._now_ms))
