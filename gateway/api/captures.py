"""POST /api/payments/{paymentID}/capture, POST /api/payments/{paymentID}/void."""

from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.api import idempotency, wire
from gateway.api.keys import Keys
from gateway.api.payments import PaymentData, payment_data
from gateway.api.routing import Route
from gateway.core import money
from gateway.core.operation import Operation, State
from gateway.core.payment import Payment
from gateway.flows.operations import Ask, Operations
from gateway.flows.payments import Payments
from gateway.ports import Response
from gateway.runtime import rfc3339
from gateway.vault import Vault

Amount = Annotated[int, Meta(ge=1, le=money.AMOUNT_MINOR_MAX)]


class CaptureRequest(wire.Request, frozen=True, kw_only=True):
    """Without `amount` all that is left is taken. `final` releases what is left after this capture."""

    amount: Amount | None = None
    final: bool = False


class VoidRequest(wire.Request, frozen=True, kw_only=True):
    """Nothing needs to be said."""


class CaptureData(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """`unknown`: the provider did not answer; it is asked again until it does."""

    capture_id: str = msgspec.field(name="captureID")
    status: State
    amount: int
    currency: str
    final: bool
    failure_reason: str | None = None
    decline_code: str | None = None
    created_at: str
    updated_at: str


class CapturedPaymentData(PaymentData, frozen=True, omit_defaults=True, kw_only=True):
    """The payment as the capture left it."""

    capture: CaptureData


_captures = msgspec.json.Decoder(CaptureRequest)
_voids = msgspec.json.Decoder(VoidRequest)


class CaptureHandlers:
    def __init__(self, *, payments: Payments, operations: Operations, keys: Keys, vault: Vault) -> None:
        self._payments = payments
        self._operations = operations
        self._keys = keys
        self._vault = vault

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path="/api/payments/{paymentID}/capture",
                handler=self.capture,
                summary="Take what is authorized, in whole or in part",
                tag="payments",
                takes=CaptureRequest,
                gives=CapturedPaymentData,
                errors=(404, 409),
                idempotent=True,
            ),
            Route(
                method="POST",
                path="/api/payments/{paymentID}/void",
                handler=self.void,
                summary="Release what is authorized, or cancel what waits for the customer",
                tag="payments",
                takes=VoidRequest,
                gives=PaymentData,
                errors=(404, 409),
                idempotent=True,
            ),
        ]

    async def capture(self, request: web.Request) -> web.Response:
        merchant_id = self._keys.merchant(request)
        body = await wire.read_optional_body(request)
        asked = wire.decode(_captures, body)
        ask = Ask(
            kind="capture",
            merchant_id=merchant_id,
            payment_id=request.match_info["paymentID"],
            amount_minor=asked.amount,
            final=asked.final,
        )
        key = idempotency.key_of(request, merchant_id, body, self._vault)
        response = await self._operations.perform(ask, key, _render_capture)
        return wire.json_response(response.body, response.status)

    async def void(self, request: web.Request) -> web.Response:
        merchant_id = self._keys.merchant(request)
        body = await wire.read_optional_body(request)
        wire.decode(_voids, body)
        key = idempotency.key_of(request, merchant_id, body, self._vault)
        response = await self._payments.void(merchant_id, request.match_info["paymentID"], key, _render_void)
        return wire.json_response(response.body, response.status)


def capture_data(capture: Operation) -> CaptureData:
    return CaptureData(
        capture_id=capture.id,
        status=capture.state,
        amount=capture.amount_minor,
        currency=capture.currency,
        final=capture.final,
        failure_reason=capture.failure_reason,
        decline_code=capture.response_code if capture.state == "failed" else None,
        created_at=rfc3339(capture.created_at_ms),
        updated_at=rfc3339(capture.updated_at_ms),
    )


def _render_capture(payment: Payment, capture: Operation) -> Response:
    data = CapturedPaymentData(**msgspec.structs.asdict(payment_data(payment, updated=True)), capture=capture_data(capture))
    return Response(200, wire.encode(wire.Success(True, data)))


def _render_void(payment: Payment) -> Response:
    return Response(200, wire.encode(wire.Success(True, payment_data(payment, updated=True))))
