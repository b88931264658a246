"""`summary.json`: everything about a run that a script or a later comparison needs, in one file. Units are in the names."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import msgspec
from msgspec import Struct

from loadtests.auditor import Invariant
from loadtests.collect import Fates, Settled
from loadtests.figures import Completion, Spread, Unknowns
from loadtests.recorder import Walked
from loadtests.samples import GeneratorStats
from loadtests.verdict import Verdict

SCHEMA = 1  # grows when a field changes its meaning or goes away
VERSIONS_OF = ("paydrome", "aiohttp", "uvloop", "msgspec", "numpy", "locust")


class Machine(Struct, frozen=True):
    """What the figures were measured on."""

    system: str
    cpu: str
    cpu_count: int
    python: str
    versions: Mapping[str, str]
    commit: str | None  # of the code that ran, with "+" if it was changed since; None outside a repository


class Cpu(Struct, frozen=True):
    """CPU time from the start of the schedule until the stack was at rest, divided by the payments; None where unknown."""

    payments: int
    gateway_us_per_payment: float | None
    simulators_us_per_payment: float | None


class Summary(Struct, frozen=True, kw_only=True):
    schema: int = SCHEMA
    verdict: Verdict
    invariants: tuple[Invariant, ...]
    scenario: msgspec.Raw  # as it was read
    seed: int
    run_id: str
    repeat: str  # the command that does this run again
    target: str | None  # None: our own stack
    started_at: float  # zero of the schedule, seconds since 1970
    requests: Mapping[str, int]  # by outcome
    generator: GeneratorStats
    journeys: Mapping[str, Walked] = {}
    latency: Mapping[str, Spread]
    unknowns: Unknowns | None
    completion: Completion | None
    cpu: Cpu | None
    settled: Settled | None
    fates: Fates | None = None
    stopped: tuple[str, ...]  # how gateway and simulators ended
    stack_ready_s: float | None
    machine: Machine


def write(summary: Summary, to: Path) -> None:
    to.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")


async def machine() -> Machine:
    """This machine, the installed versions, and the commit if the code is in a repository."""
    return Machine(
        system=platform.platform(),
        cpu=_cpu_name(),
        cpu_count=os.cpu_count() or 0,
        python=platform.python_version(),
        versions={name: metadata.version(name) for name in VERSIONS_OF},
        commit=await _commit(),
    )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


async def _commit() -> str | None:
    commit = await _git("rev-parse", "--verify", "HEAD")
    if commit is None:
        return None
    return commit + ("+" if await _git("status", "--porcelain", "--untracked-files=no", "--", ".") else "")


async def _git(*arguments: str) -> str | None:
    """What git prints about the folder of this package; None if there is no git, no repository, or the package is not part of it."""
    git, here = shutil.which("git"), Path(__file__).parent
    if git is None or "site-packages" in here.parts:  # a virtual environment may lie in somebody else's repository
        return None
    process = await asyncio.create_subprocess_exec(
        git, "-C", str(here.parent.parent), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    said, _ = await process.communicate()
    return said.decode().strip() if process.returncode == 0 else None
