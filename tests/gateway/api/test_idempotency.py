"""Repeating a request changes nothing, on every route that changes something."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from gateway.api.examples import EXAMPLES
from tests.gateway.api.stories import Key, Stories, telling

# What is safe to send again without a key: callbacks say how things are, a browser that comes back has us ask, and gone is gone.
UNKEYED = {
    ("POST", "/api/webhooks/payment"),
    ("POST", "/api/webhooks/refund"),
    ("POST", "/api/payments/{paymentID}/3ds/return"),
    ("DELETE", "/api/webhooks/endpoints/{endpointID}"),
}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stories(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stories]:
    async with telling(tmp_path_factory.mktemp("stories")) as made:
        yield made


async def test_every_route_that_changes_something_takes_a_key(stories: Stories):
    changing = {key for key in stories.routes if key[0] != "GET"}
    keyed = {key for key, route in stories.routes.items() if route.idempotent}
    assert keyed == changing - UNKEYED
    assert keyed == set(EXAMPLES)


@pytest.mark.parametrize("key", EXAMPLES, ids=" ".join)
async def test_the_same_request_is_answered_with_the_same_bytes_and_done_once(stories: Stories, key: Key):
    path, body = await stories.example(key, next(iter(EXAMPLES[key])))
    once = "/".join(key)
    first = await stories.ask(key, path, body, **{"Idempotency-Key": once})
    assert first.status == stories.routes[key].status, first.body
    done = await so_far(stories)
    again = await stories.ask(key, path, body, **{"Idempotency-Key": f'"{once}"'})
    assert (again.status, again.body) == (first.status, first.body)
    assert await so_far(stories) == done
    await refused_with_another_body(stories, key, path, body, once)


async def so_far(stories: Stories) -> tuple[int, int, tuple[int, int], int]:
    """What providers were asked for, and what there is."""
    provider, endpoints = stories.site.provider, await stories.site.get("/api/webhooks/endpoints")
    return len(provider.requests), len(provider.operations), await stories.site.totals(), len(endpoints)


async def refused_with_another_body(stories: Stories, key: Key, path: str, body: Any, claimed: str) -> None:
    other = body + "\r\n" if isinstance(body, str) else body | OTHER.get(key, {})
    api_body = other if other != body else f"{body} "  # where nothing can be said, it is said in other bytes
    answer = await stories.ask(key, path, api_body, **{"Idempotency-Key": claimed})
    assert (answer.status, answer.json["code"]) == (422, "idempotency_key_reused")


OTHER: dict[Key, dict[str, Any]] = {
    ("POST", "/api/payments/process"): {"amount": 1001},
    ("POST", "/api/payments/{paymentID}/capture"): {"amount": 999},
    ("POST", "/api/refunds/process"): {"amount": 401},
    ("POST", "/api/disputes/{disputeID}/evidence"): {"text": "Another one."},
    ("POST", "/api/settlements/process"): {"date": "2026-01-30"},
    ("POST", "/api/reconciliation/run"): {"date": "2026-01-30"},
    ("POST", "/api/reconciliation/breaks/{breakID}/resolve"): {"note": "Another one."},
    ("POST", "/api/webhooks/endpoints"): {"url": "http://127.0.0.1:9/other"},
    ("PATCH", "/api/webhooks/endpoints/{endpointID}"): {"enabled": True},
    ("POST", "/api/webhooks/endpoints/{endpointID}"): {"enabled": True},
    ("POST", "/api/webhooks/endpoints/{endpointID}/rotate"): {"overlapSeconds": 1},
    ("POST", "/api/webhooks/events/{eventID}/replay"): {"endpointID": "ep_1"},
}


@pytest.mark.parametrize("key", EXAMPLES, ids=" ".join)
async def test_a_key_that_is_no_key_is_refused_and_nothing_is_done(stories: Stories, key: Key):
    path, body = await stories.example(key, next(iter(EXAMPLES[key])))
    answer = await stories.ask(key, path, body, **{"Idempotency-Key": "two words"})
    assert (answer.status, answer.json["code"], answer.json["param"]) == (400, "invalid_idempotency_key", "Idempotency-Key")
    done = await stories.ask(key, path, body)
    assert done.status == stories.routes[key].status, done.body
