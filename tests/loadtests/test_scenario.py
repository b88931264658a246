from pathlib import Path

import pytest

from loadtests.journeys import JOURNEYS
from loadtests.scenario import Rate, ScenarioError, Targets, encode, load, shipped
from simulators.config import Simulators

GOOD = """
description = "mine"
[traffic]
rate = "600/min"
duration = "90s"
warm_up = "10s"
mix = { card = 0.5, upi = 0.5 }
[targets]
throughput = "500/min"
latency_p99 = "1.5s"
[simulators.card]
faults = [{ kind = "unavailable", probability = 0.1, from = "20s", until = "100s" }]
"""

SMALLEST = """
description = "d"
traffic = { rate = "1/s", duration = "10s", mix = { card = 1 } }
"""


@pytest.fixture
def write(tmp_path: Path):
    def put(text: str, name: str = "mine.toml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return put


@pytest.mark.parametrize("name", ["a", "a" * 64, "lost-answers_2.1"])
def test_a_scenario_may_have_a_name_of_its_own(write, name: str) -> None:
    assert load(write(f'name = "{name}"\n{GOOD}')).name == name


def test_numbers_carry_their_unit(write) -> None:
    mine = load(write(GOOD))
    assert (mine.name, mine.description, mine.seed) == ("mine", "mine", 1)
    assert (mine.traffic.rate_per_s, mine.traffic.duration_s, mine.traffic.warm_up_s, mine.traffic.total_s) == (10, 90, 10, 100)
    assert (mine.targets.throughput_per_min, mine.targets.latency_p99_ms) == (500, 1500)
    assert (mine.targets.availability, mine.targets.success) == (None, None)
    assert mine.simulators.card.faults[0].probability == 0.1


def test_a_scenario_survives_being_written_as_json(write) -> None:
    mine = load(write(GOOD))
    assert load(write(encode(mine).decode(), "other.json")) == mine


@pytest.mark.parametrize(("text", "per_min"), [("10500/min", 10500), ("175/s", 10500), ("0.5/s", 30), ("1/min", 1)])
def test_rates_are_exact_per_minute(text: str, per_min: float) -> None:
    assert Rate(text).per_min == per_min
    assert Rate(text).per_s == per_min / 60


def test_all_shipped_scenarios_are_good_and_are_found_by_name() -> None:
    assert [s.name for s in shipped()] == ["baseline", "lifecycle", "lost-answers", "sandbox", "smoke"]
    assert [load(s.name) for s in shipped()] == shipped()
    assert all(s.description for s in shipped())


def test_the_baseline_offers_five_percent_more_than_it_demands_for_longer_than_a_window() -> None:
    baseline = load("baseline")
    assert baseline.traffic.rate.per_min == 1.05 * (baseline.targets.throughput_per_min or 0) == 10_500
    assert (baseline.traffic.warm_up_s, baseline.traffic.duration_s) == (5, 75)
    assert (baseline.targets.latency_p99_ms, baseline.targets.availability, baseline.targets.success) == (2000, 0.999, 0.9995)


def test_lost_answers_loses_them_in_the_middle_third_at_all_three_providers() -> None:
    lost = load("lost-answers")
    third_s = lost.traffic.total_s / 3
    for provider in (lost.simulators.card, lost.simulators.upi, lost.simulators.bank):
        (fault,) = provider.faults
        assert (fault.kind, fault.probability, fault.operation) == ("response_lost", 0.02, "create")
        assert fault.start is not None
        assert fault.end is not None
        assert (fault.start.s, fault.end.s) == (third_s, 2 * third_s)


@pytest.mark.parametrize(
    ("old", "new", "key", "reason"),
    [
        ("rate =", "rates =", "traffic", "unknown field `rates`; did you mean 'rate'?"),
        ("latency_p99 =", "latency =", "targets", "unknown field `latency`; did you mean 'latency_p99'?"),
        ("[simulators.card]", "[simulators.cards]", "simulators", "did you mean 'card'?"),
        ("probability = 0.1", "probabilty = 0.1", "simulators.card.faults[0]", "did you mean 'probability'?"),
        ('description = "mine"', "", "", "missing required field `description`"),
        ('rate = "600/min"', "", "traffic", "missing required field `rate`"),
        ('"600/min"', '"600"', "traffic.rate", "'600' is not a rate"),
        ('"600/min"', '"600/hour"', "traffic.rate", "'600/hour' is not a rate"),
        ('"600/min"', '"-600/min"', "traffic.rate", "is not a rate"),
        ('"600/min"', '"0/min"', "traffic.rate", "must be above 0"),
        ('"600/min"', '"6000/s"', "traffic.rate", "at most 5000/s"),
        ('"600/min"', "600", "traffic.rate", 'text with a unit, such as "10500/min"'),
        ('"90s"', '"90"', "traffic.duration", "'90' is not a duration"),
        ('"90s"', '"-90s"', "traffic.duration", "is not a duration"),
        ('"90s"', '"0s"', "traffic", "duration must be longer than 0"),
        ('warm_up = "10s"', 'warm_up = "91s"', "traffic", "warm_up (91s) is longer than the judged duration (90s)"),
        ("upi = 0.5", "upi = 0.6", "traffic.mix", "the shares must add up to 1, not 1.1"),
        ("upi = 0.5", "upi = -0.5", "traffic.mix.upi", ">= 0.0"),
        ("upi = 0.5", "cash = 0.5", "traffic.mix", "unknown field `cash`"),
        ('warm_up = "10s"', 'arrivals = "poison"', "traffic.arrivals", "use poisson or uniform"),
        ('warm_up = "10s"', "duplicates = 1.5", "traffic.duplicates", "<= 1.0"),
        ('warm_up = "10s"', "journeys = { refnd = 0.1 }", "traffic", "unknown journey `refnd`; did you mean 'refund'?"),
        ('warm_up = "10s"', "journeys = { refund = 1.5 }", "traffic.journeys[...]", "<= 1.0"),
        ('warm_up = "10s"', "journeys = { refund = 0.6, void = 0.5 }", "traffic", "must not exceed 1, and are 1.1"),
        ("[targets]", "[fees]\ncard = 10001\n[targets]", "fees.card", "<= 10000"),
        ("[targets]", "[fees]\ncards = 1\n[targets]", "fees", "did you mean 'card'?"),
        ('latency_p99 = "1.5s"', "availability = 99.9", "targets.availability", "<= 1.0"),
        ('"500/min"', '"601/min"', "targets.throughput", "601/min cannot be reached: traffic.rate offers only 600/min"),
        ("probability = 0.1", "probability = 2", "simulators.card.faults[0].probability", "<= 1.0"),
        (
            'until = "100s"',
            'until = "101s"',
            "simulators.card.faults[0].until",
            "101s is after the end of the run, which is 100s",
        ),
        ('"20s", until = "100s"', '"100s"', "simulators.card.faults[0].from", "100s is not before the end of the run"),
        ('until = "100s"', 'until = "20s"', "simulators.card.faults[0]", "until (20s) must come after from (20s)"),
        *(
            (
                'description = "mine"',
                f'description = "mine"\nsimulators.phases = [{{ name = "o", from = "{start}", until = "{end}" }}]',
                "simulators.phases[0].until" if start == "1s" else "simulators.phases[0].from",
                "the end of the run, which is 100s",
            )
            for start, end in (("1s", "101s"), ("100s", "101s"))
        ),
        ('description = "mine"', 'description = "mine"\nseed = -1', "seed", ">= 0"),
        ("[traffic]", "[traffic", "", "not valid TOML"),
        ('"600/min"', '"٦٠٠/min"', "traffic.rate", "is not a rate"),
        ('"90s"', '"٩٠s"', "traffic.duration", "is not a duration"),
        *(
            ('description = "mine"', f'description = "mine"\nname = "{name}"', "name", "is not a name; use 1 to 64 of")
            for name in ("../../evil", "evil\\n", "\\u001b[31m", ".hidden", "..", "", "a b", "é", "a" * 65)
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_with_file_key_and_reason(write, old: str, new: str, key: str, reason: str) -> None:
    assert old in GOOD
    file = write(GOOD.replace(old, new, 1))
    with pytest.raises(ScenarioError) as refused:
        load(file)
    assert (refused.value.file, refused.value.key) == (file, key)
    assert reason in refused.value.reason
    assert all(part in str(refused.value) for part in (file, key, reason))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("basline", "did you mean 'baseline'?"),
        ("nothing-like-it", "shipped: baseline, lifecycle, lost-answers, sandbox, smoke"),
        ("no/such/file.toml", "No such file"),
        ("scenario.yaml", "must end in .toml or .json"),
        ("/tmp", "must end in .toml or .json"),
    ],
)
def test_a_scenario_that_is_not_there_is_refused(name: str, reason: str) -> None:
    with pytest.raises(ScenarioError, match=reason.replace("?", r"\?")):
        load(name)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[1]", b'"text"', b"{"])
def test_a_file_that_is_no_scenario_at_all_is_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("bad.json", "bad.toml"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ScenarioError):
            load(str(tmp_path / name))


@pytest.mark.parametrize(("rate", "duration"), [("1/min", "10s"), ("5000/s", "60min")])
def test_a_run_of_too_many_or_no_requests_is_refused(write, rate: str, duration: str) -> None:
    with pytest.raises(ScenarioError, match=r"it must be 1 to 5000000"):
        load(write(SMALLEST.replace("1/s", rate).replace("10s", duration)))


def test_what_is_left_out_has_the_obvious_value(write) -> None:
    smallest = load(write(SMALLEST))
    assert (smallest.traffic.warm_up_s, smallest.traffic.arrivals, smallest.traffic.duplicates) == (0, "poisson", 0)
    assert (smallest.targets, smallest.simulators) == (Targets(), Simulators())


def test_lifecycle_sends_payments_on_every_journey_and_charges_fees() -> None:
    lifecycle = load("lifecycle")
    assert lifecycle.traffic.journeys.keys() == JOURNEYS.keys()
    assert all(share > 0 for share in lifecycle.traffic.journeys.values())
    assert sum(lifecycle.traffic.journeys.values()) == pytest.approx(0.45)  # as its description has it
    assert (lifecycle.fees.card, lifecycle.fees.upi, lifecycle.fees.netbanking) == (200, 0, 150)
