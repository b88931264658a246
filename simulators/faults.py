"""What goes wrong, and when: pure.

A fault without a window is always active. One with a window waits until the timeline has its zero, and then for its
window. The faults of one operation are mutually exclusive: one draw decides between them and health, each with its own
probability; where the active ones add up to more than 1, the first in the list win.
"""

from typing import Annotated, Literal

import msgspec

from simulators.behaviour import fraction
from simulators.durations import Duration

Kind = Literal["response_lost", "unavailable"]
Operation = Literal["create", "status", "reverse"]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that goes wrong with some of the calls, in a window of the timeline or always.

    `response_lost`: the provider acts, the answer never comes. `unavailable`: 503, and the provider does not act.
    """

    kind: Kind
    probability: Probability
    operation: Operation = "create"
    start: Duration | None = msgspec.field(default=None, name="from")  # on the timeline; None: from its zero
    end: Duration | None = msgspec.field(default=None, name="until")  # None: for good

    def __post_init__(self) -> None:
        if self.end is not None and self.end.ms <= (self.start.ms if self.start else 0):
            raise ValueError(f"until ({self.end}) must come after from ({self.start or '0s'})")

    @property
    def windowed(self) -> bool:
        """Whether the fault waits for the timeline."""
        return self.start is not None or self.end is not None


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
