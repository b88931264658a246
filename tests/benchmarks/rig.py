"""Starts servers, loads them one after the other, and says what it cost them: on one machine, in turn, so that its moods hit all alike."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import NamedTuple

import psutil

HERE = Path(__file__).parent
CONNECTIONS = 64
UNIQUE = "U" * 20  # replaced by a number of its own in each request


class Measured(NamedTuple):
    """`rate` in answers (2xx) a second, `cpu_us` of the server process per answer."""

    rate: float
    cpu_us: float


class Server(AbstractContextManager["Server"]):
    """A server that prints a ready line. Ended on exit."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._command = [sys.executable, *command]
        self._log = log

    def __enter__(self) -> "Server":
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=log)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"{self._command} did not start:\n{self._log.read_text()}"
        self.url: str = json.loads(line)["url"]
        self._usage = psutil.Process(self._process.pid)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def cpu_s(self) -> float:
        times = self._usage.cpu_times()
        return float(times.user + times.system)


def load(server: Server, path: str, body: Path, headers: Sequence[str], seconds: float) -> Measured:
    """What one server does, and what it costs, over `seconds`."""
    command = [sys.executable, str(HERE / "raw_client.py"), server.url, path, "--body", str(body), "--unique", UNIQUE]
    command += ["--connections", str(CONNECTIONS), "--seconds", str(seconds)]
    for header in headers:
        command += ["--header", header]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline().strip() == b"started"
        before_s = server.cpu_s()
        told = json.loads(client.stdout.readline())
        used_s = server.cpu_s() - before_s
    assert told["answers"] == told["ok"] > 0, (
        f"{path}: {told['answers'] - told['ok']} of {told['answers']} answers were no success"
    )
    return Measured(told["rate"], used_s / told["ok"] * 1e6)


def in_turn(subjects: dict[str, Callable[[], Measured]], rounds: int) -> dict[str, list[Measured]]:
    """Each subject once a round, so that whatever the machine does in between meets all of them."""
    found: dict[str, list[Measured]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, measure in subjects.items():
            found[name].append(measure())
    return found


def ratio(subject: Sequence[Measured], yardstick: Sequence[Measured]) -> float:
    """Median over the rounds of rate / yardstick's rate in the same round."""
    return median(one.rate / other.rate for one, other in zip(subject, yardstick, strict=True))


def table(title: str, found: dict[str, list[Measured]], yardstick: str, goals: dict[str, float]) -> str:
    """`goals` are shares of the yardstick's rate."""
    lines = ["", title, f"  {'':44} {'median/s':>9} {'min..max/s':>15} {'CPU us':>7} {'of the yardstick':>17}  goal"]
    for name, rounds in found.items():
        rates = [one.rate for one in rounds]
        spread = f"{min(rates):.0f}..{max(rates):.0f}"
        cpu = median(one.cpu_us for one in rounds)
        share = ratio(rounds, found[yardstick])
        line = f"  {name:44} {median(rates):9.0f} {spread:>15} {cpu:7.0f} {share:17.2f}"
        if name in goals:
            line += f"  {goals[name]} {'met' if share >= goals[name] else 'MISSED'}"
        lines.append(line)
    return "\n".join(lines)
