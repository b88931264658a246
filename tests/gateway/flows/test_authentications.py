"""3-D Secure: what happens between the decline that asks for it and the charge that follows, and when a crash comes in between."""

import asyncio
from typing import Any

import msgspec
import pytest

from gateway.core.authentication import Told, id_for
from gateway.core.errors import CallerError
from gateway.core.outcome import Declined, Outcome
from gateway.core.payment import Attempt, Method, Payment
from gateway.flows import authentications, payments
from gateway.flows.idempotency import IdempotencyKey
from gateway.ports import Commit, Response
from tests.gateway.doubles import CVV, NOW_MS, NUMBER, OUTCOMES, Held
from tests.gateway.flows.conftest import Shop, crash

URL = "https://acs.example/1"
SOFT = Declined("1A", "authentication_required", "prov_1")
PAID, LATER = ("completed", None, None), ("requires_action", None, None)


def told(trans_status: str, **fields: Any) -> Told:
    url = URL if trans_status == "C" else None
    return Told(**{"trans_id": "t_1", "trans_status": trans_status, "url": url} | fields)


async def challenged(shop: Shop, **options: Any) -> str:
    """A payment whose customer is challenged."""
    shop.providers["card"].will("create", SOFT)
    shop.providers["card"].will("authenticate", told("C"))
    data = await shop.pay(**options)
    assert (data["status"], data["nextAction"]) == ("requires_action", {"type": "redirect", "url": URL})
    return data["paymentID"]


def standing(shop: Shop, payment_id: str) -> tuple[str, str | None, str | None]:
    payment = shop.payment(payment_id)
    return payment.status, payment.failure_reason, payment.decline_code


def attempts(shop: Shop) -> list[tuple[str, str]]:
    return [(record["reference"][-2:], record["state"]) for record in shop.records("attempt")]


async def recover(shop: Shop) -> None:
    """What recovery does with everything that is due."""
    for due in shop.store.due_attempts("card", shop.clock.now_ms(), 10):
        await shop.payments.attempts.recover(due)
    for authentication in shop.store.due_authentications("card", shop.clock.now_ms(), 10):
        await shop.payments.authentications.recover(authentication)


async def restart(shop: Shop) -> None:
    shop.restart()
    await shop.store.wake_intents(shop.clock.now_ms())


def callback(payment_id: str, says: Told | None) -> bytes:
    about = {"reference": id_for(payment_id), "provider": "card", "type": "authentication"}
    return msgspec.json.encode(about | {"says": says})


async def void(shop: Shop, payment_id: str, key: str | None = None) -> Response:
    def render(payment: Payment) -> Response:
        return Response(200, payment.status.encode())

    given = None if key is None else IdempotencyKey("merchant_123", key, b"void")
    return await shop.payments.void("merchant_123", payment_id, given, render)


# Without the customer


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (told("Y"), PAID),
        (told("A"), PAID),
        (told("C"), LATER),
        (told("N", trans_status_reason="01"), ("failed", "authentication_failed", "1A")),
        (told("N", trans_status_reason="14"), ("failed", "authentication_expired", "1A")),
        (told("R"), ("failed", "authentication_rejected", "1A")),
        (told("U"), ("failed", "authentication_unavailable", "1A")),
        (told("I"), ("failed", "authentication_unavailable", "1A")),
        (told("D"), ("processing", None, None)),
        (OUTCOMES["NotSent"], ("failed", "authentication_unavailable", "1A")),
        (Declined("invalid_request", "invalid_request"), ("failed", "authentication_unavailable", "1A")),
        (OUTCOMES["Unknown"], ("processing", None, None)),
    ],
)
async def test_the_answer_and_its_repetition_say_what_became_of_it(shop: Shop, answer: Any, expected: tuple[Any, ...]):
    shop.providers["card"].will("create", SOFT, *([OUTCOMES["Approved"]] if expected == PAID else []))
    shop.providers["card"].will("authenticate", answer)
    response = await shop.post(key="k")
    data = shop.read(response)
    assert (data["status"], data.get("failureReason"), data.get("declineCode")) == expected
    assert standing(shop, data["paymentID"]) == expected
    assert await shop.post(key="k") == response
    assert shop.providers["card"].calls == ["create", "authenticate"] + (["create"] if expected == PAID else [])
    assert attempts(shop) == [("01", "declined")] + ([("02", "succeeded")] if expected == PAID else [])


async def test_the_second_charge_has_all_of_the_card_and_its_proof(shop: Shop):
    seen: list[Any] = []

    async def create(payment: Payment, attempt: Attempt, instrument: Any, *, deadline_s: float) -> Outcome:
        seen.append((attempt.reference[-2:], instrument))
        return SOFT if len(seen) == 1 else OUTCOMES["Approved"]

    shop.providers["card"].create = create  # type: ignore[method-assign]
    shop.providers["card"].will("authenticate", told("Y"))
    await shop.pay()
    (_, first), (reference, second) = seen
    assert (reference, second) == ("02", msgspec.structs.replace(first, authenticated_by="t_1"))
    assert (second.card.number, second.card.cvv) == (NUMBER, CVV)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("Declined", ("failed", "insufficient_funds", "51")),
        ("NotSent", ("failed", "provider_unavailable", None)),
        ("Unknown", ("processing", None, None)),
        ("Authorized", ("authorized", None, None)),
    ],
)
async def test_the_second_charge_ends_like_any_other(shop: Shop, outcome: str, expected: tuple[Any, ...]):
    payment_id = await challenged(shop)
    shop.providers["card"].will("inquire_authentication", told("Y"))
    shop.providers["card"].will("create", OUTCOMES[outcome])
    await shop.payments.came_back(payment_id)
    assert standing(shop, payment_id) == expected


async def test_a_second_decline_for_want_of_authentication_is_the_last_word(shop: Shop):
    payment_id = await challenged(shop)
    shop.providers["card"].will("inquire_authentication", told("Y"))
    shop.providers["card"].will("create", SOFT)
    await shop.payments.came_back(payment_id)
    assert standing(shop, payment_id) == ("failed", "authentication_required", "1A")


async def test_without_room_for_the_card_the_decline_is_one_like_any_other(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(authentications, "KEPT_MAX", 1)
    await challenged(shop)
    shop.providers["card"].will("create", SOFT)
    assert standing(shop, (await shop.pay())["paymentID"]) == ("failed", "authentication_required", "1A")
    shop.clock.advance(24 * 3600 * 1000)  # what is kept of the first is of no use any more
    await challenged(shop)


async def test_nothing_that_may_not_be_stored_is_kept_once_it_has_ended(shop: Shop):
    for ends in (told("Y"), told("N"), "void"):
        payment_id = await challenged(shop)
        assert shop.payments.authentications._cards.get(payment_id) is not None
        if ends == "void":
            await void(shop, payment_id)
        else:
            shop.providers["card"].will("inquire_authentication", ends)
            shop.providers["card"].will("create", *([OUTCOMES["Approved"]] if ends == told("Y") else []))
            await shop.payments.came_back(payment_id)
        assert shop.payments.authentications._cards.get(payment_id) is None
    assert CVV not in str([record for kind in ("payment", "attempt", "event") for record in shop.records(kind)])


def test_what_is_kept_of_a_card_is_not_its_number_and_is_not_printed():
    cards = authentications.Cards(1_000)
    secret = msgspec.convert(
        {"number": NUMBER, "expiry_month": "1", "expiry_year": "1", "cvv": CVV, "holder_name": None}, _Secret
    )
    assert cards.keep("pay_1", secret, NOW_MS)
    kept = cards.get("pay_1")
    assert kept is not None
    assert (kept.number, kept.cvv) == ("", CVV)
    assert CVV not in repr(vars(cards))


_Secret = authentications.CardSecret


# The customer, the provider and recovery


@pytest.mark.parametrize("how", ["returns", "callback", "recovery"])
@pytest.mark.parametrize(
    ("says", "expected"),
    [
        (told("Y"), PAID),
        (told("N"), ("failed", "authentication_failed", "1A")),
        (told("N", trans_status_reason="14"), ("expired", "authentication_expired", "1A")),
        (told("C"), LATER),
    ],
)
async def test_a_challenge_ends_by_whoever_tells_first(shop: Shop, how: str, says: Told, expected: tuple[Any, ...]):
    payment_id = await challenged(shop)
    provider = shop.providers["card"]
    provider.will("create", *([OUTCOMES["Approved"]] if expected == PAID else []))
    if how == "callback":
        await shop.payments.authentications.callback("card", callback(payment_id, says))
        await shop.payments.authentications.callback("card", callback(payment_id, says))  # twice, as callbacks may come
    else:
        provider.will("inquire_authentication", says)
        shop.clock.advance(shop.recovery.pending_after_ms if how == "recovery" else 0)
        await (recover(shop) if how == "recovery" else shop.payments.came_back(payment_id))
    assert standing(shop, payment_id) == expected
    assert provider.calls.count("create") == (2 if expected == PAID else 1)
    assert (shop.store.due_authentications("card", 2**60, 10) == []) == (expected != LATER)


@pytest.mark.parametrize("body", [b"[]", callback("pay_1", None), callback("pay_other", told("Y"))])
async def test_a_callback_that_says_nothing_of_ours_is_refused(shop: Shop, body: bytes):
    payment_id = await challenged(shop)
    with pytest.raises(CallerError) as caught:
        await shop.payments.authentications.callback("card", body.replace(b"aut_1", id_for(payment_id).encode()))
    assert caught.value.status == (404 if b"other" in body else 400)
    assert standing(shop, payment_id) == LATER


async def test_another_provider_cannot_tell_about_it(shop: Shop):
    payment_id = await challenged(shop)
    with pytest.raises(CallerError, match="reference"):
        await shop.payments.authentications.callback("upi", callback(payment_id, told("Y")))


async def test_of_many_who_tell_at_once_one_leads_to_a_charge_and_all_see_it(shop: Shop):
    payment_id = await challenged(shop)
    held = Held(OUTCOMES["Approved"])
    shop.providers["card"].will("inquire_authentication", told("Y"))
    shop.providers["card"].will("create", held)
    returning = [asyncio.create_task(shop.payments.came_back(payment_id)) for _ in range(5)]
    await held.reached.wait()
    told_too = asyncio.create_task(shop.payments.authentications.callback("card", callback(payment_id, told("Y"))))
    await asyncio.sleep(0)
    held.let_go.set()
    found = await asyncio.gather(*returning, told_too)
    assert {payment.status for payment in found} == {"completed"}
    assert shop.providers["card"].calls.count("create") == 2


@pytest.mark.parametrize("beginning", [True, False])
async def test_a_provider_that_does_not_answer_is_asked_again_later_each_time_until_time_is_up(shop: Shop, beginning: bool):
    provider, unknown = shop.providers["card"], OUTCOMES["Unknown"]
    operation = "authenticate" if beginning else "inquire_authentication"
    if beginning:
        provider.will("create", SOFT)
        provider.will("authenticate", unknown)
        payment_id = (await shop.pay())["paymentID"]
    else:
        payment_id = await challenged(shop)
    waits = []
    for _ in range(100):
        [due] = shop.store.due_authentications("card", 2**60, 1)
        waits.append(due.due_at_ms - shop.clock.now_ms())
        shop.clock.advance(waits[-1])
        provider.will(operation, unknown)
        await recover(shop)
        if shop.payment(payment_id).status in ("failed", "expired"):
            break
    expected = ("failed", "authentication_unavailable", "1A") if beginning else ("expired", "authentication_expired", "1A")
    assert standing(shop, payment_id) == expected
    assert waits[:-1] == sorted(waits[:-1])
    assert max(waits) <= shop.recovery.backoff_max_ms
    lifetime_ms = 60_000 if beginning else shop.recovery.authentication_lifetime_ms
    assert shop.clock.now_ms() - NOW_MS == lifetime_ms


async def test_an_authentication_that_began_late_is_finished_by_recovery(shop: Shop):
    shop.providers["card"].will("create", SOFT, OUTCOMES["Approved"])
    shop.providers["card"].will("authenticate", OUTCOMES["Unknown"], told("Y"))
    payment_id = (await shop.pay())["paymentID"]
    shop.clock.advance(shop.recovery.unknown_after_ms)
    await recover(shop)
    assert standing(shop, payment_id) == PAID


@pytest.mark.parametrize("method", ["card", "netbanking"])
async def test_browsers_that_return_without_end_do_not_make_us_ask_without_end(
    shop: Shop, method: Method, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(payments, "RETURN_INQUIRIES_MAX", 3)
    provider = shop.providers[method]
    if method == "card":
        payment_id = await challenged(shop)
        provider.will("inquire_authentication", *[told("C")] * 3, told("N"))
    else:
        provider.will("create", OUTCOMES["Pending"])
        payment_id = (await shop.pay(method))["paymentID"]
        provider.will("inquire", *[OUTCOMES["Pending"]] * 3)
    asked = len(provider.calls)
    returned = await asyncio.gather(*(shop.payments.came_back(payment_id) for _ in range(10)))
    assert {payment.status for payment in returned} == {"requires_action"}
    assert len(provider.calls) == asked + 3
    if method == "card":
        shop.clock.advance(shop.recovery.backoff_max_ms)
        await recover(shop)
        assert standing(shop, payment_id) == ("failed", "authentication_failed", "1A")


# Void, expiry and what comes late


async def test_a_void_ends_a_challenge_at_once_and_success_comes_too_late(shop: Shop):
    payment_id = await challenged(shop)
    response = await void(shop, payment_id, key="v")
    assert response.body == b"voided"
    assert await void(shop, payment_id, key="v") == response
    await shop.payments.authentications.callback("card", callback(payment_id, told("Y")))
    assert (await shop.payments.came_back(payment_id)).status == "voided"
    assert shop.providers["card"].calls == ["create", "authenticate"]
    with pytest.raises(CallerError, match="the payment is voided"):
        await void(shop, payment_id)


async def test_a_void_and_a_customer_who_comes_back_exclude_each_other(shop: Shop):
    payment_id = await challenged(shop)
    held = Held(told("Y"))
    shop.providers["card"].will("inquire_authentication", held)
    returning = asyncio.create_task(shop.payments.came_back(payment_id))
    await held.reached.wait()
    assert (await void(shop, payment_id)).body == b"voided"
    held.let_go.set()
    assert (await returning).status == "voided"
    assert shop.providers["card"].calls.count("create") == 1


async def test_while_the_second_charge_is_under_way_there_is_nothing_to_void(shop: Shop):
    payment_id = await challenged(shop)
    held = Held(OUTCOMES["Approved"])
    shop.providers["card"].will("inquire_authentication", told("Y"))
    shop.providers["card"].will("create", held)
    returning = asyncio.create_task(shop.payments.came_back(payment_id))
    await held.reached.wait()
    with pytest.raises(CallerError, match="the payment is processing"):
        await void(shop, payment_id)
    held.let_go.set()
    assert (await returning).status == "completed"


@pytest.mark.parametrize("ends", ["Approved", "Declined"])
async def test_a_first_attempt_that_succeeded_after_all_is_reversed_and_moves_no_payment(shop: Shop, ends: str):
    payment_id = await challenged(shop)
    first = shop.attempt(payment_id)
    await shop.callback("Approved", first.reference, "card")
    shop.providers["card"].will("reverse", OUTCOMES["Reversed"])
    await recover(shop)
    assert (standing(shop, payment_id), attempts(shop)) == (LATER, [("01", "reversed")])
    shop.providers["card"].will("inquire_authentication", told("Y"))
    shop.providers["card"].will("create", OUTCOMES[ends])
    await shop.payments.came_back(payment_id)
    assert standing(shop, payment_id)[0] == ("completed" if ends == "Approved" else "failed")


# Crashes


@pytest.mark.parametrize("at", ["create", "authenticate", "inquire_authentication"])
async def test_after_a_crash_what_cannot_be_charged_any_more_fails_and_says_so(shop: Shop, at: str):
    provider, held = shop.providers["card"], Held(None)
    provider.will("create", *([held] if at == "create" else [SOFT]))
    provider.will("authenticate", *([held] if at == "authenticate" else [told("C")]))
    paying = asyncio.create_task(shop.post(key="k"))
    if at == "inquire_authentication":
        payment_id = shop.read(await paying)["paymentID"]
        provider.will("inquire_authentication", held)
        paying = asyncio.create_task(shop.payments.came_back(payment_id))  # type: ignore[arg-type]
    await held.reached.wait()
    await crash(paying)
    await restart(shop)
    provider.will("inquire", SOFT)
    await recover(shop)
    [payment_id] = [record["paymentID"] for record in shop.records("payment")]
    reason = "authentication_required" if at == "create" else "authentication_interrupted"
    assert standing(shop, payment_id) == ("failed", reason, "1A")
    answer = shop.read(await shop.post(key="k"))
    assert answer["status"] == ("requires_action" if at == "inquire_authentication" else "failed")  # as it was answered then
    assert provider.calls.count("create") == 1


async def test_a_retry_after_a_crash_finishes_the_payment_before_recovery_does(shop: Shop):
    held = Held(None)
    shop.providers["card"].will("create", SOFT)
    shop.providers["card"].will("authenticate", held)
    paying = asyncio.create_task(shop.post(key="k"))
    await held.reached.wait()
    with pytest.raises(CallerError, match="still running"):
        await shop.post(key="k")
    await crash(paying)
    await restart(shop)
    assert shop.read(await shop.post(key="k"))["failureReason"] == "authentication_interrupted"


async def test_a_success_that_comes_after_a_restart_cannot_be_charged(shop: Shop):
    payment_id = await challenged(shop)
    await restart(shop)
    await shop.payments.authentications.callback("card", callback(payment_id, told("Y")))
    assert standing(shop, payment_id) == ("failed", "authentication_interrupted", "1A")


@pytest.mark.parametrize(
    ("found", "expected"),
    [("Approved", "completed"), ("Declined", "failed"), ("NotFound", "failed"), ("Unknown", "processing")],
)
async def test_after_a_crash_the_second_charge_is_asked_about_and_never_made_again(shop: Shop, found: str, expected: str):
    payment_id = await challenged(shop)
    held = Held(None)
    shop.providers["card"].will("inquire_authentication", told("Y"))
    shop.providers["card"].will("create", held)
    returning = asyncio.create_task(shop.payments.came_back(payment_id))
    await held.reached.wait()
    assert attempts(shop) == [("01", "declined"), ("02", "intent")]
    await crash(returning)
    await restart(shop)
    shop.providers["card"].will("inquire", OUTCOMES[found])
    shop.providers["card"].will("reverse", OUTCOMES["Reversed"])
    await recover(shop)
    assert shop.payment(payment_id).status == expected
    assert shop.providers["card"].calls.count("create") == 2


@pytest.mark.parametrize("lost", [1, 2, 3, 4])
async def test_a_crash_before_any_commit_leaves_what_recovery_can_end(shop: Shop, lost: int, monkeypatch: pytest.MonkeyPatch):
    """The commits: intent; decline and authentication; its result and the second intent; the charge's result."""
    made = 0
    commit_as_ever = shop.store.commit

    async def commit(commit: Commit) -> Any:
        nonlocal made
        made += 1
        if made == lost:
            raise asyncio.CancelledError
        return await commit_as_ever(commit)

    monkeypatch.setattr(shop.store, "commit", commit)
    shop.providers["card"].will("create", SOFT, OUTCOMES["Approved"])
    shop.providers["card"].will("authenticate", told("Y"))
    with pytest.raises(asyncio.CancelledError):
        await shop.post(key="k")
    monkeypatch.undo()
    await restart(shop)
    created = shop.providers["card"].calls.count("create")
    shop.providers["card"].will("inquire", *{1: [], 2: [SOFT], 3: [], 4: [OUTCOMES["Approved"]]}[lost])
    await recover(shop)
    ends = {1: [], 2: ["failed"], 3: ["failed"], 4: ["completed"]}[lost]
    assert [record["status"] for record in shop.records("payment")] == ends
    if lost > 1:
        assert shop.read(await shop.post(key="k"))["status"] == ends[0]
        assert shop.providers["card"].calls.count("create") == created
