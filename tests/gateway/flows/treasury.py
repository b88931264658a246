"""Settlements over the real store, with a bank that keeps books of its own and does as it is told."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from gateway.api.settlements import settlement_data
from gateway.config import Merchant, PayoutAccount, Recovery
from gateway.config import Settlement as SettlementConfig
from gateway.core import ledger
from gateway.core.outcome import Declined, NotFound, NotSent, Unknown
from gateway.core.settlement import Payout, PayoutTold, Settlement
from gateway.flows.disbursements import Disbursements
from gateway.flows.idempotency import IdempotencyKey
from gateway.flows.publishing import Published, Publisher
from gateway.flows.settlements import Settlements
from gateway.ports import Commit, Done, Response
from gateway.storage import export
from gateway.storage.sqlite import SqliteStore
from gateway.workers import Settler
from tests.gateway.doubles import KEY_ID, CountingIds, ManualClock

ACCOUNT = PayoutAccount(account_number="000123456789", ifsc="HDFC0000001", name="A. Payee")
MERCHANT = "merchant_123"
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Bank:
    """Pays each reference once. `becomes` is what a new payout is; `answer` is what it says instead of the truth, once for each in it."""

    def __init__(self) -> None:
        self.becomes = "processing"
        self.payouts: dict[str, tuple[Payout, str]] = {}
        self.calls: list[str] = []
        self.before: list[NotSent | Unknown | Declined | Callable[[], Awaitable[object]]] = []  # instead of acting
        self.after: list[NotSent | Unknown | Callable[[], Awaitable[object]]] = []  # it has acted

    async def order(self, payout: Payout, *, deadline_s: float) -> Any:
        self.calls.append("order")
        if self.before and (said := await _said(self.before)) is not None:
            return said
        known, _ = self.payouts.setdefault(payout.reference, (payout, self.becomes))
        assert known == payout, "another order under the same reference"
        if self.after and (said := await _said(self.after)) is not None:
            return said
        return self.told(payout.reference)

    async def inquire(self, payout: Payout, *, deadline_s: float) -> Any:
        self.calls.append("inquire")
        if self.before and (said := await _said(self.before)) is not None:
            return said
        return self.told(payout.reference) if payout.reference in self.payouts else NotFound()

    def read_callback(self, body: bytes, payout: Payout) -> PayoutTold | Unknown:
        return self.told(payout.reference)

    def told(self, reference: str) -> PayoutTold:
        _, status = self.payouts[reference]
        code = {"completed": "00", "failed": "account_closed", "returned": "returned"}.get(status)
        return PayoutTold(status=status, provider_id="bank_1", response_code=code, utr="123456789012")  # type: ignore[arg-type]

    def now(self, status: str) -> bytes:
        """The last payout is so now. Returns the callback that tells of it."""
        reference, (payout, _) = list(self.payouts.items())[-1]
        self.payouts[reference] = payout, status
        return msgspec.json.encode({"reference": reference, "provider": "bank", "type": "payout"})

    @property
    def paid(self) -> int:
        """What has left the bank for good."""
        return sum(payout.amount_minor for payout, status in self.payouts.values() if status == "completed")


async def _said(answers: list[Any]) -> Any:
    answer = answers.pop(0)
    return await answer() if callable(answer) else answer


class Treasury:
    """A gateway that only settles. Entries come straight into its books."""

    def __init__(self, store: SqliteStore, clock: ManualClock, path: Path, *, merchants: list[Merchant] | None = None) -> None:
        self.store, self.clock, self.path = store, clock, path
        self.merchants = merchants or [Merchant(id=MERCHANT, key="sk_test_1", payout_account=ACCOUNT)]
        self.bank = Bank()
        self.told: list[tuple[str, str]] = []
        self._ids, self._serials = CountingIds(), 0
        self.restart()

    def restart(self, *, early: bool = False) -> None:
        """A new process over the same database. `early`: one that settles today, too."""
        publisher = Publisher(
            store=self.store, clock=self.clock, endpoints_of=lambda _, __: ["ep_1"], subscribers=(self._hear,)
        )
        shared: dict[str, Any] = {"store": self.store, "merchants": self.merchants, "clock": self.clock, "publisher": publisher}
        self.disbursements = Disbursements(bank=self.bank, recovery=Recovery(), timeout_ms=1_500, **shared)
        self.settlements = Settlements(disbursements=self.disbursements, ids=self._ids, early=early, **shared)
        self.settler = Settler(
            store=self.store,
            settlements=self.settlements,
            disbursements=self.disbursements,
            merchants=[merchant.id for merchant in self.merchants],
            clock=self.clock,
            config=SettlementConfig(),
        )

    def _hear(self, published: Published) -> None:
        self.told += [(event.subject_id, event.type) for event in published.events]

    # What is booked

    def entry(self, kind: str, amount: int, *, fee: int = 0, at_ms: int | None = None, **where: str) -> ledger.Entry:
        """`kind`: capture, refund, refund_failed, chargeback or chargeback_won."""
        self._serials += 1
        serial = f"{self._serials:032x}"
        now_ms = self.clock.now_ms() if at_ms is None else at_ms
        provider, merchant = where.get("provider", "card"), where.get("merchant", MERCHANT)
        common: dict[str, Any] = {"subject_id": f"pay_{serial}", "currency": where.get("currency", "INR"), "now_ms": now_ms}
        if kind == "capture":
            name = f"{serial}_capture" if self._serials % 2 else f"cap_{serial}"
            made = ledger.capture(
                name=name, provider=provider, merchant_id=merchant, amount_minor=amount, fee_minor=fee, **common
            )
        else:
            names = {
                "refund": f"ref_{serial}",
                "refund_failed": f"ref_{serial}_failed",
                "chargeback": f"dsp_{serial}_opened",
                "chargeback_won": f"dsp_{serial}_won",
            }
            accounts = ledger.payable(merchant), ledger.receivable(provider)
            debit, credit = accounts if kind in ("refund", "chargeback") else reversed(accounts)
            made = ledger.transfer(name=names[kind], debit=debit, credit=credit, amount_minor=amount, **common)
        return made

    async def book(self, *entries: ledger.Entry) -> None:
        assert isinstance(await self.store.commit(Commit(entries=entries)), Done)

    # Settling

    async def settle(self, day: date, key: str | None = None, merchant: str = MERCHANT) -> list[Settlement]:
        await self.answer(day, key, merchant)
        return self.settlements.on(merchant, day)

    async def answer(self, day: date, key: str | None = None, merchant: str = MERCHANT) -> Response:
        made = None if key is None else IdempotencyKey(merchant, key, f"{merchant} {day}".encode())
        return await self.settlements.process(merchant, day, made, render)

    async def one(self, day: date, key: str | None = None) -> Settlement:
        [settlement] = await self.settle(day, key)
        return settlement

    # The auditor

    def balance(self, account: str, currency: str = "INR") -> int:
        """Debits minus credits."""
        return sum(
            posting["debit"] - posting["credit"]
            for record in export.records(self.path)
            if record["kind"] == "entry"
            for posting in record["postings"]
            if (posting["account"], posting["currency"]) == (account, currency)
        )

    def records(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in export.records(self.path) if record["kind"] == kind]


@asynccontextmanager
async def opened(clock: ManualClock, *merchants: Merchant) -> AsyncIterator[Treasury]:
    """Over a store in memory: what a disk does is tested elsewhere."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder) / "gateway.db"
        store = SqliteStore.open(path, vault_key_id=KEY_ID)
        try:
            yield Treasury(store, clock, path, merchants=list(merchants))
        finally:
            await store.close()


def render(settlements: Any) -> Response:
    return Response(201, msgspec.json.encode([settlement_data(settlement) for settlement in settlements]))


async def crash(task: "asyncio.Task[Any]") -> None:
    """Ends work where it stands, as the end of its process would."""
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
