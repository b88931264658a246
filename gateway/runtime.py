"""The only file that asks the machine for time, entropy and the loop."""

import os
import resource
import time
from datetime import UTC, datetime

OPEN_FILES_MAX = 65_536  # enough for whatever one process can do; systems that know no bound are asked for no more


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class RandomIds:
    """48 bits of milliseconds, 80 random bits: the layout of a ULID, in hex."""

    def __init__(self) -> None:
        self._entropy: list[str] = []

    def new(self, prefix: str) -> str:
        if not self._entropy:
            entropy = os.urandom(10 * 256).hex()  # the system call costs as much for 256 ids as for one
            self._entropy = [entropy[at : at + 20] for at in range(0, len(entropy), 20)]
        return f"{prefix}_{time.time_ns() // 1_000_000:012x}{self._entropy.pop()}"


def timer_s() -> float:
    """Monotonic seconds, for durations."""
    return time.perf_counter()


def open_files_max() -> int:
    """How many files and connections this process may have open, after asking for as many as the system grants."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return OPEN_FILES_MAX
    wanted = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    if wanted > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):  # some systems have a bound beside the one that they tell
            return soft
    return max(soft, wanted)


def uniform() -> float:
    """A draw from [0, 1), for jitter."""
    return int.from_bytes(os.urandom(7)) / 2**56


_second: tuple[int, str] = (-1, "")


def rfc3339(at_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds: 2024-01-15T10:30:00.000Z."""
    global _second
    second, ms = divmod(at_ms, 1000)
    latest = _second  # other threads may set it meanwhile
    if latest[0] != second:
        _second = latest = (second, datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S"))
    return f"{latest[1]}.{ms:03d}Z"
