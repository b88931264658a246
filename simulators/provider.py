"""One provider: performs what its dialect and `charges.py` decide, journals it, and waits for its customers.

Everything up to the answer happens in one step of the event loop: the provider acts when the call arrives. The delay, or the
silence of a lost answer, comes after it, so an inquiry never misses a charge whose create call has arrived.
"""

import sys
from collections.abc import Iterator
from functools import partial
from typing import Generic, Literal, TypeVar

import msgspec

from simulators import charges
from simulators.charges import Change, Charge, Conflict
from simulators.clock import Timer
from simulators.disputes import Disputes
from simulators.faults import Injected
from simulators.intake import DUPLICATE, UNKNOWN, Answer, Call, Intake
from simulators.intake import error_body as error_body  # wire.py and others know it from here
from simulators.magic import APPROVED, DEEMED_CONFIRMED_MS, UPI_EXPIRED
from simulators.phases import Conducts
from simulators.providers import Create, Dialect, Opening, Terms, Waiting, provider_id, rrn
from simulators.refunds import Announce, Refunds
from simulators.steps import Step, StepOperation, StepRecord, Steps, check_repeat
from simulators.world import Record
from simulators.world import World as World

C = TypeVar("C", bound=Create)


class Provider(Generic[C]):
    """One provider and everything it has done.

    `announce(provider, subject, url)` is called when a charge that was pending came to its end by its customer or by time, when a
    refund did, and when a dispute changed.
    """

    def __init__(self, dialect: Dialect[C], *, world: World, conducts: Conducts, announce: Announce, terms: Terms) -> None:
        self.dialect = dialect
        self.name = dialect.name
        self._world = world
        self._announce = announce
        self._terms = terms
        self.intake = Intake(dialect.name, world=world, conducts=conducts)
        self._records: dict[str, Record] = {}
        self._references: dict[str, str] = {}  # by providerID, of charges that a person can decide
        self._timers: dict[str, Timer] = {}  # of charges that something will happen to: a decision, an expiry
        self._steps = Steps()
        self.refunds = Refunds(self.intake, self._records, terms.refund_delay, announce)
        self.disputes = Disputes(self.intake, terms.dispute_delay_ms, announce)
        world.remember(self, "_records", "_references", "_timers")
        world.remember(self._steps, "_records")

    def change(self, terms: Terms) -> None:
        """From now on these terms hold; what was set on the clock before stays."""
        self._terms = terms
        self.refunds.delay = terms.refund_delay
        self.disputes.delay_ms = terms.dispute_delay_ms

    def create(self, request: C, host: str) -> Answer:
        """A charge for this reference: a new one, or the one there is."""
        reference, amount = request.reference, request.amount
        record = self._record(reference)
        record.creates += 1
        charge = record.charge
        if charge is None:
            record.merchant_id, record.order_id = sys.intern(request.merchantID), request.orderID
        call = self.intake.begin(
            "create", reference, record.creates, key=reference, record=record, amount=amount, request=request
        )
        if call.barred:
            return self.intake.unserved(call, record)
        if charge is not None:
            return self._create_again(call, record, charge, request)
        draw = self.intake.fate(call, reference)
        opening = self.dialect.open_charge(request, call.conduct, draw, call.now_ms, host)
        self._open(record, opening, call)
        if opening.answer_lost:
            lost = Injected(f"{self.name}.create.test_value", "response_lost", acts=True)
            call = msgspec.structs.replace(call, fault=lost)
        return self._moved(call, record, opening.charge, opening.moved)

    def status(self, reference: str) -> Answer:
        """The charge of this reference, as it is now."""
        record = self._record(reference)
        record.statuses += 1
        limit, storm = self._terms.inquiry_limit, None
        if limit is not None and (wait_s := limit.retry_after_s(reference, self._world.now_ms())) is not None:
            storm = Injected(f"{self.name}.status.inquiries", "rate_limited", acts=False, http_status=429, retry_after_s=wait_s)
        charge = record.charge
        amount = charge.amount if charge else None
        call = self.intake.begin("status", reference, record.statuses, key=reference, record=record, amount=amount, fault=storm)
        if call.fault is not None:
            if not call.fault.acts:
                return self.intake.unserved(call, record)
            if call.fault.kind == "stale_status":
                return self.intake.stale(call, record)
        if charge is None:
            return self._unknown(call, record)
        return self.intake.done(call, record, charge)

    def reverse(self, reference: str, amount: int, currency: str) -> Answer:
        """Undoes, cancels, voids or blocks the charge of this reference."""
        record = self._record(reference)
        record.reverses += 1
        call = self.intake.begin("reverse", reference, record.reverses, key=reference, record=record, amount=amount)
        if call.barred:
            return self.intake.unserved(call, record)
        try:
            change = self._reversal(record, call, amount, currency)
        except Conflict as conflict:
            return self.intake.refuse(call, record, conflict)
        self._keep(record, change)
        return self.intake.done(call, record, change.charge, change.moved)

    def increment(self, reference: str, own_reference: str, amount: int, currency: str) -> Answer:
        """Raises what is authorized, if the issuer agrees. `own_reference` is the call's own."""
        return self._step("increment", reference, own_reference, amount, currency)

    def capture(self, reference: str, own_reference: str, amount: int, currency: str, *, final: bool = False) -> Answer:
        """Takes a part or all of what is authorized; `final` releases the rest. `own_reference` is the call's own."""
        return self._step("capture", reference, own_reference, amount, currency, final=final)

    def decide(self, reference: str, code: str, *, announce_in_ms: int = 0) -> None:
        """The customer decided. Changes nothing unless the charge is pending. The callback leaves after `announce_in_ms`."""
        record, now_ms = self._records[reference], self._world.now_ms()
        charge = record.charge
        assert charge is not None
        number = rrn(self._world.draws.draw(self.name, "create", reference, 1))
        change = charges.decide(charge, code=code, rrn=number, now_ms=now_ms)
        self._end("decide", record, change, announce_in_ms)

    def expire(self, reference: str) -> None:
        """Time ran out, for the customer or for an authorization. Changes nothing if neither is waited for."""
        record = self._records[reference]
        charge = record.charge
        assert charge is not None
        change = charges.expire(charge, code=self.dialect.expired, now_ms=self._world.now_ms())
        self._end("expire", record, change)

    def record(self, reference: str) -> Record | None:
        """What is remembered about this reference; for reading only."""
        return self._records.get(reference)

    def charge(self, reference: str) -> Charge | None:
        """The charge of this reference. Looking at it is no call: nothing is counted, delayed or journalled."""
        record = self._records.get(reference)
        return record.charge if record else None

    def charges(self) -> Iterator[Charge]:
        """All charges there are now, each as it is when its turn comes."""
        return (charge for record in list(self._records.values()) if (charge := record.charge) is not None)

    def find(self, provider_id: str) -> tuple[Charge, Waiting] | None:
        """The charge with this providerID and what it waits or waited for; `None` where no person could ever decide it."""
        record = self._records.get(self._references.get(provider_id, ""))
        if record is None or record.waiting is None or (charge := record.charge) is None:
            return None
        return charge, record.waiting

    def _record(self, reference: str) -> Record:
        record = self._records.get(reference)
        if record is None:
            record = self._records[reference] = Record()
        return record

    def _unknown(self, call: Call, record: Record) -> Answer:
        return self.intake.missing(call, f"no charge with reference {call.reference!r} has arrived at {self.name}", record)

    def _open(self, record: Record, opening: Opening, call: Call) -> None:
        charge, waiting = opening.charge, opening.waiting
        record.packed, record.waiting, record.later = charges.pack(charge), waiting, opening.later
        if waiting is not None:
            if charge.redirectURL is not msgspec.UNSET:
                self._references[charge.providerID] = sys.intern(charge.reference)
            self._timers[charge.reference] = self._wait(charge, waiting, call.delay_ms)
        elif charge.status == "authorized":
            expires_ms = charge.createdAt + self._terms.authorization_lifetime_ms
            self._timers[charge.reference] = self._world.clock.call_at(expires_ms, self.expire, charge.reference)

    def _wait(self, charge: Charge, waiting: Waiting, answer_delay_ms: int) -> Timer:
        call_at, reference, created_ms = self._world.clock.call_at, charge.reference, charge.createdAt
        decides_in_ms = answer_delay_ms + waiting.decides_in_ms
        if waiting.decision is None or decides_in_ms >= waiting.expires_in_ms:
            return call_at(created_ms + waiting.expires_in_ms, self.expire, reference)
        if waiting.decision == UPI_EXPIRED:
            return call_at(created_ms + decides_in_ms, self.expire, reference)
        return call_at(created_ms + decides_in_ms, self.decide, reference, waiting.decision)

    def _create_again(self, call: Call, record: Record, charge: Charge, request: C) -> Answer:
        try:
            change = charges.repeat(charge, amount=request.amount, currency=request.currency)
        except Conflict as conflict:
            return self.intake.refuse(call, record, conflict)
        return self.intake.done(call, record, change.charge)

    def _reversal(self, record: Record, call: Call, amount: int, currency: str) -> Change:
        if (charge := record.charge) is not None:
            return charges.reverse(charge, amount=amount, currency=currency, now_ms=call.now_ms)
        assert call.reference is not None
        new_id = provider_id(self.name, self._world.draws.draw(self.name, "create", call.reference, 1))
        return charges.tombstone(call.reference, provider_id=new_id, amount=amount, currency=currency, now_ms=call.now_ms)

    def _step(
        self,
        operation: StepOperation,
        reference: str,
        own_reference: str,
        amount: int,
        currency: str,
        *,
        final: bool = False,
    ) -> Answer:
        made, record = self._steps.called(operation, own_reference), self._records.get(reference, UNKNOWN)
        call = self.intake.begin(
            operation, reference, made.calls, key=own_reference, record=record, subject=own_reference, amount=amount
        )
        if call.barred:
            return self.intake.unserved(call, record, made.step)
        try:
            if made.step is not None:
                check_repeat(made, reference, amount, currency, final=final)
                return self.intake.done(call, record, made.step)
            if (charge := record.charge) is None:
                return self._unknown(call, record)
            return self._take_step(call, record, charge, made, amount, currency, final)
        except Conflict as conflict:
            return self.intake.refuse(call, record, conflict, made.step)

    def _take_step(
        self, call: Call, record: Record, charge: Charge, made: StepRecord, amount: int, currency: str, final: bool
    ) -> Answer:
        assert call.subject is not None
        code = APPROVED
        if call.operation == "capture":
            change = charges.capture(charge, amount=amount, currency=currency, final=final, now_ms=call.now_ms)
        else:
            code = self._increment_code(call, record, call.subject)
            change = charges.increment(charge, amount=amount, currency=currency, code=code, now_ms=call.now_ms)
        status: Literal["approved", "declined"] = "approved" if code == APPROVED else "declined"
        self._keep(record, change)
        made.final = final
        made.step = Step(call.subject, charge.reference, status, code, amount, currency, call.now_ms, change.charge)
        return self._moved(call, record, made.step, change.moved, first=not charge.capturedAmount)

    def _increment_code(self, call: Call, record: Record, own_reference: str) -> str:
        if record.later is not None:
            return APPROVED
        return call.conduct.mix.pick(self.intake.fate(call, own_reference).outcome)

    def _end(self, operation: str, record: Record, change: Change | None, announce_in_ms: int = 0) -> None:
        if change is None:
            return
        charge, waiting = change.charge, record.waiting
        self._keep(record, change)
        self.intake.happened(operation, record, charge, at=charge.updatedAt, moved=change.moved)
        if record.charged_twice and change.moved > 0:
            self.intake.happened(operation, record, charge, at=charge.updatedAt, moved=change.moved, subject=DUPLICATE)
        if charge.status == "pending":  # deemed: the customer paid, and the banks will agree
            when_ms = charge.updatedAt + DEEMED_CONFIRMED_MS
            self._timers[charge.reference] = self._world.clock.call_at(when_ms, self.decide, charge.reference, APPROVED)
        elif waiting is not None:
            announce = partial(self._announce, self.name, charge, waiting.callback_url, record=record)
            if announce_in_ms:
                self._world.clock.call_at(charge.updatedAt + announce_in_ms, announce)
            else:
                announce()

    def _keep(self, record: Record, change: Change) -> None:
        record.become(change.charge)
        if change.charge.status in ("authorized", "partially_captured"):
            return
        timer = self._timers.pop(change.charge.reference, None)
        if timer is not None:
            timer.cancel()

    def _moved(self, call: Call, record: Record, state: Charge | Step, moved: int, *, first: bool = True) -> Answer:
        """Ends a call that may have charged; `first`: nothing was before."""
        answer = self.intake.done(call, record, state, moved)
        twice = call.fault is not None and call.fault.kind == "duplicate_charge"
        if moved:
            if twice:
                self.intake.journal(msgspec.structs.replace(call, subject=DUPLICATE), record, state, moved)
            if first:
                self.disputes.expect(record)
        elif twice and state.status == "pending":
            record.charged_twice = True
        return answer
