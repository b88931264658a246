"""POST /api/webhooks/payment: providers call back, signed. Verified over the raw bytes before anything is read from them."""

from collections.abc import Mapping

import structlog
from aiohttp import web

from gateway.api import wire
from gateway.core import signature
from gateway.core.errors import CallerError
from gateway.core.payment import Method
from gateway.flows.payments import Payments
from gateway.ports import Clock

log = structlog.get_logger("gateway.api")


class CallbackHandlers:
    def __init__(self, *, payments: Payments, keys: Mapping[Method, bytes], clock: Clock) -> None:
        """`keys` are the signing keys of the providers that call back."""
        self._payments = payments
        self._keys = keys
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/api/webhooks/payment", self.payment)]

    async def payment(self, request: web.Request) -> web.Response:
        body = await wire.read_body(request)
        provider = self._signer(request, body)
        payment = await self._payments.callback(provider, body)
        log.info("callback.received", provider=provider, payment_id=payment.id, status=payment.status)
        return wire.success({"received": True})

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
