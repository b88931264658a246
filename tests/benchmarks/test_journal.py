"""The journal over a million entries: what an append costs beside a yardstick, at the start and at the end, and what it holds.

`make bench` writes a million and judges; `make test` writes a few blocks, briefly and without judging.
"""

import time
from typing import Any

import psutil

from simulators.behaviour import Draws
from simulators.charges import Charge
from simulators.journal import BLOCK_WEIGHT, Entry, Journal

ENTRIES = 1_000_000
STRETCHES = 20  # each beside the yardstick, so that the machine's moods hit both
YARDSTICK_SHARE_MAX = 3.0  # draws (1.3 us each) that an append may cost: 4 of the 45 us that a charge may take
GROWTH_MAX = 1.3  # the last stretches beside the first ones: flat, but for noise
RESIDENT_BYTES_MAX = 50  # an entry; it is near 0, but a process grows for other reasons, too. Kept in memory it takes 160


def entries(start: int, count: int) -> list[Entry]:
    made = []
    for number in range(start, start + count):
        at = 1_700_000_000_000 + number
        charge = Charge(
            reference=f"att_{number * 2_654_435_761 % 2**64:016x}",
            providerID=f"ch_{number * 40_503 % 2**40:012x}",
            status="approved",
            responseCode="00",
            amount=1000 + number % 5000,
            currency="INR",
            createdAt=at,
            updatedAt=at,
        )
        entry = Entry(
            at, "card", "create", charge.reference, 1, charge, charge.amount, merchant="merchant_123", order=f"order_{number}"
        )
        made.append(entry)
    return made


def timed(function: Any, arguments: list[Any]) -> float:
    """Microseconds a call."""
    start = time.perf_counter()
    for argument in arguments:
        function(argument)
    return (time.perf_counter() - start) / len(arguments) * 1e6


def test_appending_costs_the_same_from_the_first_to_the_millionth(benchmark: Any) -> None:
    judged = not benchmark.disabled
    count = (ENTRIES if judged else 10 * BLOCK_WEIGHT * STRETCHES) // STRETCHES
    draws, journal, process = Draws(1), Journal(), psutil.Process()
    shares: list[float] = []

    def stretch(start: int) -> None:
        some = entries(start, count)
        yardstick = timed(lambda entry: draws.draw("card", "create", entry.reference, 1), some)
        shares.append(timed(journal.append, some) / yardstick)

    third = STRETCHES // 3
    for index in range(third):
        stretch(index * count)
    resident, before = process.memory_info().rss, len(journal)  # by now the allocator has what one stretch of entries needs
    benchmark.pedantic(lambda: [stretch(index * count) for index in range(third, STRETCHES)], rounds=1)
    grown = (process.memory_info().rss - resident) / (len(journal) - before)
    early, late = (sorted(some)[third // 2] for some in (shares[:third], shares[-third:]))
    print(
        f"\nAppend, in draws: {early:.2f} at the start, {late:.2f} at the end; {grown:.1f} resident bytes an entry of {len(journal)}"
    )
    assert len(journal) == STRETCHES * count
    if judged:
        assert late < YARDSTICK_SHARE_MAX
        assert late / early < GROWTH_MAX
        assert grown < RESIDENT_BYTES_MAX
