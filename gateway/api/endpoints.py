"""/api/webhooks/endpoints: where a merchant wants its webhooks."""

from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.api import idempotency, wire
from gateway.api.keys import Keys
from gateway.api.routing import Handler, Route
from gateway.core.endpoint import ENDPOINTS_MAX, EVERYTHING, FAMILIES, Endpoint, State, unknown_names
from gateway.core.errors import invalid
from gateway.core.event import PUBLISHED
from gateway.flows.endpoints import Endpoints, Render, Wish
from gateway.flows.replays import Replays
from gateway.outbound import URL_SIZE_MAX
from gateway.ports import Response
from gateway.runtime import rfc3339
from gateway.vault import Vault

OVERLAP_S = 24 * 3600  # long enough to roll a new secret out by hand
OVERLAP_S_MAX = 7 * 24 * 3600  # a secret that is being replaced should not live on

Url = Annotated[str, Meta(min_length=1, max_length=URL_SIZE_MAX)]
Name = Annotated[str, Meta(max_length=64, extra_json_schema={"enum": [EVERYTHING, *FAMILIES, *PUBLISHED]})]
Names = Annotated[list[Name], Meta(min_length=1, max_length=32)]
Description = Annotated[str, Meta(max_length=256)]


class CreateRequest(wire.Request, frozen=True, kw_only=True):
    """`events`: exact names, families such as `payment.*`, or `*` for all, which is the default."""

    url: Url
    events: Names = msgspec.field(default_factory=lambda: [EVERYTHING])
    description: Description | None = None


class UpdateRequest(wire.Request, frozen=True, kw_only=True):
    """What is left out stays as it is."""

    url: Url | msgspec.UnsetType = msgspec.UNSET
    events: Names | msgspec.UnsetType = msgspec.UNSET
    description: Description | msgspec.UnsetType | None = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET


class RotateRequest(wire.Request, frozen=True, kw_only=True):
    """For how long the old secret signs beside the new one; 0 ends it at once."""

    overlap_seconds: Annotated[int, Meta(ge=0, le=OVERLAP_S_MAX)] = OVERLAP_S


class EmptyRequest(wire.Request, frozen=True, kw_only=True):
    """Nothing needs to be said."""


class EndpointData(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """`gone`: it answered 410. `secret` is told when it is made, and never again."""

    endpoint_id: str = msgspec.field(name="endpointID")
    url: str
    events: tuple[str, ...]
    description: str | None = None
    status: State
    secret: str | None = None
    old_secret_expires_at: str | None = None
    created_at: str
    updated_at: str


class ReplayedData(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """`has_more`: there are more dead letters; ask again, with another Idempotency-Key."""

    endpoint_id: str = msgspec.field(name="endpointID")
    replayed: int
    has_more: bool


_creations = msgspec.json.Decoder(CreateRequest)
_updates = msgspec.json.Decoder(UpdateRequest)
_rotations = msgspec.json.Decoder(RotateRequest)
_nothings = msgspec.json.Decoder(EmptyRequest)

Method = Literal["GET", "POST", "PATCH", "DELETE"]

BASE = "/api/webhooks/endpoints"
ONE = BASE + "/{endpointID}"


def _route(method: Method, path: str, handler: Handler, summary: str, **more: Any) -> Route:  # noqa: ANN401
    return Route(method=method, path=path, handler=handler, summary=summary, tag="webhooks", **{"gives": EndpointData} | more)


def _change(method: Method, path: str, handler: Handler, summary: str, **more: Any) -> Route:  # noqa: ANN401
    """PATCH takes a key, too: the IETF draft is about both."""
    return _route(method, path, handler, summary, idempotent=True, **{"errors": (404, 409)} | more)


class EndpointHandlers:
    def __init__(self, *, endpoints: Endpoints, replays: Replays, keys: Keys, vault: Vault) -> None:
        self._endpoints = endpoints
        self._replays = replays
        self._keys = keys
        self._vault = vault

    def routes(self) -> list[Route]:
        return [
            _change("POST", BASE, self.create, "Have events sent somewhere", takes=CreateRequest, status=201, errors=(409,)),
            _route("GET", BASE, self.list, "All endpoints, the oldest first", listed=True),
            _route("GET", ONE, self.get, "An endpoint", errors=(404,)),
            _change("PATCH", ONE, self.update, "Change an endpoint", takes=UpdateRequest),
            _change("POST", ONE, self.update, "Change an endpoint", takes=UpdateRequest),
            _route("DELETE", ONE, self.delete, "Delete an endpoint; what waits for it becomes dead letters", errors=(404,)),
            _change("POST", ONE + "/rotate", self.rotate, "Give it a new secret", takes=RotateRequest),
            _change("POST", ONE + "/disable", self.disable, "Send nothing until it is enabled", takes=EmptyRequest),
            _change("POST", ONE + "/enable", self.enable, "Send again", takes=EmptyRequest),
            _change(
                "POST", ONE + "/replay", self.replay, "Send its dead letters again", takes=EmptyRequest, gives=ReplayedData
            ),
        ]

    async def create(self, request: web.Request) -> web.Response:
        merchant_id = self._keys.merchant(request)
        body = await wire.read_body(request)
        asked = wire.decode(_creations, body)
        wish = Wish(url=asked.url, events=_names(asked.events), description=asked.description)
        key = idempotency.key_of(request, merchant_id, body, self._vault)
        return _answer(await self._endpoints.create(merchant_id, wish, key, _rendering(201)))

    async def list(self, request: web.Request) -> web.Response:
        found = self._endpoints.of(self._keys.merchant(request))
        return wire.listed([endpoint_data(endpoint) for endpoint in found], wire.Pagination(ENDPOINTS_MAX))

    async def get(self, request: web.Request) -> web.Response:
        return wire.success(endpoint_data(self._endpoints.one(self._keys.merchant(request), request.match_info["endpointID"])))

    async def update(self, request: web.Request) -> web.Response:
        merchant_id = self._keys.merchant(request)
        body = await wire.read_optional_body(request)
        asked = wire.decode(_updates, body)
        events, enabled = asked.events, asked.enabled
        wish = Wish(
            url=asked.url,
            events=events if isinstance(events, msgspec.UnsetType) else _names(events),
            description=asked.description,
            state=enabled if isinstance(enabled, msgspec.UnsetType) else "enabled" if enabled else "disabled",
        )
        return await self._update(request, merchant_id, body, wish)

    async def enable(self, request: web.Request) -> web.Response:
        merchant_id, body = await self._empty(request)
        return await self._update(request, merchant_id, body, Wish(state="enabled"))

    async def disable(self, request: web.Request) -> web.Response:
        merchant_id, body = await self._empty(request)
        return await self._update(request, merchant_id, body, Wish(state="disabled"))

    async def rotate(self, request: web.Request) -> web.Response:
        merchant_id = self._keys.merchant(request)
        body = await wire.read_optional_body(request)
        overlap_ms = wire.decode(_rotations, body).overlap_seconds * 1000
        key = idempotency.key_of(request, merchant_id, body, self._vault)
        endpoint_id = request.match_info["endpointID"]
        return _answer(await self._endpoints.rotate(merchant_id, endpoint_id, overlap_ms, key, _rendering(200)))

    async def delete(self, request: web.Request) -> web.Response:
        deleted = await self._endpoints.delete(self._keys.merchant(request), request.match_info["endpointID"])
        return wire.success(endpoint_data(deleted))

    async def replay(self, request: web.Request) -> web.Response:
        merchant_id, body = await self._empty(request)
        endpoint_id = request.match_info["endpointID"]

        def render(count: int, more: bool) -> Response:
            told = ReplayedData(endpoint_id=endpoint_id, replayed=count, has_more=more)
            return Response(200, wire.encode(wire.Success(True, told)))

        key = idempotency.key_of(request, merchant_id, body, self._vault)
        return _answer(await self._replays.replay_dead(merchant_id, endpoint_id, key, render))

    async def _empty(self, request: web.Request) -> tuple[str, bytes]:
        """Who asks, and the body, which says nothing."""
        merchant_id = self._keys.merchant(request)
        body = await wire.read_optional_body(request)
        wire.decode(_nothings, body)
        return merchant_id, body

    async def _update(self, request: web.Request, merchant_id: str, body: bytes, wish: Wish) -> web.Response:
        key = idempotency.key_of(request, merchant_id, body, self._vault)
        return _answer(await self._endpoints.update(merchant_id, request.match_info["endpointID"], wish, key, _rendering(200)))


def _names(events: list[str]) -> tuple[str, ...]:
    if unknown := unknown_names(events):
        known = ", ".join((EVERYTHING, *FAMILIES, *PUBLISHED))
        raise invalid("events", f"no such event {', '.join(unknown)}; known are {known}", "unknown_event")
    return tuple(dict.fromkeys(events))


def endpoint_data(endpoint: Endpoint, secret: str | None = None) -> EndpointData:
    until_ms = endpoint.old_secret_until_ms
    return EndpointData(
        endpoint_id=endpoint.id,
        url=endpoint.url,
        events=endpoint.events,
        description=endpoint.description,
        status=endpoint.state,
        secret=secret,
        old_secret_expires_at=None if until_ms is None else rfc3339(until_ms),
        created_at=rfc3339(endpoint.created_at_ms),
        updated_at=rfc3339(endpoint.updated_at_ms),
    )


def _rendering(status: int) -> Render:
    def render(endpoint: Endpoint, secret: str | None) -> Response:
        return Response(status, wire.encode(wire.Success(True, endpoint_data(endpoint, secret))))

    return render


def _answer(response: Response) -> web.Response:
    return wire.json_response(response.body, response.status)
