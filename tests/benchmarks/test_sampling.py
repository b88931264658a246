"""What a latency and a place in the queue cost a call, against the one hash that is every call's draw, in the same rounds."""

import time
import tracemalloc
from collections.abc import Callable
from hashlib import blake2b
from statistics import median
from typing import Any

import pytest

from simulators.capacity import Capacity, Station
from simulators.durations import Duration
from simulators.latency import LatencyTable, Lognormal

ROUNDS = 15
CALLS = 20_000
YARDSTICK = "one blake2b draw"
COST_MAX = {"latency of a draw": 0.5, "wait of an arrival": 1.0}  # of the yardstick, which takes some 0.4 us
GROWTH_BYTES_MAX = 4_096  # the bookkeeping of the measurement itself

KEYED = blake2b(key=b"12345678", digest_size=48)
DRAWS = [index * 0x9E3779B97F4A7C15 % 2**64 for index in range(CALLS)]  # spread evenly over all draws (Weyl's sequence)
KEYS = [f"card\0create\0ref_{index}\x001" for index in range(CALLS)]


def hashed() -> None:
    for key in KEYS:
        digest = KEYED.copy()
        digest.update(key.encode())
        digest.digest()


def picked(table: LatencyTable) -> None:
    for draw in DRAWS:
        table.pick(draw)


def arrived(station: Station, now_ms: float) -> None:
    for draw in DRAWS:
        now_ms += 0.5  # 16 servers, a mean service of 7.5 ms: 0.94 of what they can do
        station.arrive(now_ms, draw >> 60)


def us_per_call(subject: Callable[[], None]) -> float:
    started = time.perf_counter()
    subject()
    return (time.perf_counter() - started) / CALLS * 1e6


@pytest.fixture
def table() -> LatencyTable:
    return LatencyTable(Lognormal(Duration("180ms"), Duration("800ms")))


def test_sampling_against_a_hash(benchmark: Any, table: LatencyTable) -> None:
    subjects: dict[str, Callable[[], None]] = {
        YARDSTICK: hashed,
        "latency of a draw": lambda: picked(table),
        "wait of an arrival": lambda: arrived(Station(Capacity(servers=16, queue_max=64)), 0.0),
    }
    rounds = 1 if benchmark.disabled else ROUNDS

    def in_turn() -> dict[str, list[float]]:
        found: dict[str, list[float]] = {name: [] for name in subjects}
        for _ in range(rounds):
            for name, subject in subjects.items():
                found[name].append(us_per_call(subject))
        return found

    found = benchmark.pedantic(in_turn, rounds=1)
    shares = {name: median(us / hash_us for us, hash_us in zip(found[name], found[YARDSTICK], strict=True)) for name in found}
    for name, times_us in found.items():
        print(
            f"  {name:24} {median(times_us):6.3f} us ({min(times_us):.3f}..{max(times_us):.3f})  {shares[name]:5.2f} of a draw"
        )
    benchmark.extra_info.update(found)
    if not benchmark.disabled:
        dear = {name: share for name, share in shares.items() if share > COST_MAX.get(name, 1.0)}
        assert not dear, f"dearer than any noise explains: {dear}"


def test_sampling_keeps_no_memory(table: LatencyTable) -> None:
    station = Station(Capacity(servers=16, queue_max=64))
    arrived(station, 0.0)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        picked(table)
        arrived(station, 0.5 * CALLS)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < GROWTH_BYTES_MAX
