"""Did the money come out right? Compares what clients (C), gateway (G), providers (V) and the merchant's receiver (W) say.

Pure: evidence in, findings out. G and V share no code, so each is the other's witness: a bug would have to be made twice, in
the same way, to stay unseen. The numbers are those of the invariants in ARCHITECTURE.md. What holds for all of them:

- A charge is identified by provider and reference; what became of it is folded from the providers' journal (`case.py`).
- What a provider decided in the last moments before the gateway was stopped, the gateway may not know yet: counted.
- `manual_review` is how the gateway says that it needs a person: counted.
- An invariant whose witnesses are missing is not checked (`ok` is None) and says why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from math import floor

from msgspec import Struct

from loadtests.acknowledged import accepted, acknowledged_holds
from loadtests.books import (
    HOLDS_MONEY,
    books_balance,
    never_more_than_there_is,
    nothing_is_kept_or_made,
    parts_add_up,
    records_are_what_moved,
)
from loadtests.case import JOURNAL_NAME, OPEN_OPERATIONS, Case, Finding
from loadtests.evidence import CVV, Evidence
from loadtests.history import events_replay
from loadtests.outcomes import nothing_left_open, same_outcomes
from loadtests.records import Payment
from loadtests.webhooks import events_delivered

NAMED_MAX = 20  # violations told one by one; a systematic fault has thousands, and the first few show it
RETRY_BUDGET = Fraction(1, 10)  # of calls, DOMAIN "Talking to providers"
# Status and reverse calls for each attempt that was ever open, on average at one provider. Waits that double from half a second make
# six inquiries in 30 s; a reversal and one more are room. An inquiry storm asks several times a second.
INQUIRIES_PER_OPEN_MAX = 8
APPROVED_STATES = HOLDS_MONEY | {"authorized"}
VOIDED = frozenset({"voided"})


class Invariant(Struct, frozen=True):
    """One promise about money and whether it held. `ok` is None if it could not be checked; `note` then says why."""

    number: int
    title: str
    ok: bool | None
    checked: int  # how many things were looked at; 0 means that the promise was not put to the test
    violations: tuple[str, ...] = ()  # sentences naming the ids, at most NAMED_MAX and a last one that counts the rest
    note: str = ""


def audit(evidence: Evidence) -> list[Invariant]:
    """All invariants over one run, by number."""
    case = Case(evidence)
    return [_examine(case, number, title, needs, check) for number, title, needs, check in CHECKS]


def success(evidence: Evidence) -> tuple[int, int] | None:
    """How many payments reached the outcome that issuer or customer decided, of all but those whose customer is still thinking.

    A payment that the gateway never put to a provider is missed: nobody but issuer and customer may turn one down. So is a decided
    charge that the gateway does not know. If the gateway made no payment, every request is missed. None without G and V, and if
    nothing was sent."""
    if evidence.gateway is None or evidence.journal is None:
        return None
    case = Case(evidence)
    orphans = case.charges.keys() - case.attempts.keys()
    lost = sum(case.charges[key].decision is not None for key in orphans)
    if not case.payments:
        missed = max(evidence.sent.sent, lost)
        return (0, missed) if missed else None
    due = [payment for payment in case.payments.values() if not case.awaits_customer(payment)]
    reached = sum(payment.status in _decided_states(case, payment) for payment in due)
    return reached, len(due) + lost


def _decided_states(case: Case, payment: Payment) -> frozenset[str]:
    """The payment states that honour what was decided; with several attempts, one approval decides. Empty if nobody decided. The merchant,
    too, may decide: what was voided stays so."""
    charges = case.charges_of(payment.paymentID)
    decisions = {charge.decision for charge in charges if charge.decision}
    if payment.status == "voided" and charges and not any(charge.moved for charge in charges):
        return VOIDED
    if decisions & {"approved", "authorized"}:
        return APPROVED_STATES
    if decisions:
        ran_out = "expired" in decisions or payment.paymentID in case.authentications  # a customer who did not authenticate
        return frozenset({"failed", "expired"}) if ran_out else frozenset({"failed"})
    return frozenset()


def _examine(case: Case, number: int, title: str, needs: str, check: Callable[[Case, Finding], None]) -> Invariant:
    missing = [reason for witness, reason in MISSING.items() if witness in needs and not _heard(case.evidence, witness)]
    if missing:
        return Invariant(number, title, None, 0, note=f"not checked: {' and '.join(missing)}")
    found = Finding()
    check(case, found)
    notes = found.notes + [f"{count} {what}" for what, count in sorted(found.counted.items())]
    return Invariant(number, title, not found.violations, found.checked, _capped(found.violations), "; ".join(notes))


def _capped(violations: list[str]) -> tuple[str, ...]:
    rest = len(violations) - NAMED_MAX
    return (*violations[:NAMED_MAX], f"and {rest} more") if rest > 0 else tuple(violations)


MISSING = {
    "G": "the gateway's records are not there",
    "V": "the providers' journal is not there",
    "S": "there is no database, log or metrics text to search",
}


def _heard(evidence: Evidence, witness: str) -> bool:
    return {"G": evidence.gateway is not None, "V": evidence.journal is not None, "S": _searchable(evidence)}[witness]


def _searchable(evidence: Evidence) -> bool:
    """A client that found a secret in an answer is enough to break the promise, but not to keep it."""
    return bool(evidence.haystacks) or any(ack.leaked for ack in evidence.acks)


def _one_charge_per_request(case: Case, found: Finding) -> None:
    """2. Charges are counted in V, under every reference of every payment that was made for the request; captures and refunds likewise."""
    for name, payment_ids in case.requests():
        found.checked += 1
        standing = [charge for payment_id in payment_ids for charge in case.charges_of(payment_id) if charge.unreversed > 0]
        if sum(charge.unreversed for charge in standing) > 1:
            where = ", ".join(f"{charge.reference} x {charge.unreversed}" for charge in standing)
            found.violation(f"{name}: charged more than once (payment {', '.join(sorted(payment_ids))}): {where}")
        if len(payment_ids) > 1:
            found.violation(f"{name}: {len(payment_ids)} payments: {', '.join(sorted(payment_ids))}")
    for name, subject_ids in case.made_by():
        found.checked += 1
        if len(subject_ids) > 1:
            found.violation(f"{name}: {len(subject_ids)} captures or refunds: {', '.join(sorted(subject_ids))}")
    for movement in (*case.truth.captures.values(), *case.truth.refunds.values()):
        if movement.times > 1:
            found.violation(f"{movement.subject} of charge {movement.charge_reference} moved money {movement.times} times")
    for (merchant_id, key), acks in case.acks_of.items():
        if len({ack.bodySha256 for ack in acks if accepted(ack)}) > 1:
            found.violation(f"key {key} of {merchant_id}: its accepted answers differ")


def _no_secrets(case: Case, found: Finding) -> None:
    """12. A violation tells where a secret is, never the secret. Answers were searched by the clients, each for its own card."""
    found.checked += sum(ack.bodySha256 is not None for ack in case.evidence.acks)
    for ack in case.evidence.acks:
        if ack.leaked is not None:
            found.violation(f"request {ack.index} (key {ack.key}): its {ack.leaked} is in the answer ({ack.httpStatus})")
    for hay in case.evidence.haystacks:
        found.checked += 1
        for secret in case.evidence.secrets:
            at = max(hay.content.find(form) for form in secret.forms)
            if at >= 0:
                found.violation(f"{secret.label} is in the {hay.name}, at byte {at}")
        code = CVV.search(hay.content)
        if code is not None:
            found.violation(f"a card security code is in the {hay.name}, at byte {code.start()}")
    searched = sum(len(hay.content) for hay in case.evidence.haystacks)
    found.notes.append(f"{searched / 1e6:.1f} MB searched for {len(case.evidence.secrets)} secrets and for security codes")


def _requests_add_up(case: Case, found: Finding) -> None:
    """14. The generator's counts, its rows and the clients' own notes must tell the same story."""
    sent = case.evidence.sent
    found.checked += sent.sent
    ended = sum(sent.outcomes.values())
    if ended != sent.sent:
        found.violation(f"{sent.sent} requests were sent, but {ended} ended: {dict(sent.outcomes)}")
    if sent.sent + sent.dropped != sent.scheduled:
        found.violation(f"{sent.scheduled} requests were due, but {sent.sent} sent and {sent.dropped} dropped")
    noted = Counter(ack.httpStatus for ack in case.evidence.acks)
    for status in sorted(noted.keys() | sent.http_statuses.keys()):
        if noted[status] != (measured := sent.http_statuses.get(status, 0)):
            found.violation(f"HTTP {status or 'without an answer'}: {measured} measured, {noted[status]} noted by the clients")
    if case.evidence.gateway is None or case.evidence.journal is None:
        found.notes.append("provider calls not checked: no journal")
        return
    calls = sum(entry.operation == "create" for entry in case.journal)
    allowed = floor(len(case.gateway.attempts) * (1 + RETRY_BUDGET))
    found.notes.append(f"{calls} provider calls for {len(case.gateway.attempts)} attempts")
    if calls > allowed:
        found.violation(f"{calls} provider calls for {len(case.gateway.attempts)} attempts: more than the {allowed} allowed")
    _inquiries_bounded(case, found)
    _operations_bounded(case, found)


def _inquiries_bounded(case: Case, found: Finding) -> None:
    """By provider, since a storm hits one. The retry budget also covers attempts whose first call was still running when asked about."""
    calls = Counter(entry.provider for entry in case.journal if entry.operation in {"status", "reverse"})
    attempts = Counter(provider for provider, _ in case.attempts)
    opened = Counter(provider for provider, _ in case.ever_open())
    voided = Counter(JOURNAL_NAME[payment.method] for payment in case.payments.values() if payment.status == "voided")
    for provider, count in sorted(calls.items()):
        allowed = opened[provider] * INQUIRIES_PER_OPEN_MAX + floor(attempts[provider] * RETRY_BUDGET) + voided[provider]
        what = f"{count} status and reverse calls at {provider} for {opened[provider]} attempts that were ever open"
        found.notes.append(what)
        if count > allowed:
            found.violation(f"{what}: more than the {allowed} allowed")


def _operations_bounded(case: Case, found: Finding) -> None:
    """Captures and refunds. How often each was called, its journal entries number; one that was in doubt may be asked about."""
    operations = case.operations
    if not operations:
        return
    asked: Counter[tuple[str, str, str]] = Counter()
    for entry in case.journal:
        if entry.operation in {"capture", "refund", "refund_status"} and entry.subject:
            key = entry.provider, entry.operation, entry.subject
            asked[key] = max(asked[key], entry.attempt)
    doubtful = sum(operation.inquiries > 0 or operation.status in OPEN_OPERATIONS for operation in operations)
    allowed = floor(len(operations) * (1 + RETRY_BUDGET)) + doubtful * INQUIRIES_PER_OPEN_MAX
    what = f"{asked.total()} capture and refund calls for {len(operations)} captures and refunds"
    found.notes.append(what)
    if asked.total() > allowed:
        found.violation(f"{what}: more than the {allowed} allowed")


CHECKS: tuple[tuple[int, str, str, Callable[[Case, Finding], None]], ...] = (  # number, title, witnesses needed, check
    (1, "debits equal credits in every entry and currency", "G", books_balance),
    (2, "at most one charge and one response per idempotency key", "GV", _one_charge_per_request),
    (
        3,
        "captured, refunded and disputed, here and in the books, is what moved at the provider",
        "GV",
        records_are_what_moved,
    ),
    (
        4,
        "refunds and lost disputes never exceed what was captured",
        "GV",
        never_more_than_there_is,
    ),
    (
        5,
        "gateway and providers hold the same charges, refunds, disputes, with the same outcomes",
        "GV",
        same_outcomes,
    ),
    (6, "nothing is left without an outcome", "GV", nothing_left_open),
    (7, "a payment's events yield its status, step by step and without a gap", "G", events_replay),
    (8, "everything acknowledged to a client exists with that outcome", "", acknowledged_holds),
    (9, "every outcome was told to the merchant, truly, signed and in order, or is dead-lettered", "GV", events_delivered),
    (10, "captures less refunds, chargebacks and fees are what is settled and unsettled", "G", nothing_is_kept_or_made),
    (11, "parts add up to wholes: captures, refunds, fees, settlements", "G", parts_add_up),
    (12, "no card number, security code or secret is stored or told", "S", _no_secrets),
    (14, "every request is accounted for, and retries stay within their budget", "", _requests_add_up),
)
