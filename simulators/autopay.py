"""UPI AutoPay over HTTP: registers mandates, asks the simulated customer, and debits under them (`mandates.py` has the rules).

An execution is a UPI payment of its own: `GET /upi/payments/{reference}`, its reversal and its refunds work as for any other.
All calls about a mandate itself are of the operation `mandate`, for latency, faults, capacity and the journal.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from simulators.answering import perform
from simulators.charges import Conflict
from simulators.clock import Timer
from simulators.faults import Injected
from simulators.intake import Answer, Call, Intake, keyed
from simulators.journal import Entry
from simulators.magic import APPROVED, UPI_EXPIRED, VPAS
from simulators.mandates import Event, Frequency, Mandate, as_of, happen, period, refusal
from simulators.provider import Provider
from simulators.providers import Amount, ExpiresInMs, Reference, Text, Url
from simulators.providers.upi import CUSTOMER_CODES, EXPIRES_MS_DEFAULT, Execution, Vpa
from simulators.routes import Routes
from simulators.wire import Refused, check_reference, decode
from simulators.world import Record

TIME_MS_MAX = 253_402_300_799_999 - 24 * 3_600_000  # a day before the end of the year 9999, so that it is a date in India, too
TimeMs = Annotated[int, Meta(ge=0, le=TIME_MS_MAX)]
What = Literal["register", "status", "revoke", "execute"]
COUNTING = ("pending", "approved")  # of a debit: while it is one of these, there is no other in its period


class Register(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`POST /upi/mandates`."""

    reference: Reference
    merchantID: Text
    vpa: Vpa
    amountMax: Amount
    currency: Literal["INR"]
    frequency: Frequency
    startAt: TimeMs
    endAt: TimeMs
    callbackURL: Url
    expiresInMs: ExpiresInMs = EXPIRES_MS_DEFAULT

    def __post_init__(self) -> None:
        if not self.merchantID.isprintable():
            raise ValueError("merchantID: contains a control character")
        if self.endAt <= self.startAt:
            raise ValueError("endAt: must come after startAt")


class Execute(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`POST /upi/mandates/{reference}/executions`."""

    reference: Reference
    amount: Amount
    currency: Literal["INR"] = "INR"
    orderID: Text | None = None
    notifiedAt: TimeMs | None = None  # when the payer was told of this debit; None: this debit needs no notice

    def __post_init__(self) -> None:
        if self.orderID is not None and not self.orderID.isprintable():
            raise ValueError("orderID: contains a control character")


class _Standing(msgspec.Struct):  # its timer leads back to it, so the garbage collector has to see it
    """What is remembered about a mandate's reference."""

    record: Record  # whose it is, for faults and the journal
    mandate: Mandate | None = None
    registration: Register | None = None
    calls: dict[What, int] = {}
    debit: tuple[int, str] | None = None  # the newest period that was debited, and the reference of the payment
    timer: Timer | None = None


class Mandates:
    """All mandates of the UPI switch. They grow with the run, like charges.

    `announce(provider, mandate, url, type, record=...)` is called when the customer answered, or never did.
    """

    def __init__(self, upi: Provider[Any], intake: Intake, announce: Callable[..., None]) -> None:
        self._upi = upi
        self._intake = intake
        self._world = intake.world
        self._announce = announce
        self._standings: dict[str, _Standing] = {}
        self._executions: dict[str, str] = {}  # reference of the payment: of the mandate
        self._world.remember(self, "_standings", "_executions")

    def register(self, request: Register) -> Answer:
        """A mandate for this reference: a new one, or the one there is. Raises Refused (400) for a new one that is over."""
        known, now_ms = self._standings.get(request.reference), self._world.now_ms()
        if request.endAt <= now_ms and (known is None or known.registration is None):
            raise Refused(400, "invalid_request", f"endAt: must be in the future; it is {now_ms} (ms)")
        standing, call = self._begin("register", request.reference, request.merchantID)
        if call.barred:
            return self._answer(standing, call)
        if standing.registration is None:
            return self._open(standing, request, call)
        if standing.registration != request:
            conflict = Conflict("reference_conflict", f"reference {request.reference!r} already stands for another mandate")
            return self._intake.refuse(call, standing.record, conflict, self._now(standing))
        return self._answer(standing, call)

    def status(self, reference: str) -> Answer:
        """The mandate of this reference, as it is now."""
        return self._answer(*self._begin("status", reference))

    def revoke(self, reference: str) -> Answer:
        """Ends the mandate of this reference. One that is over stays as it is."""
        standing, call = self._begin("revoke", reference)
        if standing.mandate is not None and not call.barred:
            self._happen(standing, "revoke", standing.mandate.responseCode, call.now_ms)
        return self._answer(standing, call)

    def execute(self, reference: str, request: Execute, host: str) -> Answer:
        """A payment under the mandate, if its rules allow one. A payment that there is already is answered again."""
        standing, refused = self._standings.get(reference), None
        if standing is not None and standing.mandate is not None:
            refused = self._refusal(standing, request)
            if refused is None:
                return self._debit(standing, request, host)
        standing, call = self._begin("execute", reference)
        if refused is None or call.barred:
            return self._answer(standing, call)
        return self._intake.refuse(call, standing.record, refused, self._now(standing))

    def _open(self, standing: _Standing, request: Register, call: Call) -> Answer:
        fate, now_ms = self._intake.fate(call, keyed("register", request.reference)), call.now_ms
        mandate = Mandate(
            request.reference,
            f"upi_mandate_{fate.identity:016x}",
            "pending",
            None,
            request.vpa,
            request.amountMax,
            request.currency,
            request.frequency,
            request.startAt,
            request.endAt,
            now_ms,
            now_ms,
        )
        standing.mandate, standing.registration = mandate, request
        script = VPAS.get(request.vpa.lower())
        if script is not None and script.at_once:
            standing.mandate = happen(mandate, "decline", now_ms=now_ms, code=script.code)
            return self._intake.done(call, standing.record, standing.mandate)
        code = script.code if script else call.conduct.mix.pick(fate.outcome)
        assert call.conduct.customer_delay is not None
        delay_ms = call.conduct.customer_delay.pick(fate.customer_delay)
        if script is not None and script.delay_ms is not None:
            delay_ms = script.delay_ms
        self._ask(standing, code if call.conduct.customer_acts else UPI_EXPIRED, now_ms, call.delay_ms + delay_ms)
        if script is not None and script.answer_lost and call.fault is None:
            lost = Injected("upi.mandate.vpa", "response_lost", acts=True)
            call = msgspec.structs.replace(call, fault=lost)
        return self._intake.done(call, standing.record, standing.mandate)

    def _ask(self, standing: _Standing, code: str, now_ms: int, decides_in_ms: int) -> None:
        """Lets the customer decide, or the request expire."""
        assert standing.registration is not None
        expires_in_ms = min(standing.registration.expiresInMs, standing.registration.endAt - now_ms)
        event: Event = "decline" if code in CUSTOMER_CODES else "approve"
        if code == UPI_EXPIRED or decides_in_ms >= expires_in_ms:
            event, code, decides_in_ms = "expire", UPI_EXPIRED, expires_in_ms
        answered = code if event != "approve" else APPROVED
        standing.timer = self._world.clock.call_at(now_ms + decides_in_ms, self._decide, standing, event, answered)

    def _decide(self, standing: _Standing, event: Event, code: str) -> None:
        now_ms = self._world.now_ms()
        self._happen(standing, event, code, now_ms)
        mandate, registration = standing.mandate, standing.registration
        assert mandate is not None
        assert registration is not None
        merchant = standing.record.merchant_id
        self._world.journal.append(Entry(now_ms, "upi", "mandate", mandate.reference, 1, mandate, merchant=merchant))
        self._announce("upi", mandate, registration.callbackURL, "mandate", record=standing.record)

    def _happen(self, standing: _Standing, event: Event, code: str | None, now_ms: int) -> None:
        changed = happen(self._now(standing), event, now_ms=now_ms, code=code)
        if changed is None:
            return
        standing.mandate = changed
        if standing.timer is not None:  # only a pending mandate waits, and nothing that changes one leaves it pending
            standing.timer.cancel()
            standing.timer = None

    def _refusal(self, standing: _Standing, request: Execute) -> Conflict | None:
        mandate, now_ms = self._now(standing), self._world.now_ms()
        there_is = self._upi.charge(request.reference)
        if there_is is not None:
            blocked = there_is.status == "reversed" and there_is.responseCode is None
            if blocked or self._executions.get(request.reference) == mandate.reference:
                return None  # whatever has become of the mandate since
            return Conflict("reference_conflict", f"reference {request.reference!r} already stands for another payment")
        debited = False
        if standing.debit is not None and standing.debit[0] == period(mandate.frequency, now_ms):
            charge = self._upi.charge(standing.debit[1])
            debited = charge is not None and charge.status in COUNTING
        found = refusal(
            mandate, amount=request.amount, now_ms=now_ms, notified_at_ms=request.notifiedAt, debited_in_period=debited
        )
        return Conflict(found.code, found.sentence) if found else None

    def _debit(self, standing: _Standing, request: Execute, host: str) -> Answer:
        registration = standing.registration
        assert registration is not None
        payment = Execution(
            reference=request.reference,
            amount=request.amount,
            currency=request.currency,
            merchantID=registration.merchantID,
            orderID=request.orderID,
            vpa=registration.vpa,
            callbackURL=registration.callbackURL,
        )
        answer = self._upi.create(payment, host)
        charge = self._upi.charge(request.reference)
        if charge is not None and request.reference not in self._executions:
            self._executions[request.reference] = registration.reference
            debited = period(registration.frequency, charge.createdAt)
            # What moves nothing (declined, or blocked by a reversal) must not hide the debit that there was before it.
            if debited is not None and charge.status in COUNTING:
                standing.debit = (debited, request.reference)
        return answer

    def _now(self, standing: _Standing) -> Mandate:
        assert standing.mandate is not None
        return as_of(standing.mandate, self._world.now_ms())

    def _begin(self, what: What, reference: str, merchant_id: str | None = None) -> tuple[_Standing, Call]:
        standing = self._standings.get(reference)
        if standing is None:
            standing = self._standings[reference] = _Standing(Record())
        if standing.mandate is None and merchant_id is not None:
            standing.record.merchant_id = merchant_id
        attempt = standing.calls[what] = standing.calls.get(what, 0) + 1
        return standing, self._intake.begin("mandate", reference, attempt, key=keyed(what, reference), record=standing.record)

    def _answer(self, standing: _Standing, call: Call) -> Answer:
        mandate = self._now(standing) if standing.mandate else None
        if call.barred:
            return self._intake.unserved(call, standing.record, mandate)
        if mandate is None:
            return self._intake.missing(call, f"no mandate with reference {call.reference!r} has arrived at upi")
        return self._intake.done(call, standing.record, mandate)


def add_routes(routes: Routes, mandates: Mandates, hold_s: float) -> None:
    """Adds the routes of mandates. `hold_s`: see `answering.perform`."""
    register_decoder = msgspec.json.Decoder(Register)
    execute_decoder = msgspec.json.Decoder(Execute)

    async def register(request: web.BaseRequest, _: str) -> web.StreamResponse:
        return await perform(request, mandates.register(await decode(request, register_decoder)), hold_s)

    async def status(request: web.BaseRequest, reference: str) -> web.StreamResponse:
        return await perform(request, mandates.status(check_reference(reference)), hold_s)

    async def revoke(request: web.BaseRequest, reference: str) -> web.StreamResponse:
        return await perform(request, mandates.revoke(check_reference(reference)), hold_s)

    async def execute(request: web.BaseRequest, reference: str) -> web.StreamResponse:
        check_reference(reference)
        body = await decode(request, execute_decoder)
        return await perform(request, mandates.execute(reference, body, request.host), hold_s)

    routes.add("/upi/mandates", POST=register)
    routes.add("/upi/mandates/*", GET=status)
    routes.add("/upi/mandates/*/revoke", POST=revoke)
    routes.add("/upi/mandates/*/executions", POST=execute)
