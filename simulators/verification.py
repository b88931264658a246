"""Did what should have happened happen? Expectations held against the journal: pure, but for reading it.

An expectation is what entries must say, and how many of them there must be. `{"operation": "create", "order": "X", "moved": 1000}`
is "exactly one charge of 1000 for order X": a create call that is repeated moves nothing the second time. In order means that
all entries of an expectation come before all entries of the next one that has any.

What a function here yields means nothing; it is where others may have their turn.
"""

from collections import Counter
from collections.abc import Generator, Iterable
from typing import Annotated

import msgspec

from simulators.journal import Journal, Row, decode_rows
from simulators.search import NUMBER_MAX, Criteria, Matcher, Number, Window

EXPECTATIONS_MAX = 100  # of one verification; each looks at the whole journal
NEAREST_MAX = 3  # entries shown for an expectation that was not met
TELLING = {"reference": 8, "order": 8, "subject": 8, "merchant": 2}  # what makes an entry the one that was meant; all else 1


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """So many entries, both inclusive."""

    min: Number = 0
    max: Number = NUMBER_MAX

    def __post_init__(self) -> None:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) must not be above max ({self.max})")


class Expectation(Criteria, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Entries that the journal must have. A plain number is exactly that many."""

    count: Number | Range = 1

    @property
    def range(self) -> Range:
        """How many entries there must be."""
        return self.count if isinstance(self.count, Range) else Range(self.count, self.count)


class Verification(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /admin/verify`."""

    expect: Annotated[tuple[Expectation, ...], msgspec.Meta(min_length=1, max_length=EXPECTATIONS_MAX)]
    inOrder: bool = False


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """An expectation that was not met: its index, how many entries it has, how many it wants or after which other one it should
    come (both by index), and the entries that it has too many or that come nearest to it."""

    expectation: int
    found: int
    wanted: int | Range
    nearest: list[Row]
    after: int | None = None


class Verdict(msgspec.Struct, frozen=True):
    """Answer of `POST /admin/verify`. `entries` were looked at."""

    ok: bool
    entries: int
    failures: list[Failure]


class _Tally:
    """What an expectation has found: how many entries, between which numbers, and the last few of them."""

    def __init__(self, expectation: Expectation) -> None:
        self.matcher = Matcher(expectation)
        self.found, self.first, self.last = 0, 0, 0
        self.latest: list[Row] = []

    def add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            if not self.matcher.misses(row):
                self.found += 1
                self.first, self.last = self.first or row.seq, row.seq
                self.latest = [*self.latest, row][-NEAREST_MAX:]


def verify(journal: Journal, asked: Verification) -> Generator[None, None, Verdict]:
    """Holds the expectations against the entries that the journal has at the first step."""
    end = len(journal)
    tallies = [_Tally(expectation) for expectation in asked.expect]
    for chunk in journal.chunks(end=end):
        concerned = [tally for tally in tallies if tally.matcher.may_be_in(chunk)]
        rows = decode_rows(chunk) if concerned else []
        for tally in concerned:
            tally.add(rows)
            yield
        yield
    failures = []
    for index, (expectation, tally) in enumerate(zip(asked.expect, tallies, strict=True)):
        wanted = expectation.range
        if tally.found < wanted.min:
            nearest = yield from _nearest(journal, end, tally.matcher)
            failures.append(Failure(index, tally.found, expectation.count, nearest))
        elif tally.found > wanted.max:
            failures.append(Failure(index, tally.found, expectation.count, tally.latest))
    if asked.inOrder:
        failures += _out_of_order(asked, tallies)
    return Verdict(not failures, end, failures)


def _nearest(journal: Journal, end: int, matcher: Matcher) -> Generator[None, None, list[Row]]:
    """The entries that miss least of what was wanted, the newest first; none that has nothing of it."""
    best: list[tuple[int, int, Row]] = []
    for chunk in journal.chunks(end=end):
        for row in decode_rows(chunk):
            missed = matcher.misses(row)
            if 0 < len(missed) < len(matcher.wanted):
                best.append((sum(TELLING.get(name, 1) for name in missed), -row.seq, row))
        best = sorted(best, key=lambda found: found[:2])[:NEAREST_MAX]
        yield
    return [row for _, _, row in best]


def _out_of_order(asked: Verification, tallies: list[_Tally]) -> list[Failure]:
    failures, before = [], None
    for index, tally in enumerate(tallies):
        if not tally.found:
            continue
        if before is not None and tally.first < tallies[before].last:
            failures.append(Failure(index, tally.found, asked.expect[index].count, tally.latest, after=before))
        before = index
    return failures


def balance(journal: Journal, window: Window) -> Generator[None, None, Counter[str]]:
    """Money that moved by currency, in minor units, over all entries that match; what cancels out stays in as 0."""
    matcher, sums = Matcher(window), Counter[str]()
    for chunk in journal.chunks(window.since):
        if matcher.may_be_in(chunk):
            for row in decode_rows(chunk):
                if row.moved and row.currency and window.start <= row.at < window.end and not matcher.misses(row):
                    sums[row.currency] += row.moved
        yield
    return sums
