"""Providers' callbacks at the door: who may speak, and what comes of it."""

import asyncio
import json
import time
from typing import Any

import pytest

from gateway.core import signature
from tests.gateway.api.conftest import GOOD, Site
from tests.gateway.doubles import PATIENCE_S, secret


async def waiting(site: Site, method: str = "upi") -> tuple[str, dict[str, Any]]:
    """A payment whose customer has to act, and the callback that says they did."""
    paid = await site.pay(method)
    asked = json.loads(site.provider.requests[-1])
    told = {key: asked[key] for key in ("reference", "amount", "currency")}
    provider = "upi" if method == "upi" else "bank"
    return paid["paymentID"], told | {
        "id": "cb_1",
        "provider": provider,
        "providerID": "prov_1",
        "status": "approved",
        "responseCode": "00",
    }


async def status_of(site: Site, payment_id: str) -> str:
    return (await site.request("GET", f"/api/payments/{payment_id}/status")).json["data"]["status"]


@pytest.mark.parametrize("method", ["upi", "netbanking"])
async def test_a_signed_callback_ends_the_payment_and_the_merchant_hears_of_it(site: Site, method: str):
    payment_id, told = await waiting(site, method)
    answer = await site.call_back(told, provider=told["provider"])
    assert (answer.status, answer.json) == (200, {"success": True, "data": {"received": True}})
    assert await status_of(site, payment_id) == "completed"
    headers, body = await webhook_of(site)
    webhook = json.loads(body)
    assert (webhook["event"], webhook["data"]["paymentID"]) == ("payment.completed", payment_id)
    key = signature.secret_key(secret("merchant"))
    assert headers["X-Webhook-Signature"] == signature.sign_body(key, body)
    assert headers["webhook-id"] == webhook["id"]


async def webhook_of(site: Site) -> tuple[dict[str, str], bytes]:
    return await asyncio.wait_for(site.provider.webhooks.get(), PATIENCE_S)


def other_signature(told: dict[str, Any], at_s: int, *, key: str = "upi", message_id: str = "cb_1") -> str:
    return signature.sign(signature.secret_key(secret(key)), message_id, at_s, json.dumps(told).encode())


@pytest.mark.parametrize(
    "spoil",
    [
        {"webhook-signature": None},
        {"webhook-id": None},
        {"webhook-timestamp": None},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,\udcff\udcfe"},
        {"webhook-signature": "₹"},
        {"webhook-id": "cb_2"},
        {"webhook-id": "\udcff"},
        {"webhook-timestamp": "soon"},
        {"webhook-timestamp": "1"},
        {"webhook-timestamp": "9" * 40},
    ],
    ids=str,
)
async def test_a_callback_whose_signature_does_not_verify_is_refused(site: Site, spoil: dict[str, str | None]):
    payment_id, told = await waiting(site)
    answer = await site.call_back(told, **spoil)
    assert (answer.status, answer.json["code"]) == (401, "invalid_signature")
    assert await status_of(site, payment_id) == "requires_action"


@pytest.mark.parametrize(("off_s", "status"), [(-290, 200), (290, 200), (-310, 401), (310, 401)])
async def test_a_callback_may_be_five_minutes_old(site: Site, off_s: int, status: int):
    _, told = await waiting(site)
    at_s = int(time.time()) + off_s
    headers = {"webhook-timestamp": str(at_s), "webhook-signature": other_signature(told, at_s)}
    assert (await site.call_back(told, **headers)).status == status


async def test_a_callback_under_a_strange_secret_or_over_another_body_is_refused(site: Site):
    payment_id, told = await waiting(site)
    assert (await site.call_back(told, provider="merchant")).status == 401
    now_s = int(time.time())
    signed_for_less = other_signature(told | {"amount": 1}, now_s)
    assert (await site.call_back(told, **{"webhook-signature": signed_for_less})).status == 401
    assert await status_of(site, payment_id) == "requires_action"


async def test_an_unsigned_callback_is_refused_whatever_is_in_it(site: Site):
    for body in (b"", b"{", b"[" * 60_000, b'{"reference":"x","provider":"upi"}', b"\xff"):
        answer = await site.call_back(body, **{"webhook-signature": "v1,x"})
        assert (answer.status, answer.json["code"]) == (401, "invalid_signature")


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"amount": 999}, 400),
        ({"currency": "USD"}, 400),
        ({"status": "paid"}, 400),
        ({"status": None}, 400),
        ({"reference": "att_nothing_01"}, 404),
        ({"provider": "bank"}, 404),
        ({"provider": "card"}, 404),
        ({"provider": "paypal"}, 400),
    ],
    ids=str,
)
async def test_a_signed_callback_that_is_not_about_our_charge_changes_nothing(site: Site, changed: dict[str, Any], status: int):
    payment_id, told = await waiting(site)
    assert (await site.call_back(told | changed)).status == status
    assert await status_of(site, payment_id) == "requires_action"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[]", b"[" * 60_000, b'{"more":' + b"[" * 60_000, b'{"reference":"\xff"}']
)
async def test_a_signed_callback_that_cannot_be_read_is_refused(site: Site, body: bytes):
    assert (await site.call_back(body)).status == 400


async def test_one_provider_does_not_speak_for_another(site: Site):
    payment_id, told = await waiting(site, "upi")
    assert (await site.call_back(told, provider="bank")).status == 404
    assert (await site.call_back(told | {"provider": "bank"}, provider="bank")).status == 404
    assert await status_of(site, payment_id) == "requires_action"


async def test_a_callback_that_comes_twice_is_thanked_twice_and_told_once(site: Site):
    _, told = await waiting(site)
    for _ in range(3):
        assert (await site.call_back(told)).status == 200
    await webhook_of(site)
    assert site.provider.webhooks.empty()


async def test_callbacks_are_bounded_and_typed_like_every_body(site: Site):
    assert (await site.call_back(b" " * (64 * 1024 + 1))).status == 413
    assert (await site.call_back(GOOD["upi"], **{"Content-Type": "text/plain"})).status == 415
