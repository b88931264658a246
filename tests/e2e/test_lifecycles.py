"""What becomes of a card payment after it was authorized: end to end, against the simulated acquirer."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import LOST, Answer, Shop, World

pytestmark = pytest.mark.asyncio(loop_scope="module")

DISPUTED = {"fraudulent": "4000000000000259", "product_not_received": "4000000000002685", "inquiry": "4000000000001976"}
REFUND_COMPLETES_LATE, REFUND_FAILS_LATE = "4000000000007726", "4000000000005126"
LATER_MS = 2_000  # test cards do what they do later after two seconds (docs/providers.md)
TAKEN = {"receivable:card": 1000, "payable:merchant_123": -980, "fees": -20}
GIVEN_BACK = {"receivable:card": 0, "payable:merchant_123": 20, "fees": -20}


async def refund(shop: Shop, payment_id: str, amount: int | None = None) -> Answer:
    return await shop.post("/api/refunds/process", {"paymentID": payment_id} | ({} if amount is None else {"amount": amount}))


# Capture and void


async def test_partial_captures_end_with_the_final_one_and_the_acquirer_agrees(shop: Shop):
    payment_id = await shop.pay(captureMethod="manual")
    assert (await shop.charge(payment_id))["status"] == "authorized"
    assert shop.books(payment_id) == {}
    for body, status, captured in [
        ({"amount": 333}, "partially_captured", 333),
        ({"amount": 333}, "partially_captured", 666),
        ({"amount": 34, "final": True}, "completed", 700),
    ]:
        data = (await shop.post(f"/api/payments/{payment_id}/capture", body)).data
        charge = await shop.charge(payment_id)
        assert (data["status"], data["capturedAmount"], charge["capturedAmount"]) == (status, captured, captured)
    assert charge["status"] == "approved"
    assert shop.books(payment_id) == {"receivable:card": 700, "payable:merchant_123": -686, "fees": -14}
    assert (await shop.heard(payment_id, "payment.completed"))["capturedAmount"] == 700
    assert (await refund(shop, payment_id, 701)).status == 409
    assert (await refund(shop, payment_id)).data["amount"] == 700


async def test_a_void_releases_the_authorization_at_the_acquirer(shop: Shop):
    payment_id = await shop.pay(captureMethod="manual")
    assert (await shop.post(f"/api/payments/{payment_id}/void")).data["status"] == "voided"
    assert (await shop.charge(payment_id))["status"] == "reversed"
    assert shop.books(payment_id) == {}
    await shop.heard(payment_id, "payment.voided")


async def test_an_authorization_that_is_not_captured_in_time_is_released(world: World, tmp_path: Path):
    async with world.shop(tmp_path, authorization_lifetime_ms=1) as shop:
        payment_id = await shop.pay(captureMethod="manual")
        told = await shop.heard(payment_id, "payment.expired")
        assert told["failureReason"] == "authorization_expired"
        assert (await shop.charge(payment_id))["status"] == "reversed"
        assert (await shop.post(f"/api/payments/{payment_id}/capture")).code == "not_capturable"


@pytest.mark.parametrize("operations", [("capture", "capture"), ("capture", "void"), ("void", "capture"), ("void", "void")])
async def test_of_two_at_once_exactly_one_wins(shop: Shop, operations: tuple[str, str]):
    for _ in range(4):
        payment_id = await shop.pay(captureMethod="manual")
        path = f"/api/payments/{payment_id}/"
        answers = await asyncio.gather(*(shop.post(path + operation) for operation in operations))
        assert sorted(answer.status for answer in answers) == [200, 409]
        [status] = [answer.data["status"] for answer in answers if answer.status == 200]
        charge = await shop.charge(payment_id)
        assert (status, charge["status"]) in (("completed", "approved"), ("voided", "reversed"))
        assert charge.get("capturedAmount", 0) == shop.books(payment_id).get("receivable:card", 0)


@pytest.mark.parametrize(("operation", "ends"), [("capture", "payment.completed"), ("void", "payment.voided")])
async def test_what_became_of_an_operation_without_an_answer_is_found_out(shop: Shop, operation: str, ends: str):
    payment_id = await shop.pay(amount=LOST, captureMethod="manual")
    data = (await shop.post(f"/api/payments/{payment_id}/{operation}", key=payment_id)).data
    assert data["status"] == "authorized"
    assert data.get("ending") == "voided" or data["capture"]["status"] == "unknown"
    await shop.heard(payment_id, ends)
    again = await shop.post(f"/api/payments/{payment_id}/{operation}", key=payment_id)
    assert again.data == data  # what was answered stays answered
    assert shop.books(payment_id).get("receivable:card", 0) == (LOST if operation == "capture" else 0)


# Refunds


async def test_of_a_hundred_refunds_of_a_fifth_at_once_exactly_five_succeed(shop: Shop):
    payment_id = await shop.pay()
    answers = await asyncio.gather(*(refund(shop, payment_id, 200) for _ in range(100)))
    assert Counter(answer.status for answer in answers) == {201: 5, 409: 95}
    assert {answer.code for answer in answers if answer.status == 409} == {"refund_exceeds_captured"}
    payment = await shop.get(f"/api/payments/{payment_id}")
    assert (payment["refundStatus"], payment["refundedAmount"], len(payment["refunds"])) == ("full", 1000, 5)
    assert (await shop.charge(payment_id))["refundedAmount"] == 1000
    assert shop.books(payment_id) == GIVEN_BACK


async def test_a_refund_completes_when_the_acquirer_says_so(shop: Shop):
    payment_id = await shop.pay(REFUND_COMPLETES_LATE)
    made = (await refund(shop, payment_id)).data
    assert (made["status"], shop.books(payment_id)) == ("processing", TAKEN)
    shop.world.clock.advance(LATER_MS)
    told = await shop.heard(payment_id, "refund.completed")
    assert (told["refundID"], told["amount"]) == (made["refundID"], 1000)
    assert (await shop.get(f"/api/refunds/{made['refundID']}/status"))["status"] == "completed"
    assert (await shop.get(f"/api/payments/{payment_id}/status"))["refundStatus"] == "full"
    assert shop.books(payment_id) == GIVEN_BACK


async def test_a_refund_that_fails_later_is_taken_back(shop: Shop):
    payment_id = await shop.pay(REFUND_FAILS_LATE)
    made = (await refund(shop, payment_id)).data
    assert (made["status"], shop.books(payment_id)) == ("completed", GIVEN_BACK)
    shop.world.clock.advance(LATER_MS)
    told = await shop.heard(payment_id, "refund.failed")
    assert (told["refundID"], told["failureReason"]) == (made["refundID"], "do_not_honor")
    transaction = await shop.get(f"/api/transactions/{made['transactionID']}")
    assert (transaction["type"], transaction["status"]) == ("refund", "failed")
    payment = await shop.get(f"/api/payments/{payment_id}")
    assert (payment["refundStatus"], payment["refundableAmount"]) == ("none", 1000)
    assert shop.books(payment_id) == TAKEN


async def test_what_became_of_a_refund_without_an_answer_is_found_out(shop: Shop):
    payment_id = await shop.pay()
    made = (await refund(shop, payment_id, LOST)).data
    assert made["status"] == "unknown"
    assert (await shop.heard(payment_id, "refund.completed"))["refundID"] == made["refundID"]
    assert (await shop.charge(payment_id))["refundedAmount"] == LOST
    assert shop.books(payment_id)["receivable:card"] == 1000 - LOST


async def test_what_is_only_authorized_cannot_be_refunded(shop: Shop):
    payment_id = await shop.pay(captureMethod="manual")
    answer = await refund(shop, payment_id)
    assert (answer.status, answer.code) == (409, "not_captured")


# Disputes


async def disputed(shop: Shop, reason: str, **options: Any) -> tuple[str, str, dict[str, Any]]:
    """Payment, path of its dispute, and the dispute."""
    payment_id = await shop.pay(DISPUTED[reason], **options)
    shop.world.clock.advance(LATER_MS)
    path = f"/api/disputes/{(await shop.heard(payment_id, 'dispute.opened'))['disputeID']}"
    dispute = await shop.get(path)
    assert (dispute["paymentID"], dispute["reason"]) == (payment_id, reason)
    return payment_id, path, dispute


async def test_a_dispute_that_is_accepted_is_lost(shop: Shop):
    payment_id, path, dispute = await disputed(shop, "fraudulent")
    assert (dispute["status"], shop.books(payment_id)) == ("needs_response", GIVEN_BACK)
    transaction = await shop.get(f"/api/transactions/{dispute['transactionID']}")
    assert (transaction["type"], transaction["amount"], transaction["paymentID"]) == ("chargeback", 1000, payment_id)
    assert (await shop.post(path + "/accept")).data["status"] == "lost"
    await shop.heard(payment_id, "dispute.lost")
    assert (await shop.get(f"/api/payments/{payment_id}/status"))["disputeStatus"] == "lost"
    assert shop.books(payment_id) == GIVEN_BACK


@pytest.mark.parametrize(
    ("reason", "text", "status", "books"),
    [
        ("product_not_received", "the winning proof of delivery", "won", TAKEN),
        ("fraudulent", "a losing excuse", "lost", GIVEN_BACK),
    ],
)
async def test_evidence_is_judged_by_the_issuer(shop: Shop, reason: str, text: str, status: str, books: dict[str, int]):
    payment_id, path, _ = await disputed(shop, reason)
    assert (await shop.post(path + "/evidence", {"text": text})).data["status"] == "under_review"
    assert shop.books(payment_id) == GIVEN_BACK
    shop.world.clock.advance(LATER_MS)
    await shop.heard(payment_id, f"dispute.{status}")
    dispute = await shop.get(path)
    assert (dispute["status"], dispute["evidence"]) == (status, text)
    assert (await shop.get(f"/api/transactions/{dispute['transactionID']}"))["status"] == status
    assert shop.books(payment_id) == books
    assert (await refund(shop, payment_id)).status == (201 if status == "won" else 409)


async def test_an_inquiry_is_closed_without_moving_money(shop: Shop):
    payment_id, path, dispute = await disputed(shop, "inquiry")
    assert (dispute["status"], "transactionID" in dispute) == ("warning_needs_response", False)
    assert (await shop.post(path + "/evidence", {"text": "delivered"})).data["status"] == "warning_under_review"
    shop.world.clock.advance(LATER_MS)
    await shop.heard(payment_id, "dispute.closed")
    assert (await shop.get(path))["status"] == "warning_closed"
    assert shop.books(payment_id) == TAKEN


async def test_a_response_whose_answer_was_lost_has_arrived_once(shop: Shop):
    payment_id, path, _ = await disputed(shop, "fraudulent")
    faults = shop.world.url + "/admin/faults"
    fault = {"provider": "card", "name": "lost", "kind": "response_lost", "operation": "dispute", "first": 1}
    async with shop.world.session.post(faults, json=fault) as answer:
        assert answer.status == 201, await answer.text()
    try:
        first, again = [await shop.post(path + "/accept", key=path) for _ in range(2)]
    finally:
        await shop.world.session.delete(faults + "/lost")
    assert (first.status, first.data["status"], first.body) == (200, "lost", again.body)
    async with shop.world.session.get(shop.world.url + "/journal") as answer:
        calls = [json.loads(line) for line in (await answer.read()).splitlines()]
    reference = f"att_{payment_id.removeprefix('pay_')}_01"
    injected = [
        call["fault"]
        for call in calls
        if call.get("reference") == reference and call["operation"] == "dispute" and call.get("fault")
    ]
    assert len(injected) == 1
