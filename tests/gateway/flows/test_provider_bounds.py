"""A provider with as many calls under way as it may have: nothing is begun that could not be sent, and nothing is lost by waiting."""

import msgspec
import pytest

from gateway.api.payments import render
from gateway.core.authentication import id_for
from gateway.core.errors import Overloaded
from gateway.core.outcome import Declined
from gateway.core.payment import Method
from gateway.ports import Response
from tests.gateway.doubles import OUTCOMES
from tests.gateway.flows.conftest import Shop
from tests.gateway.flows.test_authentications import challenged, told
from tests.gateway.flows.test_recovery import pending


def fill(shop: Shop, method: Method) -> None:
    shop.channels[method].calls.under_way = 512


def drain(shop: Shop, method: Method) -> None:
    shop.channels[method].calls.under_way = 0


async def test_a_void_waits_for_its_turn_and_leaves_no_trace(shop: Shop):
    payment_id = await pending(shop)
    before = shop.payment(payment_id)
    fill(shop, "upi")
    with pytest.raises(Overloaded):
        await shop.payments.void("merchant_123", payment_id, None, render)
    assert shop.payment(payment_id) == before
    drain(shop, "upi")
    shop.providers["upi"].will("reverse", OUTCOMES["Reversed"])
    await shop.payments.void("merchant_123", payment_id, None, render)
    assert shop.payment(payment_id).status == "voided"
    assert shop.channels["upi"].calls.under_way == 0


async def test_a_dispute_is_answered_when_there_is_room(shop: Shop):
    shop.providers["card"].will("create", OUTCOMES["Approved"])
    payment_id = (await shop.pay())["paymentID"]
    says = {
        "provider_id": "dp_1",
        "reference": shop.attempt(payment_id).reference,
        "reason": "fraudulent",
        "status": "needs_response",
        "amount_minor": 1000,
        "currency": "INR",
        "respond_by_ms": 1,
    }
    body = msgspec.json.encode({"provider": "card", "type": "dispute", "says": says})
    dispute = await shop.disputes.callback("card", body)
    fill(shop, "card")
    with pytest.raises(Overloaded):
        await shop.disputes.respond("merchant_123", dispute.id, None, None, lambda _: Response(200, b""))
    assert shop.store.dispute(dispute.id) == dispute


async def test_who_comes_back_is_not_kept_waiting_and_recovery_charges_them(shop: Shop):
    payment_id = await challenged(shop)
    fill(shop, "card")
    assert (await shop.payments.came_back(payment_id)).status == "requires_action"
    callback = {"reference": id_for(payment_id), "provider": "card", "type": "authentication", "says": told("Y")}
    with pytest.raises(Overloaded):
        await shop.payments.authentications.callback("card", msgspec.json.encode(callback))
    assert shop.providers["card"].calls == ["create", "authenticate"]
    shop.providers["card"].will("inquire_authentication", told("Y"))
    shop.providers["card"].will("create", OUTCOMES["Approved"])
    authentication = shop.store.authentication(id_for(payment_id))
    assert authentication is not None
    assert await shop.payments.authentications.recover(authentication) == "authenticated"
    assert shop.payment(payment_id).status == "completed"


async def test_the_bound_counts_a_second_attempt_as_the_payment_that_it_is_part_of(shop: Shop):
    under_way: list[int] = []

    async def create() -> object:
        under_way.append(shop.channels["card"].calls.under_way)
        return Declined("1A", "authentication_required", "prov_1") if len(under_way) == 1 else OUTCOMES["Approved"]

    shop.providers["card"].will("create", create, create)
    shop.providers["card"].will("authenticate", told("Y"))
    assert (await shop.pay())["status"] == "completed"
    assert under_way == [1, 1]
