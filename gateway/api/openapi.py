"""The OpenAPI 3.1 document: generated from the routes, and from the structs that decode requests and encode answers.

Nothing about a single route is written down here; what a route cannot say is in rules.py (fields that need each other), glossary.py
(what fields mean) and examples.py.
"""

import json
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from gateway.api import rules, versions, webhook_docs
from gateway.api.examples import EXAMPLES
from gateway.api.glossary import GLOSSARY, Word
from gateway.api.routing import UNCOUNTED, Route, priority_of
from gateway.api.schemas import Schema, Schemas
from gateway.api.wire import Failure, Pagination, Problem
from gateway.core.event import WebhookBody

JSON, PROBLEM = "application/json", "application/problem+json"
DESCRIPTION = """Payments by card, UPI and net banking. Amounts are integers in the currency's minor unit (ISO 4217: `1000` `INR` is ten
rupees), times are RFC 3339 in UTC.

Success is `{"success": true, "data": ...}`, lists have `pagination` beside it. Failure is `{"success": false, "error", "code", "param",
"requestID"}`, or RFC 9457 with `Accept: application/problem+json`. A payment that the issuer declines is no failure of the request: it is
a 201 with `status` `failed`. What belongs to another merchant does not exist: 404.

What changes something takes an `Idempotency-Key`: the same key with the same body gives the same answer, byte for byte, for 24 hours, and
does nothing twice."""
TAGS = {
    "payments": "Take money: at once, or authorize and capture later",
    "refunds": "Give it back",
    "disputes": "What customers told their issuers, and your answers",
    "transactions": "Movements of money",
    "reports": "For the finance department: equal to the ledger to the minor unit",
    "settlements": "What is paid out, day by day",
    "reconciliation": "Our books against the providers' files",
    "webhooks": "Where events go, and how that went",
    "redirects": "Where customers' browsers come back to; not for programs",
    "callbacks": "Where providers call back; not for merchants",
    "health": "Whether it works",
    "documentation": "This document, for programs and for people",
}
ERRORS = {
    304: "The same as you have (`If-None-Match`)",
    400: "Malformed or invalid; `param` names the field",
    401: "No key, a key that is not known, or a signature that does not verify",
    403: "The key may not do this, or names another merchant",
    404: "Not found, or not yours",
    408: "The body did not arrive in time",
    409: "Not possible as things stand, or a request with this Idempotency-Key is still running",
    413: "The body is too large",
    415: "Another media type than this takes",
    422: "The Idempotency-Key was used with another body",
    429: "Too many requests; retry after `Retry-After` seconds",
    503: "Too much to do, or the database cannot be written; retry after `Retry-After` seconds, with the same Idempotency-Key",
}
CODES = {
    400: "invalid_request",
    401: "invalid_api_key",
    403: "wrong_merchant",
    404: "not_found",
    408: "request_timeout",
    409: "operation_in_progress",
    413: "request_too_large",
    415: "unsupported_media_type",
    422: "idempotency_key_reused",
    429: "rate_limited",
    503: "unavailable",
}
_REQUEST_ID = "X-Request-ID"
_SECONDS = {"type": "integer", "minimum": 0}
HEADERS: dict[str, tuple[str, Schema]] = {
    _REQUEST_ID: (
        "The request's own `X-Request-ID` (1 to 64 of `A-Za-z0-9_.:-`), or one that was made for it",
        {"type": "string"},
    ),
    versions.HEADER: ("The version of the API that the answer follows", {"enum": list(versions.VERSIONS)}),
    "RateLimit": ("How many requests are left, and in how many seconds all are again", {"type": "string"}),
    "RateLimit-Policy": ("How many requests are let in, in how many seconds", {"type": "string"}),
    "Retry-After": ("Seconds", _SECONDS),
    "Location": ("The merchant's `returnUrl`, with `paymentID` and `status` in its query", {"type": "string"}),
    "ETag": ("Changes when this document does", {"type": "string"}),
}
_ALWAYS = (_REQUEST_ID, versions.HEADER)
_RATE = ("RateLimit", "RateLimit-Policy")
KEY_PATTERN = r'^([!#-~]{1,255}|"[ !#-~]{1,255}")$'
PARAMETERS: dict[str, Schema] = {
    "version": {
        "name": versions.HEADER,
        "in": "header",
        "description": "Which version of the API you were written for; without it, the newest",
        "schema": {"enum": list(versions.VERSIONS)},
    },
    "idempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Your own id of this request, quoted or bare: sent again, it gets the same answer, and nothing is done twice",
        "schema": {"type": "string", "pattern": KEY_PATTERN},
        "example": "order-1-try-1",
    },
}


def document(routes: Sequence[Route]) -> bytes:
    """OpenAPI 3.1 of these routes, as JSON."""
    schemas = Schemas(
        taken=[route.takes for route in routes if route.takes],
        queries=[route.query for route in routes if route.query],
        given=[Failure, Problem, Pagination, WebhookBody, *(route.gives for route in routes if route.gives)],
    )
    rules.apply(schemas.components)
    links = _links(routes)
    paths: dict[str, Schema] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas, links)
    statuses = sorted({status for route in routes for status in _refusals(route)})
    used = {route.tag for route in routes}
    return json.dumps(
        {
            "openapi": "3.1.0",
            "info": {"title": "paydrome gateway", "version": versions.NEWEST, "description": DESCRIPTION},
            "servers": [{"url": "/"}],
            "tags": [{"name": name, "description": said} for name, said in TAGS.items() if name in used],
            "paths": paths,
            "webhooks": webhook_docs.webhooks(),
            "components": {
                "schemas": schemas.components,
                "parameters": PARAMETERS | webhook_docs.PARAMETERS,
                "headers": {name: {"description": said, "schema": schema} for name, (said, schema) in HEADERS.items()},
                "responses": {_refusal_name(status): _refusal(status, schemas) for status in statuses},
                "securitySchemes": _SECURITY,
            },
        },
        ensure_ascii=False,
    ).encode()


_SECURITY: dict[str, Schema] = {
    "key": {"type": "http", "scheme": "bearer", "description": "A merchant's API key, or the operator's: `sk_test_...`"},
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "webhook-signature",
        "description": "The provider's signature over the raw body, by the Standard Webhooks scheme",
    },
}


def _operation(route: Route, schemas: Schemas, links: dict[str, dict[str, str]]) -> Schema:
    parameters = [_in_path(name) for name in path_names(route)]
    parameters += schemas.queries[route.query] if route.query else []
    names = ["version", *(["idempotencyKey"] if route.idempotent else [])]
    names += [name for name in webhook_docs.PARAMETERS if name != "webhook-signature"] if route.security == "signature" else []
    parameters += [{"$ref": f"#/components/parameters/{name}"} for name in names]
    told: Schema = {
        "operationId": operation_id(route),
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": parameters,
        "security": [] if route.security == "none" else [{route.security: []}],
    }
    if body := _body(route, schemas):
        told["requestBody"] = body
    refused = {str(status): {"$ref": f"#/components/responses/{_refusal_name(status)}"} for status in sorted(_refusals(route))}
    told["responses"] = _successes(route, schemas, links) | refused
    return told


def operation_id(route: Route) -> str:
    """`POST /api/payments/{paymentID}/capture`: postPaymentsCapture; of all of a kind and one of them, the latter is called By..."""
    words = [word for word in route.path.removeprefix("/api").split("/") if word]
    last = [f"By{words[-1][1:2].upper()}{words[-1][2:-1]}"] if words[-1].startswith("{") else []
    named = [part for word in words if not word.startswith("{") for part in re.split(r"\W+", word)]
    return route.method.lower() + "".join(part[:1].upper() + part[1:] for part in [*named, *last])


def path_names(route: Route) -> list[str]:
    return re.findall(r"{(\w+)}", route.path)


def _in_path(name: str) -> Schema:
    word = GLOSSARY.get(name, Word(""))
    schema = {"type": "string"} | ({"pattern": word.pattern} if word.pattern else {})
    return {"name": name, "in": "path", "required": True, "description": word.means, "example": word.example, "schema": schema}


def _body(route: Route, schemas: Schemas) -> Schema | None:
    if not route.takes and not route.accepts:
        return None
    examples = {
        name: {"summary": example.summary, "value": _filled(example.body)}
        for name, example in EXAMPLES.get((route.method, route.path), {}).items()
    }
    if route.takes:
        content = {JSON: {"schema": schemas.of[route.takes]}}
    else:
        content = {media: {"schema": {"description": f"Of the media type {media}, as it is"}} for media in route.accepts}
    if examples:
        next(iter(content.values()))["examples"] = examples
    return {"required": _is_required(route), "content": content}


def _is_required(route: Route) -> bool:
    """A body in which nothing has to be said may be left out; so may what a browser brings, at which nobody looks."""
    if route.takes is None or route.security == "signature":
        return route.security != "none"
    return any(field.required for field in msgspec.structs.fields(route.takes))


def _filled(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """With the glossary's ids for those that an example leaves open: `{paymentID}`."""
    if isinstance(value, dict):
        return {name: _filled(one) for name, one in value.items()}
    if isinstance(value, str) and (named := re.fullmatch(r"{(\w+)}", value)):
        return GLOSSARY[named[1]].example
    return value


def _successes(route: Route, schemas: Schemas, links: dict[str, dict[str, str]]) -> dict[str, Schema]:
    names = [*_ALWAYS, *(_RATE if _is_counted(route) else []), *(["ETag"] if 304 in route.errors else [])]
    if route.status == 303:
        page = {
            "description": "The payment is of a merchant without a returnUrl",
            "content": {route.content_type: {"schema": _TEXT}},
        }
        away = {"description": "On to the merchant", "headers": _headers([*names, "Location"])}
        return {"200": page | {"headers": _headers(names)}, "303": away}
    content = {route.content_type: {"schema": _answer(route, schemas)}} | {media: {"schema": _TEXT} for media in route.offers}
    made = {"description": HTTPStatus(route.status).phrase, "headers": _headers(names), "content": content}
    if found := _links_of(route, links):
        made["links"] = found
    return {str(route.status): made}


_TEXT = {"type": "string"}


def _answer(route: Route, schemas: Schemas) -> Schema:
    if route.gives is None:
        return _TEXT if route.content_type != JSON else {"type": "object"}
    given = schemas.of[route.gives]
    if route.bare:
        return given
    parts: Schema = {"success": {"const": True}, "data": {"type": "array", "items": given} if route.listed else given}
    parts |= {"pagination": schemas.of[Pagination]} if route.listed else {}
    return {"type": "object", "properties": parts, "required": list(parts)}


def _headers(names: Sequence[str]) -> Schema:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _refusals(route: Route) -> set[int]:
    """What may go wrong: what the route says, and what may with every route of its kind."""
    found = {400, 503, *route.errors}
    if route.security == "key":
        found |= {401, 403}  # the operator's key, where a merchant's is needed
    if route.security == "signature":
        found.add(401)
    if _is_counted(route):
        found.add(429)
    if route.takes or route.accepts:
        found |= {408, 413, 415}
    if route.idempotent:
        found |= {409, 422}
    return found | ({404} if path_names(route) else set())


def _is_counted(route: Route) -> bool:
    return priority_of(route) not in UNCOUNTED


def _refusal_name(status: int) -> str:
    return re.sub(r"\W", "", HTTPStatus(status).phrase)


def _refusal(status: int, schemas: Schemas) -> Schema:
    headers = _headers([*_ALWAYS, *_RATE, *(["Retry-After"] if status in (429, 503) else [])])
    phrase = HTTPStatus(status).phrase
    why = ERRORS.get(status, phrase)
    if status == HTTPStatus.NOT_MODIFIED:
        return {"description": why, "headers": headers}
    said = {"code": CODES.get(status, "error"), "requestID": GLOSSARY["requestID"].example}
    problem = {"type": "about:blank", "title": phrase, "status": status, "detail": why}
    content = {
        JSON: {"schema": schemas.of[Failure], "example": {"success": False, "error": why} | said},
        PROBLEM: {"schema": schemas.of[Problem], "example": problem | said},
    }
    return {"description": why, "headers": headers, "content": content}


def _links(routes: Sequence[Route]) -> dict[str, dict[str, str]]:
    """The operations that take an id, by its name: where one can go from an answer that has it."""
    found: dict[str, dict[str, str]] = {}
    for route in routes:
        if route.security == "key" and len(names := path_names(route)) == 1 and names[0] != "merchantID":
            found.setdefault(names[0], {})[operation_id(route)] = names[0]
    return found


def _links_of(route: Route, links: dict[str, dict[str, str]]) -> Schema:
    """Links from what a POST made to what can be done with it."""
    if route.gives is None or route.security != "key" or route.method != "POST":
        return {}
    fields = {field.encode_name for field in msgspec.structs.fields(route.gives)}
    return {
        operation: {"operationId": operation, "parameters": {name: f"$response.body#/data/{name}"}}
        for name, operations in links.items()
        if name in fields
        for operation in operations
        if operation != operation_id(route)
    }
