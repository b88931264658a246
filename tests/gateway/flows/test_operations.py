"""Capture, refund and void: what happens to them when the process dies, and when many come at once."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from gateway.core.errors import CallerError
from gateway.core.operation import Operation
from gateway.core.outcome import Authorized
from gateway.core.payment import Payment
from gateway.flows.idempotency import IdempotencyKey, Turns
from gateway.flows.operations import Ask
from gateway.ports import Commit, Response
from tests.gateway.doubles import OUTCOMES, Held
from tests.gateway.flows.conftest import Shop, crash

KINDS = ("capture", "refund", "void")
CALL = {"capture": "capture", "refund": "refund", "void": "reverse"}
DONE = {"capture": OUTCOMES["Approved"], "refund": OUTCOMES["Approved"], "void": OUTCOMES["Reversed"]}
EVENT = {"capture": "payment.completed", "refund": "refund.completed", "void": "payment.voided"}


def told(payment: Payment, operation: Operation | None = None) -> Response:
    said = f"{payment.status} {payment.captured_minor} {payment.refunded_minor}"
    return Response(201, (said if operation is None else f"{said} {operation.id} {operation.state}").encode())


async def paid(shop: Shop, kind: str) -> str:
    """A payment that the operation can be done to."""
    shop.providers["card"].will("create", OUTCOMES["Approved"] if kind == "refund" else Authorized("prov_1", "00"))
    return (await shop.pay())["paymentID"]


def key(name: str = "k", body: bytes = b"the request") -> IdempotencyKey:
    return IdempotencyKey("merchant_123", name, body)


def ask(
    shop: Shop, kind: str, payment_id: str, *, under: IdempotencyKey | None = None, amount: int = 1000
) -> Awaitable[Response]:
    if kind == "void":
        return shop.payments.void("merchant_123", payment_id, under, told)
    wanted = Ask(kind=kind, merchant_id="merchant_123", payment_id=payment_id, amount_minor=amount)  # type: ignore[arg-type]
    return shop.operations.perform(wanted, under, told)


def once_only(shop: Shop, kind: str, payment_id: str) -> None:
    """It was done, told and booked exactly once, and nothing is set aside any more."""
    assert [record["type"] for record in shop.records("event")].count(EVENT[kind]) == 1
    assert len(shop.records("entry")) == {"capture": 1, "refund": 2, "void": 0}[kind]
    payment = shop.payment(payment_id)
    expected = {"capture": ("completed", 1000, 0), "refund": ("completed", 1000, 1000), "void": ("voided", 0, 0)}[kind]
    assert (payment.status, payment.captured_minor, payment.refunded_minor) == expected
    assert (payment.capturing_minor, payment.refunding_minor, payment.ending) == (0, 0, None)


def made(shop: Shop) -> set[str]:
    """The references that the provider has met, but for the charge's own."""
    return {reference for reference in shop.providers["card"].references if not reference.startswith("att_")}


# Crashes


@pytest.mark.parametrize("kind", KINDS)
async def test_before_commit_1_nothing_happened(shop: Shop, kind: str, monkeypatch: pytest.MonkeyPatch):
    payment_id = await paid(shop, kind)
    before = shop.payment(payment_id), shop.attempt(payment_id)
    never = Held(None)

    async def hang(_: Commit) -> Any:
        return await never()

    with monkeypatch.context() as patched:
        patched.setattr(shop.store, "commit", hang)
        running = asyncio.create_task(ask(shop, kind, payment_id, under=key()))  # type: ignore[arg-type]
        await never.reached.wait()
        await crash(running)
    shop.restart()
    assert (shop.payment(payment_id), shop.attempt(payment_id)) == before
    shop.providers["card"].will(CALL[kind], DONE[kind])
    answer = await ask(shop, kind, payment_id, under=key())
    assert await ask(shop, kind, payment_id, under=key()) == answer
    assert shop.providers["card"].calls == ["create", CALL[kind]]
    once_only(shop, kind, payment_id)


async def interrupted(shop: Shop, kind: str, payment_id: str) -> None:
    """The process dies between commit 1 and commit 2, while the provider is being called."""
    held = Held(DONE[kind])
    shop.providers["card"].will(CALL[kind], held)
    running = asyncio.create_task(ask(shop, kind, payment_id, under=key()))  # type: ignore[arg-type]
    await held.reached.wait()
    await crash(running)
    shop.restart()
    await shop.store.wake_intents(shop.clock.now_ms())


@pytest.mark.parametrize("kind", KINDS)
async def test_after_commit_1_a_retry_finishes_the_work_under_the_same_reference(shop: Shop, kind: str):
    payment_id = await paid(shop, kind)
    await interrupted(shop, kind, payment_id)
    with pytest.raises(CallerError) as caught:
        await ask(shop, kind, payment_id, under=key(body=b"another request"))
    assert caught.value.status == 422
    with pytest.raises(CallerError) as caught:
        await ask(shop, kind, payment_id, under=key("another"))
    assert caught.value.status == 409
    shop.providers["card"].will(CALL[kind], DONE[kind])
    answer = await ask(shop, kind, payment_id, under=key())
    assert await ask(shop, kind, payment_id, under=key()) == answer
    assert shop.providers["card"].calls == ["create", CALL[kind], CALL[kind]]
    assert len(made(shop)) == (kind != "void")
    once_only(shop, kind, payment_id)


@pytest.mark.parametrize("kind", KINDS)
async def test_after_commit_1_recovery_finishes_the_work_and_a_retry_is_answered_without_asking(shop: Shop, kind: str):
    payment_id = await paid(shop, kind)
    await interrupted(shop, kind, payment_id)
    shop.clock.advance(10_000)
    shop.providers["card"].will(CALL[kind], DONE[kind])
    for attempt in shop.store.due_attempts("card", shop.clock.now_ms(), 10):
        await shop.payments.attempts.recover(attempt)
    for operation in shop.store.due_operations("card", shop.clock.now_ms(), 10):
        await shop.operations.recover(operation)
    once_only(shop, kind, payment_id)
    answer = await ask(shop, kind, payment_id, under=key())
    assert await ask(shop, kind, payment_id, under=key()) == answer
    assert shop.providers["card"].calls == ["create", CALL[kind], CALL[kind]]
    once_only(shop, kind, payment_id)


@pytest.mark.parametrize("kind", KINDS)
async def test_after_the_providers_call_a_retry_learns_what_it_did(shop: Shop, kind: str, monkeypatch: pytest.MonkeyPatch):
    """The provider acted and answered; the process dies in commit 2, which is lost."""
    payment_id = await paid(shop, kind)
    commit, never, commits = shop.store.commit, Held(None), 0

    async def hang_at_the_second(written: Commit) -> Any:
        nonlocal commits
        commits += 1
        return await (commit(written) if commits == 1 else never())

    shop.providers["card"].will(CALL[kind], DONE[kind], DONE[kind])
    with monkeypatch.context() as patched:
        patched.setattr(shop.store, "commit", hang_at_the_second)
        running = asyncio.create_task(ask(shop, kind, payment_id, under=key()))  # type: ignore[arg-type]
        await never.reached.wait()
        await crash(running)
    shop.restart()
    answer = await ask(shop, kind, payment_id, under=key())
    assert await ask(shop, kind, payment_id, under=key()) == answer
    assert shop.providers["card"].calls == ["create", CALL[kind], CALL[kind]]
    assert len(made(shop)) == (kind != "void")
    once_only(shop, kind, payment_id)


# At once


@pytest.mark.parametrize("kind", KINDS)
async def test_of_many_under_one_key_one_acts_and_the_others_are_told_to_wait(shop: Shop, kind: str):
    payment_id = await paid(shop, kind)
    shop.providers["card"].will(CALL[kind], DONE[kind])
    answers = await asyncio.gather(*(ask(shop, kind, payment_id, under=key()) for _ in range(8)), return_exceptions=True)
    done = [answer for answer in answers if isinstance(answer, Response)]
    waiting = [answer.code for answer in answers if isinstance(answer, CallerError)]
    assert (len(done), waiting) == (1, ["idempotency_in_flight"] * 7)
    once_only(shop, kind, payment_id)


@pytest.mark.parametrize("kinds", [("capture", "void"), ("void", "capture"), ("capture", "capture"), ("void", "void")])
async def test_of_captures_and_voids_at_once_one_wins_and_the_other_is_refused(shop: Shop, kinds: tuple[str, str]):
    payment_id = await paid(shop, kinds[0])
    for kind in set(kinds):
        shop.providers["card"].will(CALL[kind], DONE[kind])
    answers = await asyncio.gather(*(ask(shop, kind, payment_id) for kind in kinds), return_exceptions=True)
    assert isinstance(answers[0], Response)
    assert isinstance(answers[1], CallerError)
    assert answers[1].status == 409
    once_only(shop, kinds[0], payment_id)


async def test_a_hundred_refunds_of_a_fifth_each_make_five(shop: Shop):
    payment_id = await paid(shop, "refund")
    shop.providers["card"].will("refund", *[OUTCOMES["Approved"]] * 5)
    answers = await asyncio.gather(*(ask(shop, "refund", payment_id, amount=200) for _ in range(100)), return_exceptions=True)
    assert len([answer for answer in answers if isinstance(answer, Response)]) == 5
    refusals = {(answer.status, answer.code) for answer in answers if isinstance(answer, CallerError)}
    assert refusals == {(409, "refund_exceeds_captured")}
    assert shop.payment(payment_id).refunded_minor == 1000


# Authorizations that expire


async def test_an_authorization_does_not_lapse_under_a_capture(shop: Shop):
    """A capture begins after recovery has looked, and before it has written: the authorization ends later."""
    payment_id = await paid(shop, "capture")
    shop.providers["card"].will("capture", OUTCOMES["Approved"])
    await ask(shop, "capture", payment_id, amount=400)
    found = shop.payment(payment_id), shop.attempt(payment_id)
    shop.clock.advance(shop.recovery.authorization_lifetime_ms)
    held = Held(OUTCOMES["Approved"])
    shop.providers["card"].will("capture", held)
    capturing = asyncio.create_task(ask(shop, "capture", payment_id, amount=600))  # type: ignore[arg-type]
    await held.reached.wait()
    payment, attempt = await shop.payments.attempts.resolve(*found)
    assert (payment.status, payment.capturing_minor, attempt.state) == ("partially_captured", 600, "authorized")
    held.let_go.set()
    assert (await capturing).body.startswith(b"completed 1000 0")


async def test_a_capture_whose_authorization_is_gone_fails_and_then_the_payment_expires(shop: Shop):
    payment_id = await paid(shop, "capture")
    shop.providers["card"].will("capture", OUTCOMES["Unknown"])
    await ask(shop, "capture", payment_id)
    shop.clock.advance(shop.recovery.authorization_lifetime_ms)
    shop.providers["card"].will("capture", OUTCOMES["Declined"])
    [capture] = shop.store.due_operations("card", shop.clock.now_ms(), 10)
    assert await shop.operations.recover(capture) == "failed"
    shop.providers["card"].will("reverse", OUTCOMES["Expired"])
    payment, _ = await shop.resolve(payment_id)
    assert (payment.status, payment.captured_minor, payment.failure_reason) == ("expired", 0, "authorization_expired")


async def test_a_void_that_nobody_answers_is_under_way_until_recovery_hears(shop: Shop):
    payment_id = await paid(shop, "void")
    shop.providers["card"].will("reverse", OUTCOMES["Unknown"])
    answer = await ask(shop, "void", payment_id, under=key())
    assert answer.body == b"authorized 0 0"
    assert shop.payment(payment_id).ending == "voided"
    shop.providers["card"].will("reverse", OUTCOMES["Reversed"])
    assert (await shop.resolve(payment_id))[0].status == "voided"
    assert await ask(shop, "void", payment_id, under=key()) == answer


async def test_a_void_that_was_given_up_can_be_asked_for_again(shop: Shop):
    payment_id = await paid(shop, "void")
    shop.providers["card"].will("reverse", *[OUTCOMES["Unknown"]] * (shop.recovery.give_up_inquiries + 1))
    await ask(shop, "void", payment_id)
    shop.clock.advance(shop.recovery.give_up_after_ms + 1)
    while shop.attempt(payment_id).state == "reversing":
        await shop.resolve(payment_id)
    assert shop.attempt(payment_id).state == "manual_review"
    shop.providers["card"].will("reverse", OUTCOMES["Reversed"])
    assert (await ask(shop, "void", payment_id)).body == b"voided 0 0"


# Turns


async def test_a_turn_passes_on_though_who_waited_or_held_it_is_gone():
    turns, order = Turns(), []
    first, holding = asyncio.Event(), asyncio.Event()

    async def take(name: str) -> None:
        async with turns.of("pay_1"):
            order.append(name)
            if name == "a":
                first.set()
                await holding.wait()

    tasks = [asyncio.create_task(take(name)) for name in "abc"]
    await first.wait()
    await crash(tasks[1])  # while it waits
    await crash(tasks[0])  # while it holds
    await tasks[2]
    assert order == ["a", "c"]
    assert turns._locks == {}  # whoever comes later finds nothing left over
