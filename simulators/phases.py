"""Who behaves how at which time of the timeline: pure.

`Conducts(provider, settings, phases).at(elapsed_ms)` is the conduct of one provider: mix, latencies, stations and faults, ready to
draw from. Each phase's conduct is made once, so that asking costs a bisect where phases exist and nothing where there are none.
Outside of all phases, and before the timeline has its zero, the provider's own settings hold. A station lives as long as its
`Conducts`, so a phase that says nothing about capacity finds the queues as they were.
"""

from bisect import bisect_right
from functools import lru_cache

from simulators.behaviour import Mix
from simulators.capacity import Capacity, Station
from simulators.config import Bank, BankChanges, Card, CardChanges, Changes, Phase, Upi
from simulators.faults import CALLS, CallOperation, Faults
from simulators.latency import Latency, LatencyTable
from simulators.providers import Conduct

# One table for equal latencies, of all tenants: it holds thousands of numbers, 50 kB, and takes 1 ms to make.
latency_table = lru_cache(maxsize=256)(LatencyTable)


class Conducts:
    """The conducts of one provider, by time."""

    def __init__(self, provider: str, settings: Card | Upi | Bank, phases: tuple[Phase, ...] = ()) -> None:
        self._provider = provider
        self._stations: dict[tuple[str, Capacity], Station] = {}
        self.change(settings, phases)

    def change(self, settings: Card | Upi | Bank, phases: tuple[Phase, ...]) -> None:
        """From now on these settings hold. A queue goes on where its capacity stays."""
        self._settings = settings
        self._stations_before, self._stations = self._stations, {}
        self._faults = Faults(self._provider, settings.faults)
        self.base = self._conduct(Changes(), "")
        self._bounds_ms: list[float] = []
        self._stretches: list[tuple[str, Conduct]] = [("", self.base)]  # name and conduct before, between and after the bounds
        for phase in sorted(phases, key=lambda phase: phase.start.ms):
            self._bounds_ms += [phase.start.ms, phase.end.ms]
            self._stretches += [(phase.name, self._conduct(getattr(phase, self._provider), phase.name)), ("", self.base)]

    def at(self, elapsed_ms: int | None) -> Conduct:
        """The conduct at this time of the timeline; `None`: it has no zero yet."""
        if not self._bounds_ms or elapsed_ms is None:
            return self.base
        return self._stretches[bisect_right(self._bounds_ms, elapsed_ms)][1]

    def phase_at(self, elapsed_ms: int | None) -> str:
        """The name of the phase at this time, empty where there is none."""
        return "" if elapsed_ms is None else self._stretches[bisect_right(self._bounds_ms, elapsed_ms)][0]

    def _conduct(self, changes: Changes, phase: str) -> Conduct:
        settings = self._settings
        return Conduct(
            Mix(settings.outcomes if changes.outcomes is None else changes.outcomes),
            customer_delay=latency_table(settings.customer.delay),
            customer_acts=settings.customer.acts,
            challenge=settings.challenge if isinstance(settings, Card) else "person",
            authentication=Mix(_authentication(settings, changes)) if isinstance(settings, Card) else None,
            payouts=Mix(_payouts(settings, changes)) if isinstance(settings, Bank) else None,
            latencies=self._latencies(changes),
            stations={
                operation: self._station(operation, capacity)
                for operation, capacity in (settings.capacity if changes.capacity is None else changes.capacity).items()
            },
            faults=self._faults if changes.faults is None else Faults(self._provider, changes.faults, phase=phase),
        )

    def _station(self, operation: str, capacity: Capacity) -> Station:
        key = (operation, capacity)
        if key not in self._stations:
            self._stations[key] = self._stations_before.get(key) or Station(capacity)
        return self._stations[key]

    def _latencies(self, changes: Changes) -> dict[str, LatencyTable]:
        return {operation: latency_table(latency_of(self._settings, changes, operation)) for operation in CALLS}


def latency_of(settings: Card | Upi | Bank, changes: Changes, operation: CallOperation) -> Latency:
    """The latency of an operation. A phase's `latency` goes before the base's `latencies`: in a brownout all is slow."""
    single = {**({} if changes.latency else settings.latencies), **(changes.latencies or {})}
    return single.get(operation, changes.latency or settings.latency)


def _authentication(settings: Card, changes: Changes) -> dict[str, float]:
    changed = changes.authentication if isinstance(changes, CardChanges) else None
    return settings.authentication if changed is None else changed


def _payouts(settings: Bank, changes: Changes) -> dict[str, float]:
    changed = changes.payouts if isinstance(changes, BankChanges) else None
    return settings.payouts if changed is None else changed
