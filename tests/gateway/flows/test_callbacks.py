"""Callbacks come twice, late, out of order, and sometimes before the answer."""

import asyncio
from itertools import permutations

import pytest

from gateway.core.errors import CallerError
from gateway.core.payment import Method
from tests.gateway.doubles import OUTCOMES, Held
from tests.gateway.flows.conftest import Shop


async def waiting(shop: Shop, method: Method = "upi") -> tuple[str, str]:
    """A payment whose customer has to act, and its attempt's reference."""
    shop.providers[method].will("create", OUTCOMES["Pending"])
    payment_id = (await shop.pay(method))["paymentID"]
    return payment_id, shop.attempt(payment_id).reference


@pytest.mark.parametrize("method", ["upi", "netbanking"])
@pytest.mark.parametrize(("says", "status"), [("Approved", "completed"), ("Declined", "failed"), ("Expired", "expired")])
async def test_a_callback_ends_the_payment(shop: Shop, method: Method, says: str, status: str):
    payment_id, reference = await waiting(shop, method)
    told = await shop.callback(says, reference, method)
    assert told == shop.payment(payment_id)
    assert told.status == status
    assert shop.announced[-1][2] == ["ep_1:4", "ep_2:4"] if says == "Approved" else ["ep_1:3", "ep_2:3"]


@pytest.mark.parametrize("says", ["Approved", "Declined", "Expired"])
async def test_a_callback_that_comes_again_changes_nothing(shop: Shop, says: str):
    payment_id, reference = await waiting(shop)
    first = await shop.callback(says, reference)
    announced = list(shop.announced)
    assert [await shop.callback(says, reference) for _ in range(3)] == [first] * 3
    assert shop.payment(payment_id) == first
    assert shop.announced == announced


async def test_the_same_callback_many_times_at_once_counts_once(shop: Shop):
    _, reference = await waiting(shop)
    told = await asyncio.gather(*(shop.callback("Approved", reference) for _ in range(10)))
    assert {payment.status for payment in told} == {"completed"}
    assert len(shop.records("entry")) == 1


@pytest.mark.parametrize("order", sorted(set(permutations(["Pending", "Approved", "Pending"]))), ids=str)
async def test_late_news_of_a_pending_charge_does_not_undo_its_success(shop: Shop, order: tuple[str, ...]):
    payment_id, reference = await waiting(shop)
    for says in order:
        await shop.callback(says, reference)
    assert shop.payment(payment_id).status == "completed"


@pytest.mark.parametrize(("says", "status"), [("Approved", "completed"), ("Declined", "failed"), ("Expired", "failed")])
async def test_a_callback_that_is_quicker_than_the_answer_is_what_the_merchant_hears(shop: Shop, says: str, status: str):
    held = Held(OUTCOMES["Pending"])
    shop.providers["upi"].will("create", held)
    paying = asyncio.create_task(shop.post("upi", key="k"))
    await held.reached.wait()
    [reference] = shop.providers["upi"].references
    assert (await shop.callback(says, reference)).status == status
    held.let_go.set()
    answer = await paying
    assert shop.read(answer)["status"] == status
    assert await shop.post("upi", key="k") == answer


async def test_a_callback_ends_what_was_unknown(shop: Shop):
    shop.providers["upi"].will("create", OUTCOMES["Unknown"])
    payment_id = (await shop.pay("upi"))["paymentID"]
    assert (await shop.callback("Approved", shop.attempt(payment_id).reference)).status == "completed"
    assert shop.store.due_attempts("upi", 10**15, 10) == []


async def refused(shop: Shop, status: int, provider: Method, body: bytes) -> None:
    with pytest.raises(CallerError) as caught:
        await shop.payments.attempts.callback(provider, body)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'{"reference":"x"}',
        b'{"provider":"upi"}',
        b'{"reference":5,"provider":"upi"}',
        b'{"reference":"x","provider":"paypal"}',
        b'{"reference":"\xff","provider":"upi"}',
        b'{"reference":"x","provider":"upi","more":' + b"[" * 60_000,
        b"[" * 60_000,
    ],
)
async def test_a_callback_that_cannot_be_read_is_the_senders_fault(shop: Shop, body: bytes):
    await refused(shop, 400, "upi", body)


async def test_a_callback_that_tells_nothing_definite_is_refused_so_that_it_comes_again(shop: Shop):
    payment_id, reference = await waiting(shop)
    before = shop.payment(payment_id)
    await refused(shop, 400, "upi", b'{"reference":"%b","provider":"upi","says":"Unknown"}' % reference.encode())
    assert shop.payment(payment_id) == before


async def test_a_provider_speaks_for_its_own_attempts_only(shop: Shop):
    payment_id, reference = await waiting(shop)
    before = shop.payment(payment_id)
    for signer, claimed in (("netbanking", "bank"), ("netbanking", "upi"), ("upi", "bank"), ("card", "card")):
        body = b'{"reference":"%b","provider":"%b","says":"Approved"}' % (reference.encode(), claimed.encode())
        await refused(shop, 404, signer, body)  # type: ignore[arg-type]
    assert shop.payment(payment_id) == before


@pytest.mark.parametrize("reference", ["att_nothing_01", "", "pay_1", "'; --", "\\u0000", "%"])
async def test_a_callback_about_an_unknown_reference_is_not_found(shop: Shop, reference: str):
    await waiting(shop)
    await refused(shop, 404, "upi", b'{"reference":"%b","provider":"upi","says":"Approved"}' % reference.encode())
