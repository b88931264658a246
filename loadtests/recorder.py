"""Keeps what happens to each request while a run is under way: exact columns for the verdict, what clients saw for the
auditor, and a glance for people. Knows nothing of sockets or clocks; times come in as ns since the zero of the schedule."""

import hashlib
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, BinaryIO, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from loadtests import payments
from loadtests.arrivals import Plan
from loadtests.evidence import CVV
from loadtests.journeys import Step
from loadtests.payments import CURRENCY, Payment
from loadtests.samples import (
    HTTP_CONFLICT,
    METHODS,
    NEVER,
    PROCESS,
    STEPS,
    GeneratorStats,
    Outcome,
    Samples,
    lags_ns,
    percentile,
)

Phase = Literal["warm-up", "steady", "draining"]
_UNKNOWN = 255  # outcome of a row that has not ended
GROWTH_MIN = 1_000  # rows: growing is rare from the first time on
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


class Walked(msgspec.Struct, frozen=True):
    """How the journeys of one kind ended."""

    begun: int
    finished: int
    stopped: Mapping[str, int]  # why the others ended early, and how often


class Report(msgspec.Struct, frozen=True):
    """`generator.json`: written when the run is over, so that its presence says that the other files are whole."""

    run_id: str
    started_at: float  # zero of the schedule, seconds since 1970
    seed: int
    generator: GeneratorStats
    journeys: Mapping[str, Walked] = {}


class _Capture(msgspec.Struct):
    captureID: str
    status: str


class _Data(msgspec.Struct):
    """`status` is of what the answer is about: a refund, a dispute, and otherwise the payment."""

    paymentID: str
    status: str
    capture: _Capture | None = None
    refundID: str | None = None
    disputeID: str | None = None


class _Body(msgspec.Struct):
    """What a client reads of an answer, successful or not."""

    data: _Data | None = None
    code: str | None = None


_decode_body = msgspec.json.Decoder(_Body).decode
_encode = msgspec.json.Encoder().encode


class _Request(NamedTuple):
    """A step of a journey, as it is known before it is sent. `twice`: its client sends it two times, with one key."""

    step: Step
    payment_id: str
    twice: bool


class Recorder:
    """One run. Rows are positions in the plan, and after those what `add` gave; each is reported once: dropped, or sent and then
    answered or given up."""

    def __init__(
        self, plan: Plan, *, run_id: str, merchant_id: str, judged_from_ns: int, judged_until_ns: int, acks: BinaryIO
    ) -> None:
        n = len(plan.due_ns)
        self._plan, self._run_id, self._merchant_id, self._acks = plan, run_id, merchant_id, acks
        self._from_ns, self._until_ns = judged_from_ns, judged_until_ns
        self._rows = n
        self._columns: dict[str, npt.NDArray[Any]] = {
            "index": plan.index,
            "due_ns": plan.due_ns,
            "duplicate": plan.duplicate,
            "sent_ns": np.full(n, NEVER, np.int64),
            "done_ns": np.full(n, NEVER, np.int64),
            "method": np.zeros(n, np.uint8),
            "http_status": np.zeros(n, np.uint16),
            "outcome": np.full(n, _UNKNOWN, np.uint8),
            "step": np.full(n, PROCESS, np.uint8),
            "number": np.zeros(n, np.uint8),
        }
        self._requests: dict[int, _Request] = {}  # of journeys, until they have ended
        self._journeys: dict[str, Counter[str]] = {}
        self._sent_twice = frozenset(plan.index[plan.duplicate].tolist())
        self._in_flight: dict[int, Payment] = {}
        self._recent: deque[tuple[int, int, bool]] = deque()  # done_ns, latency_ns, ok; bounded by the answers of 5 s
        self._sent = self._ok = self._errors = self._dropped = 0

    def add(
        self, step: Step, *, index: int, number: int, payment_id: str, due_ns: int, twice: bool = False, duplicate: bool = False
    ) -> int:
        """The row of a request that is due now or later: request `number` of payment `index`."""
        if self._rows == len(self._columns["index"]):
            self._grow()
        row, self._rows = self._rows, self._rows + 1
        self._set(row, index=index, due_ns=due_ns, duplicate=duplicate, step=STEPS.index(step.name), number=number)
        self._requests[row] = _Request(step, payment_id, twice)
        return row

    def walked(self, journey: str, ended: str) -> None:
        """A journey was begun (`begun`), walked to its end (`finished`), or ended early: why."""
        self._journeys.setdefault(journey, Counter())[ended] += 1

    def journeys(self) -> dict[str, Walked]:
        """How all of them ended, by name."""
        kinds = sorted(self._journeys.items())
        early = {name: {why: n for why, n in ends.items() if why not in ("begun", "finished")} for name, ends in kinds}
        return {name: Walked(ends["begun"], ends["finished"], early[name]) for name, ends in kinds}

    def due_ns(self, row: int) -> int:
        return int(self._columns["due_ns"][row])

    def dropped(self, row: int, payment: Payment) -> None:
        self._set(row, method=payment.method, outcome=Outcome.DROPPED)
        self._requests.pop(row, None)
        self._dropped += 1

    def sent(self, row: int, payment: Payment, at_ns: int) -> None:
        self._set(row, method=payment.method, sent_ns=at_ns)
        self._in_flight[row] = payment
        self._sent += 1

    def answered(self, row: int, at_ns: int, http_status: int, content: bytes) -> str | None:
        """An answer was read in full. Returns what is wrong with it, None for what was asked for."""
        request = self._requests.get(row)
        try:
            seen = _decode_body(content)
        except msgspec.DecodeError:  # not JSON, or not of this shape
            seen = _Body(code="unreadable_body")
        outcome = _outcome_of(http_status, seen)
        if request is not None and request.step.form is not None and 200 <= http_status < 400:  # a page, or the way to one
            outcome, seen = Outcome.OK, _Body()
        twice = request.twice if request else int(self._columns["index"][row]) in self._sent_twice
        in_flight = http_status == HTTP_CONFLICT and twice
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
        reached = np.flatnonzero(self._columns["outcome"][: self._rows] != _UNKNOWN)
        order = reached[np.argsort(self._columns["due_ns"][reached], kind="stable")]
        columns = {name: column[order] for name, column in self._columns.items()}
        return Samples(
            **columns,
            warm_up=columns["due_ns"] < self._from_ns,
            judged_from_ns=self._from_ns,
            judged_until_ns=self._until_ns,
        )

    def stats(self, cpu_share: float) -> GeneratorStats:
        """How the generator did; `cpu_share` over the judged period is the shell's to measure."""
        lags = lags_ns(self.samples().judged())
        return GeneratorStats(
            cpu_share=cpu_share,
            lag_p99_ms=percentile(lags, 0.99) / 1e6 if len(lags) else 0.0,
            scheduled=self._rows,
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
            offered=int(np.searchsorted(self._plan.due_ns, now_ns, "right")) + self._rows - len(self._plan.due_ns),
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
        self._set(row, done_ns=at_ns, http_status=http_status, outcome=outcome)
        ok = outcome is Outcome.OK
        self._ok += ok
        self._errors += error
        self._recent.append((at_ns, at_ns - self.due_ns(row), ok))
        return self._in_flight.pop(row)

    def _set(self, row: int, **values: int) -> None:
        for name, value in values.items():
            self._columns[name][row] = value

    def _grow(self) -> None:
        """Twice the rows. The plan's own columns stay as they are."""
        more = {"sent_ns": NEVER, "done_ns": NEVER, "outcome": _UNKNOWN}
        for name, column in self._columns.items():
            room = np.full(len(column) + GROWTH_MIN, more.get(name, 0), column.dtype)
            self._columns[name] = np.concatenate((column, room))

    def _acknowledge(
        self, row: int, payment: Payment, http_status: int, data: _Data | None, code: str | None, content: bytes | None
    ) -> None:
        index, number = int(self._columns["index"][row]), int(self._columns["number"][row])
        request = self._requests.pop(row, None)
        line = {
            "index": index,
            "key": payments.key(self._run_id, index, number),
            "merchantID": self._merchant_id,
            "httpStatus": http_status,
            "paymentID": data.paymentID if data else None,
            "status": data.status if data and not (data.refundID or data.disputeID) else None,
            "amount": request.step.amount if request else payment.amount,
            "currency": CURRENCY,
            "method": METHODS[payment.method],
            "bodySha256": None if content is None else hashlib.sha256(content).hexdigest(),
            "duplicate": bool(self._columns["duplicate"][row]),
            "code": code,
            "leaked": None if content is None else _leaked(payment, content),
            **(_told(request, data) if request else {}),
        }
        self._acks.write(_encode(line) + b"\n")


def _told(request: _Request, data: _Data | None) -> dict[str, str | None]:
    """What an ack has besides, of a journey's step."""
    told: dict[str, str | None] = {"step": request.step.name}
    if data is None:
        return told
    if data.capture is not None:
        return told | {"subjectID": data.capture.captureID, "subjectStatus": data.capture.status}
    subject_id = data.refundID or data.disputeID
    return told | {"subjectID": subject_id, "subjectStatus": data.status} if subject_id else told


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
