import json
import math
import tomllib
from bisect import bisect_right
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.behaviour import DRAW_BITS, Draws
from simulators.config import Card, ConfigError, Simulators, convert, encode
from simulators.durations import DURATION_MS_MAX, Duration
from simulators.latency import (
    NORMAL,
    SLOT_MIDDLES,
    SLOT_WIDTHS,
    Constant,
    Empirical,
    Gamma,
    Latency,
    LatencyTable,
    Lognormal,
    Mixture,
    Normal,
    Pareto,
    Part,
    Simple,
    Uniform,
)

DOCS = Path(__file__).parents[2] / "docs"
EDGES = [int(edge * 2**DRAW_BITS) for edge in np.cumsum(SLOT_WIDTHS) - SLOT_WIDTHS]  # the first draw of each slot; exact
PERCENTS = np.array([0.5, 0.9, 0.99, 0.999, 0.9999])


def ms(value: float) -> Duration:
    return Duration(f"{value:.6f}ms")


def quantiles(latency: Latency, shares=PERCENTS) -> np.ndarray:
    return latency.quantiles_ms(np.asarray(shares, dtype=np.float64))


def mean(latency: Latency) -> float:
    return float(np.sum(np.array(LatencyTable(latency).quantiles_ms) * SLOT_WIDTHS))


def latency_of(fields: object) -> Latency:
    return convert({"latency": fields}, Card, file="test").latency


def refusal(fields: object) -> str:
    with pytest.raises(ConfigError) as error:
        latency_of(fields)
    return error.value.reason


# --- the kinds against theory --------------------------------------------------------------------------------------------------


def test_a_constant_latency_is_always_the_same():
    assert set(LatencyTable(Constant(Duration("50ms"))).quantiles_ms) == {50}


def test_a_uniform_latency_stays_between_its_bounds():
    table = LatencyTable(Uniform(Duration("10ms"), Duration("90ms")))
    assert (table.pick(0), table.pick(2**63), table.pick(2**64 - 1)) == (10, 50, 90)
    assert mean(Uniform(Duration("10ms"), Duration("90ms"))) == pytest.approx(50, rel=1e-3)


@pytest.mark.parametrize(("mean_ms", "sd_ms", "low_ms"), [(300, 40, 0), (100, 100, 0), (100, 50, 60), (100, 50, 100)])
def test_a_normal_latency_has_the_mean_and_quantiles_of_the_truncated_normal(mean_ms, sd_ms, low_ms):
    latency = Normal(ms(mean_ms), ms(sd_ms), ms(low_ms))
    cut = (low_ms - mean_ms) / sd_ms
    kept = 1 - NORMAL.cdf(cut)
    assert mean(latency) == pytest.approx(mean_ms + sd_ms * NORMAL.pdf(cut) / kept, rel=1e-3)
    below = [(NORMAL.cdf((q - mean_ms) / sd_ms) - (1 - kept)) / kept for q in quantiles(latency)]
    assert below == pytest.approx(PERCENTS.tolist(), abs=1e-9)
    assert min(LatencyTable(latency).quantiles_ms) >= low_ms


def test_a_lognormal_latency_has_its_p50_and_p99_and_the_mean_of_theory():
    latency = Lognormal(Duration("120ms"), Duration("600ms"))
    assert quantiles(latency, [0.5, 0.99]) == pytest.approx([120, 600])
    sigma = math.log(5) / NORMAL.inv_cdf(0.99)
    assert mean(latency) == pytest.approx(120 * math.exp(sigma**2 / 2), rel=2e-3)


@pytest.mark.parametrize("percent", [50, 90, 99, 99.9, 99.99, 99.999])
def test_a_table_resolves_the_tail(percent):
    """Of a lognormal with p50 = 180 ms and p99 = 800 ms, against its formula."""
    table = LatencyTable(Lognormal(Duration("180ms"), Duration("800ms")))
    exact = 180 * (800 / 180) ** (NORMAL.inv_cdf(percent / 100) / NORMAL.inv_cdf(0.99))
    assert table.pick(int(percent / 100 * 2**DRAW_BITS)) == pytest.approx(exact, rel=0.02)


# Chi-square quantiles (a gamma of shape degrees / 2) from the printed tables: Abramowitz and Stegun, table 26.8.
CHI_SQUARE = {
    1: [0.454936, 2.70554, 6.63490, 10.828],
    2: [1.38629, 4.60517, 9.21034, 13.816],
    4: [3.35669, 7.77944, 13.2767, 18.467],
    10: [9.34182, 15.9871, 23.2093, 29.588],
    100: [99.3341, 118.498, 135.807, 149.449],
}


@pytest.mark.parametrize("degrees", CHI_SQUARE)
def test_a_gamma_latency_has_the_quantiles_of_the_tables(degrees):
    p50, p90, p99, p999 = CHI_SQUARE[degrees]
    latency = Gamma(ms(p50 * 100), ms(p99 * 100))
    assert latency.shape == pytest.approx(degrees / 2, rel=2e-3)
    found = quantiles(latency, [0.5, 0.9, 0.99, 0.999])
    assert found == pytest.approx([p50 * 100, p90 * 100, p99 * 100, p999 * 100], rel=5e-4)
    assert mean(latency) == pytest.approx(degrees * 100, rel=3e-3)  # the mean of a chi-square is its degrees of freedom


def test_a_gamma_latency_has_its_p50_and_p99_at_every_shape_that_is_allowed():
    for ratio in (1.01, 1.1, 2, 4.4, 10, 100, 2_000):
        assert quantiles(Gamma(ms(100), ms(100 * ratio)), [0.5, 0.99]) == pytest.approx([100, 100 * ratio], rel=1e-4)


@pytest.mark.parametrize("alpha", [1.2, 2, 3])
def test_a_pareto_latency_loses_a_power_of_its_share_until_its_maximum(alpha):
    latency = Pareto(ms(50), alpha, ms(2_000))
    exact = np.minimum(50 * (1 - PERCENTS) ** (-1 / alpha), 2_000)
    assert quantiles(latency) == pytest.approx(exact)
    over = (50 / 2_000) ** (alpha - 1)  # E[min(X, m)] of a Pareto, in closed form
    assert mean(latency) == pytest.approx(50 + 50 * (1 - over) / (alpha - 1), rel=3e-3)
    assert max(LatencyTable(latency).quantiles_ms) == 2_000


def test_a_mixture_inverts_the_weighted_sum_of_its_distributions():
    """Uniform parts, so that the mixed CDF is simple: 3 of 4 between 0 and 100 ms, the others between 50 and 450 ms."""
    latency = Mixture((Part(3, Uniform(ms(0), ms(100))), Part(1, Uniform(ms(50), ms(450)))))
    shares = np.linspace(0.01, 0.99, 99)
    q = quantiles(latency, shares)
    mixed = 0.75 * np.clip(q / 100, 0, 1) + 0.25 * np.clip((q - 50) / 400, 0, 1)
    assert mixed == pytest.approx(shares, abs=3e-4)
    assert mean(latency) == pytest.approx(0.75 * 50 + 0.25 * 250, rel=1e-3)


def test_a_mixture_gives_each_constant_its_share():
    latency = Mixture((Part(0.9, Constant(ms(20))), Part(0.0995, Constant(ms(300))), Part(0.0005, Constant(ms(5_000)))))
    table = np.array(LatencyTable(latency).quantiles_ms)
    shares = [float(SLOT_WIDTHS[table == value].sum()) for value in (20, 300, 5_000)]
    assert shares == pytest.approx([0.9, 0.0995, 0.0005], abs=1.3e-4)  # half a slot


def test_percentiles_of_a_lognormal_give_that_lognormal_back():
    exact = Lognormal(Duration("180ms"), Duration("800ms"))
    percents = ["1", "25", "50", "75", "90", "99", "99.9", "99.99"]
    given = {
        percent: ms(value) for percent, value in zip(percents, quantiles(exact, np.array(percents, float) / 100), strict=True)
    }
    inside = np.linspace(0.01, 0.9999, 500)
    assert quantiles(Empirical(given), inside) == pytest.approx(quantiles(exact, inside), rel=1e-5)


def test_an_empirical_latency_stays_at_its_lowest_and_highest_percentile():
    table = LatencyTable(Empirical({"10": ms(0), "50": ms(120), "99": ms(600)})).quantiles_ms
    assert (table[0], table[2047], table[-1]) == (0, pytest.approx(120, abs=1), 600)
    assert LatencyTable(Empirical({"50": ms(120), "99": ms(600), "100": ms(9_000)})).quantiles_ms[-1] == 9_000


def test_equal_percentiles_are_equal_in_any_order():
    forwards, backwards = Empirical({"50": ms(1), "99": ms(2)}), Empirical({"99": ms(2), "50": ms(1)})
    assert (forwards, hash(forwards)) == (backwards, hash(backwards))


def test_no_latency_is_longer_than_a_duration_can_be():
    assert LatencyTable(Lognormal(Duration("1ms"), Duration("24000s"))).quantiles_ms[-1] == DURATION_MS_MAX


# --- every kind ----------------------------------------------------------------------------------------------------------------

durations = st.floats(0.001, 60_000).map(ms)
pairs = st.tuples(durations, durations).map(lambda pair: sorted(pair, key=lambda one: one.ms))
ratios = st.tuples(st.floats(0.01, 1_000), st.floats(1.011, 1_999)).map(lambda one: (ms(one[0]), ms(one[0] * one[1])))
percentiles = st.dictionaries(st.integers(0, 1_000_000), durations, min_size=2, max_size=8).map(
    lambda points: {
        f"{percent / 1e4:g}": value
        for percent, value in zip(sorted(points), sorted(points.values(), key=lambda d: d.ms), strict=True)
    }
)
simple: st.SearchStrategy[Simple] = st.one_of(
    st.builds(Constant, durations),
    pairs.map(lambda pair: Uniform(*pair)),
    st.builds(lambda pair, sd: Normal(pair[1], sd, pair[0]), pairs, durations),
    pairs.map(lambda pair: Lognormal(*pair)),
    ratios.filter(lambda pair: 1.01 <= pair[1].ms / pair[0].ms <= 2_000).map(lambda pair: Gamma(*pair)),
    st.builds(lambda pair, alpha: Pareto(pair[0], alpha, pair[1]), pairs, st.floats(0.1, 100)),
    percentiles.map(Empirical),
)
parts = st.lists(st.builds(Part, st.floats(0.001, 1_000), simple), min_size=2, max_size=3).map(tuple)
latencies: st.SearchStrategy[Latency] = st.one_of(simple, st.builds(Mixture, parts))


@given(latencies)
def test_quantiles_never_fall_and_are_never_negative(latency):
    table = LatencyTable(latency).quantiles_ms
    assert len(table) == len(SLOT_MIDDLES)
    assert table[0] >= 0
    assert table == sorted(table)


@given(latencies)
def test_what_is_encoded_reads_back_as_the_same_latency(latency):
    written = json.loads(encode(Simulators(card=Card(latency=latency))))
    read = convert(written, Simulators, file="test").card.latency
    assert (read, hash(read)) == (latency, hash(latency))


@given(st.integers(0, 2**DRAW_BITS - 1) | st.sampled_from(EDGES) | st.integers(EDGES[4095], 2**DRAW_BITS - 1))
def test_a_draw_picks_the_quantile_of_its_share(draw):
    table = LatencyTable(Uniform(Duration("0ms"), Duration("1000s")))
    assert table.pick(draw) == table.quantiles_ms[bisect_right(EDGES, draw) - 1]


def test_draws_of_calls_are_distributed_as_the_table_says():
    draws, table = Draws(9), LatencyTable(Lognormal(Duration("180ms"), Duration("800ms")))
    picked = [table.pick(draws.draw("card", "create", f"ref_{index}", 1).latency) for index in range(20_000)]
    # Standard errors of these percentiles over 20 000 draws: 0.6%, 0.8%, 2.4%.
    for percent, tolerance in ((50, 0.02), (90, 0.03), (99, 0.08)):
        assert np.percentile(picked, percent) == pytest.approx(
            quantiles(Lognormal(ms(180), ms(800)), [percent / 100])[0], rel=tolerance
        )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"kind": "gama"}, "Invalid value 'gama'"),
        ({"kind": "constant"}, "Object missing required field `value`"),
        ({"kind": "constant", "value": 5}, 'a duration is text with a unit, such as "250ms"'),
        ({"kind": "uniform", "low": "9ms", "high": "1ms"}, "low (9ms) is above high (1ms)"),
        ({"kind": "normal", "mean": "9ms", "sd": "0ms"}, "sd must be longer than zero; for always the same latency use kind"),
        ({"kind": "normal", "mean": "9ms", "sd": "1ms", "low": "10ms"}, "low (10ms) is above mean (9ms): more than half"),
        ({"kind": "lognormal", "p50": "0ms", "p99": "1ms"}, "p50 must be longer than zero"),
        ({"kind": "lognormal", "p50": "2s", "p99": "1s"}, "p50 (2s) is above p99 (1s)"),
        ({"kind": "gamma", "p50": "0ms", "p99": "1ms"}, "p50 must be longer than zero"),
        ({"kind": "gamma", "p50": "1s", "p99": "1s"}, "p99 must be 1.01 to 2000 times p50, not 1 times; constant or normal"),
        ({"kind": "gamma", "p50": "1ms", "p99": "1min"}, "p99 must be 1.01 to 2000 times p50, not 6e+04 times; lognormal"),
        ({"kind": "pareto", "scale": "0ms", "alpha": 2, "max": "1s"}, "scale must be longer than zero"),
        ({"kind": "pareto", "scale": "2s", "alpha": 2, "max": "1s"}, "scale (2s) is above max (1s)"),
        ({"kind": "pareto", "scale": "1s", "alpha": 0, "max": "2s"}, "Expected `float` >= 0.1"),
        ({"kind": "pareto", "scale": "1s", "alpha": math.nan, "max": "2s"}, "Expected `float` >= 0.1"),
        ({"kind": "empirical"}, "Object missing required field `percentiles`"),
        ({"kind": "empirical", "percentiles": {"50": "1s"}}, "percentiles: at least two are needed"),
        ({"kind": "empirical", "percentiles": {"p50": "1s", "99": "2s"}}, "percentiles: 'p50' is not a percentile"),
        ({"kind": "empirical", "percentiles": {"50": "1s", "100.5": "2s"}}, "percentiles: '100.5' is not a percentile"),
        ({"kind": "empirical", "percentiles": {"50": "1s", "50.0": "2s"}}, "percentiles: 50 is given twice"),
        ({"kind": "empirical", "percentiles": {"50": "3s", "9": "4s"}}, "percentiles: the 50th (3s) is below the 9th (4s)"),
        ({"kind": "mixture", "parts": []}, "Expected `array` of length >= 2"),
        (
            {"kind": "mixture", "parts": [{"weight": 0, "latency": {"kind": "constant", "value": "1s"}}] * 2},
            "Expected `float` > 0.0",
        ),
        (
            {"kind": "mixture", "parts": [{"weight": 1, "latency": {"kind": "mixture", "parts": []}}] * 2},
            "Invalid value 'mixture'",
        ),
    ],
)
def test_impossible_parameters_are_refused_with_the_reason(fields, reason):
    assert refusal(fields).startswith(reason)


# --- the page ------------------------------------------------------------------------------------------------------------------


def documented() -> list[tuple[str, list[str]]]:
    """Configuration line and numbers (mean, p50, p90, p99, p99.9 in ms) of each row of the table in docs/latency.md."""
    rows = [
        line.split("|")[1:-1] for line in (DOCS / "latency.md").read_text().splitlines() if line.startswith("| `latency = ")
    ]
    return [(row[0].strip().strip("`"), [cell.strip() for cell in row[1:]]) for row in rows]


def test_the_page_shows_every_kind_with_its_true_numbers():
    found = {}
    for line, numbers in documented():
        latency = latency_of(tomllib.loads(line)["latency"])
        values = [mean(latency), *quantiles(latency, [0.5, 0.9, 0.99, 0.999])]
        assert numbers == [f"{value:.0f}" for value in values], line
        found[type(latency)] = line
    assert set(found) == {Constant, Uniform, Normal, Lognormal, Gamma, Pareto, Empirical, Mixture}
