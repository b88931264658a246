"""Invariants 5 and 6: gateway and providers tell the same of every attempt, capture, refund, dispute and authentication, and nothing of it
is left open. Pure."""

from __future__ import annotations

from loadtests.case import (
    OPEN,
    OPEN_OPERATIONS,
    UNRESOLVED,
    UNRESOLVED_OPERATIONS,
    Case,
    Finding,
    Operation,
    charge_id,
    subject_id,
)
from loadtests.records import Attempt, Authentication, Dispute, Refund
from loadtests.truth import Charge, Movement, SubjectID

# What the provider's final word is called in an attempt. An expired charge moved no money, as a declined one.
OUTCOME_OF_CHARGE = {
    "approved": "succeeded",
    "declined": "declined",
    "expired": "declined",
    "reversed": "reversed",
    "authorized": "authorized",
    "partially_captured": "authorized",
}
AUTHENTICATED = frozenset({"Y", "A"})  # EMV's transStatus after which a charge counts as authenticated


def same_outcomes(case: Case, found: Finding) -> None:
    """5. Attempts without an outcome are counted here and judged by 6; their amounts are compared all the same."""
    for attempt in case.gateway.attempts:
        found.checked += 1
        if case.attempts[charge_id(attempt)] is not attempt:
            found.violation(f"reference {attempt.reference} is used by more than one attempt")
        if attempt.paymentID not in case.payments:
            found.violation(f"attempt {attempt.reference} belongs to payment {attempt.paymentID}, which does not exist")
        _compare_charge(case, attempt, case.charge_of(attempt), found)
    for key in case.charges.keys() - case.attempts.keys():
        found.checked += 1
        orphan = case.charges[key]
        what = f"{orphan.status}, {orphan.amount} {orphan.currency}, {orphan.moved} moved"
        found.violation(f"charge {orphan.reference} at {orphan.provider} ({what}) is unknown to the gateway")
    for operation in case.operations:
        found.checked += 1
        _compare_operation(case, operation, found)
    for dispute in case.gateway.disputes:
        found.checked += 1
        _compare_dispute(case, dispute, found)
    for row in case.gateway.authentications:
        found.checked += 1
        _compare_authentication(case, row, found)
    _find_unknown(case, found)


def _compare_charge(case: Case, attempt: Attempt, charge: Charge | None, found: Finding) -> None:
    name = f"attempt {attempt.reference} of payment {attempt.paymentID}"
    if charge is None:
        if attempt.state in {"succeeded", "authorized", "reversed", "pending"}:
            found.violation(f"{name} is {attempt.state}, but it never reached the provider")
        found.counted["never reached a provider"] += 1
        return
    if (attempt.amount, attempt.currency) != (charge.amount, charge.currency):
        theirs = f"{charge.amount} {charge.currency}"
        found.violation(f"{name} is over {attempt.amount} {attempt.currency}, at the provider over {theirs}")
    if attempt.state in UNRESOLVED or attempt.state == "manual_review" or case.in_transit(attempt):
        found.counted[f"without an outcome yet ({attempt.state})"] += 1
    elif attempt.state not in _outcomes(charge):
        taken = f" with {charge.parts} captured" if charge.parts else ""
        found.violation(f"{name} is {attempt.state} in the gateway, {charge.status}{taken} at the provider")


def _outcomes(charge: Charge) -> frozenset[str]:
    """What an attempt may be. That a capture was the final one the journal does not say, unless it took all that was left."""
    if charge.status == "expired" and charge.decision == "authorized":
        return frozenset({"reversed"})
    if not charge.parts or charge.status not in {"authorized", "partially_captured"}:
        return frozenset({OUTCOME_OF_CHARGE.get(charge.status, charge.status)})
    return frozenset({"succeeded"} if charge.parts == charge.amount else {"authorized", "succeeded"})


def _compare_operation(case: Case, operation: Operation, found: Finding) -> None:
    name, movement = _named(operation), case.movement_of(operation)
    if operation.paymentID not in case.payments:
        found.violation(f"{name} belongs to a payment that does not exist")
    if operation.status in UNRESOLVED_OPERATIONS or case.in_transit(operation):
        found.counted[f"without an outcome yet ({operation.status})"] += 1
    elif movement is None:
        if operation.status != "failed":
            found.violation(f"{name} is {operation.status} in the gateway, but the provider knows nothing of it")
    else:
        _compare_movement(name, operation, movement, found)
        theirs = "processing" if movement.status == "pending" else movement.status
        if operation.status != theirs:
            found.violation(f"{name} is {operation.status} in the gateway, {movement.status} at the provider")


def _compare_dispute(case: Case, dispute: Dispute, found: Finding) -> None:
    name, movement = _named(dispute), case.movement_of(dispute)
    if movement is None:
        found.violation(f"{name} is unknown to the provider")
        return
    if (dispute.amount, dispute.currency) != (movement.amount, movement.currency):
        theirs = f"{movement.amount} {movement.currency}"
        found.violation(f"{name} is over {dispute.amount} {dispute.currency}, at the provider over {theirs}")
    if dispute.status != movement.status and not case.in_transit(dispute):
        found.violation(f"{name} is {dispute.status} in the gateway, {movement.status} at the provider")


def _compare_movement(name: str, operation: Operation, movement: Movement, found: Finding) -> None:
    ours = f"{operation.amount} {operation.currency} of {operation.chargeReference}"
    if (theirs := f"{movement.amount} {movement.currency} of {movement.charge_reference}") != ours:
        found.violation(f"{name} is over {ours}, at the provider over {theirs}")


def _compare_authentication(case: Case, row: Authentication, found: Finding) -> None:
    """Only the issuer may say that a customer was authenticated, and only then may the card be charged once more."""
    status = case.truth.authentications.get(row.authenticationID)
    name = f"authentication {row.authenticationID} of payment {row.paymentID}"
    if row.status == "authenticated" and status not in AUTHENTICATED:
        found.violation(f"{name} is authenticated in the gateway, {status or 'unknown'} at the issuer")
    attempts = len(case.attempts_of.get(row.paymentID, ()))
    if row.status == "authenticated" and attempts < 2:
        found.violation(f"{name} is authenticated, but the card was not charged again")
    if attempts > 1 and row.status != "authenticated":
        found.violation(f"{name} is {row.status}, but the card was charged {attempts} times")


def _find_unknown(case: Case, found: Finding) -> None:
    """What providers did for our charges, and the gateway does not know."""
    pairs = (
        ("capture", case.truth.captures, _known(case.gateway.captures)),
        ("refund", case.truth.refunds, _known(case.gateway.refunds)),
        ("dispute", case.truth.disputes, _known(case.gateway.disputes)),
    )
    for what, theirs, ours in pairs:
        for key in theirs.keys() - ours:
            movement = theirs[key]
            if what == "dispute" and case.late(movement):
                found.counted["disputes opened as the gateway was stopped"] += 1
                continue
            told = f"{movement.status}, {movement.amount} {movement.currency}, {movement.moved} moved"
            charge = f"of charge {movement.charge_reference} at {movement.provider}"
            found.violation(f"{what} {movement.subject} {charge} ({told}) is unknown to the gateway")


def _known(rows: tuple[Operation, ...] | tuple[Dispute, ...]) -> set[SubjectID]:
    return {subject_id(row) for row in rows}


def nothing_left_open(case: Case, found: Finding) -> None:
    """6. A customer who has not decided yet is no failure of recovery, if the provider is waiting for them too."""
    if case.evidence.unclean_stop is not None:
        found.violation(f"the gateway did not drain when it was told to stop: {case.evidence.unclean_stop}")
    for attempt in case.gateway.attempts:
        found.checked += 1
        _examine_open(case, attempt, found)
    for payment in case.payments.values():
        states = {attempt.state for attempt in case.attempts_of.get(payment.paymentID, ())}
        waiting = states & (OPEN | {"manual_review"}) or case.challenged(payment.paymentID)
        if payment.status in {"pending", "processing", "requires_action"} and not waiting:
            found.violation(f"payment {payment.paymentID} is stuck in {payment.status}: no attempt of it is open")
    for operation in case.operations:
        found.checked += 1
        _examine_open_operation(case, operation, found)
    for dispute in case.gateway.disputes:
        found.checked += 1
        if dispute.responding is not None:
            found.violation(f"{_named(dispute)}: the merchant's response ({dispute.responding}) has not reached the provider")
    for row in case.gateway.authentications:
        found.checked += 1
        if row.status == "challenge" and case.challenged(row.paymentID):
            found.counted["waiting for the customer"] += 1
        elif row.status in {"intent", "challenge"}:
            found.violation(f"authentication {row.authenticationID} of payment {row.paymentID} is still {row.status}")


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


def _examine_open_operation(case: Case, operation: Operation, found: Finding) -> None:
    if operation.status not in OPEN_OPERATIONS:
        return
    movement = case.movement_of(operation)
    if operation.status == "processing" and movement is not None and movement.status == "pending":
        found.counted["refunds that the provider has yet to complete"] += 1
    elif case.in_transit(operation):
        found.counted["decided as the gateway was stopped"] += 1
    else:
        at_provider = movement.status if movement else "unknown there"
        asked = f"after {operation.inquiries} inquiries; at the provider it is {at_provider}"
        found.violation(f"{_named(operation)} is still {operation.status} {asked}")


def _named(record: Operation | Dispute) -> str:
    if isinstance(record, Dispute):
        return f"dispute {record.disputeID} of payment {record.paymentID}"
    if isinstance(record, Refund):
        return f"refund {record.refundID} of payment {record.paymentID}"
    return f"capture {record.captureID} of payment {record.paymentID}"
