"""Buckets, bounds and addresses, as pure functions of the time and the headers."""

from contextlib import suppress
from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import Overloaded
from gateway.core.limits import MINUTE_NS, Buckets, Calls, InFlight, Priority, bucket_of, client_address

SECOND_NS = 1_000_000_000
LATER_NS = 1_000_000 * SECOND_NS  # any time that is not zero


def drained(per_min: int, at_ns: int = LATER_NS) -> Buckets:
    buckets = Buckets()
    while buckets.take("a", per_min, at_ns).remaining:
        pass
    return buckets


# Buckets


@pytest.mark.parametrize("per_min", [1, 7, 60, 100, 10_500])
def test_a_full_bucket_holds_a_minutes_worth_and_not_one_more(per_min: int):
    buckets = Buckets()
    told = [buckets.take("a", per_min, LATER_NS) for _ in range(per_min + 1)]
    assert [each.remaining for each in told] == [*range(per_min - 1, -1, -1), 0]
    assert [each.wait_s > 0 for each in told] == [False] * per_min + [True]
    assert told[-1].full_s == 60


def test_it_fills_evenly():
    buckets = drained(60)
    assert buckets.take("a", 60, LATER_NS + SECOND_NS - 1).wait_s == 1
    assert buckets.take("a", 60, LATER_NS + SECOND_NS).wait_s == 0
    assert buckets.take("a", 60, LATER_NS + SECOND_NS).wait_s == 1
    assert buckets.take("a", 60, LATER_NS + 31 * SECOND_NS).remaining == 29


def test_after_the_wait_that_was_told_one_more_passes_and_asking_meanwhile_costs_nothing():
    buckets = drained(7)
    wait_s = {buckets.take("a", 7, LATER_NS).wait_s for _ in range(100)}
    assert wait_s == {9}  # 60/7, rounded up
    assert buckets.take("a", 7, LATER_NS + 9 * SECOND_NS).wait_s == 0


def test_it_never_holds_more_than_a_minutes_worth():
    buckets = drained(60)
    assert buckets.take("a", 60, LATER_NS + 1000 * MINUTE_NS).remaining == 59


def test_callers_do_not_share_a_bucket():
    buckets = drained(2)
    assert buckets.take("a", 2, LATER_NS).wait_s
    assert buckets.take("b", 2, LATER_NS).remaining == 1


def test_a_caller_whose_rate_is_changed_goes_on_from_where_it_was():
    buckets = drained(60)
    assert buckets.take("a", 120, LATER_NS + 30 * SECOND_NS).remaining == 59


def test_the_least_recent_callers_are_forgotten():
    buckets = Buckets(buckets_max=3)
    for caller in ["a", "b", "c", "a", "d"]:
        buckets.take(caller, 60, LATER_NS)
    assert len(buckets) == 3
    assert [buckets.take(caller, 60, LATER_NS).remaining for caller in "acd"] == [57, 58, 58]
    assert buckets.take("b", 60, LATER_NS).remaining == 59
    for number in range(1_000):
        buckets.take(f"many {number}", 60, LATER_NS)
    assert len(buckets) == 3


@settings(derandomize=True, max_examples=100)
@given(per_min=st.integers(1, 500), gaps_ms=st.lists(st.integers(0, 2_000), max_size=300))
def test_no_span_of_time_lets_in_more_than_a_full_bucket_and_what_flows_in(per_min: int, gaps_ms: list[int]):
    buckets, now_ns, let_in = Buckets(), LATER_NS, []
    for gap_ms in gaps_ms:
        now_ns += gap_ms * 1_000_000
        if not buckets.take("a", per_min, now_ns).wait_s:
            let_in.append(now_ns)
    each_ns = MINUTE_NS // per_min
    for first, since_ns in enumerate(let_in):
        until = len(let_in) - 1
        assert until - first + 1 <= (MINUTE_NS + let_in[until] - since_ns) // each_ns


# What is under way

ORDER: list[Priority] = ["create", "write", "read"]


def fill(in_flight: InFlight, priority: Priority) -> int:
    """How many more are let in."""
    for admitted in range(100):
        try:
            in_flight.enter(priority)
        except Overloaded:
            return admitted
    raise AssertionError("there is no bound")


def test_creates_are_shed_first_then_other_writes_then_reads():
    in_flight = InFlight(16)
    assert [fill(in_flight, priority) for priority in ORDER] == [12, 2, 2]
    for _ in range(3):
        in_flight.leave("read")
    in_flight.enter("write")
    with pytest.raises(Overloaded):
        in_flight.enter("create")


def test_callbacks_and_returns_have_bounds_of_their_own_and_health_has_none():
    in_flight = InFlight(16)
    for _ in range(16):
        in_flight.enter("read")
    for _ in range(4):
        in_flight.enter("callback")
    with pytest.raises(Overloaded):
        in_flight.enter("callback")
    for _ in range(2):
        in_flight.enter("return")
    with pytest.raises(Overloaded):
        in_flight.enter("return")
    for _ in range(100):
        in_flight.enter("health")
        in_flight.leave("health")
    with pytest.raises(Overloaded):
        in_flight.enter("read")
    in_flight.leave("callback")
    in_flight.enter("callback")
    assert in_flight.under_way == {"requests": 16, "callbacks": 4, "returns": 2}


@pytest.mark.parametrize("priority", [*ORDER, "callback", "return"])
def test_the_smallest_bound_still_lets_one_in(priority: Priority):
    in_flight = InFlight(1)
    in_flight.enter(priority)
    with pytest.raises(Overloaded):
        in_flight.enter(priority)


def test_a_providers_last_connections_are_kept_for_captures_and_refunds_and_then_for_recovery():
    calls = Calls(16)
    for _ in range(12):
        calls.creating.__enter__()
    with pytest.raises(Overloaded) as shed, calls.creating:
        pass
    assert shed.value.bound == "provider"
    with calls.changing, calls.changing, pytest.raises(Overloaded), calls.changing:
        pass
    assert calls.under_way == 12


@pytest.mark.parametrize("connections_max", [1, 2, 7, 8, 512])
def test_creates_never_find_all_connections_taken(connections_max: int):
    calls = Calls(connections_max)
    with suppress(Overloaded):
        for _ in range(connections_max + 1):
            calls.creating.__enter__()
    assert 1 <= calls.under_way <= connections_max


def test_a_call_that_fails_is_no_longer_under_way():
    calls = Calls(8)
    with pytest.raises(ValueError, match="broken"), calls.creating:
        raise ValueError("broken")
    assert calls.under_way == 0


# Addresses

PROXIES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("198.51.100.7", [], "198.51.100.7"),
        ("198.51.100.7", ["203.0.113.9"], "198.51.100.7"),  # who is no proxy is not believed
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9"], "203.0.113.9"),  # what the client itself wrote is to the left
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9, 10.9.9.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.9,10.9.9.9"], "203.0.113.9"),
        ("10.0.0.1", ["10.2.2.2, 10.9.9.9"], "10.2.2.2"),
        ("::ffff:10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("fd00::1", ["2001:db8::5"], "2001:db8::5"),
        ("10.0.0.1", ["203.0.113.9, unknown"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("", ["203.0.113.9"], ""),
    ],
)
def test_only_what_trusted_proxies_added_says_who_the_client_is(peer: str, forwarded_for: list[str], client: str):
    assert client_address(peer, forwarded_for, PROXIES) == client


def test_without_trusted_proxies_nobody_is_believed():
    assert client_address("10.0.0.1", ["203.0.113.9"], []) == "10.0.0.1"


def test_a_chain_that_has_no_end_is_not_followed():
    assert client_address("10.0.0.1", ["203.0.113.9, " + ", ".join(["10.0.0.2"] * 5_000)], PROXIES) == "10.0.0.2"


def test_an_ipv6_customer_has_one_bucket_for_a_whole_network():
    assert {bucket_of(f"2001:db8:1:2:{host:x}::1") for host in range(100)} == {"2001:db8:1:2::/64"}
    assert bucket_of("2001:db8:1:3::1") == "2001:db8:1:3::/64"


@pytest.mark.parametrize(
    ("address", "bucket"),
    [("198.51.100.7", "198.51.100.7"), ("::ffff:198.51.100.7", "198.51.100.7"), ("fe80::1%eth0", "fe80::/64"), ("", "")],
)
def test_other_addresses_are_their_own_bucket(address: str, bucket: str):
    assert bucket_of(address) == bucket
