"""How a provider takes a call and lets go of it: draw, fault, queue and latency at the beginning, journal and answer at the end."""

from typing import Any

import msgspec

from simulators import faults
from simulators.behaviour import Draw
from simulators.charges import Conflict
from simulators.faults import Injected, Operation
from simulators.journal import Entry, Subject
from simulators.phases import Conducts
from simulators.providers import Conduct, Create
from simulators.world import Record, World, queue_ms

UNKNOWN = Record()  # of a reference that nobody ever charged; never written to
DUPLICATE = "duplicate"  # the subject of the second movement of a charge that is charged twice


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What the caller gets, and after which delay. What the fault does to it on the way out is `answering.py`'s business."""

    http_status: int
    body: bytes
    delay_ms: int = 0
    fault: Injected | None = None


class Call(msgspec.Struct, frozen=True, gc=False):
    """A call that has been taken. `subject` is the id of the increment, capture, refund or dispute that it is about."""

    operation: Operation
    reference: str | None
    subject: str | None
    attempt: int
    now_ms: int
    draw: Draw
    conduct: Conduct
    fault: Injected | None
    delay_ms: int
    wait_ms: int

    @property
    def barred(self) -> bool:
        """Whether its fault forbids that anything is done."""
        return self.fault is not None and not self.fault.acts


def keyed(what: str, reference: str) -> str:
    """The key of a call's draws where several kinds of calls are one operation and must not share them. No reference has a slash."""
    return f"{what}/{reference}"


class Intake:
    """The calls of one provider."""

    def __init__(self, provider: str, *, world: World, conducts: Conducts) -> None:
        self.provider = provider
        self.world = world
        self._conducts = conducts
        self._encode = msgspec.json.Encoder().encode

    def begin(
        self,
        operation: Operation,
        reference: str | None,
        attempt: int,
        *,
        key: str,
        record: Record = UNKNOWN,
        subject: str | None = None,
        amount: int | None = None,
        request: Create | None = None,
        fault: Injected | None = None,
    ) -> Call:
        """Takes a call whose draw is that of `key`. Unless its fault forbids it, the caller acts, then ends the call.
        `request` carries its card number or VPA, if anything does. A `fault` that is known before comes before any that is drawn."""
        world = self.world
        now_ms = world.now_ms()
        draw = world.draws.draw(self.provider, operation, key, attempt)
        elapsed_ms = world.elapsed_ms(now_ms)
        conduct = self._conducts.at(elapsed_ms)
        if fault is None and operation in conduct.faults.operations:
            number, vpa = request.instrument() if request else (None, None)
            asked = faults.Call(operation, attempt, elapsed_ms, record.merchant_id, amount, number, vpa)
            fault = conduct.faults.pick(asked, draw.fault)
        delay_ms = wait_ms = 0
        if fault is None or fault.acts:
            delay_ms = conduct.latencies[operation].pick(draw.latency)
            station = conduct.stations.get(operation)
            if station is not None:
                waited_ms = station.arrive(queue_ms(), delay_ms)
                if waited_ms is None:
                    fault, delay_ms = _overloaded(self.provider, operation), 0
                else:
                    wait_ms = round(waited_ms)
                    delay_ms += wait_ms
            if fault is not None:
                delay_ms += fault.delay_ms
        return Call(operation, reference, subject, attempt, now_ms, draw, conduct, fault, delay_ms, wait_ms)

    def fate(self, call: Call, key: str) -> Draw:
        """The draw of the first try: what becomes of something belongs to its reference, whichever try gets through."""
        return call.draw if call.attempt == 1 else self.world.draws.draw(self.provider, call.operation, key, 1)

    def journal(self, call: Call, record: Record, state: Subject | None, moved: int = 0) -> None:
        """Writes down what a call did; `state` is what it was about, as it is now."""
        fault = call.fault
        self.world.journal.append(
            Entry(
                call.now_ms,
                self.provider,
                call.operation,
                call.reference,
                call.attempt,
                state,
                moved,
                call.delay_ms,
                fault.kind if fault else None,
                msgspec.UNSET,
                None,
                record.merchant_id,
                record.order_id,
                call.subject,
                call.wait_ms,
                fault.id if fault else None,
            )
        )

    def happened(self, operation: str, record: Record, state: Any, *, at: int, moved: int, subject: str | None = None) -> None:  # noqa: ANN401 - a Charge, Refund or Dispute
        """Writes down what nobody called for: a customer's decision, an expiry, a refund that completes."""
        assert record.charge is not None
        self.world.journal.append(
            Entry(
                at,
                self.provider,
                operation,
                record.charge.reference,
                1,
                state,
                moved,
                merchant=record.merchant_id,
                order=record.order_id,
                subject=subject,
            )
        )

    def done(self, call: Call, record: Record, state: Any, moved: int = 0) -> Answer:  # noqa: ANN401 - a Charge, Refund, ...
        """Journals the call and answers with `state`."""
        self.journal(call, record, state, moved)
        return Answer(200, self._encode(state), call.delay_ms, call.fault)

    def listed(self, call: Call, body: Any) -> Answer:  # noqa: ANN401 - anything that is JSON
        """Answers with several things at once; the journal has a line about none of them."""
        self.journal(call, UNKNOWN, None)
        return Answer(200, self._encode(body), call.delay_ms, call.fault)

    def stale(self, call: Call, record: Record) -> Answer:
        """Journals the truth and answers with what was true before it."""
        self.journal(call, record, record.charge)
        if record.before is None:
            return self._not_found(call, f"no charge with reference {call.reference!r} has arrived at {self.provider}")
        return Answer(200, self._encode(record.before), call.delay_ms, call.fault)

    def missing(self, call: Call, sentence: str, record: Record = UNKNOWN) -> Answer:
        """There is nothing that the call could be about."""
        self.journal(call, record, None)
        return self._not_found(call, sentence)

    def refuse(self, call: Call, record: Record, conflict: Conflict, state: Subject | None = None) -> Answer:
        """Nothing was done, because the state of things forbids it."""
        self.journal(call, record, record.charge if state is None else state)
        return Answer(409, error_body(conflict.code, str(conflict)), call.delay_ms, call.fault)

    def unserved(self, call: Call, record: Record, state: Subject | None = None) -> Answer:
        """Nothing was done, because the call's fault forbids it."""
        assert call.fault is not None
        self.journal(call, record, record.charge if state is None else state)
        body = error_body(call.fault.kind, f"{self.provider} is {call.fault.kind}; nothing was done")
        return Answer(call.fault.http_status or 503, body, 0, call.fault)

    def _not_found(self, call: Call, sentence: str) -> Answer:
        return Answer(404, error_body("not_found", sentence), call.delay_ms, call.fault)


def error_body(code: str, sentence: str) -> bytes:
    """The JSON body of every refusal."""
    return msgspec.json.encode({"error": sentence, "code": code})


def _overloaded(provider: str, operation: str) -> Injected:
    return Injected(f"{provider}.{operation}.overloaded", "overloaded", acts=False, http_status=429)
