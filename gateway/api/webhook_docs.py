"""The webhooks in the OpenAPI document: what each event tells, and the headers of what is signed, which callbacks have, too."""

import re
from typing import Any

from gateway.api.glossary import GLOSSARY, INSTANT
from gateway.api.schemas import Schema

HEADERS = {
    "webhook-id": "The event's or callback's id; the same when it is sent again",
    "webhook-timestamp": "When this was sent, in seconds since 1970; more than 300 s off is refused",
    "webhook-signature": "`v1,` and the base64 HMAC-SHA256 of `id.timestamp.body` (Standard Webhooks); several with spaces between",
}
EVENTS = {
    "payment.requires_action": "The customer has to act after all, which the answer to the payment could not tell yet",
    "payment.authorized": "The issuer holds the money; capture or void it",
    "payment.partially_captured": "A part was captured, and more can be",
    "payment.completed": "The customer has paid",
    "payment.voided": "What was authorized is released, or the customer need not act any more",
    "payment.failed": "The issuer or bank declined, or the provider could not be reached; no money has moved",
    "payment.expired": "The customer did not act in time, or nobody captured what was authorized",
    "capture.failed": "The provider refused a capture",
    "refund.completed": "The customer has the money back",
    "refund.failed": "The provider could not refund; the money is the merchant's again",
    "dispute.opened": "The customer disputes a payment; answer before `respondBy`",
    "dispute.under_review": "The issuer has the evidence, and decides",
    "dispute.won": "The money is the merchant's again",
    "dispute.lost": "The money stays with the customer",
    "dispute.closed": "An inquiry ended without a dispute",
    "settlement.created": "A day was settled",
    "settlement.completed": "A settlement was paid out",
    "settlement.failed": "A settlement could not be paid out; settle the day again",
}


PARAMETERS: dict[str, Schema] = {
    name: {"name": name, "in": "header", "required": True, "description": said, "schema": {"type": "string"}}
    for name, said in HEADERS.items()
}


def webhooks() -> dict[str, Schema]:
    """The `webhooks` of the document, by their events."""
    return {name: {"post": _webhook(name, said)} for name, said in EVENTS.items()}


def _webhook(name: str, said: str) -> Schema:
    own = {"type": "object", "properties": {"event": {"const": name}}}
    body = {"allOf": [{"$ref": "#/components/schemas/WebhookBody"}, own]}
    example = {"event": name, "data": _event_data(name), "id": GLOSSARY["eventID"].example, "sequence": 2}
    return {
        "operationId": "on" + "".join(part[:1].upper() + part[1:] for part in re.split(r"\W|_", name)),
        "summary": said,
        "description": "Signed, and sent again until it is answered with 2xx",
        "parameters": [{"$ref": f"#/components/parameters/{header}"} for header in HEADERS],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body, "example": example}}},
        "responses": {
            "2XX": {"description": "Received"},
            "410": {"description": "Nobody is here any more: the endpoint gets no more events"},
        },
    }


def _event_data(name: str) -> dict[str, Any]:
    """An example of what the webhook tells: ids of what the event is about, and how that stands."""
    family, _, status = name.partition(".")
    ids = ["settlementID"] if family == "settlement" else ["paymentID", "transactionID"]
    ids += [f"{family}ID"] if family in ("capture", "refund", "dispute") else []
    told = {each: GLOSSARY[each].example for each in (*ids, "amount", "currency")}
    unlike = {"dispute.opened": "needs_response", "dispute.closed": "warning_closed", "settlement.created": "ready"}
    return told | {"status": unlike.get(name, status), "timestamp": INSTANT}
