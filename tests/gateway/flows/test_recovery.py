"""How what is not known becomes known: status inquiry, reversal, and a person as the last resort."""

import asyncio

import pytest
import structlog

from gateway.api.payments import render
from gateway.config import Recovery
from gateway.core.outcome import Outcome
from gateway.core.payment import Method
from gateway.flows.idempotency import CLAIM_LIFETIME_MS
from gateway.workers import Purger, Recoverer
from tests.gateway.doubles import NOW_MS, OUTCOMES, PATIENCE_S, Held, intent
from tests.gateway.flows.conftest import METHODS, Shop


async def unknown(shop: Shop, method: Method = "card") -> str:
    shop.providers[method].will("create", OUTCOMES["Unknown"])
    data = await shop.pay(method)
    assert data["status"] == "processing"
    return data["paymentID"]


async def pending(shop: Shop, method: Method = "upi") -> str:
    shop.providers[method].will("create", OUTCOMES["Pending"])
    return (await shop.pay(method))["paymentID"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("found", "status", "state"),
    [
        ("Approved", "completed", "succeeded"),
        ("Declined", "failed", "declined"),
        ("Expired", "failed", "declined"),
        ("Reversed", "failed", "reversed"),
        ("Pending", "requires_action", "pending"),
        ("Unknown", "processing", "unknown"),
        ("NotSent", "processing", "unknown"),
    ],
)
async def test_an_inquiry_resolves_what_was_unknown(shop: Shop, method: Method, found: str, status: str, state: str):
    payment_id = await unknown(shop, method)
    shop.providers[method].will("inquire", OUTCOMES[found])
    payment, attempt = await shop.resolve(payment_id)
    assert (payment.status, attempt.state) == (status, state)
    assert (payment, attempt) == (shop.payment(payment_id), shop.attempt(payment_id))
    assert shop.providers[method].calls == ["create", "inquire"]


@pytest.mark.parametrize("make", [unknown, pending])
async def test_what_the_provider_never_saw_fails_only_once_the_reversal_is_acknowledged(shop: Shop, make):
    payment_id = await make(shop)
    provider = shop.providers["card" if make is unknown else "upi"]
    before = shop.payment(payment_id).status
    provider.will("inquire", OUTCOMES["NotFound"])
    provider.will("reverse", OUTCOMES["Unknown"], OUTCOMES["NotSent"], OUTCOMES["Reversed"])
    for _ in range(2):
        payment, attempt = await shop.resolve(payment_id)
        assert (payment.status, attempt.state) == (before, "reversing")
    payment, attempt = await shop.resolve(payment_id)
    assert (payment.status, attempt.state) == ("failed" if make is unknown else "expired", "reversed")
    assert provider.calls == ["create", "inquire", "reverse", "reverse", "reverse"]


async def test_a_reversal_that_finds_a_decline_fails_the_payment_with_its_reason(shop: Shop):
    payment_id = await unknown(shop)
    shop.providers["card"].will("inquire", OUTCOMES["NotFound"])
    shop.providers["card"].will("reverse", OUTCOMES["Declined"])
    payment, attempt = await shop.resolve(payment_id)
    assert (payment.status, payment.decline_code, attempt.state) == ("failed", "51", "declined")


async def test_a_success_after_the_payment_failed_is_reversed_and_not_revived(shop: Shop):
    shop.providers["upi"].will("create", OUTCOMES["Declined"])
    payment_id = (await shop.pay("upi"))["paymentID"]
    told = await shop.callback("Approved", shop.attempt(payment_id).reference)
    assert (told.status, shop.attempt(payment_id).state) == ("failed", "reversing")
    assert [attempt.payment_id for attempt in shop.store.due_attempts("upi", NOW_MS, 10)] == [payment_id]
    shop.providers["upi"].will("reverse", OUTCOMES["Reversed"])
    payment, attempt = await shop.resolve(payment_id)
    assert (payment.status, payment.captured_minor, attempt.state) == ("failed", 0, "reversed")
    assert (payment.failure_reason, payment.decline_code) == ("insufficient_funds", "51")


@pytest.mark.parametrize(("status", "state"), [("requires_action", "succeeded"), ("failed", "manual_review")])
async def test_a_reversal_that_comes_too_late_completes_what_waits_and_leaves_the_rest_to_a_person(
    shop: Shop, status: str, state: str
):
    payment_id = await pending(shop)
    reference = shop.attempt(payment_id).reference
    if status == "failed":
        await shop.callback("Declined", reference)
        await shop.callback("Approved", reference)
    shop.providers["upi"].will("reverse", OUTCOMES["Irreversible"])
    if status == "requires_action":
        await shop.payments.void("merchant_123", payment_id, None, render)
    else:
        await shop.resolve(payment_id)
    payment, attempt = shop.payment(payment_id), shop.attempt(payment_id)
    taken = state == "succeeded"
    assert (payment.status, payment.captured_minor) == (("completed", 1000) if taken else ("failed", 0))
    assert (attempt.state, attempt.due_at_ms, payment.ending) == (state, None, None)


async def test_a_success_that_is_taken_back_goes_to_a_person_and_leaves_the_books(shop: Shop):
    payment_id = await pending(shop)
    reference = shop.attempt(payment_id).reference
    await shop.callback("Approved", reference)
    told = await shop.callback("Reversed", reference)
    assert (told.status, told.captured_minor, shop.attempt(payment_id).state) == ("completed", 1000, "manual_review")
    assert shop.attempt(payment_id).due_at_ms is None


def give_up_after_the_second_try(shop: Shop) -> None:
    shop.recovery = Recovery(give_up_inquiries=1)
    shop.restart()


async def test_an_old_attempt_is_not_given_up_at_the_first_silence(shop: Shop):
    payment_id = await unknown(shop)
    shop.clock.advance(10 * shop.recovery.give_up_after_ms)
    shop.providers["card"].will("inquire", *[OUTCOMES["Unknown"]] * shop.recovery.give_up_inquiries)
    for _ in range(shop.recovery.give_up_inquiries):
        assert (await shop.resolve(payment_id))[1].state == "unknown"


async def test_a_definite_answer_ends_what_a_person_was_asked_about(shop: Shop):
    give_up_after_the_second_try(shop)
    payment_id = await pending(shop)
    shop.clock.advance(shop.recovery.give_up_after_ms + 1)
    shop.providers["upi"].will("inquire", OUTCOMES["Unknown"], OUTCOMES["Unknown"])
    await shop.resolve(payment_id)
    assert (await shop.resolve(payment_id))[1].state == "manual_review"
    assert (await shop.callback("Approved", shop.attempt(payment_id).reference)).status == "completed"


async def test_an_inquiry_that_was_not_sent_says_nothing_about_an_interrupted_charge(shop: Shop):
    await shop.store.commit(intent(999))
    await shop.store.wake_intents(shop.clock.now_ms())
    shop.providers["card"].will("inquire", OUTCOMES["NotSent"], OUTCOMES["Approved"])
    payment, attempt = await shop.resolve(f"pay_{999:032x}")
    assert (payment.status, attempt.due_at_ms is not None) == ("processing", True)
    assert (await shop.resolve(payment.id))[0].status == "completed"


@pytest.mark.parametrize("found", ["Unknown", "NotSent"])
async def test_what_no_inquiry_can_tell_is_given_up_to_a_person(shop: Shop, found: str):
    give_up_after_the_second_try(shop)
    payment_id = await unknown(shop)
    shop.clock.advance(shop.recovery.give_up_after_ms)
    shop.providers["card"].will("inquire", OUTCOMES[found], OUTCOMES[found])
    assert (await shop.resolve(payment_id))[1].state == "unknown"
    shop.clock.advance(1)
    payment, attempt = await shop.resolve(payment_id)
    assert (payment.status, attempt.state, attempt.due_at_ms) == ("processing", "manual_review", None)
    assert await shop.resolve(payment_id) == (payment, attempt)
    assert shop.providers["card"].calls == ["create", "inquire", "inquire"]


@pytest.mark.parametrize("found", ["Unknown", "Approved", "Pending"])
async def test_a_reversal_that_is_never_acknowledged_is_given_up_to_a_person(shop: Shop, found: str):
    give_up_after_the_second_try(shop)
    payment_id = await unknown(shop)
    shop.providers["card"].will("inquire", OUTCOMES["NotFound"])
    shop.providers["card"].will("reverse", OUTCOMES[found], OUTCOMES[found])
    assert (await shop.resolve(payment_id))[1].state == "reversing"
    shop.clock.advance(shop.recovery.give_up_after_ms + 1)
    assert (await shop.resolve(payment_id))[1].state == "manual_review"


async def test_a_definite_answer_counts_however_late_it_comes(shop: Shop):
    payment_id = await unknown(shop)
    shop.clock.advance(10 * shop.recovery.give_up_after_ms)
    shop.providers["card"].will("inquire", OUTCOMES["Approved"])
    assert (await shop.resolve(payment_id))[0].status == "completed"


async def test_a_customer_who_never_acts_is_cancelled_at_the_provider_and_expires(shop: Shop):
    payment_id = await pending(shop)
    shop.providers["upi"].will("inquire", OUTCOMES["Pending"], OUTCOMES["Pending"])
    shop.clock.advance(shop.attempt(payment_id).expires_at_ms + 30_000 - NOW_MS)
    assert (await shop.resolve(payment_id))[1].state == "pending"
    shop.clock.advance(1)
    shop.providers["upi"].will("reverse", OUTCOMES["Reversed"])
    payment, attempt = await shop.resolve(payment_id)
    assert (payment.status, attempt.state) == ("expired", "reversed")


INQUIRIES = 7  # as many as fit into the lifetime of a UPI payment


@pytest.mark.parametrize(
    ("make", "found", "first_ms"), [(unknown, "Unknown", 500), (unknown, "NotSent", 500), (pending, "Pending", 15_000)]
)
async def test_inquiries_back_off_to_a_bound(shop: Shop, make, found: str, first_ms: int):
    payment_id = await make(shop)
    provider = shop.providers["card" if make is unknown else "upi"]
    waits = []
    for _ in range(INQUIRIES):
        due_ms = shop.attempt(payment_id).due_at_ms
        assert due_ms is not None
        shop.clock.at_ms = max(due_ms, shop.clock.at_ms)
        provider.will("inquire", OUTCOMES[found])
        _, attempt = await shop.resolve(payment_id)
        assert attempt.due_at_ms is not None
        waits.append(attempt.due_at_ms - shop.clock.at_ms)
    assert waits == [min(first_ms * 2**n, 60_000) for n in range(INQUIRIES)]
    assert shop.attempt(payment_id).inquiries == INQUIRIES


@pytest.mark.parametrize("state", ["succeeded", "declined", "reversed", "manual_review"])
async def test_a_final_attempt_is_not_asked_about(shop: Shop, state: str):
    payment = intent().payment
    assert payment is not None
    attempt = intent(attempt={"state": state, "due_at_ms": None}).attempt
    assert attempt is not None
    assert await shop.payments.attempts.resolve(payment, attempt) == (payment, attempt)
    assert shop.providers["card"].calls == []


# The worker


def recoverer(shop: Shop, provider: Method = "card") -> Recoverer:
    return Recoverer(
        provider,
        store=shop.store,
        payments=shop.payments,
        operations=shop.operations,
        disputes=shop.disputes,
        clock=shop.clock,
        config=shop.recovery,
    )


async def test_the_worker_asks_about_what_is_due_and_leaves_the_rest(shop: Shop):
    first, second = await unknown(shop), await unknown(shop)
    worker = recoverer(shop)
    assert await worker.run_once() == 0
    shop.clock.advance(shop.recovery.unknown_after_ms)
    shop.providers["card"].will("inquire", OUTCOMES["Approved"], OUTCOMES["Unknown"])
    assert await worker.run_once() == 2
    assert {shop.payment(first).status, shop.payment(second).status} == {"completed", "processing"}
    assert await worker.run_once() == 0


async def test_the_worker_asks_a_bounded_number_at_a_time(shop: Shop):
    count = shop.recovery.inquiries_per_tick_max + 7
    await asyncio.gather(*(unknown(shop) for _ in range(count)))
    shop.clock.advance(shop.recovery.unknown_after_ms)
    shop.providers["card"].will("inquire", *[OUTCOMES["Approved"]] * count)
    worker = recoverer(shop)
    assert [await worker.run_once() for _ in range(3)] == [count - 7, 7, 0]
    assert {record["status"] for record in shop.records("payment")} == {"completed"}


async def test_an_interrupted_intent_is_asked_about_after_a_restart(shop: Shop):
    await shop.store.commit(intent(999))
    worker = recoverer(shop)
    assert await worker.run_once() == 0
    await shop.store.wake_intents(shop.clock.now_ms())
    shop.providers["card"].will("inquire", OUTCOMES["Approved"])
    assert await worker.run_once() == 1
    assert shop.payment(f"pay_{999:032x}").status == "completed"


async def test_the_worker_outlives_a_round_that_fails(shop: Shop):
    async def broken() -> Outcome:
        raise RuntimeError("a bug in a provider's adapter")

    shop.recovery = Recovery(interval_ms=1)
    payment_id = await unknown(shop)
    shop.clock.advance(shop.recovery.unknown_after_ms)
    shop.providers["card"].will("inquire", broken, OUTCOMES["Approved"])
    shop.stepped.clear()
    worker = recoverer(shop)
    with structlog.testing.capture_logs() as logs:
        worker.start()
        async with asyncio.timeout(PATIENCE_S):
            await shop.stepped.wait()
        await worker.stop()
    assert shop.payment(payment_id).status == "completed"
    assert [line["log_level"] for line in logs if line["event"] == "recovery.failed"] == ["error"]


async def test_a_worker_asks_its_own_provider_only(shop: Shop):
    await unknown(shop)
    shop.clock.advance(shop.recovery.unknown_after_ms)
    assert await recoverer(shop, "upi").run_once() == 0
    assert shop.providers["card"].calls == ["create"]


async def test_what_was_found_due_is_read_again_before_it_is_asked_about(shop: Shop):
    payment_id = await pending(shop)
    stale = shop.attempt(payment_id)
    await shop.callback("Approved", stale.reference)
    await shop.payments.attempts.recover(stale)
    payment, attempt = shop.payment(stale.payment_id), shop.attempt(stale.payment_id)
    assert (payment.status, attempt.state) == ("completed", "succeeded")
    assert shop.providers["upi"].calls == ["create"]


async def test_the_worker_finishes_its_round_before_it_stops(shop: Shop):
    payment_id = await unknown(shop)
    shop.clock.advance(shop.recovery.unknown_after_ms)
    held = Held(OUTCOMES["Approved"])
    shop.providers["card"].will("inquire", held)
    worker = recoverer(shop)
    worker.start()
    await held.reached.wait()
    stopping = asyncio.create_task(worker.stop())
    held.let_go.set()
    await stopping
    assert shop.payment(payment_id).status == "completed"


async def test_lapsed_keys_are_forgotten(shop: Shop):
    shop.providers["card"].will("create", OUTCOMES["Approved"], OUTCOMES["Declined"])
    await shop.pay(key="old")
    shop.clock.advance(CLAIM_LIFETIME_MS + 1)
    await shop.pay(key="new")
    await Purger(store=shop.store, clock=shop.clock).run_once()
    assert [record["key"] for record in shop.records("idempotency")] == ["new"]
