from collections import Counter
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.behaviour import DRAW_BITS, Draws, Mix, fraction
from simulators.durations import Duration
from simulators.faults import Fault, Faults, active
from simulators.latency import Constant, LatencyTable, Lognormal, Uniform

REFERENCES = [f"ref_{index}" for index in range(20_000)]


def lanes(draw) -> tuple[int, ...]:
    return tuple(getattr(draw, name) for name in draw.__struct_fields__)


def test_a_draw_depends_on_each_part_of_its_key_and_on_nothing_else():
    draws = Draws(1)
    draw = draws.draw("card", "create", "ref", 1)
    draws.draw("card", "create", "other", 1)
    assert draws.draw("card", "create", "ref", 1) == draw == Draws(1).draw("card", "create", "ref", 1)
    others = [
        Draws(2).draw("card", "create", "ref", 1),
        draws.draw("upi", "create", "ref", 1),
        draws.draw("card", "status", "ref", 1),
        draws.draw("card", "create", "ref2", 1),
        draws.draw("card", "create", "ref", 2),
    ]
    assert len({lanes(other) for other in [draw, *others]}) == 6


def test_a_draw_stays_the_same_across_releases():
    """Runs must stay repeatable from their seed: the formula is part of what a seed means."""
    digest = blake2b(b"card\0create\0ref\x001", key=(7).to_bytes(8, "little"), digest_size=48).digest()
    expected = tuple(int.from_bytes(digest[start : start + 8], "little") for start in range(0, 48, 8))
    assert lanes(Draws(7).draw("card", "create", "ref", 1)) == expected


def test_the_lanes_of_a_draw_are_uniform_and_independent():
    draws = Draws(5)
    values = np.array([lanes(draws.draw("card", "create", reference, 1)) for reference in REFERENCES], dtype=np.uint64)
    shares = values.astype(np.float64) / 2.0**64
    # Standard errors over 20 000 draws: 0.002 for a mean, 0.007 for a correlation.
    assert np.all(np.abs(shares.mean(axis=0) - 0.5) < 0.01)
    correlations = np.corrcoef(shares, rowvar=False) - np.eye(shares.shape[1])
    assert np.all(np.abs(correlations) < 0.035)


@given(st.integers(0, 2**DRAW_BITS - 1))
def test_a_fraction_is_below_one(draw):
    assert 0 <= fraction(draw) < 1


def test_a_mix_gives_each_code_its_share():
    mix, draws = Mix({"00": 0.9, "05": 0.0, "51": 0.1}), Draws(3)
    counts = Counter(mix.pick(draws.draw("card", "create", reference, 1).outcome) for reference in REFERENCES)
    assert set(counts) == {"00", "51"}
    assert abs(counts["51"] / len(REFERENCES) - 0.1) < 0.01


@pytest.mark.parametrize("draw", [0, 2**DRAW_BITS - 1])
def test_a_code_with_probability_zero_never_comes(draw):
    assert Mix({"05": 0.0, "00": 1.0, "51": 0.0}).pick(draw) == "00"


def test_the_last_code_takes_what_rounding_leaves():
    assert Mix({"00": 0.7, "05": 0.1, "51": 0.1, "54": 0.1 - 1e-10}).pick(2**DRAW_BITS - 1) == "54"


def test_a_constant_latency_is_always_the_same():
    assert set(LatencyTable(Constant(Duration("50ms"))).quantiles_ms) == {50}


def test_a_uniform_latency_stays_between_its_bounds():
    table = LatencyTable(Uniform(Duration("10ms"), Duration("90ms")))
    assert (table.pick(0), table.pick(2**63), table.pick(2**64 - 1)) == (10, 50, 90)


def test_a_lognormal_latency_has_its_p50_and_p99():
    table = LatencyTable(Lognormal(Duration("120ms"), Duration("600ms"))).quantiles_ms
    assert np.quantile(table, [0.5, 0.99]) == pytest.approx([120, 600], rel=0.01)
    assert np.mean(np.array(table) <= 600) == pytest.approx(0.99, abs=0.001)


def fault(kind: str, probability: float, start: str | None = None, end: str | None = None, operation: str = "create") -> Fault:
    return Fault(kind, probability, operation, Duration(start) if start else None, Duration(end) if end else None)


@pytest.mark.parametrize(
    ("start", "end", "elapsed_ms", "expected"),
    [
        (None, None, None, True),
        (None, None, 0, True),
        ("1s", "2s", None, False),
        ("1s", "2s", 999, False),
        ("1s", "2s", 1000, True),
        ("1s", "2s", 1999, True),
        ("1s", "2s", 2000, False),
        ("1s", None, 10**9, True),
        ("1s", None, None, False),
        (None, "2s", -1, False),
        (None, "2s", 0, True),
        (None, "2s", 2000, False),
        (None, "2s", None, False),
    ],
)
def test_a_window_is_open_from_its_start_until_its_end(start, end, elapsed_ms, expected):
    assert active(fault("unavailable", 1, start, end), elapsed_ms) is expected


def test_a_fault_strikes_its_operation_with_its_probability():
    faults, draws = Faults((fault("unavailable", 0.1), fault("response_lost", 0.2))), Draws(4)
    picked = Counter(faults.pick("create", draws.draw("card", "create", reference, 1).fault, None) for reference in REFERENCES)
    assert abs(picked["unavailable"] / len(REFERENCES) - 0.1) < 0.01
    assert abs(picked["response_lost"] / len(REFERENCES) - 0.2) < 0.012
    assert faults.pick("status", 0, None) is None


def test_a_closed_window_leaves_the_other_faults_alone():
    faults = Faults((fault("unavailable", 1, "1s", "2s"), fault("response_lost", 1)))
    assert [faults.pick("create", 0, elapsed_ms) for elapsed_ms in (None, 500, 1500)] == [
        "response_lost",
        "response_lost",
        "unavailable",
    ]
