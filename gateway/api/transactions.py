"""GET /api/transactions/{transactionID}."""

import msgspec
from aiohttp import web

from gateway.api import wire
from gateway.api.middleware import Keys
from gateway.flows.payments import Payments
from gateway.runtime import rfc3339


class TransactionData(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    transaction_id: str = msgspec.field(name="transactionID")
    payment_id: str = msgspec.field(name="paymentID")
    type: str
    amount: int
    currency: str
    status: str
    created_at: str
    updated_at: str


class TransactionHandlers:
    def __init__(self, *, payments: Payments, keys: Keys) -> None:
        self._payments = payments
        self._keys = keys

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/api/transactions/{transactionID}", self.get)]

    async def get(self, request: web.Request) -> web.Response:
        found = self._payments.transaction(self._keys.merchant(request), request.match_info["transactionID"])
        return wire.success(
            TransactionData(
                transaction_id=found.id,
                payment_id=found.payment_id,
                type=found.type,
                amount=found.amount_minor,
                currency=found.currency,
                status=found.status,
                created_at=rfc3339(found.created_at_ms),
                updated_at=rfc3339(found.updated_at_ms),
            )
        )
