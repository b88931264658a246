"""When each request should be sent: pure, and the same for the same seed."""

from typing import Literal, assert_never

import msgspec
import numpy as np
import numpy.typing as npt

Arrivals = Literal["poisson", "uniform"]

_ARRIVALS, _REPEATS = 1, 2  # independent streams of draws under one seed; payments.py has the third
REPEAT_AFTER_NS_MAX = 1_000_000_000  # an impatient click or a client's retry comes within about a second


class Plan(msgspec.Struct, frozen=True, eq=False):
    """Every request of a run, columns of length (n,) sorted by `due_ns`. A payment that is sent twice has two rows."""

    due_ns: npt.NDArray[np.int64]  # intended send, from the zero of the schedule
    index: npt.NDArray[np.uint32]  # number of the payment
    duplicate: npt.NDArray[np.bool_]  # the second send


def schedule(*, seed: int, rate_per_s: float, duration_s: float, arrivals: Arrivals) -> npt.NDArray[np.int64]:
    """Offsets in ns from the zero of the schedule (n,), sorted, all in [0, duration).

    `poisson`: independent exponential gaps, and as many arrivals as then fall into the duration: n varies with the seed, as it
    does for customers who know nothing of each other. `uniform`: one in the middle of each slot of 1/rate seconds.
    """
    gap_ns = 1e9 / rate_per_s
    expected = round(rate_per_s * duration_s)
    match arrivals:
        case "uniform":
            offsets_ns = (np.arange(expected + 1) + 0.5) * gap_ns
        case "poisson":
            offsets_ns = _poisson_ns(np.random.default_rng([_ARRIVALS, seed]), gap_ns, expected, duration_s * 1e9)
        case _:
            assert_never(arrivals)
    due_ns: npt.NDArray[np.int64] = np.floor(offsets_ns).astype(np.int64)
    return due_ns[: np.searchsorted(due_ns, round(duration_s * 1e9))]


def plan(due_ns: npt.NDArray[np.int64], *, seed: int, duplicates: float) -> Plan:
    """The schedule of `due_ns` (n,) with a share of `duplicates` sent a second time: one half of them at the very same moment, the
    others at a random one within REPEAT_AFTER_NS_MAX, but not after the last payment of the schedule."""
    n = len(due_ns)
    draws = np.random.default_rng([_REPEATS, seed]).random((n, 2))  # a row a payment: the first n do not depend on n
    repeated = np.flatnonzero(draws[:, 0] < duplicates)
    delay_ns = np.maximum(0.0, 2 * draws[repeated, 1] - 1) * REPEAT_AFTER_NS_MAX
    again_ns = np.minimum(due_ns[repeated] + delay_ns.astype(np.int64), due_ns[-1:])
    all_due_ns = np.concatenate((due_ns, again_ns))
    order = np.argsort(all_due_ns, kind="stable")  # stable: of two at the same moment the original goes first
    index = np.concatenate((np.arange(n), repeated))[order].astype(np.uint32)
    return Plan(all_due_ns[order], index, (np.arange(len(order)) >= n)[order])


def _poisson_ns(rng: np.random.Generator, gap_ns: float, expected: int, until_ns: float) -> npt.NDArray[np.float64]:
    offsets_ns = np.cumsum(rng.exponential(gap_ns, expected + 1))
    while offsets_ns[-1] < until_ns:  # fell short, as every second draw does; each round brings a tenth and at least 64 more
        more_ns = rng.exponential(gap_ns, expected // 10 + 64)
        offsets_ns = np.concatenate((offsets_ns, offsets_ns[-1] + np.cumsum(more_ns)))
    return offsets_ns
