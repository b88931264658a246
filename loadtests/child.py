"""A child process that says when it is ready, and ends when it is told to, or when we are gone.

The contract with it: it serves on an inherited listening socket (`--fd`), prints one JSON line on stdout when it is ready
(`{"ready": name, "url": ..., "pid": N}`), logs to stderr, drains on SIGTERM, and (`--supervised`) ends when its stdin does,
which happens when this process dies in any way.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

READY_S_MAX = 15.0  # it takes well below a second; this is a machine in deep trouble
STOP_S_MAX = 15.0  # draining waits for provider calls (1.5 s) and webhooks that are being sent (5 s)
LOG_TAIL_BYTES, LOG_TAIL_LINES = 16_384, 15


class ChildError(Exception):
    """A child did not start, or ended by itself; says which, and shows the end of its log."""


class Ready(Struct, frozen=True):
    ready: str
    url: str
    pid: int


class Stopped(Struct, frozen=True):
    """How a child ended. `killed`: it did not drain in time. An exit code below 0 is a signal's number."""

    name: str
    exit_code: int
    killed: bool

    @property
    def clean(self) -> bool:
        return self.exit_code == 0 and not self.killed

    def __str__(self) -> str:
        if self.killed:
            return f"the {self.name} did not stop within {STOP_S_MAX:g} s of SIGTERM and was killed"
        return f"the {self.name} ended with exit code {self.exit_code}"


class Child:
    """One child process on one socket. It can be started again on the same socket after it ended."""

    def __init__(self, name: str, command: Sequence[str], *, listener: socket.socket, log: Path) -> None:
        self.name = name
        self.log = log
        self._command = tuple(command)
        self._listener = listener
        self._process: asyncio.subprocess.Process | None = None
        self._log_from = 0  # where its log begins: earlier starts have written to the same file

    @property
    def started(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        return self._running().pid

    async def start(self, *, timeout_s: float = READY_S_MAX) -> Ready:
        """Returns when it is ready. Raises ChildError if it ends before, is silent for too long, or says something else."""
        fd = self._listener.fileno()
        with self.log.open("ab") as log:
            self._log_from = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                *("--fd", str(fd), "--supervised"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                pass_fds=(fd,),
                process_group=0,  # Ctrl-C in a terminal is for us; children are stopped in order
            )
        try:
            return await asyncio.wait_for(self._ready(self._process), timeout_s)
        except TimeoutError:
            await self.kill()
            raise ChildError(f"the {self.name} was not ready within {timeout_s:g} s{self.log_tail()}") from None
        except BaseException:
            await self.kill()
            raise

    async def ended(self) -> int:
        """Waits until it ends; returns the exit code, below 0 for a signal."""
        return await self._running().wait()

    async def stop(self, *, timeout_s: float = STOP_S_MAX) -> Stopped:
        """Asks it to drain and end, and ends it if it does not."""
        process = self._running()
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself: its exit code tells
            process.terminate()
        killed = False
        try:
            await asyncio.wait_for(process.wait(), timeout_s)
        except TimeoutError:
            killed = True
            await self.kill()
        return Stopped(self.name, process.returncode or 0, killed)

    async def kill(self) -> None:
        """SIGKILL: it gets no chance to tidy up."""
        process = self._running()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    def log_tail(self) -> str:
        """The end of what it has logged since it was last started, ready to follow a sentence."""
        with self.log.open("rb") as log:
            log.seek(max(self._log_from, log.seek(0, 2) - LOG_TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return f"; the end of {self.log}:\n" + "\n".join(lines) if lines else f"; it wrote nothing to {self.log}"

    async def _ready(self, process: asyncio.subprocess.Process) -> Ready:
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line:
            raise ChildError(
                f"the {self.name} ended with exit code {await process.wait()} before it was ready{self.log_tail()}"
            )
        try:
            return msgspec.json.decode(line, type=Ready)
        except msgspec.MsgspecError:
            raise ChildError(f"the {self.name} printed {line[:200]!r} instead of a ready line{self.log_tail()}") from None

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise ChildError(f"the {self.name} was not started")
        return self._process
