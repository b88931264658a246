"""One of everything that the API is about, for tests that go through all of its routes."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import gateway.app
from gateway.api.examples import BY_CARD, EXAMPLES
from gateway.api.openapi import path_names
from gateway.api.routing import Route, add_routes
from gateway.config import Limits
from gateway.providers.settlement_files import COLUMNS
from gateway.storage import sqlite
from tests.gateway.api.conftest import KEYS, OPERATOR_KEY, Answer, Site, running_site

Key = tuple[str, str]

YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
OPERATORS = ("/api/reconciliation/run", "/api/reconciliation/upload")  # and what is below: they take no merchant's key
UNLIMITED = Limits(requests_per_min_per_key=60_000_000, requests_per_min_per_address=60_000_000)


class Clock:
    """The machine's clock, set back while days are wanted that are over."""

    behind = timedelta()

    def now_ms(self) -> int:
        return int((time.time() - Clock.behind.total_seconds()) * 1000)


class Stories:
    """Makes things happen to merchant_123 at a gateway whose routes are known."""

    def __init__(self, site: Site, routes: list[Route]) -> None:
        self.site = site
        self.routes = {(route.method, route.path): route for route in routes}
        self._files = 0
        self._endpoints: list[str] = []

    # What path parameters, and `{names}` in examples, stand for

    async def new(self, name: str) -> str:
        """The id of something new, by the name of its parameter."""
        return str(await getattr(self, f"new_{name.removesuffix('ID')}")())

    async def new_payment(self, **more: Any) -> str:
        return str((await self._post("/api/payments/process", BY_CARD | more))["paymentID"])

    async def new_refund(self) -> str:
        return str((await self._post("/api/refunds/process", {"paymentID": await self.new_payment()}))["refundID"])

    async def new_transaction(self) -> str:
        return str((await self._post("/api/payments/process", BY_CARD))["transactionID"])

    async def new_merchant(self) -> str:
        return "merchant_123"

    async def new_dispute(self) -> str:
        await self.new_payment()
        told = {
            "disputeID": f"dp_{len(self.site.provider.disputes)}",
            "chargeReference": json.loads(self.site.provider.requests[-1])["reference"],
            "reason": "fraudulent",
            "status": "needs_response",
            "amount": 1000,
            "currency": "INR",
            "respondBy": 1_900_000_000_000,
        }
        self.site.provider.disputes[told["disputeID"]] = told
        called = {"id": told["disputeID"], "provider": "card", "type": "dispute"}
        assert (await self.site.call_back(told | called, provider="card")).status == 200
        return str((await self.site.get("/api/disputes?limit=1"))[0]["disputeID"])

    async def new_endpoint(self) -> str:
        made = await self._post("/api/webhooks/endpoints", {"url": "http://127.0.0.1:9/", "events": ["dispute.lost"]})
        self._endpoints.append(made["endpointID"])
        if len(self._endpoints) > 10:  # a merchant may have 16
            gone = await self.site.request("DELETE", f"/api/webhooks/endpoints/{self._endpoints.pop(0)}")
            assert gone.status in (200, 404)
        return str(made["endpointID"])

    async def new_event(self) -> str:
        await self.new_payment()
        return str((await self.site.get("/api/webhooks/events?limit=1"))[0]["eventID"])

    async def new_settlement(self) -> str:
        """Of yesterday: there is only one."""
        done = await self._post("/api/settlements/process", {"merchantID": "merchant_123", "date": YESTERDAY})
        return str(done["settlements"][0]["settlementID"])

    async def new_run(self) -> str:
        """A run that finds a break."""
        self._files += 1
        day = datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(days=self._files)
        line = f"att_{self._files},,charge,5,0,5,INR,{int(day.timestamp() * 1000)},prov_1,merchant_123"
        file = "".join(f"{each}\r\n" for each in (",".join(COLUMNS), line))
        path = f"/api/reconciliation/upload?provider=card&date={day.date()}"
        answer = await self.site.request("POST", path, key=OPERATOR_KEY, data=file, headers={"Content-Type": "text/csv"})
        assert answer.status == 201, answer.body
        return str(answer.json["data"]["runID"])

    async def new_break(self) -> str:
        run_id = await self.new_run()
        found = await self.site.get("/api/reconciliation/breaks?status=open&limit=200")
        return str(next(each["breakID"] for each in found if each["runID"] == run_id))

    # Requests

    async def example(self, key: Key, name: str) -> tuple[str, Any]:
        """Path and body of an example, about something new that it can be about."""
        self.site.provider.settles = settlement_file
        return await self.path(key), await self._filled(EXAMPLES[key][name].body)

    async def path(self, key: Key) -> str:
        """The path, with query where one is needed, about something new."""
        path = key[1]
        for name in path_names(self.routes[key]):
            if path.endswith(("/capture", "/void")):
                given = await self.new_payment(captureMethod="manual")
            elif name == "endpointID" and path.endswith("/endpoints/{endpointID}/replay"):
                given = "ep_1"
            else:
                given = await self.new(name)
            path = path.replace(f"{{{name}}}", given)
        return path + QUERIES.get(key, "")

    async def ask(self, key: Key, path: str, body: Any, *, api_key: str | None = None, **headers: str) -> Answer:
        """A request to a route, with a key that may make it."""
        data = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body).encode()
        media = (self.routes[key].accepts or ("application/json",))[0]
        headers = ({} if data is None else {"Content-Type": media}) | headers
        return await self.site.request(key[0], path, key=api_key or key_for(key[1]), data=data, headers=headers)

    async def _filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {name: await self._filled(one) for name, one in value.items()}
        if value == "{endpointID}":
            return "ep_1"  # which takes all events
        return await self.new(value[1:-1]) if isinstance(value, str) and value.startswith("{") else value

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self.site.post(path, body)
        assert answer.status == 201, answer.body
        data: dict[str, Any] = answer.json["data"]
        return data


QUERIES: dict[Key, str] = {
    ("POST", "/api/reconciliation/upload"): "?provider=card&date=2026-01-31",
    ("GET", "/api/settlements/daily"): f"?merchantID=merchant_123&date={YESTERDAY}",
} | {
    ("GET", f"/api/reports/{name}"): "?from=2026-01-01T00:00:00Z&to=2100-01-01T00:00:00Z"
    for name in ("transactions", "refunds", "disputes", "settlements", "failures")
}


def key_for(path: str) -> str:
    return OPERATOR_KEY if path.startswith(OPERATORS) else KEYS["merchant_123"]


async def settlement_file() -> str:
    return ",".join(COLUMNS) + "\r\n"


@asynccontextmanager
async def telling(folder: Path) -> AsyncIterator[Stories]:
    """A gateway with a day that is over and not settled, and all its routes."""
    with pytest.MonkeyPatch.context() as patch:
        routes: list[Route] = []
        patch.setattr(gateway.app, "SystemClock", Clock)
        patch.setattr(gateway.app, "add_routes", lambda app, added: add_routes(app, noted(routes, added)))
        patch.setattr(sqlite, "SPACING_S", 0.0)  # commits share batches in busy moments, which tests have not
        patch.setattr(Clock, "behind", timedelta(days=1))
        async with running_site(folder, limits=UNLIMITED) as site:
            stories = Stories(site, routes)
            await stories.new_payment()
            Clock.behind = timedelta()
            yield stories


def noted(routes: list[Route], added: list[Route]) -> list[Route]:
    routes += added
    return added
