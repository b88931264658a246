"""Refunds as a merchant meets them: what is left, what the provider says later, and the books."""

import asyncio
from typing import Any

import pytest

from gateway.storage import export
from tests.gateway.api.conftest import GOOD, KEYS, Site, without_ids
from tests.gateway.doubles import PATIENCE_S, Held

OTHER = KEYS["merchant_2"]


async def refund(site: Site, paid: dict[str, Any], amount: int | None = None, **more: Any) -> dict[str, Any]:
    body = {"paymentID": paid["paymentID"]} | ({} if amount is None else {"amount": amount}) | more
    answer = await site.post("/api/refunds/process", body)
    assert answer.status == 201, answer.body
    return answer.json["data"]


async def told(site: Site, status: str, **changed: Any) -> Any:
    """The provider calls back about the refund that it was asked for last."""
    _, asked = site.provider.operations[-1]
    document = {"id": f"cb_{status}", "type": "refund", "provider": "card", "providerID": "prov_2", "status": status}
    code = {"completed": "00", "failed": "05"}[status]
    document |= {"responseCode": code} | {name: asked[name] for name in ("reference", "amount", "currency")} | changed
    return await site.call_back(document, provider="card", path="/api/webhooks/refund")


def balance(site: Site, account: str) -> int:
    postings = [p for record in export.records(site.db) if record["kind"] == "entry" for p in record["postings"]]
    return sum(p["debit"] - p["credit"] for p in postings if p["account"] == account)


async def test_a_refund_without_an_amount_gives_everything_back(site: Site):
    paid = await site.pay()
    made = await refund(site, paid, reason="wrong size", merchantID="merchant_123")
    assert (made["status"], made["amount"], made["reason"], made["paymentID"]) == (
        "completed",
        1000,
        "wrong size",
        paid["paymentID"],
    )
    assert await site.get(f"/api/refunds/{made['refundID']}/status") == made
    assert (await site.get(f"/api/payments/{paid['paymentID']}/status"))["refundStatus"] == "full"
    assert (balance(site, "receivable:card"), balance(site, "payable:merchant_123")) == (0, 0)


async def test_refunds_in_parts_add_up_to_what_was_captured_and_no_further(site: Site):
    paid = await site.pay()
    for amount in (300, 300):
        await refund(site, paid, amount)
    detail = await site.get(f"/api/payments/{paid['paymentID']}")
    assert (detail["refundStatus"], detail["refundedAmount"], detail["refundableAmount"]) == ("partial", 600, 400)
    over = await site.post("/api/refunds/process", {"paymentID": paid["paymentID"], "amount": 401})
    assert (over.status, over.json["code"], over.json["param"]) == (409, "refund_exceeds_captured", "amount")
    await refund(site, paid)
    detail = await site.get(f"/api/payments/{paid['paymentID']}")
    assert (detail["refundStatus"], [made["amount"] for made in detail["refunds"]]) == ("full", [400, 300, 300])
    assert (await site.post("/api/refunds/process", {"paymentID": paid["paymentID"]})).status == 409
    assert len(site.provider.operations) == 3


@pytest.mark.parametrize("body", [GOOD["card"] | {"captureMethod": "manual"}, GOOD["upi"]])
async def test_a_payment_that_is_not_captured_has_nothing_to_refund(site: Site, body: dict[str, Any]):
    paid = (await site.process(body)).json["data"]
    answer = await site.post("/api/refunds/process", {"paymentID": paid["paymentID"]})
    assert (answer.status, answer.json["code"]) == (409, "not_captured")
    assert paid["status"] in answer.json["error"]


async def test_a_refund_is_a_transaction_of_its_own(site: Site):
    paid = await site.pay()
    made = await refund(site, paid, 400)
    found = await site.get(f"/api/transactions/{made['transactionID']}")
    assert (found["type"], found["amount"], found["status"], found["paymentID"]) == (
        "refund",
        400,
        "completed",
        paid["paymentID"],
    )
    assert await site.totals() == (1, 2)


async def test_what_is_being_refunded_is_not_refunded_twice(site: Site):
    paid = await site.pay()
    site.provider.refunds = "pending"
    made = await refund(site, paid, 700)
    assert made["status"] == "processing"
    over = await site.post("/api/refunds/process", {"paymentID": paid["paymentID"], "amount": 301})
    assert over.json["code"] == "refund_exceeds_captured"
    assert "refundStatus" not in await site.get(f"/api/payments/{paid['paymentID']}/status")
    assert balance(site, "receivable:card") == 1000


async def test_a_refund_is_completed_by_callback_however_often_it_comes(site: Site):
    paid = await site.pay()
    site.provider.refunds = "pending"
    made = await refund(site, paid, 700)
    for _ in range(2):
        assert (await told(site, "completed")).status == 200
    assert (await site.get(f"/api/refunds/{made['refundID']}/status"))["status"] == "completed"
    assert (await site.get(f"/api/payments/{paid['paymentID']}/status"))["refundStatus"] == "partial"
    assert balance(site, "receivable:card") == 300


@pytest.mark.parametrize("at_first", ["pending", "completed"])
async def test_a_refund_that_fails_later_gives_the_amount_back_to_refund_again(site: Site, at_first: str):
    paid = await site.pay()
    site.provider.refunds = at_first
    made = await refund(site, paid)
    for status in ("failed", "failed", "completed"):  # twice, and one that is late
        assert (await told(site, status)).status == 200
    after = await site.get(f"/api/refunds/{made['refundID']}/status")
    assert (after["status"], after["failureReason"], after["declineCode"]) == ("failed", "do_not_honor", "05")
    assert balance(site, "receivable:card") == 1000
    site.provider.refunds = "completed"
    assert (await refund(site, paid))["status"] == "completed"
    assert balance(site, "receivable:card") == 0


async def test_only_the_charges_own_provider_may_speak_of_a_refund(site: Site):
    paid = await site.pay()
    site.provider.refunds = "pending"
    made = await refund(site, paid)
    _, asked = site.provider.operations[-1]
    document = {name: asked[name] for name in ("reference", "amount", "currency")}
    document |= {
        "id": "cb_1",
        "type": "refund",
        "provider": "card",
        "providerID": "p",
        "status": "completed",
        "responseCode": "00",
    }
    door = {"path": "/api/webhooks/refund"}
    answers = [
        await site.call_back(document, provider="upi", **door),
        await site.call_back(document | {"provider": "upi"}, provider="upi", **door),
        await site.call_back(document, provider="nobody", **door),
        await site.call_back(document | {"reference": "ref_1"}, provider="card", **door),
        await site.call_back(document | {"amount": 999}, provider="card", **door),
    ]
    assert [answer.status for answer in answers] == [404, 404, 401, 404, 400]
    assert (await site.get(f"/api/refunds/{made['refundID']}/status"))["status"] == "processing"


async def test_a_refund_that_the_provider_refuses_is_failed_and_says_why(site: Site):
    paid = await site.pay()
    site.provider.refusal = (409, "charge_disputed")
    made = await refund(site, paid)
    assert (made["status"], made["failureReason"]) == ("failed", "charge_disputed")
    site.provider.refusal = None
    assert (await refund(site, paid))["status"] == "completed"


async def test_without_an_answer_a_refund_is_unknown_and_its_amount_set_aside(site: Site):
    paid = await site.pay()
    site.provider.refusal = (503, "unavailable")
    assert (await refund(site, paid, 700))["status"] == "unknown"
    over = await site.post("/api/refunds/process", {"paymentID": paid["paymentID"], "amount": 301})
    assert over.json["code"] == "refund_exceeds_captured"


async def test_the_same_key_refunds_once_and_is_answered_the_same(site: Site):
    body = {"paymentID": (await site.pay())["paymentID"], "amount": 1000}
    first, again = [await site.post("/api/refunds/process", body, idempotency_key="k") for _ in range(2)]
    assert (again.status, again.body) == (first.status, first.body) == (201, first.body)
    assert len(site.provider.operations) == 1
    other = await site.post("/api/refunds/process", body | {"amount": 1}, idempotency_key="k")
    assert (other.status, other.json["code"]) == (422, "idempotency_key_reused")


async def test_a_key_whose_refund_is_under_way_is_busy(site: Site):
    body = {"paymentID": (await site.pay())["paymentID"], "amount": 600}
    held = Held(None)
    site.provider.wait = held
    running = asyncio.create_task(site.post("/api/refunds/process", body, idempotency_key="k"))
    await asyncio.wait_for(held.reached.wait(), PATIENCE_S)
    again = await site.post("/api/refunds/process", body, idempotency_key="k")
    assert (again.status, again.json["code"]) == (409, "idempotency_in_flight")
    held.let_go.set()
    assert (await running).status == 201


@pytest.mark.parametrize(
    ("changed", "status", "param"),
    [
        ({"paymentID": None}, 400, "paymentID"),
        ({"paymentID": "pay 1"}, 400, "paymentID"),
        ({"amount": 0}, 400, "amount"),
        ({"amount": 1.5}, 400, "amount"),
        ({"reason": ""}, 400, "reason"),
        ({"reason": "x" * 257}, 400, "reason"),
        ({"reason": "\0"}, 400, None),
        ({"refundID": "ref_1"}, 400, "refundID"),
        ({"merchantID": "merchant_2"}, 403, "merchantID"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_cannot_be_meant_is_refused_by_name(
    shared_site: Site, changed: dict[str, Any], status: int, param: str | None
):
    body = {"paymentID": (await shared_site.pay())["paymentID"]} | changed
    answer = await shared_site.post("/api/refunds/process", body)
    assert (answer.status, answer.json.get("param")) == (status, param)
    assert shared_site.provider.operations == []


async def test_anothers_payment_and_refund_are_none(site: Site):
    paid = await site.pay()
    made = await refund(site, paid, 100)
    pairs = [
        [await site.post("/api/refunds/process", {"paymentID": id_}, key=OTHER) for id_ in (paid["paymentID"], "pay_0")],
        [await site.request("GET", f"/api/refunds/{id_}/status", key=OTHER) for id_ in (made["refundID"], "ref_0")],
    ]
    for theirs, nothing in pairs:
        assert theirs.status == 404
        assert without_ids(theirs) == without_ids(nothing)
