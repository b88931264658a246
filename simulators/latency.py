"""Latency distributions: what a configuration says, and the tables that calls draw from."""

from statistics import NormalDist
from typing import assert_never

import msgspec
import numpy as np
import numpy.typing as npt

from simulators.behaviour import DRAW_BITS
from simulators.durations import Duration

TABLE_BITS = 12  # 4096 quantiles: the last one is p99.988, so a table resolves p99.9 and its tail is bounded
TABLE_SHIFT = DRAW_BITS - TABLE_BITS


class Constant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="constant"):
    """Always the same latency."""

    value: Duration


class Uniform(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="uniform"):
    """Every latency between `low` and `high` is equally likely."""

    low: Duration
    high: Duration

    def __post_init__(self) -> None:
        if self.low.ms > self.high.ms:
            raise ValueError(f"low ({self.low}) is above high ({self.high})")


class Lognormal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="lognormal"):
    """Lognormal latency, given by its median and its 99th percentile: the shape that real providers show."""

    p50: Duration
    p99: Duration

    def __post_init__(self) -> None:
        if self.p50.ms <= 0:
            raise ValueError("p50 must be longer than zero")
        if self.p50.ms > self.p99.ms:
            raise ValueError(f"p50 ({self.p50}) is above p99 ({self.p99})")


Latency = Constant | Uniform | Lognormal


class LatencyTable:
    """A latency distribution as 4096 equally likely whole milliseconds (the midpoints of its quantiles)."""

    def __init__(self, latency: Latency) -> None:
        self.quantiles_ms: list[int] = (
            np.rint(_quantiles_ms(latency)).astype(np.int64).tolist()
        )  # a list: indexed 4 times faster

    def pick(self, draw: int) -> int:
        """The latency of this draw, in ms."""
        return self.quantiles_ms[draw >> TABLE_SHIFT]


def _quantiles_ms(latency: Latency) -> npt.NDArray[np.float64]:
    size = 2**TABLE_BITS
    share: npt.NDArray[np.float64] = (np.arange(size) + 0.5) / size
    quantiles: npt.NDArray[np.float64]
    match latency:
        case Constant(value):
            quantiles = np.full(size, value.ms)
        case Uniform(low, high):
            quantiles = low.ms + share * (high.ms - low.ms)
        case Lognormal(p50, p99):
            # ln X is normal with mean ln p50; its 99th percentile lies z(0.99) sigmas above.
            normal = NormalDist()
            sigma = np.log(p99.ms / p50.ms) / normal.inv_cdf(0.99)
            quantiles = p50.ms * np.exp(sigma * np.fromiter(map(normal.inv_cdf, share.tolist()), np.float64, size))
        case _:
            assert_never(latency)
    return quantiles
