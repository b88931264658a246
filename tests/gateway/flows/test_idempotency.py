"""One key, one charge, one answer."""

import asyncio

import pytest

from gateway.core.errors import CallerError
from gateway.core.payment import Method
from tests.gateway.doubles import OUTCOMES, Held
from tests.gateway.flows.conftest import METHODS, Shop, crash

DAY_MS = 24 * 3600 * 1000


async def refused(shop: Shop, status: int, code: str, **options: str | bytes) -> None:
    with pytest.raises(CallerError) as caught:
        await shop.post(**options)  # type: ignore[arg-type]
    assert (caught.value.status, caught.value.code) == (status, code)


@pytest.mark.parametrize("found", ["Approved", "Declined", "Unknown", "Pending", "NotSent"])
@pytest.mark.parametrize("restarted", [False, True])
async def test_the_same_request_again_gets_the_same_answer_byte_for_byte(shop: Shop, found: str, restarted: bool):
    shop.providers["card"].will("create", OUTCOMES[found])
    first = await shop.post(key="k")
    shop.clock.advance(5_000)
    if restarted:
        shop.restart()
    assert await shop.post(key="k") == first
    assert await shop.post(key="k") == first
    assert shop.providers["card"].calls == ["create"]
    assert len(shop.records("payment")) == 1


async def test_the_stored_answer_stays_though_the_payment_moves_on(shop: Shop):
    shop.providers["upi"].will("create", OUTCOMES["Pending"])
    first = await shop.post("upi", key="k")
    payment_id = shop.read(first)["paymentID"]
    await shop.callback("Approved", shop.attempt(payment_id).reference)
    assert shop.payment(payment_id).status == "completed"
    assert await shop.post("upi", key="k") == first


async def test_while_a_request_runs_its_key_is_busy_or_taken(shop: Shop):
    held = Held(OUTCOMES["Approved"])
    shop.providers["card"].will("create", held)
    running = asyncio.create_task(shop.post(key="k"))
    await held.reached.wait()
    await refused(shop, 409, "idempotency_in_flight", key="k")
    await refused(shop, 422, "idempotency_key_reused", key="k", body=b"another request")
    held.let_go.set()
    first = await running
    assert await shop.post(key="k") == first
    await refused(shop, 422, "idempotency_key_reused", key="k", body=b"another request")
    assert shop.providers["card"].calls == ["create"]


async def test_of_many_at_once_one_pays(shop: Shop):
    shop.providers["card"].will("create", OUTCOMES["Approved"])
    results = await asyncio.gather(*(shop.post(key="k") for _ in range(20)), return_exceptions=True)
    answered = [result for result in results if not isinstance(result, CallerError)]
    assert len(answered) == 1
    assert {result.code for result in results if isinstance(result, CallerError)} == {"idempotency_in_flight"}
    assert shop.providers["card"].calls == ["create"]


async def test_without_a_key_each_request_is_a_payment(shop: Shop):
    shop.providers["card"].will("create", OUTCOMES["Approved"], OUTCOMES["Approved"])
    first, second = await shop.pay(), await shop.pay()
    assert first["paymentID"] != second["paymentID"]


async def test_another_merchants_key_is_another_key(shop: Shop):
    shop.providers["card"].will("create", OUTCOMES["Approved"], OUTCOMES["Declined"])
    assert (await shop.pay(key="k"))["status"] == "completed"
    assert (await shop.pay(key="k2", body=b"x"))["status"] == "failed"


async def test_a_key_is_free_again_after_a_day(shop: Shop):
    shop.providers["card"].will("create", OUTCOMES["Approved"], OUTCOMES["Approved"])
    first = await shop.pay(key="k")
    shop.clock.advance(DAY_MS)
    assert await shop.pay(key="k") == first
    shop.clock.advance(1)
    assert (await shop.pay(key="k"))["paymentID"] != first["paymentID"]


# Interrupted work


async def interrupted(shop: Shop, method: Method = "card") -> str:
    """A payment whose process died while the provider was being called."""
    held = Held(OUTCOMES["Approved"])
    shop.providers[method].will("create", held)
    running = asyncio.create_task(shop.post(method, key="k"))
    await held.reached.wait()
    await crash(running)
    shop.restart()
    [record] = shop.records("attempt")
    assert record["state"] == "intent"
    return record["paymentID"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("found", "status"),
    [("Approved", "completed"), ("Declined", "failed"), ("Pending", "requires_action"), ("Unknown", "processing")],
)
async def test_a_retry_of_interrupted_work_asks_and_does_not_charge_again(shop: Shop, method: Method, found: str, status: str):
    payment_id = await interrupted(shop, method)
    shop.providers[method].will("inquire", OUTCOMES[found])
    finished = await shop.post(method, key="k")
    data = shop.read(finished)
    assert (data["paymentID"], data["status"]) == (payment_id, status)
    assert shop.providers[method].calls == ["create", "inquire"]
    assert len(shop.providers[method].references) == 1
    assert await shop.post(method, key="k") == finished


async def test_interrupted_work_that_never_arrived_is_blocked_before_it_fails(shop: Shop):
    payment_id = await interrupted(shop)
    shop.providers["card"].will("inquire", OUTCOMES["NotFound"])
    shop.providers["card"].will("reverse", OUTCOMES["Reversed"])
    data = await shop.pay(key="k")
    assert (data["paymentID"], data["status"], data["failureReason"]) == (payment_id, "failed", "provider_did_not_process")
    assert shop.providers["card"].calls == ["create", "inquire", "reverse"]


async def test_interrupted_work_under_its_key_is_no_mismatch_and_no_free_key(shop: Shop):
    await interrupted(shop)
    await refused(shop, 422, "idempotency_key_reused", key="k", body=b"another request")
    held = Held(OUTCOMES["Approved"])
    shop.providers["card"].will("inquire", held)
    finishing = asyncio.create_task(shop.post(key="k"))
    await held.reached.wait()
    await refused(shop, 409, "idempotency_in_flight", key="k")
    held.let_go.set()
    assert shop.read(await finishing)["status"] == "completed"


async def test_interrupted_work_that_recovery_finished_is_answered_without_asking(shop: Shop):
    payment_id = await interrupted(shop)
    shop.providers["card"].will("inquire", OUTCOMES["Approved"])
    await shop.resolve(payment_id)
    assert (await shop.pay(key="k"))["status"] == "completed"
    assert shop.providers["card"].calls == ["create", "inquire"]


async def test_an_answered_request_is_replayed_to_all_who_repeat_it_at_once(shop: Shop):
    shop.providers["card"].will("create", OUTCOMES["Approved"])
    first = await shop.post(key="k")
    assert await asyncio.gather(*(shop.post(key="k") for _ in range(24))) == [first] * 24
    assert shop.providers["card"].calls == ["create"]


async def test_of_many_at_once_one_pays_and_the_others_are_told_to_wait(shop: Shop):
    shop.providers["card"].will("create", OUTCOMES["Approved"])
    answers = await asyncio.gather(*(shop.post(key="k") for _ in range(24)), return_exceptions=True)
    paid = [answer for answer in answers if not isinstance(answer, BaseException)]
    waiting = [answer.code for answer in answers if isinstance(answer, CallerError)]
    assert (len(paid), waiting) == (1, ["idempotency_in_flight"] * 23)
    assert shop.providers["card"].calls == ["create"]
