"""What became of a merchant's events, and sending them once more: the same id and body, a new timestamp, a fresh round of tries."""

from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from gateway.core.endpoint import Endpoint, wants
from gateway.core.errors import CallerError, invalid, not_found
from gateway.core.event import SUBJECT_PREFIXES, Event
from gateway.flows.endpoints import Endpoints
from gateway.flows.idempotency import IdempotencyKey, once
from gateway.flows.outbox import Outbox
from gateway.ports import Clock, Commit, Committed, Delivery, Done, Response, Store
from gateway.storage import endpoints as storage

REPLAY_MAX = 500  # dead letters a request: one commit of some 20 ms


class Replays:
    def __init__(self, *, store: Store, endpoints: Endpoints, outbox: Outbox, clock: Clock) -> None:
        self._store = store
        self._endpoints = endpoints
        self._outbox = outbox
        self._clock = clock

    # Read

    async def events(self, asked: storage.EventsAsked, cursor: str | None) -> storage.SentPage:
        """Published events, the newest first; `cursor` is the id of the last one that was seen. Raises CallerError 400 if it is not."""
        if cursor is not None:
            seen = self._find(asked.merchant_id, cursor)
            if seen is None:
                raise invalid("cursor", "expected a nextCursor as it was given, or none")
            asked = replace(asked, before=(seen.created_at_ms, seen.subject_id, seen.sequence))
        return await self._store.read(partial(storage.events, asked=asked))

    async def event(self, merchant_id: str, event_id: str) -> storage.SentEvent:
        """Raises CallerError 404 if there is none, or if it is somebody else's."""
        return await self._store.read(partial(storage.with_deliveries, event=self._one(merchant_id, event_id)))

    def _one(self, merchant_id: str, event_id: str) -> Event:
        event = self._find(merchant_id, event_id)
        if event is None:
            raise not_found("event")
        return event

    def _find(self, merchant_id: str, event_id: str) -> Event | None:
        """By its id, which says what it is about and its number: see core/event.py."""
        serial, _, number = event_id.removeprefix("evt_").rpartition("_")
        if not (number.isascii() and number.isdigit() and len(number) < 10):
            return None
        for prefix in SUBJECT_PREFIXES:
            for event in self._store.events_of(f"{prefix}_{serial}", int(number) - 1, 1):
                if event.id == event_id and event.merchant_id == merchant_id and event.body is not None:
                    return event
        return None

    # Replay

    async def replay(
        self,
        merchant_id: str,
        event_id: str,
        endpoint_id: str | None,
        key: IdempotencyKey | None,
        render: Callable[[Event, list[Delivery]], Response],
    ) -> Response:
        """Sends an event again to one endpoint, or to all enabled ones that it is for. What still waits to be sent is left alone. Raises
        CallerError 404, 409 where nothing could take it, or 409 or 422 for the key's sake."""

        def decide() -> tuple[Commit, Response]:
            event = self._one(merchant_id, event_id)
            deliveries, afresh = [], []
            for endpoint in self._candidates(merchant_id, endpoint_id):
                delivery = self._store.delivery(endpoint.id, event.subject_id, event.sequence)
                if delivery is None and endpoint_id is None and not wants(endpoint, event.type):
                    continue
                if delivery is None or delivery.state != "pending":
                    delivery = self._afresh(delivery or _first(endpoint, event))
                    afresh.append(delivery)
                deliveries.append(delivery)
            if not deliveries:
                raise CallerError(409, "no_endpoint", "no enabled endpoint is for this event; name one as endpointID")
            return Commit(deliveries=afresh), render(event, deliveries)

        return await once(decide, key, subject_id=event_id, store=self._store, commit=self._commit, clock=self._clock)

    async def replay_dead(
        self, merchant_id: str, endpoint_id: str, key: IdempotencyKey | None, render: Callable[[int, bool], Response]
    ) -> Response:
        """Sends up to `REPLAY_MAX` dead letters of an endpoint again; `render` is told how many, and whether there are more. Raises
        CallerError 404, 409 for an endpoint that is not enabled, or 409 or 422 for the key's sake."""

        def decide() -> tuple[Commit, Response]:
            _check_enabled(self._endpoints.one(merchant_id, endpoint_id))
            found = self._store.dead_deliveries(endpoint_id, REPLAY_MAX + 1)
            after = [self._afresh(delivery) for delivery in found[:REPLAY_MAX]]
            return Commit(deliveries=after), render(len(after), len(found) > REPLAY_MAX)

        return await once(decide, key, subject_id=endpoint_id, store=self._store, commit=self._commit, clock=self._clock)

    def _candidates(self, merchant_id: str, endpoint_id: str | None) -> list[Endpoint]:
        if endpoint_id is None:
            return [endpoint for endpoint in self._endpoints.of(merchant_id) if endpoint.state == "enabled"]
        endpoint = self._endpoints.one(merchant_id, endpoint_id)
        _check_enabled(endpoint)
        return [endpoint]

    def _afresh(self, delivery: Delivery) -> Delivery:
        return replace(delivery, state="pending", tries=0, due_at_ms=self._clock.now_ms(), last_error=None)

    async def _commit(self, commit: Commit) -> Committed:
        committed = await self._store.commit(commit)
        if isinstance(committed, Done):
            for endpoint_id in {delivery.endpoint_id for delivery in commit.deliveries}:
                self._outbox.look(endpoint_id)
        return committed


def _first(endpoint: Endpoint, event: Event) -> Delivery:
    return Delivery(
        endpoint_id=endpoint.id,
        subject_id=event.subject_id,
        sequence=event.sequence,
        event_id=event.id,
        state="pending",
        tries=0,
        due_at_ms=None,
    )


def _check_enabled(endpoint: Endpoint) -> None:
    if endpoint.state != "enabled":
        raise CallerError(409, "endpoint_disabled", f"the endpoint is {endpoint.state}; enable it first")
