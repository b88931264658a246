"""Which fault befalls which call; what it then looks like on the wire is in test_wire_faults.py and test_callbacks.py."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.config import ConfigError, convert
from simulators.faults import OPERATIONS, TRAITS, AmountRange, Call, Fault, Faults, Injected, injected

DRAWS = [int((index + 0.5) / 1000 * 2**64) for index in range(1000)]  # the middle of each thousandth
PARAMETERS = {"delay": "2s", "over": "1s"}


def faults(*documents: dict[str, Any], **options: Any) -> Faults:
    return Faults("card", convert(list(documents), tuple[Fault, ...], file="test"), **options)


def share(picked: Faults, call: Call) -> dict[str | None, float]:
    """How often each kind is picked, over all draws."""
    kinds = [(found.kind if found else None) for found in (picked.pick(call, draw) for draw in DRAWS)]
    return {kind: kinds.count(kind) / len(DRAWS) for kind in set(kinds)}


def refusal(document: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as error:
        convert(document, Fault, file="test")
    return str(error.value).removeprefix("test: ")


def test_each_fault_has_its_own_probability_and_they_exclude_each_other():
    some = faults({"kind": "unavailable", "probability": 0.2}, {"kind": "garbage", "probability": 0.1})
    assert share(some, Call("create", 1)) == {"unavailable": 0.2, "garbage": 0.1, None: 0.7}


def test_beyond_a_sum_of_1_the_first_in_the_list_win():
    many = faults({"kind": "unavailable", "probability": 0.7}, {"kind": "garbage", "probability": 0.7}, {"kind": "reset_after"})
    assert share(many, Call("create", 1)) == {"unavailable": 0.7, "garbage": 0.3}


def test_a_fault_that_does_not_apply_leaves_its_share_to_health_and_not_to_the_next():
    some = faults({"kind": "unavailable", "probability": 0.5, "merchant": "a"}, {"kind": "garbage", "probability": 0.1})
    assert share(some, Call("create", 1, merchant_id="b")) == {"garbage": 0.1, None: 0.9}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_fault_belongs_to_one_operation(operation):
    for other in OPERATIONS:
        kind = {"kind": "connection_refused"} if operation == "connect" else {"kind": "late", "delay": "1s"}
        picked = faults(kind | {"operation": operation})
        assert picked.operations == {operation}
        assert (picked.pick(Call(other, 1), 0) is not None) == (operation == other)


@pytest.mark.parametrize(
    ("window", "elapsed_ms", "active"),
    [
        ({}, None, True),
        ({}, 5, True),
        ({"from": "0s"}, None, False),
        ({"until": "2s"}, None, False),
        ({"from": "1s"}, 999, False),
        ({"from": "1s"}, 1000, True),
        ({"from": "1s"}, 10**9, True),
        ({"until": "2s"}, -1, False),
        ({"until": "2s"}, 0, True),
        ({"from": "1s", "until": "2s"}, 1999, True),
        ({"from": "1s", "until": "2s"}, 2000, False),
    ],
)
def test_a_window_waits_for_the_zero_includes_its_start_and_excludes_its_end(window, elapsed_ms, active):
    picked = faults({"kind": "unavailable"} | window).pick(Call("create", 1, elapsed_ms), 0)
    assert (picked is not None) == active


@pytest.mark.parametrize(
    ("match", "fields", "matches"),
    [
        ({"first": 3}, {"attempt": 3}, True),
        ({"first": 3}, {"attempt": 4}, False),
        ({"merchant": "m"}, {"merchant_id": "m"}, True),
        ({"merchant": "m"}, {"merchant_id": "mm"}, False),
        ({"merchant": "m"}, {}, False),
        ({"amount": 1000}, {"amount": 1000}, True),
        ({"amount": 1000}, {"amount": 1001}, False),
        ({"amount": 1000}, {}, False),
        ({"amount": 0}, {}, False),
        ({"amount": {"min": 10, "max": 20}}, {"amount": 9}, False),
        ({"amount": {"min": 10, "max": 20}}, {"amount": 10}, True),
        ({"amount": {"min": 10, "max": 20}}, {"amount": 20}, True),
        ({"amount": {"min": 10, "max": 20}}, {"amount": 21}, False),
        ({"amount": {"min": 10}}, {"amount": 10**15}, True),
        ({"amount": {"max": 10}}, {"amount": 11}, False),
        ({"amount": {"max": 10}}, {}, False),
        ({"bin": "411111"}, {"bin": "4111111111111111"}, True),
        ({"bin": "411111"}, {"bin": "4111121111111111"}, False),
        ({"bin": "411111"}, {}, False),
        ({"vpa": "a@upi"}, {"vpa": "a@upi"}, True),
        ({"vpa": "a@upi"}, {"vpa": "b@upi"}, False),
        ({"vpa": "a@upi"}, {}, False),
        ({"merchant": "m", "amount": 5}, {"merchant_id": "m", "amount": 6}, False),
        ({"merchant": "m", "amount": 5}, {"merchant_id": "m", "amount": 5}, True),
    ],
)
def test_a_match_is_asked_of_the_call(match, fields, matches):
    picked = faults({"kind": "unavailable"} | match).pick(Call("create", **({"attempt": 1} | fields)), 0)
    assert (picked is not None) == matches


@given(st.permutations([(f"ref_{index}", attempt) for index in range(4) for attempt in (1, 2, 3)]))
def test_first_is_counted_for_each_reference_so_that_the_order_of_calls_changes_nothing(calls):
    picked = faults({"kind": "unavailable", "first": 2})
    hit = {(reference, attempt) for reference, attempt in calls if picked.pick(Call("create", attempt), 0)}
    assert hit == {(f"ref_{index}", attempt) for index in range(4) for attempt in (1, 2)}


def test_an_id_names_provider_operation_and_name_or_place_and_the_phase():
    documents = [{"kind": "unavailable", "first": 1}, {"kind": "garbage", "operation": "status", "name": "noise"}]
    calls = [Call("create", 1), Call("status", 1)]
    assert [faults(*documents).pick(call, 0).id for call in calls] == ["card.create.0", "card.status.noise"]
    in_phase = faults(*documents, phase="outage")
    assert [in_phase.pick(call, 0).id for call in calls] == ["card.create.outage.0", "card.status.outage.noise"]


def test_what_is_injected_carries_its_parameters():
    def of(**document: Any) -> Injected:
        return injected(convert(document, Fault, file="test"), "id")

    assert of(kind="late", delay="1.5s") == Injected("id", "late", acts=True, delay_ms=1500)
    assert of(kind="drip", over="2s") == Injected("id", "drip", acts=True, over_ms=2000)
    assert of(kind="rate_limited") == Injected("id", "rate_limited", acts=False, http_status=429)
    assert of(kind="rate_limited", retry_after="1.2s").retry_after_s == 2
    assert of(kind="http_502") == Injected("id", "http_502", acts=False, http_status=502)
    assert of(kind="http_502", acts=True).acts


@pytest.mark.parametrize("kind", TRAITS)
def test_each_kind_is_refused_for_the_operations_it_makes_no_sense_for(kind):
    trait = TRAITS[kind]
    needed = {trait.needs: PARAMETERS[trait.needs]} if trait.needs else {}
    for operation in OPERATIONS:
        document = {"kind": kind, "operation": operation} | needed
        if operation in trait.operations:
            assert convert(document, Fault, file="test").kind == kind
        else:
            assert refusal(document).startswith(f"{kind} is no fault of {operation}; its operation can be ")


def test_without_an_operation_it_is_a_create_or_the_only_one_that_the_kind_can_have():
    kinds = {"late": {"delay": "1s"}, "duplicate_charge": {}, "stale_status": {}, "lost": {}, "connection_refused": {}}
    found = {kind: convert({"kind": kind} | needed, Fault, file="test").operation for kind, needed in kinds.items()}
    assert found == {
        "late": "create",
        "duplicate_charge": "create",
        "stale_status": "status",
        "lost": "callback",
        "connection_refused": "connect",
    }


@pytest.mark.parametrize(
    "asked", [{"first": 1}, {"merchant": "m"}, {"amount": 5}, {"amount": {}}, {"bin": "4"}, {"vpa": "a@upi"}]
)
def test_a_refused_connection_was_for_no_call_that_could_be_chosen(asked):
    reason = "the connection is refused before any call is read, so only from and until can choose; leave it out"
    assert (
        refusal({"kind": "connection_refused"} | asked) == f"{next(iter(asked))} means nothing for connection_refused: {reason}"
    )


def test_calls_callbacks_and_connections_have_kinds_for_each_operation():
    for operation in OPERATIONS:
        assert [kind for kind, trait in TRAITS.items() if operation in trait.operations]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"kind": "reset_befor"}, "kind: Invalid enum value 'reset_befor'; did you mean 'reset_before'?"),
        ({"kind": "zzz"}, "kind: Invalid enum value 'zzz'; known are "),
        ({"kind": "late"}, 'late needs delay, such as delay = "3s"'),
        ({"kind": "drip"}, 'drip needs over, such as over = "3s"'),
        ({"kind": "garbage", "delay": "1s"}, "delay means nothing for garbage; leave it out"),
        ({"kind": "unavailable", "acts": True}, "acts means nothing for unavailable; leave it out"),
        ({"kind": "unavailable", "retry_after": "1s"}, "retry_after means nothing for unavailable; leave it out"),
        ({"kind": "garbage", "first": 0}, "first: Expected `int` >= 1"),
        ({"kind": "garbage", "bin": "4x"}, "bin: must be 1 to 11 digits"),
        ({"kind": "garbage", "operation": "status", "bin": "4"}, "only create and authenticate carry a card number or VPA"),
        ({"kind": "lost", "operation": "callback", "vpa": "a@upi"}, "only create and authenticate carry a card number or VPA"),
        ({"kind": "garbage", "amount": {"min": 5, "max": 4}}, "amount: max (4) is below min (5)"),
        ({"kind": "garbage", "amount": "5"}, "amount: Expected `int | object | null`"),
        ({"kind": "garbage", "name": "a b"}, "name: must be 1 to 64 of A-Z a-z 0-9 _ -"),
        ({"kind": "garbage", "probability": -0.1}, "probability: Expected `float` >= 0.0"),
        ({"kind": "garbage", "operation": "statis"}, "operation: Invalid enum value 'statis'; did you mean 'status'?"),
        (
            {"kind": "connection_refused", "probability": 0.5},
            "probability: while connection_refused is active nobody can connect",
        ),
        (
            {"kind": "connection_refused", "operation": "create"},
            "connection_refused is no fault of create; its operation can be ",
        ),
        ({"kind": "connection_refused", "acts": False}, "acts means nothing for connection_refused; leave it out"),
        ({"kind": "connection_refused", "delay": "1s"}, "delay means nothing for connection_refused; leave it out"),
        ({"kind": "garbage", "prob": 1}, "Object contains unknown field `prob`"),
        ({"probability": 1}, "Object missing required field `kind`"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_reason(document, reason):
    assert refusal(document).startswith(reason)


def test_an_amount_range_without_bounds_takes_every_amount():
    assert AmountRange() == convert({}, AmountRange, file="test")
    assert faults({"kind": "garbage", "amount": {}}).pick(Call("create", 1, amount=1), 0)
