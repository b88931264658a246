"""Keeps what happens to each request while a run is under way: exact columns for the verdict, what clients saw for the
auditor, and a glance for people. Knows nothing of sockets or clocks; times come in as ns since the zero of the schedule."""

import hashlib
from collections import deque
from typing import BinaryIO, Literal

import msgspec
import numpy as np

from loadtests import payments
from loadtests.arrivals import Plan
from loadtests.evidence import CVV
from loadtests.payments import CURRENCY, Payment
from loadtests.samples import HTTP_CONFLICT, METHODS, NEVER, GeneratorStats, Outcome, Samples, lags_ns, percentile

Phase = Literal["warm-up", "steady", "draining"]
_UNKNOWN = 255  # outcome of a row that has not ended
GLANCE_NS = 5_000_000_000  # what people see is the last 5 s: short enough to react, long enough to be calm


class Started(msgspec.Struct, frozen=True, tag_field="kind", tag="started"):
    """The schedule has a zero: `at` in seconds since 1970, a moment ahead."""

    at: float


class Progress(msgspec.Struct, frozen=True, tag_field="kind", tag="progress"):
    """How the run goes. Counts are since its start; rate and percentiles are of the answers of the last 5 s."""

    elapsed_s: float
    phase: Phase
    offered: int  # due so far
    sent: int
    in_flight: int
    ok: int
    errors: int  # answered with anything but a payment, or not at all; not the 409 that one of two equal sends may get
    dropped: int
    rate_per_s: float  # successful answers
    p50_ms: float | None  # None: no answer in the last 5 s
    p95_ms: float | None
    p99_ms: float | None


class Report(msgspec.Struct, frozen=True):
    """`generator.json`: written when the run is over, so that its presence says that the other files are whole."""

    run_id: str
    started_at: float  # zero of the schedule, seconds since 1970
    seed: int
    generator: GeneratorStats


class _Data(msgspec.Struct):
    paymentID: str
    status: str


class _Body(msgspec.Struct):
    """What a client reads of an answer, successful or not."""

    data: _Data | None = None
    code: str | None = None


_decode_body = msgspec.json.Decoder(_Body).decode
_encode = msgspec.json.Encoder().encode


class Recorder:
    """One run. Rows are positions in the plan; each is reported once: dropped, or sent and then answered or given up."""

    def __init__(
        self, plan: Plan, *, run_id: str, merchant_id: str, judged_from_ns: int, judged_until_ns: int, acks: BinaryIO
    ) -> None:
        n = len(plan.due_ns)
        self._plan, self._run_id, self._merchant_id, self._acks = plan, run_id, merchant_id, acks
        self._from_ns, self._until_ns = judged_from_ns, judged_until_ns
        self._sent_ns, self._done_ns = np.full(n, NEVER, np.int64), np.full(n, NEVER, np.int64)
        self._method, self._status = np.zeros(n, np.uint8), np.zeros(n, np.uint16)
        self._outcome = np.full(n, _UNKNOWN, np.uint8)
        self._sent_twice = frozenset(plan.index[plan.duplicate].tolist())
        self._in_flight: dict[int, Payment] = {}
        self._recent: deque[tuple[int, int, bool]] = deque()  # done_ns, latency_ns, ok; bounded by the answers of 5 s
        self._sent = self._ok = self._errors = self._dropped = 0

    def dropped(self, row: int, payment: Payment) -> None:
        self._method[row], self._outcome[row] = payment.method, Outcome.DROPPED
        self._dropped += 1

    def sent(self, row: int, payment: Payment, at_ns: int) -> None:
        self._method[row], self._sent_ns[row] = payment.method, at_ns
        self._in_flight[row] = payment
        self._sent += 1

    def answered(self, row: int, at_ns: int, http_status: int, content: bytes) -> str | None:
        """An answer was read in full. Returns what is wrong with it, None for a payment."""
        try:
            seen = _decode_body(content)
        except msgspec.DecodeError:  # not JSON, or not of this shape
            seen = _Body(code="unreadable_body")
        outcome = _outcome_of(http_status, seen)
        in_flight = http_status == HTTP_CONFLICT and int(self._plan.index[row]) in self._sent_twice
        payment = self._end(row, at_ns, http_status, outcome, error=not (outcome is Outcome.OK or in_flight))
        self._acknowledge(row, payment, http_status, seen.data if outcome is Outcome.OK else None, seen.code, content)
        return None if outcome is Outcome.OK or in_flight else f"HTTP {http_status} {seen.code or 'without a payment'}"

    def unanswered(self, row: int, at_ns: int, outcome: Literal[Outcome.TIMEOUT, Outcome.TRANSPORT_ERROR]) -> None:
        """No (whole) answer came."""
        self._acknowledge(row, self._end(row, at_ns, 0, outcome, error=True), 0, None, None, None)

    def give_up(self, at_ns: int) -> None:
        """The run ends here: what is still in flight counts as timed out."""
        for row in tuple(self._in_flight):
            self.unanswered(row, at_ns, Outcome.TIMEOUT)

    def samples(self) -> Samples:
        """The rows whose fate is known; all of the plan unless the run was cut short."""
        plan, reached = self._plan, self._outcome != _UNKNOWN
        return Samples(
            index=plan.index[reached],
            due_ns=plan.due_ns[reached],
            sent_ns=self._sent_ns[reached],
            done_ns=self._done_ns[reached],
            method=self._method[reached],
            http_status=self._status[reached],
            outcome=self._outcome[reached],
            duplicate=plan.duplicate[reached],
            warm_up=plan.due_ns[reached] < self._from_ns,
            judged_from_ns=self._from_ns,
            judged_until_ns=self._until_ns,
        )

    def stats(self, cpu_share: float) -> GeneratorStats:
        """How the generator did; `cpu_share` over the judged period is the shell's to measure."""
        lags = lags_ns(self.samples().judged())
        return GeneratorStats(
            cpu_share=cpu_share,
            lag_p99_ms=percentile(lags, 0.99) / 1e6 if len(lags) else 0.0,
            scheduled=len(self._plan.due_ns),
            sent=self._sent,
            dropped=self._dropped,
        )

    def progress(self, now_ns: int) -> Progress:
        while self._recent and self._recent[0][0] < now_ns - GLANCE_NS:
            self._recent.popleft()
        latencies = np.array([latency for _, latency, _ in self._recent], np.int64)
        p50, p95, p99 = ((percentile(latencies, p) / 1e6 if len(latencies) else None) for p in (0.50, 0.95, 0.99))
        ok = sum(ok for _, _, ok in self._recent)
        return Progress(
            elapsed_s=now_ns / 1e9,
            phase="warm-up" if now_ns < self._from_ns else "steady" if now_ns < self._until_ns else "draining",
            offered=int(np.searchsorted(self._plan.due_ns, now_ns, "right")),
            sent=self._sent,
            in_flight=len(self._in_flight),
            ok=self._ok,
            errors=self._errors,
            dropped=self._dropped,
            rate_per_s=ok / (min(max(now_ns, 1), GLANCE_NS) / 1e9),
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
        )

    def _end(self, row: int, at_ns: int, http_status: int, outcome: Outcome, *, error: bool) -> Payment:
        self._done_ns[row], self._status[row], self._outcome[row] = at_ns, http_status, outcome
        ok = outcome is Outcome.OK
        self._ok += ok
        self._errors += error
        self._recent.append((at_ns, at_ns - int(self._plan.due_ns[row]), ok))
        return self._in_flight.pop(row)

    def _acknowledge(
        self, row: int, payment: Payment, http_status: int, data: _Data | None, code: str | None, content: bytes | None
    ) -> None:
        index = int(self._plan.index[row])
        line = {
            "index": index,
            "key": payments.key(self._run_id, index),
            "merchantID": self._merchant_id,
            "httpStatus": http_status,
            "paymentID": data.paymentID if data else None,
            "status": data.status if data else None,
            "amount": payment.amount,
            "currency": CURRENCY,
            "method": METHODS[payment.method],
            "bodySha256": None if content is None else hashlib.sha256(content).hexdigest(),
            "duplicate": bool(self._plan.duplicate[row]),
            "code": code,
            "leaked": None if content is None else _leaked(payment, content),
        }
        self._acks.write(_encode(line) + b"\n")


def _leaked(payment: Payment, content: bytes) -> str | None:
    """What of the request's own card is in the answer to it: nothing may be, also where the answer repeats what it refuses."""
    card = payment.instrument.get("cardDetails")
    if card is None:
        return None
    number = card["number"]
    groups = [number[at : at + 4] for at in range(0, len(number), 4)]
    if any(form.encode() in content for form in (number, " ".join(groups), "-".join(groups))):
        return "card number"
    return "card security code" if CVV.search(content) else None


def _outcome_of(http_status: int, seen: _Body) -> Outcome:
    if 200 <= http_status < 300:
        return Outcome.OK if seen.data else Outcome.SERVER_ERROR  # a 2xx that says nothing is the server's fault
    return Outcome.SERVER_ERROR if http_status >= 500 else Outcome.REJECTED
