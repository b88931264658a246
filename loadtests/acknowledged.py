"""Invariant 8: everything acknowledged to a client exists with that outcome. Pure.

Without the gateway's records the final states of payments are asked for over HTTP; without those, only repeats are compared.
"""

from __future__ import annotations

from loadtests.case import NEXT_DISPUTE_STATES, NEXT_OPERATION_STATES, Case, Finding, reachable
from loadtests.evidence import Ack, StatusAnswer
from loadtests.records import Payment

REJECTIONS = frozenset({400, 401, 403, 404, 413, 415, 422})  # answers that promise: nothing was done
MAY_REPEAT_LATER = frozenset({409, 429})  # answers to a repeat that promise nothing: still running, too fast
SILENT = frozenset({"return"})  # what browsers are answered is for people, and promises nothing
GONE = StatusAnswer(httpStatus=404)


def acknowledged_holds(case: Case, found: Finding) -> None:
    """8. Payments, captures, refunds and disputes."""
    if case.evidence.gateway is None and case.evidence.statuses is None:
        found.notes.append("final states unknown: only repeated requests were compared")
    subjects = _subjects(case)
    for ack in case.evidence.acks:
        if accepted(ack) and ack.step not in SILENT:
            found.checked += 1
            _examine_payment(case, ack, found)
            if ack.subjectID is not None and case.evidence.gateway is not None:
                _examine_subject(ack, subjects.get(ack.subjectID), found)
    kept = {(row.merchantID, row.key) for row in case.gateway.idempotency if row.paymentID in case.payments}
    for key, acks in case.acks_of.items():
        _compare_repeats(acks, found)
        if key in kept and all(ack.httpStatus in REJECTIONS for ack in acks):
            found.violation(f"key {key[1]}: rejected with {acks[0].httpStatus}, but the gateway made a payment for it")


def accepted(ack: Ack) -> bool:
    return 200 <= ack.httpStatus < 300


def _examine_payment(case: Case, ack: Ack, found: Finding) -> None:
    told = ack.status or ack.subjectStatus
    name = f"payment {ack.paymentID} (key {ack.key}, acknowledged {told})"
    if ack.paymentID is None or told is None:
        found.violation(f"request {ack.index} (key {ack.key}): {ack.httpStatus} without paymentID and status")
        return
    known = _final_state(case, ack.paymentID, found)
    if known is None:
        return
    if known is GONE:
        found.violation(f"{name} does not exist in the gateway")
        return
    if ack.status is not None and known.status not in reachable(ack.status):
        found.violation(f"{name} is {known.status} now")
    if ack.step == "process":
        _examine_process(name, ack, known, found)


def _examine_process(name: str, ack: Ack, known: Payment | StatusAnswer, found: Finding) -> None:
    if (ack.amount, ack.currency) != (known.amount, known.currency):
        theirs = f"{known.amount} {known.currency}"
        found.violation(f"{name}: asked for {ack.amount} {ack.currency}, the gateway has {theirs}")
    if isinstance(known, Payment) and (ack.merchantID, ack.method) != (known.merchantID, known.method):
        found.violation(f"{name}: sent by {ack.merchantID} as {ack.method}, kept for {known.merchantID} as {known.method}")


class _Subject:
    """A capture, refund or dispute as the gateway has it at the end."""

    def __init__(self, payment_id: str, status: str, amount: int, following: dict[str, frozenset[str]]) -> None:
        self.payment_id, self.status, self.amount, self.following = payment_id, status, amount, following


def _subjects(case: Case) -> dict[str, _Subject]:
    gateway, operation, dispute = case.gateway, NEXT_OPERATION_STATES, NEXT_DISPUTE_STATES
    return {
        **{row.captureID: _Subject(row.paymentID, row.status, row.amount, operation) for row in gateway.captures},
        **{row.refundID: _Subject(row.paymentID, row.status, row.amount, operation) for row in gateway.refunds},
        **{row.disputeID: _Subject(row.paymentID, row.status, row.amount, dispute) for row in gateway.disputes},
    }


def _examine_subject(ack: Ack, known: _Subject | None, found: Finding) -> None:
    name = f"{ack.subjectID} of payment {ack.paymentID} (key {ack.key}, acknowledged {ack.subjectStatus})"
    if known is None:
        found.violation(f"{name} does not exist in the gateway")
        return
    if known.payment_id != ack.paymentID:
        found.violation(f"{name} belongs to payment {known.payment_id}")
    if ack.subjectStatus is None or known.status not in reachable(ack.subjectStatus, known.following):
        found.violation(f"{name} is {known.status} now")
    if ack.amount and ack.amount != known.amount:
        found.violation(f"{name}: asked for {ack.amount} {ack.currency}, the gateway has {known.amount}")


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
    taken = [ack for ack in acks if accepted(ack)]
    if len(acks) < 2 or not taken:
        return
    found.counted["requests sent more than once"] += 1
    if len({ack.bodySha256 for ack in taken}) > 1:
        found.violation(f"key {taken[0].key}: the answers to the same request are not the same bytes")
    for ack in acks:
        if 400 <= ack.httpStatus < 500 and ack.httpStatus not in MAY_REPEAT_LATER:
            found.violation(f"key {ack.key}: accepted once, and once refused with {ack.httpStatus} {ack.code or ''}".rstrip())
