"""Stretches of the timeline in which providers behave differently."""

from typing import Any

import pytest

from simulators.config import ConfigError, Simulators, convert
from simulators.faults import Call
from simulators.phases import Conducts

FAST = {"kind": "constant", "value": "10ms"}
SLOW = {"kind": "constant", "value": "900ms"}
SLOWER = {"kind": "constant", "value": "950ms"}


def conducts(*phases: dict[str, Any], **card: Any) -> Conducts:
    simulators = convert({"card": {"latency": FAST} | card, "phases": list(phases)}, Simulators, file="test")
    return Conducts("card", simulators.card, simulators.phases)


def phase(start: str, end: str, *, name: str = "outage", **card: Any) -> dict[str, Any]:
    return {"name": name, "from": start, "until": end, "card": card}


def test_a_phase_includes_its_start_and_excludes_its_end():
    some = conducts(phase("3s", "4s", name="b"), phase("1s", "2s", name="a"))
    times_ms = (None, -5, 0, 999, 1000, 1999, 2000, 2999, 3000, 3999, 4000, 10**9)
    assert [some.phase_at(time_ms) for time_ms in times_ms] == ["", "", "", "", "a", "a", "", "", "b", "b", "", ""]


def test_phases_may_touch():
    some = conducts(phase("1s", "2s", name="a"), phase("2s", "3s", name="b"))
    assert [some.phase_at(time_ms) for time_ms in (1999, 2000, 2999, 3000)] == ["a", "b", "b", ""]


def test_without_phases_there_is_one_conduct_for_all_times():
    some = conducts()
    assert {id(some.at(time_ms)) for time_ms in (None, 0, 10**9)} == {id(some.base)}


def test_a_phase_replaces_what_it_names_and_nothing_else():
    base = {"outcomes": {"00": 1}, "faults": [{"kind": "garbage", "operation": "status"}], "capacity": {"status": BUSY}}
    some = conducts(phase("1s", "2s", outcomes={"05": 1}), **base)
    before, during = some.at(0), some.at(1000)
    assert (before.mix.pick(0), during.mix.pick(0)) == ("00", "05")
    assert (during.faults, during.latencies, during.stations) == (before.faults, before.latencies, before.stations)
    assert some.at(2000) is before


def test_a_phase_replaces_faults_and_an_empty_list_means_none():
    some = conducts(phase("1s", "2s", faults=[]), phase("3s", "4s", name="b", faults=[{"kind": "late", "delay": "1s"}]),
                    faults=[{"kind": "garbage"}])  # fmt: skip
    picked = [some.at(time_ms).faults.pick(Call("create", 1, time_ms), 0) for time_ms in (0, 1000, 3000)]
    assert [(found.kind, found.id) if found else None for found in picked] == [
        ("garbage", "card.create.0"),
        None,
        ("late", "card.create.b.0"),
    ]


def test_latency_is_that_of_the_operation_then_of_the_phase_then_of_the_provider():
    some = conducts(
        phase("1s", "2s", latency=SLOW), phase("3s", "4s", name="b", latencies={"create": SLOWER}), latencies={"status": SLOWER}
    )
    picked = {time_ms: some.at(time_ms).latencies for time_ms in (0, 1000, 3000)}
    assert [(tables["create"].pick(0), tables["status"].pick(0)) for tables in picked.values()] == [
        (10, 950),
        (900, 900),
        (950, 950),
    ]


BUSY = {"servers": 1, "queue_max": 5}


def test_a_queue_lives_on_through_a_phase_that_says_nothing_about_it():
    some = conducts(phase("1s", "2s", outcomes={"05": 1}), phase("3s", "4s", name="b", capacity={}), capacity={"create": BUSY})
    assert some.at(0).stations["create"].arrive(0, 5000) == 0
    assert some.at(1000).stations["create"].arrive(1000, 1) == 4000
    assert not some.at(3000).stations


def test_each_phase_with_a_capacity_of_its_own_has_a_station_of_its_own():
    some = conducts(phase("1s", "2s", capacity={"create": BUSY | {"servers": 2}}), capacity={"create": BUSY})
    some.at(0).stations["create"].arrive(0, 5000)
    assert some.at(1000).stations["create"].arrive(1000, 1) == 0


@pytest.mark.parametrize(
    ("phases", "reason"),
    [
        ([phase("2s", "1s")], "phases[0]: until (1s) must come after from (2s)"),
        ([phase("1s", "1s")], "phases[0]: until (1s) must come after from (1s)"),
        ([phase("1s", "3s", name="a"), phase("2s", "4s", name="b")], "phases: 'b' starts (2s) before 'a' ends (3s)"),
        ([phase("1s", "2s"), phase("3s", "4s")], "phases: two are called 'outage'"),
        ([phase("1s", "2s", name="a b")], "phases[0].name: must be 1 to 64 of"),
        ([phase("1s", "2s", outcomes={"ZA": 1})], "phases[0].card: outcomes: unknown code 'ZA'; known are "),
        ([phase("1s", "2s", customer={})], "phases[0].card: Object contains unknown field `customer`"),
        ([phase("1s", "2s", lateny=SLOW)], "phases[0].card: Object contains unknown field `lateny`; did you mean 'latency'?"),
        ([phase("1s", "2s", faults=[{"kind": "late"}])], "phases[0].card.faults[0]: late needs delay"),
        (
            [phase("1s", "2s", faults=[{"kind": "garbage", "from": "1s"}])],
            "phases[0]: card.faults[0]: a phase's fault has the phase's window; leave out from and until",
        ),
        ([{"name": "a", "from": "1s"}], "phases[0]: Object missing required field `until`"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_key_and_reason(phases, reason):
    with pytest.raises(ConfigError) as error:
        conducts(*phases)
    assert str(error.value).removeprefix("test: ").startswith(reason)


async def test_a_phase_begins_when_the_timeline_has_its_zero(start):
    down = {"faults": [{"kind": "unavailable", "operation": "status"}], "outcomes": {"05": 1}}
    client = await start(phases=[{"name": "outage", "from": "0s", "until": "1h", "card": down}])
    assert (await client.card("before"))["status"] == "approved"
    now_ms = (await client.journal())[-1]["at"]
    await client.call("POST", "/admin/timeline", json={"startAtMs": now_ms})
    assert (await client.card("during"))["status"] == "declined"
    status, _, headers = await client.call("GET", "/card/charges/before")
    assert (status, headers["X-Paydrome-Fault-Id"]) == (503, "card.status.outage.0")
    await client.call("POST", "/admin/timeline", json={"startAtMs": now_ms - 3_600_000})
    assert (await client.call("GET", "/card/charges/before"))[1]["status"] == "approved"
