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

import msgspec

DRAW_BITS = 64
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
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """From now on these are the draws of this seed."""
        self.seed = seed
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

    def interval(self, draw: int) -> tuple[float, float]:
        """From where (inclusive) to where (exclusive) draws fall on the same code."""
        edges = [0.0, *self._bounds, 1.0]
        index = bisect_right(self._bounds, fraction(draw))
        return edges[index], edges[index + 1]

    def pick(self, draw: int) -> str:
        """The code that this draw falls on."""
        return self._codes[bisect_right(self._bounds, fraction(draw))]
