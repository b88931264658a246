"""`paydrome run`: the story of one run, from starting the stack to the verdict. The judging itself is pure and elsewhere."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from rich.console import Console

from loadtests import auditor, collect, figures
from loadtests import scenario as scenarios
from loadtests.auditor import Invariant
from loadtests.child import ChildError, Stopped
from loadtests.collect import Settled
from loadtests.evidence import Evidence, Sent, load_acks
from loadtests.generator import Generated, OnStart, generate
from loadtests.report import summary, terminal
from loadtests.report.summary import Cpu, Summary
from loadtests.scenario import Scenario
from loadtests.stack import Files, Stack, cpu_us, export
from loadtests.verdict import Verdict, judge

T = TypeVar("T")

SEED_NOTE = (
    "A seed repeats the traffic and how often each fate is met, not the fate of each payment: that depends on the references, which "
    "the gateway draws anew."
)


class Order(Struct, frozen=True):
    """What to run. `target` None: our own stack."""

    scenario: Scenario
    named: str  # as the user named the scenario
    seed: int
    out: Path
    target: str | None
    key: str
    merchant_id: str


class Outcome(Struct, frozen=True):
    """What a run left behind, before it is judged."""

    generated: Generated
    evidence: Evidence
    cpu: Cpu | None = None
    settled: Settled | None = None
    stopped: tuple[Stopped, ...] = ()
    stack_ready_s: float | None = None
    fates: collect.Fates | None = None


async def run(order: Order, out: Console) -> int:
    """Runs, judges and reports; returns the exit code of the verdict. Raises StackError, ChildError, GeneratorError, TargetError
    or EvidenceError when there is nothing to judge."""
    traffic = order.scenario.traffic
    out.print(
        f"{order.scenario.name}: {traffic.rate} for {traffic.duration} after {traffic.warm_up} of warm-up, seed {order.seed}",
        soft_wrap=True,
    )
    if order.target is not None:
        await collect.probe(order.target, order.key)
    order.out.mkdir(parents=True, exist_ok=True)
    with terminal.Progression(out, total_s=traffic.total_s) as progression:
        outcome = await (
            _against_stack(order, out, progression)
            if order.target is None
            else _against_target(order, order.target, progression)
        )
    invariants = await asyncio.to_thread(auditor.audit, outcome.evidence)
    verdict = judge(
        outcome.generated.samples,
        outcome.generated.generator,
        order.scenario.targets,
        success=auditor.success(outcome.evidence),
        invariants=invariants,
    )
    report = await _summarise(order, outcome, verdict, invariants)
    summary.write(report, order.out / "summary.json")
    _show(out, order, outcome, report)
    return verdict.exit_code


async def _against_stack(order: Order, out: Console, progression: terminal.Progression) -> Outcome:
    fees = msgspec.structs.asdict(order.scenario.fees)
    async with Stack(Files.under(order.out), order.scenario.simulators, seed=order.seed, fees=fees) as stack:
        where = f"gateway {stack.gateway_url}, simulators {stack.simulators_url}"
        out.print(f"stack ready in {stack.ready_s:.2f} s: {where}", soft_wrap=True)
        cpu_before: dict[str, int | None] = {}

        async def on_start(at_s: float) -> None:
            await collect.start_timeline(stack, at_s)
            cpu_before.update(_cpu(stack))

        load = _generate(order, stack.gateway_url, progression, on_start=on_start)
        generated = await _while_alive(stack, load)
        rows = order.out / "gateway.ndjson"
        settled = await _while_alive(stack, collect.settle(stack, rows, progression.waiting))
        cpu_after = _cpu(stack)
        (order.out / "metrics.txt").write_bytes(await collect.metrics_text(stack))
        closed_at_ms = time.time_ns() // 1_000_000
        stopped = [await stack.stop_gateway()]  # first, so that the journal has all that it did
        await collect.save_journal(stack, order.out / "journal.ndjson")
        fates = await collect.fates(stack)
        stopped += await stack.stop()
        await export(stack.files.db, rows)
        evidence = await asyncio.to_thread(_stack_evidence, stack, order.out, generated, closed_at_ms, stopped[0])
    payments = len(evidence.gateway.payments) if evidence.gateway else 0
    cpu = Cpu(payments, *(_per_payment(cpu_before.get(name), used, payments) for name, used in cpu_after.items()))
    return Outcome(generated, evidence, cpu, settled, tuple(stopped), stack.ready_s, fates)


async def _against_target(order: Order, target: str, progression: terminal.Progression) -> Outcome:
    generated = await _generate(order, target, progression)
    acks = await asyncio.to_thread(load_acks, generated.acks_path)
    acknowledged = sorted({ack.paymentID for ack in acks if ack.paymentID})
    statuses = await collect.ask_statuses(target, order.key, acknowledged)
    return Outcome(generated, Evidence(acks, Sent.of(generated.samples, generated.generator), statuses=statuses))


async def _generate(
    order: Order, target: str, progression: terminal.Progression, *, on_start: OnStart | None = None
) -> Generated:
    return await generate(
        target=target,
        scenario=order.scenario,
        out=order.out,
        key=order.key,
        merchant_id=order.merchant_id,
        seed=order.seed,
        on_progress=progression.load,
        on_start=on_start,
    )


async def _while_alive(stack: Stack, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; raises ChildError as soon as gateway or simulators end by themselves."""
    working, dying = asyncio.create_task(work), asyncio.create_task(stack.died())
    try:
        await asyncio.wait({working, dying}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ChildError(dying.result())
        return working.result()
    finally:
        for task in (working, dying):
            task.cancel()
        await asyncio.gather(working, dying, return_exceptions=True)


def _stack_evidence(
    stack: Stack, directory: Path, generated: Generated, closed_at_ms: int, gateway_stopped: Stopped
) -> Evidence:
    acks, sent = load_acks(generated.acks_path), Sent.of(generated.samples, generated.generator)
    return collect.stack_evidence(
        stack, directory, acks=acks, sent=sent, closed_at_ms=closed_at_ms, gateway_stopped=gateway_stopped
    )


def _cpu(stack: Stack) -> dict[str, int | None]:
    return {name: cpu_us(pid) for name, pid in stack.pids.items()}  # gateway, then simulators


def _per_payment(before_us: int | None, after_us: int | None, payments: int) -> float | None:
    if before_us is None or after_us is None or not payments:
        return None
    return round((after_us - before_us) / payments, 1)


async def _summarise(order: Order, outcome: Outcome, verdict: Verdict, invariants: list[Invariant]) -> Summary:
    generated, evidence = outcome.generated, outcome.evidence
    return Summary(
        verdict=verdict,
        invariants=tuple(invariants),
        scenario=msgspec.Raw(scenarios.encode(order.scenario)),
        seed=order.seed,
        run_id=generated.run_id,
        repeat=repeat_command(order),
        target=order.target,
        started_at=generated.started_at,
        requests=evidence.sent.outcomes,
        generator=generated.generator,
        journeys=generated.journeys,
        latency=figures.latencies(generated.samples),
        unknowns=figures.unknowns(evidence),
        completion=figures.completion(evidence),
        cpu=outcome.cpu,
        settled=outcome.settled,
        fates=outcome.fates,
        stopped=tuple(map(str, outcome.stopped)),
        stack_ready_s=outcome.stack_ready_s,
        machine=await summary.machine(),
    )


def _show(out: Console, order: Order, outcome: Outcome, report: Summary) -> None:
    terminal.show_figures(out, report)
    terminal.show_verdict(out, report.verdict, report.invariants)
    for stopped in outcome.stopped:
        if not stopped.clean:
            out.print(f"Note: {stopped}.", soft_wrap=True)
    if outcome.settled is not None and outcome.settled.still_open:
        out.print(f"Note: the stack did not come to rest: {outcome.settled}.", soft_wrap=True)
    out.print(f"Everything about this run: {order.out}/summary.json; samples, records and logs are beside it.", soft_wrap=True)
    out.print(f"Once more: {report.repeat}", soft_wrap=True)
    if order.target is None:
        out.print(SEED_NOTE, soft_wrap=True)


def repeat_command(order: Order) -> str:
    """What to type to do the same again. An API key is left out: it does not belong into reports and shell histories."""
    command = ["paydrome", "run", order.named, "--seed", str(order.seed)]
    if order.target is not None:
        command += ["--target", order.target, "--merchant", order.merchant_id]
    return shlex.join(command)
