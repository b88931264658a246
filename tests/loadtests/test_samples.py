from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests import samples
from loadtests.samples import (
    NEVER,
    NO_ANSWER_NS,
    Outcome,
    Samples,
    answered_ns,
    fewest_in_window,
    lags_ns,
    latencies_ns,
    percentile,
    refused,
)

times = st.lists(st.integers(0, 60), max_size=30).map(lambda values: np.array(sorted(values), np.int64))


def table(*rows: dict[str, Any], until_ns: int = 1000) -> Samples:
    """Samples of rows that say only what differs from a payment that was due and answered at once."""
    usual = {"due_ns": 0, "sent_ns": 0, "done_ns": 0, "method": 0, "http_status": 201, "outcome": Outcome.OK}
    full = [
        {"index": i, **usual, "duplicate": False, "warm_up": False, "step": 0, "number": 0, **row} for i, row in enumerate(rows)
    ]
    columns = {name: np.array([row[name] for row in full], dtype) for name, dtype in samples.COLUMNS.items()}
    return Samples(**columns, judged_from_ns=0, judged_until_ns=until_ns)


def test_saved_samples_are_loaded_as_they_were(tmp_path: Path) -> None:
    made = table({"due_ns": 2**40}, {"outcome": Outcome.DROPPED, "sent_ns": NEVER}, {"duplicate": True, "warm_up": True})
    made.save(tmp_path / "samples.npz")
    loaded = samples.load(tmp_path / "samples.npz")
    for name, dtype in samples.COLUMNS.items():
        assert getattr(loaded, name).dtype == dtype
        assert getattr(loaded, name).tolist() == getattr(made, name).tolist()
    assert (loaded.judged_from_ns, loaded.judged_until_ns) == (0, 1000)


def test_a_file_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", index=np.arange(3))
    with pytest.raises(ValueError, match=r"other\.npz: not a samples file, it has no done_ns"):
        samples.load(tmp_path / "other.npz")


def test_latency_counts_from_the_intended_send() -> None:
    assert latencies_ns(table({"due_ns": 10, "sent_ns": 500, "done_ns": 700})).tolist() == [690]


def test_no_answer_is_slower_than_any_target_and_what_was_never_sent_has_no_latency() -> None:
    made = table(
        {"done_ns": 5},
        {"outcome": Outcome.TIMEOUT, "http_status": 0, "done_ns": 9},
        {"outcome": Outcome.TRANSPORT_ERROR, "http_status": 0, "done_ns": 1},
        {"outcome": Outcome.SERVER_ERROR, "http_status": 503, "done_ns": 7},
        {"outcome": Outcome.DROPPED, "http_status": 0, "sent_ns": NEVER, "done_ns": NEVER},
    )
    assert latencies_ns(made).tolist() == [5, NO_ANSWER_NS, NO_ANSWER_NS, 7]


def test_lag_is_actual_minus_intended_send() -> None:
    made = table({"due_ns": 10, "sent_ns": 12}, {"due_ns": 20, "sent_ns": NEVER, "outcome": Outcome.DROPPED})
    assert lags_ns(made).tolist() == [2]


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=200), st.sampled_from([0.01, 0.07, 0.5, 0.95, 0.99, 0.999, 1.0]))
def test_a_percentile_is_the_smallest_value_that_the_share_does_not_exceed(values: list[int], share: float) -> None:
    found = percentile(np.array(values, np.int64), share)
    per_mille = round(share * 1000)
    enough = [v for v in sorted(values) if sum(w <= v for w in values) * 1000 >= per_mille * len(values)]
    assert found == enough[0]


def test_a_percentile_at_an_exact_rank_is_not_pushed_up_by_rounding() -> None:
    assert percentile(np.arange(1, 101), 0.07) == 7  # in floats 0.07 * 100 is above 7
    assert percentile(np.arange(1, 101), 0.99) == 99


def test_a_percentile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile(np.array([], np.int64), 0.5)


@given(times, st.integers(0, 30), st.integers(1, 40), st.integers(1, 20))
def test_the_worst_window_is_the_worst_of_all_windows(times_ns: Any, from_ns: int, length_ns: int, window_ns: int) -> None:
    until_ns = from_ns + length_ns
    every = [
        sum(start <= t < start + window_ns for t in times_ns.tolist()) for start in range(from_ns, until_ns - window_ns + 1)
    ]
    expected = min(every) if every else None
    assert fewest_in_window(times_ns, from_ns=from_ns, until_ns=until_ns, window_ns=window_ns) == expected


def test_a_gap_counts_wherever_it_lies() -> None:
    busy = np.concatenate((np.arange(0, 40), np.arange(50, 100)))
    assert fewest_in_window(busy, from_ns=0, until_ns=100, window_ns=20) == 10
    assert fewest_in_window(busy, from_ns=0, until_ns=100, window_ns=10) == 0


def test_a_period_shorter_than_the_window_has_none() -> None:
    assert fewest_in_window(np.arange(10), from_ns=0, until_ns=19, window_ns=20) is None
    assert fewest_in_window(np.arange(10), from_ns=0, until_ns=20, window_ns=20) == 10


def test_a_payment_counts_once_when_it_was_first_answered() -> None:
    made = table(
        {"index": 0, "done_ns": 30},
        {"index": 1, "done_ns": 20, "outcome": Outcome.REJECTED, "http_status": 409},
        {"index": 1, "done_ns": 25, "duplicate": True},
        {"index": 0, "done_ns": 10, "duplicate": True},
        {"index": 2, "done_ns": 5, "outcome": Outcome.SERVER_ERROR},
    )
    assert answered_ns(made).tolist() == [10, 25]


def test_only_a_conflict_between_two_equal_requests_is_no_refusal() -> None:
    rejected = {"outcome": Outcome.REJECTED}
    made = table(
        {"index": 0},
        {"index": 1, "http_status": 409, **rejected},
        {"index": 1, "duplicate": True},
        {"index": 2, "http_status": 409, **rejected},  # was sent once: what should it be in conflict with?
        {"index": 3, "http_status": 422, "duplicate": True, **rejected},
        {"index": 4, "http_status": 503, "outcome": Outcome.SERVER_ERROR},
        {"index": 5, "http_status": 0, "outcome": Outcome.TIMEOUT},
        {"index": 6, "http_status": 0, "outcome": Outcome.TRANSPORT_ERROR},
        {"index": 7, "http_status": 0, "outcome": Outcome.DROPPED},
    )
    assert refused(made).tolist() == [False, False, False, True, True, True, True, True, False]


def test_judged_rows_are_those_after_the_warm_up() -> None:
    made = table({"warm_up": True, "due_ns": 1}, {"due_ns": 2}, {"due_ns": 3})
    assert made.judged().due_ns.tolist() == [2, 3]
    assert len(made.judged()) == 2
