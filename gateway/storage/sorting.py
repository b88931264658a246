"""Brings a settlement file and the books into one order, on disk: neither has to fit into memory."""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

import apsw
import msgspec

from gateway.core.errors import FileRefused
from gateway.core.reconciliation import Booked, Row, Rules, fee_is_wrong

GROUP_MAX = 1_000  # rows about the same thing: honest files have one or two
SORT_CACHE_KB = 64_000  # beyond it SQLite sorts in a file
TICK = 10_000  # rows between two looks at whether to go on; 20 ms
OURS, THEIRS = 0, 1

Tick = Callable[[int], None]


class Tally(msgspec.Struct):
    """What was counted while both sides were read."""

    rows: int = 0
    movements: int = 0
    uncovered: int = 0
    matched: int = 0


class Sides:
    """A file's rows and our movements, sorted by reference, subject and sort, in a temporary database on disk that is gone when this is
    closed. Used by one thread at a time."""

    def __init__(self, tick: Tick) -> None:
        """`tick` hears, now and then, how many were taken so far; it may raise to stop the work."""
        self._tick = tick
        self.tally = Tally()
        self._sorter = apsw.Connection("")
        for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{SORT_CACHE_KB}", "temp_store=FILE"):
            self._sorter.execute(f"PRAGMA {pragma}").fetchall()
        self._sorter.execute(
            "CREATE TABLE sides (reference TEXT, subject TEXT, sort TEXT, side INTEGER, amount INTEGER, currency TEXT, at_ms INTEGER,"
            " fee INTEGER, type TEXT, id TEXT, merchant_id TEXT, payment_id TEXT)"
        )
        self._sorter.execute("BEGIN")

    def close(self) -> None:
        self._sorter.close()

    def add_rows(self, file: Iterable[Row]) -> None:
        made = (
            (r.reference, r.subject, r.sort, THEIRS, r.gross_minor, r.currency, r.at_ms, r.fee_minor, r.type, r.provider_id,
             r.merchant_id, None)
            for r in self._counted(file)
        )  # fmt: skip
        self._insert(made)

    def add_booked(self, booked: Iterable[Booked], covered: set[str] | None) -> None:
        """`covered` are the currencies that the file is about; None: all."""
        made = (
            (
                b.reference,
                b.subject,
                b.sort,
                OURS,
                b.amount_minor,
                b.currency,
                b.at_ms,
                0,
                None,
                b.entry_id,
                b.merchant_id,
                b.payment_id,
            )
            for b in self._within(booked, covered)
        )
        self._insert(made)

    def groups(self, rules: Rules) -> Iterator[tuple[list[Row], list[Booked]]]:
        """The groups that are not plainly matched; those are only counted. Raises FileRefused for a group that is too large."""
        ordered = self._sorter.execute("SELECT * FROM sides ORDER BY reference, subject, sort, side")
        tally, start_ms, fees = self.tally, rules.start_ms, rules.fee_basis_points is not None
        for number, (key, found) in enumerate(groupby(ordered, itemgetter(0, 1, 2))):
            group = list(islice(found, GROUP_MAX + 1))
            if number % TICK == 0:
                self._tick(tally.rows)
            if len(group) == 2 and _plain(group[0], group[1], start_ms) and not (fees and fee_is_wrong(_row(group[1]), rules)):
                tally.matched += 1
                continue
            if len(group) > GROUP_MAX:
                raise FileRefused(f"more than {GROUP_MAX} rows are about {key[0]}")
            yield [_row(one) for one in group if one[3] == THEIRS], [_booked_of(one) for one in group if one[3] == OURS]

    def _insert(self, made: Iterator[tuple[Any, ...]]) -> None:
        self._sorter.executemany("INSERT INTO sides VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", made)

    def _counted(self, file: Iterable[Row]) -> Iterator[Row]:
        for row in file:
            self.tally.rows += 1
            if self.tally.rows % TICK == 0:
                self._tick(self.tally.rows)
            yield row

    def _within(self, booked: Iterable[Booked], covered: set[str] | None) -> Iterator[Booked]:
        for one in booked:
            if covered is not None and one.currency not in covered:
                self.tally.uncovered += 1
                continue
            self.tally.movements += 1
            if self.tally.movements % TICK == 0:
                self._tick(self.tally.rows)
            yield one


def _plain(ours: tuple[Any, ...], theirs: tuple[Any, ...], start_ms: int) -> bool:
    """One of each side, with the same amount and currency, and of this day."""
    same: bool = ours[3] != theirs[3] and ours[4:6] == theirs[4:6] and theirs[6] >= start_ms
    return same


def _row(one: tuple[Any, ...]) -> Row:
    reference, subject, sort, _, amount, currency, at_ms, fee, kind, provider_id, merchant_id, _ = one
    return Row(reference, subject, sort, kind, amount, fee, currency, at_ms, provider_id, merchant_id)


def _booked_of(one: tuple[Any, ...]) -> Booked:
    reference, subject, sort, _, amount, currency, at_ms, _, _, entry_id, merchant_id, payment_id = one
    return Booked(reference, subject, sort, amount, currency, at_ms, entry_id, payment_id, merchant_id)
