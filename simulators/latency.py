"""Latency distributions: what a configuration says, and the tables that calls draw from.

Each kind is a struct that a configuration contains, and knows its quantile function. A `LatencyTable` asks for the quantiles once;
after that a draw is one look-up. docs/latency.md shows each kind with its numbers and says what to use when.
"""

import re
from itertools import pairwise
from statistics import NormalDist
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt

from simulators.behaviour import DRAW_BITS
from simulators.durations import DURATION_MS_MAX, Duration

TABLE_BITS = 12  # 4096 slots, equally likely
TOP_BITS = 8  # the last slot, 1/4096, is where the tail is: it is split by 256 more, so that p99.99 and p99.9999 are right
TABLE_SHIFT = DRAW_BITS - TABLE_BITS
TOP_SHIFT = TABLE_SHIFT - TOP_BITS
TOP_SLOT = 2**TABLE_BITS - 1  # index of the slot that is split
TOP_MASK = 2**TOP_BITS - 1

GAMMA_RATIO_MIN, GAMMA_RATIO_MAX = (
    1.01,
    2_000.0,
)  # of p99 to p50; shapes 55 000 and 0.1: beyond, a gamma looks like another kind
GAMMA_SHAPE_MIN, GAMMA_SHAPE_MAX = 0.1, 60_000.0
GAMMA_GRID = 8_001  # points of the numerical integration: p50 and p99 are right to 3e-5 of themselves, p99.9999 to 5e-4
PERCENTILE = re.compile(r"(?:100|[0-9]{1,2}(?:\.[0-9]{1,4})?)")  # four decimals: what the top of a table can tell apart
PARTS_MAX = 16  # of a mixture; more is better said by percentiles

Floats = npt.NDArray[np.float64]
NORMAL = NormalDist()


def _z(share: Floats) -> Floats:
    """Standard normal quantiles (Wichura's AS 241, as in `statistics`)."""
    return np.fromiter(map(NORMAL.inv_cdf, share.tolist()), np.float64, share.size)


class _Kind(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag=str.lower):
    """A latency distribution."""

    def quantiles_ms(self, share: Floats) -> Floats:
        """The latency in ms below which each `share` (0 < share < 1) of all answers lies."""
        raise NotImplementedError


class Constant(_Kind, frozen=True):
    """Always the same latency."""

    value: Duration

    def quantiles_ms(self, share: Floats) -> Floats:
        return np.full(share.size, self.value.ms)


class Uniform(_Kind, frozen=True):
    """Every latency between `low` and `high` is equally likely."""

    low: Duration
    high: Duration

    def __post_init__(self) -> None:
        if self.low.ms > self.high.ms:
            raise ValueError(f"low ({self.low}) is above high ({self.high})")

    def quantiles_ms(self, share: Floats) -> Floats:
        return self.low.ms + share * (self.high.ms - self.low.ms)


class Normal(_Kind, frozen=True):
    """The normal distribution of `mean` and `sd`, cut off below `low`: what lies there is spread over the rest in proportion."""

    mean: Duration
    sd: Duration
    low: Duration = Duration("0ms")

    def __post_init__(self) -> None:
        if self.sd.ms <= 0:
            raise ValueError('sd must be longer than zero; for always the same latency use kind = "constant"')
        if self.low.ms > self.mean.ms:
            raise ValueError(f"low ({self.low}) is above mean ({self.mean}): more than half would be cut off")

    def quantiles_ms(self, share: Floats) -> Floats:
        cut = NORMAL.cdf((self.low.ms - self.mean.ms) / self.sd.ms)
        return self.mean.ms + self.sd.ms * _z(cut + share * (1 - cut))


class Lognormal(_Kind, frozen=True):
    """Lognormal latency, given by its median and its 99th percentile: the shape that real providers show."""

    p50: Duration
    p99: Duration

    def __post_init__(self) -> None:
        if self.p50.ms <= 0:
            raise ValueError("p50 must be longer than zero")
        if self.p50.ms > self.p99.ms:
            raise ValueError(f"p50 ({self.p50}) is above p99 ({self.p99})")

    def quantiles_ms(self, share: Floats) -> Floats:
        # ln X is normal with mean ln p50; its 99th percentile lies z(0.99) sigmas above.
        sigma = np.log(self.p99.ms / self.p50.ms) / NORMAL.inv_cdf(0.99)
        quantiles: Floats = self.p50.ms * np.exp(sigma * _z(share))
        return quantiles


class Gamma(_Kind, frozen=True):
    """Gamma latency by its median and 99th percentile: a lighter tail than lognormal; the time of several steps in a row."""

    p50: Duration
    p99: Duration

    def __post_init__(self) -> None:
        if self.p50.ms <= 0:
            raise ValueError("p50 must be longer than zero")
        ratio = self.p99.ms / self.p50.ms
        if not GAMMA_RATIO_MIN <= ratio <= GAMMA_RATIO_MAX:
            advice = "constant or normal" if ratio < GAMMA_RATIO_MIN else "lognormal or pareto"
            raise ValueError(
                f"p99 must be {GAMMA_RATIO_MIN:g} to {GAMMA_RATIO_MAX:g} times p50, not {ratio:.4g} times; {advice} may fit"
            )

    @property
    def shape(self) -> float:
        """The shape k (its square root is mean / standard deviation) that has this ratio of p99 to p50, by bisection."""
        wanted = self.p99.ms / self.p50.ms
        low, high = np.log(GAMMA_SHAPE_MIN), np.log(GAMMA_SHAPE_MAX)
        for _ in range(40):  # halves an interval of 13 until it is 1e-11 wide
            middle = (low + high) / 2
            p50, p99 = _gamma_quantiles(float(np.exp(middle)), np.array([0.5, 0.99]))
            low, high = (middle, high) if p99 / p50 > wanted else (low, middle)
        return float(np.exp(low))

    def quantiles_ms(self, share: Floats) -> Floats:
        quantiles = _gamma_quantiles(self.shape, np.append(share, 0.5))
        scaled: Floats = quantiles[:-1] * (self.p50.ms / quantiles[-1])
        return scaled


def _gamma_quantiles(shape: float, share: Floats) -> Floats:
    """Quantiles of the gamma distribution, in units of its mean.

    With x = e**t means, the density of t is proportional to exp(-shape * (e**t - 1 - t)): smooth, and below e**-40 of its peak
    outside the grid, so the trapezoid rule is as good as any.
    """
    depth = 40 / shape  # how large e**t - 1 - t is, or more, at both ends of the grid
    left, right = -np.sqrt(2 * depth) - depth, np.log1p(np.sqrt(2 * depth) + depth)
    t = np.linspace(left, right, GAMMA_GRID)
    density = np.exp(-shape * (np.expm1(t) - t))
    cumulated = np.append(0.0, np.cumsum(density[1:] + density[:-1]))
    quantiles: Floats = np.exp(np.interp(share * cumulated[-1], cumulated, t))
    return quantiles


class Pareto(_Kind, frozen=True):
    """A heavy tail: the share above x is (scale / x) ** alpha, for x from `scale` on; what is longer than `max` becomes `max`."""

    scale: Duration
    alpha: Annotated[float, msgspec.Meta(ge=0.1, le=100)]  # 1 to 3 is what is seen; at 1 and below the mean is all tail
    max: Duration

    def __post_init__(self) -> None:
        if self.scale.ms <= 0:
            raise ValueError("scale must be longer than zero")
        if self.scale.ms > self.max.ms:
            raise ValueError(f"scale ({self.scale}) is above max ({self.max})")

    def quantiles_ms(self, share: Floats) -> Floats:
        quantiles: Floats = np.minimum(self.scale.ms * (1 - share) ** (-1 / self.alpha), self.max.ms)
        return quantiles


class Empirical(_Kind, frozen=True):
    """Latency by measured percentiles, such as `{"50": "120ms", "99": "600ms"}`.

    Between two of them ln(latency) is linear in the normal quantile, so the percentiles of a lognormal give that lognormal back.
    Outside the lowest and the highest one the latency stays at theirs; "0" and "100" are the shortest and the longest.
    In a file, `file = "latencies.csv"` stands for the percentiles of its samples: see samples.py.
    """

    percentiles: dict[str, Duration]

    def __post_init__(self) -> None:
        if len(self.percentiles) < 2:
            raise ValueError('percentiles: at least two are needed, such as {"50" = "120ms", "99" = "600ms"}')
        for percent in self.percentiles:
            if not PERCENTILE.fullmatch(percent):
                raise ValueError(f'percentiles: {percent!r} is not a percentile; write 0 to 100, such as "50" or "99.9"')
        points = self._points()
        for (below, lower), (above, upper) in pairwise(points):
            if below == above:
                raise ValueError(f"percentiles: {below:g} is given twice")
            if lower.ms > upper.ms:
                raise ValueError(f"percentiles: the {above:g}th ({upper}) is below the {below:g}th ({lower})")

    def __hash__(self) -> int:  # a dict has none, and equal latencies share a table
        return hash(frozenset(self.percentiles.items()))

    def _points(self) -> list[tuple[float, Duration]]:
        return sorted((float(percent), latency) for percent, latency in self.percentiles.items())

    def quantiles_ms(self, share: Floats) -> Floats:
        points = self._points()
        edge = 0.5 ** (TABLE_BITS + TOP_BITS + 1)  # where the last slot of a table has its middle
        z = _z(np.clip([percent / 100 for percent, _ in points], edge, 1 - edge))
        logs = np.log([max(latency.ms, 0.5) for _, latency in points])  # 0.5 ms and less is 0 whole ms in any case
        quantiles: Floats = np.exp(np.interp(_z(share), z, logs))
        return quantiles


Simple = Constant | Uniform | Normal | Lognormal | Gamma | Pareto | Empirical


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a mixture; its share of the answers is its weight among all weights."""

    weight: Annotated[float, msgspec.Meta(gt=0, le=1_000_000)]
    latency: Simple


class Mixture(_Kind, frozen=True):
    """Some answers take one path and some another: a cache that hits or misses, one host in ten that is slow."""

    parts: Annotated[tuple[Part, ...], msgspec.Meta(min_length=2, max_length=PARTS_MAX)]

    def quantiles_ms(self, share: Floats) -> Floats:
        # All slots of all parts in order of their latency, each with its probability: that is the mixed CDF, read backwards.
        latencies = np.concatenate([part.latency.quantiles_ms(SLOT_MIDDLES) for part in self.parts])
        weights = np.concatenate([part.weight * SLOT_WIDTHS for part in self.parts])
        order = np.argsort(latencies)
        cumulated = np.cumsum(weights[order])
        quantiles: Floats = latencies[order[np.searchsorted(cumulated, share * cumulated[-1])]]
        return quantiles


Latency = Simple | Mixture


def _slots() -> tuple[Floats, Floats]:
    """Middle and width of each slot of a table, as shares."""
    widths = np.append(np.full(TOP_SLOT, 0.5**TABLE_BITS), np.full(2**TOP_BITS, 0.5 ** (TABLE_BITS + TOP_BITS)))
    return np.cumsum(widths) - widths / 2, widths  # exact: all are multiples of a power of two


SLOT_MIDDLES, SLOT_WIDTHS = _slots()


class LatencyTable:
    """A latency distribution as whole milliseconds: 4095 quantiles of 1/4096 each, and 256 that share the last 1/4096."""

    def __init__(self, latency: Latency) -> None:
        quantiles_ms = np.minimum(latency.quantiles_ms(SLOT_MIDDLES), DURATION_MS_MAX)  # a tail can reach past all timers
        self.quantiles_ms: list[int] = np.rint(quantiles_ms).astype(np.int64).tolist()  # a list: indexed 4 times faster

    def pick(self, draw: int) -> int:
        """The latency of this draw, in ms."""
        slot = draw >> TABLE_SHIFT
        return self.quantiles_ms[slot if slot < TOP_SLOT else TOP_SLOT + (draw >> TOP_SHIFT & TOP_MASK)]
