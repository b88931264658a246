import json
from pathlib import Path
from typing import Any

import pytest

from simulators.config import ConfigError, encode, load, secret_key
from simulators.durations import Duration
from simulators.latency import Constant

LATENCY = {"kind": "constant", "value": "1ms"}
REFUSED = {"kind": "connection_refused"}
PHASE = {"name": "night", "from": "1s", "until": "2s", "card": {"faults": [REFUSED]}}
NO_PORT = "connection_refused closes the provider's own listening socket; give upi a port of its own: port = 9001 (a tenant can have none)"


def document(configure, **sections: Any) -> dict[str, Any]:
    return json.loads(encode(configure())) | sections


def reason(tmp_path: Path, content: Any, name: str = "simulators.json") -> str:
    """The message that this content is refused with, without the file's name."""
    file = tmp_path / name
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ConfigError) as error:
        load(file)
    message = str(error.value)
    assert message.startswith(f"{file}: ")
    return message.removeprefix(f"{file}: ")


def test_what_is_encoded_loads_as_the_same_configuration(tmp_path, configure):
    faults = [{"kind": "response_lost", "probability": 0.02, "from": "25s", "until": "50s"}]
    config = configure(seed=7, card={"faults": faults}, merchant={"latency": {"kind": "uniform", "low": "1ms", "high": "9ms"}})
    file = tmp_path / "simulators.json"
    file.write_bytes(encode(config))
    assert load(file) == config


def test_all_that_can_be_said_about_a_provider_survives_a_file(tmp_path, configure):
    fault = {"kind": "rate_limited", "probability": 0.1, "first": 2, "merchant": "m", "retry_after": "2s", "name": "busy"}
    said = {
        "latencies": {"status": LATENCY},
        "capacity": {"create": {"servers": 3, "queue_max": 9}},
        "refund_delay": LATENCY,
        "faults": [
            fault | {"amount": 5},
            fault | {"amount": {"min": 1, "max": 9}, "name": "busier"},
            {"kind": "http_500", "acts": True},
        ],
    }
    said |= {"port": 0}
    phase = {"name": "outage", "from": "1s", "until": "2s", "card": {"faults": [], "latency": LATENCY}, "upi": {"capacity": {}}}
    config = configure(
        card=said | {"authorization_lifetime": "30d", "dispute_delay": "1h"},
        upi=said | {"inquiries_per_min": 30},
        bank=said,
        phases=[phase],
    )
    file = tmp_path / "simulators.json"
    file.write_bytes(encode(config))
    assert load(file) == config
    assert (config.phases[0].card.faults, config.phases[0].bank.faults, config.phases[0].upi.capacity) == ((), None, {})


def test_what_is_not_said_changes_nothing(configure):
    config = configure()
    assert (config.phases, config.card.latencies, config.card.capacity, config.card.refund_delay) == ((), {}, {}, None)
    assert (config.card.authorization_lifetime.s, config.card.dispute_delay.s) == (7 * 86_400, 2)
    assert config.upi.inquiries_per_min == 60


def test_toml_is_read_by_its_suffix(tmp_path, configure):
    file = tmp_path / "simulators.toml"
    secrets = json.loads(encode(configure()))["secrets"]
    lines = ["seed = 3", "[secrets]", *(f'{name} = "{secret}"' for name, secret in secrets.items())]
    file.write_text("\n".join([*lines, "[card.latency]", 'kind = "constant"', 'value = "5ms"']))
    config = load(file)
    assert (config.seed, config.card.latency) == (3, Constant(Duration("5ms")))


def test_secrets_alone_give_the_documented_defaults(tmp_path, configure):
    file = tmp_path / "simulators.json"
    file.write_text(json.dumps({"secrets": document(configure)["secrets"]}))
    config = load(file)
    assert (config.card.outcomes["00"], config.upi.outcomes["00"], config.bank.outcomes["00"]) == (0.95, 0.98, 0.97)
    assert (config.card.latency.p50, config.card.latency.p99) == ("180ms", "800ms")
    assert (config.upi.latency.p50, config.bank.latency.p99) == ("60ms", "250ms")
    assert (config.upi.customer.delay.p50, config.bank.customer.delay.p99) == ("1.5s", "6s")


@pytest.mark.parametrize(
    ("text", "ms"), [("50ms", 50), ("1.5s", 1500), ("2min", 120_000), ("5h", 18_000_000), ("7d", 604_800_000), ("0ms", 0)]
)
def test_durations_have_a_unit(text, ms):
    assert (Duration(text).ms, Duration(text).s, Duration(text)) == (ms, ms / 1000, text)


@pytest.mark.parametrize("text", ["", "5", "ms", "-5ms", "5 ms", "5w", "1e3ms", ".5s", "5ms\n", "\u0665ms", "367d"])
def test_other_texts_are_no_durations(text):
    with pytest.raises(ValueError, match=r"duration|longer than a year"):
        Duration(text)


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"sed": 1}, "Object contains unknown field `sed`; did you mean 'seed'?"),
        ({"seed": -1}, "seed: Expected `int` >= 0"),
        ({"card": {"latncy": 1}}, "card: Object contains unknown field `latncy`; did you mean 'latency'?"),
        (
            {"card": {"latency": {"kind": "constant", "value": 5}}},
            'card.latency.value: a duration is text with a unit, such as "250ms"',
        ),
        (
            {"card": {"latency": {"kind": "gama"}}},
            "card.latency.kind: Invalid value 'gama'; use constant or uniform or normal or lognormal or gamma or pareto or "
            "empirical or mixture",
        ),
        (
            {"card": {"latency": {"kind": "uniform", "low": "9ms", "high": "1ms"}}},
            "card.latency: low (9ms) is above high (1ms)",
        ),
        ({"upi": {"latency": {"kind": "lognormal", "p50": "0ms", "p99": "1ms"}}}, "upi.latency: p50 must be longer than zero"),
        ({"upi": {"latency": {"kind": "lognormal", "p50": "2s", "p99": "1s"}}}, "upi.latency: p50 (2s) is above p99 (1s)"),
        ({"card": {"outcomes": {"00": 0.9}}}, "card: outcomes must add up to 1, not 0.9"),
        ({"card": {"outcomes": {"00": 0.5, "05": 0.6}}}, "card: outcomes must add up to 1, not 1.1"),
        ({"card": {"outcomes": {}}}, "card: outcomes must add up to 1, not 0"),
        ({"card": {"outcomes": {"00": 1.5, "05": -0.5}}}, "card.outcomes[...]: Expected `float` <= 1.0"),
        (
            {"upi": {"faults": [{"kind": "respons_lost"}]}},
            "upi.faults[0].kind: Invalid enum value 'respons_lost'; did you mean 'response_lost'?",
        ),
        ({"upi": {"faults": [{"kind": "late"}]}}, 'upi.faults[0]: late needs delay, such as delay = "3s"'),
        (
            {"bank": {"faults": [{"kind": "late", "delay": "1s", "operation": "capture"}]}},
            "bank: faults[0]: this provider has no capture; it has create, reverse, refund, refund_status, status, callback, connect, "
            "payout",
        ),
        ({"upi": {"faults": [{"kind": "garbage", "bin": "4"}]}}, "upi: faults[0]: bin: no call of this provider carries one"),
        (
            {"card": {"faults": [{"kind": "garbage", "vpa": "a@upi"}]}},
            "card: faults[0]: vpa: no call of this provider carries one",
        ),
        (
            {"card": {"faults": [{"kind": "garbage", "name": "x"}, {"kind": "late", "delay": "1s", "name": "x"}]}},
            "card: faults[1]: another fault of create is called 'x'",
        ),
        ({"card": {"latencies": {"statuss": LATENCY}}}, "card.latencies: Invalid enum value 'statuss' as a key"),
        ({"card": {"latencies": {"callback": LATENCY}}}, "card.latencies: Invalid enum value 'callback' as a key"),
        (
            {"card": {"latencies": {"status": {"kind": "constant"}}}},
            "card.latencies[...]: Object missing required field `value`",
        ),
        (
            {"bank": {"latencies": {"increment": LATENCY}}},
            "bank: latencies: this provider has no increment; it has create, reverse, refund, refund_status, status, callback, connect, "
            "payout",
        ),
        (
            {"card": {"capacity": {"mandate": {"servers": 1, "queue_max": 1}}}},
            "card: capacity: this provider has no mandate; it has create, increment, capture, reverse, refund, refund_status, status, "
            "dispute, authenticate, callback, connect",
        ),
        (
            {"card": {"capacity": {"create": {"servers": 0, "queue_max": 1}}}},
            "card.capacity[...].servers: Expected `int` >= 1",
        ),
        ({"card": {"port": 65_536}}, "card.port: Expected `int` <= 65535"),
        ({"upi": {"port": -1}}, "upi.port: Expected `int` >= 0"),
        ({"card": {"port": 9001}, "bank": {"port": 9001}}, "card.port: card and bank cannot all have port 9001"),
        ({"upi": {"faults": [{"kind": "late", "delay": "1s"}, REFUSED]}}, f"upi.faults[1]: {NO_PORT}"),
        (
            {"upi": {"port": 0, "faults": [REFUSED]}, "phases": [PHASE]},
            f"phases[0].card.faults[0]: {NO_PORT.replace('upi', 'card')}",
        ),
        ({"upi": {"inquiries_per_min": 0}}, "upi.inquiries_per_min: Expected `int` >= 1"),
        (
            {"card": {"authorization_lifetime": "7"}},
            'card.authorization_lifetime: \'7\' is not a duration; write a number with a unit, such as "250ms", "1.5s", "2min" or "7d"',
        ),
        ({"phases": [{"name": "a", "from": "2s", "until": "1s"}]}, "phases[0]: until (1s) must come after from (2s)"),
        (
            {"upi": {"faults": [{"kind": "unavailable", "probability": 1.1}]}},
            "upi.faults[0].probability: Expected `float` <= 1.0",
        ),
        (
            {"upi": {"faults": [{"kind": "unavailable", "probability": 1, "from": "2s", "until": "1s"}]}},
            "upi.faults[0]: until (1s) must come after from (2s)",
        ),
    ],
)
def test_impossible_values_are_refused_with_key_and_reason(tmp_path, configure, sections, expected):
    assert reason(tmp_path, document(configure, **sections)) == expected


@pytest.mark.parametrize(("name", "code"), [("card", "ZA"), ("upi", "05"), ("bank", "51")])
def test_a_code_of_another_provider_is_refused(tmp_path, configure, name, code):
    assert f"{name}: outcomes: unknown code '{code}'; known are 00, " in reason(
        tmp_path, document(configure, **{name: {"outcomes": {"00": 0.5, code: 0.5}}})
    )


def test_outcomes_may_be_off_by_a_rounding_error(configure):
    assert configure(card={"outcomes": {"00": 0.7, "05": 0.1, "51": 0.1, "54": 0.1}}).card.outcomes["05"] == 0.1


@pytest.mark.parametrize("secret", ["", "sk_test", "whsec_", "whsec_!!!", "whsec_c2hvcnQ="])
def test_a_weak_or_malformed_secret_is_refused_without_being_shown(tmp_path, configure, secret):
    secrets = document(configure)["secrets"] | {"bank": secret}
    message = reason(tmp_path, document(configure, secrets=secrets))
    assert message.startswith("secrets: bank: ")
    assert not secret.removeprefix("whsec_") or secret.removeprefix("whsec_") not in message


def test_the_key_is_what_the_base64_stands_for():
    assert secret_key("whsec_" + "QUJD" * 8) == b"ABC" * 8


def test_a_configuration_does_not_show_its_secrets(configure):
    assert "whsec_" not in repr(configure())


def test_files_that_cannot_be_read_are_refused(tmp_path):
    assert reason(tmp_path, "{}", name="simulators.yaml") == "the name must end in .json or .toml"
    assert reason(tmp_path, "{").startswith("not valid JSON: ")
    assert reason(tmp_path, "a = ", name="simulators.toml").startswith("not valid TOML: ")
    assert reason(tmp_path, "[" * 100_000).startswith("not valid JSON: ")
    with pytest.raises(ConfigError, match="No such file or directory"):
        load(tmp_path / "missing.json")
