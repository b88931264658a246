"""A whole gateway, wired as it always is, on a port from the system; beside it a plain provider."""

import asyncio
import base64
import copy
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.api.serving import CONNECTIONS_MAX, KEEPALIVE_S, Runner
from gateway.app import Gateway
from gateway.config import Config, Endpoint, Merchant, ProviderConfig, Providers, Webhooks
from gateway.core import signature
from gateway.vault import Vault
from tests.gateway.doubles import CVV, NUMBER, PATIENCE_S, secret

MISSING = object()
YEAR = time.gmtime().tm_year
KEYS = {"merchant_123": "sk_test_merchant_123", "merchant_2": "sk_test_merchant_2"}
OPERATOR_KEY = "sk_test_operator"

CARD = {"number": NUMBER, "expiryMonth": "12", "expiryYear": str(YEAR + 2), "cvv": CVV}
CUSTOMER = {"email": "asha@example.com", "phone": "+91 98765 43210"}
COMMON = {"merchantID": "merchant_123", "amount": 1000, "currency": "INR", "customerInfo": CUSTOMER, "orderID": "order-1"}
GOOD: dict[str, dict[str, Any]] = {
    "card": COMMON | {"paymentMethod": "card", "cardDetails": CARD},
    "upi": COMMON | {"paymentMethod": "upi", "upiDetails": {"flow": "collect", "vpa": "success@upi"}},
    "netbanking": COMMON | {"paymentMethod": "netbanking", "netbankingDetails": {"bankCode": "HDFC0000001"}},
}


class PlainProvider:
    """Approves what it is asked for, unless told otherwise; UPI and banks wait for their customer. `refusal` is the status and error code
    with which it refuses captures, reversals, refunds and answers to disputes; `refunds` is the status of those that it takes."""

    def __init__(self) -> None:
        self.status, self.code = "approved", "00"
        self.refusal: tuple[int, str] | None = None
        self.refunds = "completed"
        self.disputes: dict[str, dict[str, Any]] = {}
        self.operations: list[tuple[str, dict[str, Any]]] = []  # the last part of the path, and the body
        self.wait: Callable[[], Awaitable[object]] | None = None
        self.requests: list[bytes] = []
        self.inquired = asyncio.Event()
        self.settles: Callable[[], Awaitable[str]] | None = None  # the text of its settlement files, if it has any
        self.webhooks: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()

    def app(self) -> web.Application:
        made = web.Application()
        made.add_routes(
            [
                web.post("/card/charges", self.charge),
                web.get("/card/charges/{reference}", self.inquiry),
                web.post("/upi/payments", self.charge),
                web.post("/bank/payments", self.charge),
                web.post("/card/disputes/{dispute}/{operation}", self.dispute),
                web.get("/card/disputes/{dispute}", self.dispute),
                web.post("/{provider}/{charges}/{reference}/{operation}", self.operation),
                web.post("/webhooks", self.webhook),
                web.get("/settlements/card/{date}", self.settlement),
            ]
        )
        return made

    async def charge(self, request: web.Request) -> web.Response:
        self.requests.append(await request.read())
        if self.wait is not None:
            await self.wait()
        asked = json.loads(self.requests[-1])
        told = {key: asked[key] for key in ("reference", "amount", "currency")} | {"providerID": "prov_1"}
        if request.path.startswith("/card"):
            held = asked.get("capture") == "manual" and self.status == "approved"
            return web.json_response(told | {"status": "authorized" if held else self.status, "responseCode": self.code})
        return web.json_response(told | {"status": "pending", "redirectURL": "http://bank.example/1"})

    async def inquiry(self, request: web.Request) -> web.Response:
        self.inquired.set()
        asked = json.loads(self.requests[-1])
        told = {key: asked[key] for key in ("reference", "amount", "currency")}
        return web.json_response(told | {"providerID": "prov_1", "status": self.status, "responseCode": self.code})

    async def operation(self, request: web.Request) -> web.Response:
        """A capture, reversal or refund."""
        operation, reference = request.match_info["operation"], request.match_info["reference"]
        asked = await self._begin(request)
        if self.refusal is not None:
            return self._refused()
        money = {"amount": asked["amount"], "currency": asked["currency"], "providerID": "prov_2"}
        if operation == "reverse":
            return web.json_response(money | {"reference": reference, "status": "reversed"})
        told = money | {"reference": asked["reference"], "chargeReference": reference, "responseCode": "00"}
        if operation == "refunds":
            code = {"completed": "00", "pending": None, "failed": "05"}[self.refunds]
            return web.json_response(told | {"status": self.refunds, "responseCode": code})
        charge = money | {"reference": reference, "status": "authorized"}
        return web.json_response(told | {"status": self.status, "responseCode": self.code, "charge": charge})

    async def dispute(self, request: web.Request) -> web.Response:
        """An answer to a dispute is taken as long as it needs a response; nobody decides."""
        dispute = self.disputes[request.match_info["dispute"]]
        if request.method == "GET":
            return web.json_response(dispute)
        await self._begin(request)
        if self.refusal is not None:
            return self._refused()
        warning, needs_response, _ = dispute["status"].rpartition("needs_response")
        if not needs_response:
            return web.json_response({"code": "dispute_not_open", "error": "..."}, status=409)
        accepted = "warning_closed" if warning else "lost"
        dispute["status"] = accepted if request.match_info["operation"] == "accept" else warning + "under_review"
        return web.json_response(dispute)

    async def _begin(self, request: web.Request) -> dict[str, Any]:
        asked: dict[str, Any] = await request.json()
        self.operations.append((request.match_info["operation"], asked))
        if self.wait is not None:
            await self.wait()
        return asked

    def _refused(self) -> web.Response:
        assert self.refusal is not None
        return web.json_response({"error": "...", "code": self.refusal[1]}, status=self.refusal[0])

    async def settlement(self, request: web.Request) -> web.Response:
        return web.Response(status=404) if self.settles is None else web.Response(text=await self.settles())

    async def webhook(self, request: web.Request) -> web.Response:
        self.webhooks.put_nowait((dict(request.headers), await request.read()))
        return web.Response()


class Answer(NamedTuple):
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Site:
    def __init__(self, url: str, session: aiohttp.ClientSession, provider: PlainProvider, db: Path) -> None:
        self.url, self.provider, self.db = url, provider, db
        self._session = session

    async def request(self, method: str, path: str, *, key: str | None = KEYS["merchant_123"], **options: Any) -> Answer:
        headers = options.pop("headers", {})
        if key is not None:
            headers = {"Authorization": f"Bearer {key}"} | headers
        async with self._session.request(method, self.url + path, headers=headers, **options) as answer:
            return Answer(answer.status, answer.headers.copy(), await answer.read())

    async def process(self, body: Any, **options: Any) -> Answer:
        """`body` is bytes, or a document."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | options.pop("headers", {})
        return await self.request("POST", "/api/payments/process", data=data, headers=headers, **options)

    async def pay(self, method: str = "card", **options: Any) -> dict[str, Any]:
        answer = await self.process(GOOD[method], **options)
        assert answer.status == 201, answer.body
        return answer.json["data"]

    async def post(
        self, path: str, body: Any = None, *, idempotency_key: str | None = None, key: str = KEYS["merchant_123"]
    ) -> Answer:
        """A POST of a document, or without a body."""
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return await self.request("POST", path, key=key, headers=headers, **({} if body is None else {"json": body}))

    async def get(self, path: str) -> Any:
        """The data of an answer that is a success."""
        answer = await self.request("GET", path)
        assert answer.status == 200, answer.body
        return answer.json["data"]

    async def call_back(
        self, document: Any, *, provider: str = "upi", path: str = "/api/webhooks/payment", **headers: str | None
    ) -> Answer:
        """A callback as the provider would sign it, with some of its headers replaced, or left out for None."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        now_s = int(time.time())
        made: dict[str, str | None] = {
            "Content-Type": "application/json",
            "webhook-id": "cb_1",
            "webhook-timestamp": str(now_s),
            "webhook-signature": signature.sign(signature.secret_key(secret(provider)), "cb_1", now_s, body),
        }
        given = {name: value for name, value in (made | headers).items() if value is not None}
        return await self.request("POST", path, key=None, data=body, headers=given)

    async def raw(self, request: bytes) -> bytes:
        """What comes back, up to the end of the connection, for bytes that no client library would send."""
        host, port = self.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(request)
            async with asyncio.timeout(PATIENCE_S):
                return await reader.read()
        finally:
            writer.close()

    async def totals(self) -> tuple[int, int]:
        health = (await self.request("GET", "/health", key=None)).json
        return health["totalPayments"], health["totalTransactions"]


@asynccontextmanager
async def running_site(
    folder: Path,
    webhooks: Webhooks | None = None,
    *,
    connections_max: int = 512,
    keepalive_s: float = KEEPALIVE_S,
    callers_max: int = CONNECTIONS_MAX,
    **more: Any,
) -> AsyncIterator[Site]:
    """`connections_max` is the card provider's, `callers_max` the gateway's own; `more` goes into the configuration."""
    provider = PlainProvider()
    async with TestServer(provider.app()) as outside:  # the world around the gateway
        at = str(outside.make_url("")).rstrip("/")
        config = Config(
            public_url="http://gateway.example",
            providers=Providers(
                card=ProviderConfig(
                    url=at + "/card",
                    callback_secret=secret("card"),
                    connections_max=connections_max,
                    settlement_url=at + "/settlements/card",
                ),
                upi=ProviderConfig(url=at + "/upi", callback_secret=secret("upi")),
                netbanking=ProviderConfig(url=at + "/bank", callback_secret=secret("bank")),
            ),
            webhooks=webhooks or Webhooks(),
            operator_key=OPERATOR_KEY,
            merchants=more.pop("merchants", [Merchant(id=name, key=key) for name, key in KEYS.items()]),
            webhook_endpoints=[
                Endpoint(id="ep_1", merchant_id="merchant_123", url=at + "/webhooks", secret=secret("merchant"))
            ],
            **more,
        )
        gateway = Gateway(config, vault=Vault(bytes(32)), db=folder / "gateway.db")
        listening = socket.create_server(("127.0.0.1", 0))
        runner = Runner(await gateway.start(), shutdown_s=PATIENCE_S, keepalive_s=keepalive_s, connections_max=callers_max)
        await runner.setup()
        await web.SockSite(runner, listening).start()
        async with aiohttp.ClientSession() as session:
            yield Site(f"http://127.0.0.1:{listening.getsockname()[1]}", session, provider, folder / "gateway.db")
        await runner.cleanup()
        await gateway.stop()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A gateway of the test's own."""
    async with running_site(tmp_path) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """One gateway for a whole table of requests that must leave nothing behind."""
    async with running_site(tmp_path_factory.mktemp("site")) as made:
        yield made


def without_ids(answer: Answer) -> tuple[int, dict[str, str], dict[str, Any]]:
    """What must be the same for another's object and for one that does not exist."""
    headers = {name: value for name, value in answer.headers.items() if name not in ("X-Request-ID", "Date", "RateLimit")}
    return answer.status, headers, answer.json | {"requestID": "..."}


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def changed(method: str, path: str, value: Any) -> dict[str, Any]:
    """A good request with one field replaced, added, or left out for `MISSING`."""
    document = copy.deepcopy(GOOD[method])
    *parents, name = path.split(".")
    parent = document
    for step in parents:
        parent = parent[step]
    if value is MISSING:
        del parent[name]
    else:
        parent[name] = value
    return document
