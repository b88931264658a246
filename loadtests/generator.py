"""Runs the load in a process of its own and hands over what it measured. Importing Locust patches the whole process for gevent,
so this module never does; it starts `python -m locust` and reads its progress, one JSON line after the other."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

from loadtests import samples as columns
from loadtests import scenario as scenarios
from loadtests.recorder import Progress as Progress
from loadtests.recorder import Report, Started, Walked
from loadtests.samples import GeneratorStats as GeneratorStats
from loadtests.samples import Samples
from loadtests.scenario import Scenario
from loadtests.verdict import EXIT_INVALID, EXIT_PASS, EXIT_TARGETS

START_S_MAX = 30  # importing Locust takes about a second; this is a machine in deep trouble
SILENCE_S_MAX = 60  # progress comes every 0.5 s; only at the end, while it saves and judges, is it quiet for long
STOP_S_MAX = 5  # from asking the process to end to ending it
LOG_TAIL_LINES = 40  # a traceback and the table of statistics that Locust writes after it
LOCUSTFILE = Path(__file__).with_name("locustfile.py")

OnProgress = Callable[[Progress], None]
OnStart = Callable[[float], Awaitable[None]]


class GeneratorError(Exception):
    """The load could not be generated to the end; says why, with the end of Locust's log."""


class Generated(msgspec.Struct, frozen=True, eq=False):
    samples: Samples
    acks_path: Path  # one JSON line for each request that was sent: what its client saw
    generator: GeneratorStats
    started_at: float  # zero of the schedule (and of the samples' times), seconds since 1970
    run_id: str  # idempotency keys are `{run_id}-{index}`, of the later steps of a journey `{run_id}-{index}-{number}`
    journeys: Mapping[str, Walked] = {}


async def generate(
    *,
    target: str,
    scenario: Scenario,
    out: Path,
    key: str,
    merchant_id: str,
    seed: int,
    on_progress: OnProgress,
    on_start: OnStart | None = None,
) -> Generated:
    """Offer the scenario's traffic to the gateway at `target` (base URL) and return when the last answer is in.

    Writes scenario.json, samples.npz, acks.ndjson, generator.json and locust.log into the folder `out`. The schedule
    starts when Locust is up; `on_start` gets that moment (seconds since 1970) a little ahead of it. Raises GeneratorError. When
    cancelled it ends the process first.
    """
    out, log_path = _prepare(out, scenario)
    options = ["--host", target, "--scenario", str(out / "scenario.json"), "--out", str(out), "--merchant", merchant_id]
    options += ["--seed", str(seed), "--progress"]
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary", *options),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=_environment(key),
            cwd=out,  # a locust.conf of the caller's folder must not change the run
            start_new_session=True,  # Ctrl-C is for us; we end the process in our own time
        )
    try:
        await _follow(process, log_path, on_progress, on_start)
        exit_code = await process.wait()
    finally:
        await _end(process)
    if exit_code not in (EXIT_PASS, EXIT_INVALID, EXIT_TARGETS) or not (out / "generator.json").exists():
        raise GeneratorError(f"Locust ended with exit code {exit_code} before the schedule was done{_tail(log_path)}")
    report = msgspec.json.decode((out / "generator.json").read_bytes(), type=Report)
    return Generated(
        columns.load(out / "samples.npz"),
        out / "acks.ndjson",
        report.generator,
        report.started_at,
        report.run_id,
        report.journeys,
    )


def _prepare(out: Path, scenario: Scenario) -> tuple[Path, Path]:
    """The folder as an absolute path, since Locust runs in it, and where Locust's log goes."""
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    (out / "generator.json").unlink(missing_ok=True)  # its presence says that this run, not the one before, is complete
    (out / "scenario.json").write_bytes(scenarios.encode(scenario))
    return out, out / "locust.log"


def _environment(key: str) -> dict[str, str]:
    """Ours, without settings meant for somebody else's Locust. The key goes here, since arguments are public on a machine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    return {**kept, "PAYDROME_KEY": key}


async def _follow(
    process: asyncio.subprocess.Process, log_path: Path, on_progress: OnProgress, on_start: OnStart | None
) -> None:
    """Pass on what the process says until it closes its output, which it does by ending."""
    silence_s = START_S_MAX
    while line := await _next_line(process, silence_s, log_path):
        silence_s = SILENCE_S_MAX
        try:
            said = msgspec.json.decode(line, type=Started | Progress)
        except msgspec.DecodeError as error:
            raise GeneratorError(f"Locust said {line!r}, which is no progress: {error}{_tail(log_path)}") from None
        match said:
            case Progress():
                on_progress(said)
            case Started(at=at) if on_start:
                await on_start(at)


async def _next_line(process: asyncio.subprocess.Process, silence_s: float, log_path: Path) -> bytes:
    assert process.stdout is not None
    try:
        return await asyncio.wait_for(process.stdout.readline(), silence_s)
    except TimeoutError:
        raise GeneratorError(f"Locust was silent for {silence_s:g} s{_tail(log_path)}") from None


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_S_MAX)
    if process.returncode is None:
        process.kill()
        await process.wait()


def _tail(log_path: Path) -> str:
    lines = log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    return f"; the end of {log_path}:\n" + "\n".join(lines) if lines else f"; {log_path} is empty"
