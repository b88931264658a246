import asyncio
import math
from collections import deque
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.capacity import QUEUE_MAX, Capacity, Station
from simulators.config import Card, ConfigError, convert

PAGE = Path(__file__).parents[2] / "docs/latency.md"


def waits(station: Station, arrivals: list[tuple[float, float]]) -> list[float | None]:
    return [station.arrive(now_ms, service_ms) for now_ms, service_ms in arrivals]


# --- the rules -----------------------------------------------------------------------------------------------------------------


def test_a_free_server_serves_at_once():
    assert waits(Station(Capacity(2, 0)), [(0, 100), (0, 100), (100, 1), (100, 1)]) == [0, 0, 0, 0]


def test_who_finds_all_servers_busy_waits_for_the_one_that_is_free_first():
    assert waits(Station(Capacity(2, 9)), [(0, 100), (10, 50), (20, 30), (30, 1), (40, 1)]) == [0, 0, 40, 60, 51]


def test_who_finds_the_queue_full_is_rejected_and_takes_no_server():
    station = Station(Capacity(1, 2))
    assert waits(station, [(0, 10), (0, 10), (0, 10), (0, 10), (9, 10), (10, 10), (19, 10)]) == [
        0,
        10,
        20,
        None,
        None,
        20,
        None,
    ]
    assert station.waiting(19) == 2
    assert station.waiting(30) == 0


def test_without_a_queue_whoever_finds_all_servers_busy_is_rejected():
    assert waits(Station(Capacity(1, 0)), [(0, 10), (9.9, 10), (10, 10)]) == [0, None, 0]


def test_a_service_of_no_time_takes_no_capacity():
    assert waits(Station(Capacity(1, 0)), [(5, 0)] * 1_000) == [0] * 1_000


def stepped(capacity: Capacity, arrivals: list[tuple[int, int]]) -> list[int | None]:
    """The same queue, told millisecond by millisecond and without any cleverness: a witness that shares no idea with Station."""
    found: list[int | None] = [None] * len(arrivals)
    busy: list[int] = []
    queue: deque[int] = deque()
    to_come = deque(range(len(arrivals)))
    now = 0
    while to_come or queue:
        busy = [left - 1 for left in busy if left > 1]
        while queue and len(busy) < capacity.servers:
            serve(busy, found, arrivals, queue.popleft(), now)
        while to_come and arrivals[to_come[0]][0] == now:
            index = to_come.popleft()
            if len(busy) < capacity.servers:
                serve(busy, found, arrivals, index, now)
            elif len(queue) < capacity.queue_max:
                queue.append(index)
        now += 1
    return found


def serve(busy: list[int], found: list[int | None], arrivals: list[tuple[int, int]], index: int, now: int) -> None:
    arrived, service = arrivals[index]
    found[index] = now - arrived
    busy.append(service)


@given(
    st.builds(Capacity, st.integers(1, 4), st.integers(0, 5)),
    st.lists(st.tuples(st.integers(0, 6), st.integers(1, 20)), max_size=40),
)
def test_waits_and_rejections_are_those_of_a_queue_stepped_through_time(capacity, steps):
    times = np.cumsum([gap for gap, _ in steps], dtype=int).tolist()
    arrivals = [(now, service) for now, (_, service) in zip(times, steps, strict=True)]
    assert waits(Station(capacity), arrivals) == stepped(capacity, arrivals)


# --- against theory ------------------------------------------------------------------------------------------------------------


def erlang_b(servers: int, offered: float) -> float:
    """Share of calls that are rejected without a queue, by the usual recursion."""
    blocked = 1.0
    for c in range(1, servers + 1):
        blocked = offered * blocked / (c + offered * blocked)
    return blocked


def erlang_c(servers: int, rho: float) -> float:
    """Share of calls that wait in an M/M/c queue."""
    blocked = erlang_b(servers, servers * rho)
    return blocked / (1 - rho * (1 - blocked))


def exponential(size: int, seed: int) -> np.ndarray:
    """Exponential times of mean 1 in random order; their values are evenly spaced quantiles, which halves the noise of a mean wait."""
    return np.random.default_rng(seed).permutation(-np.log1p(-(np.arange(size) + 0.5) / size))


def poisson_waits(capacity: Capacity, rho: float, services: np.ndarray) -> np.ndarray:
    """Waits of Poisson arrivals at load `rho`, for services of mean 1; NaN where rejected."""
    times = np.cumsum(exponential(services.size, seed=1)) / (capacity.servers * rho)
    found = waits(Station(capacity), list(zip(times.tolist(), services.tolist(), strict=True)))
    return np.array(found, dtype=np.float64)


# How many arrivals it takes until the standard error of the mean wait is 1 to 2.5% (measured over ten seeds).
@pytest.mark.parametrize(
    ("servers", "rho", "size"),
    [
        (1, 0.5, 60_000),
        (1, 0.7, 100_000),
        (1, 0.9, 300_000),
        (4, 0.5, 200_000),
        (4, 0.7, 150_000),
        (4, 0.9, 300_000),
        (16, 0.8, 300_000),
        (16, 0.9, 600_000),
    ],
)
def test_the_mean_wait_of_m_m_c_is_that_of_erlang_c(servers, rho, size):
    found = poisson_waits(Capacity(servers, QUEUE_MAX), rho, exponential(size, seed=2))
    assert found.mean() == pytest.approx(erlang_c(servers, rho) / (servers * (1 - rho)), rel=0.05)
    assert (found > 0).mean() == pytest.approx(erlang_c(servers, rho), rel=0.05)


@pytest.mark.parametrize(("rho", "size"), [(0.5, 60_000), (0.7, 100_000), (0.9, 300_000)])
@pytest.mark.parametrize("shape", [math.inf, 0.5], ids=["constant", "gamma"])
def test_the_mean_wait_with_one_server_is_that_of_pollaczek_and_khinchine(shape, rho, size):
    """Of M/D/1, and of M/G/1 with services that vary twice as much as exponential ones."""
    services = np.ones(size) if shape == math.inf else np.random.default_rng(3).gamma(shape, 1 / shape, size)
    found = poisson_waits(Capacity(1, QUEUE_MAX), rho, services / services.mean())
    assert found.mean() == pytest.approx(rho / (1 - rho) * (1 + 1 / shape) / 2, rel=0.05)


@pytest.mark.parametrize(("servers", "queue_max", "rho"), [(1, 0, 0.5), (1, 5, 0.9), (4, 0, 0.8), (4, 8, 1.0), (8, 16, 1.3)])
def test_the_share_of_rejected_calls_is_that_of_m_m_c_k(servers, queue_max, rho):
    found = poisson_waits(Capacity(servers, queue_max), rho, exponential(100_000, seed=2))
    # Birth and death: beyond c calls in the system each further one is rho times as likely; the last state rejects.
    blocked = erlang_b(servers, servers * rho)
    in_queue = [blocked * rho**waiting for waiting in range(queue_max + 1)]
    assert np.isnan(found).mean() == pytest.approx(in_queue[-1] / (1 - blocked + sum(in_queue)), rel=0.05)


# --- over the wire -------------------------------------------------------------------------------------------------------------


async def test_a_call_that_finds_the_queue_full_is_answered_429_and_does_nothing(start):
    """One server, busy for an hour, and one place in the queue; the calls that get a place are never answered here."""
    an_hour = {"kind": "constant", "value": "60min"}
    at_once = {"kind": "constant", "value": "0ms"}
    capacity = {"create": {"servers": 1, "queue_max": 1}}
    client = await start(card={"latency": an_hour, "latencies": {"status": at_once}, "capacity": capacity})
    waiting = []
    for count, reference in enumerate(["served", "queued"], 1):
        waiting.append(asyncio.create_task(client.card(reference)))
        while len(await client.journal()) < count:
            assert not waiting[-1].done()
    assert (await client.card("rejected"))["code"] == "overloaded"
    served, queued, rejected = await client.journal()
    assert (served["delayMs"], served["moved"], served.get("waitMs", 0)) == (3_600_000, 1000, 0)
    assert (queued["moved"], queued["delayMs"] - queued["waitMs"]) == (1000, 3_600_000)
    assert 0 < queued["waitMs"] <= 3_600_000
    assert (rejected["fault"], rejected["delayMs"], rejected["moved"], rejected["status"]) == ("overloaded", 0, 0, None)
    for task in waiting:
        task.cancel()
    status, _, _ = await client.call("GET", "/card/charges/rejected")
    assert status == 404


# --- configuration and page ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "key", "reason"),
    [
        ({"queue_max": 1}, "capacity[...]", "Object missing required field `servers`"),
        ({"servers": 0, "queue_max": 1}, "capacity[...].servers", "Expected `int` >= 1"),
        ({"servers": 1, "queue_max": -1}, "capacity[...].queue_max", "Expected `int` >= 0"),
        ({"servers": 1, "queue_max": QUEUE_MAX + 1}, "capacity[...].queue_max", f"Expected `int` <= {QUEUE_MAX}"),
        ({"servers": 1.5, "queue_max": 1}, "capacity[...].servers", "Expected `int`, got `float`"),
    ],
)
def test_an_impossible_capacity_is_refused_with_key_and_reason(fields, key, reason):
    with pytest.raises(ConfigError) as error:
        convert({"capacity": {"create": fields}}, Card, file="test")
    assert (error.value.key, error.value.reason) == (key, reason)


def test_the_page_shows_the_knee_that_its_own_snippet_prints(capsys):
    text = PAGE.read_text()
    snippet = text.partition("```python\n")[2].partition("```")[0]
    exec(compile(snippet, str(PAGE), "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 9
    assert printed == [line for line in text.splitlines() if line.startswith("| ") and "% |" in line]
