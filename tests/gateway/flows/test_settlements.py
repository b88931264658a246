"""A day's entries become settlements, each entry in one of them, and each settlement is paid once."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime

import msgspec
import pytest
from structlog.testing import capture_logs

from gateway.config import Merchant
from gateway.core.errors import CallerError, StoreError
from gateway.flows import settlements as flow
from gateway.storage.sqlite import SqliteStore
from tests.gateway.doubles import ManualClock
from tests.gateway.flows.treasury import ACCOUNT, DAY_MS, HOUR_MS, MERCHANT, Treasury, opened

SATURDAY, SUNDAY, MONDAY, TUESDAY = (date(2030, 3, day) for day in (16, 17, 18, 19))


def noon(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
async def treasury() -> AsyncIterator[Treasury]:
    """It is Sunday noon."""
    async with opened(ManualClock(noon(SUNDAY))) as made:
        yield made
        _each_entry_is_in_one_settlement(made)


def _each_entry_is_in_one_settlement(treasury: Treasury) -> None:
    """And what settlements say is what their entries come to."""
    nets = {(record["settlementID"]): 0 for record in treasury.records("settlement")}
    for entry in treasury.records("entry"):
        assert sum(posting["debit"] - posting["credit"] for posting in entry["postings"]) == 0
        assert (entry["paymentID"] is None) == (entry["settlementID"] is not None)
        if entry["settledIn"] is not None:
            assert entry["settlementID"] is None, "a settlement's own entry is not settled"
            credited = (p["credit"] - p["debit"] for p in entry["postings"] if p["account"].startswith("payable:"))
            nets[entry["settledIn"]] += sum(credited)
    closed = {r["settlementID"]: r["net"] for r in treasury.records("settlement") if r["status"] != "computing"}
    assert closed == {settlement_id: nets[settlement_id] for settlement_id in closed}


async def test_a_day_is_summed_paid_and_told_of(treasury: Treasury):
    await treasury.book(
        treasury.entry("capture", 1000, fee=20),
        treasury.entry("refund", 300),
        treasury.entry("chargeback", 100),
        treasury.entry("chargeback_won", 100),
        treasury.entry("capture", 500, fee=5, provider="upi"),
    )
    treasury.clock.advance(DAY_MS)
    made = await treasury.one(SUNDAY)
    assert (made.state, made.amount_minor, made.entries) == ("processing", 1175, 5)
    assert [(line.provider, line.net_minor) for line in made.lines] == [("card", 680), ("upi", 495)]
    assert treasury.balance(f"payable:{MERCHANT}") == -1175, "nothing has been paid so far"

    done = await treasury.disbursements.callback("netbanking", treasury.bank.now("completed"))
    assert (done.state, done.utr) == ("completed", "123456789012")
    assert treasury.told == [(made.id, "settlement.created"), (made.id, "settlement.completed")]
    accounts = ["bank", "fees", f"payable:{MERCHANT}", "receivable:card", "receivable:upi"]
    assert [treasury.balance(account) for account in accounts] == [25, -25, 0, 0, 0]
    assert {record["endpointID"] for record in treasury.records("delivery")} == {"ep_1"}


async def test_what_did_not_move_money_is_not_settled(treasury: Treasury):
    treasury.clock.advance(DAY_MS)
    assert await treasury.settle(SUNDAY) == []
    assert treasury.bank.calls == []


@pytest.mark.parametrize("day", [SUNDAY, MONDAY, date.max])
async def test_a_day_that_is_not_over_is_refused(treasury: Treasury, day: date):
    await treasury.book(treasury.entry("capture", 1000))
    with pytest.raises(CallerError, match="is not over") as refused:
        await treasury.settle(day, key="k")
    assert (refused.value.status, refused.value.code, refused.value.param) == (409, "day_not_over", "date")
    assert treasury.records("settlement") == treasury.records("idempotency") == []


async def test_in_a_sandbox_today_may_be_settled_up_to_now_and_the_rest_is_tomorrows(treasury: Treasury):
    treasury.restart(early=True)
    await treasury.book(treasury.entry("capture", 1000))
    made = await treasury.one(SUNDAY)
    assert (made.state, made.amount_minor, made.until_ms) == ("processing", 1000, noon(SUNDAY) + 1)
    treasury.clock.advance(HOUR_MS)
    await treasury.book(treasury.entry("capture", 300), treasury.entry("capture", 1, at_ms=noon(SUNDAY) + DAY_MS // 4))
    again = await treasury.one(SUNDAY)
    assert (again.id, again.amount_minor) == (made.id, 1000), "a day has one settlement"
    with pytest.raises(CallerError, match="is not over"):
        await treasury.settle(MONDAY)
    treasury.clock.advance(DAY_MS)
    assert (await treasury.one(MONDAY)).amount_minor == 301


async def test_an_early_settlement_leaves_what_is_dated_later_today(treasury: Treasury):
    treasury.restart(early=True)
    await treasury.book(treasury.entry("capture", 1, at_ms=noon(SUNDAY) + HOUR_MS))  # by a clock that was set back since
    assert await treasury.settle(SUNDAY) == []


async def test_settling_twice_pays_once(treasury: Treasury):
    await treasury.book(treasury.entry("capture", 1000))
    treasury.clock.advance(DAY_MS)
    first = await treasury.answer(SUNDAY, key="a")
    await treasury.disbursements.callback("netbanking", treasury.bank.now("completed"))
    assert await treasury.answer(SUNDAY, key="a") == first, "the stored answer"
    [again] = await treasury.settle(SUNDAY, key="b")
    assert again.state == "completed"
    assert (len(treasury.bank.payouts), treasury.bank.paid) == (1, 1000)


async def test_a_key_is_of_one_request(treasury: Treasury):
    treasury.clock.advance(3 * DAY_MS)
    await treasury.settle(SUNDAY, key="a")
    with pytest.raises(CallerError) as refused:
        await treasury.settle(MONDAY, key="a")
    assert refused.value.status == 422


async def test_many_at_once_make_one_settlement_and_one_payout(treasury: Treasury, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flow, "PAGE", 2)
    await treasury.book(*(treasury.entry("capture", 100) for _ in range(7)))
    treasury.clock.advance(DAY_MS)
    await asyncio.gather(*(treasury.settle(SUNDAY, key=f"k{n}") for n in range(8)), treasury.settler.run_once())
    made = treasury.settlements.on(MERCHANT, SUNDAY)
    assert [(settlement.net_minor, settlement.payouts) for settlement in made] == [(700, 1)]
    assert treasury.bank.calls.count("order") == 1


async def test_what_becomes_durable_too_late_is_in_the_next_day(treasury: Treasury):
    await treasury.book(treasury.entry("capture", 1000))
    late = treasury.entry("capture", 70)
    treasury.clock.advance(DAY_MS)
    await treasury.settle(SUNDAY)
    await treasury.book(late, treasury.entry("capture", 5))
    assert (await treasury.one(SUNDAY)).net_minor == 1000
    treasury.clock.advance(DAY_MS)
    assert (await treasury.one(MONDAY)).net_minor == 75


async def test_days_that_were_missed_are_settled_each_for_itself(treasury: Treasury):
    for amount in (10, 200, 0, 4000):
        if amount:
            await treasury.book(treasury.entry("capture", amount))
        treasury.clock.advance(DAY_MS)
    await treasury.settle(date(2030, 3, 20))
    made = [(record["date"], record["totalAmount"]) for record in treasury.records("settlement")]
    assert made == [("2030-03-17", 10), ("2030-03-18", 200), ("2030-03-20", 4000)]
    assert len(treasury.bank.payouts) == 3


async def test_a_negative_balance_is_carried_over_until_it_is_made_up_for(treasury: Treasury):
    days = [
        [treasury.entry("refund", 900)],
        [treasury.entry("capture", 500, at_ms=noon(MONDAY))],
        [treasury.entry("capture", 1000, fee=100, at_ms=noon(TUESDAY))],
        [treasury.entry("capture", 30, at_ms=noon(date(2030, 3, 20)))],
    ]
    for entries in days:
        await treasury.book(*entries)
    treasury.clock.advance(5 * DAY_MS)
    await treasury.settle(date(2030, 3, 20))
    made = [(s["openingBalance"], s["net"], s["totalAmount"], s["status"]) for s in treasury.records("settlement")]
    assert made == [
        (0, -900, 0, "completed"),
        (-900, 500, 0, "completed"),
        (-400, 900, 500, "processing"),
        (0, 30, 30, "processing"),
    ]
    assert [payout.amount_minor for payout, _ in treasury.bank.payouts.values()] == [500, 30]


async def test_currencies_are_settled_apart_and_only_rupees_are_paid_out(treasury: Treasury):
    await treasury.book(
        treasury.entry("capture", 1000),
        treasury.entry("capture", 99, currency="USD"),
        treasury.entry("refund", 9, currency="JPY"),
    )
    treasury.clock.advance(DAY_MS)
    made = [(s.currency, s.closing_minor, s.state, s.reason) for s in await treasury.settle(SUNDAY)]
    assert made == [
        ("INR", 1000, "processing", None),
        ("JPY", -9, "completed", "negative_balance"),
        ("USD", 99, "ready", "currency_not_paid_out"),
    ]


async def test_without_an_account_it_is_computed_and_paid_once_there_is_one(treasury: Treasury):
    await treasury.book(treasury.entry("capture", 1000))
    treasury.merchants[0] = Merchant(id=MERCHANT, key="sk_test_1")
    treasury.restart()
    treasury.clock.advance(DAY_MS)
    made = await treasury.one(SUNDAY)
    assert (made.state, made.amount_minor, made.reason) == ("ready", 1000, "no_payout_account")
    treasury.merchants[0] = Merchant(id=MERCHANT, key="sk_test_1", payout_account=ACCOUNT)
    treasury.restart()
    await treasury.settler.run_once()
    paid = await treasury.one(SUNDAY)
    assert (paid.state, paid.reason, treasury.bank.calls.count("order")) == ("processing", None, 1)


async def test_merchants_do_not_mix(treasury: Treasury):
    treasury.merchants.append(Merchant(id="merchant_2", key="sk_test_2", timezone="Asia/Kolkata"))
    treasury.restart()
    late = noon(SUNDAY) + 7 * HOUR_MS  # Monday 00:30 in India
    await treasury.book(treasury.entry("capture", 1000), treasury.entry("capture", 30, merchant="merchant_2", at_ms=late))
    treasury.clock.advance(2 * DAY_MS)
    assert (await treasury.one(SUNDAY)).net_minor == 1000
    assert await treasury.settle(SUNDAY, merchant="merchant_2") == []
    assert [s.net_minor for s in await treasury.settle(MONDAY, merchant="merchant_2")] == [30]


class Crashing:
    """A store whose process dies at one of its commits: before it is written, or after."""

    def __init__(self, store: SqliteStore, *, at: int, written: bool) -> None:
        self._store, self._left, self._written = store, at, written

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def commit(self, commit: object) -> object:
        self._left -= 1
        if self._left >= 0:
            return await self._store.commit(commit)  # type: ignore[arg-type]
        if self._left == -1 and self._written:
            await self._store.commit(commit)  # type: ignore[arg-type]
        raise StoreError("the process is gone")


@pytest.mark.parametrize(("written", "key"), [(False, "k"), (True, None)])
async def test_a_crash_at_any_commit_is_made_good_and_pays_once(
    treasury: Treasury, monkeypatch: pytest.MonkeyPatch, *, written: bool, key: str | None
):
    monkeypatch.setattr(flow, "PAGE", 2)
    store, crashes, day = treasury.store, 0, SUNDAY
    for at in range(12):
        amounts = {"INR": [100, 20, 3], "USD": [7, 70]}
        entries = [treasury.entry("capture", amount, currency=name) for name, of in amounts.items() for amount in of]
        await treasury.book(*entries)
        treasury.clock.advance(DAY_MS)
        treasury.store = Crashing(store, at=at, written=written)  # type: ignore[assignment]
        treasury.restart()
        try:
            await treasury.settle(day, None if key is None else f"{key}{at}")
        except StoreError:
            crashes += 1
        treasury.store = store
        treasury.restart()
        treasury.clock.advance(10_000)
        await treasury.settler.run_once()  # what a new process does by itself
        made = {
            s.currency: (s.net_minor, s.state, s.payouts)
            for s in await treasury.settle(day, None if key is None else f"{key}{at}")
        }
        assert made == {"INR": (123, "processing", 1), "USD": (77, "ready", 0)}
        day = date.fromordinal(day.toordinal() + 1)
    assert crashes >= 7
    assert sum(payout.amount_minor for payout, _ in treasury.bank.payouts.values()) == 12 * 123


async def test_what_comes_after_its_currency_was_closed_is_in_the_next_day(treasury: Treasury):
    await treasury.book(treasury.entry("capture", 1000), treasury.entry("capture", 7, currency="USD"))
    late = treasury.entry("capture", 50)
    treasury.clock.advance(DAY_MS)
    store = treasury.store
    treasury.store = Crashing(store, at=3, written=False)  # type: ignore[assignment]
    treasury.restart()
    with pytest.raises(StoreError):
        await treasury.settlements.run(MERCHANT, SUNDAY)
    treasury.store = store
    treasury.restart()
    assert [s.state for s in treasury.settlements.on(MERCHANT, SUNDAY)] == ["ready", "computing"]
    await treasury.book(late)
    assert [s.net_minor for s in await treasury.settle(SUNDAY)] == [1000, 7]
    treasury.clock.advance(DAY_MS)
    assert [s.net_minor for s in await treasury.settle(MONDAY)] == [50]


async def test_the_daily_run_waits_for_its_time_and_catches_up(treasury: Treasury):
    await treasury.book(treasury.entry("capture", 1000))
    treasury.clock.at_ms = noon(SUNDAY) + 12 * HOUR_MS + 599_999
    await treasury.settler.run_once()
    assert treasury.settlements.on(MERCHANT, SUNDAY) == []
    treasury.clock.advance(1)
    await treasury.settler.run_once()
    assert len(treasury.settlements.on(MERCHANT, SUNDAY)) == 1
    await treasury.book(treasury.entry("capture", 1))
    treasury.clock.advance(4 * DAY_MS)
    await treasury.settler.run_once()
    assert len(treasury.settlements.on(MERCHANT, MONDAY)) == 1


async def test_a_run_that_fails_is_tried_again_and_harms_nobody_else(treasury: Treasury):
    treasury.merchants.append(Merchant(id="merchant_2", key="sk_test_2", payout_account=ACCOUNT))
    treasury.restart()
    broken = treasury.entry("capture", 5)
    odd = msgspec.structs.replace(
        broken,
        postings=tuple(
            msgspec.structs.replace(p, account=p.account.replace("receivable", "elsewhere")) for p in broken.postings
        ),
    )
    await treasury.book(odd, treasury.entry("capture", 30, merchant="merchant_2"))
    treasury.clock.advance(DAY_MS)
    with capture_logs() as logged:
        await treasury.settler.run_once()
    assert [line["merchant_id"] for line in logged if line["event"] == "settlement.failed"] == [MERCHANT]
    assert [s.state for s in treasury.settlements.on(MERCHANT, SUNDAY)] == ["computing"]
    assert [s.state for s in treasury.settlements.on("merchant_2", SUNDAY)] == ["processing"]
    calls = len(treasury.bank.calls)
    treasury.clock.advance(59_999)
    await treasury.settler.run_once()
    with pytest.raises(StoreError, match="neither capture, refund nor chargeback"):
        await treasury.settlements.run(MERCHANT, SUNDAY)
    assert len(treasury.bank.calls) > calls, "the other's payout is asked about"
