"""GET /api/reconciliation/breaks, POST /api/reconciliation/breaks/{breakID}/resolve: the operator's, and each merchant's own."""

import datetime
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.api import idempotency, wire
from gateway.api.keys import Keys
from gateway.api.reconciliation import OPERATOR_CLAIMS, PAGE, PAGE_MAX
from gateway.api.routing import Route
from gateway.core.breaks import OPERATOR, Break
from gateway.core.payment import Method
from gateway.core.reconciliation import Kind, Status
from gateway.flows.reconciliation import Reconciliation
from gateway.ports import Response
from gateway.runtime import rfc3339
from gateway.storage.reconciliation import BreaksAsked
from gateway.vault import Vault


class BreakQuery(wire.Request, frozen=True, kw_only=True):
    kind: Kind | None = None
    status: Status | None = None
    provider: Method | None = None
    date: datetime.date | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = PAGE
    cursor: Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}:[A-Za-z0-9_]{1,64}$" + wire.END)] | None = None


class ResolveRequest(wire.Request, frozen=True, kw_only=True):
    note: Annotated[str, Meta(min_length=1, max_length=1_000)]


class NoteData(msgspec.Struct, frozen=True, rename="camel"):
    at: str
    by: str
    status: Status
    kind: Kind
    note: str


class BreakData(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """Amounts are signed as the merchant sees them: `expected` is what our books have, `actual` what the provider's file has.
    `foundDate`: the day of the file that it was found in, where that is not the day that it belongs to."""

    break_id: str = msgspec.field(name="breakID")
    run_id: str = msgspec.field(name="runID")
    provider: Method
    date: str
    kind: Kind
    status: Status
    type: str
    reference: str
    subject: str | None = None
    currency: str
    expected_amount: int | None = None
    actual_amount: int | None = None
    expected_fee: int | None = None
    actual_fee: int | None = None
    merchant_id: str | None = msgspec.field(name="merchantID", default=None)
    payment_id: str | None = msgspec.field(name="paymentID", default=None)
    provider_id: str | None = msgspec.field(name="providerID", default=None)
    found_date: str | None = None
    resolved_by: str | None = None
    at: str
    created_at: str
    updated_at: str
    history: list[NoteData]


_resolutions = msgspec.json.Decoder(ResolveRequest)


class BreakHandlers:
    def __init__(self, *, reconciliation: Reconciliation, keys: Keys, vault: Vault) -> None:
        self._reconciliation = reconciliation
        self._keys = keys
        self._vault = vault

    def routes(self) -> list[Route]:
        root, tag = "/api/reconciliation/breaks", "reconciliation"
        return [
            Route(
                method="GET",
                path=root,
                handler=self.breaks,
                summary="Breaks, the newest day first",
                tag=tag,
                query=BreakQuery,
                gives=BreakData,
                listed=True,
            ),
            Route(
                method="GET",
                path=root + "/{breakID}",
                handler=self.get_break,
                summary="A break, with its history",
                tag=tag,
                gives=BreakData,
                errors=(404,),
            ),
            Route(
                method="POST",
                path=root + "/{breakID}/resolve",
                handler=self.resolve,
                summary="Resolve a break, with a note that says how",
                tag=tag,
                takes=ResolveRequest,
                gives=BreakData,
                errors=(404, 409),
                idempotent=True,
            ),
        ]

    async def breaks(self, request: web.Request) -> web.Response:
        merchant_id = self._keys.caller(request)
        asked = wire.query(request, BreakQuery)
        day, _, break_id = (asked.cursor or "").partition(":")
        found = await self._reconciliation.breaks(
            BreaksAsked(
                merchant_id=merchant_id,
                kind=asked.kind,
                status=asked.status,
                provider=asked.provider,
                date=None if asked.date is None else asked.date.isoformat(),
                before=(day, break_id) if asked.cursor else None,
                limit=asked.limit + 1,
            )
        )
        page = found[: asked.limit]
        more = f"{page[-1].date}:{page[-1].id}" if len(found) > len(page) else None
        return wire.listed([break_data(one) for one in page], wire.Pagination(asked.limit, more))

    async def get_break(self, request: web.Request) -> web.Response:
        merchant_id = self._keys.caller(request)
        return wire.success(break_data(await self._reconciliation.break_(merchant_id, request.match_info["breakID"])))

    async def resolve(self, request: web.Request) -> web.Response:
        merchant_id = self._keys.caller(request)
        body = await wire.read_body(request)
        note = wire.decode(_resolutions, body).note
        key = idempotency.key_of(request, merchant_id or OPERATOR_CLAIMS, body, self._vault)
        by, break_id = merchant_id or OPERATOR, request.match_info["breakID"]
        response = await self._reconciliation.resolve(by, merchant_id, break_id, note, key, _render_break)
        return wire.json_response(response.body, response.status)


def break_data(one: Break) -> BreakData:
    return BreakData(
        break_id=one.id,
        run_id=one.run_id,
        provider=one.provider,
        date=one.date,
        kind=one.kind,
        status=one.status,
        type=one.type,
        reference=one.reference,
        subject=one.subject or None,
        currency=one.currency,
        expected_amount=one.expected_minor,
        actual_amount=one.actual_minor,
        expected_fee=one.expected_fee_minor,
        actual_fee=one.actual_fee_minor,
        merchant_id=one.merchant_id or None,
        payment_id=one.payment_id,
        provider_id=one.provider_id,
        found_date=one.found_date,
        resolved_by=one.resolved_by,
        at=rfc3339(one.at_ms),
        created_at=rfc3339(one.created_at_ms),
        updated_at=rfc3339(one.updated_at_ms),
        history=[NoteData(rfc3339(note.at_ms), note.by, note.status, note.kind, note.note) for note in one.history],
    )


def _render_break(one: Break) -> Response:
    return Response(200, wire.encode(wire.Success(True, break_data(one))))
