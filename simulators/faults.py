"""What goes wrong, and when: pure.

A fault without a window is always active. One with a window waits until the timeline has its zero, and then for its
window. The faults of one operation are mutually exclusive: one draw decides between them and health, each with its own
probability; where the active ones add up to more than 1, the first in the list win.
"""

from typing import Literal

from simulators.behaviour import fraction
from simulators.config import Fault, Operation

Kind = Literal["response_lost", "unavailable"]


class Faults:
    """The faults of one provider."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self._by_operation: dict[str, list[Fault]] = {}
        for fault in faults:
            self._by_operation.setdefault(fault.operation, []).append(fault)

    def pick(self, operation: Operation, draw: int, elapsed_ms: int | None) -> Kind | None:
        """What goes wrong with this call. `elapsed_ms` counts from the timeline's zero, `None` before it is set."""
        faults = self._by_operation.get(operation)
        if faults is None:
            return None
        threshold = 0.0
        for fault in faults:
            if active(fault, elapsed_ms):
                threshold += fault.probability
                if fraction(draw) < threshold:
                    return fault.kind
        return None


def active(fault: Fault, elapsed_ms: int | None) -> bool:
    """Whether the fault's window (from inclusive, until exclusive) is open."""
    if not fault.windowed:
        return True
    if elapsed_ms is None:
        return False
    after_start = elapsed_ms >= (fault.start.ms if fault.start else 0)
    return after_start and (fault.end is None or elapsed_ms < fault.end.ms)
