"""One provider: performs what its dialect and `charges.py` decide, journals it, and waits for its customers.

Everything up to the answer happens in one step of the event loop: the provider acts when the call arrives. The delay, or the
silence of a lost answer, comes after it, so an inquiry never misses a charge whose create call has arrived.
"""

import asyncio
import sys
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from simulators import charges
from simulators.behaviour import Draw, Draws
from simulators.charges import Change, Charge, ReferenceConflict
from simulators.faults import Faults, Kind, Operation
from simulators.journal import Entry, Journal
from simulators.latency import LatencyTable
from simulators.magic import UPI_EXPIRED
from simulators.providers import Conduct, Create, Dialect, Opening, Waiting, provider_id, rrn

C = TypeVar("C", bound=Create)


class World:
    """What all providers share: the clock, the timeline, the draws of this run's seed, and the journal."""

    def __init__(self, *, seed: int, now_ms: Callable[[], int]) -> None:
        self.now_ms = now_ms
        self.draws = Draws(seed)
        self.journal = Journal()
        self.timeline_start_ms: int | None = None

    def elapsed_ms(self, now_ms: int) -> int | None:
        """Time on the timeline, `None` before it has a zero."""
        return None if self.timeline_start_ms is None else now_ms - self.timeline_start_ms


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What the caller gets, and after which delay. With the fault `response_lost` it gets nothing at all."""

    http_status: int
    body: bytes
    delay_ms: int = 0
    fault: Kind | None = None


class Record(msgspec.Struct, gc=False):
    """What a provider remembers about a reference: how often it was called, the charge, and what that waits for."""

    charge: Charge | None = None
    creates: int = 0
    statuses: int = 0
    reverses: int = 0
    waiting: Waiting | None = None


class _Call(msgspec.Struct, frozen=True, gc=False):
    operation: Operation
    reference: str
    attempt: int
    now_ms: int
    draw: Draw
    fault: Kind | None
    delay_ms: int


class Provider(Generic[C]):
    """One provider and everything it has done.

    `announce(provider, charge, url)` is called when a charge that was pending came to its end by its customer or by time.
    """

    def __init__(
        self,
        dialect: Dialect[C],
        *,
        world: World,
        conduct: Conduct,
        latency: LatencyTable,
        faults: Faults,
        announce: Callable[[str, Charge, str], None],
    ) -> None:
        self.dialect = dialect
        self.name = dialect.name
        self._world = world
        self._conduct = conduct
        self._latency = latency
        self._faults = faults
        self._announce = announce
        self._records: dict[str, Record] = {}
        self._references: dict[str, str] = {}  # by providerID, of charges that a person can decide
        self._timers: dict[
            str, asyncio.TimerHandle
        ] = {}  # of pending charges: the customer's decision or the expiry, what comes first
        self._encode = msgspec.json.Encoder().encode

    def create(self, request: C, host: str) -> Answer:
        """A charge for this reference: a new one, or the one there is."""
        record = self._record(request.reference)
        record.creates += 1
        call = self._begin("create", request.reference, record.creates)
        if call.fault == "unavailable":
            return self._unavailable(call, record)
        if record.charge is not None:
            return self._create_again(call, record.charge, request)
        opening = self.dialect.open_charge(request, self._conduct, self._fate(call), call.now_ms, host)
        self._open(record, opening, call)
        if opening.answer_lost:
            call = msgspec.structs.replace(call, fault="response_lost")
        return self._done(call, opening.charge, opening.moved)

    def status(self, reference: str) -> Answer:
        """The charge of this reference, as it is now."""
        record = self._record(reference)
        record.statuses += 1
        call = self._begin("status", reference, record.statuses)
        if call.fault == "unavailable":
            return self._unavailable(call, record)
        if record.charge is not None:
            return self._done(call, record.charge)
        self._journal(call, None)
        body = error_body("not_found", f"no charge with reference {reference!r} has arrived at {self.name}")
        return Answer(404, body, call.delay_ms, call.fault)

    def reverse(self, reference: str, amount: int, currency: str) -> Answer:
        """Undoes, cancels or blocks the charge of this reference."""
        record = self._record(reference)
        record.reverses += 1
        call = self._begin("reverse", reference, record.reverses)
        if call.fault == "unavailable":
            return self._unavailable(call, record)
        try:
            change = self._reversal(record, call, amount, currency)
        except ReferenceConflict as conflict:
            return self._conflict(call, conflict)
        self._keep(record, change)
        return self._done(call, change.charge, change.moved)

    def decide(self, reference: str, code: str) -> None:
        """The customer decided. Changes nothing unless the charge is pending."""
        record, now_ms = self._records[reference], self._world.now_ms()
        assert record.charge is not None
        number = rrn(self._world.draws.draw(self.name, "create", reference, 1))
        self._end("decide", record, charges.decide(record.charge, code=code, rrn=number, now_ms=now_ms))

    def expire(self, reference: str) -> None:
        """Time ran out. Changes nothing unless the charge is pending."""
        record = self._records[reference]
        assert record.charge is not None
        change = charges.expire(record.charge, code=self.dialect.expired, now_ms=self._world.now_ms())
        self._end("expire", record, change)

    def find(self, provider_id: str) -> tuple[Charge, Waiting] | None:
        """The charge with this providerID and what it waits or waited for; `None` where no person could ever decide it."""
        record = self._records.get(self._references.get(provider_id, ""))
        if record is None or record.charge is None or record.waiting is None:
            return None
        return record.charge, record.waiting

    def _record(self, reference: str) -> Record:
        record = self._records.get(reference)
        if record is None:
            record = self._records[reference] = Record()
        return record

    def _begin(self, operation: Operation, reference: str, attempt: int) -> _Call:
        now_ms = self._world.now_ms()
        draw = self._world.draws.draw(self.name, operation, reference, attempt)
        fault = self._faults.pick(operation, draw.fault, self._world.elapsed_ms(now_ms))
        delay_ms = 0 if fault == "unavailable" else self._latency.pick(draw.latency)
        return _Call(operation, reference, attempt, now_ms, draw, fault, delay_ms)

    def _fate(self, call: _Call) -> Draw:
        if call.operation == "create" and call.attempt == 1:
            return call.draw
        return self._world.draws.draw(self.name, "create", call.reference, 1)

    def _open(self, record: Record, opening: Opening, call: _Call) -> None:
        record.charge = opening.charge
        waiting = opening.waiting
        if waiting is None:
            return
        record.waiting = waiting
        if opening.charge.redirectURL is not msgspec.UNSET:
            self._references[opening.charge.providerID] = sys.intern(call.reference)
        self._timers[call.reference] = self._wait(call.reference, waiting, call.delay_ms)

    def _wait(self, reference: str, waiting: Waiting, answer_delay_ms: int) -> asyncio.TimerHandle:
        call_later = asyncio.get_running_loop().call_later
        decides_in_ms = answer_delay_ms + waiting.decides_in_ms
        if waiting.decision is None or decides_in_ms >= waiting.expires_in_ms:
            return call_later(waiting.expires_in_ms / 1000, self.expire, reference)
        if waiting.decision == UPI_EXPIRED:
            return call_later(decides_in_ms / 1000, self.expire, reference)
        return call_later(decides_in_ms / 1000, self.decide, reference, waiting.decision)

    def _create_again(self, call: _Call, charge: Charge, request: C) -> Answer:
        try:
            change = charges.repeat(charge, amount=request.amount, currency=request.currency)
        except ReferenceConflict as conflict:
            return self._conflict(call, conflict)
        return self._done(call, change.charge)

    def _reversal(self, record: Record, call: _Call, amount: int, currency: str) -> Change:
        if record.charge is not None:
            return charges.reverse(record.charge, amount=amount, currency=currency, now_ms=call.now_ms)
        new_id = provider_id(self.name, self._fate(call))
        return charges.tombstone(call.reference, provider_id=new_id, amount=amount, currency=currency, now_ms=call.now_ms)

    def _end(self, operation: str, record: Record, change: Change | None) -> None:
        if change is None:
            return
        self._keep(record, change)
        charge = change.charge
        self._world.journal.append(Entry(charge.updatedAt, self.name, operation, charge.reference, 1, charge, change.moved))
        assert record.waiting is not None
        self._announce(self.name, charge, record.waiting.callback_url)

    def _keep(self, record: Record, change: Change) -> None:
        record.charge = change.charge
        timer = self._timers.pop(change.charge.reference, None)
        if timer is not None:  # nothing that changes a charge leaves it pending
            timer.cancel()

    def _journal(self, call: _Call, charge: Charge | None, moved: int = 0) -> None:
        self._world.journal.append(
            Entry(
                call.now_ms, self.name, call.operation, call.reference, call.attempt, charge, moved, call.delay_ms, call.fault
            )
        )

    def _done(self, call: _Call, charge: Charge, moved: int = 0) -> Answer:
        self._journal(call, charge, moved)
        return Answer(200, self._encode(charge), call.delay_ms, call.fault)

    def _conflict(self, call: _Call, conflict: ReferenceConflict) -> Answer:
        self._journal(call, conflict.charge)
        return Answer(409, error_body("reference_conflict", str(conflict)), call.delay_ms, call.fault)

    def _unavailable(self, call: _Call, record: Record) -> Answer:
        self._journal(call, record.charge)
        return Answer(503, error_body("unavailable", f"{self.name} is unavailable; nothing was done"), 0, call.fault)


def error_body(code: str, sentence: str) -> bytes:
    """The JSON body of every refusal."""
    return msgspec.json.encode({"error": sentence, "code": code})
