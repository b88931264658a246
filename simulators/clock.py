"""The world's clock: the system's time plus an offset, and the timers that wait for it.

Whoever runs the simulators may move it forward, and what is due until then happens at once, in the order of its due times, as it
would have happened in a week of waiting. Only the world's own affairs live on this clock: expiries, customers, refunds, disputes.
The delay of an answer is real time, because the client that waits for it lives in real time; and so are the timestamps of signatures,
which are checked against somebody else's clock.
"""

import asyncio
import time
from collections.abc import Callable
from heapq import heapify, heappop, heappush

ADVANCE_MS_MAX = 366 * 24 * 3_600_000  # a year at a time: beyond any expiry or deadline; more is a slip of the unit
END_MS = 253_402_300_799_999 - 24 * 3_600_000  # a day before the end of the year 9999, so that all of it are dates everywhere
SLEEP_S_MAX = 3_600.0  # look again once an hour: the system's clock may have been set meanwhile
CANCELLED_MIN = 128  # so many cancelled timers are not worth sweeping up


def system_clock_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Timer:
    """A callback that waits for its time."""

    __slots__ = ("_args", "_callback", "_clock", "when_ms")

    def __init__(self, clock: "Clock", when_ms: int, callback: Callable[..., object] | None, args: tuple[object, ...]) -> None:
        self._clock = clock
        self.when_ms = when_ms
        self._callback = callback
        self._args = args

    def cancel(self) -> None:
        """The callback will not be called. Does nothing if it was called, or cancelled, before."""
        if self._callback is not None:
            self._callback, self._args = None, ()
            self._clock._cancelled()

    def parts(self) -> tuple[int, Callable[..., object] | None, tuple[object, ...]]:
        """Due time, callback (`None`: called or cancelled) and its arguments: all that there is to know of it."""
        return self.when_ms, self._callback, self._args

    def become(self, when_ms: int, callback: Callable[..., object] | None, args: tuple[object, ...]) -> None:
        """Takes on the `parts` of another timer. For one that does not wait."""
        self.when_ms, self._callback, self._args = when_ms, callback, args

    def _fire(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback(*self._args)


class Clock:
    """Virtual time in ms since 1970; `system_ms` is what it runs by. Its timers need a running event loop.

    Timers fire in the order of their due times, equal ones in the order in which they were set, and never before `now_ms()` has
    come to their due time. One timer of the event loop serves them all, so that setting one costs 1 us.
    """

    def __init__(self, system_ms: Callable[[], int] = system_clock_ms) -> None:
        self.system_ms = system_ms  # real time: for what others check against their own clock
        self._offset_ms = 0
        self._timers: list[tuple[int, int, Timer]] = []  # a heap; the number keeps equal times in order
        self._numbered = 0
        self._cancelled_count = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_ms = 0
        self._firing = False
        self._closed = False
        self.on_change: Callable[[], object] = lambda: (
            None
        )  # called when it was moved; by others when what they time by it changed

    def now_ms(self) -> int:
        """The time it is."""
        return self.system_ms() + self._offset_ms

    @property
    def waiting(self) -> int:
        """How many timers wait."""
        return len(self._timers) - self._cancelled_count

    def call_at(self, when_ms: int, callback: Callable[..., object], *args: object) -> Timer:
        """Calls `callback(*args)` when it is `when_ms`, or soon if it was that already; never from within this call."""
        timer = Timer(self, when_ms, callback, args)
        self._numbered += 1
        heappush(self._timers, (when_ms, self._numbered, timer))
        if not self._firing and (self._alarm is None or when_ms < self._alarm_ms):
            self._set_alarm()
        return timer

    def advance(self, ms: int) -> None:
        """Moves the clock `ms` forward. What is due until then is called first, one after the other, each at its time.

        Raises ValueError if `ms` is negative or above ADVANCE_MS_MAX, or leads beyond END_MS.
        """
        if not 0 <= ms <= ADVANCE_MS_MAX:
            raise ValueError(f"a clock can be moved forward by 0 to {ADVANCE_MS_MAX} ms, not {ms}")
        offset_ms, target_ms = self._offset_ms + ms, self.now_ms() + ms
        if target_ms > END_MS:
            raise ValueError("the clock ends with the year 9999")
        self._fire_until(target_ms)
        self._offset_ms = offset_ms
        self._set_alarm()  # again: what waits is nearer by now
        self.on_change()

    @property
    def offset_ms(self) -> int:
        """How far it is ahead of the system's time."""
        return self._offset_ms

    def due(self) -> list[Timer]:
        """The timers that wait, in the order in which they will fire."""
        return [timer for _, _, timer in sorted(self._timers, key=lambda entry: entry[:2]) if timer._callback is not None]

    def restore(self, offset_ms: int, due: list[Timer]) -> None:
        """Sets the offset, which may go back, and has these timers wait instead of those that do."""
        self._forget()
        self._offset_ms, self._numbered = offset_ms, len(due)
        self._timers = [(timer.when_ms, number, timer) for number, timer in enumerate(due, 1)]  # sorted, and so a heap
        self._set_alarm()
        self.on_change()

    def close(self) -> None:
        """Forgets all timers, and those that are still to be set."""
        self._closed = True
        self._forget()

    def _forget(self) -> None:
        self._timers.clear()
        self._cancelled_count = 0
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _fire_until(self, target_ms: int) -> None:
        """Calls what is due until then; what these calls set to a time until then, too."""
        self._firing = True
        try:
            while self._timers and self._timers[0][0] <= target_ms:
                when_ms, _, timer = heappop(self._timers)
                if timer._callback is None:
                    self._cancelled_count -= 1
                    continue
                self._move_to(when_ms)
                timer._fire()
        finally:
            self._firing = False
            self._set_alarm()

    def _move_to(self, when_ms: int) -> None:
        self._offset_ms += max(0, when_ms - self.now_ms())

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._timers and not self._closed:
            self._alarm_ms = self._timers[0][0]
            # At least a millisecond: the loop may wake up within the millisecond before, and would be set to 0 over and over.
            sleep_s = min(max(self._alarm_ms - self.now_ms(), 1) / 1000, SLEEP_S_MAX)
            self._alarm = asyncio.get_running_loop().call_later(sleep_s, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._fire_until(self.now_ms())

    def _cancelled(self) -> None:
        self._cancelled_count += 1
        if self._cancelled_count > CANCELLED_MIN and self._cancelled_count * 2 > len(self._timers):
            self._timers = [entry for entry in self._timers if entry[2]._callback is not None]
            heapify(self._timers)
            self._cancelled_count = 0
