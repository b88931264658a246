import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.arrivals import REPEAT_AFTER_NS_MAX, plan, schedule

S = 1_000_000_000


def poisson(seed: int, rate_per_s: float = 200, duration_s: float = 100) -> np.ndarray:
    return schedule(seed=seed, rate_per_s=rate_per_s, duration_s=duration_s, arrivals="poisson")


def test_the_same_seed_gives_the_same_schedule_and_another_seed_another() -> None:
    assert poisson(1).tolist() == poisson(1).tolist()
    assert poisson(1).tolist() != poisson(2).tolist()


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    short, long = poisson(3, duration_s=10), poisson(3, duration_s=50)
    assert long[: len(short)].tolist() == short.tolist()


@pytest.mark.parametrize("arrivals", ["poisson", "uniform"])
@given(seed=st.integers(0, 2**63 - 1), rate_per_s=st.floats(0.1, 500), duration_s=st.floats(0.01, 20))
def test_offsets_are_sorted_and_inside_the_duration(arrivals, seed, rate_per_s, duration_s) -> None:
    due_ns = schedule(seed=seed, rate_per_s=rate_per_s, duration_s=duration_s, arrivals=arrivals)
    assert due_ns.dtype == np.int64
    assert (np.diff(due_ns) >= 0).all()
    assert ((due_ns >= 0) & (due_ns < round(duration_s * S))).all()


def test_uniform_arrivals_are_one_a_slot() -> None:
    due_ns = schedule(seed=1, rate_per_s=4, duration_s=2, arrivals="uniform")
    assert due_ns.tolist() == [S // 8 + i * S // 4 for i in range(8)]


def test_poisson_gaps_are_exponential_and_counts_vary_as_they_should() -> None:
    gaps_s = np.diff(poisson(4)) / S
    assert gaps_s.mean() == pytest.approx(1 / 200, rel=0.03)  # 20 000 gaps: one sigma is 0.7%
    assert gaps_s.std() == pytest.approx(gaps_s.mean(), rel=0.05)
    counts = [len(poisson(seed, rate_per_s=100, duration_s=1)) for seed in range(400)]
    assert np.mean(counts) == pytest.approx(100, abs=2.5)  # one sigma is 0.5
    assert np.var(counts) == pytest.approx(100, rel=0.35)  # one sigma is 7%; a fixed count would have none


def test_without_duplicates_the_plan_is_the_schedule() -> None:
    due_ns = poisson(5)
    made = plan(due_ns, seed=5, duplicates=0)
    assert made.due_ns.tolist() == due_ns.tolist()
    assert made.index.tolist() == list(range(len(due_ns)))
    assert not made.duplicate.any()


def test_duplicates_repeat_a_payment_at_once_or_soon_after_and_are_sorted_in() -> None:
    due_ns = poisson(6)
    made = plan(due_ns, seed=6, duplicates=0.1)
    assert (np.diff(made.due_ns) >= 0).all()
    assert sorted(made.index[~made.duplicate].tolist()) == list(range(len(due_ns)))
    repeated = made.index[made.duplicate]
    assert len(np.unique(repeated)) == len(repeated) == pytest.approx(2000, rel=0.1)  # one sigma is 2%
    after_ns = made.due_ns[made.duplicate] - due_ns[repeated]
    assert (after_ns >= 0).all()
    assert after_ns.max() <= REPEAT_AFTER_NS_MAX
    assert 0.4 < (after_ns == 0).mean() < 0.6
    assert made.due_ns[-1] == due_ns[-1]  # nothing after the schedule's end
    for index in repeated:
        assert made.duplicate[made.index == index].tolist() == [False, True]  # the original goes first


def test_which_payments_are_repeated_and_when_does_not_depend_on_the_length_of_the_run() -> None:
    short, long = (plan(poisson(7, duration_s=s), seed=7, duplicates=0.1) for s in (10, 50))
    soon, later = (
        dict(zip(made.index[made.duplicate].tolist(), made.due_ns[made.duplicate].tolist(), strict=True))
        for made in (short, long)
    )
    last_ns, n = int(short.due_ns[-1]), int(short.index.max()) + 1
    assert soon == {index: min(due_ns, last_ns) for index, due_ns in later.items() if index < n}


def test_an_empty_schedule_is_an_empty_plan() -> None:
    assert len(plan(np.array([], np.int64), seed=1, duplicates=1).due_ns) == 0
