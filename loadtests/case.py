"""The evidence of a run, cross-indexed: who speaks of which payment, and what became of each charge at the providers. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from msgspec import Struct

from loadtests.evidence import Ack, Attempt, Evidence, GatewayRecords, JournalEntry, Payment

ChargeID = tuple[str, str]  # provider, reference: a reference sent to two providers is two charges
Key = tuple[str, str]  # merchantID, idempotency key
Account = tuple[str, str]  # account, currency

JOURNAL_NAME = {"card": "card", "upi": "upi", "netbanking": "bank"}  # gateway's provider -> the journal's
UNRESOLVED = frozenset({"intent", "sent", "unknown", "reversing"})  # the gateway owes these attempts an answer
OPEN = UNRESOLVED | {"pending"}  # ... and to these the customer does
DECISIONS = frozenset({"approved", "declined", "expired"})
CHARGE_OPERATIONS = frozenset({"create", "status", "reverse", "decide", "expire"})  # those after which `status` is the charge's

# A decision reaches the gateway by a callback, which has 5 s to be answered (docs/providers.md).
TRANSIT_MS = 5_000

FEES = "fees"  # the gateway's own account, beside `receivable:{provider}` and `payable:{merchant}`

# Payment states, DOMAIN's table; final states lead nowhere.
NEXT_STATES: dict[str, frozenset[str]] = {
    "pending": frozenset({"requires_action", "processing", "failed", "expired"}),
    "requires_action": frozenset({"processing", "failed", "expired", "voided"}),
    "processing": frozenset({"authorized", "completed", "failed", "requires_action"}),
    "authorized": frozenset({"partially_captured", "completed", "voided", "expired"}),
    "partially_captured": frozenset({"completed"}),
}


class Charge(Struct, frozen=True):
    """What a provider did under one reference."""

    provider: str
    reference: str
    amount: int
    currency: str
    status: str  # pending, approved, declined, expired, reversed
    moved: int = 0  # captured minus reversed, minor units
    captures: int = 0  # how often money was taken
    reversals: int = 0  # how often it was given back
    decision: str | None = None  # the first of approved, declined, expired; what the issuer or the customer decided
    changed_at: int = 0  # ms

    @property
    def unreversed(self) -> int:
        return self.captures - self.reversals


def charges(journal: Iterable[JournalEntry]) -> dict[ChargeID, Charge]:
    """Folds a journal, oldest first, into the charges that exist at its end."""
    folded: dict[ChargeID, Charge] = {}
    for entry in journal:
        if entry.operation in CHARGE_OPERATIONS and entry.reference is not None and entry.status is not None:
            key = (entry.provider, entry.reference)
            folded[key] = _after(folded.get(key), entry)
    return folded


def _after(charge: Charge | None, entry: JournalEntry) -> Charge:
    changed = charge is None or charge.status != entry.status or entry.moved != 0
    return Charge(
        provider=entry.provider,
        reference=entry.reference or "",
        amount=entry.amount or 0,
        currency=entry.currency or "",
        status=entry.status or "",
        moved=(charge.moved if charge else 0) + entry.moved,
        captures=(charge.captures if charge else 0) + (entry.moved > 0),
        reversals=(charge.reversals if charge else 0) + (entry.moved < 0),
        decision=(charge.decision if charge else None) or (entry.status if entry.status in DECISIONS else None),
        changed_at=entry.at if charge is None or changed else charge.changed_at,
    )


def charge_id(attempt: Attempt) -> ChargeID:
    return JOURNAL_NAME.get(attempt.provider, attempt.provider), attempt.reference


def receivable(provider: str) -> str:
    return f"receivable:{provider}"


def payable(merchant_id: str) -> str:
    return f"payable:{merchant_id}"


def reachable(status: str) -> frozenset[str]:
    """The states that a payment in `status` may be in later, itself included."""
    found = {status}
    while new := {after for state in found for after in NEXT_STATES.get(state, frozenset())} - found:
        found |= new
    return frozenset(found)


class Case:
    """Indexes over one run's evidence; empty where a witness is missing."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.gateway = evidence.gateway or GatewayRecords()
        self.journal = evidence.journal or ()
        self.payments: dict[str, Payment] = {payment.paymentID: payment for payment in self.gateway.payments}
        self.attempts: dict[ChargeID, Attempt] = {charge_id(attempt): attempt for attempt in self.gateway.attempts}
        self.charges = charges(self.journal)
        self.attempts_of: dict[str, list[Attempt]] = defaultdict(list)
        for attempt in self.gateway.attempts:
            self.attempts_of[attempt.paymentID].append(attempt)
        self.acks_of: dict[Key, list[Ack]] = defaultdict(list)
        for ack in evidence.acks:
            self.acks_of[ack.merchantID, ack.key].append(ack)
        self.booked = self._booked()

    def charge_of(self, attempt: Attempt) -> Charge | None:
        return self.charges.get(charge_id(attempt))

    def charges_of(self, payment_id: str) -> list[Charge]:
        found = (self.charge_of(attempt) for attempt in self.attempts_of.get(payment_id, ()))
        return [charge for charge in found if charge is not None]

    def in_transit(self, attempt: Attempt) -> bool:
        """Whether the provider decided so late that the gateway, which was being stopped, need not know."""
        charge, closed_at = self.charge_of(attempt), self.evidence.closed_at_ms
        if charge is None or closed_at is None or attempt.state not in OPEN:
            return False
        return charge.changed_at >= closed_at - TRANSIT_MS

    def captured_at_provider(self, attempt: Attempt) -> bool:
        charge = self.charge_of(attempt)
        return charge is not None and charge.captures > 0

    def awaits_decision(self, attempt: Attempt) -> bool:
        """Whether gateway and provider both wait for the customer."""
        charge = self.charge_of(attempt)
        return attempt.state == "pending" and charge is not None and charge.status == "pending"

    def awaits_customer(self, payment: Payment) -> bool:
        """Whether nothing is decided about the payment, here and at the provider, but by a customer who can still do so."""
        if payment.status not in NEXT_STATES or any(charge.decision for charge in self.charges_of(payment.paymentID)):
            return False
        return any(self.awaits_decision(attempt) for attempt in self.attempts_of.get(payment.paymentID, ()))

    def ever_open(self) -> set[ChargeID]:
        """The attempts whose outcome the gateway had to find out later: pending at the provider, or unknown after a call."""
        waited = {(entry.provider, entry.reference or "") for entry in self.journal if entry.status == "pending"}
        return {
            key
            for key, attempt in self.attempts.items()
            if key in waited or attempt.unknownAt is not None or attempt.state in OPEN or attempt.state == "manual_review"
        }

    def receivable(self, payment: Payment) -> int:
        """What the books say that providers owe us for the payment: captured minus given back."""
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
            if row.paymentID is not None:
                made[row.merchantID, row.key].add(row.paymentID)
        for ack in self.evidence.acks:
            if ack.paymentID is not None:
                made[ack.merchantID, ack.key].add(ack.paymentID)
        for (merchant_id, key), payment_ids in made.items():
            yield f"key {key} of {merchant_id}", payment_ids
        for payment_id in self.payments.keys() - set().union(*made.values()):
            yield f"payment {payment_id}", {payment_id}

    def _booked(self) -> defaultdict[str | None, Counter[Account]]:
        """Debits minus credits of each account, by payment; None: entries that name none."""
        books: defaultdict[str | None, Counter[Account]] = defaultdict(Counter)
        for entry in self.gateway.entries:
            for posting in entry.postings:
                books[entry.paymentID][posting.account, posting.currency] += posting.debit - posting.credit
        return books


class Finding:
    """Collects what one check looked at."""

    def __init__(self) -> None:
        self.checked = 0
        self.violations: list[str] = []
        self.counted: Counter[str] = Counter()  # seen, worth telling, no violation
        self.notes: list[str] = []

    def violation(self, sentence: str) -> None:
        self.violations.append(sentence)
