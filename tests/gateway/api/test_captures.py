"""Capture and void as a merchant meets them, and the payment's detail and history after them."""

import asyncio
import json
from typing import Any

import pytest

from tests.gateway.api.conftest import CARD, CUSTOMER, GOOD, KEYS, Site, without_ids
from tests.gateway.doubles import PATIENCE_S, Held

MANUAL = GOOD["card"] | {"captureMethod": "manual"}
OTHER = KEYS["merchant_2"]


async def authorized(site: Site) -> str:
    """The path of a payment of 1000 that is authorized."""
    answer = await site.process(MANUAL)
    assert (answer.status, answer.json["data"]["status"]) == (201, "authorized")
    return f"/api/payments/{answer.json['data']['paymentID']}"


async def test_a_payment_with_manual_capture_is_authorized_and_says_so(site: Site):
    data = (await site.process(MANUAL)).json["data"]
    assert (data["status"], data["captureMethod"], data["capturedAmount"]) == ("authorized", "manual", 0)
    assert json.loads(site.provider.requests[0])["capture"] == "manual"


async def test_parts_are_captured_until_the_final_one_which_releases_the_rest(site: Site):
    path = await authorized(site)
    for body, status, captured in [
        ({"amount": 300}, "partially_captured", 300),
        ({"amount": 300, "final": False}, "partially_captured", 600),
        ({"amount": 100, "final": True}, "completed", 700),
    ]:
        answer = await site.post(path + "/capture", body)
        data, capture = answer.json["data"], answer.json["data"]["capture"]
        assert (answer.status, data["status"], data["amount"], data["capturedAmount"]) == (200, status, 1000, captured)
        assert (capture["status"], capture["amount"], capture["final"]) == (
            "completed",
            body["amount"],
            "final" in body and body["final"],
        )
    assert [(asked["amount"], asked["final"]) for _, asked in site.provider.operations] == [
        (300, False),
        (300, False),
        (100, True),
    ]
    over = await site.post(path + "/capture", {"amount": 1})
    assert (over.status, over.json["code"]) == (409, "not_capturable")


async def test_a_capture_without_a_body_takes_all_that_is_left(site: Site):
    path = await authorized(site)
    await site.post(path + "/capture", {"amount": 300})
    data = (await site.post(path + "/capture")).json["data"]
    assert (data["status"], data["capturedAmount"], data["capture"]["amount"], data["capture"]["final"]) == (
        "completed",
        1000,
        700,
        True,
    )


async def test_more_than_is_left_is_refused_before_the_provider_hears_of_it(site: Site):
    path = await authorized(site)
    answer = await site.post(path + "/capture", {"amount": 1001})
    assert (answer.status, answer.json["code"], answer.json["param"]) == (409, "capture_exceeds_authorized", "amount")
    assert site.provider.operations == []


async def test_a_capture_that_the_provider_declines_leaves_the_authorization_as_it_was(site: Site):
    path = await authorized(site)
    site.provider.refusal = (409, "capture_exceeds_authorized")
    data = (await site.post(path + "/capture")).json["data"]
    assert (data["status"], data["capturedAmount"]) == ("authorized", 0)
    assert (data["capture"]["status"], data["capture"]["failureReason"]) == ("failed", "capture_exceeds_authorized")
    site.provider.refusal = None
    assert (await site.post(path + "/capture")).json["data"]["status"] == "completed"


async def test_while_nobody_knows_what_became_of_a_capture_nothing_else_is_begun(site: Site):
    path = await authorized(site)
    site.provider.refusal = (503, "unavailable")
    data = (await site.post(path + "/capture")).json["data"]
    assert (data["status"], data["capture"]["status"]) == ("authorized", "unknown")
    for other in ("capture", "void"):
        answer = await site.post(f"{path}/{other}")
        assert (answer.status, answer.json["code"]) == (409, "operation_in_progress")


async def test_a_void_releases_the_authorization_once(site: Site):
    path = await authorized(site)
    answer = await site.post(path + "/void")
    assert (answer.status, answer.json["data"]["status"]) == (200, "voided")
    assert [name for name, _ in site.provider.operations] == ["reverse"]
    assert [(await site.post(f"{path}/{other}")).json["code"] for other in ("void", "capture")] == [
        "not_voidable",
        "not_capturable",
    ]


@pytest.mark.parametrize("method", ["upi", "netbanking"])
async def test_a_payment_that_waits_for_its_customer_can_be_voided(site: Site, method: str):
    paid = await site.pay(method)
    data = (await site.post(f"/api/payments/{paid['paymentID']}/void", {})).json["data"]
    assert (data["status"], data.get("nextAction")) == ("voided", None)


async def test_a_void_that_the_provider_does_not_answer_is_told_as_under_way(site: Site):
    path = await authorized(site)
    site.provider.refusal = (503, "unavailable")
    data = (await site.post(path + "/void")).json["data"]
    assert (data["status"], data["ending"]) == ("authorized", "voided")
    assert (await site.post(path + "/capture")).json["code"] == "operation_in_progress"


@pytest.mark.parametrize("operation", ["capture", "void"])
async def test_the_same_key_is_answered_the_same_and_reaches_the_provider_once(site: Site, operation: str):
    path = await authorized(site)
    first = await site.post(f"{path}/{operation}", idempotency_key="k")
    for body in (None, {}):
        again = await site.post(f"{path}/{operation}", body, idempotency_key="k")
        assert (again.status, again.body) == (first.status, first.body) == (200, first.body)
    assert len(site.provider.operations) == 1
    other = await site.post((await authorized(site)) + "/" + operation, idempotency_key="k")
    assert (other.status, other.json["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("operation", ["capture", "void"])
async def test_a_key_whose_work_is_under_way_is_busy_and_so_is_the_payment(site: Site, operation: str):
    path = await authorized(site)
    held = Held(None)
    site.provider.wait = held
    running = asyncio.create_task(site.post(f"{path}/{operation}", idempotency_key="k"))
    await asyncio.wait_for(held.reached.wait(), PATIENCE_S)
    again = await site.post(f"{path}/{operation}", idempotency_key="k")
    other = await site.post(f"{path}/{operation}", idempotency_key="k2")
    assert [(answer.status, answer.json["code"]) for answer in (again, other)] == [
        (409, "idempotency_in_flight"),
        (409, "operation_in_progress"),
    ]
    held.let_go.set()
    assert (await running).status == 200


@pytest.mark.parametrize(
    ("operation", "body", "param"),
    [
        ("capture", {"amount": 0}, "amount"),
        ("capture", {"amount": -5}, "amount"),
        ("capture", {"amount": 1.5}, "amount"),
        ("capture", {"amount": "5"}, "amount"),
        ("capture", {"amount": 10**15}, "amount"),
        ("capture", {"final": "yes"}, "final"),
        ("capture", {"amuont": 5}, "amuont"),
        ("capture", [], None),
        ("void", {"amount": 5}, "amount"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_cannot_be_meant_is_refused_by_name(shared_site: Site, operation: str, body: Any, param: str | None):
    path = await authorized(shared_site)
    answer = await shared_site.post(f"{path}/{operation}", body)
    assert (answer.status, answer.json["code"], answer.json.get("param")) == (400, "invalid_request", param)
    assert shared_site.provider.operations == []
    assert (await shared_site.get(path))["status"] == "authorized"


async def test_the_detail_has_everything_but_secrets(site: Site):
    body = MANUAL | {
        "customerInfo": CUSTOMER | {"id": "c-1", "deviceID": "d"},
        "returnUrl": "https://shop.example/back",
        "metadata": {"cart": "7"},
    }
    path = f"/api/payments/{(await site.process(body)).json['data']['paymentID']}"
    capture = (await site.post(path + "/capture", {"amount": 600})).json["data"]["capture"]
    answer = await site.request("GET", path)
    data = answer.json["data"]
    assert (data["status"], data["orderID"], data["paymentMethod"]) == ("partially_captured", "order-1", "card")
    amounts = ("amount", "capturedAmount", "capturableAmount", "refundableAmount", "refundedAmount", "disputedAmount")
    assert [data[name] for name in amounts] == [1000, 600, 400, 600, 0, 0]
    assert (data["captureMethod"], data["refundStatus"]) == ("manual", "none")
    assert (data["captures"], data["refunds"], data["disputes"]) == ([capture], [], [])
    assert data["cardDetails"] == {
        "brand": "visa", "bin": "411111", "last4": "1111", "expiryMonth": "12", "expiryYear": CARD["expiryYear"]
    }  # fmt: skip
    assert [data[name] for name in ("customerInfo", "returnUrl", "metadata")] == [
        body[name] for name in ("customerInfo", "returnUrl", "metadata")
    ]
    assert CARD["number"].encode() not in answer.body
    assert CARD["cvv"] not in str(data["cardDetails"])


@pytest.mark.parametrize(
    ("method", "field", "told"),
    [
        ("upi", "upiDetails", {"flow": "collect", "vpa": "success@upi"}),
        ("netbanking", "netbankingDetails", {"bankCode": "HDFC0000001"}),
    ],
)
async def test_the_detail_names_what_was_paid_with(site: Site, method: str, field: str, told: dict[str, str]):
    data = await site.get(f"/api/payments/{(await site.pay(method))['paymentID']}")
    assert (data[field], data["captureMethod"], data["capturedAmount"]) == (told, "automatic", 0)


async def test_the_history_has_every_event_in_order_and_in_pages(site: Site):
    path = await authorized(site)
    await site.post(path + "/capture", {"amount": 300})
    await site.post(path + "/capture")
    answer = await site.request("GET", path + "/events")
    events = answer.json["data"]
    assert [(event["sequence"], event["type"]) for event in events] == [
        (1, "payment.processing"), (2, "payment.authorized"), (3, "payment.partially_captured"), (4, "payment.completed")
    ]  # fmt: skip
    assert [event.get("data", {}).get("capturedAmount") for event in events] == [None, None, 300, 1000]
    assert answer.json["pagination"] == {"limit": 100}
    first = (await site.request("GET", path + "/events?limit=3")).json
    rest = (await site.request("GET", f"{path}/events?limit=3&cursor={first['pagination']['nextCursor']}")).json
    assert (first["data"] + rest["data"], rest["pagination"]) == (events, {"limit": 3})


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("limit=1&limit=2", "limit"),
        ("cursor=-1", "cursor"),
        ("page=2", "page"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_query_that_cannot_be_meant_is_refused_by_name(shared_site: Site, query: str, param: str):
    answer = await shared_site.request("GET", f"/api/payments/pay_1/events?{query}")
    assert (answer.status, answer.json["param"]) == (400, param)


async def test_anothers_payment_is_no_payment(site: Site):
    path = await authorized(site)
    for method, what in (("GET", ""), ("GET", "/events"), ("POST", "/capture"), ("POST", "/void")):
        theirs = await site.request(method, path + what, key=OTHER)
        nothing = await site.request(method, "/api/payments/pay_" + "0" * 32 + what, key=OTHER)
        assert theirs.status == 404
        assert without_ids(theirs) == without_ids(nothing)
    assert site.provider.operations == []
