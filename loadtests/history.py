"""Invariant 7: replaying a payment's events yields what it is, and every step is in the table. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict

from loadtests.case import NEXT_STATES, Case, Finding
from loadtests.records import Event, Payment

TYPE_PREFIX = "payment."  # of an event; the state that the payment went into follows
BEGINNING = "pending"  # of every payment


def events_replay(case: Case, found: Finding) -> None:
    """7. Numbers from 1 without a gap; and as many events of captures, refunds and disputes as there are of those."""
    events: dict[str, list[Event]] = defaultdict(list)
    for event in case.gateway.events:
        if event.paymentID is not None:
            events[event.paymentID].append(event)
    for payment in case.payments.values():
        found.checked += 1
        history = sorted(events[payment.paymentID], key=lambda event: event.sequence)
        _examine_numbers(payment, history, found)
        _replay(payment, history, found)
        _count(case, payment, Counter(event.type for event in history), found)


def _examine_numbers(payment: Payment, history: list[Event], found: Finding) -> None:
    for expected, event in enumerate(history, start=1):
        if event.sequence != expected:
            found.violation(f"payment {payment.paymentID}: event {event.eventID} is number {event.sequence}, not {expected}")
            return


def _replay(payment: Payment, history: list[Event], found: Finding) -> None:
    state = BEGINNING
    for event in history:
        if not event.type.startswith(TYPE_PREFIX):
            continue
        after = event.type.removeprefix(TYPE_PREFIX)
        if after not in NEXT_STATES.get(state, frozenset()):
            found.violation(f"payment {payment.paymentID}: event {event.eventID} says {after}, which cannot follow {state}")
            return
        state = after
    if state != payment.status:
        found.violation(f"payment {payment.paymentID} is {payment.status}, but its events end in {state}")


def _count(case: Case, payment: Payment, types: Counter[str], found: Finding) -> None:
    captures, refunds, disputes = (
        Counter(row.status for row in table.get(payment.paymentID, ()))
        for table in (case.captures_of, case.refunds_of, case.disputes_of)
    )
    undone = types["refund.completed"] - refunds["completed"]  # refunds that failed after they were completed
    expected = {
        "refund.created": refunds.total(),
        "refund.failed": refunds["failed"],
        "refund.completed": refunds["completed"] + min(max(0, undone), refunds["failed"]),
        "capture.failed": captures["failed"],
        "dispute.won": disputes["won"],
        "dispute.lost": disputes["lost"],
        "dispute.closed": disputes["warning_closed"],
    }
    for kind, count in expected.items():
        if types[kind] != count:
            found.violation(f"payment {payment.paymentID}: {types[kind]} events {kind}, not {count}")
    parts, told = captures["completed"], types["payment.partially_captured"] + types["payment.completed"]
    if payment.captureMethod == "manual" and not parts <= told <= parts + 1:  # one more: the rest lapsed
        found.violation(f"payment {payment.paymentID}: {told} events tell of {parts} captures")
