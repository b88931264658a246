"""The world's clock and its timers, on a system clock that the tests set."""

import asyncio
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.clock import ADVANCE_MS_MAX, CANCELLED_MIN, END_MS, Clock

START_MS = 1_800_000_000_000


class System:
    """The machine's clock."""

    def __init__(self) -> None:
        self.ms = START_MS

    def __call__(self) -> int:
        return self.ms


@pytest.fixture
async def clock() -> "Iterator[Clock]":
    clock = Clock(System())
    yield clock
    clock.close()


def recorder(clock: Clock) -> tuple[list[tuple[str, int]], "object"]:
    """What was called, and how long after the start by the clock."""
    calls: list[tuple[str, int]] = []
    return calls, lambda name: calls.append((name, clock.now_ms() - START_MS))


async def test_timers_fire_in_the_order_of_their_due_times_each_at_its_time(clock):
    calls, record = recorder(clock)
    for name, when_ms in [("third", 900), ("first", 10), ("second", 500), ("never", 1_001)]:
        clock.call_at(START_MS + when_ms, record, name)
    clock.advance(1_000)
    assert (calls, clock.now_ms()) == ([("first", 10), ("second", 500), ("third", 900)], START_MS + 1_000)
    assert clock.waiting == 1


async def test_equal_due_times_fire_in_the_order_in_which_they_were_set(clock):
    calls, record = recorder(clock)
    for name in "abcdef":
        clock.call_at(START_MS + 5, record, name)
    clock.advance(5)
    assert [name for name, _ in calls] == list("abcdef")


async def test_a_timer_that_was_cancelled_never_fires_not_even_by_one_at_the_same_time(clock):
    calls, record = recorder(clock)
    late = []
    clock.call_at(START_MS + 5, lambda: late[0].cancel())
    late.append(clock.call_at(START_MS + 5, record, "cancelled"))
    clock.call_at(START_MS + 6, record, "kept")
    clock.advance(10)
    assert (calls, clock.waiting) == ([("kept", 6)], 0)


async def test_a_timer_set_by_a_timer_fires_within_the_same_advance_if_it_is_due_by_then(clock):
    calls, record = recorder(clock)

    def chain(left: int) -> None:
        record(f"{left} left")
        if left:
            clock.call_at(clock.now_ms() + 100, chain, left - 1)

    clock.call_at(START_MS + 100, chain, 9)
    clock.advance(350)
    assert calls == [("9 left", 100), ("8 left", 200), ("7 left", 300)]
    assert clock.waiting == 1


async def test_a_timer_that_is_overdue_when_it_is_set_fires_now_and_never_turns_the_clock_back(clock):
    calls, record = recorder(clock)
    clock.advance(1_000)
    clock.call_at(START_MS + 1, record, "overdue")
    assert calls == []
    clock.advance(0)
    assert calls == [("overdue", 1_000)]


async def test_the_event_loop_fires_what_is_due_by_the_system_clock_and_not_before():
    system = System()
    clock, fired = Clock(system), asyncio.Event()
    seen: list[int] = []
    clock.call_at(START_MS + 3, lambda: (seen.append(clock.now_ms()), fired.set()))
    for _ in range(3):  # turns of a loop that wakes up while the system's clock stands still
        clock._ring()
    assert seen == []
    system.ms += 3
    await asyncio.wait_for(fired.wait(), 10)
    assert (seen, clock.waiting, clock._alarm) == ([START_MS + 3], 0, None)


async def test_an_earlier_timer_goes_before_the_one_that_the_loop_waits_for():
    clock, fired = Clock(), asyncio.Event()
    clock.call_at(clock.now_ms() + 3_600_000, pytest.fail, "an hour is not over")
    clock.call_at(clock.now_ms() + 1, fired.set)
    await asyncio.wait_for(fired.wait(), 10)
    assert clock.waiting == 1
    clock.close()


async def test_a_callback_that_fails_does_not_stop_the_timers_after_it(clock):
    calls, record = recorder(clock)
    clock.call_at(START_MS + 1, lambda: 1 // 0)
    clock.call_at(START_MS + 2, record, "next")
    with pytest.raises(ZeroDivisionError):
        clock.advance(5)
    clock.advance(5)
    assert calls == [("next", 2)]


async def test_timers_that_came_and_went_leave_nothing_behind(clock):
    kept = [clock.call_at(START_MS + 1_000_000, pytest.fail) for _ in range(10)]
    for index in range(100_000):
        clock.call_at(START_MS + index, pytest.fail).cancel()
        assert len(clock._timers) <= 2 * CANCELLED_MIN + len(kept)
    assert clock.waiting == len(kept)
    for timer in kept:
        timer.cancel()
        timer.cancel()
    assert clock.waiting == 0


@pytest.mark.parametrize("ms", [-1, ADVANCE_MS_MAX + 1])
async def test_a_clock_goes_neither_back_nor_absurdly_far(clock, ms):
    with pytest.raises(ValueError, match="moved forward by 0 to"):
        clock.advance(ms)
    assert clock.now_ms() == START_MS


async def test_a_clock_ends_with_the_year_9999():
    clock = Clock(lambda: END_MS - 1_000)
    with pytest.raises(ValueError, match="year 9999"):
        clock.advance(1_001)
    clock.advance(1_000)
    assert clock.now_ms() == END_MS


async def test_what_is_due_soon_after_a_move_does_not_wait_for_what_it_would_have_waited_before():
    clock, rung = Clock(), asyncio.Event()
    clock.call_at(clock.now_ms() + 3_600_000 + 20, rung.set)
    clock.advance(3_600_000)
    await asyncio.wait_for(rung.wait(), 10)
    clock.close()


async def test_a_move_is_exactly_as_long_as_asked_for_while_real_time_goes_on():
    ticking = itertools.count(START_MS)  # a ms later each time it is looked at
    clock = Clock(lambda: next(ticking))
    clock.call_at(START_MS + 500, lambda: None)
    clock.advance(1_000)
    assert clock.offset_ms == 1_000
    clock.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=40), st.lists(st.integers(0, 20), max_size=8))
def test_any_timers_fire_once_in_order_and_at_their_time(timers, steps):
    async def run() -> None:
        clock = Clock(System())
        fired: list[tuple[int, int, int]] = []
        handles = [
            clock.call_at(START_MS + when, lambda when=when, index=index: fired.append((when, index, clock.now_ms())))
            for index, (when, _) in enumerate(timers)
        ]
        for handle, (_, cancelled) in zip(handles, timers, strict=True):
            if cancelled:
                handle.cancel()
        for step in steps:
            clock.advance(step)
        expected = sorted((when, index) for index, (when, gone) in enumerate(timers) if not gone and when <= sum(steps))
        assert [(when, index) for when, index, _ in fired] == expected if steps else not fired
        assert all(now_ms == START_MS + when for when, _, now_ms in fired)
        clock.close()

    asyncio.run(run())
