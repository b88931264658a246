"""A merchant's day from the ledger to the bank account: gateway and simulators in this process, over HTTP."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.app import Gateway
from gateway.config import Config, Endpoint, Merchant, PayoutAccount, ProviderConfig, Providers, Settlement
from gateway.core import ledger
from gateway.ports import Commit
from gateway.storage import export, sqlite
from gateway.storage.sqlite import SqliteStore
from gateway.vault import Vault
from loadtests.evidence import load_gateway
from simulators.app import serving
from tests.gateway.api.conftest import Answer, without_ids
from tests.gateway.doubles import PATIENCE_S, secret
from tests.simulators.conftest import make_config

KEYS = {"merchant_123": "sk_test_merchant_123", "merchant_2": "sk_test_merchant_2"}
RETURNED = PayoutAccount(account_number="000777777772", ifsc="HDFC0000001", name="A. Payee")  # completes, then comes back
TODAY = datetime.now(UTC).date()
YESTERDAY = TODAY - timedelta(1)


class World:
    def __init__(self, gateway: str, simulators: str, db: Path, session: aiohttp.ClientSession) -> None:
        self.gateway, self.simulators, self.db = gateway, simulators, db
        self._session = session
        self.webhooks: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def ask(self, method: str, path: str, *, merchant: str = "merchant_123", key: str = "", **options: Any) -> Answer:
        headers = {"Authorization": f"Bearer {KEYS[merchant]}"} | ({"Idempotency-Key": key} if key else {})
        async with self._session.request(method, self.gateway + path, headers=headers, **options) as answer:
            return Answer(answer.status, answer.headers.copy(), await answer.read())

    async def get(self, path: str) -> Any:
        answer = await self.ask("GET", path)
        assert answer.status == 200, answer.body
        return answer.json["data"]

    async def settle(self, day: Any = YESTERDAY, *, key: str = "", **options: Any) -> Answer:
        body = {"merchantID": "merchant_123", "date": str(day)}
        return await self.ask("POST", "/api/settlements/process", json=body, key=key, **options)

    async def time_passes(self, by: str) -> None:
        """At the bank."""
        async with self._session.post(self.simulators + "/admin/clock/advance", json={"by": by}) as answer:
            assert answer.status == 200, await answer.text()

    async def webhook(self) -> tuple[str, dict[str, Any]]:
        async with asyncio.timeout(PATIENCE_S):
            told = await self.webhooks.get()
        return told["event"], told["data"]


def booked() -> list[ledger.Entry]:
    """Yesterday, at noon: 1000 and 500 were taken, less 30 of fees; 200 went back to a customer, 100 to an issuer."""
    at_ms = int(datetime(YESTERDAY.year, YESTERDAY.month, YESTERDAY.day, 12, tzinfo=UTC).timestamp() * 1000)
    made = []
    for n, (name, provider, amount, fee) in enumerate([("{}_capture", "card", 1000, 20), ("cap_{}", "upi", 500, 10)]):
        serial = f"{n:032x}"
        money: dict[str, Any] = {"amount_minor": amount, "fee_minor": fee, "currency": "INR"}
        who: dict[str, Any] = {"subject_id": f"pay_{serial}", "provider": provider, "merchant_id": "merchant_123"}
        made.append(ledger.capture(name=name.format(serial), now_ms=at_ms, **money, **who))
    for name, amount in ((f"ref_{9:032x}", 200), (f"dsp_{9:032x}_opened", 100)):
        accounts = {"debit": "payable:merchant_123", "credit": "receivable:card"}
        subject = f"pay_{0:032x}"
        entry = ledger.transfer(name=name, subject_id=subject, currency="INR", amount_minor=amount, now_ms=at_ms, **accounts)
        made.append(entry)
    return made


@asynccontextmanager
async def world(folder: Path, *, automatic: bool) -> AsyncIterator[World]:
    vault, db = Vault(bytes(32)), folder / "gateway.db"
    store = SqliteStore.open(db, vault_key_id=vault.key_id)
    await store.commit(Commit(entries=booked()))
    await store.close()
    async with AsyncExitStack() as stack:
        at_bank = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        await stack.enter_async_context(serving(make_config(), at_bank))
        outside = f"http://127.0.0.1:{at_bank.getsockname()[1]}"
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        made = World(f"http://127.0.0.1:{listening.getsockname()[1]}", outside, db, session)
        receiver = await stack.enter_async_context(TestServer(_receiver(made)))
        gateway = Gateway(_config(made, str(receiver.make_url("/webhooks")), automatic=automatic), vault=vault, db=db)
        runner = web.AppRunner(await gateway.start(), access_log=None, shutdown_timeout=PATIENCE_S)
        await runner.setup()
        await web.SockSite(runner, listening).start()
        yield made
        await runner.cleanup()
        await gateway.stop()


def _receiver(of: World) -> web.Application:
    async def receive(request: web.Request) -> web.Response:
        of.webhooks.put_nowait(await request.json())
        return web.Response()

    app = web.Application()
    app.router.add_post("/webhooks", receive)
    return app


def _config(of: World, webhooks: str, *, automatic: bool) -> Config:
    bank = ProviderConfig(url=of.simulators + "/bank", callback_secret=secret("bank"))
    return Config(
        public_url=of.gateway,
        providers=Providers(
            card=ProviderConfig(url=of.simulators + "/card"), upi=ProviderConfig(url=of.simulators + "/upi"), netbanking=bank
        ),
        merchants=[
            Merchant(id=name, key=key, payout_account=RETURNED if name == "merchant_123" else None)
            for name, key in KEYS.items()
        ],
        webhook_endpoints=[Endpoint(id="ep_1", merchant_id="merchant_123", url=webhooks, secret=secret("merchant"))],
        settlement=Settlement(automatic=automatic, delay_ms=0),
    )


@pytest.fixture(autouse=True)
def commits_without_spacing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "SPACING_S", 0.0)


LINES = [
    {"provider": "card", "captured": 1000, "fees": 20, "refunds": 200, "chargebacks": 100, "net": 680}
    | {"captureCount": 1, "refundCount": 1, "chargebackCount": 1},
    {"provider": "upi", "captured": 500, "fees": 10, "refunds": 0, "chargebacks": 0, "net": 490}
    | {"captureCount": 1, "refundCount": 0, "chargebackCount": 0},
]


async def test_a_day_is_settled_paid_returned_and_paid_again(tmp_path: Path):
    async with world(tmp_path, automatic=False) as at:
        day = f"/api/settlements/daily?merchantID=merchant_123&date={YESTERDAY}"
        before = await at.get(day)
        assert (before["settlements"], before["timezone"]) == ([], "UTC")
        assert before["unsettled"] == [{"currency": "INR", "net": 1170, "transactionCount": 4}]

        answer = await at.settle(key="k")
        assert answer.status == 201, answer.body
        [made] = answer.json["data"]["settlements"]
        assert (made["status"], made["totalAmount"], made["transactionCount"], made["lines"]) == ("processing", 1170, 4, LINES)
        assert made["payout"]["account"] == "...7772"
        assert (await at.settle(key="k")).body == answer.body
        settlement = f"/api/settlements/{made['settlementID']}"
        told = {"settlementID": made["settlementID"], "amount": 1170, "currency": "INR", "date": str(YESTERDAY)}
        event, data = await at.webhook()
        assert (event, data["status"], data | told == data) == ("settlement.created", "ready", True)

        await at.time_passes("1h")
        event, data = await at.webhook()
        assert (event, data["status"], data | told == data) == ("settlement.completed", "completed", True)
        paid = await at.get(settlement)
        assert (paid["status"], len(paid["payout"]["utr"])) == ("completed", 12)
        assert (await at.get(day))["settlements"] == [paid]
        assert (await at.get(day))["unsettled"] == []

        await at.time_passes("2d")
        event, data = await at.webhook()
        assert (event, data["status"], data["reason"]) == ("settlement.failed", "failed", "returned")
        [again] = (await at.settle(key="k2")).json["data"]["settlements"]
        assert again["status"] == "processing"
        assert again["payout"]["reference"] != made["payout"]["reference"]
        metrics = (await at.ask("GET", "/metrics")).body
        assert b'event="settlement.failed",method="none"} 1.0' in metrics
        _check_the_books(at.db, tmp_path / "export.ndjson")


def _check_the_books(db: Path, to: Path) -> None:
    """As an auditor reads them: paid, and taken back; what providers owed has been remitted."""
    to.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in export.records(db)))
    evidence = load_gateway(to)
    [settlement] = evidence.settlements
    balances: dict[str, int] = {}
    for entry in evidence.entries:
        assert (entry.settlementID or entry.settledIn) == settlement.settlementID
        for posting in entry.postings:
            balances[posting.account] = balances.get(posting.account, 0) + posting.debit - posting.credit
    assert balances == {
        "bank": 1200,
        "fees": -30,
        "payable:merchant_123": -1170,
        "receivable:card": 0,
        "receivable:upi": 0,
    }
    assert [event.subject_id for event in evidence.events] == [settlement.settlementID] * 3
    assert {row.paymentID for row in evidence.idempotency} == {None}


async def test_what_merchants_may_ask(tmp_path: Path):
    async with world(tmp_path, automatic=True) as at:  # settles yesterday by itself
        event, told = await at.webhook()
        assert event == "settlement.created"
        settlement = f"/api/settlements/{told['settlementID']}"

        pages, cursor = [], ""
        while cursor is not None:
            page = (await at.ask("GET", f"{settlement}/entries?limit=3" + (f"&cursor={cursor}" if cursor else ""))).json
            pages.append([(entry["type"], entry["gross"], entry["fee"], entry["net"]) for entry in page["data"]])
            cursor = page["pagination"].get("nextCursor")
        assert [len(page) for page in pages] == [3, 1]
        assert sorted(chain.from_iterable(pages)) == [
            ("capture", 500, 10, 490),
            ("capture", 1000, 20, 980),
            ("chargeback", -100, 0, -100),
            ("refund", -200, 0, -200),
        ]

        missing = "/api/settlements/set_" + 32 * "f"
        for path in ("", "/entries"):
            others = await at.ask("GET", settlement + path, merchant="merchant_2")
            assert others.status == 404
            assert without_ids(others) == without_ids(await at.ask("GET", missing + path))
        daily = "/api/settlements/daily?"
        for answer, status, code, param in [
            (await at.settle(TODAY), 409, "day_not_over", "date"),
            (await at.settle("2026-02-30"), 400, "invalid_request", "date"),
            (await at.settle("9999-12-31"), 409, "day_not_over", "date"),
            (await at.settle(merchant="merchant_2"), 403, "wrong_merchant", "merchantID"),
            (await at.ask("GET", f"{daily}merchantID=merchant_2&date=2026-01-01"), 403, "wrong_merchant", "merchantID"),
            (await at.ask("GET", f"{daily}merchantID=merchant_123"), 400, "invalid_request", "date"),
            (await at.ask("GET", f"{daily}date=2026-01-01"), 400, "invalid_request", "merchantID"),
            (await at.ask("GET", f"{settlement}/entries?limit=0"), 400, "invalid_request", "limit"),
        ]:
            assert (answer.status, answer.json["code"], answer.json["param"]) == (status, code, param), answer.body
        for date in ("0001-01-01", "9999-12-31"):
            assert (await at.get(f"{daily}merchantID=merchant_123&date={date}"))["settlements"] == []
        assert (await at.settle("0001-01-01")).json["data"]["settlements"] == []
