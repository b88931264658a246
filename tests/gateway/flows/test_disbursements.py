"""A settlement's payout: ordered once, asked about until it is known, taken back in the books where it comes back."""

import asyncio
from collections.abc import AsyncIterator
from datetime import date

import msgspec
import pytest

from gateway.config import Recovery
from gateway.core.errors import CallerError
from gateway.core.outcome import Declined, NotSent, Unknown
from gateway.core.settlement import Settlement
from tests.gateway.doubles import ManualClock
from tests.gateway.flows.treasury import DAY_MS, HOUR_MS, MERCHANT, Treasury, crash, opened

DAY = date(2030, 3, 17)
PAYABLE = f"payable:{MERCHANT}"
SENT = NotSent("ClientConnectorError")
LOST = Unknown("TimeoutError")


@pytest.fixture
async def treasury() -> AsyncIterator[Treasury]:
    """A day with 1000 to pay is over."""
    async with opened(ManualClock()) as made:
        await made.book(made.entry("capture", 1000))
        made.clock.advance(DAY_MS)
        yield made
        paid = made.balance(PAYABLE) + 1000
        assert paid == made.bank.paid, "the books and the bank agree on what has been paid"
        assert paid in (0, 1000)


async def recovered(treasury: Treasury) -> Settlement:
    """After the next inquiry, whenever that is due."""
    [settlement] = treasury.settlements.on(MERCHANT, DAY)
    assert settlement.due_at_ms is not None
    treasury.clock.at_ms = settlement.due_at_ms
    await treasury.settler.run_once()
    return treasury.settlements.on(MERCHANT, DAY)[0]


@pytest.mark.parametrize("lost", [SENT, LOST])
async def test_an_order_that_never_arrived_is_sent_again_under_its_reference(treasury: Treasury, lost: NotSent | Unknown):
    treasury.bank.before.append(lost)
    assert (await treasury.one(DAY)).state == "unknown"
    assert (await recovered(treasury)).state == "processing"
    assert treasury.bank.calls == ["order", "inquire", "order"]
    assert len(treasury.bank.payouts) == 1
    await treasury.disbursements.callback("netbanking", treasury.bank.now("completed"))


async def test_a_payout_that_the_bank_took_and_forgot_is_not_ordered_again(treasury: Treasury):
    assert (await treasury.one(DAY)).state == "processing"
    taken, treasury.bank.payouts = treasury.bank.payouts, {}
    assert (await recovered(treasury)).state == "unknown"
    assert treasury.bank.calls == ["order", "inquire"]
    treasury.bank.payouts = taken
    await treasury.disbursements.callback("netbanking", treasury.bank.now("completed"))


async def test_a_payout_that_failed_while_it_was_asked_about_is_not_ordered_again_in_its_old_name(treasury: Treasury):
    treasury.bank.after.append(LOST)
    treasury.bank.becomes = "failed"
    assert (await treasury.one(DAY)).state == "unknown"

    async def tell_and_forget() -> None:
        """The word comes, and whoever answers inquiries does not know it yet."""
        await treasury.disbursements.callback("netbanking", treasury.bank.now("failed"))
        treasury.bank.payouts.clear()

    treasury.bank.before.append(tell_and_forget)
    assert (await recovered(treasury)).state == "failed"
    assert treasury.bank.calls == ["order", "inquire"]
    assert treasury.bank.payouts == {}


async def test_an_answer_that_was_lost_is_found_by_inquiry(treasury: Treasury):
    treasury.bank.becomes = "completed"
    treasury.bank.after.append(LOST)
    assert (await treasury.one(DAY)).state == "unknown"
    assert (await recovered(treasury)).state == "completed"
    assert treasury.bank.calls == ["order", "inquire"]


async def test_asking_for_the_day_again_asks_the_bank(treasury: Treasury):
    treasury.bank.becomes = "completed"
    treasury.bank.after.append(LOST)
    await treasury.settle(DAY)
    assert (await treasury.one(DAY)).state == "completed"


async def test_a_bank_that_does_not_answer_is_asked_ever_more_rarely(treasury: Treasury):
    treasury.bank.before += [LOST] * 14
    settlement = await treasury.one(DAY)
    waits = []
    for _ in range(13):
        asked_ms = treasury.clock.now_ms()
        settlement = await recovered(treasury)
        waits.append(treasury.clock.now_ms() - asked_ms)
    first = Recovery().unknown_after_ms
    assert settlement.state == "unknown"
    assert waits[:4] == [first, first, 2 * first, 4 * first]
    assert max(waits) <= HOUR_MS
    assert (await recovered(treasury)).state == "processing"


@pytest.mark.parametrize("failure", ["refused", "failed at once", "failed later"])
async def test_a_payout_that_failed_is_paid_by_another_on_request(treasury: Treasury, failure: str):
    if failure == "refused":
        treasury.bank.before.append(Declined("invalid_request", "invalid_request"))
    elif failure == "failed at once":
        treasury.bank.becomes = "failed"
    failed = await treasury.one(DAY)
    if failure == "failed later":
        failed = await treasury.disbursements.callback("netbanking", treasury.bank.now("failed"))
    assert (failed.state, failed.due_at_ms) == ("failed", None)
    assert failed.reason == ("invalid_request" if failure == "refused" else "account_closed")
    assert treasury.told[-1] == (failed.id, "settlement.failed")

    treasury.clock.advance(DAY_MS)
    await treasury.settler.run_once()
    assert treasury.settlements.on(MERCHANT, DAY)[0].state == "failed", "not by itself"
    treasury.bank.becomes = "completed"
    paid = await treasury.one(DAY)
    assert (paid.state, paid.payouts, paid.reason) == ("completed", 2, None)


async def test_a_payout_that_comes_back_is_taken_back_and_can_be_paid_again(treasury: Treasury):
    await treasury.settle(DAY)
    await treasury.disbursements.callback("netbanking", treasury.bank.now("completed"))
    assert (treasury.balance(PAYABLE), treasury.balance("bank")) == (0, 0)
    returned = treasury.bank.now("returned")
    back = await treasury.disbursements.callback("netbanking", returned)
    assert (back.state, back.reason) == ("failed", "returned")
    assert (treasury.balance(PAYABLE), treasury.balance("bank")) == (-1000, 1000)
    await treasury.disbursements.callback("netbanking", returned)
    assert treasury.told[-2:] == [(back.id, "settlement.completed"), (back.id, "settlement.failed")]

    again = await treasury.one(DAY)
    assert (again.state, again.payouts) == ("processing", 2)
    assert (await treasury.disbursements.callback("netbanking", returned)).state == "processing", "an old story"
    await treasury.disbursements.callback("netbanking", treasury.bank.now("completed"))


async def test_a_return_that_nobody_told_of_is_found(treasury: Treasury):
    treasury.bank.becomes = "completed"
    await treasury.settle(DAY)
    treasury.bank.now("returned")
    assert (await recovered(treasury)).reason == "returned"


async def test_a_payout_that_did_not_come_back_is_left_alone(treasury: Treasury):
    treasury.bank.becomes = "completed"
    await treasury.settle(DAY)
    treasury.bank.before.append(LOST)
    asked = await recovered(treasury)
    assert (asked.state, asked.due_at_ms is None) == ("completed", False)
    asked = await recovered(treasury)
    assert (asked.state, asked.due_at_ms) == ("completed", None)
    assert treasury.bank.calls == ["order", "inquire", "inquire"]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_crash_during_the_call_to_the_bank_pays_once(treasury: Treasury, when: str):
    reached, never = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        reached.set()
        await never.wait()

    getattr(treasury.bank, when).append(hang)
    settling = asyncio.ensure_future(treasury.settle(DAY, key="k"))
    await reached.wait()
    await crash(settling)
    treasury.restart()
    treasury.clock.advance(5_000)
    await asyncio.gather(treasury.settler.run_once(), treasury.settle(DAY, key="k"))
    assert len(treasury.bank.payouts) == 1
    await treasury.disbursements.callback("netbanking", treasury.bank.now("completed"))


FOREIGN: list[tuple[dict[str, object], str, int]] = [
    ({"reference": "out_ffffffffffffffffffffffffffffffff_01"}, "netbanking", 404),
    ({"reference": "ref_1"}, "netbanking", 404),
    ({}, "card", 404),
    ({"provider": "card"}, "netbanking", 404),
    ({"provider": "card"}, "card", 404),
    ({"type": "refund"}, "netbanking", 400),
    ({"reference": 7}, "netbanking", 400),
]


async def test_callbacks_that_are_not_about_our_payout_change_nothing(treasury: Treasury):
    before = await treasury.one(DAY)
    told = msgspec.json.decode(treasury.bank.now("completed"))
    for changes, provider, status in FOREIGN:
        with pytest.raises(CallerError) as refused:
            await treasury.disbursements.callback(provider, msgspec.json.encode(told | changes))  # type: ignore[arg-type]
        assert refused.value.status == status
        assert treasury.settlements.on(MERCHANT, DAY) == [before]
    await treasury.disbursements.callback("netbanking", msgspec.json.encode(told))
