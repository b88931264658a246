"""The API as a merchant meets it: paying, looking, and being kept from what is not theirs."""

import asyncio
import json
import re
from typing import Any

import pytest

from gateway.storage.sqlite import SqliteStore
from tests.gateway.api.conftest import CARD, CUSTOMER, GOOD, KEYS, YEAR, Site, basic, changed, without_ids
from tests.gateway.doubles import Held

RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
OTHER = KEYS["merchant_2"]


@pytest.mark.parametrize(
    ("method", "status", "next_action"),
    [
        ("card", "completed", None),
        ("upi", "requires_action", {"type": "upi_collect"}),
        ("netbanking", "requires_action", {"type": "redirect", "url": "http://bank.example/1"}),
    ],
)
async def test_a_payment_is_answered_as_documented(site: Site, method: str, status: str, next_action: Any):
    answer = await site.process(GOOD[method])
    assert (answer.status, answer.headers["Content-Type"]) == (201, "application/json")
    data = answer.json["data"]
    assert answer.json == {"success": True, "data": data}
    assert RFC3339.fullmatch(data["createdAt"])
    assert re.fullmatch(r"pay_[0-9a-f]{32}", data["paymentID"])
    assert data["transactionID"] == "txn_" + data["paymentID"].removeprefix("pay_")
    assert (data["status"], data["amount"], data["currency"], data.get("nextAction")) == (status, 1000, "INR", next_action)
    assert set(data) - {"nextAction"} == {"paymentID", "transactionID", "status", "amount", "currency", "createdAt"}


async def test_a_decline_is_an_answer_and_says_why(site: Site):
    site.provider.status, site.provider.code = "declined", "51"
    data = await site.pay()
    assert (data["status"], data["failureReason"], data["declineCode"]) == ("failed", "insufficient_funds", "51")


async def test_everything_that_may_be_sent_is_taken(site: Site):
    whole = GOOD["card"] | {
        "customerInfo": CUSTOMER | {"id": "c-1", "ip": "::1", "country": "IN", "deviceID": "d"},
        "cardDetails": CARD | {"expiryMonth": "1", "holderName": "Åsa ₹ 😀"},
        "captureMethod": "automatic",
        "returnUrl": "https://shop.example/back?x=1",
        "metadata": {"k" * 64: "v" * 512} | {str(n): "" for n in range(49)},
        "amount": 999_999_999_999,
        "currency": "KWD",
    }
    assert (await site.process(whole)).status == 201
    assert (await site.process(GOOD["card"], headers={"Content-Type": "application/json; charset=utf-8"})).status == 201
    assert (await site.process(changed("card", "cardDetails.expiryYear", str(YEAR + 20)))).status == 201
    assert await site.totals() == (3, 3)


async def test_of_a_field_given_twice_the_last_counts_for_all(site: Site):
    body = json.dumps(GOOD["card"]).replace('"amount": 1000', '"amount": 1, "amount": 2000').encode()
    assert (await site.process(body)).json["data"]["amount"] == 2000
    assert json.loads(site.provider.requests[0])["amount"] == 2000


# Looking


async def test_status_and_transaction_tell_the_same_payment(site: Site):
    paid = await site.pay()
    status = (await site.request("GET", f"/api/payments/{paid['paymentID']}/status")).json["data"]
    assert RFC3339.fullmatch(status.pop("updatedAt"))
    assert status == paid
    transaction = (await site.request("GET", f"/api/transactions/{paid['transactionID']}")).json["data"]
    assert RFC3339.fullmatch(transaction.pop("updatedAt"))
    assert transaction == paid | {"type": "payment", "merchantID": "merchant_123", "paymentMethod": "card"}


async def test_health_counts_what_is_stored(site: Site):
    await asyncio.gather(*(site.pay(method) for method in GOOD))
    answer = await site.request("GET", "/health", key=None)
    body = answer.json
    assert RFC3339.fullmatch(body.pop("timestamp"))
    assert body == {"status": "healthy", "totalPayments": 3, "totalTransactions": 3}
    for path in ("/health/live", "/health/ready"):
        assert (await site.request("GET", path, key=None)).status == 200


async def test_a_gateway_that_cannot_write_is_alive_but_not_ready(site: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(SqliteStore, "healthy", lambda _: False)
    answer = await site.request("GET", "/health/ready", key=None)
    assert (answer.status, answer.json["code"]) == (503, "unavailable")
    assert (await site.request("GET", "/health/live", key=None)).status == 200


# Whose is it


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "missing_api_key"),
        ("", "missing_api_key"),
        ("Bearer", "missing_api_key"),
        ("Bearer ", "missing_api_key"),
        (KEYS["merchant_123"], "missing_api_key"),
        (basic("merchant_123", KEYS["merchant_123"]), "missing_api_key"),
        ("Bearer sk_test_wrong", "invalid_api_key"),
        ("Bearer " + KEYS["merchant_123"][:-1], "invalid_api_key"),
        ("Bearer " + KEYS["merchant_123"].upper(), "invalid_api_key"),
        ("Bearer " + KEYS["merchant_123"] + "x", "invalid_api_key"),
    ],
)
async def test_without_a_known_key_there_is_nothing(site: Site, header: str | None, code: str):
    paid = await site.pay()
    headers = {} if header is None else {"Authorization": header}
    for answer in (
        await site.process(GOOD["card"], key=None, headers=headers),
        await site.process(b"not even json", key=None, headers=headers),
        await site.request("GET", f"/api/payments/{paid['paymentID']}/status", key=None, headers=headers),
        await site.request("GET", f"/api/transactions/{paid['transactionID']}", key=None, headers=headers),
    ):
        assert (answer.status, answer.json["code"]) == (401, code)
        assert paid["paymentID"].encode() not in answer.body
    assert await site.totals() == (1, 1)


@pytest.mark.parametrize(
    "header", [b"Authorization: Bearer \xff\xfe", b"Authorization: \xff", b"X-Request-ID: \xff\r\nAuthorization: Bearer x"]
)
async def test_bytes_that_are_no_text_in_a_header_are_no_key_and_no_request_id(site: Site, header: bytes):
    answer = await site.raw(b"GET /api/transactions/txn_1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + header + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"X-Request-ID: req_" in answer


async def test_the_scheme_of_the_key_is_written_as_one_likes(site: Site):
    answer = await site.process(GOOD["card"], key=None, headers={"Authorization": "bEaReR  " + KEYS["merchant_123"] + " "})
    assert answer.status == 201


async def test_nobody_pays_in_anothers_name(site: Site):
    answer = await site.process(GOOD["card"], key=OTHER)
    assert (answer.status, answer.json["code"], answer.json["param"]) == (403, "wrong_merchant", "merchantID")
    assert await site.totals() == (0, 0)


async def test_anothers_objects_look_like_objects_that_do_not_exist(site: Site):
    paid = await site.pay()
    for path, here, nowhere in (
        ("/api/payments/{}/status", paid["paymentID"], "pay_" + "0" * 32),
        ("/api/transactions/{}", paid["transactionID"], "txn_" + "0" * 32),
    ):
        theirs = await site.request("GET", path.format(here), key=OTHER)
        nothing = await site.request("GET", path.format(nowhere), key=OTHER)
        assert theirs.status == 404
        assert without_ids(theirs) == without_ids(nothing)
        assert b"merchant_123" not in theirs.body


# Idempotency


@pytest.mark.parametrize("spelling", ["order-1:try", '"order-1:try"', '"with spaces, even"', "k" * 255, '"' + "k" * 255 + '"'])
async def test_the_same_request_again_is_answered_the_same_byte_for_byte(site: Site, spelling: str):
    first, second = [await site.process(GOOD["card"], headers={"Idempotency-Key": spelling}) for _ in range(2)]
    assert (first.status, first.body) == (second.status, second.body) == (201, first.body)
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]
    assert len(site.provider.requests) == 1


async def test_a_quoted_key_and_a_bare_one_are_the_same(site: Site):
    first = await site.process(GOOD["card"], headers={"Idempotency-Key": "abc"})
    assert (await site.process(GOOD["card"], headers={"Idempotency-Key": '"abc"'})).body == first.body


async def test_a_key_with_another_body_is_refused(site: Site):
    await site.process(GOOD["card"], headers={"Idempotency-Key": "k"})
    answer = await site.process(GOOD["card"] | {"amount": 1001}, headers={"Idempotency-Key": "k"})
    assert (answer.status, answer.json["code"]) == (422, "idempotency_key_reused")
    assert await site.totals() == (1, 1)


async def test_a_key_whose_request_still_runs_is_busy(site: Site):
    held = Held(None)
    site.provider.wait = held
    running = asyncio.create_task(site.process(GOOD["card"], headers={"Idempotency-Key": "k"}))
    await held.reached.wait()
    answer = await site.process(GOOD["card"], headers={"Idempotency-Key": "k"})
    assert (answer.status, answer.json["code"]) == (409, "idempotency_in_flight")
    held.let_go.set()
    assert (await running).status == 201


async def test_keys_belong_to_their_merchant(site: Site):
    mine = await site.process(GOOD["card"], headers={"Idempotency-Key": "k"})
    theirs = await site.process(GOOD["card"] | {"merchantID": "merchant_2"}, key=OTHER, headers={"Idempotency-Key": "k"})
    assert (mine.status, theirs.status) == (201, 201)
    assert mine.json["data"]["paymentID"] != theirs.json["data"]["paymentID"]


# Envelope


async def test_errors_come_as_rfc_9457_problems_to_those_who_ask(site: Site):
    answer = await site.process(changed("card", "amount", 0), headers={"Accept": "application/problem+json"})
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json == {
        "title": "Bad Request",
        "status": 400,
        "detail": "amount: Expected `int` >= 1",
        "code": "invalid_request",
        "param": "amount",
        "requestID": answer.headers["X-Request-ID"],
    }
    nowhere = await site.request("GET", "/nowhere", headers={"Accept": "text/html, application/problem+json;q=0.5"})
    assert (nowhere.json["status"], nowhere.json["title"]) == (404, "Not Found")


@pytest.mark.parametrize("given", ["abc", "A.b-C_d:9", "x" * 64])
async def test_a_request_id_that_can_stand_in_a_log_is_kept(site: Site, given: str):
    for answer in (
        await site.process(GOOD["card"], headers={"X-Request-ID": given}),
        await site.request("GET", "/nowhere", headers={"X-Request-ID": given}),
    ):
        assert answer.headers["X-Request-ID"] == given
    assert answer.json["requestID"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\tb", "ü", '"}'])
async def test_a_request_id_that_cannot_is_replaced(site: Site, given: str):
    answer = await site.request("GET", "/nowhere", headers={"X-Request-ID": given})
    assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["X-Request-ID"])
    assert answer.json["requestID"] == answer.headers["X-Request-ID"]
