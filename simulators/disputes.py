"""Disputes: a cardholder goes to the issuer, and the merchant accepts it or answers with evidence.

    needs_response --evidence--> under_review --issuer--> won | lost
        '---accept, or no answer by respondBy---> lost

    warning_needs_response --evidence--> warning_under_review --issuer--> warning_closed
        '---accept, or no answer by respondBy---> warning_closed

A chargeback takes the money when it is opened, and gives it back when it is won. An inquiry (`warning_...`) moves no money, and
here never becomes a chargeback; in the world it may.
"""

from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec.structs import replace

from simulators import charges
from simulators.behaviour import fraction
from simulators.charges import Conflict
from simulators.intake import UNKNOWN, Answer, Call, Intake
from simulators.providers import provider_id
from simulators.world import Record

RESPOND_WITHIN_MS = 7 * 24 * 3_600_000
WON_SHARE = 0.5  # of disputes whose evidence says neither "winning" nor "losing"
LIST_MAX = 1_000  # the newest; a page of them is about 300 kB

Reason = Literal["fraudulent", "product_not_received", "inquiry"]
Status = Literal[
    "needs_response", "under_review", "won", "lost", "warning_needs_response", "warning_under_review", "warning_closed"
]
Event = Literal["accept", "evidence", "no_answer", "issuer_agrees", "issuer_disagrees"]

# What is not in here cannot happen.
TRANSITIONS: dict[tuple[Status, Event], Status] = {
    ("needs_response", "accept"): "lost",
    ("needs_response", "evidence"): "under_review",
    ("needs_response", "no_answer"): "lost",
    ("under_review", "issuer_agrees"): "won",
    ("under_review", "issuer_disagrees"): "lost",
    ("warning_needs_response", "accept"): "warning_closed",
    ("warning_needs_response", "evidence"): "warning_under_review",
    ("warning_needs_response", "no_answer"): "warning_closed",
    ("warning_under_review", "issuer_agrees"): "warning_closed",
    ("warning_under_review", "issuer_disagrees"): "warning_closed",
}


class Dispute(msgspec.Struct, frozen=True, gc=False):
    """A dispute as it goes over the wire; amounts in minor units, times in ms since 1970."""

    disputeID: str
    chargeReference: str
    reason: Reason
    status: Status
    amount: int
    currency: str
    respondBy: int
    createdAt: int
    updatedAt: int


def happen(dispute: Dispute, event: Event, *, now_ms: int) -> tuple[Dispute, int] | None:
    """The dispute after the event and the money moved (+ back to the merchant); `None` if it cannot happen."""
    status = TRANSITIONS.get((dispute.status, event))
    if status is None:
        return None
    return replace(dispute, status=status, updatedAt=now_ms), dispute.amount if status == "won" else 0


def judged(evidence: str, draw: int) -> Event:
    """What the issuer thinks of the evidence: the words "winning" and "losing" decide, otherwise the draw does."""
    words = evidence.lower()
    if "winning" in words or "losing" in words:
        return "issuer_agrees" if "winning" in words else "issuer_disagrees"
    return "issuer_agrees" if fraction(draw) < WON_SHARE else "issuer_disagrees"


class _Case(msgspec.Struct, gc=False):
    dispute: Dispute
    record: Record  # of its charge
    url: str | None
    draw: int  # what the issuer is inclined to
    calls: int = 0


class Disputes:
    """The disputes of one provider. `delay_ms` is from the charge to the dispute, and from the evidence to the decision."""

    def __init__(self, intake: Intake, delay_ms: int, announce: Callable[..., None]) -> None:
        self._intake = intake
        self._world = intake.world
        self.delay_ms = delay_ms
        self._announce = announce
        self._cases: dict[str, _Case] = {}
        self._calls_without_dispute = 0
        self._world.remember(self, "_cases", "_calls_without_dispute")

    def expect(self, record: Record) -> None:
        """The money of a charge has moved for the first time: if its card says so, it will be disputed."""
        if record.later is not None and record.later.story.dispute is not None:
            when_ms = self._world.now_ms() + self.delay_ms
            self._world.clock.call_at(when_ms, self._open, record, record.later.story.dispute, record.later.dispute_url)

    def list(self, status: Status | None = None) -> Answer:
        """The newest LIST_MAX disputes, newest first, of one status or all."""
        self._calls_without_dispute += 1
        call = self._begin(None, "list", self._calls_without_dispute)
        if call.barred:
            return self._intake.unserved(call, UNKNOWN)
        found: list[Dispute] = []
        for case in reversed(self._cases.values()):
            if len(found) == LIST_MAX:
                break
            if status in (None, case.dispute.status):
                found.append(case.dispute)
        return self._intake.listed(call, {"disputes": found})

    def show(self, dispute_id: str) -> Answer:
        """One dispute, as it is now."""
        return self._call(dispute_id, None)

    def accept(self, dispute_id: str) -> Answer:
        """The merchant gives in."""
        return self._call(dispute_id, "accept")

    def submit(self, dispute_id: str, evidence: str) -> Answer:
        """The merchant answers; the issuer decides later."""
        return self._call(dispute_id, "evidence", evidence)

    def _call(self, dispute_id: str, event: Event | None, evidence: str = "") -> Answer:
        case = self._cases.get(dispute_id)
        if case is None:
            self._calls_without_dispute += 1
            call = self._begin(None, dispute_id, self._calls_without_dispute, subject=dispute_id)
            if call.barred:
                return self._intake.unserved(call, UNKNOWN)
            return self._intake.missing(call, f"no dispute has the id {dispute_id!r}")
        case.calls += 1
        call = self._begin(case.record, dispute_id, case.calls, subject=dispute_id)
        if call.barred:
            return self._intake.unserved(call, case.record, case.dispute)
        if event is None:
            return self._intake.done(call, case.record, case.dispute)
        change = happen(case.dispute, event, now_ms=call.now_ms)
        if change is None:
            sentence = f"dispute {dispute_id!r} is {case.dispute.status}; only one that needs a response takes one"
            return self._intake.refuse(call, case.record, Conflict("dispute_not_open", sentence), case.dispute)
        case.dispute, moved = change
        if event == "evidence":
            decision = judged(evidence, case.draw)
            self._world.clock.call_at(call.now_ms + self.delay_ms, self._happen, case, decision)
        answer = self._intake.done(call, case.record, case.dispute, moved)
        self._tell(case)
        return answer

    def _begin(self, record: Record | None, key: str, attempt: int, *, subject: str | None = None) -> Call:
        known = record or UNKNOWN
        reference = known.charge.reference if known.charge else None
        return self._intake.begin("dispute", reference, attempt, key=key, record=known, subject=subject)

    def _open(self, record: Record, reason: Reason, url: str | None) -> None:
        charge, now_ms = record.charge, self._world.now_ms()
        assert charge is not None
        amount = charges.refundable(charge)
        if amount <= 0:  # reversed or refunded meanwhile: there is nothing to dispute
            return
        draw = self._world.draws.draw(self._intake.provider, "dispute", charge.reference, 1)
        warning = reason == "inquiry"
        dispute = Dispute(
            provider_id("dp", draw),
            charge.reference,
            reason,
            "warning_needs_response" if warning else "needs_response",
            amount,
            charge.currency,
            now_ms + RESPOND_WITHIN_MS,
            now_ms,
            now_ms,
        )
        case = self._cases[dispute.disputeID] = _Case(dispute, record, url, draw.outcome)
        if not warning:
            record.become(charges.dispute(charge, amount=amount, now_ms=now_ms).charge)
        self._world.clock.call_at(dispute.respondBy, self._happen, case, "no_answer")
        self._write(case, 0 if warning else -amount)

    def _happen(self, case: _Case, event: Event) -> None:
        change = happen(case.dispute, event, now_ms=self._world.now_ms())
        if change is None:  # respondBy of a dispute that was answered
            return
        case.dispute, moved = change
        record = case.record
        if case.dispute.status == "won":
            assert record.charge is not None
            record.become(charges.dispute(record.charge, amount=0, now_ms=case.dispute.updatedAt).charge)
        self._write(case, moved)

    def _write(self, case: _Case, moved: int) -> None:
        dispute = case.dispute
        self._intake.happened("dispute", case.record, dispute, at=dispute.updatedAt, moved=moved, subject=dispute.disputeID)
        self._tell(case)

    def _tell(self, case: _Case) -> None:
        if case.url is not None:
            self._announce(self._intake.provider, case.dispute, case.url, "dispute", record=case.record)
