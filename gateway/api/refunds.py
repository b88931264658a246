"""POST /api/refunds/process, GET /api/refunds/{refundID}/status."""

import msgspec
from aiohttp import web

from gateway.api import idempotency, wire
from gateway.api.captures import Amount
from gateway.api.keys import Keys
from gateway.api.routing import Route
from gateway.core.errors import CallerError
from gateway.core.operation import Operation, State
from gateway.core.payment import Payment
from gateway.flows.operations import Ask, Operations
from gateway.ports import Response
from gateway.runtime import rfc3339
from gateway.vault import Vault


class RefundRequest(wire.Request, frozen=True, kw_only=True):
    """Without `amount` all that can be refunded is."""

    payment_id: wire.ShortId = msgspec.field(name="paymentID")
    amount: Amount | None = None
    reason: wire.Text | None = None
    merchant_id: wire.ShortId | None = msgspec.field(name="merchantID", default=None)


class RefundData(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """`processing`: the provider has taken it and will tell how it ended. `unknown`: it did not answer; it is asked again until it does."""

    refund_id: str = msgspec.field(name="refundID")
    payment_id: str = msgspec.field(name="paymentID")
    transaction_id: str = msgspec.field(name="transactionID")
    status: State
    amount: int
    currency: str
    reason: str | None = None
    failure_reason: str | None = None
    decline_code: str | None = None
    created_at: str
    updated_at: str


_decoder = msgspec.json.Decoder(RefundRequest)


class RefundHandlers:
    def __init__(self, *, operations: Operations, keys: Keys, vault: Vault) -> None:
        self._operations = operations
        self._keys = keys
        self._vault = vault

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path="/api/refunds/process",
                handler=self.process,
                summary="Give back what was taken, in whole or in part",
                tag="refunds",
                takes=RefundRequest,
                gives=RefundData,
                status=201,
                errors=(403, 404, 409),
                idempotent=True,
            ),
            Route(
                method="GET",
                path="/api/refunds/{refundID}/status",
                handler=self.status,
                summary="How a refund stands",
                tag="refunds",
                gives=RefundData,
                errors=(404,),
            ),
        ]

    async def process(self, request: web.Request) -> web.Response:
        merchant_id = self._keys.merchant(request)
        body = await wire.read_body(request)
        asked = wire.decode(_decoder, body)
        if asked.merchant_id not in (None, merchant_id):
            raise CallerError(403, "wrong_merchant", "merchantID: this API key belongs to another merchant", "merchantID")
        ask = Ask(
            kind="refund",
            merchant_id=merchant_id,
            payment_id=asked.payment_id,
            amount_minor=asked.amount,
            note=asked.reason,
        )
        key = idempotency.key_of(request, merchant_id, body, self._vault)
        response = await self._operations.perform(ask, key, _render)
        return wire.json_response(response.body, response.status)

    async def status(self, request: web.Request) -> web.Response:
        refund = self._operations.refund(self._keys.merchant(request), request.match_info["refundID"])
        return wire.success(refund_data(refund))


def refund_data(refund: Operation) -> RefundData:
    return RefundData(
        refund_id=refund.id,
        payment_id=refund.payment_id,
        transaction_id=refund.transaction_id,
        status=refund.state,
        amount=refund.amount_minor,
        currency=refund.currency,
        reason=refund.note,
        failure_reason=refund.failure_reason,
        decline_code=refund.response_code if refund.state == "failed" else None,
        created_at=rfc3339(refund.created_at_ms),
        updated_at=rfc3339(refund.updated_at_ms),
    )


def _render(_payment: Payment, refund: Operation) -> Response:
    return Response(201, wire.encode(wire.Success(True, refund_data(refund))))
