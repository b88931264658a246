"""Invariant 10: captures - refunds - chargebacks - fees = settled + unsettled, per merchant, day and currency, whatever happened when.

Random histories in time zones whose clocks change; the calendar that they are checked against is the standard library's, not ours.
"""

import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest

from gateway.config import Merchant
from gateway.core.ledger import Entry
from gateway.flows import settlements as flow
from tests.gateway.doubles import ManualClock
from tests.gateway.flows.treasury import ACCOUNT, DAY_MS, HOUR_MS, MERCHANT, Treasury, opened

HISTORIES = int(os.environ.get("PAYDROME_SETTLEMENT_HISTORIES", "12"))
STEPS = 25

# Each with a day on which its clocks change.
STARTS = [
    ("UTC", "2026-01-31"),
    ("Asia/Kolkata", "2026-02-27"),
    ("America/New_York", "2026-03-06"),
    ("America/New_York", "2026-10-30"),
    ("Europe/Berlin", "2026-10-23"),
    ("Australia/Lord_Howe", "2026-04-03"),
    ("America/Sao_Paulo", "2018-11-02"),
    ("Africa/Cairo", "2026-04-23"),
    ("Pacific/Apia", "2011-12-28"),
]


class Book(NamedTuple):
    kind: str
    amount: int
    fee_percent: int
    provider: str
    currency: str
    ago_ms: int


class Wait(NamedTuple):
    ms: int


class Settle(NamedTuple):
    days_ago: int
    outcome: str


KINDS = ["capture", "capture", "capture", "refund", "refund_failed", "chargeback", "chargeback_won"]
OUTCOMES = ["completed", "completed", "completed", "failed", "returned", "processing"]
WAITS_MS = [1, HOUR_MS // 2, HOUR_MS, 5 * HOUR_MS, 9 * HOUR_MS, DAY_MS, 3 * DAY_MS]


def history(draws: random.Random) -> Iterator[Book | Wait | Settle]:
    for _ in range(STEPS):
        yield Book(
            kind=draws.choice(KINDS),
            amount=draws.randint(1, 5_000),
            fee_percent=draws.choice([0, 2, 100]),
            provider=draws.choice(["card", "upi"]),
            currency=draws.choice(["INR", "INR", "USD"]),
            ago_ms=draws.choice([0, 0, 1, HOUR_MS]),
        )
        if draws.random() < 0.5:
            yield Wait(draws.choice(WAITS_MS))
        if draws.random() < 0.3:
            yield Settle(draws.choice([1, 1, 1, 2, 4]), draws.choice(OUTCOMES))


class History:
    """One merchant's days, and beside them what should have become of each."""

    def __init__(self, treasury: Treasury, zone: ZoneInfo) -> None:
        self.treasury, self.zone = treasury, zone
        self.unsettled: list[Entry] = []
        self.expected: dict[tuple[str, str], list[Entry]] = defaultdict(list)
        self.last = date.min
        self.all: list[Entry] = []

    async def step(self, step: Book | Wait | Settle) -> None:
        match step:
            case Wait():
                self.treasury.clock.advance(step.ms)
            case Book():
                fee = step.amount * step.fee_percent // 100
                at_ms = self.treasury.clock.now_ms() - step.ago_ms
                where = {"provider": step.provider, "currency": step.currency}
                entry = self.treasury.entry(step.kind, step.amount, fee=fee, at_ms=at_ms, **where)
                await self.treasury.book(entry)
                self.unsettled.append(entry)
                self.all.append(entry)
            case Settle():
                today = self._day(self.treasury.clock.now_ms())
                await self._settle(today - timedelta(step.days_ago), step.outcome)

    async def _settle(self, day: date, outcome: str) -> None:
        self.treasury.bank.becomes = outcome
        await self.treasury.settle(day)
        while reached := [entry for entry in self.unsettled if self._day(entry.created_at_ms) <= day]:
            this = max(min(self._day(entry.created_at_ms) for entry in reached), self.last + timedelta(1))
            if this > day:
                break
            for entry in [entry for entry in reached if self._day(entry.created_at_ms) <= this]:
                self.expected[this.isoformat(), entry.postings[0].currency].append(entry)
                self.unsettled.remove(entry)
            self.last = this

    def _day(self, at_ms: int) -> date:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)).astimezone(self.zone).date()

    async def check(self) -> None:
        made = {(record["date"], record["currency"]): record for record in self.treasury.records("settlement")}
        assert made.keys() == self.expected.keys()
        settled_in = {record["entryID"]: record["settledIn"] for record in self.treasury.records("entry")}
        for key, entries in self.expected.items():
            record = made[key]
            assert {settled_in[entry.id] for entry in entries} == {record["settlementID"]}
            assert record["net"] == _owed(entries)
            lines = record["lines"]
            parts = ("fees_minor", "refunds_minor", "chargebacks_minor")
            assert record["net"] == sum(line["captured_minor"] - sum(line[part] for part in parts) for line in lines)
        assert all(settled_in[entry.id] is None for entry in self.unsettled)
        for currency in ("INR", "USD"):
            await self._check_balance(currency, [record for key, record in sorted(made.items()) if key[1] == currency])

    async def _check_balance(self, currency: str, records: list[dict[str, int]]) -> None:
        told = await self.treasury.settlements.unsettled(MERCHANT, self._day(self.treasury.clock.now_ms()))
        unsettled = {name: net for name, net, _ in told}.get(currency, 0)
        assert unsettled == _owed(entry for entry in self.unsettled if entry.postings[0].currency == currency)
        owed = _owed(entry for entry in self.all if entry.postings[0].currency == currency)
        carried = min(0, records[-1]["openingBalance"] + records[-1]["net"]) if records else 0
        assert owed == sum(record["totalAmount"] for record in records) + carried + unsettled
        paid = self.treasury.bank.paid if currency == "INR" else 0
        assert -self.treasury.balance(f"payable:{MERCHANT}", currency) == owed - paid


def _owed(entries: Iterable[Entry]) -> int:
    sums: Counter[str] = Counter()
    for entry in entries:
        for posting in entry.postings:
            sums[posting.account] += posting.credit_minor - posting.debit_minor
    return sums[f"payable:{MERCHANT}"]


@pytest.mark.parametrize("seed", range(HISTORIES))
async def test_what_was_earned_is_settled_or_unsettled(monkeypatch: pytest.MonkeyPatch, seed: int):
    monkeypatch.setattr(flow, "PAGE", 2)
    zone, start = STARTS[seed % len(STARTS)]
    began = datetime.fromisoformat(start).replace(hour=20, tzinfo=ZoneInfo(zone))
    merchant = Merchant(id=MERCHANT, key="sk_test_1", timezone=zone, payout_account=ACCOUNT)
    async with opened(ManualClock(int(began.timestamp() * 1000)), merchant) as treasury:
        lived = History(treasury, ZoneInfo(zone))
        for step in history(random.Random(seed)):
            await lived.step(step)
        await lived.check()
