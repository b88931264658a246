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

from loadtests.case import FEES, OPEN, UNRESOLVED, Case, Charge, Finding, charge_id, payable, reachable, receivable
from loadtests.evidence import CVV, Ack, Attempt, Evidence, Payment, StatusAnswer
from loadtests.webhooks import events_delivered

NAMED_MAX = 20  # violations told one by one; a systematic fault has thousands, and the first few show it
RETRY_BUDGET = Fraction(1, 10)  # of calls, DOMAIN "Talking to providers"
# Status and reverse calls for each attempt that was ever open, on average at one provider. Waits that double from half a second make
# six inquiries in 30 s; a reversal and one more are room. An inquiry storm asks several times a second.
INQUIRIES_PER_OPEN_MAX = 8
HOLDS_MONEY = frozenset({"partially_captured", "completed"})  # payment states in which something is captured
APPROVED_STATES = HOLDS_MONEY | {"authorized"}
REJECTIONS = frozenset({400, 401, 403, 404, 413, 415, 422})  # answers that promise: nothing was done
MAY_REPEAT_LATER = frozenset({409, 429})  # answers to a repeat that promise nothing: still running, too fast
GONE = StatusAnswer(httpStatus=404)

# What the provider's final word is called in an attempt. An expired charge moved no money, as a declined one.
OUTCOME_OF_CHARGE = {"approved": "succeeded", "declined": "declined", "expired": "declined", "reversed": "reversed"}


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
    reached = sum(payment.status in _decided_states(case.charges_of(payment.paymentID)) for payment in due)
    return reached, len(due) + lost


def _decided_states(charges: list[Charge]) -> frozenset[str]:
    """The payment states that honour what was decided; with several attempts, one approval decides. Empty if nobody decided."""
    decisions = {charge.decision for charge in charges if charge.decision}
    if "approved" in decisions:
        return APPROVED_STATES
    if decisions:
        return frozenset({"failed", "expired"}) if "expired" in decisions else frozenset({"failed"})
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


def _books_balance(case: Case, found: Finding) -> None:
    """1. Every balance is a sum of entries, so if each entry is balanced, all balances of a currency sum to zero."""
    for entry in case.gateway.entries:
        found.checked += 1
        name = f"entry {entry.entryID} of payment {entry.paymentID}"
        excess: Counter[str] = Counter()
        for posting in entry.postings:
            excess[posting.currency] += posting.debit - posting.credit
            if posting.debit < 0 or posting.credit < 0:
                found.violation(f"{name} posts a negative amount to {posting.account}")
        if not entry.postings:
            found.violation(f"{name} has no postings")
        for currency, difference in excess.items():
            if difference:
                found.violation(f"{name}: debits minus credits are {difference} {currency}, not 0")


def _one_charge_per_request(case: Case, found: Finding) -> None:
    """2. Charges are counted in V, under every reference of every payment that was made for the request."""
    for name, payment_ids in case.requests():
        found.checked += 1
        standing = [charge for payment_id in payment_ids for charge in case.charges_of(payment_id) if charge.unreversed > 0]
        if sum(charge.unreversed for charge in standing) > 1:
            where = ", ".join(f"{charge.reference} x {charge.unreversed}" for charge in standing)
            found.violation(f"{name}: charged more than once (payment {', '.join(sorted(payment_ids))}): {where}")
        if len(payment_ids) > 1:
            found.violation(f"{name}: {len(payment_ids)} payments: {', '.join(sorted(payment_ids))}")
    for (merchant_id, key), acks in case.acks_of.items():
        if len({ack.bodySha256 for ack in acks if _accepted(ack)}) > 1:
            found.violation(f"key {key} of {merchant_id}: its accepted answers differ")


def _captured_is_what_moved(case: Case, found: Finding) -> None:
    """3. Three accounts of the same money: the payment's record, the books, and what moved at the providers."""
    for payment_id in case.booked.keys() - case.payments.keys():
        found.violation(f"the books have entries of payment {payment_id}, which does not exist")
    for payment in case.payments.values():
        _examine_accounts(case, payment, found)
        attempts = case.attempts_of.get(payment.paymentID, [])
        if any(attempt.state == "manual_review" for attempt in attempts):
            found.counted["in manual review"] += 1
        elif any(case.in_transit(attempt) for attempt in attempts):
            found.counted["decided as the gateway was stopped"] += 1
        else:
            found.checked += 1
            _compare_captured(case, payment, found)


def _examine_accounts(case: Case, payment: Payment, found: Finding) -> None:
    """Money may only be owed by a provider where it moved, to the payment's merchant, and be kept as our fee."""
    moved_at = {
        attempt.provider for attempt in case.attempts_of.get(payment.paymentID, ()) if case.captured_at_provider(attempt)
    }
    allowed = {(account, payment.currency) for account in (*map(receivable, moved_at), payable(payment.merchantID), FEES)}
    for account, currency in sorted(case.booked[payment.paymentID].keys() - allowed):
        found.violation(f"payment {payment.paymentID}: posted to {account} in {currency}, where none of its money belongs")


def _compare_captured(case: Case, payment: Payment, found: Finding) -> None:
    captured, currency = payment.capturedAmount, payment.currency
    moved = sum(charge.moved for charge in case.charges_of(payment.paymentID))
    booked, credited = case.receivable(payment), case.credited(payment)
    name = f"payment {payment.paymentID} ({payment.status})"
    if captured != moved:
        found.violation(f"{name}: captured {captured} {currency} in the gateway, {moved} moved at the provider")
    if captured != booked:
        found.violation(f"{name}: captured {captured} {currency}, but the books say {booked}")
    if captured != sum(credited) or min(credited) < 0:
        merchant, fees = credited
        found.violation(
            f"{name}: captured {captured} {currency}, but {merchant} credited to {payment.merchantID} and {fees} to fees"
        )
    if captured > payment.amount:
        found.violation(f"{name}: captured {captured} {currency} of an amount of {payment.amount}")
    if (captured > 0) != (payment.status in HOLDS_MONEY):
        found.violation(f"{name}: a payment in this state cannot have captured {captured} {currency}")


def _same_charges(case: Case, found: Finding) -> None:
    """5. Attempts without an outcome are counted here and judged by 6; their amounts are compared all the same."""
    for attempt in case.gateway.attempts:
        found.checked += 1
        if case.attempts[charge_id(attempt)] is not attempt:
            found.violation(f"reference {attempt.reference} is used by more than one attempt")
        if attempt.paymentID not in case.payments:
            found.violation(f"attempt {attempt.reference} belongs to payment {attempt.paymentID}, which does not exist")
        _compare_charge(attempt, case.charge_of(attempt), case.in_transit(attempt), found)
    for key in case.charges.keys() - case.attempts.keys():
        found.checked += 1
        orphan = case.charges[key]
        what = f"{orphan.status}, {orphan.amount} {orphan.currency}, {orphan.moved} moved"
        found.violation(f"charge {orphan.reference} at {orphan.provider} ({what}) is unknown to the gateway")


def _compare_charge(attempt: Attempt, charge: Charge | None, in_transit: bool, found: Finding) -> None:
    name = f"attempt {attempt.reference} of payment {attempt.paymentID}"
    if charge is None:
        if attempt.state in {"succeeded", "reversed", "pending"}:
            found.violation(f"{name} is {attempt.state}, but it never reached the provider")
        found.counted["never reached a provider"] += 1
        return
    if (attempt.amount, attempt.currency) != (charge.amount, charge.currency):
        theirs = f"{charge.amount} {charge.currency}"
        found.violation(f"{name} is over {attempt.amount} {attempt.currency}, at the provider over {theirs}")
    if attempt.state in UNRESOLVED or attempt.state == "manual_review" or in_transit:
        found.counted[f"without an outcome yet ({attempt.state})"] += 1
    elif attempt.state != OUTCOME_OF_CHARGE.get(charge.status, charge.status):
        found.violation(f"{name} is {attempt.state} in the gateway, {charge.status} at the provider")


def _nothing_left_open(case: Case, found: Finding) -> None:
    """6. A customer who has not decided yet is no failure of recovery, if the provider is waiting for them too."""
    if case.evidence.unclean_stop is not None:
        found.violation(f"the gateway did not drain when it was told to stop: {case.evidence.unclean_stop}")
    for attempt in case.gateway.attempts:
        found.checked += 1
        _examine_open(case, attempt, found)
    for payment in case.payments.values():
        states = {attempt.state for attempt in case.attempts_of.get(payment.paymentID, ())}
        if payment.status in {"pending", "processing", "requires_action"} and not states & (OPEN | {"manual_review"}):
            found.violation(f"payment {payment.paymentID} is stuck in {payment.status}: no attempt of it is open")


def _examine_open(case: Case, attempt: Attempt, found: Finding) -> None:
    charge = case.charge_of(attempt)
    name = f"attempt {attempt.reference} of payment {attempt.paymentID}"
    match attempt.state:
        case "manual_review":
            found.counted["in manual review"] += 1
        case "pending" if case.awaits_decision(attempt):
            found.counted["waiting for the customer"] += 1
        case state if state in OPEN and case.in_transit(attempt):
            found.counted["decided as the gateway was stopped"] += 1
        case state if state in OPEN:
            at_provider = charge.status if charge else "unknown there"
            found.violation(f"{name} is still {state} after {attempt.inquiries} inquiries; at the provider it is {at_provider}")


def _acknowledged_holds(case: Case, found: Finding) -> None:
    """8. Without G, the final states are asked for over HTTP; without those, only repeats are compared."""
    if case.evidence.gateway is None and case.evidence.statuses is None:
        found.notes.append("final states unknown: only repeated requests were compared")
    for ack in case.evidence.acks:
        if _accepted(ack):
            found.checked += 1
            _examine_acknowledged(case, ack, found)
    kept = {(row.merchantID, row.key) for row in case.gateway.idempotency if row.paymentID in case.payments}
    for key, acks in case.acks_of.items():
        _compare_repeats(acks, found)
        if key in kept and all(ack.httpStatus in REJECTIONS for ack in acks):
            found.violation(f"key {key[1]}: rejected with {acks[0].httpStatus}, but the gateway made a payment for it")


def _examine_acknowledged(case: Case, ack: Ack, found: Finding) -> None:
    name = f"payment {ack.paymentID} (key {ack.key}, acknowledged {ack.status})"
    if ack.paymentID is None or ack.status is None:
        found.violation(f"request {ack.index} (key {ack.key}): {ack.httpStatus} without paymentID and status")
        return
    known = _final_state(case, ack.paymentID, found)
    if known is None:
        return
    if known is GONE:
        found.violation(f"{name} does not exist in the gateway")
        return
    if (ack.amount, ack.currency) != (known.amount, known.currency):
        theirs = f"{known.amount} {known.currency}"
        found.violation(f"{name}: asked for {ack.amount} {ack.currency}, the gateway has {theirs}")
    if known.status not in reachable(ack.status):
        found.violation(f"{name} is {known.status} now")
    if isinstance(known, Payment) and (ack.merchantID, ack.method) != (known.merchantID, known.method):
        found.violation(f"{name}: sent by {ack.merchantID} as {ack.method}, kept for {known.merchantID} as {known.method}")


def _final_state(case: Case, payment_id: str, found: Finding) -> Payment | StatusAnswer | None:
    """The payment as the gateway has it at the end, GONE, or None if nobody could say."""
    if case.evidence.gateway is not None:
        return case.payments.get(payment_id, GONE)
    answer = (case.evidence.statuses or {}).get(payment_id)
    if answer is not None and answer.httpStatus == 404:
        return GONE
    if answer is None or answer.httpStatus != 200:
        found.counted["answers whose payment could not be asked for"] += 1
        return None
    return answer


def _compare_repeats(acks: list[Ack], found: Finding) -> None:
    accepted = [ack for ack in acks if _accepted(ack)]
    if len(acks) < 2 or not accepted:
        return
    found.counted["requests sent more than once"] += 1
    if len({ack.bodySha256 for ack in accepted}) > 1:
        found.violation(f"key {accepted[0].key}: the answers to the same request are not the same bytes")
    for ack in acks:
        if 400 <= ack.httpStatus < 500 and ack.httpStatus not in MAY_REPEAT_LATER:
            found.violation(f"key {ack.key}: accepted once, and once refused with {ack.httpStatus} {ack.code or ''}".rstrip())


def _accepted(ack: Ack) -> bool:
    return 200 <= ack.httpStatus < 300


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


def _inquiries_bounded(case: Case, found: Finding) -> None:
    """By provider, since a storm hits one. The retry budget also covers attempts whose first call was still running when asked about."""
    calls = Counter(entry.provider for entry in case.journal if entry.operation in {"status", "reverse"})
    attempts = Counter(provider for provider, _ in case.attempts)
    opened = Counter(provider for provider, _ in case.ever_open())
    for provider, count in sorted(calls.items()):
        allowed = opened[provider] * INQUIRIES_PER_OPEN_MAX + floor(attempts[provider] * RETRY_BUDGET)
        what = f"{count} status and reverse calls at {provider} for {opened[provider]} attempts that were ever open"
        found.notes.append(what)
        if count > allowed:
            found.violation(f"{what}: more than the {allowed} allowed")


CHECKS: tuple[tuple[int, str, str, Callable[[Case, Finding], None]], ...] = (  # number, title, witnesses needed, check
    (1, "debits equal credits in every entry and currency", "G", _books_balance),
    (2, "at most one charge and one response per idempotency key", "GV", _one_charge_per_request),
    (3, "captured in the gateway and its books is what moved at the provider", "GV", _captured_is_what_moved),
    (5, "gateway and providers hold the same charges with the same outcomes", "GV", _same_charges),
    (6, "no attempt is left without an outcome", "GV", _nothing_left_open),
    (8, "everything acknowledged to a client exists with that outcome", "", _acknowledged_holds),
    (9, "every outcome was told to the merchant, truly, signed and in order, or is dead-lettered", "GV", events_delivered),
    (12, "no card number, security code or secret is stored or told", "S", _no_secrets),
    (14, "every request is accounted for, and retries stay within their budget", "", _requests_add_up),
)
