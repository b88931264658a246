"""The OpenAPI document: as complete as the routes, sound, and its examples are made."""

import re
from typing import Any

import msgspec
import pytest

from simulators import openapi
from simulators.clock import Clock
from simulators.disputes import Dispute
from simulators.openapi import Call, Error, calls
from simulators.routes import Routes

FOR_PEOPLE = {"/", "/live", "/bank/pages/*", "/card/acs/*"}
MANUAL = openapi.BASIC | {"reference": "manual-1", "capture": "manual", "card": openapi.CARD}
DISPUTED = openapi.BASIC | {"reference": "disputed-1", "card": openapi.CARD | {"number": "4000000000000259"}}


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


async def test_it_is_served_and_sound(start):
    client = await start()
    status, document, _ = await client.call("GET", "/openapi.json")
    assert (status, document["openapi"]) == (200, "3.1.0")
    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) == schemas
    operations = [one for path in document["paths"].values() for one in path.values()]
    operations += [one["post"] for one in document["webhooks"].values()]
    identities = [one["operationId"] for one in operations]
    assert len(set(identities)) == len(identities)
    assert all(one["responses"] and one["summary"] for one in operations)
    assert "\\\\Z" not in msgspec.json.encode(document).decode()
    for path, methods in document["paths"].items():
        for one in methods.values():
            assert [parameter["name"] for parameter in one.get("parameters", ())] == re.findall(r"{(\w+)}", path)


async def test_every_example_is_accepted_and_answers_as_the_document_says(start):
    clock = Clock()
    client = await start(clock=clock)
    for body in (MANUAL, DISPUTED):
        assert (await client.call("POST", "/card/charges", json=body))[0] == 200
    clock.advance(2_000)
    _, found, _ = await client.call("GET", "/card/disputes")
    dispute = msgspec.convert(found["disputes"][0], Dispute).disputeID
    examples = [call for call in calls() if call.example is not None]
    for call in sorted(examples, key=after):
        path = call.path.format(reference=reference(call), disputeID=dispute)
        clock.advance(10)  # customers decide
        async with client.session.request(call.method, client.url + path, json=call.example) as answer:
            body = await answer.read()
        assert answer.status == call.status, (call.path, body)
        msgspec.json.decode(body, type=call.answer or Any)


def after(call: Call) -> int:
    """What comes first: what there must be before another call can be made; what ends it all comes last."""
    return 2 if call.path == "/admin/reset" else 1 if "{" in call.path else 0


def reference(call: Call) -> str:
    return (
        "manual-1"
        if call.path.endswith(("/increment", "/capture"))
        else "order-2"
        if call.path.endswith("/reverse")
        else "order-1"
    )


@pytest.mark.parametrize(
    "call", [call for call in calls() if call.example is not None], ids=lambda call: call.method + call.path
)
async def test_a_bad_body_is_refused_as_the_document_says(start, call):
    client = await start()
    path = call.path.format(reference="order-1", disputeID="dp_1")
    async with client.session.request(call.method, client.url + path, json={"nonsense": 1}) as answer:
        error = msgspec.json.decode(await answer.read(), type=Error)
    assert (answer.status, error.code) == (400, "invalid_request")
    assert 400 in call.refusals
