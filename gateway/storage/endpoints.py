"""Webhook endpoints in rows, and what merchants read of their events and deliveries."""

from typing import Any

import apsw
import msgspec

from gateway.core.endpoint import Endpoint
from gateway.core.event import Event, EventType
from gateway.ports import Delivery, DeliveryState
from gateway.storage import rows

WRITE_ENDPOINT = "INSERT OR REPLACE INTO endpoints VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
BURY_MAX = 500  # deliveries a transaction: a dead receiver's backlog can be a million, and payments wait meanwhile
BURY = (
    "UPDATE deliveries SET state='dead', due_at_ms=NULL,"
    " last_error=coalesce((SELECT 'endpoint ' || state FROM endpoints WHERE id=endpoint_id), 'endpoint removed')"
    " WHERE endpoint_id=:endpoint AND (subject_id, sequence) IN (SELECT subject_id, sequence FROM deliveries"
    " WHERE endpoint_id=:endpoint AND due_at_ms IS NOT NULL LIMIT :most)"
)
# From one endpoint to the next: the index has few of them, with many deliveries each.
_WAITED_FOR = (
    "WITH RECURSIVE waited(id) AS (SELECT min(endpoint_id) FROM deliveries WHERE due_at_ms IS NOT NULL UNION ALL"
    " SELECT (SELECT min(endpoint_id) FROM deliveries WHERE endpoint_id>waited.id AND due_at_ms IS NOT NULL) FROM waited"
    " WHERE waited.id IS NOT NULL)"
    " SELECT id FROM waited WHERE id NOT IN (SELECT id FROM endpoints WHERE state IN ('enabled', 'disabled'))"
)

_encode = msgspec.json.Encoder().encode
_decode_events = msgspec.json.Decoder(tuple[str, ...]).decode


def gone(connection: apsw.Connection) -> list[str]:
    """The endpoints with pending deliveries that are gone, deleted, or not known."""
    return [endpoint_id for (endpoint_id,) in connection.execute(_WAITED_FOR)]


def endpoint_row(e: Endpoint) -> rows.Row:
    return (
        e.id, e.merchant_id, e.url, _encode(e.events).decode(), e.description, e.state, e.secret, e.old_secret, e.old_secret_until_ms,
        e.configured, e.created_at_ms, e.updated_at_ms,
    )  # fmt: skip


def endpoint(row: rows.Row) -> Endpoint:
    made = dict(zip(Endpoint.__struct_fields__, row, strict=True))
    return Endpoint(**made | {"events": _decode_events(made["events"])})


class EventsAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Which of a merchant's published events. `before` (time, subject, sequence) is one of them: those that are older follow."""

    merchant_id: str
    type: EventType | None = None
    payment_id: str | None = None
    state: DeliveryState | None = None
    endpoint_id: str | None = None
    before: tuple[int, str, int] | None = None
    limit: int


class SentEvent(msgspec.Struct, frozen=True):
    event: Event
    deliveries: list[Delivery]


class SentPage(msgspec.Struct, frozen=True):
    """`next` is the id of the event after which more may follow, None on the last page."""

    events: list[SentEvent]
    next: str | None


SCAN_MAX = 5_000  # about 10 ms; 100 ms where the deliveries of each have to be looked at
_BEFORE = "(created_at_ms, subject_id, sequence) < (:at_ms, :subject, :sequence)"
_NEWEST = "ORDER BY created_at_ms DESC, subject_id DESC, sequence DESC"

_TO = "endpoint_id IN (SELECT id FROM endpoints WHERE merchant_id=:merchant AND id=ifnull(:endpoint, id))"
_SENT = f"SELECT 1 FROM deliveries d WHERE d.{_TO} AND d.subject_id=e.subject_id AND d.sequence=e.sequence"  # noqa: S608 - constants
# Few deliveries are pending or dead, and each of these states has an index of its own: they are the outer loop.
_FEW = {"pending": f"due_at_ms IS NOT NULL AND {_TO}", "dead": f"state='dead' AND {_TO}"}


def events(connection: apsw.Connection, asked: EventsAsked) -> SentPage:
    """The newest first, with their deliveries: up to `limit`. The merchant's index does not know the filters: where it is gone through, no
    further than SCAN_MAX events, so that the page may be shorter than asked for, or empty, though more follow."""
    few = _FEW.get(asked.state or "")
    filtered = asked.type is not None or asked.state is not None or asked.endpoint_id is not None
    floor = _floor(connection, asked) if filtered and few is None and asked.payment_id is None else None
    found = _events(connection, asked, few, floor)
    page = found[: asked.limit]
    more = page[-1] if len(found) > len(page) else floor
    return SentPage([with_deliveries(connection, event) for event in page], None if more is None else more.id)


def _floor(connection: apsw.Connection, asked: EventsAsked) -> Event | None:
    """The last event to look at; None if there are fewer."""
    terms = ["merchant_id=:merchant", "body IS NOT NULL", *[_BEFORE] * (asked.before is not None)]
    sql = f"SELECT * FROM events WHERE {' AND '.join(terms)} {_NEWEST} LIMIT 1 OFFSET {SCAN_MAX - 1}"  # noqa: S608 - constants
    row = connection.execute(sql, _bindings(asked, None)).fetchone()
    return rows.event(row) if row else None


def _events(connection: apsw.Connection, asked: EventsAsked, few: str | None, floor: Event | None) -> list[Event]:
    """One more than the page holds, if there is one."""
    source = "events e"
    if few is not None:
        source = f"(SELECT DISTINCT subject_id, sequence FROM deliveries WHERE {few}) f CROSS JOIN events e USING (subject_id, sequence)"  # noqa: S608 - constants
    # The plus keeps the merchant's index out where another way leads to fewer rows.
    having = [f"{'+' if few or asked.payment_id else ''}e.merchant_id=:merchant", "e.body IS NOT NULL"]
    having += ["e.type=:type"] * (asked.type is not None)
    having += ["e.subject_id=:payment"] * (asked.payment_id is not None)
    if few is None and asked.state is not None:
        having.append(f"EXISTS ({_SENT} AND d.state=:state)")
    elif few is None and asked.endpoint_id is not None:
        having.append(f"EXISTS ({_SENT})")
    having += [_BEFORE] * (asked.before is not None)
    having += ["(created_at_ms, subject_id, sequence) >= (:floor_ms, :floor_subject, :floor_sequence)"] * (floor is not None)
    sql = f"SELECT e.* FROM {source} WHERE {' AND '.join(having)} {_NEWEST} LIMIT :limit"  # noqa: S608 - constants
    return [rows.event(row) for row in connection.execute(sql, _bindings(asked, floor))]


def _bindings(asked: EventsAsked, floor: Event | None) -> dict[str, Any]:
    at_ms, subject, sequence = asked.before or (None, None, None)
    return {
        "merchant": asked.merchant_id,
        "endpoint": asked.endpoint_id,
        "type": asked.type,
        "payment": asked.payment_id,
        "state": asked.state,
        "at_ms": at_ms,
        "subject": subject,
        "sequence": sequence,
        "limit": asked.limit + 1,
        "floor_ms": floor and floor.created_at_ms,
        "floor_subject": floor and floor.subject_id,
        "floor_sequence": floor and floor.sequence,
    }


def with_deliveries(connection: apsw.Connection, event: Event) -> SentEvent:
    """With those to endpoints that its merchant has or had."""
    sql = (
        "SELECT d.* FROM endpoints p CROSS JOIN deliveries d ON d.endpoint_id=p.id AND d.subject_id=? AND d.sequence=?"
        " WHERE p.merchant_id=? ORDER BY p.id"
    )
    found = connection.execute(sql, (event.subject_id, event.sequence, event.merchant_id)).fetchall()
    return SentEvent(event, [rows.delivery(row) for row in found])
