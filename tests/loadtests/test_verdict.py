from typing import Any, NamedTuple

import numpy as np
import pytest

from loadtests import samples, verdict
from loadtests.samples import GeneratorStats, Outcome, Samples
from loadtests.scenario import Rate, Targets
from loadtests.verdict import Verdict, judge
from simulators.durations import Duration

S, MS = 1_000_000_000, 1_000_000
GOOD = GeneratorStats(cpu_share=0.3, lag_p99_ms=2.0, scheduled=1000, sent=1000, dropped=0)
TARGETS = Targets(throughput=Rate("10/s"), latency_p99=Duration("2s"), availability=0.999, success=0.9995)


class Invariant(NamedTuple):
    ok: bool | None
    number: int = 2
    title: str = "one charge per key"


def run(
    n: int = 1000,
    gap_ms: int = 100,
    latency_ms: float = 50,
    until_s: float = 100,
    slow: int = 0,
    slow_ms: float = 0,
    **bad: int,
) -> Samples:
    """n payments, one each `gap_ms`, answered after `latency_ms`; the first `slow` after `slow_ms`; `refused` ones get a 503."""
    due_ns = np.arange(n, dtype=np.int64) * gap_ms * MS
    latency = np.full(n, round(latency_ms * MS), np.int64)
    latency[:slow] = round(slow_ms * MS)
    outcome, status = np.zeros(n), np.full(n, 201)
    refused, silent = bad.get("refused", 0), bad.get("silent", 0)
    outcome[:refused], status[:refused] = Outcome.SERVER_ERROR, 503
    outcome[:silent], status[:silent] = Outcome.TIMEOUT, 0
    values = {"index": np.arange(n), "due_ns": due_ns, "sent_ns": due_ns, "done_ns": due_ns + latency, "method": np.zeros(n)}
    values |= {"http_status": status, "outcome": outcome, "duplicate": np.zeros(n), "warm_up": np.zeros(n)}
    values |= {"step": np.zeros(n), "number": np.zeros(n)}
    columns = {name: values[name].astype(dtype) for name, dtype in samples.COLUMNS.items()}
    return Samples(**columns, judged_from_ns=0, judged_until_ns=round(until_s * S))


def judged(
    measured: Samples | None = None,
    stats: GeneratorStats = GOOD,
    targets: Targets = TARGETS,
    success: tuple[int, int] | None = (1000, 1000),
    invariants: tuple[Invariant, ...] = (Invariant(True),),
) -> Verdict:
    return judge(run() if measured is None else measured, stats, targets, success=success, invariants=invariants)


def check(verdict_: Verdict, name: str) -> verdict.Check:
    return next(c for c in verdict_.checks if c.name == name)


def test_a_run_that_meets_everything_passes() -> None:
    assert (judged().result, judged().exit_code) == ("PASS", 0)
    assert [c.ok for c in judged().checks if c.name != "latency p99.9"] == [True] * 8


@pytest.mark.parametrize("money", [True, False, None])
@pytest.mark.parametrize("generator_was_the_limit", [True, False])
@pytest.mark.parametrize("target_missed", [True, False])
def test_money_comes_before_the_generator_and_the_generator_before_targets(
    money: bool | None, generator_was_the_limit: bool, target_missed: bool
) -> None:
    stats = GeneratorStats(0.3, 11.0 if generator_was_the_limit else 2.0, 1000, 1000, 0)
    found = judged(run(latency_ms=2500 if target_missed else 50), stats, invariants=(Invariant(True), Invariant(money)))
    if money is False:
        expected = ("FAIL", verdict.EXIT_MONEY)
    elif generator_was_the_limit:
        expected = ("INVALID", verdict.EXIT_INVALID)
    elif target_missed:
        expected = ("FAIL", verdict.EXIT_TARGETS)
    else:
        expected = ("PASS", verdict.EXIT_PASS)
    assert (found.result, found.exit_code) == expected


def test_exit_codes_are_those_that_scripts_rely_on() -> None:
    codes = (verdict.EXIT_PASS, verdict.EXIT_MONEY, verdict.EXIT_INVALID, verdict.EXIT_TARGETS)
    assert codes == (0, 96, 97, 99)


@pytest.mark.parametrize(
    ("stats", "name", "ok"),
    [
        (GeneratorStats(0.3, 10.0, 1000, 1000, 0), "generator lag p99", True),
        (GeneratorStats(0.3, 10.001, 1000, 1000, 0), "generator lag p99", False),
        (GeneratorStats(0.3, 2.0, 1000, 999, 1), "generator drops", False),
        (GeneratorStats(0.3, 2.0, 1000, 990, 0), "generator sent", True),
        (GeneratorStats(0.3, 2.0, 1000, 989, 0), "generator sent", False),
        (GeneratorStats(0.3, 0.0, 0, 0, 0), "generator sent", False),
        (GeneratorStats(0.80, 2.0, 1000, 1000, 0), "generator CPU", True),
        (GeneratorStats(0.801, 2.0, 1000, 1000, 0), "generator CPU", False),
    ],
)
def test_the_generator_must_not_be_the_limit(stats: GeneratorStats, name: str, ok: bool) -> None:
    found = judged(stats=stats)
    assert check(found, name).ok is ok
    assert found.result == ("PASS" if ok else "INVALID")


@pytest.mark.parametrize(
    ("p99_ms", "shown", "ok"), [(1951, "1.951 s", True), (2000, "2.000 s", False), (2049, "2.049 s", False)]
)
def test_latency_is_judged_on_the_exact_p99(p99_ms: float, shown: str, ok: bool) -> None:
    found = judged(run(slow=11, slow_ms=p99_ms))  # 11 of 1000: the 990th of the sorted ones is the first of the slow
    assert (check(found, "latency p99").measured, check(found, "latency p99").ok) == (shown, ok)
    assert judged(run(slow=10, slow_ms=p99_ms)).result == "PASS"


def test_p999_is_reported_and_not_judged() -> None:
    found = judged(run(slow=5, slow_ms=60_000), targets=Targets(latency_p99=Duration("2s")))
    assert (check(found, "latency p99.9").measured, check(found, "latency p99.9").ok) == ("60.000 s", None)
    assert found.result == "PASS"


def test_silence_counts_as_slower_than_the_target() -> None:
    found = judged(run(silent=20), targets=Targets(latency_p99=Duration("2s")))
    assert (check(found, "latency p99").measured, check(found, "latency p99").ok) == ("no answer", False)


@pytest.mark.parametrize(("refused", "ok"), [(0, True), (1, True), (2, False)])
def test_availability_is_exact_at_its_border(refused: int, ok: bool) -> None:
    found = judged(run(refused=refused), targets=Targets(availability=0.999))
    assert (check(found, "availability").ok, found.exit_code) == (ok, 0 if ok else 99)


@pytest.mark.parametrize(
    ("success", "ok"), [((1000, 1000), True), ((9995, 10_000), True), ((9994, 10_000), False), ((0, 0), None), (None, None)]
)
def test_success_is_exact_at_its_border_and_needs_the_decisions(success: tuple[int, int] | None, ok: bool | None) -> None:
    found = judged(success=success)
    assert (check(found, "success").ok, found.result) == (ok, "FAIL" if ok is False else "PASS")
    assert ok is not None or check(found, "success").note


@pytest.mark.parametrize(("refused", "measured", "ok"), [(0, "600/min", True), (1, "599/min", False)])
def test_throughput_is_exact_in_the_worst_minute(refused: int, measured: str, ok: bool) -> None:
    found = judged(run(refused=refused), targets=Targets(throughput=Rate("600/min")))
    assert (check(found, "throughput").measured, check(found, "throughput").ok) == (measured, ok)
    assert found.exit_code == (0 if ok else 99)


def test_a_run_without_a_whole_minute_says_that_throughput_was_not_judged() -> None:
    found = judged(run(until_s=59.9))
    assert (check(found, "throughput").ok, check(found, "throughput").measured) == (None, "-")
    assert "no 60 s window fits into the 59.9 s" in check(found, "throughput").note
    assert found.result == "PASS"


def test_without_targets_everything_is_measured_and_nothing_judged() -> None:
    found = judged(targets=Targets())
    speed = found.checks[:5]
    assert [c.ok for c in speed] == [None] * 5
    assert all(c.measured != "-" and c.target == "-" and "no target" in c.note for c in speed)


def test_a_run_in_which_nothing_was_sent_is_invalid_and_no_crash() -> None:
    found = judged(run(n=0), GeneratorStats(0.0, 0.0, 100, 0, 0), success=None, invariants=())
    assert (found.result, check(found, "latency p99").ok, check(found, "availability").ok) == ("INVALID", None, None)


@pytest.mark.parametrize(("bad", "result"), [({"silent": 60}, "FAIL"), ({"refused": 60}, "FAIL"), ({"silent": 59}, "PASS")])
def test_a_run_without_a_single_payment_never_passes(bad: dict[str, int], result: str) -> None:
    found = judged(run(n=60, **bad), targets=Targets(), success=None, invariants=())
    assert (found.result, found.exit_code) == (result, 99 if result == "FAIL" else 0)
    assert [(c.target, c.measured, c.ok) for c in found.checks if c.name == "answers"] == [(">= 1", "0", False)] * (
        result == "FAIL"
    )


def test_a_run_that_sent_nothing_in_the_judged_period_is_invalid() -> None:
    measured = run(n=3)
    columns: dict[str, Any] = {name: getattr(measured, name) for name in samples.COLUMNS}
    columns["warm_up"] = np.ones(3, np.bool_)
    stats = GeneratorStats(0.3, 2.0, 3, 3, 0)
    found = judged(Samples(**columns, judged_from_ns=1 * S, judged_until_ns=2 * S), stats, Targets(), None, ())
    assert (found.result, check(found, "generator sent").note) == ("INVALID", "none of it in the judged period")


def test_the_warm_up_is_not_judged() -> None:
    measured = run(slow=100, slow_ms=5000, refused=100)
    columns: dict[str, Any] = {name: getattr(measured, name) for name in samples.COLUMNS}
    columns["warm_up"] = np.arange(1000) < 100
    warmed = Samples(**columns, judged_from_ns=10 * S, judged_until_ns=100 * S)
    assert judged(measured).result == "FAIL"
    assert judged(warmed).result == "PASS"
