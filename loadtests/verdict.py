"""From what was measured to PASS, FAIL or INVALID: pure.

Money comes first: one charge too many is proved by the books, whatever the load was. Then the generator: if it could not send
what it should have, the measured speed says nothing about the gateway, so a missed target (or a met one) is no verdict. Targets
come last. What cannot be judged is shown as such, with the reason, and is no pass.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, Protocol

import msgspec

from loadtests.samples import (
    NO_ANSWER_NS,
    GeneratorStats,
    Outcome,
    Samples,
    answered_ns,
    fewest_in_window,
    latencies_ns,
    percentile,
    refused,
)
from loadtests.scenario import Targets

EXIT_PASS = 0
EXIT_MONEY = 96  # a money invariant is broken
EXIT_INVALID = 97  # the generator was the limit
EXIT_TARGETS = 99  # k6's exit code for missed thresholds, which CI users know

LAG_P99_MS_MAX = 10.0  # the loop's own lag is 1 ms median, 6 ms p99 on a busy 2-core machine
SENT_SHARE_MIN = 0.99
CPU_SHARE_MAX = 0.80  # above this the one thread queues: its waiting times are in what it measures

Result = Literal["PASS", "FAIL", "INVALID"]


class Check(msgspec.Struct, frozen=True):
    """One line of the verdict; `ok` is None when it could not be judged, and `note` then says why."""

    name: str
    target: str
    measured: str
    ok: bool | None
    note: str = ""


class Verdict(msgspec.Struct, frozen=True):
    result: Result
    exit_code: int
    checks: tuple[Check, ...]  # targets first, then the generator's own


class Invariant(Protocol):
    """What the verdict needs of an audited money invariant; `ok` is None when it was not checked."""

    @property
    def number(self) -> int: ...
    @property
    def title(self) -> str: ...
    @property
    def ok(self) -> bool | None: ...


def judge(
    samples: Samples,
    generator_stats: GeneratorStats,
    targets: Targets,
    *,
    success: tuple[int, int] | None,
    invariants: Sequence[Invariant],
) -> Verdict:
    """The verdict on a run. `success` is (payments that reached the outcome the issuer or bank decided, payments decided), None
    when only the clients' view is known."""
    judged = samples.judged()
    speed = (*_target_checks(samples, targets), _success(success, targets), *_nothing_answered(judged))
    generator = _generator_checks(generator_stats, judged)
    checks = (*speed, *generator)
    if any(invariant.ok is False for invariant in invariants):
        return Verdict("FAIL", EXIT_MONEY, checks)
    if any(check.ok is False for check in generator):
        return Verdict("INVALID", EXIT_INVALID, checks)
    if any(check.ok is False for check in speed):
        return Verdict("FAIL", EXIT_TARGETS, checks)
    return Verdict("PASS", EXIT_PASS, checks)


def _target_checks(samples: Samples, targets: Targets) -> tuple[Check, ...]:
    judged = samples.judged()
    return (_throughput(samples, targets), *_latency(judged, targets), _availability(judged, targets))


def _throughput(samples: Samples, targets: Targets) -> Check:
    """Answers are counted by when they came, so those to payments sent just before the judged period belong to it."""
    per_min = targets.throughput_per_min
    target = "-" if per_min is None else f">= {per_min:g}/min"
    worst = fewest_in_window(answered_ns(samples), from_ns=samples.judged_from_ns, until_ns=samples.judged_until_ns)
    if worst is None:
        judged_s = (samples.judged_until_ns - samples.judged_from_ns) / 1e9
        return Check("throughput", target, "-", None, f"no 60 s window fits into the {judged_s:g} s that were measured")
    ok = None if per_min is None else worst >= per_min
    return _check("throughput", target, f"{worst}/min", ok, "successful answers in the worst 60 s window")


def _latency(judged: Samples, targets: Targets) -> tuple[Check, Check]:
    target_ms = targets.latency_p99_ms
    target = "-" if target_ms is None else f"< {_ms(target_ms)}"
    latencies = latencies_ns(judged)
    if not len(latencies):
        nothing = "nothing was sent in the judged period"
        return Check("latency p99", target, "-", None, nothing), Check("latency p99.9", "-", "-", None, nothing)
    p99_ns, p999_ns = percentile(latencies, 0.99), percentile(latencies, 0.999)
    ok = None if target_ms is None else p99_ns < target_ms * 1e6
    note = "from the intended send to the answer"
    return _check("latency p99", target, _latency_text(p99_ns), ok, note), _check(
        "latency p99.9", "-", _latency_text(p999_ns), None, note
    )


def _availability(judged: Samples, targets: Targets) -> Check:
    sent = _sent(judged)
    answered = sent - int(refused(judged).sum())
    return _share("availability", targets.availability, answered, sent, "answered without 5xx, 4xx, timeout or refusal")


def _sent(judged: Samples) -> int:
    """Requests that the generator dropped never asked the gateway anything."""
    return int((judged.outcome != Outcome.DROPPED).sum())


def _success(success: tuple[int, int] | None, targets: Targets) -> Check:
    if success is None:
        target = "-" if targets.success is None else f">= {targets.success:.3%}"
        return Check("success", target, "-", None, "what issuers and banks decided is known only when the simulators are ours")
    reached, decided = success
    return _share("success", targets.success, reached, decided, "payments that reached the outcome the issuer or bank decided")


def _nothing_answered(judged: Samples) -> tuple[Check, ...]:
    """A gateway that makes no payment at all cannot pass, also where no target says so. Shown only then."""
    sent = _sent(judged)
    if not sent or (judged.outcome == Outcome.OK).any():
        return ()
    return (Check("answers", ">= 1", "0", False, f"none of {sent} requests was answered with a payment"),)


def _generator_checks(stats: GeneratorStats, judged: Samples) -> tuple[Check, ...]:
    judged_none = not _sent(judged)
    return (
        _check("generator lag p99", f"<= {LAG_P99_MS_MAX:g} ms", _ms(stats.lag_p99_ms), stats.lag_p99_ms <= LAG_P99_MS_MAX),
        _check("generator drops", "0", str(stats.dropped), stats.dropped == 0, "due while its pool was full"),
        _check(
            "generator sent",
            f">= {SENT_SHARE_MIN:.0%}",
            f"{stats.sent} of {stats.scheduled}",
            stats.scheduled > 0 and not judged_none and stats.sent >= SENT_SHARE_MIN * stats.scheduled,
            "none of it in the judged period" if judged_none else "",
        ),
        _check(
            "generator CPU",
            f"<= {CPU_SHARE_MAX:.0%}",
            f"{stats.cpu_share:.0%}",
            stats.cpu_share <= CPU_SHARE_MAX,
            "of one core",
        ),
    )


def _share(name: str, target: float | None, part: int, whole: int, note: str) -> Check:
    text = "-" if target is None else f">= {target:.3%}"
    if not whole:
        return Check(name, text, "-", None, "nothing to judge")
    ok = None if target is None else part >= Fraction(str(target)) * whole  # exact: 9990 of 10000 is 0.999
    return _check(name, text, f"{part / whole:.4%}", ok, f"{part} of {whole} {note}")


def _check(name: str, target: str, measured: str, ok: bool | None, note: str = "") -> Check:
    """A check that was measured: it is unjudged only for want of a target."""
    return Check(name, target, measured, ok, f"{note}; no target" if ok is None else note)


def _latency_text(ns: int) -> str:
    return "no answer" if ns == NO_ANSWER_NS else _ms(ns / 1e6)


def _ms(ms: float) -> str:
    return f"{ms / 1000:.3f} s" if ms >= 1000 else f"{ms:.1f} ms"  # 1.951 s and 2.049 s must not look the same
