"""What the load generator measured: one row for each request it should have sent.

All times are integer nanoseconds since the zero of the schedule, which is the start of the warm-up. Latency counts from the
*intended* send (`due_ns`), so a stall of the server or of the generator shows in the latency of everything that had to wait
for it, instead of quietly lowering the load.
"""

import enum
import math
from fractions import Fraction
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

METHODS = ("card", "upi", "netbanking")  # the code in column `method` is the position here
# What is asked of the gateway, in the order of the report; the code in column `step` is the position here. The first is the payment itself,
# the others are the later steps of its journey (journeys.py).
STEPS = (
    "process",
    "capture",
    "void",
    "refund",
    "refund status",
    "return",
    "status",
    "payment",
    "accept",
    "evidence",
    "dispute",
)
PROCESS = 0
NEVER = -1  # in `sent_ns` and `done_ns`: it did not happen
NO_ANSWER_NS = np.iinfo(np.int64).max  # latency of a request that got no answer: longer than any target
HTTP_CONFLICT = 409  # the same idempotency key is still being worked on
_NUMBERS = 256  # more than a payment has requests: the column has eight bits
WINDOW_NS = 60_000_000_000  # throughput targets are per minute, so a window is a minute


class Outcome(enum.IntEnum):
    """How a request ended; the codes of column `outcome`."""

    OK = 0  # 2xx with what was asked for in the body; the issuer's own decline is one of these
    REJECTED = 1  # 4xx (or another status that is neither 2xx nor 5xx)
    SERVER_ERROR = 2  # 5xx, or a 2xx without what was asked for in the body
    TIMEOUT = 3  # no answer within the client's timeout
    TRANSPORT_ERROR = 4  # connection refused, reset, or closed without a whole answer
    DROPPED = 5  # due, but the generator's pool was full: never sent


class GeneratorStats(msgspec.Struct, frozen=True):
    """Whether the generator kept its promise; requests are counted over the whole run, warm-up and repeats included."""

    cpu_share: float  # CPU time / wall time of the generator's process over the judged period
    lag_p99_ms: float  # actual minus intended send, over the judged period
    scheduled: int  # what should have been sent
    sent: int  # what was sent
    dropped: int  # what was due and could not be sent


class Samples(msgspec.Struct, frozen=True, eq=False):
    """Columns of equal length (n,), in order of `due_ns`; a request that was sent twice has two rows with the same index and number."""

    index: npt.NDArray[np.uint32]  # number of the payment in the schedule
    due_ns: Int64  # intended send
    sent_ns: Int64  # actual send, NEVER if dropped
    done_ns: Int64  # answer read, or given up; NEVER if dropped
    method: npt.NDArray[np.uint8]  # position in METHODS
    http_status: npt.NDArray[np.uint16]  # 0 = no answer
    outcome: npt.NDArray[np.uint8]  # Outcome
    duplicate: Mask  # the second send of the same request, with the same key and body
    warm_up: Mask  # due before the judged period: recorded, not judged
    step: npt.NDArray[np.uint8]  # position in STEPS
    number: npt.NDArray[np.uint8]  # which request of its payment it is; 0: the payment itself
    judged_from_ns: int
    judged_until_ns: int

    def __len__(self) -> int:
        return len(self.index)

    def where(self, mask: Mask) -> "Samples":
        """The rows for which `mask` (n,) is true; the judged period stays as it is."""
        columns = {name: getattr(self, name)[mask] for name in COLUMNS}
        return Samples(**columns, judged_from_ns=self.judged_from_ns, judged_until_ns=self.judged_until_ns)

    def judged(self) -> "Samples":
        """The rows that were due in the judged period; journeys go on after it."""
        return self.where(~self.warm_up & (self.due_ns < self.judged_until_ns))

    def save(self, path: Path) -> None:
        """Write a compressed .npz with one array a field; `numpy.load` reads it without pickle."""
        columns = {name: getattr(self, name) for name in COLUMNS}
        np.savez_compressed(path, **columns, judged_ns=np.array([self.judged_from_ns, self.judged_until_ns], np.int64))


COLUMNS: dict[str, type[np.generic]] = {
    "index": np.uint32,
    "due_ns": np.int64,
    "sent_ns": np.int64,
    "done_ns": np.int64,
    "method": np.uint8,
    "http_status": np.uint16,
    "outcome": np.uint8,
    "duplicate": np.bool_,
    "warm_up": np.bool_,
    "step": np.uint8,
    "number": np.uint8,
}


def load(path: Path) -> Samples:
    """Read what `Samples.save` wrote. Raises OSError, or ValueError if it is not such a file."""
    with np.load(path, allow_pickle=False) as file:
        missing = (COLUMNS.keys() | {"judged_ns"}) - set(file.files)
        if missing:
            raise ValueError(f"{path}: not a samples file, it has no {', '.join(sorted(missing))}")
        judged_from_ns, judged_until_ns = (int(ns) for ns in file["judged_ns"])
        columns = {name: file[name] for name in COLUMNS}
    return Samples(**columns, judged_from_ns=judged_from_ns, judged_until_ns=judged_until_ns)


def latencies_ns(samples: Samples) -> Int64:
    """Intended send to answer for each row that was sent (m,); NO_ANSWER_NS where no answer came, since a latency below the
    target must not be bought by giving up or refusing connections."""
    sent = samples.where(samples.outcome != Outcome.DROPPED)
    return np.where(sent.http_status > 0, sent.done_ns - sent.due_ns, NO_ANSWER_NS)


def lags_ns(samples: Samples) -> Int64:
    """Actual minus intended send for each row that was sent (m,)."""
    sent = samples.where(samples.outcome != Outcome.DROPPED)
    return sent.sent_ns - sent.due_ns


def percentile(values: Int64, share: float) -> int:
    """The exact nearest-rank percentile: the smallest value such that at least `share` (0 < share <= 1) of all values are not
    larger. It is always one of the values, never an interpolation. Raises ValueError without values."""
    if not len(values):
        raise ValueError("no values, no percentile")
    rank = math.ceil(Fraction(str(share)) * len(values))  # exact: 0.07 * 100 is 7.000000000000001 in floats
    return int(np.partition(values, rank - 1)[rank - 1])


def answered_ns(samples: Samples) -> Int64:
    """When each payment was first answered successfully (m,), sorted: a payment that was sent twice counts once, its journey not at all."""
    ok = samples.where((samples.outcome == Outcome.OK) & (samples.step == PROCESS))
    order = np.lexsort((ok.done_ns, ok.index))
    _, first = np.unique(ok.index[order], return_index=True)
    return np.sort(ok.done_ns[order][first])


def fewest_in_window(times_ns: Int64, *, from_ns: int, until_ns: int, window_ns: int = WINDOW_NS) -> int | None:
    """The smallest number of `times_ns` (sorted) in any window [t, t + window_ns) that lies inside [from_ns, until_ns], t being
    any integer; None if none fits. As t grows the count falls only just after t has passed one of the times, so those t and
    the first one are all that can hold the minimum."""
    last_start = until_ns - window_ns
    if last_start < from_ns:
        return None
    just_after = times_ns + 1
    starts = np.concatenate(([from_ns], just_after[(just_after > from_ns) & (just_after <= last_start)]))
    counts = np.searchsorted(times_ns, starts + window_ns, "left") - np.searchsorted(times_ns, starts, "left")
    return int(counts.min())


def refused(samples: Samples) -> Mask:
    """Which rows (n,) count against availability: 5xx, timeout, no connection, and a 4xx, because every request of ours is
    valid. A 409 is right where the same request was sent twice, since the first may still be running."""
    request = samples.index.astype(np.int64) * _NUMBERS + samples.number
    sent_twice = np.isin(request, request[samples.duplicate])
    in_flight = sent_twice & (samples.http_status == HTTP_CONFLICT)
    mask: Mask = (samples.outcome != Outcome.OK) & (samples.outcome != Outcome.DROPPED) & ~in_flight
    return mask
