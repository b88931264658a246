"""Refunds, of all providers.

    (asked for) --> pending --time--> completed | failed
        '---------> completed --time--> failed

A refund takes its amount out of what can be refunded as soon as it is accepted, and gives it back if it fails; so refunds together
never exceed what was captured, however many arrive at once. Money moves when it completes, and back if it fails after that, as a
card network does when the issuer cannot credit the cardholder.
"""

from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec.structs import replace

from simulators import charges
from simulators.charges import Conflict
from simulators.intake import UNKNOWN, Answer, Call, Intake
from simulators.latency import LatencyTable
from simulators.magic import APPROVED, REFUND_FAILURE, REFUND_LATE_MS
from simulators.providers import provider_id
from simulators.world import Record

Announce = Callable[..., None]  # (provider, subject, url[, type], record=...): see `callbacks.Callbacks.send`


class Refund(msgspec.Struct, frozen=True, gc=False):
    """A refund as it goes over the wire; amounts in minor units, times in ms since 1970."""

    reference: str
    chargeReference: str
    providerID: str
    status: Literal["pending", "completed", "failed"]
    responseCode: str | None
    amount: int
    currency: str
    createdAt: int
    updatedAt: int


def completed(refund: Refund, *, now_ms: int) -> tuple[Refund, int] | None:
    """The refund and the money moved once the cardholder has it; `None` if it is not pending."""
    if refund.status != "pending":
        return None
    return replace(refund, status="completed", responseCode=APPROVED, updatedAt=now_ms), -refund.amount


def failed(refund: Refund, *, now_ms: int) -> tuple[Refund, int] | None:
    """The refund and the money moved once it failed; `None` if it did before."""
    if refund.status == "failed":
        return None
    moved = refund.amount if refund.status == "completed" else 0
    return replace(refund, status="failed", responseCode=REFUND_FAILURE, updatedAt=now_ms), moved


class _Asked(msgspec.Struct, gc=False):
    """What is remembered about the reference of a refund."""

    creates: int = 0
    statuses: int = 0
    refund: Refund | None = None
    record: Record = msgspec.field(default_factory=lambda: UNKNOWN)  # of its charge
    callback_url: str | None = None


class Refunds:
    """The refunds of one provider. `delay` is how long they stay pending, `None`: they complete at once."""

    def __init__(self, intake: Intake, records: dict[str, Record], delay: LatencyTable | None, announce: Announce) -> None:
        self._intake = intake
        self._world = intake.world
        self._records = records
        self.delay = delay
        self._announce = announce
        self._asked: dict[str, _Asked] = {}
        self._world.remember(self, "_asked")

    def create(self, reference: str, own_reference: str, amount: int, currency: str, callback_url: str | None = None) -> Answer:
        """Refunds `amount` of a charge under a reference of its own; the same reference again is the same refund."""
        asked = self._of(own_reference)
        asked.creates += 1
        record = self._records.get(reference, UNKNOWN)
        call = self._intake.begin(
            "refund", reference, asked.creates, key=own_reference, record=record, subject=own_reference, amount=amount
        )
        if call.barred:
            return self._intake.unserved(call, record, asked.refund)
        try:
            if asked.refund is not None:
                return self._again(call, record, asked.refund, amount, currency)
            if record.charge is None:
                return self._intake.missing(call, f"no charge with reference {reference!r} has arrived here", record)
            change = charges.reserve_refund(record.charge, amount=amount, currency=currency, now_ms=call.now_ms)
        except Conflict as conflict:
            return self._intake.refuse(call, record, conflict, asked.refund)
        record.become(change.charge)
        asked.record, asked.callback_url = record, callback_url
        asked.refund, moved = self._opened(call, own_reference, amount, currency, asked)
        return self._intake.done(call, record, asked.refund, moved)

    def status(self, own_reference: str) -> Answer:
        """The refund with this reference, as it is now."""
        asked = self._of(own_reference)
        asked.statuses += 1
        refund, record = asked.refund, asked.record
        reference, amount = (refund.chargeReference, refund.amount) if refund else (None, None)
        call = self._intake.begin(
            "refund_status", reference, asked.statuses, key=own_reference, record=record, subject=own_reference, amount=amount
        )
        if call.barred:
            return self._intake.unserved(call, record, refund)
        if refund is None:
            sentence = f"no refund with reference {own_reference!r} has arrived at {self._intake.provider}"
            return self._intake.missing(call, sentence, record)
        return self._intake.done(call, record, refund)

    def _of(self, own_reference: str) -> _Asked:
        asked = self._asked.get(own_reference)
        if asked is None:
            asked = self._asked[own_reference] = _Asked()
        return asked

    def _again(self, call: Call, record: Record, refund: Refund, amount: int, currency: str) -> Answer:
        if (refund.chargeReference, refund.amount, refund.currency) != (call.reference, amount, currency):
            what = f"a refund of {refund.amount} {refund.currency} (minor units) of charge {refund.chargeReference!r}"
            raise Conflict("reference_conflict", f"reference {refund.reference!r} already stands for {what}")
        return self._intake.done(call, record, refund)

    def _opened(self, call: Call, own_reference: str, amount: int, currency: str, asked: _Asked) -> tuple[Refund, int]:
        """The new refund and the money that it moved at once. What comes later is set on the clock."""
        assert call.reference is not None
        draw, now_ms = self._intake.fate(call, own_reference), call.now_ms
        new_id = provider_id(f"{self._intake.provider}_refund", draw)
        refund = Refund(own_reference, call.reference, new_id, "pending", None, amount, currency, now_ms, now_ms)
        moved = 0
        story = asked.record.later.story.refund if asked.record.later else None
        late = self.delay is not None or story == "completes_late"
        if not late:
            change = completed(refund, now_ms=now_ms)
            assert change is not None
            refund, moved = change
        if late or story == "fails_late":
            wait_ms = REFUND_LATE_MS if self.delay is None else self.delay.pick(draw.customer_delay)
            end = failed if story == "fails_late" else completed
            self._world.clock.call_at(now_ms + call.delay_ms + wait_ms, self._end, asked, end)
        return refund, moved

    def _end(self, asked: _Asked, end: Callable[..., tuple[Refund, int] | None]) -> None:
        """Time does what was set when the refund was opened."""
        now_ms, record = self._world.now_ms(), asked.record
        assert asked.refund is not None
        assert record.charge is not None
        change = end(asked.refund, now_ms=now_ms)
        assert change is not None  # one thing happens to a refund, once
        asked.refund, moved = change
        if asked.refund.status == "failed":
            record.become(charges.release_refund(record.charge, amount=asked.refund.amount, now_ms=now_ms).charge)
        self._intake.happened("refund", record, asked.refund, at=now_ms, moved=moved, subject=asked.refund.reference)
        if asked.callback_url is not None:
            self._announce(self._intake.provider, asked.refund, asked.callback_url, "refund", record=record)
