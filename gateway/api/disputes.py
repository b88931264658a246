"""GET /api/disputes, GET /api/disputes/{disputeID}, POST .../accept, POST .../evidence."""

from typing import Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.api import idempotency, wire
from gateway.api.keys import Keys
from gateway.api.routing import Handler, Route
from gateway.core.dispute import Dispute, Status
from gateway.flows.disputes import Disputes
from gateway.ports import Response, Store
from gateway.runtime import rfc3339
from gateway.vault import Vault

PAGE, PAGE_MAX = 20, 100  # disputes; a page of the longest evidence is 4 MB
AFTER_ALL = "dsp_~"  # sorts after every id


class DisputeQuery(wire.Request, frozen=True, kw_only=True):
    status: Status | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = PAGE
    cursor: wire.ShortId | None = None


class AcceptRequest(wire.Request, frozen=True, kw_only=True):
    """Nothing needs to be said."""


class EvidenceRequest(wire.Request, frozen=True, kw_only=True):
    text: Annotated[str, Meta(min_length=1, max_length=10_000)]


class DisputeData(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """`responding`: what the merchant answered is on its way to the provider. `failureReason`: why the provider refused the last answer.
    An inquiry (`warning_...`) moves no money, and so is no transaction."""

    dispute_id: str = msgspec.field(name="disputeID")
    payment_id: str = msgspec.field(name="paymentID")
    transaction_id: str | None = msgspec.field(name="transactionID", default=None)
    reason: str
    status: Status
    amount: int
    currency: str
    respond_by: str
    responding: Literal["accept", "evidence"] | None = None
    evidence: str | None = None
    failure_reason: str | None = None
    created_at: str
    updated_at: str


_acceptances = msgspec.json.Decoder(AcceptRequest)
_evidence = msgspec.json.Decoder(EvidenceRequest)


class DisputeHandlers:
    def __init__(self, *, disputes: Disputes, store: Store, keys: Keys, vault: Vault) -> None:
        self._disputes = disputes
        self._store = store
        self._keys = keys
        self._vault = vault

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/api/disputes",
                handler=self.list,
                summary="Disputes, the newest first",
                tag="disputes",
                query=DisputeQuery,
                gives=DisputeData,
                listed=True,
            ),
            Route(
                method="GET",
                path="/api/disputes/{disputeID}",
                handler=self.get,
                summary="A dispute",
                tag="disputes",
                gives=DisputeData,
                errors=(404,),
            ),
            _response("accept", self.accept, "Give in", AcceptRequest),
            _response("evidence", self.evidence, "Answer; the issuer decides", EvidenceRequest),
        ]

    async def list(self, request: web.Request) -> web.Response:
        merchant_id = self._keys.merchant(request)
        asked = wire.query(request, DisputeQuery)
        before_id = asked.cursor or AFTER_ALL
        found = self._store.disputes(merchant_id, status=asked.status, before_id=before_id, limit=asked.limit + 1)
        page = found[: asked.limit]
        more = page[-1].id if len(found) > len(page) else None
        return wire.listed([dispute_data(dispute) for dispute in page], wire.Pagination(asked.limit, more))

    async def get(self, request: web.Request) -> web.Response:
        dispute = self._disputes.dispute(self._keys.merchant(request), request.match_info["disputeID"])
        return wire.success(dispute_data(dispute))

    async def accept(self, request: web.Request) -> web.Response:
        merchant_id = self._keys.merchant(request)
        body = await wire.read_optional_body(request)
        wire.decode(_acceptances, body)
        return await self._respond(request, merchant_id, body, None)

    async def evidence(self, request: web.Request) -> web.Response:
        merchant_id = self._keys.merchant(request)
        body = await wire.read_body(request)
        return await self._respond(request, merchant_id, body, wire.decode(_evidence, body).text)

    async def _respond(self, request: web.Request, merchant_id: str, body: bytes, evidence: str | None) -> web.Response:
        key = idempotency.key_of(request, merchant_id, body, self._vault)
        response = await self._disputes.respond(merchant_id, request.match_info["disputeID"], evidence, key, _render)
        return wire.json_response(response.body, response.status)


def _response(name: str, handler: Handler, summary: str, takes: type[msgspec.Struct]) -> Route:
    return Route(
        method="POST",
        path="/api/disputes/{disputeID}/" + name,
        handler=handler,
        summary=summary,
        tag="disputes",
        takes=takes,
        gives=DisputeData,
        errors=(404, 409),
        idempotent=True,
    )


def dispute_data(dispute: Dispute) -> DisputeData:
    return DisputeData(
        dispute_id=dispute.id,
        payment_id=dispute.payment_id,
        transaction_id=None if dispute.status.startswith("warning") else dispute.transaction_id,
        reason=dispute.reason,
        status=dispute.status,
        amount=dispute.amount_minor,
        currency=dispute.currency,
        respond_by=rfc3339(dispute.respond_by_ms),
        responding=dispute.responding,
        evidence=dispute.evidence,
        failure_reason=dispute.failure_reason,
        created_at=rfc3339(dispute.created_at_ms),
        updated_at=rfc3339(dispute.updated_at_ms),
    )


def _render(dispute: Dispute) -> Response:
    return Response(200, wire.encode(wire.Success(True, dispute_data(dispute))))
