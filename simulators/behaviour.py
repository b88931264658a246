"""How a provider behaves, as pure functions of keyed draws.

Nothing here keeps a random state. A draw is a hash of (seed, provider, operation, reference, attempt), so a reference
meets the same fate whatever else happens, in whatever order and however many at once. What belongs to the charge itself
(outcome, ids, the customer's delay) is always drawn for its first create; latency and faults are drawn anew for each
attempt.
"""

import struct
from bisect import bisect_right
from hashlib import blake2b
from itertools import accumulate
from statistics import NormalDist
from typing import assert_never

import msgspec
import numpy as np
import numpy.typing as npt

from simulators.config import Constant, Latency, Lognormal, Uniform

DRAW_BITS = 64
TABLE_BITS = 12  # 4096 quantiles: the last one is p99.988, so a table resolves p99.9 and its tail is bounded
TABLE_SHIFT = DRAW_BITS - TABLE_BITS
_LANES = struct.Struct("<6Q")


class Draw(msgspec.Struct, frozen=True, gc=False):
    """Six independent integers, uniform over 0 .. 2**64 - 1."""

    latency: int
    fault: int
    outcome: int
    customer_delay: int
    identity: int  # the charge's providerID
    numbers: int  # its RRN and authorization code


class Draws:
    """All draws of one seed."""

    def __init__(self, seed: int) -> None:
        self._keyed = blake2b(key=seed.to_bytes(8, "little"), digest_size=_LANES.size)

    def draw(self, provider: str, operation: str, reference: str, attempt: int) -> Draw:
        """The draw of one call; the same arguments always give the same draw."""
        digest = self._keyed.copy()
        digest.update(f"{provider}\0{operation}\0{reference}\0{attempt}".encode())  # no part can contain a NUL
        return Draw(*_LANES.unpack(digest.digest()))


def fraction(draw: int) -> float:
    """A draw as a float in 0 <= f < 1."""
    return (draw >> 11) * 2.0**-53  # 53 bits: exact in a double, so that it never rounds up to 1


class Mix:
    """Codes with probabilities."""

    def __init__(self, probabilities: dict[str, float]) -> None:
        likely = {code: p for code, p in probabilities.items() if p > 0}
        self._codes = list(likely)
        self._bounds = list(accumulate(likely.values()))[:-1]  # what is left belongs to the last code, rounding errors included

    def pick(self, draw: int) -> str:
        """The code that this draw falls on."""
        return self._codes[bisect_right(self._bounds, fraction(draw))]


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
