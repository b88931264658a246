"""Capacity: how much a provider can do at once, and what a call that finds it busy waits.

A `Station` is the queueing theorist's G/G/c/K system in simulated service time: `servers` calls are served at once, up to
`queue_max` more wait first come, first served, and whoever comes then is rejected. It keeps no timers. When a call arrives it is
known when each server will be free, so its wait is known at once; it becomes part of the delay of the call's answer.

    rho = arrivals per ms * mean service time in ms / servers

Below rho 1 the wait is what Erlang C (M/M/c) or Pollaczek and Khinchine (M/G/1) say; above it the queue fills and rejects. A call
keeps its server for the service time that was drawn for it, also when its client has hung up: that is why retries of calls that
timed out make an overload worse.
"""

from collections import deque
from heapq import heapreplace
from typing import Annotated

import msgspec

SERVERS_MAX = 10_000  # a station keeps one number for each; no provider that one process can simulate answers more at once
QUEUE_MAX = 100_000  # calls that can wait: far beyond the connections that one process can hold open


class Capacity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a provider can do at once for one operation: `servers` in service, `queue_max` waiting (0: none waits)."""

    servers: Annotated[int, msgspec.Meta(ge=1, le=SERVERS_MAX)]
    queue_max: Annotated[int, msgspec.Meta(ge=0, le=QUEUE_MAX)]


class Station:
    """The servers of one operation and the queue in front of them."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._free_ms = [0.0] * capacity.servers  # a heap: when each server has done all that it has taken on
        self._starts_ms: deque[float] = deque()  # when each waiting call will be served; in order, as the queue is

    def arrive(self, now_ms: float, service_ms: float) -> float | None:
        """How long a call that arrives now waits before its service of `service_ms` begins, in ms; None: rejected.

        `now_ms` never goes back from call to call, and is counted from any zero before the first (as `loop.time() * 1000` is).
        """
        free_ms = self._free_ms[0]
        if free_ms <= now_ms:  # and so nobody waits: who waits has the server that is free first
            heapreplace(self._free_ms, now_ms + service_ms)
            return 0.0
        if self.waiting(now_ms) >= self.capacity.queue_max:
            return None
        self._starts_ms.append(free_ms)
        heapreplace(self._free_ms, free_ms + service_ms)
        return free_ms - now_ms

    def waiting(self, now_ms: float) -> int:
        """How many calls wait for a server at `now_ms`."""
        starts_ms = self._starts_ms
        while starts_ms and starts_ms[0] <= now_ms:
            starts_ms.popleft()
        return len(starts_ms)
