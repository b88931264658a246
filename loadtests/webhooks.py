"""Invariant 9: every event reached the merchant, signed, unchanged and in order, or is dead-lettered. Pure.

Events are looked for in the merchant's own record (W) by their id; whether a signature verified is what W says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from loadtests.case import Case, Finding
from loadtests.evidence import Delivery, Event, JournalEntry


class WebhookData(Struct, frozen=True):
    paymentID: str


class WebhookBody(Struct, frozen=True):
    """The part of a webhook that says which event it is."""

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
        payment = case.payments.get(event.paymentID)
        for endpoint_id in case.evidence.endpoints.get(payment.merchantID, ()) if payment else ():
            delivery = deliveries.get((event.eventID, endpoint_id))
            _examine_delivery(event, endpoint_id, delivery, event.eventID in received, found)
    for webhook_id, entries in received.items():
        _examine_received(webhook_id, events.get(webhook_id), entries, found)
    _examine_order(case.journal, events, found)


def _examine_delivery(event: Event, endpoint_id: str, delivery: Delivery | None, arrived: bool, found: Finding) -> None:
    name = f"event {event.eventID} ({event.type} of payment {event.paymentID})"
    if delivery is None:
        found.violation(f"{name} was never handed to endpoint {endpoint_id}")
    elif delivery.state == "dead":
        found.counted["dead-lettered"] += 1
    elif delivery.state != "delivered":
        found.violation(f"{name} is still {delivery.state} for endpoint {endpoint_id} after {delivery.tries} tries")
    elif not arrived:
        found.violation(f"{name} is marked delivered to {endpoint_id}, but the merchant never received it")


def _examine_received(webhook_id: str, event: Event | None, entries: list[JournalEntry], found: Finding) -> None:
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
    expected = (event.eventID, event.type, event.sequence, event.paymentID)
    if any((body.id, body.event, body.sequence, body.data.paymentID) != expected for body in said):
        found.violation(f"webhook {webhook_id} does not say what event {event.type} of payment {event.paymentID} is")


def _examine_order(journal: Iterable[JournalEntry], events: dict[str, Event], found: Finding) -> None:
    seen: set[tuple[str | None, str]] = set()
    last: dict[tuple[str | None, str], Event] = {}
    for entry in journal:
        event = events.get(entry.webhookID or "") if entry.operation == "webhook" else None
        if event is None or (entry.reference, event.eventID) in seen:
            continue
        seen.add((entry.reference, event.eventID))
        before = last.get((entry.reference, event.paymentID))
        if before is not None and before.sequence > event.sequence:
            told = f"{event.eventID} (number {event.sequence}) came after {before.eventID} (number {before.sequence})"
            found.violation(f"payment {event.paymentID}: event {told}")
        last[entry.reference, event.paymentID] = event
