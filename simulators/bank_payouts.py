"""Payouts over HTTP: takes an order, and lets time and the network do the rest (`payouts.py` has the rules).

All calls about payouts are of the operation `payout`, for latency, faults, capacity and the journal. What becomes of a payout is
drawn for its reference, whichever try gets through.
"""

from collections.abc import Callable
from typing import Literal

import msgspec
from aiohttp import web

from simulators.answering import perform
from simulators.charges import Conflict
from simulators.intake import Answer, Call, Intake, keyed
from simulators.journal import Entry
from simulators.magic import APPROVED
from simulators.payouts import (
    RETURNED,
    RETURNED_AFTER_MS,
    RULES,
    SHORT_OF_FUNDS,
    STAYS_PENDING,
    Beneficiary,
    Event,
    Mode,
    Payout,
    happen,
    moved,
    refusal,
    sent_at,
    told,
    utr,
)
from simulators.phases import latency_table
from simulators.providers import Amount, Reference, Text, Url, provider_id
from simulators.routes import Routes
from simulators.wire import check_reference, decode
from simulators.world import Record

What = Literal["create", "status"]


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`POST /bank/payouts`."""

    reference: Reference
    amount: Amount
    currency: Literal["INR"]
    merchantID: Text
    beneficiary: Beneficiary
    mode: Mode
    purpose: Text
    callbackURL: Url

    def __post_init__(self) -> None:
        for name in ("merchantID", "purpose"):
            if not getattr(self, name).isprintable():
                raise ValueError(f"{name}: contains a control character")
        refused = refusal(self.mode, self.beneficiary, self.amount)
        if refused is not None:
            raise ValueError(refused)


class _Standing(msgspec.Struct, gc=False):
    """What is remembered about a payout's reference."""

    record: Record  # whose it is, for faults and the journal
    payout: Payout | None = None
    order: Order | None = None
    calls: dict[What, int] = {}


class Payouts:
    """All payouts of the bank. They grow with the run, like charges.

    `announce(provider, payout, url, type, record=...)` is called when a payout completed, failed later than in the answer, or
    was returned.
    """

    def __init__(self, intake: Intake, announce: Callable[..., None]) -> None:
        self._intake = intake
        self._world = intake.world
        self._announce = announce
        self._standings: dict[str, _Standing] = {}
        self._world.remember(self, "_standings")

    def create(self, order: Order) -> Answer:
        """A payout for this reference: a new one, or the one there is."""
        standing, call = self._begin("create", order.reference, order)
        if not call.barred and standing.order is None:
            self._open(standing, order, call)
        elif not call.barred and standing.order != order:
            conflict = Conflict("reference_conflict", f"reference {order.reference!r} already stands for another payout")
            return self._intake.refuse(call, standing.record, conflict, standing.payout)
        return self._answer(standing, call)

    def status(self, reference: str) -> Answer:
        """The payout of this reference, as it is now."""
        return self._answer(*self._begin("status", reference))

    def _begin(self, what: What, reference: str, order: Order | None = None) -> tuple[_Standing, Call]:
        standing = self._standings.get(reference)
        if standing is None:
            standing = self._standings[reference] = _Standing(Record())
        if standing.order is None and order is not None:
            standing.record.merchant_id = order.merchantID
        attempt = standing.calls[what] = standing.calls.get(what, 0) + 1
        known = order or standing.payout
        amount, key = known.amount if known else None, keyed(what, reference)
        return standing, self._intake.begin("payout", reference, attempt, key=key, record=standing.record, amount=amount)

    def _answer(self, standing: _Standing, call: Call) -> Answer:
        if call.barred:
            return self._intake.unserved(call, standing.record, standing.payout)
        if standing.payout is None:
            sentence = f"no payout with reference {call.reference!r} has arrived at the bank"
            return self._intake.missing(call, sentence, standing.record)
        return self._intake.done(call, standing.record, standing.payout)

    def _open(self, standing: _Standing, order: Order, call: Call) -> None:
        fate, now_ms = self._intake.fate(call, keyed("create", order.reference)), call.now_ms
        standing.order = order
        payout = Payout(
            order.reference,
            provider_id("bank_payout", fate),
            "pending",
            None,
            order.amount,
            order.currency,
            order.mode,
            now_ms,
            now_ms,
        )
        standing.payout = payout
        assert call.conduct.payouts is not None
        code = told(order.beneficiary) or call.conduct.payouts.pick(fate.outcome)
        if code == SHORT_OF_FUNDS:  # the bank knows that by itself, and says it at once
            standing.payout = happen(payout, "reject", now_ms=now_ms, code=code)
        elif code != STAYS_PENDING:
            send_ms = sent_at(order.mode, now_ms + call.delay_ms)
            takes_ms = latency_table(RULES[order.mode].takes).pick(fate.customer_delay)
            self._world.clock.call_at(send_ms, self._send, standing, code, fate.numbers, takes_ms)

    def _send(self, standing: _Standing, code: str, number: int, takes_ms: int) -> None:
        """The network gets it."""
        assert standing.payout is not None
        now_ms = self._world.now_ms()
        self._happen(standing, "send", None, utr(standing.payout.mode, number, now_ms))
        event = "complete" if code in (APPROVED, RETURNED) else "fail"
        self._world.clock.call_at(now_ms + takes_ms, self._end, standing, event, code)

    def _end(self, standing: _Standing, event: Event, code: str) -> None:
        """The beneficiary's bank has the money, does not want it, or gives it back."""
        self._happen(standing, event, APPROVED if event == "complete" else code)
        payout, order = standing.payout, standing.order
        assert payout is not None
        assert order is not None
        if event == "complete" and code == RETURNED:
            self._world.clock.call_at(payout.updatedAt + RETURNED_AFTER_MS, self._end, standing, "return", code)
        self._announce("bank", payout, order.callbackURL, "payout", record=standing.record)

    def _happen(self, standing: _Standing, event: Event, code: str | None, number: str | None = None) -> None:
        assert standing.payout is not None
        now_ms = self._world.now_ms()
        changed = happen(standing.payout, event, now_ms=now_ms, code=code, utr=number or msgspec.UNSET)
        assert changed is not None  # one thing after the other happens to a payout, each once
        standing.payout = changed
        self._world.journal.append(
            Entry(
                now_ms,
                "bank",
                "payout",
                changed.reference,
                1,
                changed,
                moved(changed),
                merchant=standing.record.merchant_id,
                subject=changed.utr or None,
            )
        )


def add_routes(routes: Routes, payouts: Payouts, hold_s: float) -> None:
    """Adds the routes of payouts. `hold_s`: see `answering.perform`."""
    decoder = msgspec.json.Decoder(Order)

    async def create(request: web.BaseRequest, _: str) -> web.StreamResponse:
        return await perform(request, payouts.create(await decode(request, decoder)), hold_s)

    async def status(request: web.BaseRequest, reference: str) -> web.StreamResponse:
        return await perform(request, payouts.status(check_reference(reference)), hold_s)

    routes.add("/bank/payouts", POST=create)
    routes.add("/bank/payouts/*", GET=status)
