"""What all providers share, and what one of them remembers."""

import time

import msgspec

from simulators.behaviour import Draws
from simulators.charges import Charge, pack, unpack
from simulators.clock import Clock
from simulators.history import History
from simulators.journal import Journal
from simulators.providers import Later, Waiting


class World:
    """The clock, the timeline, the draws of this run's seed, and the journal."""

    def __init__(self, *, seed: int, clock: Clock) -> None:
        self.clock = clock
        self.now_ms = clock.now_ms
        self.draws = Draws(seed)
        self.journal = Journal()
        self._timeline_start_ms: int | None = None
        self.timelines = History[int | None](None)  # the zeros that it had
        self.memories: list[tuple[object, tuple[str, ...]]] = []  # who remembers, and in which attributes

    def remember(self, owner: object, *attributes: str) -> None:
        """What `owner` keeps in these attributes (dicts and numbers) is part of the state of this world: a snapshot has it, a reset
        empties it. An owner whose methods wait on the clock must be named too, even if it keeps nothing."""
        self.memories.append((owner, attributes))

    def elapsed_ms(self, now_ms: int) -> int | None:
        """Time on the timeline, `None` before it has a zero."""
        return None if self._timeline_start_ms is None else now_ms - self._timeline_start_ms

    @property
    def timeline_start_ms(self) -> int | None:
        """The zero of the timeline, ms since 1970; `None` before it has one."""
        return self._timeline_start_ms

    @timeline_start_ms.setter
    def timeline_start_ms(self, start_ms: int | None) -> None:
        self._timeline_start_ms = start_ms
        self.timelines.note(len(self.journal), start_ms)
        self.clock.on_change()


class Record(msgspec.Struct, gc=False):
    """What a provider remembers about a reference: how often it was called, the charge, and what that waits for."""

    packed: bytes | None = None  # the charge
    packed_before: bytes | None = None  # the same before its last change
    creates: int = 0
    statuses: int = 0
    reverses: int = 0
    charged_twice: bool = False  # by a fault: the money of a pending charge will move twice
    merchant_id: str | None = None
    order_id: str | None = None
    waiting: Waiting | None = None
    later: Later | None = None

    @property
    def charge(self) -> Charge | None:
        """The charge, `None` if none has arrived."""
        return unpack(self.packed)

    @property
    def before(self) -> Charge | None:
        """The charge before its last change, `None` if none had arrived."""
        return unpack(self.packed_before)

    def become(self, charge: Charge) -> None:
        """The charge is this now. The same again, from a call that changed nothing, is no change."""
        if charge != self.charge:
            self.packed_before, self.packed = self.packed, pack(charge)


def queue_ms() -> float:
    """Real time for queues, from any zero: answers are delayed in real time, wherever the world's clock is moved to."""
    return time.monotonic() * 1000
