"""`GET /openapi.json`: OpenAPI 3.1, generated from the structs that decode the calls and encode the answers.

What is written down here is only which path has which struct. The tests hold it against the routes that are really there, and make
every example.
"""

import re
from functools import cache
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from simulators.admin import Timeline
from simulators.answers import Balance, Kept, ResetDone, Restored, Snapshots, Tenant, TenantList, WorldTime
from simulators.authentications import AuthenticationRequest
from simulators.autopay import Execute, Register
from simulators.bank_payouts import Order as PayoutOrder
from simulators.charges import Charge
from simulators.control import Advance, NewSnapshot, Reset
from simulators.digest import Fates
from simulators.disputes import Dispute
from simulators.durations import Duration
from simulators.endpoints import Capture, DisputeQuery, Evidence, Increment, RefundRequest, Reversal
from simulators.explain import Explanation
from simulators.journal import Row
from simulators.mandates import Mandate
from simulators.payouts import Payout
from simulators.providers import card, netbanking, upi
from simulators.refunds import Refund
from simulators.routes import Routes
from simulators.search import Search, Window
from simulators.settlement import Order as SettlementOrder
from simulators.statements import Order as StatementOrder
from simulators.steps import Step
from simulators.tenants import HEADER, NewTenant
from simulators.threeds import Authentication
from simulators.verification import Verdict, Verification
from simulators.wire import JSON

DESCRIPTION = """Simulated payment providers. Amounts are integers in the currency's minor unit, times are ms since 1970 (UTC).
Any call can be told to go wrong (docs/faults.md); `X-Paydrome-Fault` and `X-Paydrome-Fault-Id` say what was done to an answer and
`X-Paydrome-Delay-Ms` how long it was held back. A path may begin with `/t/NAME`, or a call have the header `X-Paydrome-Tenant: NAME`,
for a world of its own (docs/control.md)."""
REF = "#/components/schemas/{name}"
TENANT = "#/components/parameters/tenant"


class Error(msgspec.Struct):
    """Every refusal. `error` is a sentence for a person, `code` is for a program."""

    error: str
    code: str


class Disputes(msgspec.Struct):
    """The newest 1000, newest first."""

    disputes: list[Dispute]


class Live(msgspec.Struct):
    """Answer of `GET /health`."""

    status: str


class Call(NamedTuple):
    """One method of one path. `media` is the answer's kind where it is not the JSON of a struct, `query` a struct of parameters."""

    method: str
    path: str
    summary: str
    answer: type | None = None
    body: type | None = None
    example: dict[str, Any] | None = None
    refusals: tuple[int, ...] = (400,)
    status: int = 200
    media: str = "application/json"
    query: type | None = None


BASIC = {"reference": "order-1", "amount": 49900, "currency": "INR", "merchantID": "shop"}
CARD = {"number": "4111111111111111", "expiryMonth": "12", "expiryYear": "2099", "cvv": "123"}
CALLBACK = "http://127.0.0.1:9/callbacks"
PART = {"reference": "part-1", "amount": 900, "currency": "INR"}
WHOLE = {"amount": 49900, "currency": "INR"}
MANDATE = {
    "reference": "order-1",
    "merchantID": "shop",
    "vpa": "success@upi",
    "amountMax": 49900,
    "currency": "INR",
    "frequency": "as_presented",
    "startAt": 0,
    "endAt": 4_102_444_800_000,
    "callbackURL": CALLBACK,
}
PAYEE = {"type": "account", "accountNumber": "000123456789", "ifsc": "PAYD0000001", "name": "A. Payee"}
PAYOUT = BASIC | {"beneficiary": PAYEE, "mode": "IMPS", "purpose": "salary", "callbackURL": CALLBACK}
CREATES: dict[str, tuple[type, dict[str, Any]]] = {
    "/card/charges": (card.CreateCharge, BASIC | {"card": CARD}),
    "/upi/payments": (upi.CreatePayment, BASIC | {"flow": "qr", "callbackURL": CALLBACK}),
    "/bank/payments": (netbanking.CreatePayment, BASIC | {"bankCode": "HDFC0000001", "callbackURL": CALLBACK}),
}
KNOWN = (400, 404)
CHANGING = (400, 404, 409)


def calls() -> list[Call]:
    """All calls that a program makes; the pages for people are not in here."""
    found = []
    for path, (create, example) in CREATES.items():
        one, refunds = f"{path}/{{reference}}", f"{path.rpartition('/')[0]}/refunds/{{reference}}"
        found += [
            Call("post", path, "Create a charge, or get the one there is", Charge, create, example, (400, 409)),
            Call("get", one, "What became of a charge", Charge, refusals=(400, 404, 429)),
            Call("post", f"{one}/refunds", "Refund a part or all", Refund, RefundRequest, PART, CHANGING),
            Call("get", refunds, "What became of a refund", Refund, refusals=KNOWN),
            Call("post", f"{one}/reverse", "Undo, cancel, void or block a charge", Charge, Reversal, WHOLE, (400, 409)),
        ]
    return [*found, *_CARD, *_UPI, *_BANK, *_OPERATOR]


_CHARGE, _DISPUTE, _AUTHENTICATION = "/card/charges/{reference}", "/card/disputes/{disputeID}", "/card/3ds/authentications"
_MANDATE, _AUTHENTICATE = "/upi/mandates/{reference}", BASIC | {"card": CARD, "returnURL": "http://127.0.0.1:9/back"}
_CARD = [
    Call("post", f"{_CHARGE}/increment", "Raise what is authorized", Step, Increment, PART, CHANGING),
    Call("post", f"{_CHARGE}/capture", "Take a part or all of what is authorized", Step, Capture, PART, CHANGING),
    Call("get", "/card/disputes", "The newest disputes", Disputes, query=DisputeQuery),
    Call("get", _DISPUTE, "A dispute", Dispute, refusals=KNOWN),
    Call("post", f"{_DISPUTE}/accept", "Give in", Dispute, refusals=CHANGING),
    Call("post", f"{_DISPUTE}/evidence", "Answer with evidence", Dispute, Evidence, {"text": "delivered"}, CHANGING),
    Call("post", _AUTHENTICATION, "3-D Secure", Authentication, AuthenticationRequest, _AUTHENTICATE, (400, 409)),
    Call("get", f"{_AUTHENTICATION}/{{reference}}", "What became of an authentication", Authentication, refusals=KNOWN),
]
_UPI = [
    Call("get", "/upi/payments/{reference}/qr.svg", "The QR code", refusals=KNOWN, media="image/svg+xml"),
    Call("post", "/upi/mandates", "Register a mandate", Mandate, Register, MANDATE, (400, 409)),
    Call("get", _MANDATE, "What became of a mandate", Mandate, refusals=KNOWN),
    Call("post", f"{_MANDATE}/revoke", "Revoke a mandate", Mandate, refusals=KNOWN),
    Call(
        "post",
        f"{_MANDATE}/executions",
        "Debit under a mandate",
        Charge,
        Execute,
        {"reference": "debit-1", "amount": 900},
        CHANGING,
    ),
]
_BANK = [
    Call("post", "/bank/payouts", "Send money to somebody", Payout, PayoutOrder, PAYOUT, (400, 409)),
    Call("get", "/bank/payouts/{reference}", "What became of a payout", Payout, refusals=KNOWN),
    Call("get", "/bank/statements/{merchantID}/{day}", "The bank's statement of a day", query=StatementOrder),
]
_VERIFY = {"expect": [{"operation": "create", "reference": "order-1", "provider": "card"}]}
_OPERATOR = [
    Call("get", "/health", "Whether it lives", Live, refusals=()),
    Call("get", "/health/ready", "Whether it serves", Live, refusals=()),
    Call("get", "/journal", "What really happened, an entry a line", Row, media="application/x-ndjson", query=Search),
    Call("get", "/metrics", "Prometheus metrics", media="text/plain", refusals=()),
    Call("get", "/openapi.json", "This document", refusals=()),
    Call("post", "/merchant/webhooks/{name}", "Receive a gateway's webhook", refusals=(400, 401)),
    *(
        call
        for provider in ("card", "upi", "bank")
        for call in (
            Call(
                "get",
                f"/settlements/{provider}/{{day}}",
                "The settlement file of a day",
                media="text/csv",
                query=SettlementOrder,
            ),
            Call(
                "get", f"/settlements/{provider}/{{day}}/answers", "The breaks that were planted in it", query=SettlementOrder
            ),
        )
    ),
    Call("post", "/admin/timeline", "Set the timeline's zero", Timeline, Timeline, {"startAtMs": 1_700_000_000_000}),
    Call("post", "/admin/verify", "Did this happen, so many times?", Verdict, Verification, _VERIFY),
    Call("get", "/admin/balance", "What moved, by currency", Balance, query=Window),
    Call("get", "/admin/digest", "One number for the fates of all charges", Fates, refusals=()),
    Call("get", "/admin/explain/{reference}", "Why a reference met what it met", Explanation, refusals=KNOWN),
    Call("get", "/admin/live", "What the live page shows", refusals=()),
    Call("get", "/admin/config", "The settings in force", dict, refusals=()),
    Call("patch", "/admin/config", "Change settings: a JSON merge patch", dict, dict, {"card": {"outcomes": {"00": 1}}}),
    Call("get", "/admin/faults", "All faults", refusals=()),
    Call(
        "post",
        "/admin/faults",
        "Start a fault (docs/faults.md)",
        body=dict,
        example={"provider": "upi", "name": "rare", "kind": "unavailable", "probability": 0.0},
        refusals=(400, 409),
        status=201,
    ),
    Call("delete", "/admin/faults/{name}", "Stop a fault", refusals=(404,)),
    Call("get", "/admin/ports", "The ports that providers have of their own"),
    Call("get", "/admin/clock", "The world's time, and what waits for it", WorldTime, refusals=()),
    Call("post", "/admin/clock/advance", "Move the clock", WorldTime, Advance, {"by": "1s"}),
    Call("post", "/admin/reset", "Forget what happened", ResetDone, Reset, {"seed": 7}),
    Call("get", "/admin/snapshots", "What was kept", Snapshots, refusals=()),
    Call("post", "/admin/snapshots", "Keep the world", Kept, NewSnapshot, {"name": "clean"}, (400, 429), status=201),
    Call("post", "/admin/snapshots/{name}/restore", "Make the world what it was", Restored, refusals=(404,)),
    Call("delete", "/admin/snapshots/{name}", "Forget a snapshot", refusals=(404,)),
    Call("get", "/admin/tenants", "All tenants", TenantList, refusals=()),
    Call("post", "/admin/tenants", "Make a tenant", Tenant, NewTenant, {"name": "job-1"}, (400, 409, 429), status=201),
    Call("delete", "/admin/tenants/{name}", "End a tenant", refusals=(404,)),
]
WEBHOOKS: dict[str, type] = {
    "charge": Charge,
    "refund": Refund,
    "dispute": Dispute,
    "mandate": Mandate,
    "authentication": Authentication,
    "payout": Payout,
}


def add(routes: Routes) -> None:
    """Serves the document."""

    async def show(_request: web.BaseRequest, _: str) -> web.Response:
        return web.Response(body=document(), headers=JSON)

    routes.add("/openapi.json", GET=show)


@cache
def document() -> bytes:
    """The document; made when it is first asked for."""
    structs = [Error, *WEBHOOKS.values()]
    structs += [
        kind for call in calls() for kind in (call.answer, call.body, call.query) if kind is not None and kind is not dict
    ]
    unique = list(dict.fromkeys(structs))
    schemas, components = msgspec.json.schema_components(unique, schema_hook=_schema, ref_template=REF)
    of = dict(zip(unique, schemas, strict=True)) | {dict: {"type": "object"}}
    queries = {kind: _parameters(components.pop(of[kind]["$ref"].rpartition("/")[2])) for kind in _queries()}
    tenant = {"name": HEADER, "in": "header", "description": "whose world", "schema": {"type": "string"}}
    paths: dict[str, dict[str, Any]] = {}
    for call in calls():
        shared = {} if call.path.startswith("/admin/tenants") else {"parameters": [{"$ref": TENANT}]}
        paths.setdefault(call.path, shared)[call.method] = _operation(call, of, queries)
    return msgspec.json.encode(
        _portable(
            {
                "openapi": "3.1.0",
                "info": {"title": "paydrome simulators", "version": "1", "description": DESCRIPTION},
                "paths": paths,
                "webhooks": {name: {"post": _callback(name, of[kind])} for name, kind in WEBHOOKS.items()},
                "components": {"schemas": components, "parameters": {"tenant": tenant}},
            }
        )
    )


def _queries() -> set[type]:
    return {call.query for call in calls() if call.query}


def _parameters(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The fields of a query's struct, each a parameter."""
    return [{"name": name, "in": "query", "schema": _given(one)} for name, one in schema["properties"].items()]


def _given(schema: dict[str, Any]) -> dict[str, Any]:
    """What a parameter may be where it stands: `null` is no text."""
    choices = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    return choices[0] if len(choices) == 1 else schema


def _operation(call: Call, of: dict[type, Any], queries: dict[type, list[dict[str, Any]]]) -> dict[str, Any]:
    names = re.findall(r"{(\w+)}", call.path)
    told: dict[str, Any] = {
        "operationId": call.method + re.sub(r"\W+", "_", call.path).rstrip("_"),
        "summary": call.summary,
        "responses": {
            str(call.status): {
                "description": "done",
                "content": {call.media: {"schema": of[call.answer] if call.answer else {}}},
            }
        },
    }
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    parameters += queries[call.query] if call.query else []
    if parameters:
        told["parameters"] = parameters
    if call.body:
        told["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": of[call.body], "example": call.example}},
        }
    for status in call.refusals:
        content = {"application/json": {"schema": of[Error]}}
        told["responses"][str(status)] = {"description": "refused; nothing has changed", "content": content}
    return told


def _callback(name: str, schema: Any) -> dict[str, Any]:  # noqa: ANN401 - a JSON schema
    headers = ("webhook-id", "webhook-timestamp", "webhook-signature")
    own: dict[str, Any] = {"id": {"type": "string"}, "provider": {"enum": ["card", "upi", "bank"]}}
    own |= {} if name == "charge" else {"type": {"const": name}}
    body = {"allOf": [schema, {"type": "object", "properties": own, "required": list(own)}]}
    return {
        "operationId": f"callback_{name}",
        "summary": "Signed by the Standard Webhooks scheme, and tried again unless it is answered with 2xx",
        "parameters": [{"name": header, "in": "header", "required": True, "schema": {"type": "string"}} for header in headers],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"2XX": {"description": "received"}},
    }


def _schema(kind: type) -> dict[str, Any]:
    if kind is Duration:
        return {"type": "string", "examples": ["250ms", "1.5s", "7d"]}
    raise NotImplementedError(kind)


def _portable(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Patterns as JSON Schema has them: `$` is the end of the text there, which Python calls `\\Z`."""
    if isinstance(value, dict):
        return {
            name: one.replace(r"\Z", "$") if name == "pattern" and isinstance(one, str) else _portable(one)
            for name, one in value.items()
        }
    return [_portable(one) for one in value] if isinstance(value, list) else value
