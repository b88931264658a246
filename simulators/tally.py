"""Counts of what the journal has: by provider, operation, status and fault, and how long answers were held back.

Entries are counted a block at a time, when the journal packs them, and those of the block being filled when somebody asks. A
call pays 0.4 us for it, and asking costs the same however long the run.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from simulators.faults import CALLS

if TYPE_CHECKING:
    from simulators.journal import Entry

# Upper bounds in ms, inclusive, as Prometheus has them; beyond the last is one bucket more. Three to a factor of ten: a quantile
# read off them is right to within half of itself.
BOUNDS_MS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 60_000)
DELAYED = frozenset({*CALLS, "webhook"})  # the operations that somebody waits for


# Provider, operation, status and fault, which are what entries are told apart by; empty where an entry has none. A plain tuple:
# one with names takes longer to make than all else here.
Kind = tuple[str, str, str, str]


class Delays:
    """Delays of answers: a count for each bucket, and sums in ms."""

    __slots__ = ("counts", "sum_ms", "wait_sum_ms")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_MS) + 1)
        self.sum_ms = 0
        self.wait_sum_ms = 0  # the part that was spent in a queue

    def add(self, other: "Delays") -> None:
        """Adds what the other has counted."""
        self.counts = [own + more for own, more in zip(self.counts, other.counts, strict=True)]
        self.sum_ms += other.sum_ms
        self.wait_sum_ms += other.wait_sum_ms


class Tally:
    """What was counted. Adding the same entries twice counts them twice."""

    def __init__(self) -> None:
        self._kinds: dict[Kind, Delays] = {}

    def add(self, entries: Iterable["Entry"]) -> None:
        """Counts these entries, too."""
        kinds = self._kinds
        for entry in entries:
            charge, delay_ms = entry.charge, entry.delay_ms
            kind = (entry.provider, entry.operation, charge.status if charge else "", entry.fault or "")
            delays = kinds.get(kind)
            if delays is None:
                delays = kinds[kind] = Delays()
            delays.counts[bisect_left(BOUNDS_MS, delay_ms)] += 1
            if delay_ms:
                delays.sum_ms += delay_ms
                delays.wait_sum_ms += entry.wait_ms

    def entries(self) -> Counter[Kind]:
        """How many entries there are of each kind."""
        return Counter({kind: sum(delays.counts) for kind, delays in self._kinds.items()})

    def delays(self) -> dict[tuple[str, str], Delays]:
        """The delays of what somebody waits for, by provider and operation."""
        found: dict[tuple[str, str], Delays] = {}
        for (provider, operation, _, _), delays in self._kinds.items():
            if operation in DELAYED:
                found.setdefault((provider, operation), Delays()).add(delays)
        return found

    def copy(self) -> "Tally":
        """The same counts, which can go their own way."""
        other = Tally()
        for kind, delays in self._kinds.items():
            other._kinds[kind] = Delays()
            other._kinds[kind].add(delays)
        return other
