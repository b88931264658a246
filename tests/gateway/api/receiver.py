"""A merchant's receivers, each at a path of its own, and what a merchant's developer does with the API."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.gateway.api.conftest import KEYS, Answer, Site
from tests.gateway.doubles import PATIENCE_S

ENDPOINTS = "/api/webhooks/endpoints"
EVENTS = "/api/webhooks/events"


class Received(NamedTuple):
    headers: dict[str, str]
    body: bytes

    @property
    def event_id(self) -> str:
        return self.headers["webhook-id"]


class Receiver:
    """Answers 200, or what `behave` says."""

    def __init__(self) -> None:
        self.url = ""
        self.behave: Callable[[str], web.Response | Awaitable[web.Response]] = lambda _: web.Response()
        self._posts: dict[str, list[Received]] = defaultdict(list)
        self._arrival = asyncio.Condition()

    async def take(self, request: web.Request) -> web.Response:
        self._posts[request.path].append(Received(dict(request.headers), await request.read()))
        async with self._arrival:
            self._arrival.notify_all()
        answer = self.behave(request.path)
        return answer if isinstance(answer, web.Response) else await answer

    def at(self, path: str) -> list[Received]:
        return self._posts[path]

    async def until(self, path: str, count: int) -> list[Received]:
        """Waits until `count` webhooks have come to a path; returns them."""
        async with asyncio.timeout(PATIENCE_S), self._arrival:
            await self._arrival.wait_for(lambda: len(self._posts[path]) >= count)
        return self._posts[path]

    def says(self, status: int, text: str = "", **headers: str) -> None:
        self.behave = lambda _: web.Response(status=status, text=text, headers=headers)


@asynccontextmanager
async def running_receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_post("/{path:.*}", made.take)
    async with TestServer(app) as server:
        made.url = str(server.make_url("")).rstrip("/")
        yield made


async def create(site: Site, url: str, *, key: str = KEYS["merchant_123"], **more: Any) -> dict[str, Any]:
    answer = await site.post(ENDPOINTS, {"url": url} | more, key=key)
    assert answer.status == 201, answer.body
    return answer.json["data"]


async def change(site: Site, endpoint_id: str, **fields: Any) -> dict[str, Any]:
    answer = await site.request("PATCH", f"{ENDPOINTS}/{endpoint_id}", json=fields)
    assert answer.status == 200, answer.body
    return answer.json["data"]


async def act(site: Site, endpoint_id: str, action: str, body: Any = None) -> dict[str, Any]:
    answer = await site.post(f"{ENDPOINTS}/{endpoint_id}/{action}", body)
    assert answer.status == 200, answer.body
    return answer.json["data"]


async def listed(site: Site, **query: str) -> list[str]:
    """The ids of the events that a query finds."""
    answer = await site.request("GET", EVENTS, params=query)
    assert answer.status == 200, answer.body
    return [event["eventID"] for event in answer.json["data"]]


async def delivery(site: Site, event_id: str, endpoint_id: str) -> dict[str, Any]:
    found = await site.get(f"{EVENTS}/{event_id}")
    return next(each for each in found["deliveries"] if each["endpointID"] == endpoint_id)


async def settled(site: Site, event_id: str, endpoint_id: str, state: str) -> dict[str, Any]:
    """Asks until a delivery is in this state: marks share a commit, and so come a little later than what they tell of."""
    async with asyncio.timeout(PATIENCE_S):
        while (found := await delivery(site, event_id, endpoint_id))["state"] != state:
            pass
    return found


async def in_status(site: Site, endpoint_id: str, status: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await site.get(f"{ENDPOINTS}/{endpoint_id}"))["status"] != status:
            pass


def event_of(payment: dict[str, Any]) -> str:
    """The id of the event that tells of a card payment's end: number 2, after payment.processing."""
    return f"evt_{payment['paymentID'].removeprefix('pay_')}_2"


def refusal(answer: Answer) -> tuple[int, str, str | None]:
    return answer.status, answer.json["code"], answer.json.get("param")
