"""The OpenAPI document: valid, as complete as the routes, and true: every call is made and answers as it says."""

import re
from typing import Any

import msgspec
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from simulators import openapi
from simulators.clock import Clock
from simulators.disputes import Dispute
from simulators.openapi import Call, Error, calls
from simulators.routes import Routes

FOR_PEOPLE = {"/", "/live", "/bank/pages/*", "/card/acs/*"}
SIGNED = "/merchant/webhooks/{name}"  # by a gateway: see test_merchant.py
MANUAL = openapi.BASIC | {"reference": "manual-1", "capture": "manual", "card": openapi.CARD}
DISPUTED = openapi.BASIC | {"reference": "disputed-1", "card": openapi.CARD | {"number": "4000000000000259"}}
NAMES = {"/admin/faults": "rare", "/admin/snapshots": "clean", "/admin/tenants": "job-1"}


def name(call: Call) -> str:
    return call.method + call.path


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return msgspec.json.decode(openapi.document())


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Methods by path, as they are added; to be filled by serving."""
    found: dict[str, set[str]] = {}
    add = Routes.add

    def noted(routes: Routes, path: str, **handlers: Any) -> None:
        found.setdefault(path, set()).update(handlers)
        add(routes, path, **handlers)

    monkeypatch.setattr(Routes, "add", noted)
    return found


async def test_the_document_has_exactly_the_calls_that_are_served(served, start):
    await start()
    documented: dict[str, set[str]] = {}
    for call in calls():
        documented.setdefault(re.sub(r"{\w+}", "*", call.path), set()).add(call.method.upper())
    assert documented == {path: methods for path, methods in served.items() if path not in FOR_PEOPLE}


def references(value: Any) -> set[str]:
    """All `$ref`s in it."""
    if isinstance(value, dict):
        own = {value["$ref"]} if "$ref" in value else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


async def test_it_is_served_valid_and_has_nothing_that_nobody_needs(start):
    status, document, _ = await (await start()).call("GET", "/openapi.json")
    assert (status, document["openapi"]) == (200, "3.1.0")
    OpenAPIV31SpecValidator(document).validate()
    kinds = document["components"].items()
    assert references(document) == {f"#/components/{kind}/{name}" for kind, components in kinds for name in components}
    assert "\\\\Z" not in msgspec.json.encode(document).decode()


@pytest.mark.parametrize("call", calls(), ids=name)
def test_a_call_has_the_parameters_of_its_path_and_its_query(document, call):
    told = document["paths"][call.path][call.method].get("parameters", [])
    query = [field.encode_name for field in msgspec.structs.fields(call.query)] if call.query else []
    assert [one["name"] for one in told if one["in"] == "path"] == re.findall(r"{(\w+)}", call.path)
    assert sorted(one["name"] for one in told if one["in"] == "query") == sorted(query)


@pytest.mark.parametrize("call", [call for call in calls() if call.query], ids=name)
async def test_a_query_takes_what_its_schema_says_and_nothing_else(document, start, call):
    client = await start()
    url = client.url + call.path.format(day="2026-01-01", merchantID="m")
    for parameter in document["paths"][call.path][call.method]["parameters"]:
        if parameter["in"] != "query":
            continue
        field, schema = parameter["name"], parameter["schema"]
        for value in schema.get("enum") or [schema["default"] if "default" in schema else sample(schema)]:
            needed = {"currency": "INR"} if value == "camt.053" else {}
            async with client.session.request(call.method, url, params=needed | {field: value}) as answer:
                assert answer.status == 200, (parameter, await answer.text())
        free = schema.get("type") == "string" and "pattern" not in schema
        wrong = [(field, "a"), (field, "b")] if free else [(field, "?")]  # of free text only one is allowed
        async with client.session.request(call.method, url, params=wrong) as answer:
            assert answer.status == 400, parameter


def sample(schema: dict[str, Any]) -> str | int:
    if schema["type"] == "integer":
        return schema.get("minimum", -1)
    return "INR" if "A-Z" in schema.get("pattern", "") else "a"


async def test_every_call_answers_as_the_document_says(document, start):
    clock = Clock()
    client = await start(clock=clock)
    for body in (MANUAL, DISPUTED, DISPUTED | {"reference": "disputed-2"}):
        assert (await client.call("POST", "/card/charges", json=body))[0] == 200
    clock.advance(2_000)
    _, found, _ = await client.call("GET", "/card/disputes")
    one, other = (msgspec.convert(dispute, Dispute).disputeID for dispute in found["disputes"])
    for call in sorted(calls(), key=turn):
        if call.path == SIGNED:
            continue
        clock.advance(10)  # customers decide
        path = call.path.format(
            reference=reference(call),
            disputeID=one if call.path.endswith("/evidence") else other,
            name=NAMES.get(call.path.partition("/{")[0]),
            merchantID="shop",
            day="2026-01-01",
        )
        # Who reads a query refuses what it does not know: a query that the document has not is found by that.
        unknown = {"nonsense": "1"} if call.query is None else {}
        async with client.session.request(call.method, client.url + path, json=call.example, params=unknown) as answer:
            body = await answer.read()
        assert (answer.status, answer.content_type) == (call.status, call.media), (call.path, body)
        if call.media == "application/json":
            content = document["paths"][call.path][call.method]["responses"][str(call.status)]["content"]
            schema = content[call.media]["schema"] | {"components": document["components"]}
            OAS31Validator(schema).validate(msgspec.json.decode(body))


def turn(call: Call) -> int:
    """What there must be before others can be asked for comes first; what ends it all comes last."""
    last = {"/upi/mandates/{reference}/revoke": 2, "/admin/reset": 2, "/admin/snapshots/{name}/restore": 3}
    return 4 if call.method == "delete" else last.get(call.path, 1 if "{" in call.path else 0)


def reference(call: Call) -> str:
    if call.path.endswith("/refunds/{reference}"):
        return "part-1"
    if call.path.endswith(("/increment", "/capture")):
        return "manual-1"
    return "order-2" if call.path.endswith("/reverse") else "order-1"


@pytest.mark.parametrize("call", [call for call in calls() if call.example is not None], ids=name)
async def test_a_bad_body_is_refused_as_the_document_says(start, call):
    client = await start()
    path = call.path.format(reference="order-1", disputeID="dp_1")
    async with client.session.request(call.method, client.url + path, json={"nonsense": 1}) as answer:
        error = msgspec.json.decode(await answer.read(), type=Error)
    assert (answer.status, error.code) == (400, "invalid_request")
    assert 400 in call.refusals
