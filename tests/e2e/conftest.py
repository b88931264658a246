"""Gateway, simulated providers and a merchant that receives webhooks, in one process, over real HTTP; and whoever drives them."""

import asyncio
import base64
import json
import socket
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from gateway.app import Gateway
from gateway.config import Config, Endpoint, Merchant, ProviderConfig, Providers, Recovery
from gateway.storage import export, sqlite
from gateway.vault import Vault
from simulators.app import serving
from simulators.clock import Clock
from simulators.config import Config as WorldConfig
from simulators.config import convert

PATIENCE_S = 10  # nothing here takes a second; whoever waits longer waits for something that does not come
MERCHANT, KEY = "merchant_123", "sk_test_merchant_123"
SECRETS = {name: "whsec_" + base64.b64encode(f"{name:*<32}".encode()).decode() for name in ("card", "upi", "bank", "merchant")}
LOST = 777  # minor units: the first answer to a capture, reversal or refund of this amount is lost

_AT_ONCE = {"kind": "constant", "value": "0ms"}
_BEHAVIOUR = {"latency": _AT_ONCE, "outcomes": {"00": 1}}


class Answer(NamedTuple):
    status: int
    body: bytes

    @property
    def data(self) -> Any:
        return json.loads(self.body)["data"]

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"])


class Receiver:
    """Receives webhooks, and lets others wait for them."""

    def __init__(self) -> None:
        self.events: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        self._news = asyncio.Condition()

    async def receive(self, request: web.Request) -> web.Response:
        told = await request.json()
        async with self._news:
            self.events[told["data"]["paymentID"], told["event"]].append(told["data"])
            self._news.notify_all()
        return web.Response()

    async def heard(self, payment_id: str, event: str) -> dict[str, Any]:
        """The data of the event, once it has been delivered."""
        key = payment_id, event
        async with asyncio.timeout(PATIENCE_S), self._news:
            await self._news.wait_for(lambda: key in self.events)
        return self.events[key][-1]


class Shop:
    """A merchant's view of one gateway, the providers' own of its charges, and an auditor's of the books."""

    def __init__(self, url: str, world: "World", db: Path) -> None:
        self.url, self.world, self._db = url, world, db
        self.heard = world.merchant.heard

    async def call(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> Answer:
        headers = {"Authorization": f"Bearer {KEY}"} | ({} if key is None else {"Idempotency-Key": key})
        async with self.world.session.request(method, self.url + path, json=body, headers=headers) as answer:
            return Answer(answer.status, await answer.read())

    async def post(self, path: str, body: Any = None, *, key: str | None = None) -> Answer:
        return await self.call("POST", path, body, key=key)

    async def get(self, path: str) -> Any:
        return (await self.call("GET", path)).data

    async def pay(self, number: str = "4111111111111111", *, amount: int = 1000, **more: Any) -> str:
        """The id of a payment by card."""
        body = {
            "merchantID": MERCHANT,
            "amount": amount,
            "currency": "INR",
            "paymentMethod": "card",
            "cardDetails": {"number": number, "expiryMonth": "12", "expiryYear": "2035", "cvv": "123"},
            "customerInfo": {"email": "asha@example.com", "phone": "+91 98765 43210"},
            "orderID": "order-1",
        }
        answer = await self.post("/api/payments/process", body | more)
        assert answer.status == 201, answer.body
        return str(answer.data["paymentID"])

    async def charge(self, payment_id: str) -> dict[str, Any]:
        """What the acquirer knows of a payment."""
        reference = f"att_{payment_id.removeprefix('pay_')}_01"
        async with self.world.session.get(f"{self.world.url}/card/charges/{reference}") as answer:
            told: dict[str, Any] = await answer.json()
            return told

    def books(self, payment_id: str) -> dict[str, int]:
        """What was booked for a payment: debits less credits of each account."""
        balances: dict[str, int] = defaultdict(int)
        for record in export.records(self._db):
            if record["kind"] == "entry" and record["paymentID"] == payment_id:
                for posting in record["postings"]:
                    balances[posting["account"]] += posting["debit"] - posting["credit"]
        return dict(balances)


class World(NamedTuple):
    """`clock` is the providers'; advance it, and what they do later happens now."""

    url: str
    clock: Clock
    merchant: Receiver
    merchant_url: str
    session: aiohttp.ClientSession

    @asynccontextmanager
    async def shop(self, folder: Path, **recovery: int) -> AsyncIterator[Shop]:
        """A gateway among these providers. It charges 2% for cards."""
        listening = _listening()
        url = _url(listening)
        gateway = Gateway(
            self._config(url, Recovery(interval_ms=20, unknown_after_ms=20, **recovery)),
            vault=Vault(bytes(32)),
            db=folder / "gateway.db",
        )
        async with _serving(web.AppRunner(await gateway.start(), access_log=None), listening):
            yield Shop(url, self, folder / "gateway.db")
        await gateway.stop()

    def _config(self, url: str, recovery: Recovery) -> Config:
        hook = Endpoint(id="ep_1", merchant_id=MERCHANT, url=self.merchant_url, secret=SECRETS["merchant"])
        return Config(
            public_url=url,
            providers=Providers(
                card=ProviderConfig(url=f"{self.url}/card", callback_secret=SECRETS["card"], fee_basis_points=200),
                upi=ProviderConfig(url=f"{self.url}/upi", callback_secret=SECRETS["upi"]),
                netbanking=ProviderConfig(url=f"{self.url}/bank", callback_secret=SECRETS["bank"]),
            ),
            merchants=[Merchant(id=MERCHANT, key=KEY)],
            webhook_endpoints=[hook],
            recovery=recovery,
        )


@asynccontextmanager
async def open_world(**card: Any) -> AsyncIterator[World]:
    """`card` is laid over the acquirer's settings."""
    merchant, clock = Receiver(), Clock()
    async with AsyncExitStack() as stack:
        hooks, outside = _listening(), _listening()
        app = web.Application()
        app.add_routes([web.post("/hooks", merchant.receive)])
        await stack.enter_async_context(_serving(web.AppRunner(app, access_log=None), hooks))
        await stack.enter_async_context(serving(_behaviour(card), outside, clock=clock, hold_s=0.02))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield World(_url(outside), clock, merchant, _url(hooks) + "/hooks", session)


def _behaviour(card: dict[str, Any]) -> WorldConfig:
    lost = {"kind": "response_lost", "amount": LOST, "first": 1}
    faults = [lost | {"operation": operation} for operation in ("capture", "reverse", "refund")]
    document = {"secrets": SECRETS, "card": _BEHAVIOUR | {"faults": faults} | card, "upi": _BEHAVIOUR, "bank": _BEHAVIOUR}
    return convert(document, WorldConfig, file="test")


def _listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def _url(listening: socket.socket) -> str:
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


@asynccontextmanager
async def _serving(runner: web.AppRunner, listening: socket.socket) -> AsyncIterator[None]:
    await runner.setup()
    await web.SockSite(runner, listening).start()
    yield
    await runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    async with open_world() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    """One gateway for all tests of a module; each makes payments of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite, "SPACING_S", 0.0)  # commits share batches in busy moments, which tests have not
        async with world.shop(tmp_path_factory.mktemp("gateway")) as made:
            yield made
