"""The OpenAPI document: valid, as complete as the routes, and true: examples do what they say, answers are as their schemas have them."""

import copy
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
import pytest_asyncio
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.api import versions
from gateway.api.examples import EXAMPLES
from gateway.api.openapi import ERRORS, operation_id, path_names
from gateway.api.webhook_docs import EVENTS
from gateway.core.event import PUBLISHED
from tests.gateway.api.conftest import KEYS, Answer
from tests.gateway.api.stories import Key, Stories, telling

EXAMPLE_NAMES = [(key, name) for key, examples in EXAMPLES.items() for name in examples]
Document = dict[str, Any]

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stories(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stories]:
    async with telling(tmp_path_factory.mktemp("stories")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def document(stories: Stories) -> Document:
    answer = await stories.site.request("GET", "/openapi.json", key=None)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    return answer.json


def operation(document: Document, key: Key) -> dict[str, Any]:
    found: dict[str, Any] = document["paths"][key[1]][key[0].lower()]
    return found


def inside(value: Any) -> Iterator[Any]:
    """The value and all that is in it."""
    yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from inside(one)


def resolved(document: Document, value: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in value:
        return value
    found: Any = document
    for name in value["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return found


def faults(document: Document, schema: dict[str, Any], value: Any) -> list[str]:
    validator = OAS31Validator(schema | {"components": document["components"]}, format_checker=OAS31Validator.FORMAT_CHECKER)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def conforms(document: Document, schema: dict[str, Any], value: Any) -> None:
    assert faults(document, schema, value) == []


def closed(document: Document) -> Document:
    """With answers' schemas that allow nothing that they do not name."""
    made = copy.deepcopy(document)
    for schema in made["components"]["schemas"].values():
        if schema.get("properties"):
            schema.setdefault("additionalProperties", False)
    return made


def judge(document: Document, key: Key, answer: Answer) -> None:
    """The answer is one that the document has for the route."""
    told = resolved(document, operation(document, key)["responses"][str(answer.status)])
    for name, header in told["headers"].items():
        if name in answer.headers:
            conforms(document, resolved(document, header)["schema"], read(answer.headers[name]))
    assert {"X-Request-ID", "Paydrome-Version"} <= set(answer.headers)
    assert {name for name in answer.headers if name.startswith("RateLimit")} <= set(told["headers"])
    media = answer.headers["Content-Type"].partition(";")[0]
    assert media in told["content"]
    if media.endswith("json"):
        schema = told["content"][media]["schema"]
        conforms(document, schema | ({"additionalProperties": False} if "properties" in schema else {}), answer.json)


def read(header: str) -> str | int:
    return int(header) if header.isdecimal() else header


async def test_the_document_is_valid_and_has_nothing_that_nobody_needs(document: Document):
    assert document["openapi"] == "3.1.0"
    OpenAPIV31SpecValidator(document).validate()
    used = {value["$ref"] for value in inside(document) if isinstance(value, dict) and "$ref" in value}
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        used |= set(schema.get("discriminator", {}).get("mapping", {}).values())
    parts = {kind: names for kind, names in document["components"].items() if kind != "securitySchemes"}
    assert used == {f"#/components/{kind}/{name}" for kind, names in parts.items() for name in names}
    assert all(re.fullmatch(r"[A-Za-z0-9]+", name) for name in schemas), "two structs have the same name"


async def test_patterns_are_those_of_json_schema(document: Document):
    patterns = {
        value["pattern"] for value in inside(document) if isinstance(value, dict) and isinstance(value.get("pattern"), str)
    }
    assert len(patterns) > 20
    for pattern in patterns:
        assert pattern.startswith("^")
        assert pattern.endswith("$")
        assert not re.search(r"\(\?|\\[AZz]", pattern), pattern


async def test_it_has_all_routes_with_all_their_parameters(document: Document, stories: Stories):
    assert {(method.upper(), path) for path, methods in document["paths"].items() for method in methods} == set(stories.routes)
    ids = [operation_id(route) for route in stories.routes.values()]
    assert len(set(ids)) == len(ids)
    tags = {tag["name"] for tag in document["tags"]}
    for key, route in stories.routes.items():
        told = operation(document, key)
        given = [resolved(document, one) for one in told["parameters"]]
        names = {place: [one["name"] for one in given if one["in"] == place] for place in ("path", "query", "header")}
        fields = msgspec.structs.fields(route.query) if route.query else ()
        assert names["path"] == path_names(route)
        assert names["query"] == [field.encode_name for field in fields]
        assert [one["name"] for one in given if one["in"] == "query" and one["required"]] == [
            field.encode_name for field in fields if field.required
        ]
        assert ("Idempotency-Key" in names["header"]) is route.idempotent
        assert versions.HEADER in names["header"]
        assert told["security"] == ([] if route.security == "none" else [{route.security: []}])
        assert ("requestBody" in told) is bool(route.takes or route.accepts)
        assert told["tags"][0] in tags
        assert {str(status) for status in route.errors} <= set(told["responses"])


async def test_every_field_and_parameter_says_what_it_means(document: Document):
    fields = {
        f"{kind}.{name}": schema
        for kind, struct in document["components"]["schemas"].items()
        for name, schema in struct.get("properties", {}).items()
    }
    parameters = {
        one["name"]: one for one in inside(document["paths"]) if isinstance(one, dict) and one.get("in") in ("path", "query")
    }
    unsaid = [name for name, one in (fields | parameters).items() if not one.get("description")]
    assert unsaid == []


async def test_examples_of_fields_are_as_their_schemas_say(document: Document):
    found = [value for value in inside(document["components"]["schemas"]) if isinstance(value, dict) and "examples" in value]
    assert len(found) > 50
    for schema in found:
        for example in schema["examples"]:
            conforms(document, schema, example)


@pytest.mark.parametrize(("key", "name"), EXAMPLE_NAMES, ids=[f"{' '.join(key)} {name}" for key, name in EXAMPLE_NAMES])
async def test_an_example_is_as_the_schema_says_and_works(document: Document, stories: Stories, key: Key, name: str):
    content = next(iter(operation(document, key)["requestBody"]["content"].values()))
    conforms(document, content["schema"], content["examples"][name]["value"])
    path, body = await stories.example(key, name)
    conforms(document, content["schema"], body)
    answer = await stories.ask(key, path, body)
    assert answer.status == stories.routes[key].status, answer.body
    judge(closed(document), key, answer)


async def test_what_can_be_read_is_as_its_schema_says(document: Document, stories: Stories):
    strict, reading = closed(document), [key for key in stories.routes if key[0] in ("GET", "DELETE")]
    for key in reading:
        if key[1] == "/openapi.json":
            continue
        path = await stories.path(key)
        answer = await stories.ask(key, path, None, Accept="text/html, */*")
        assert answer.status in (200, 303), (key, answer.body)
        judge(strict, key, answer)
        if "text/csv" in stories.routes[key].offers:
            judge(strict, key, await stories.ask(key, path + "&format=csv", None))


async def test_whatever_is_wrong_is_refused_by_its_name(document: Document, stories: Stories):
    strict, wrong = closed(document), [[]]
    for key in EXAMPLES:
        path, body = await stories.example(key, next(iter(EXAMPLES[key])))
        content = operation(document, key)["requestBody"]["content"].get("application/json")
        for field in ["nonsense", *{**body, **BODY_FIELDS.get(key, {})}] if content else []:
            answer = await stories.ask(key, path, body | {field: wrong})
            assert (answer.status, answer.json["param"].partition("[")[0]) == (400, field), (key, answer.body)
            judge(strict, key, answer)
    for key, route in stories.routes.items():
        if route.query is None or key == ("POST", "/api/reconciliation/upload"):
            continue
        path = await stories.path(key)
        for name, schema in [("nonsense", {"type": "string"}), *queried(document, key)]:
            for value in ["null"] if schema.get("type") == "string" and "format" not in schema else ["null", "?", ""]:
                others = "&".join(one for one in path.partition("?")[2].split("&") if not one.startswith(f"{name}="))
                answer = await stories.ask(key, f"{path.partition('?')[0]}?{name}={quote(value)}&{others}", None)
                assert (answer.status, answer.json["param"]) == (400, name), (key, value, answer.body)
                judge(strict, key, answer)


BODY_FIELDS = {("POST", "/api/payments/process"): dict.fromkeys(("upiDetails", "captureMethod", "returnUrl", "metadata"))}


def queried(document: Document, key: Key) -> list[tuple[str, dict[str, Any]]]:
    return [(one["name"], one["schema"]) for one in operation(document, key)["parameters"] if one.get("in") == "query"]


@pytest.mark.parametrize("accept", ["application/json", "application/problem+json"])
async def test_refusals_are_as_their_schemas_say(document: Document, stories: Stories, accept: str):
    process, strict = ("POST", "/api/payments/process"), closed(document)
    path, good = await stories.example(process, "card")
    key = {"Idempotency-Key": f"refusals-{accept}"}
    assert (await stories.ask(process, path, good, **key)).status == 201
    refused = [
        (400, process, await stories.ask(process, path, good | {"amount": "ten"}, Accept=accept)),
        (401, process, await stories.ask(process, path, good, api_key="sk_test_nobody", Accept=accept)),
        (403, process, await stories.ask(process, path, good, api_key=KEYS["merchant_2"], Accept=accept)),
        (413, process, await stories.ask(process, path, "x" * 70_000, Accept=accept)),
        (415, process, await stories.ask(process, path, good, Accept=accept, **{"Content-Type": "text/plain"})),
        (422, process, await stories.ask(process, path, good | {"amount": 7}, Accept=accept, **key)),
    ]
    capture = ("POST", "/api/payments/{paymentID}/capture")
    completed = capture[1].format(paymentID=await stories.new("paymentID"))
    refused += [
        (404, capture, await stories.ask(capture, capture[1].format(paymentID="pay_0"), {}, Accept=accept)),
        (409, capture, await stories.ask(capture, completed, {}, Accept=accept)),
    ]
    for status, refusing, answer in refused:
        assert answer.status == status, answer.body
        assert answer.headers["Content-Type"].partition(";")[0] == accept
        judge(strict, refusing, answer)


async def test_every_refusal_has_an_example_in_both_forms(document: Document):
    for name, response in document["components"]["responses"].items():
        if name == "NotModified":
            continue
        assert set(response["content"]) == {"application/json", "application/problem+json"}
        for content in response["content"].values():
            conforms(document, content["schema"], content["example"])
    assert {response["description"] for response in document["components"]["responses"].values()} <= set(ERRORS.values())


async def test_the_webhooks_are_those_that_are_sent(document: Document, stories: Stories):
    assert set(document["webhooks"]) == set(EVENTS) == set(PUBLISHED)
    await stories.new_payment()
    event = (await stories.site.get("/api/webhooks/events?limit=1"))[0]
    body = (await stories.site.get(f"/api/webhooks/events/{event['eventID']}"))["body"]
    strict = closed(document)
    conforms(strict, strict["components"]["schemas"]["WebhookBody"], body)
    for name, webhook in document["webhooks"].items():
        content = webhook["post"]["requestBody"]["content"]["application/json"]
        conforms(document, content["schema"], body | {"event": name})
        conforms(strict, strict["components"]["schemas"]["WebhookBody"], content["example"])
    voided = document["webhooks"]["payment.voided"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert faults(document, voided, body) == ["$.event: 'payment.voided' was expected"]


@pytest.mark.parametrize("path", ["/openapi.json", "/docs"])
async def test_who_has_it_already_is_told_so(stories: Stories, path: str):
    first = await stories.site.request("GET", path, key=None)
    etag = first.headers["ETag"]
    same = await stories.site.request("GET", path, key=None, headers={"If-None-Match": f'"other", {etag}'})
    assert (same.status, same.body, same.headers["ETag"]) == (304, b"", etag)
    other = await stories.site.request("GET", path, key=None, headers={"If-None-Match": '"other"'})
    assert (other.status, other.body) == (200, first.body)


async def test_bodies_that_may_be_left_out_are_those_that_are_not_missed(document: Document, stories: Stories):
    optional = [
        key
        for key in EXAMPLES
        if not operation(document, key)["requestBody"]["required"] and key != ("POST", "/api/payments/process")
    ]
    assert ("POST", "/api/payments/{paymentID}/void") in optional
    for key in optional:
        answer = await stories.ask(key, await stories.path(key), None)
        assert answer.status == stories.routes[key].status, (key, answer.body)
    for key in set(EXAMPLES) - set(optional) - {("POST", "/api/reconciliation/upload")}:
        answer = await stories.ask(key, await stories.path(key), None)
        assert answer.status in (400, 415), (key, json.dumps(answer.json))
