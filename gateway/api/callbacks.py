"""POST /api/webhooks/payment and /refund: providers call back, signed. Verified over the raw bytes before anything is read from them."""

from collections.abc import Mapping
from typing import Literal

import msgspec
import structlog
from aiohttp import web

from gateway.api import wire
from gateway.api.routing import Handler, Route
from gateway.core import signature
from gateway.core.errors import CallerError
from gateway.core.payment import Method
from gateway.flows.disbursements import Disbursements
from gateway.flows.disputes import Disputes
from gateway.flows.operations import Operations
from gateway.flows.payments import Payments
from gateway.ports import Clock

log = structlog.get_logger("gateway.api")


class CallbackBody(msgspec.Struct, frozen=True):
    """`type` says what it is about; a charge has none. The rest is the provider's: see docs/providers.md."""

    type: Literal["refund", "dispute", "authentication", "payout"] | None = None


class ReceivedData(msgspec.Struct, frozen=True):
    received: bool


RECEIVED = ReceivedData(True)

_about = msgspec.json.Decoder(CallbackBody)


def _route(path: str, handler: Handler, summary: str) -> Route:
    return Route(
        method="POST",
        path=path,
        handler=handler,
        summary=summary,
        tag="callbacks",
        takes=CallbackBody,
        gives=ReceivedData,
        errors=(400, 404, 409),
        security="signature",
    )


class CallbackHandlers:
    def __init__(
        self,
        *,
        payments: Payments,
        operations: Operations,
        disputes: Disputes,
        disbursements: Disbursements,
        keys: Mapping[Method, bytes],
        clock: Clock,
    ) -> None:
        """`keys` are the signing keys of the providers that call back."""
        self._payments = payments
        self._operations = operations
        self._disputes = disputes
        self._disbursements = disbursements
        self._keys = keys
        self._clock = clock

    def routes(self) -> list[Route]:
        return [
            _route(
                "/api/webhooks/payment",
                self.payment,
                "A provider tells how a payment, an authentication, a dispute or a payout went",
            ),
            _route("/api/webhooks/refund", self.refund, "A provider tells how a refund went"),
        ]

    async def payment(self, request: web.Request) -> web.Response:
        """What it is about is its `type`; a charge has none."""
        body = await wire.read_body(request)
        provider = self._signer(request, body)
        about = wire.decode(_about, body).type
        if about == "dispute":
            dispute = await self._disputes.callback(provider, body)
            log.info("callback.received", provider=provider, dispute_id=dispute.id, status=dispute.status)
        elif about == "payout":
            settlement = await self._disbursements.callback(provider, body)
            log.info("callback.received", provider=provider, settlement_id=settlement.id, status=settlement.state)
        elif about == "refund":
            await self._refunded(provider, body)
        else:
            flow = self._payments.attempts if about is None else self._payments.authentications
            payment = await flow.callback(provider, body)
            log.info("callback.received", provider=provider, payment_id=payment.id, status=payment.status)
        return wire.success(RECEIVED)

    async def refund(self, request: web.Request) -> web.Response:
        body = await wire.read_body(request)
        await self._refunded(self._signer(request, body), body)
        return wire.success(RECEIVED)

    async def _refunded(self, provider: Method, body: bytes) -> None:
        operation = await self._operations.callback(provider, body)
        log.info("callback.received", provider=provider, refund_id=operation.id, status=operation.state)

    def _signer(self, request: web.Request, body: bytes) -> Method:
        """The provider whose key signed this. A callback that arrives twice is harmless: see core/payment.py. Raises CallerError 401."""
        headers = request.headers
        now_s = self._clock.now_ms() // 1000
        found: Method | None = None
        for provider, key in self._keys.items():
            if signature.verifies(
                key,
                message_id=headers.get("webhook-id", ""),
                timestamp=headers.get("webhook-timestamp", ""),
                body=body,
                signatures=headers.get("webhook-signature", ""),
                now_s=now_s,
            ):
                found = provider
        if found is None:
            raise CallerError(
                401, "invalid_signature", "the signature does not verify, or its timestamp is off by more than 300 s"
            )
        return found
