"""What a person sees of a run: how it goes, the verdict, and what to do next. Tables in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from loadtests.auditor import Invariant
from loadtests.figures import Spread, Unknowns
from loadtests.recorder import Progress, Walked
from loadtests.report.summary import Summary
from loadtests.verdict import EXIT_INVALID, EXIT_MONEY, EXIT_TARGETS, Check, Verdict

PLAIN_PERIOD_S = 5.0  # where there is no terminal to redraw: often enough to see that it lives
PLAIN_WIDTH = 160  # rich would take 80 columns where it cannot ask
REFRESH_PER_S = 4

JUDGED = {True: Text("ok", "green"), False: Text("MISSED", "bold red"), None: Text("not judged", "yellow")}
HELD = {True: Text("holds", "green"), False: Text("BROKEN", "bold red"), None: Text("not checked", "yellow")}
COLOURS = {"PASS": "bold green", "FAIL": "bold red", "INVALID": "bold yellow"}


def console() -> Console:
    """The console for standard output, wide enough for the tables where it is no terminal."""
    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False)  # ids and paths are printed as they are


class Progression:
    """Live progress of one run: a redrawn line block in a terminal, otherwise a line every PLAIN_PERIOD_S."""

    def __init__(self, out: Console, *, total_s: float) -> None:
        self._out, self._total_s = out, total_s
        self._live = Live(console=out, refresh_per_second=REFRESH_PER_S, transient=True) if out.is_terminal else None
        self._told_at = 0.0
        self._told_phase = ""

    def __enter__(self) -> Progression:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def load(self, progress: Progress) -> None:
        """Called twice a second while requests are sent."""
        self._show(_live_table(progress, self._total_s), _line(progress, self._total_s), progress.phase)

    def waiting(self, still_open: Mapping[str, int]) -> None:
        """Called while the stack comes to rest."""
        line = "waiting for " + ", ".join(f"{count} {what}" for what, count in still_open.items())
        self._show(Text(line), line, "settling")

    def _show(self, drawn: Table | Text, line: str, phase: str) -> None:
        if self._live:
            self._live.update(drawn)
        elif phase != self._told_phase or time.monotonic() - self._told_at >= PLAIN_PERIOD_S:
            self._told_at, self._told_phase = time.monotonic(), phase
            self._out.print(line, soft_wrap=True)


def _live_table(progress: Progress, total_s: float) -> Table:
    table = Table("phase", "elapsed", "rate", "p50", "p95", "p99", "answered", "in flight", "errors", "dropped", box=None)
    table.add_row(
        Text(progress.phase, "bold"),
        f"{progress.elapsed_s:.0f} of {total_s:.0f} s",
        f"{progress.rate_per_s * 60:,.0f}/min",
        *(_ms(value) for value in (progress.p50_ms, progress.p95_ms, progress.p99_ms)),
        f"{progress.ok:,}",
        str(progress.in_flight),
        Text(str(progress.errors), "red" if progress.errors else ""),
        Text(str(progress.dropped), "red" if progress.dropped else ""),
    )
    return table


def _line(progress: Progress, total_s: float) -> str:
    percentiles = " ".join(f"{name} {_ms(value)}" for name, value in _percentiles(progress))
    return (
        f"{progress.elapsed_s:5.1f} of {total_s:.0f} s  {progress.phase:8}  {progress.rate_per_s * 60:6.0f}/min  {percentiles}  "
        f"ok {progress.ok}  in flight {progress.in_flight}  errors {progress.errors}  dropped {progress.dropped}"
    )


def _percentiles(progress: Progress) -> tuple[tuple[str, float | None], ...]:
    return ("p50", progress.p50_ms), ("p95", progress.p95_ms), ("p99", progress.p99_ms)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms" if value < 1000 else f"{value / 1000:.3f} s"


def show_verdict(out: Console, verdict: Verdict, invariants: Sequence[Invariant]) -> None:
    """Both tables, every violation, and the verdict with what to do about it."""
    out.print(_checks_table(verdict.checks))
    out.print(_invariants_table(invariants))
    for invariant in invariants:
        if invariant.violations:
            out.print(Text(f"Invariant {invariant.number} is broken: {invariant.title}", "bold red"))
        for violation in invariant.violations:
            out.print(f"  {violation}", soft_wrap=True)
    out.print()
    out.print(Text(verdict.result, COLOURS[verdict.result]) + Text(f" {conclusion(verdict, invariants)}"), soft_wrap=True)


def conclusion(verdict: Verdict, invariants: Sequence[Invariant]) -> str:
    """The verdict's reason, and what to do, in a sentence or two."""
    missed = ", ".join(check.name for check in verdict.checks if check.ok is False)
    broken = ", ".join(str(invariant.number) for invariant in invariants if invariant.ok is False)
    match verdict.exit_code:
        case code if code == EXIT_MONEY:
            also = f" (also missed: {missed})" if missed else ""
            return f"Money went wrong: invariant {broken} does not hold{also}. Look for the ids above in gateway.ndjson and journal.ndjson."
        case code if code == EXIT_INVALID:
            return (
                f"The load generator was the limit ({missed}), so this says nothing about the gateway. "
                "Free the machine, offer less, or send from another machine with --target."
            )
        case code if code == EXIT_TARGETS:
            return f"Missed: {missed}. No invariant is broken."
        case _:
            unjudged = [check.name for check in verdict.checks if check.ok is None and check.target != "-"]
            unchecked = [str(invariant.number) for invariant in invariants if invariant.ok is None]
            left = [f"not judged: {', '.join(unjudged)}"] * bool(unjudged) + [f"not checked: {', '.join(unchecked)}"] * bool(
                unchecked
            )
            return "Every target was met and every invariant holds." if not left else f"Nothing failed; {'; '.join(left)}."


def _checks_table(checks: Sequence[Check]) -> Table:
    table = Table("check", "target", "measured", "", "note", title="Targets", title_justify="left", title_style="bold")
    for check in checks:
        table.add_row(check.name, check.target, check.measured, JUDGED[check.ok] if check.target != "-" else "", check.note)
    return table


def _invariants_table(invariants: Sequence[Invariant]) -> Table:
    table = Table("", "invariant", "looked at", "", "note", title="Money", title_justify="left", title_style="bold")
    for found in invariants:
        held = Text("nothing to check", "yellow") if found.ok and not found.checked else HELD[found.ok]
        table.add_row(str(found.number), found.title, f"{found.checked:,}", held, found.note)
    return table


def show_figures(out: Console, report: Summary) -> None:
    """Latency by method, what the asynchronous rest took, how unknown outcomes ended, and what CPU it all cost."""
    table = Table(
        "latency", "count", "p50", "p95", "p99", "p99.9", "max", title="Figures", title_justify="left", title_style="bold"
    )
    for name, spread in _spreads(report).items():
        values = (spread.p50_ms, spread.p95_ms, spread.p99_ms, spread.p999_ms, spread.max_ms)
        table.add_row(name, f"{spread.count:,}", *(_ms(value) for value in values))
    out.print(table)
    if report.journeys:
        out.print(_journeys_table(report.journeys))
    if report.unknowns is not None:
        out.print(unknowns_text(report.unknowns), soft_wrap=True)
    if report.cpu is not None and report.cpu.gateway_us_per_payment is not None:
        gateway, outside = report.cpu.gateway_us_per_payment, report.cpu.simulators_us_per_payment
        out.print(f"CPU per payment: gateway {gateway:.0f} us, simulators {outside:.0f} us.", soft_wrap=True)
    if report.fates is not None:
        out.print(f"Fate digest of {report.fates.charges:,} charges: {report.fates.digest}", soft_wrap=True)


def _journeys_table(journeys: Mapping[str, Walked]) -> Table:
    table = Table("journey", "begun", "finished", "ended early", title="Journeys", title_justify="left", title_style="bold")
    for name, walked in journeys.items():
        early = ", ".join(f"{count} x {why}" for why, count in walked.stopped.items())
        table.add_row(name, str(walked.begun), str(walked.finished), Text(early, "red"))
    return table


def _spreads(report: Summary) -> dict[str, Spread]:
    named = dict(report.latency)
    if report.completion is not None:
        named["customer's decision to final state"] = report.completion.decision_to_final
        named["final state to webhook"] = report.completion.final_to_webhook
    return {name: spread for name, spread in named.items() if spread.count}


def unknowns_text(unknowns: Unknowns) -> str:
    """One line on the provider calls whose outcome was unknown."""
    if not unknowns.count:
        return "Unknown outcomes: none."
    took = unknowns.to_resolve
    resolved = f"{took.count} resolved after p50 {_ms(took.p50_ms)}, p99 {_ms(took.p99_ms)}, at most {_ms(took.max_ms)}"
    return (
        f"Unknown outcomes: {unknowns.count} provider calls; {resolved}; {unknowns.inquiries} inquiries; "
        f"{unknowns.unresolved} unresolved, {unknowns.manual_review} in manual review."
    )
