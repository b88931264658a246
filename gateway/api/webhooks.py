"""/api/webhooks/events: what merchants were told, how that went, and telling them again."""

from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.api import idempotency, wire
from gateway.api.keys import Keys
from gateway.api.routing import Route
from gateway.core.event import Event, EventType
from gateway.flows.replays import Replays
from gateway.ports import Delivery, DeliveryState, Response, Try
from gateway.runtime import rfc3339
from gateway.storage.endpoints import EventsAsked, SentEvent
from gateway.vault import Vault

PAGE, PAGE_MAX = 20, 100
EventId = Annotated[str, Meta(pattern=r"^evt_[A-Za-z0-9_-]{1,80}$" + wire.END)]


class EventQuery(wire.Request, frozen=True, kw_only=True):
    """`state` and `endpointID` are about deliveries: events of which one is so. Where a filter passes over much, a page may be shorter than
    `limit`, or empty, though there is a `nextCursor`."""

    type: EventType | None = None
    payment_id: wire.ShortId | None = msgspec.field(name="paymentID", default=None)
    state: DeliveryState | None = None
    endpoint_id: wire.ShortId | None = msgspec.field(name="endpointID", default=None)
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = PAGE
    cursor: EventId | None = None


class ReplayRequest(wire.Request, frozen=True, kw_only=True):
    """Without `endpointID`: to all enabled endpoints that the event is for."""

    endpoint_id: wire.ShortId | None = msgspec.field(name="endpointID", default=None)


class AttemptData(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """One try. `status` is the receiver's HTTP status, `error` why there is none; `response` is how its body begins."""

    at: str
    duration_ms: int
    status: int | None = None
    error: str | None = None
    response: str | None = None


class DeliveryData(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """`tries` counts since it was made or replayed; `attempts`, of one event only, are the latest 10, whatever round they belong to."""

    endpoint_id: str = msgspec.field(name="endpointID")
    state: DeliveryState
    tries: int
    due_at: str | None = None
    last_error: str | None = None
    attempts: list[AttemptData] | None = None


class EventSummary(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    event_id: str = msgspec.field(name="eventID")
    type: EventType
    subject_id: str = msgspec.field(name="subjectID")
    sequence: int
    created_at: str
    deliveries: list[DeliveryData]


class EventDetail(EventSummary, frozen=True, kw_only=True):
    """`body` is the webhook's body, byte for byte."""

    body: msgspec.Raw


_replays = msgspec.json.Decoder(ReplayRequest)


class WebhookHandlers:
    def __init__(self, *, replays: Replays, keys: Keys, vault: Vault) -> None:
        self._replays = replays
        self._keys = keys
        self._vault = vault

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/api/webhooks/events",
                handler=self.list,
                summary="Published events and their deliveries, the newest first",
                tag="webhooks",
                query=EventQuery,
                gives=EventSummary,
                listed=True,
            ),
            Route(
                method="GET",
                path="/api/webhooks/events/{eventID}",
                handler=self.get,
                summary="An event with its body, its deliveries and their attempts",
                tag="webhooks",
                gives=EventDetail,
                errors=(404,),
            ),
            Route(
                method="POST",
                path="/api/webhooks/events/{eventID}/replay",
                handler=self.replay,
                summary="Send an event again",
                tag="webhooks",
                takes=ReplayRequest,
                gives=EventSummary,
                errors=(404, 409),
                idempotent=True,
            ),
        ]

    async def list(self, request: web.Request) -> web.Response:
        merchant_id = self._keys.merchant(request)
        query = wire.query(request, EventQuery)
        asked = EventsAsked(
            merchant_id=merchant_id,
            type=query.type,
            payment_id=query.payment_id,
            state=query.state,
            endpoint_id=query.endpoint_id,
            limit=query.limit,
        )
        found = await self._replays.events(asked, query.cursor)
        page = [_summary(sent.event, sent.deliveries) for sent in found.events]
        return wire.listed(page, wire.Pagination(query.limit, found.next))

    async def get(self, request: web.Request) -> web.Response:
        sent = await self._replays.event(self._keys.merchant(request), request.match_info["eventID"])
        return wire.success(_detail(sent))

    async def replay(self, request: web.Request) -> web.Response:
        merchant_id = self._keys.merchant(request)
        body = await wire.read_optional_body(request)
        asked = wire.decode(_replays, body)
        key = idempotency.key_of(request, merchant_id, body, self._vault)
        response = await self._replays.replay(
            merchant_id, request.match_info["eventID"], asked.endpoint_id, key, _render_replay
        )
        return wire.json_response(response.body, response.status)


def _render_replay(event: Event, deliveries: list[Delivery]) -> Response:
    return Response(200, wire.encode(wire.Success(True, _summary(event, deliveries))))


def _summary(event: Event, deliveries: list[Delivery]) -> EventSummary:
    return EventSummary(**_common(event), deliveries=[_delivery(delivery) for delivery in deliveries])


def _detail(sent: SentEvent) -> EventDetail:
    assert sent.event.body is not None  # only published events are found
    deliveries = [_delivery(delivery, attempts=[_attempt(each) for each in delivery.log]) for delivery in sent.deliveries]
    return EventDetail(**_common(sent.event), deliveries=deliveries, body=msgspec.Raw(sent.event.body))


def _common(event: Event) -> dict[str, Any]:
    return {
        "event_id": event.id,
        "type": event.type,
        "subject_id": event.subject_id,
        "sequence": event.sequence,
        "created_at": rfc3339(event.created_at_ms),
    }


def _delivery(delivery: Delivery, attempts: list[AttemptData] | None = None) -> DeliveryData:
    return DeliveryData(
        endpoint_id=delivery.endpoint_id,
        state=delivery.state,
        tries=delivery.tries,
        due_at=None if delivery.due_at_ms is None else rfc3339(delivery.due_at_ms),
        last_error=delivery.last_error,
        attempts=attempts,
    )


def _attempt(each: Try) -> AttemptData:
    return AttemptData(
        at=rfc3339(each.at_ms), duration_ms=each.duration_ms, status=each.status, error=each.error, response=each.response
    )
