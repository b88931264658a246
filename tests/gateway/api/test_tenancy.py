"""Nobody meets another merchant's objects, on any route: what is another's answers as what does not exist does, byte for byte."""

import re
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from gateway.api.examples import BY_CARD, EXAMPLES
from gateway.api.openapi import path_names
from tests.gateway.api.conftest import KEYS, Answer, without_ids
from tests.gateway.api.stories import QUERIES, YESTERDAY, Key, Stories, telling

OURS, THEIRS = KEYS["merchant_2"], KEYS["merchant_123"]
DAY = {"merchantID": "{merchantID}", "date": YESTERDAY}


class Row(NamedTuple):
    """How a route is kept from showing what is another's. `object`: an id in its path or body leads nowhere. `forbidden`: it names a
    merchant. `list`: nothing of another's is in it, whatever `query` asks for. `operator`: it takes no merchant's key. `open`: it needs no
    key, and has nothing of anybody's, or takes what is signed. In `query` and `body`, ids are `{names}`."""

    way: str
    query: str = ""
    body: Any = None


OBJECT, OPEN, OPERATOR = Row("object"), Row("open"), Row("operator")

ROWS: dict[Key, Row] = {
    ("POST", "/api/payments/process"): Row("forbidden", body=BY_CARD | {"merchantID": "{merchantID}"}),
    ("GET", "/api/payments/{paymentID}"): OBJECT,
    ("GET", "/api/payments/{paymentID}/status"): OBJECT,
    ("GET", "/api/payments/{paymentID}/events"): OBJECT,
    ("POST", "/api/payments/{paymentID}/capture"): OBJECT,
    ("POST", "/api/payments/{paymentID}/void"): OBJECT,
    ("POST", "/api/refunds/process"): Row("object", body={"paymentID": "{paymentID}"}),
    ("GET", "/api/refunds/{refundID}/status"): OBJECT,
    ("GET", "/api/disputes"): Row("list", "?cursor={disputeID}"),
    ("GET", "/api/disputes/{disputeID}"): OBJECT,
    ("POST", "/api/disputes/{disputeID}/accept"): OBJECT,
    ("POST", "/api/disputes/{disputeID}/evidence"): OBJECT,
    ("GET", "/api/transactions"): Row("list"),
    ("GET", "/api/transactions/merchant/{merchantID}"): Row("forbidden"),
    ("GET", "/api/transactions/{transactionID}"): OBJECT,
    ("GET", "/api/settlements/daily"): Row("forbidden", f"?merchantID={{merchantID}}&date={YESTERDAY}"),
    ("POST", "/api/settlements/process"): Row("forbidden", body=DAY),
    ("GET", "/api/settlements/{settlementID}"): OBJECT,
    ("GET", "/api/settlements/{settlementID}/entries"): OBJECT,
    ("POST", "/api/reconciliation/run"): OPERATOR,
    ("POST", "/api/reconciliation/upload"): OPERATOR,
    ("GET", "/api/reconciliation/runs"): OPERATOR,
    ("GET", "/api/reconciliation/runs/{runID}"): OPERATOR,
    ("GET", "/api/reconciliation/breaks"): Row("list"),
    ("GET", "/api/reconciliation/breaks/{breakID}"): OBJECT,
    ("POST", "/api/reconciliation/breaks/{breakID}/resolve"): OBJECT,
    ("GET", "/api/webhooks/endpoints"): Row("list"),
    ("POST", "/api/webhooks/endpoints"): Row("own"),
    ("GET", "/api/webhooks/endpoints/{endpointID}"): OBJECT,
    ("PATCH", "/api/webhooks/endpoints/{endpointID}"): OBJECT,
    ("POST", "/api/webhooks/endpoints/{endpointID}"): OBJECT,
    ("DELETE", "/api/webhooks/endpoints/{endpointID}"): OBJECT,
    ("POST", "/api/webhooks/endpoints/{endpointID}/rotate"): OBJECT,
    ("POST", "/api/webhooks/endpoints/{endpointID}/disable"): OBJECT,
    ("POST", "/api/webhooks/endpoints/{endpointID}/enable"): OBJECT,
    ("POST", "/api/webhooks/endpoints/{endpointID}/replay"): OBJECT,
    ("GET", "/api/webhooks/events"): Row("list", "?paymentID={paymentID}&endpointID={endpointID}"),
    ("GET", "/api/webhooks/events/{eventID}"): OBJECT,
    ("POST", "/api/webhooks/events/{eventID}/replay"): OBJECT,
    **{
        ("GET", f"/api/reports/{name}"): Row("report")
        for name in ("transactions", "refunds", "disputes", "settlements", "failures")
    },
    # The browser comes back without a key; whoever has the payment's id learns its status, and changes nothing.
    ("POST", "/api/payments/{paymentID}/3ds/return"): OPEN,
    ("GET", "/api/payments/{paymentID}/return"): OPEN,
    ("POST", "/api/webhooks/payment"): OPEN,
    ("POST", "/api/webhooks/refund"): OPEN,
    ("GET", "/health"): OPEN,
    ("GET", "/health/live"): OPEN,
    ("GET", "/health/ready"): OPEN,
    ("GET", "/metrics"): OPEN,
    ("GET", "/openapi.json"): OPEN,
    ("GET", "/docs"): OPEN,
}
BODIES = {key: next(iter(examples.values())).body for key, examples in EXAMPLES.items()}
MISSING = "0" * 32


def rows(*ways: str) -> Any:
    chosen = [(key, row) for key, row in ROWS.items() if row.way in ways]
    return pytest.mark.parametrize(("key", "row"), chosen, ids=[" ".join(key) for key, _ in chosen])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stories(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stories]:
    async with telling(tmp_path_factory.mktemp("stories")) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def theirs(stories: Stories) -> dict[str, str]:
    """Ids of merchant_123's objects, one of each kind that a route names."""
    names = {name for route in stories.routes.values() for name in path_names(route)}
    return {name: await stories.new(name) for name in sorted(names)}


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_every_route_has_a_row(stories: Stories):
    assert set(ROWS) == set(stories.routes)


async def test_a_row_is_open_only_where_no_key_is_needed(stories: Stories):
    assert {key for key, row in ROWS.items() if row == OPEN} == {
        key for key, route in stories.routes.items() if route.security != "key"
    }


def filled(value: Any, ids: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: filled(one, ids) for name, one in value.items()}
    return re.sub(r"{(\w+)}", lambda found: ids[found[1]], value) if isinstance(value, str) else value


async def ask(stories: Stories, key: Key, row: Row, ids: dict[str, str], api_key: str) -> Answer:
    path = filled(key[1] + (row.query or QUERIES.get(key, "")), ids)
    return await stories.ask(key, path, filled(BODIES.get(key) if row.body is None else row.body, ids), api_key=api_key)


def nowhere(ids: dict[str, str]) -> dict[str, str]:
    """As many ids of the same form, of what does not exist."""
    return {
        name: "merchant_999" if name == "merchantID" else re.sub(r"[0-9a-f]{32}", MISSING, one) for name, one in ids.items()
    }


def anonymous(answer: Answer, ids: dict[str, str]) -> tuple[int, Any, bytes]:
    """Without what must differ: ids that were asked for, and the request's own."""
    body = re.sub(rb"req_[0-9a-f]{32}", b"req", answer.body)
    for name, one in ids.items():
        body = body.replace(one.encode(), name.encode())
    return answer.status, without_ids(answer)[1], body


@rows("object", "forbidden", "list")
async def test_anothers_object_is_answered_as_one_that_does_not_exist(
    stories: Stories, theirs: dict[str, str], key: Key, row: Row
):
    missing = nowhere(theirs)
    foreign = await ask(stories, key, row, theirs, OURS)
    nothing = await ask(stories, key, row, missing, OURS)
    assert anonymous(foreign, theirs) == anonymous(nothing, missing)
    assert foreign.status == {"object": 404, "forbidden": 403, "list": 200}[row.way], foreign.body


@rows("object", "list", "report")
async def test_it_is_there_for_its_owner(stories: Stories, theirs: dict[str, str], key: Key, row: Row):
    """Or the test above would prove nothing."""
    answer = await ask(stories, key, Row(row.way, body=row.body), theirs, THEIRS)
    if row.way != "object":
        found = answer.json["data"] if row.way == "list" else answer.json["data"]["rows"]
        assert answer.status == 200
        assert found or key[1] == "/api/reports/failures"
    elif key[0] == "GET":
        assert answer.status == 200
    else:
        assert answer.status in (200, 201, 409), answer.body
        if key[0] == "DELETE":
            theirs["endpointID"] = await stories.new("endpointID")


@rows("list", "report")
async def test_lists_and_reports_have_nothing_of_anothers(stories: Stories, theirs: dict[str, str], key: Key, row: Row):
    answer = await ask(stories, key, Row(row.way), theirs, OURS)
    assert (answer.status, answer.json["data"] if row.way == "list" else answer.json["data"]["rows"]) == (200, [])


@rows("operator")
async def test_what_is_the_operators_takes_no_merchants_key(stories: Stories, theirs: dict[str, str], key: Key, row: Row):
    answer = await ask(stories, key, row, theirs, THEIRS)
    assert (answer.status, answer.json["code"]) == (403, "insufficient_scope")


@rows("object", "forbidden", "list", "report", "operator", "own")
@pytest.mark.parametrize("authorization", [None, "Bearer sk_test_nobody", "Basic c2tfdGVzdA=="])
async def test_without_a_key_nobody_is_answered(
    stories: Stories, theirs: dict[str, str], key: Key, row: Row, authorization: str | None
):
    headers = {} if authorization is None else {"Authorization": authorization}
    path = filled(key[1] + (row.query or QUERIES.get(key, "")), theirs)
    answer = await stories.site.request(key[0], path, key=None, headers=headers)
    assert answer.status == 401
    assert answer.json["code"] in ("missing_api_key", "invalid_api_key")


@pytest.mark.parametrize("key", [key for key, row in ROWS.items() if row == OPEN and key[1].startswith("/api/webhooks")])
async def test_without_a_signature_no_callback_is_taken(stories: Stories, key: Key):
    answer = await stories.site.request(key[0], key[1], json={"reference": "att_1"})
    assert (answer.status, answer.json["code"]) == (401, "invalid_signature")
