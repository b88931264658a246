"""The evidence of a run, cross-indexed: who speaks of which payment, and what became of it at the providers. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TypeVar

from msgspec import Struct

from loadtests.evidence import Ack, Evidence
from loadtests.records import Attempt, Authentication, Capture, Dispute, GatewayRecords, Payment, Refund, Settlement
from loadtests.truth import Charge, ChargeID, Movement, SubjectID, fold

Key = tuple[str, str]  # merchantID, idempotency key
Account = tuple[str, str]  # account, currency

JOURNAL_NAME = {"card": "card", "upi": "upi", "netbanking": "bank"}  # gateway's provider -> the journal's
UNRESOLVED = frozenset({"intent", "sent", "unknown", "reversing"})  # the gateway owes these attempts an answer
OPEN = UNRESOLVED | {"pending"}  # ... and to these the customer does
UNRESOLVED_OPERATIONS = frozenset({"pending", "unknown"})  # captures and refunds: the gateway owes an answer
OPEN_OPERATIONS = UNRESOLVED_OPERATIONS | {"processing"}  # ... or the provider does

# A decision reaches the gateway by a callback, which has 5 s to be answered (docs/providers.md).
TRANSIT_MS = 5_000

FEES = "fees"  # the gateway's own account, beside `receivable:{provider}` and `payable:{merchant}`

# Payment states, DOMAIN's table; final states lead nowhere.
NEXT_STATES: dict[str, frozenset[str]] = {
    "pending": frozenset({"requires_action", "processing", "failed", "expired"}),
    "requires_action": frozenset({"processing", "failed", "expired", "voided"}),
    "processing": frozenset({"authorized", "completed", "failed", "requires_action"}),
    "authorized": frozenset({"partially_captured", "completed", "voided", "expired"}),
    "partially_captured": frozenset({"partially_captured", "completed"}),  # the first: one more part
}
# Captures and refunds. A refund that was completed can still fail.
NEXT_OPERATION_STATES: dict[str, frozenset[str]] = {
    "pending": frozenset({"processing", "completed", "failed", "unknown"}),
    "processing": frozenset({"completed", "failed", "unknown"}),
    "unknown": frozenset({"processing", "completed", "failed"}),
    "completed": frozenset({"failed"}),
}
NEXT_DISPUTE_STATES: dict[str, frozenset[str]] = {
    "warning_needs_response": frozenset({"warning_under_review", "warning_closed", "needs_response"}),
    "warning_under_review": frozenset({"warning_closed", "needs_response"}),
    "needs_response": frozenset({"under_review", "won", "lost"}),
    "under_review": frozenset({"won", "lost"}),
}
TAKEN = frozenset({"needs_response", "under_review", "lost"})  # disputes in which the money is gone, so far

Operation = Capture | Refund


class Totals(Struct):
    """What moved at the providers for a payment, minor units; `captured` is less what was reversed."""

    captured: int = 0
    refunded: int = 0
    disputed: int = 0


def charge_id(attempt: Attempt) -> ChargeID:
    return JOURNAL_NAME.get(attempt.provider, attempt.provider), attempt.reference


def subject_id(record: Capture | Refund | Dispute) -> SubjectID:
    """Its name at the provider."""
    match record:
        case Capture():
            name = record.captureID
        case Refund():
            name = record.refundID
        case Dispute():
            name = record.providerID
    return JOURNAL_NAME.get(record.provider, record.provider), name


def receivable(provider: str) -> str:
    return f"receivable:{provider}"


def payable(merchant_id: str) -> str:
    return f"payable:{merchant_id}"


def reachable(status: str, following: dict[str, frozenset[str]] = NEXT_STATES) -> frozenset[str]:
    """The states that something in `status` may be in later, itself included."""
    found = {status}
    while new := {after for state in found for after in following.get(state, frozenset())} - found:
        found |= new
    return frozenset(found)


class Case:
    """Indexes over one run's evidence; empty where a witness is missing."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.gateway = evidence.gateway or GatewayRecords()
        self.journal = evidence.journal or ()
        self.payments: dict[str, Payment] = {payment.paymentID: payment for payment in self.gateway.payments}
        self.settlements: dict[str, Settlement] = {made.settlementID: made for made in self.gateway.settlements}
        self.attempts: dict[ChargeID, Attempt] = {charge_id(attempt): attempt for attempt in self.gateway.attempts}
        self.truth = fold(self.journal)
        self.charges = self.truth.charges
        self.attempts_of: dict[str, list[Attempt]] = defaultdict(list)
        for attempt in self.gateway.attempts:
            self.attempts_of[attempt.paymentID].append(attempt)
        self.acks_of: dict[Key, list[Ack]] = defaultdict(list)
        for ack in evidence.acks:
            self.acks_of[ack.merchantID, ack.key].append(ack)
        self.captures_of: dict[str, list[Capture]] = _by_payment(self.gateway.captures)
        self.refunds_of: dict[str, list[Refund]] = _by_payment(self.gateway.refunds)
        self.disputes_of: dict[str, list[Dispute]] = _by_payment(self.gateway.disputes)
        self.authentications: dict[str, Authentication] = {row.paymentID: row for row in self.gateway.authentications}
        self.booked = self._booked()
        self.moved = self._moved()

    def charge_of(self, attempt: Attempt) -> Charge | None:
        return self.charges.get(charge_id(attempt))

    def charges_of(self, payment_id: str) -> list[Charge]:
        found = (self.charge_of(attempt) for attempt in self.attempts_of.get(payment_id, ()))
        return [charge for charge in found if charge is not None]

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Captures, then refunds."""
        return self.gateway.captures + self.gateway.refunds

    def movement_of(self, record: Capture | Refund | Dispute) -> Movement | None:
        """What the provider says of it."""
        match record:
            case Capture():
                return self.truth.captures.get(subject_id(record))
            case Refund():
                return self.truth.refunds.get(subject_id(record))
            case Dispute():
                return self.truth.disputes.get(subject_id(record))

    def in_transit(self, record: Attempt | Capture | Refund | Dispute) -> bool:
        """Whether the provider decided so late that the gateway, which was being stopped, need not know."""
        if isinstance(record, Attempt):
            charge = self.charge_of(record)
            return charge is not None and record.state in OPEN and self.late(charge)
        movement = self.movement_of(record)
        return movement is not None and record.status != movement.status and self.late(movement)

    def late(self, what: Charge | Movement) -> bool:
        """Whether it changed as the gateway was being stopped."""
        closed_at = self.evidence.closed_at_ms
        return closed_at is not None and what.changed_at >= closed_at - TRANSIT_MS

    def unsettled(self, payment_id: str) -> bool:
        """Whether something of the payment is in transit, so that its sums need not agree."""
        parts = (*self.attempts_of.get(payment_id, ()), *self.refunds_of.get(payment_id, ()))
        if any(self.in_transit(part) for part in (*parts, *self.disputes_of.get(payment_id, ()))):
            return True
        known = {row.providerID for row in self.disputes_of.get(payment_id, ())}
        told = self.disputes_at_providers.get(payment_id, ())
        return any(self.late(dispute) for dispute in told if dispute.subject not in known)

    def captured_at_provider(self, attempt: Attempt) -> bool:
        charge = self.charge_of(attempt)
        return charge is not None and charge.captures > 0

    def awaits_decision(self, attempt: Attempt) -> bool:
        """Whether gateway and provider both wait for the customer."""
        charge = self.charge_of(attempt)
        return attempt.state == "pending" and charge is not None and charge.status == "pending"

    def awaits_customer(self, payment: Payment) -> bool:
        """Whether nothing is decided about the payment, here and at the provider, but by a customer who can still do so."""
        if self.challenged(payment.paymentID):
            return payment.status in NEXT_STATES
        if payment.status not in NEXT_STATES or any(charge.decision for charge in self.charges_of(payment.paymentID)):
            return False
        return any(self.awaits_decision(attempt) for attempt in self.attempts_of.get(payment.paymentID, ()))

    def challenged(self, payment_id: str) -> bool:
        """Whether gateway and issuer both wait for the customer to pass a 3-D Secure challenge."""
        row = self.authentications.get(payment_id)
        return row is not None and row.status == "challenge" and self.truth.authentications.get(row.authenticationID) == "C"

    def fee(self, payment: Payment) -> int:
        """What is to be kept of what was captured: basis points of the whole, rounded half to even."""
        whole, rest = divmod(payment.capturedAmount * self.evidence.fees.get(payment.method, 0), 10_000)
        return whole + (rest > 5_000 or (rest == 5_000 and whole % 2 == 1))

    def ever_open(self) -> set[ChargeID]:
        """The attempts whose outcome the gateway had to find out later: pending at the provider, or unknown after a call."""
        waited = {(entry.provider, entry.reference or "") for entry in self.journal if entry.status == "pending"}
        return {
            key
            for key, attempt in self.attempts.items()
            if key in waited or attempt.unknownAt is not None or attempt.state in OPEN or attempt.state == "manual_review"
        }

    def receivable(self, payment: Payment) -> int:
        """What the books say that providers owe us for the payment: captured minus refunded and charged back."""
        books = self.booked[payment.paymentID].items()
        return sum(
            net for (account, currency), net in books if account.startswith(receivable("")) and currency == payment.currency
        )

    def credited(self, payment: Payment) -> tuple[int, int]:
        """What the books say that the payment's merchant got, and what we kept of it."""
        books = self.booked[payment.paymentID]
        merchant, fees = ((account, payment.currency) for account in (payable(payment.merchantID), FEES))
        return -books[merchant], -books[fees]

    def requests(self) -> Iterator[tuple[str, set[str]]]:
        """Each request, named by its key (or its payment, where no key was sent), with the payments that were made for it."""
        made: dict[Key, set[str]] = defaultdict(set)
        for row in self.gateway.idempotency:
            if row.paymentID is not None:  # of captures, refunds and disputes, `made_by` tells
                made[row.merchantID, row.key].add(row.paymentID)
        for ack in self.evidence.acks:
            if ack.paymentID is not None and ack.step == "process":
                made[ack.merchantID, ack.key].add(ack.paymentID)
        for (merchant_id, key), payment_ids in made.items():
            yield f"key {key} of {merchant_id}", payment_ids
        for payment_id in self.payments.keys() - set().union(*made.values()):
            yield f"payment {payment_id}", {payment_id}

    def made_by(self) -> Iterator[tuple[str, set[str]]]:
        """Each request for a capture or refund, named by its key, with the captures or refunds that were made for it."""
        made: dict[Key, set[str]] = defaultdict(set)
        known = {row.captureID for row in self.gateway.captures} | {row.refundID for row in self.gateway.refunds}
        for row in self.gateway.idempotency:
            if row.subjectID in known and row.subjectID is not None:
                made[row.merchantID, row.key].add(row.subjectID)
        for ack in self.evidence.acks:
            if ack.subjectID is not None and ack.step in {"capture", "refund"}:
                made[ack.merchantID, ack.key].add(ack.subjectID)
        for (merchant_id, key), subject_ids in made.items():
            yield f"key {key} of {merchant_id}", subject_ids

    def _moved(self) -> defaultdict[str, Totals]:
        """By payment. Also indexes what providers call disputes of which payment."""
        totals: defaultdict[str, Totals] = defaultdict(Totals)
        self.disputes_at_providers: defaultdict[str, list[Movement]] = defaultdict(list)
        for key, charge in self.charges.items():
            if (attempt := self.attempts.get(key)) is not None:
                totals[attempt.paymentID].captured += charge.moved
        for refund in self.truth.refunds.values():
            if (attempt := self.attempts.get(refund.charge_id)) is not None:
                totals[attempt.paymentID].refunded -= refund.moved
        for dispute in self.truth.disputes.values():
            if (attempt := self.attempts.get(dispute.charge_id)) is not None:
                totals[attempt.paymentID].disputed -= dispute.moved
                self.disputes_at_providers[attempt.paymentID].append(dispute)
        return totals

    def _booked(self) -> defaultdict[str | None, Counter[Account]]:
        """Debits minus credits of each account, by payment; None: entries that name neither payment nor settlement."""
        books: defaultdict[str | None, Counter[Account]] = defaultdict(Counter)
        for entry in self.gateway.entries:
            for posting in entry.postings if entry.settlementID is None else ():
                books[entry.paymentID][posting.account, posting.currency] += posting.debit - posting.credit
        return books


Owned = TypeVar("Owned", Capture, Refund, Dispute)


def _by_payment(rows: tuple[Owned, ...]) -> dict[str, list[Owned]]:
    found: dict[str, list[Owned]] = defaultdict(list)
    for row in rows:
        found[row.paymentID].append(row)
    return found


class Finding:
    """Collects what one check looked at."""

    def __init__(self) -> None:
        self.checked = 0
        self.violations: list[str] = []
        self.counted: Counter[str] = Counter()  # seen, worth telling, no violation
        self.notes: list[str] = []

    def violation(self, sentence: str) -> None:
        self.violations.append(sentence)
