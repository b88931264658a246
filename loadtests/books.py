"""Invariants 1, 3, 4, 10 and 11: the gateway's records, its books, and what moved at the providers are three accounts of the same money.
Pure."""

from __future__ import annotations

from collections import Counter, defaultdict

from loadtests.case import FEES, TAKEN, Account, Case, Finding, payable, receivable
from loadtests.records import Entry, Payment, Settlement

HOLDS_MONEY = frozenset({"partially_captured", "completed"})  # payment states in which something is captured
UNPAID = frozenset({"computing", "ready"})  # settlements before a payout is ordered


def books_balance(case: Case, found: Finding) -> None:
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


def records_are_what_moved(case: Case, found: Finding) -> None:
    """3. Three accounts of the same money: the payment's record, the books, and what moved at the providers."""
    for payment_id in case.booked.keys() - case.payments.keys():
        found.violation(f"the books have entries of payment {payment_id}, which does not exist")
    for payment in case.payments.values():
        _examine_accounts(case, payment, found)
        attempts = case.attempts_of.get(payment.paymentID, [])
        if any(attempt.state == "manual_review" for attempt in attempts):
            found.counted["in manual review"] += 1
        elif case.unsettled(payment.paymentID):
            found.counted["decided as the gateway was stopped"] += 1
        else:
            found.checked += 1
            _compare_records(case, payment, found)


def _examine_accounts(case: Case, payment: Payment, found: Finding) -> None:
    """Money may only be owed by a provider where it moved, to the payment's merchant, and be kept as our fee."""
    moved_at = {
        attempt.provider for attempt in case.attempts_of.get(payment.paymentID, ()) if case.captured_at_provider(attempt)
    }
    allowed = {(account, payment.currency) for account in (*map(receivable, moved_at), payable(payment.merchantID), FEES)}
    for account, currency in sorted(case.booked[payment.paymentID].keys() - allowed):
        found.violation(f"payment {payment.paymentID}: posted to {account} in {currency}, where none of its money belongs")


def _compare_records(case: Case, payment: Payment, found: Finding) -> None:
    captured, given_back, currency = payment.capturedAmount, payment.refundedAmount + payment.disputedAmount, payment.currency
    moved, name = case.moved[payment.paymentID], _named(payment)
    for what, ours, theirs in (
        ("captured", captured, moved.captured),
        ("refunded", payment.refundedAmount, moved.refunded),
        ("disputed", payment.disputedAmount, moved.disputed),
    ):
        if ours != theirs:
            found.violation(f"{name}: {what} {ours} {currency} in the gateway, {theirs} moved at the provider")
    left = f"captured {captured} {currency}"
    if given_back:
        left += f" less {payment.refundedAmount} refunded and {payment.disputedAmount} disputed"
    if captured - given_back != (booked := case.receivable(payment)):
        found.violation(f"{name}: {left}, but the books say {booked}")
    merchant, fees = case.credited(payment)
    if captured - given_back != merchant + fees or min(merchant + given_back, fees) < 0:
        found.violation(f"{name}: {left}, but {merchant} credited to {payment.merchantID} and {fees} to fees")
    if (captured > 0) != (payment.status in HOLDS_MONEY):
        found.violation(f"{name}: a payment in this state cannot have captured {captured} {currency}")


def never_more_than_there_is(case: Case, found: Finding) -> None:
    """4. What is only asked for counts as well: it may be done at any moment."""
    for payment in case.payments.values():
        refunds, disputes = (table.get(payment.paymentID, []) for table in (case.refunds_of, case.disputes_of))
        if not (payment.capturedAmount or refunds or disputes):
            continue
        found.checked += 1
        captured, name, currency = payment.capturedAmount, _named(payment), payment.currency
        live = sum(refund.amount for refund in refunds if refund.status != "failed")
        done = sum(refund.amount for refund in refunds if refund.status == "completed")
        lost = sum(dispute.amount for dispute in disputes if dispute.status == "lost")
        if not 0 <= captured <= payment.amount:
            found.violation(f"{name}: captured {captured} {currency} of an amount of {payment.amount}")
        if live > captured:
            found.violation(f"{name}: refunds of {live} {currency} are open or completed, but {captured} were captured")
        if done + lost > captured:
            found.violation(f"{name}: {done} {currency} refunded and {lost} lost in disputes, but {captured} were captured")
        moved = case.moved[payment.paymentID]
        if moved.refunded + moved.disputed > moved.captured:
            given_back = f"{moved.refunded} refunded and {moved.disputed} charged back"
            found.violation(f"{name}: {given_back} at the provider, but {moved.captured} {currency} were captured there")


def nothing_is_kept_or_made(case: Case, found: Finding) -> None:
    """10. Captures - refunds - chargebacks - fees = settled + unsettled, for each merchant and currency; and for each of their days what
    is in its settlement. The left side is what the payments say, the right side what the books owe the merchant."""
    due: Counter[Account] = Counter()
    for payment in case.payments.values():
        _, fees = case.credited(payment)
        left = payment.capturedAmount - payment.refundedAmount - payment.disputedAmount - fees
        due[payable(payment.merchantID), payment.currency] += left
    owed, settled = _owed(case.gateway.entries)
    for account, currency in sorted(due.keys() | owed.keys()):
        found.checked += 1
        of_days = sum(part[account, currency] for name, part in settled.items() if name is not None)
        if due[account, currency] != owed[account, currency]:
            rest = owed[account, currency] - of_days
            found.violation(
                f"{account} in {currency}: captures less refunds, chargebacks and fees are {due[account, currency]}, "
                f"but {of_days} are settled and {rest} unsettled"
            )
    for name in settled:
        if name is not None and name not in case.settlements:
            found.violation(f"entries are in settlement {name}, which does not exist")
    for settlement in case.settlements.values():
        found.checked += 1
        _examine_settlement(case, settlement, settled[settlement.settlementID], found)


def _owed(entries: tuple[Entry, ...]) -> tuple[Counter[Account], defaultdict[str | None, Counter[Account]]]:
    """What payments brought their merchants, by account: in all, and by the settlement that it is in (None: in none yet)."""
    owed: Counter[Account] = Counter()
    settled: defaultdict[str | None, Counter[Account]] = defaultdict(Counter)
    for entry in entries:
        for posting in entry.postings if entry.settlementID is None else ():
            if posting.account.startswith(payable("")):
                owed[posting.account, posting.currency] += posting.credit - posting.debit
                settled[entry.settledIn][posting.account, posting.currency] += posting.credit - posting.debit
    return owed, settled


def _examine_settlement(case: Case, settlement: Settlement, inside: Counter[Account], found: Finding) -> None:
    account = payable(settlement.merchantID), settlement.currency
    name = f"settlement {settlement.settlementID} of {settlement.merchantID} for {settlement.date}"
    if foreign := sorted(inside.keys() - {account}):
        found.violation(f"{name} has entries of {foreign[0][0]} in {foreign[0][1]}")
    if settlement.status != "computing" and settlement.net != inside[account]:
        found.violation(f"{name} is over {settlement.net} {settlement.currency}, its entries come to {inside[account]}")
    paid = -sum(
        posting.credit - posting.debit
        for entry in case.gateway.entries
        for posting in (entry.postings if entry.settlementID == settlement.settlementID else ())
        if (posting.account, posting.currency) == account
    )
    if (settlement.status == "completed" and paid != settlement.totalAmount) or (settlement.status in UNPAID and paid):
        found.violation(f"{name} is {settlement.status}, with {paid} of {settlement.totalAmount} paid in the books")


def parts_add_up(case: Case, found: Finding) -> None:
    """11. To the minor unit: captures, refunds, disputes and fees of each payment; the lines of each settlement."""
    for payment in case.payments.values():
        parts = (case.captures_of, case.refunds_of, case.disputes_of)
        if payment.capturedAmount or any(payment.paymentID in table for table in parts):
            found.checked += 1
            _add_up(case, payment, found)
    for settlement in case.settlements.values():
        found.checked += 1
        name = f"settlement {settlement.settlementID} of {settlement.merchantID} for {settlement.date}"
        lines = settlement.lines
        net = sum(row.captured_minor - row.fees_minor - row.refunds_minor - row.chargebacks_minor for row in lines)
        if net != settlement.net:
            found.violation(f"{name} is over {settlement.net} {settlement.currency}, its lines come to {net}")
        if settlement.totalAmount != max(0, settlement.openingBalance + settlement.net):
            opens = f"opens with {settlement.openingBalance} and is over {settlement.net} {settlement.currency}"
            found.violation(f"{name} {opens}, but pays {settlement.totalAmount}")


def _add_up(case: Case, payment: Payment, found: Finding) -> None:
    payment_id, name, currency = payment.paymentID, _named(payment), payment.currency
    captures = sum(part.amount for part in case.captures_of.get(payment_id, ()) if part.status == "completed")
    refunds = sum(part.amount for part in case.refunds_of.get(payment_id, ()) if part.status == "completed")
    disputes = sum(part.amount for part in case.disputes_of.get(payment_id, ()) if part.status in TAKEN)
    if captures != (payment.capturedAmount if payment.captureMethod == "manual" else 0):
        found.violation(f"{name}: captures come to {captures} {currency}, the payment says {payment.capturedAmount}")
    if refunds != payment.refundedAmount:
        found.violation(f"{name}: refunds come to {refunds} {currency}, the payment says {payment.refundedAmount}")
    if disputes != payment.disputedAmount:
        found.violation(f"{name}: disputes come to {disputes} {currency}, the payment says {payment.disputedAmount}")
    _, fees = case.credited(payment)
    if fees != (fee := case.fee(payment)):
        rate = f"{case.evidence.fees.get(payment.method, 0)} basis points of {payment.capturedAmount} are {fee}"
        found.violation(f"{name}: {fees} {currency} kept as fees, but {rate}")


def _named(payment: Payment) -> str:
    return f"payment {payment.paymentID} ({payment.status})"
