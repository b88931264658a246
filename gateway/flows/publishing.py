"""The one point at which the gateway tells what happened: events become durable with the state they tell of, then everyone is told.

Webhooks, metrics and logs hang here, as subscribers, and not off the flows.
"""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from gateway.core.event import Event, EventType
from gateway.core.payment import Method
from gateway.ports import Clock, Commit, Committed, Delivery, Done, Store

EndpointsOf = Callable[[str, EventType], Iterable[str]]


class Published(msgspec.Struct, frozen=True):
    """What has just become durable. `method` is the payment's, None where the events are not about one."""

    events: Sequence[Event]
    deliveries: Sequence[Delivery]
    method: Method | None


Subscriber = Callable[[Published], None]


class Publisher:
    def __init__(self, *, store: Store, clock: Clock, endpoints_of: EndpointsOf, subscribers: Sequence[Subscriber]) -> None:
        """`endpoints_of` gives the ids of the endpoints that a merchant's event of a type goes to."""
        self._store = store
        self._clock = clock
        self._endpoints_of = endpoints_of
        self._subscribers = subscribers

    async def commit(self, commit: Commit) -> Committed:
        """Commits, with a delivery for each endpoint that is to hear of an event; subscribers are told once that is durable."""
        if deliveries := self._deliveries(commit.events):
            commit = msgspec.structs.replace(commit, deliveries=deliveries)
        committed = await self._store.commit(commit)
        if isinstance(committed, Done) and commit.payment is not None:
            self._publish(Published(commit.events, commit.deliveries, commit.payment.method))
        elif isinstance(committed, Done) and commit.events:
            self._publish(Published(commit.events, commit.deliveries, None))
        return committed

    def _publish(self, published: Published) -> None:
        for subscriber in self._subscribers:
            subscriber(published)

    def _deliveries(self, events: Sequence[Event]) -> list[Delivery]:
        return [
            Delivery(
                endpoint_id=endpoint_id,
                subject_id=event.subject_id,
                sequence=event.sequence,
                event_id=event.id,
                state="pending",
                tries=0,
                due_at_ms=self._clock.now_ms(),
            )
            for event in events
            if event.body is not None
            for endpoint_id in self._endpoints_of(event.merchant_id, event.type)
        ]
