"""The simulators in this process on a port of their own, a client for them, and a gateway's ear for their callbacks."""

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from simulators.app import serving
from simulators.clock import Clock
from simulators.config import Config, convert

SECRETS = {name: "whsec_" + base64.b64encode(f"{name:*<32}".encode()).decode() for name in ("upi", "bank", "merchant")}
AT_ONCE = {"kind": "constant", "value": "0ms"}
NEVER = {"kind": "constant", "value": "60min"}
APPROVED_CARD = {"number": "4111111111111111", "expiryMonth": "12", "expiryYear": "2099", "cvv": "123"}


def make_config(**sections: Any) -> Config:
    """A configuration in which everything is approved at once, with `sections` laid over it."""
    document: dict[str, Any] = {
        "secrets": SECRETS,
        "card": {"latency": AT_ONCE, "outcomes": {"00": 1}},
        "upi": {"latency": AT_ONCE, "outcomes": {"00": 1}, "customer": {"delay": AT_ONCE}},
        "bank": {"latency": AT_ONCE, "outcomes": {"00": 1}, "customer": {"delay": AT_ONCE}},
    }
    for name, section in sections.items():
        document[name] = {**document.get(name, {}), **section} if isinstance(section, dict) else section
    return convert(document, Config, file="test")


class Client:
    """Speaks docs/providers.md."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url

    async def call(self, method: str, path: str, **options: Any) -> tuple[int, dict[str, Any], Any]:
        """Status, JSON body and headers."""
        async with self.session.request(method, self.url + path, **options) as answer:
            return answer.status, msgspec.json.decode(await answer.read()), answer.headers

    async def raw(self, request: bytes) -> tuple[int, str]:
        """Status and text of the answer to a request that no HTTP client would send."""
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self.url.rpartition(":")[2]))
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0])
        text = (await reader.readexactly(length)).decode()
        writer.close()
        return int(head.split()[1]), text

    async def card(self, reference: str, amount: int = 1000, currency: str = "INR", **card: str) -> dict[str, Any]:
        body = {"reference": reference, "amount": amount, "currency": currency, "merchantID": "m", "card": APPROVED_CARD | card}
        return (await self.call("POST", "/card/charges", json=body))[1]

    async def upi(self, reference: str, callback_url: str, **fields: Any) -> dict[str, Any]:
        body = {"reference": reference, "amount": 1000, "currency": "INR", "merchantID": "m", "flow": "collect", "vpa": "a@upi"}
        return (await self.call("POST", "/upi/payments", json=body | {"callbackURL": callback_url} | fields))[1]

    async def bank(self, reference: str, callback_url: str, **fields: Any) -> dict[str, Any]:
        body = {"reference": reference, "amount": 1000, "currency": "INR", "merchantID": "m", "bankCode": "HDFC0000001"}
        return (await self.call("POST", "/bank/payments", json=body | {"callbackURL": callback_url} | fields))[1]

    async def reverse(self, path: str, amount: int = 1000, currency: str = "INR") -> tuple[int, dict[str, Any]]:
        status, body, _ = await self.call("POST", f"{path}/reverse", json={"amount": amount, "currency": currency})
        return status, body

    async def journal(self, since: int = 0) -> list[dict[str, Any]]:
        async with self.session.get(f"{self.url}/journal", params={"since": since}) as answer:
            assert answer.status == 200
            return [msgspec.json.decode(line) for line in (await answer.read()).splitlines()]


Start = Callable[..., Awaitable[Client]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """`await start(**sections_of_the_config)` serves the simulators until the end of the test."""
    async with AsyncExitStack() as stack:

        async def serve(*, hold_s: float = 60, limit: int = 100, clock: Clock | None = None, **sections: Any) -> Client:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            await stack.enter_async_context(serving(make_config(**sections), listener, clock=clock, hold_s=hold_s))
            session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=limit))
            await stack.enter_async_context(session)
            return Client(session, f"http://127.0.0.1:{listener.getsockname()[1]}")

        yield serve


class Ear:
    """Receives callbacks. Answers them with `statuses` in turn, then with 200."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.statuses: list[int] = []
        self._heard: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()

    async def answer(self, request: web.BaseRequest) -> web.Response:
        self._heard.put_nowait((dict(request.headers), await request.read()))
        status = self.statuses.pop(0) if self.statuses else 200
        return web.Response(status=status, headers={"Location": self.url} if status == 307 else {})

    async def hear(self) -> tuple[dict[str, str], bytes]:
        """Headers and body of the next callback."""
        return await asyncio.wait_for(self._heard.get(), 10)

    async def next(self) -> dict[str, Any]:
        return msgspec.json.decode((await self.hear())[1])

    @property
    def silent(self) -> bool:
        return self._heard.empty()


@asynccontextmanager
async def listening_ear() -> AsyncIterator[Ear]:
    listener = socket.create_server(("127.0.0.1", 0))
    ear = Ear(f"http://127.0.0.1:{listener.getsockname()[1]}/callbacks")
    runner = web.ServerRunner(web.Server(ear.answer), shutdown_timeout=0.1)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    yield ear
    await runner.cleanup()


@pytest.fixture
async def ear() -> AsyncIterator[Ear]:
    async with listening_ear() as heard:
        yield heard


@pytest.fixture
def configure() -> Callable[..., Config]:
    """`configure(**sections)`: see `make_config`."""
    return make_config


@pytest.fixture
def listen() -> Callable[[], Any]:
    """`async with listen() as ear`, for tests that need an ear of their own."""
    return listening_ear
