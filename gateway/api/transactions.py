"""GET /api/transactions, GET /api/transactions/merchant/{merchantID}, GET /api/transactions/{transactionID}."""

import base64
import re
from functools import partial
from typing import Annotated, Literal, get_args

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.api import wire
from gateway.api.instants import Instant, instant_ms
from gateway.api.keys import Keys
from gateway.api.routing import Handler, Route
from gateway.core.errors import CallerError, invalid
from gateway.core.operation import State
from gateway.core.payment import Method
from gateway.core.payment import Status as PaymentStatus
from gateway.flows.payments import Payments
from gateway.ports import Store, Transaction, TransactionType
from gateway.runtime import rfc3339
from gateway.storage import listing
from gateway.storage.listing import Filter, Position

PAGE, PAGE_MAX = 20, 100
OFFSET_MAX = 10_000  # skipping costs as much as showing; by cursor there is no end

# A payment's, a refund's, or that of a dispute that moved money.
Status = Literal[PaymentStatus, State, "needs_response", "under_review", "won", "lost"]


class MerchantQuery(wire.Request, frozen=True, kw_only=True):
    """By `offset`, with the total, or by `cursor`, which costs the same on every page; empty, it begins at the newest. `from` is
    included, `to` is not; both are about when the transaction was created."""

    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = PAGE
    offset: Annotated[int, Meta(ge=0, le=OFFSET_MAX)] | None = None
    cursor: Annotated[str, Meta(max_length=100)] | None = None
    type: TransactionType | None = None
    status: Status | None = None
    method: Method | None = None
    from_: Instant | None = msgspec.field(name="from", default=None)
    to: Instant | None = None


class TransactionQuery(MerchantQuery, frozen=True, kw_only=True):
    merchant_id: wire.ShortId | None = msgspec.field(name="merchantID", default=None)


class TransactionData(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    transaction_id: str = msgspec.field(name="transactionID")
    payment_id: str = msgspec.field(name="paymentID")
    merchant_id: str = msgspec.field(name="merchantID")
    type: TransactionType
    payment_method: Method
    amount: int
    currency: str
    status: Annotated[str, Meta(extra_json_schema={"enum": list(dict.fromkeys(get_args(Status)))})]
    created_at: str
    updated_at: str


class TransactionHandlers:
    def __init__(self, *, payments: Payments, store: Store, keys: Keys) -> None:
        self._payments = payments
        self._store = store
        self._keys = keys

    def routes(self) -> list[Route]:
        return [
            _list("/api/transactions", self.list, "Money movements, the newest first", TransactionQuery),
            _list("/api/transactions/merchant/{merchantID}", self.list_of, "The same, of the merchant named", MerchantQuery),
            Route(
                method="GET",
                path="/api/transactions/{transactionID}",
                handler=self.get,
                summary="A money movement",
                tag="transactions",
                gives=TransactionData,
                errors=(404,),
            ),
        ]

    async def list(self, request: web.Request) -> web.Response:
        merchant_id = self._keys.merchant(request)
        asked = wire.query(request, TransactionQuery)
        return await self._page(merchant_id, asked.merchant_id, asked)

    async def list_of(self, request: web.Request) -> web.Response:
        merchant_id = self._keys.merchant(request)
        return await self._page(merchant_id, request.match_info["merchantID"], wire.query(request, MerchantQuery))

    async def get(self, request: web.Request) -> web.Response:
        found = self._payments.transaction(self._keys.merchant(request), request.match_info["transactionID"])
        return wire.success(_data(found))

    async def _page(self, merchant_id: str, named: str | None, asked: MerchantQuery) -> web.Response:
        if named not in (None, merchant_id):
            raise CallerError(403, "wrong_merchant", "merchantID: this API key belongs to another merchant", "merchantID")
        if asked.cursor is not None and asked.offset is not None:
            raise invalid("cursor", "does not go with offset")
        wanted = _filter(merchant_id, asked)
        if asked.cursor is not None:
            work = partial(listing.after, asked=wanted, position=_position(asked.cursor), limit=asked.limit)
        else:
            work = partial(listing.at, asked=wanted, offset=asked.offset or 0, limit=asked.limit)
        page = await self._store.read(work)
        pagination = wire.Pagination(
            limit=asked.limit,
            next_cursor=_cursor(page.next) if page.next else None,
            offset=None if asked.cursor is not None else asked.offset or 0,
            total=page.total,
            has_more=page.next is not None,
        )
        return wire.listed([_data(transaction) for transaction in page.transactions], pagination)


def _list(path: str, handler: Handler, summary: str, query: type[MerchantQuery]) -> Route:
    return Route(
        method="GET",
        path=path,
        handler=handler,
        summary=summary,
        tag="transactions",
        query=query,
        gives=TransactionData,
        listed=True,
        errors=(403,),
    )


def _filter(merchant_id: str, asked: MerchantQuery) -> Filter:
    from_ms = -listing.END_MS if asked.from_ is None else instant_ms("from", asked.from_)
    to_ms = listing.END_MS if asked.to is None else instant_ms("to", asked.to)
    if from_ms >= to_ms:
        raise invalid("to", "must be later than from")
    return Filter(
        merchant_id=merchant_id, type=asked.type, status=asked.status, method=asked.method, from_ms=from_ms, to_ms=to_ms
    )


# A cursor says where the last page ended. It is no secret and gives no rights, as the key says whose transactions are listed; opaque, so
# that nobody builds on what is in it.
_CURSOR = re.compile(r"(?P<at_ms>[0-9]{1,15})\.(?P<serial>[0-9a-f]{32})")


def _cursor(position: Position) -> str:
    return base64.urlsafe_b64encode(f"{position.created_at_ms}.{position.serial}".encode()).decode().rstrip("=")


def _position(cursor: str) -> Position | None:
    """Raises CallerError 400 for what we did not give out."""
    if not cursor:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except ValueError:
        text = ""
    read = _CURSOR.fullmatch(text)
    if read is None:
        raise invalid("cursor", "give the nextCursor of the page before, as it is")
    return Position(int(read["at_ms"]), read["serial"])


def _data(transaction: Transaction) -> TransactionData:
    return TransactionData(
        transaction_id=transaction.id,
        payment_id=transaction.payment_id,
        merchant_id=transaction.merchant_id,
        type=transaction.type,
        payment_method=transaction.method,
        amount=transaction.amount_minor,
        currency=transaction.currency,
        status=transaction.status,
        created_at=rfc3339(transaction.created_at_ms),
        updated_at=rfc3339(transaction.updated_at_ms),
    )
