"""Invariant 9: every outcome was told to the merchant, truly, signed, unchanged and in order, or is dead-lettered. Pure.

Events are looked for in the merchant's own record (W) by their id; whether a signature verified is what W says. What an event must
say is what the payment is. A dead letter needs tries that failed at the receiver: one that answers well is no reason to give up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from loadtests.case import Case, Finding
from loadtests.evidence import JournalEntry
from loadtests.records import Delivery, Event, Payment

FINAL = frozenset(
    {"completed", "failed", "expired", "voided"}
)  # payment states that a merchant with an endpoint must be told of, once
TYPE_PREFIX = "payment."  # of an event; the state that the payment went into follows
OPENED = frozenset({"needs_response", "warning_needs_response"})  # what a dispute may be when it is told of first
DISPUTE_STATUSES = {  # of events whose name is not the dispute's status: (name, status)
    ("under_review", "warning_under_review"): "warning_under_review",
    ("closed", "warning_closed"): "warning_closed",
}
RECEIVER_MS_MAX = 5_000  # a receiver that takes longer may be given up


Subjects = dict[
    tuple[str, str], tuple[int, str, str | None]
]  # (payment, capture, refund or dispute) -> amount, currency, transaction


class WebhookData(Struct, frozen=True):
    status: str
    amount: int
    currency: str
    paymentID: str | None = None
    transactionID: str | None = None
    settlementID: str | None = None
    captureID: str | None = None
    refundID: str | None = None
    disputeID: str | None = None


class WebhookBody(Struct, frozen=True):
    """The part of a webhook that is compared."""

    id: str
    event: str
    sequence: int
    data: WebhookData


WEBHOOK_BODY = msgspec.json.Decoder(WebhookBody)


def events_delivered(case: Case, found: Finding) -> None:
    """Adds to `found` what became of each event, and what is wrong with what arrived."""
    events = {event.eventID: event for event in case.gateway.events}
    deliveries = {(row.eventID, row.endpointID): row for row in case.gateway.deliveries}
    received: dict[str, list[JournalEntry]] = defaultdict(list)
    for entry in case.journal:
        if entry.operation == "webhook":
            received[entry.webhookID or ""].append(entry)
    for event in case.gateway.events:
        if not event.published:  # history, such as payment.processing: no merchant is told of it
            continue
        found.checked += 1
        owner = case.payments.get(event.subject_id) or case.settlements.get(event.subject_id)
        for endpoint_id in case.evidence.endpoints.get(owner.merchantID, ()) if owner else ():
            delivery = deliveries.get((event.eventID, endpoint_id))
            _examine_delivery(event, endpoint_id, delivery, received.get(event.eventID, []), found)
    _examine_outcomes(case, found)
    subjects = _subjects(case)
    for webhook_id, entries in received.items():
        _examine_received(webhook_id, events.get(webhook_id), case, subjects, entries, found)
    _examine_order(case.journal, events, found)


def _examine_outcomes(case: Case, found: Finding) -> None:
    """One published final event for each payment that ended, none for another, and its type is how the payment ended."""
    told: dict[str, list[Event]] = defaultdict(list)
    for event in case.gateway.events:
        if event.published and event.type.removeprefix(TYPE_PREFIX) in FINAL:
            told[event.subject_id].append(event)
    for payment_id in told.keys() - case.payments.keys():
        found.violation(f"event {told[payment_id][0].eventID} is about payment {payment_id}, which does not exist")
    for payment in case.payments.values():
        finals = told[payment.paymentID]
        name = f"payment {payment.paymentID} ({payment.status})"
        for event in finals:
            if event.type != TYPE_PREFIX + payment.status:
                found.violation(f"{name}: the merchant is told {event.type} by event {event.eventID}")
        if payment.status in FINAL and case.evidence.endpoints.get(payment.merchantID):
            found.checked += 1
            if len(finals) != 1:
                found.violation(f"{name}: {len(finals)} events tell the merchant how it ended, not 1")


def _examine_delivery(
    event: Event, endpoint_id: str, delivery: Delivery | None, received: list[JournalEntry], found: Finding
) -> None:
    name = f"event {event.eventID} ({event.type} of {event.about})"
    if delivery is None:
        found.violation(f"{name} was never handed to endpoint {endpoint_id}")
    elif delivery.state == "dead":
        found.counted["dead-lettered"] += 1
        failed = sum(map(_refused, received))
        if delivery.tries < 1:
            found.violation(f"{name} is a dead letter for endpoint {endpoint_id}, and was never tried")
        elif failed < delivery.tries:
            seen = f"the receiver failed {failed} of {delivery.tries} tries"
            found.violation(f"{name} is a dead letter for endpoint {endpoint_id}, but {seen}")
    elif delivery.state != "delivered":
        found.violation(f"{name} is still {delivery.state} for endpoint {endpoint_id} after {delivery.tries} tries")
    elif not received:
        found.violation(f"{name} is marked delivered to {endpoint_id}, but the merchant never received it")


def _refused(entry: JournalEntry) -> bool:
    """Whether the receiver gave no good answer in time to this try."""
    slow = entry.delayMs is not None and entry.delayMs >= RECEIVER_MS_MAX
    return slow or entry.fault is not None or not entry.signatureValid or bytes(entry.body) == b"null"


def _examine_received(
    webhook_id: str, event: Event | None, case: Case, subjects: Subjects, entries: list[JournalEntry], found: Finding
) -> None:
    if any(not entry.signatureValid for entry in entries):
        found.violation(f"webhook {webhook_id}: the signature did not verify")
    bodies = {bytes(entry.body) for entry in entries}
    if len(bodies) > 1:
        found.violation(f"webhook {webhook_id} came with {len(bodies)} different bodies")
    if event is None:
        found.violation(f"webhook {webhook_id} is of no event that the gateway knows")
        return
    try:
        said = [WEBHOOK_BODY.decode(body) for body in bodies]
    except msgspec.MsgspecError as error:
        found.violation(f"webhook {webhook_id} has an unusable body: {error}")
        return
    expected = (event.eventID, event.type, event.sequence, event.paymentID, event.settlementID)
    if any((body.id, body.event, body.sequence, body.data.paymentID, body.data.settlementID) != expected for body in said):
        found.violation(f"webhook {webhook_id} does not say what event {event.type} of {event.about} is")
    if (payment := case.payments.get(event.subject_id)) is not None:
        _compare_told(webhook_id, event, payment, said, subjects, found)


def _compare_told(
    webhook_id: str, event: Event, payment: Payment, said: list[WebhookBody], subjects: Subjects, found: Finding
) -> None:
    """The status is the event's: that it is also the payment's, if it is final, is examined with the event."""
    for body in said:
        data, status = body.data, event.type.partition(".")[2]
        told = (data.status, data.amount, data.currency, data.transactionID)
        true: tuple[object, ...]
        if event.type.startswith(TYPE_PREFIX):
            about, true = "", (status, payment.amount, payment.currency, payment.transactionID)
        else:
            name = data.refundID or data.disputeID or data.captureID or ""
            about = f"{name or 'nothing'} of "
            known = subjects.get((payment.paymentID, name))
            if event.type == "dispute.opened" and data.status in OPENED:
                status = data.status
            elif event.type.startswith("dispute."):
                status = DISPUTE_STATUSES.get((status, data.status), status)
            true = (status, *known) if known else (None, None, None, None)
        if told != true:
            of = f"{about}payment {payment.paymentID}"
            found.violation(f"webhook {webhook_id} tells {_words(told)} of {of}, which is {_words(true)}")


def _subjects(case: Case) -> Subjects:
    found: Subjects = {}
    for capture in case.gateway.captures:
        transaction_id = case.payments[capture.paymentID].transactionID if capture.paymentID in case.payments else None
        found[capture.paymentID, capture.captureID] = capture.amount, capture.currency, transaction_id
    for refund in case.gateway.refunds:
        found[refund.paymentID, refund.refundID] = refund.amount, refund.currency, refund.transactionID
    for dispute in case.gateway.disputes:
        found[dispute.paymentID, dispute.disputeID] = dispute.amount, dispute.currency, dispute.transactionID
    return found


def _words(told: tuple[object, ...]) -> str:
    return ", ".join(map(str, told))


def _examine_order(journal: Iterable[JournalEntry], events: dict[str, Event], found: Finding) -> None:
    seen: set[tuple[str | None, str]] = set()
    last: dict[tuple[str | None, str], Event] = {}
    for entry in journal:
        event = events.get(entry.webhookID or "") if entry.operation == "webhook" else None
        if event is None or (entry.reference, event.eventID) in seen:
            continue
        seen.add((entry.reference, event.eventID))
        before = last.get((entry.reference, event.subject_id))
        if before is not None and before.sequence > event.sequence:
            told = f"{event.eventID} (number {event.sequence}) came after {before.eventID} (number {before.sequence})"
            found.violation(f"{event.about}: event {told}")
        last[entry.reference, event.subject_id] = event
