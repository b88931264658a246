"""What a person is told: the verdict, its reason and what to do."""

import io
import json

import msgspec
import pytest
from rich.console import Console

from loadtests.auditor import Invariant, audit
from loadtests.figures import Spread, Unknowns
from loadtests.recorder import Progress
from loadtests.report import summary, terminal
from loadtests.verdict import Check, Verdict

SPEED = Check("latency p99", "< 2.000 s", "2.049 s", False)
SLOW_GENERATOR = Check("generator lag p99", "<= 10 ms", "12.0 ms", False)
UNJUDGED = Check("throughput", ">= 10000/min", "-", None, "no 60 s window fits")
HOLDS = Invariant(1, "books balance", True, 10)
BROKEN = Invariant(2, "one charge", False, 10, ("key k1: charged more than once",))
UNCHECKED = Invariant(3, "captured", None, 0, (), "not checked: the journal is not there")


def console() -> Console:
    return Console(file=io.StringIO(), width=160, highlight=False, markup=False, emoji=False)


def printed(out: Console) -> str:
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


@pytest.mark.parametrize(
    ("verdict", "invariants", "sentence"),
    [
        (Verdict("PASS", 0, ()), [HOLDS], "Every target was met and every invariant holds."),
        (Verdict("PASS", 0, (UNJUDGED,)), [UNCHECKED], "Nothing failed; not judged: throughput; not checked: 3."),
        (Verdict("FAIL", 99, (SPEED,)), [HOLDS], "Missed: latency p99. No invariant is broken."),
        (Verdict("INVALID", 97, (SLOW_GENERATOR,)), [HOLDS], "The load generator was the limit (generator lag p99)"),
        (Verdict("FAIL", 96, (SPEED,)), [BROKEN], "Money went wrong: invariant 2 does not hold (also missed: latency p99)."),
    ],
)
def test_the_verdict_comes_with_its_reason(verdict, invariants, sentence):
    out = console()
    terminal.show_verdict(out, verdict, invariants)
    last = printed(out).strip().splitlines()[-1]
    assert last.startswith(f"{verdict.result} {sentence}")


def test_every_violation_is_printed_with_its_ids():
    out = console()
    terminal.show_verdict(out, Verdict("FAIL", 96, ()), [BROKEN])
    assert "Invariant 2 is broken: one charge\n  key k1: charged more than once\n" in printed(out)


def test_an_invariant_with_nothing_to_look_at_does_not_look_like_a_success():
    out = console()
    terminal.show_verdict(out, Verdict("PASS", 0, ()), [msgspec.structs.replace(HOLDS, checked=0), UNCHECKED])
    text = printed(out)
    assert "nothing to check" in text
    assert "not checked: the journal is not there" in text
    assert "holds " not in text


def test_unknown_outcomes_are_told_in_a_sentence():
    spread = Spread(2, 500.0, 500.0, 500.0, 1500.0, 1500.0, 1500.0)
    told = terminal.unknowns_text(Unknowns(count=3, unresolved=1, manual_review=0, inquiries=5, to_resolve=spread))
    assert told == (
        "Unknown outcomes: 3 provider calls; 2 resolved after p50 500.0 ms, p99 1.500 s, at most 1.500 s; 5 inquiries; "
        "1 unresolved, 0 in manual review."
    )


def test_without_a_terminal_progress_is_a_line_for_each_phase_not_for_each_report():
    out = console()
    progress = Progress(1.0, "warm-up", 10, 10, 1, 9, 0, 0, 175.0, 100.0, None, 1200.0)
    with terminal.Progression(out, total_s=6) as progression:
        for phase in ("warm-up", "warm-up", "steady", "steady", "draining"):
            progression.load(msgspec.structs.replace(progress, phase=phase))
        progression.waiting({"unknown attempts": 2})
    lines = printed(out).splitlines()
    assert len(lines) == 4
    assert "warm-up" in lines[0]
    assert "10500/min  p50 100.0 ms p95 - p99 1.200 s  ok 9" in lines[0]
    assert lines[3] == "waiting for 2 unknown attempts"


async def test_the_machine_is_described():
    machine = await summary.machine()
    assert machine.cpu_count > 0
    assert machine.versions.keys() >= {"paydrome", "locust"}


def test_findings_can_be_written_as_json(healthy):
    written = json.loads(msgspec.json.encode(audit(healthy)))
    assert written[0] == {
        "number": 1,
        "title": "debits equal credits in every entry and currency",
        "ok": True,
        "checked": 3,
        "violations": [],
        "note": "",
    }
