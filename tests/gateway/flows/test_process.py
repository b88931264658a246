"""What a merchant is answered, and what is in the database before that."""

from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from gateway.core.errors import StoreFull
from gateway.core.outcome import Approved, Declined, NextAction, NotSent, Outcome, Pending, Unknown
from gateway.core.payment import Method
from gateway.storage import sqlite
from tests.gateway.doubles import CVV, NOW_MS, NUMBER, OUTCOMES
from tests.gateway.flows.conftest import METHODS, Shop

CREATED_AT = "2030-03-17T17:46:40.000Z"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("outcome", "status", "more"),
    [
        (Approved("p", "00"), "completed", {}),
        (Declined("51", "insufficient_funds", "p"), "failed", {"failureReason": "insufficient_funds", "declineCode": "51"}),
        (NotSent("refused"), "failed", {"failureReason": "provider_unavailable"}),
        (Unknown("timeout"), "processing", {}),
        (Pending("p", NextAction("upi_collect")), "requires_action", {"nextAction": {"type": "upi_collect"}}),
        (Pending("p", None), "processing", {}),
    ],
)
async def test_the_answer_says_what_is_known(shop: Shop, method: Method, outcome: Outcome, status: str, more: dict[str, Any]):
    shop.providers[method].will("create", outcome)
    data = await shop.pay(method)
    assert data == {
        "paymentID": data["paymentID"],
        "transactionID": data["transactionID"],
        "status": status,
        "amount": 1000,
        "currency": "INR",
        "createdAt": CREATED_AT,
        **more,
    }
    [kept] = shop.records("payment")
    assert (kept["paymentID"], kept["transactionID"], kept["status"]) == (data["paymentID"], data["transactionID"], status)
    assert shop.providers[method].calls == ["create"]


async def test_the_intent_is_in_the_file_before_the_provider_is_called(shop: Shop):
    seen: list[Any] = []

    async def look() -> Outcome:
        seen.extend((kind, record.get("status", record.get("state"))) for kind in KINDS for record in shop.records(kind))
        return OUTCOMES["Approved"]

    shop.providers["card"].will("create", look)
    await shop.pay(key="k")
    assert seen == [("payment", "processing"), ("attempt", "intent"), ("transaction", "processing"), ("idempotency", None)]


KINDS = ("payment", "attempt", "transaction", "entry", "delivery", "idempotency")


async def test_state_books_outbox_and_response_are_in_the_file_before_the_answer(shop: Shop):
    shop.providers["card"].will("create", OUTCOMES["Approved"])
    response = await shop.post(key="k")
    payment_id = shop.read(response)["paymentID"]
    assert [record["state"] for record in shop.records("attempt")] == ["succeeded"]
    [entry] = shop.records("entry")
    assert [(p["account"], p["debit"] - p["credit"]) for p in entry["postings"]] == [
        ("receivable:card", 1000),
        ("payable:merchant_123", -980),
        ("fees", -20),
    ]
    assert {(d["endpointID"], d["paymentID"], d["state"]) for d in shop.records("delivery")} == {
        ("ep_1", payment_id, "pending"),
        ("ep_2", payment_id, "pending"),
    }
    assert [record["responseStatus"] for record in shop.records("idempotency")] == [201]


async def test_every_durable_step_is_announced_once_with_its_deliveries(shop: Shop):
    shop.providers["card"].will("create", OUTCOMES["Approved"])
    payment_id = (await shop.pay())["paymentID"]
    assert shop.announced == [
        (payment_id, ["payment.processing"], []),
        (payment_id, ["payment.completed"], ["ep_1:2", "ep_2:2"]),
    ]


async def test_nobody_is_called_when_the_intent_could_not_be_stored(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sqlite, "WAITING_MAX", 0)
    with pytest.raises(StoreFull):
        await shop.post(key="k")
    assert shop.providers["card"].calls == []
    assert shop.announced == []
    monkeypatch.undo()
    shop.providers["card"].will("create", OUTCOMES["Approved"])
    assert (await shop.pay(key="k"))["status"] == "completed"


async def test_the_provider_is_given_the_callers_deadline_and_our_own_reference(shop: Shop):
    shop.providers["card"].will("create", OUTCOMES["Approved"])
    payment_id = (await shop.pay())["paymentID"]
    assert shop.providers["card"].references == {f"att_{payment_id.removeprefix('pay_')}_01"}


async def test_an_unknown_outcome_is_asked_about_soon_and_a_pending_one_later(shop: Shop):
    shop.providers["card"].will("create", OUTCOMES["Unknown"])
    shop.providers["upi"].will("create", OUTCOMES["Pending"])
    unknown, pending = (await shop.pay())["paymentID"], (await shop.pay("upi"))["paymentID"]
    assert shop.attempt(unknown).due_at_ms == NOW_MS + shop.recovery.unknown_after_ms
    assert shop.attempt(unknown).unknown_at_ms == NOW_MS
    assert shop.attempt(pending).due_at_ms == NOW_MS + shop.recovery.pending_after_ms


@pytest.mark.parametrize("found", ["Approved", "Declined", "Unknown", "NotSent"])
async def test_neither_number_nor_cvv_is_stored_anywhere(shop: Shop, tmp_path: Path, found: str):
    shop.providers["card"].will("create", OUTCOMES[found])
    payment_id = (await shop.pay(key="k"))["paymentID"]
    for path in tmp_path.iterdir():
        assert NUMBER.encode() not in path.read_bytes(), path
    with closing(apsw.Connection(str(shop.path))) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type='table' AND name<>'cards'")]
        cells = [cell for table in tables for row in database.execute(f"SELECT * FROM {table}") for cell in row]
    for cell in cells:
        text = cell.decode() if isinstance(cell, bytes) else str(cell)
        assert f'"{CVV}"' not in text
        assert text != CVV
        assert "cvv" not in text.lower()
    details = bytes(shop.payment(payment_id).details).decode()
    assert '"brand":"visa","bin":"411111","last4":"1111","expiryMonth":"12","expiryYear":"2035"' in details
