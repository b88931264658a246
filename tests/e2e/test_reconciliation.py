"""The gateway's flows and the simulated providers on one clock: days of payments, reconciled with the providers' own settlement files."""

import asyncio
import io
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from gateway.api.payments import CustomerInfo, render
from gateway.config import ProviderConfig, Recovery
from gateway.core import ledger
from gateway.core.breaks import Break
from gateway.core.limits import Calls
from gateway.core.operation import Operation
from gateway.core.outcome import NotFound, Outcome, Unknown
from gateway.core.payment import Attempt, Method, Payment
from gateway.core.reconciliation import FileFormat, Run, date_of
from gateway.core.settlement import begin, payout_reference
from gateway.flows.channels import Channel
from gateway.flows.disputes import Disputes
from gateway.flows.idempotency import Turns
from gateway.flows.operations import Ask, Operations
from gateway.flows.payments import Order, Payments
from gateway.flows.publishing import Publisher
from gateway.flows.reconciliation import Ask as Asked
from gateway.flows.reconciliation import Reconciliation, Source
from gateway.ports import CardSecret, Commit, Instrument, Response
from gateway.providers.card import CardDialect
from gateway.providers.client import HttpProvider
from gateway.providers.netbanking import NetbankingDialect
from gateway.providers.settlement_files import COLUMNS
from gateway.providers.settlement_source import HttpSettlementFiles
from gateway.providers.upi import UpiDialect
from gateway.storage import sqlite
from gateway.storage.reconciliation import BreaksAsked
from gateway.storage.sqlite import SqliteStore
from gateway.vault import Vault
from simulators.app import serving
from simulators.clock import Clock
from simulators.config import Config, convert
from tests.gateway.doubles import KEY_ID, PATIENCE_S, CountingIds

DAY_MS = 86_400_000
NOON_MS = 1_900_000_000_000 // DAY_MS * DAY_MS + DAY_MS // 2
DAYS = (date_of(NOON_MS), date_of(NOON_MS + DAY_MS))
METHODS: dict[Method, str] = {"card": "card", "upi": "upi", "netbanking": "bank"}
FORMATS: tuple[FileFormat, ...] = ("csv", "camt.053")
FEE = 190
PLANTED = "missing:2,duplicate:2,wrong_amount:2,wrong_fee:1,late:2"
FOUND_AS = {
    "missing": "missing_in_provider",
    "late": "missing_in_provider",
    "duplicate": "duplicate",
    "wrong_amount": "amount_mismatch",
    "wrong_fee": "amount_mismatch",
    "late_arrival": "late",
}
AT_ONCE = {"kind": "constant", "value": "0ms"}
SECRETS = dict.fromkeys(("upi", "bank", "merchant"), "whsec_" + "c2VjcmV0" * 4)


def outside() -> Config:
    made: dict[str, Any] = {"secrets": SECRETS, "card": {"latency": AT_ONCE, "outcomes": {"00": 1}, "dispute_delay": "1s"}}
    for name in ("upi", "bank"):
        made[name] = {"latency": AT_ONCE, "outcomes": {"00": 1}, "customer": {"delay": AT_ONCE}}
    return convert(made, Config, file="test")


class Forgetful(HttpProvider):
    """The acquirer over a bad line: it charges, and no answer comes; asked for the charge it has not seen it yet. Once `bad`."""

    bad = False
    reverses = True
    meanwhile = staticmethod(lambda: None)  # what happens while the answer is under way

    async def create(self, payment: Payment, attempt: Attempt, instrument: Instrument, *, deadline_s: float) -> Outcome:
        outcome = await super().create(payment, attempt, instrument, deadline_s=deadline_s)
        self.meanwhile()
        return Unknown("a bad line") if self.bad else outcome

    async def inquire(self, attempt: Attempt, *, deadline_s: float) -> Outcome:
        return NotFound() if self.bad else await super().inquire(attempt, deadline_s=deadline_s)

    async def reverse(self, attempt: Attempt, *, deadline_s: float) -> Outcome:
        return await super().reverse(attempt, deadline_s=deadline_s) if self.reverses else Unknown("a bad line")


class World:
    def __init__(self, store: SqliteStore, clock: Clock, session: aiohttp.ClientSession, url: str) -> None:
        self.store, self.clock, self.session, self.url = store, clock, session, url
        self.ids = CountingIds()
        dialects = {"card": CardDialect(), "upi": UpiDialect(), "netbanking": NetbankingDialect()}
        self.providers: dict[Method, Forgetful] = {
            method: Forgetful(
                ProviderConfig(url=f"{url}/{name}"),
                dialects[method],
                callback_url=url + "/health",
                refund_callback_url=url + "/health",
                return_url=url,
            )
            for method, name in METHODS.items()
        }
        shared: dict[str, Any] = {
            "store": store,
            "clock": clock,
            "ids": self.ids,
            "turns": Turns(),
            "channels": {method: Channel(provider, 5_000, 250, Calls(64)) for method, provider in self.providers.items()},
            "publisher": Publisher(store=store, clock=clock, endpoints_of=lambda *_: (), subscribers=()),
        }
        self.payments = Payments(vault=Vault(bytes(32)), recovery=Recovery(), **shared)
        self.operations = Operations(recovery=Recovery(), **shared)
        self.disputes = Disputes(**shared)
        self._files: list[HttpSettlementFiles] = []
        self._reconciliations: list[Reconciliation] = []

    async def close(self) -> None:
        for one in self._reconciliations:
            await one.close()
        for file in self._files:
            await file.close()
        for provider in self.providers.values():
            await provider.close()

    # Merchants

    async def pay(self, method: Method = "card", amount: int = 1000, number: str = "4111111111111111", **more: Any) -> str:
        instruments = {
            "card": Instrument(card=CardSecret(number, "12", "2035", "123", None)),
            "upi": Instrument(upi_flow="collect", vpa="success@upi"),
            "netbanking": Instrument(bank_code="TESTS"),
        }
        order = Order(
            merchant_id=more.pop("merchant_id", "merchant_123"),
            order_id="order-1",
            method=method,
            amount_minor=amount,
            currency=more.pop("currency", "INR"),
            instrument=instruments[method],
            customer=CustomerInfo(email="a@example.com", phone="+911234567890"),
            metadata=None,
            **more,
        )
        answer = msgspec.json.decode((await self.payments.process(order, None, render)).body)["data"]
        payment_id: str = answer["paymentID"]
        if method != "card":
            self.clock.advance(1)  # the customer acts at once
        if answer["status"] != "completed" and "capture_method" not in more:
            payment, attempt = self.store.payment(payment_id), self.store.attempt_of(payment_id)
            assert payment is not None
            assert attempt is not None
            await self.payments.attempts.resolve(payment, attempt)
        return payment_id

    async def operate(self, kind: Any, payment_id: str, amount: int | None = None, **more: Any) -> None:
        payment = self.store.payment(payment_id)
        assert payment is not None
        ask = Ask(kind=kind, merchant_id=payment.merchant_id, payment_id=payment_id, amount_minor=amount, **more)
        await self.operations.perform(ask, None, lambda _, made: self.taken(made))

    @staticmethod
    def taken(operation: Operation) -> Response:
        assert operation.state in ("completed", "processing"), operation
        return Response(201, b"")

    async def hear_of_disputes(self) -> list[str]:
        async with self.session.get(self.url + "/card/disputes") as answer:
            told = (await answer.json())["disputes"]
        for one in told:
            body = msgspec.json.encode(one | {"id": "cb_1", "provider": "card", "type": "dispute"})
            await self.disputes.callback("card", body)
        return [one["disputeID"] for one in told]

    # The operator

    def reconciliation(self, query: str = f"fee_bps={FEE}", fee: int | None = FEE) -> Reconciliation:
        sources = {}
        for method, name in METHODS.items():
            self._files.append(HttpSettlementFiles(f"{self.url}/settlements/{name}?{query}"))
            sources[method] = Source(self._files[-1], ["INR"], fee)
        merchants = frozenset({"merchant_123", "merchant_2"})
        made = Reconciliation(store=self.store, sources=sources, merchants=merchants, clock=self.clock, ids=self.ids)
        self._reconciliations.append(made)
        return made

    async def run(self, by: Reconciliation, method: Method, day: str, file_format: FileFormat = "csv") -> Run:
        return await self.done(by, Asked(provider=method, date=day, format=file_format))

    async def upload(self, method: Method, day: str, *rows: str) -> Run:
        file = io.BytesIO("".join(f"{line}\n" for line in (",".join(COLUMNS), *rows)).encode())
        return await self.done(self.reconciliation(fee=None), Asked(provider=method, date=day, format="csv"), file)

    @staticmethod
    async def done(by: Reconciliation, ask: Asked, file: io.BytesIO | None = None) -> Run:
        found: list[Run] = []

        def keep(run: Run) -> Response:
            found.append(run)
            return Response(201, b"")

        await by.run(ask, None, keep, file)
        async with asyncio.timeout(PATIENCE_S):
            while found[0].state == "running":
                found[0] = await by.found(found[0].id)
        assert found[0].state == "completed", found[0].error
        return found[0]

    async def breaks(self, **asked: Any) -> list[Break]:
        return await self.reconciliation().breaks(BreaksAsked(limit=1000, **asked))

    async def answers(self, method: Method, day: str, query: str) -> list[dict[str, Any]]:
        async with self.session.get(f"{self.url}/settlements/{METHODS[method]}/{day}/answers?{query}&currency=INR") as answer:
            return (await answer.json(content_type=None))["answers"]


async def busy_days(world: World) -> None:
    """All that moves money, over two days."""
    for day in range(2):
        charged = [await world.pay(amount=1000 + 10 * number) for number in range(8)]
        held = [await world.pay(amount=5000, capture_method="manual") for _ in range(2)]
        await world.operate("capture", held[0], 2000)
        await world.operate("capture", held[0], 1500, final=True)
        await world.payments.void("merchant_123", held[1], None, render)
        await world.operate("refund", charged[0])
        await world.operate("refund", charged[1], 300)
        await world.operate("refund", charged[1], 300)
        await world.pay(number="4000000000000259", amount=7000)
        await world.pay(number="4000000000000259", amount=7500)
        late = await world.pay(number="4000000000005126", amount=900)  # its refund fails after it was completed
        await world.operate("refund", late)
        world.clock.advance(3_000)
        told = await world.hear_of_disputes()
        async with world.session.post(f"{world.url}/card/disputes/{told[0]}/evidence", json={"text": "winning"}) as answer:
            assert answer.status == 200 or day
        world.clock.advance(3_000)
        await world.hear_of_disputes()
        for operation in world.store.operations_of(late, "refund", 1):
            failed = {"reference": operation.id, "providerID": "p_1", "status": "failed", "responseCode": "05"}
            money = {"amount": operation.amount_minor, "currency": "INR", "provider": "card", "type": "refund", "id": "cb_2"}
            await world.operations.callback("card", msgspec.json.encode(failed | money))
        for method in ("upi", "netbanking"):
            paid = [await world.pay(method, amount=2000 + number, merchant_id="merchant_2") for number in range(8)]
            await world.operate("refund", paid[0], 500)
            await world.operate("refund", paid[1])
        if day == 0:
            world.clock.advance(DAY_MS)


@asynccontextmanager
async def running_world(folder: Path) -> AsyncIterator[World]:
    clock = Clock(lambda: NOON_MS)
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        await stack.enter_async_context(serving(outside(), listener, clock=clock))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        store = SqliteStore.open(folder / "gateway.db", vault_key_id=KEY_ID)
        stack.push_async_callback(store.close)
        world = World(store, clock, session, f"http://127.0.0.1:{listener.getsockname()[1]}")
        stack.push_async_callback(world.close)
        yield world


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(sqlite, "SPACING_S", 0.0)
    async with running_world(tmp_path) as made:
        yield made


def told(breaks: list[Break]) -> Counter[tuple[str, str, str, str, int]]:
    """What the breaks say, as the answer key would."""
    return Counter(
        (one.kind, one.reference, one.subject, one.type, one.expected_minor or one.actual_minor or 0) for one in breaks
    )


def key(answers: list[dict[str, Any]]) -> Counter[tuple[str, str, str, str, int]]:
    return Counter(
        (
            FOUND_AS[one["break"]],
            one["reference"],
            one["subject"],
            one["type"],
            one["true"][0]["gross"] if one["true"] else one["written"][0]["gross"],
        )
        for one in answers
    )


@pytest.mark.parametrize("file_format", FORMATS)
async def test_days_of_all_that_moves_money_match_and_exactly_what_is_planted_is_found(world, file_format):
    await busy_days(world)
    clean = world.reconciliation()
    for method in METHODS:
        for day in DAYS:
            run = await world.run(clean, method, day, file_format)
            assert run.matched == run.rows >= 10
    assert await world.breaks() == []

    planted = f"fee_bps={FEE}&breaks={PLANTED}&seed=7"
    broken = world.reconciliation(planted)
    for method in METHODS:
        first, second = [await world.answers(method, day, planted) for day in DAYS]
        assert {one["break"] for one in second} == set(FOUND_AS)
        await world.run(broken, method, DAYS[0], file_format)
        assert told(await world.breaks(provider=method)) == key(first)
        await world.run(broken, method, DAYS[1], file_format)
        arrived = [one for one in second if one["break"] == "late_arrival"]
        still = [one for one in first if one["break"] != "late"]
        assert told(await world.breaks(provider=method)) == key([*still, *second])
        assert told(await world.breaks(provider=method, kind="late", date=DAYS[0], status="resolved")) == key(arrived)


async def test_a_charge_that_was_reversed_before_it_was_booked_is_no_break(world):
    world.providers["card"].bad = True
    await world.pay(amount=4321)
    await world.pay(amount=1000)
    run = await world.run(world.reconciliation(), "card", DAYS[0])
    assert (run.rows, run.matched, run.movements) == (4, 4, 0)


async def test_a_charge_reversed_on_the_next_day_is_a_break_until_then(world):
    provider, by = world.providers["card"], world.reconciliation()
    provider.bad = True
    provider.reverses = False
    payment_id = await world.pay(amount=4321)
    run = await world.run(by, "card", DAYS[0])
    assert (run.matched, run.missing_in_gateway) == (0, 1)
    world.clock.advance(DAY_MS)
    provider.reverses = True
    payment, attempt = world.store.payment(payment_id), world.store.attempt_of(payment_id)
    await world.payments.attempts.resolve(payment, attempt)
    for _ in range(2):
        run = await world.run(by, "card", DAYS[1])
        assert (run.rows, run.matched) == (1, 1)
        await world.run(by, "card", DAYS[0])
        [one] = await world.breaks()
        assert (one.status, one.found_date, one.resolved_by) == ("resolved", DAYS[1], "system")


async def test_what_happens_around_midnight_is_matched_whichever_day_comes_first(world):
    world.clock.advance(DAY_MS // 2 - 100)
    world.providers["card"].meanwhile = lambda: world.clock.advance(200)  # our books are a day later than the provider
    await world.pay(amount=4321)
    world.providers["card"].meanwhile = lambda: None
    by = world.reconciliation()
    await world.pay(amount=1000)
    run = await world.run(by, "card", DAYS[1])
    assert (run.movements, run.matched, run.missing_in_provider) == (2, 1, 1)
    for day, rows in ((DAYS[0], 1), (DAYS[1], 1), (DAYS[0], 1)):
        run = await world.run(by, "card", day)
        assert (run.rows, run.movements if day == DAYS[1] else rows, run.matched) == (rows, rows, rows)
        assert await world.breaks(status="open") == []
    [one] = await world.breaks()
    assert (one.kind, one.resolved_by, one.history[-1].note) == ("missing_in_provider", "system", f"in the file of {DAYS[0]}")


async def test_payouts_to_merchants_are_matched_with_the_banks_file(world):
    at_ms = world.clock.now_ms()
    settlement = begin(
        f"set_{at_ms:012x}{1:020x}",
        merchant_id="merchant_123",
        day=date.fromisoformat(DAYS[0]),
        timezone="UTC",
        currency="INR",
        until_ms=at_ms,
        now_ms=at_ms,
    )
    references = [payout_reference(settlement.id, number) for number in (1, 2)]
    entries = [
        ledger.transfer(
            name=f"{reference}_paid",
            subject_id=settlement.id,
            debit=ledger.payable("merchant_123"),
            credit=ledger.BANK,
            currency="INR",
            amount_minor=500,
            now_ms=at_ms,
        )
        for reference in references
    ]
    await world.store.commit(Commit(settlement=settlement, entries=entries))
    row = f"{references[0]},PAYDR1031700000001,payout,-500,0,-500,INR,{at_ms},bank_1,merchant_123"
    run = await world.upload("netbanking", DAYS[0], row)
    assert (run.rows, run.movements, run.matched) == (1, 2, 1)
    [one] = await world.breaks()
    assert (one.kind, one.type, one.reference, one.expected_minor) == ("missing_in_provider", "payout", references[1], -500)
    assert (one.merchant_id, one.payment_id) == ("merchant_123", None)


async def test_what_is_booked_in_the_last_minute_may_be_in_the_next_days_file_but_not_in_none(world):
    world.clock.advance(DAY_MS // 2 - 30_000)
    payment_id = await world.pay(amount=4321)
    reference = f"att_{payment_id.removeprefix('pay_')}_01"
    at_ms = world.clock.now_ms() + 40_000  # by the provider's clock
    world.clock.advance(DAY_MS)
    run = await world.upload("card", DAYS[0])
    assert (run.movements, run.matched, await world.breaks()) == (1, 0, [])
    run = await world.upload("card", DAYS[1])
    assert (run.movements, run.missing_in_provider) == (1, 1)
    run = await world.upload("card", DAYS[1], f"{reference},,charge,4321,0,4321,INR,{at_ms},card_1,merchant_123")
    assert (run.movements, run.matched, await world.breaks(status="open")) == (1, 1, [])
