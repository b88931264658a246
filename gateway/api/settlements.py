"""GET /api/settlements/daily, POST /api/settlements/process, GET /api/settlements/{settlementID} and its entries."""

import datetime
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.api import idempotency, wire
from gateway.api.keys import Keys
from gateway.api.routing import Route
from gateway.core.errors import CallerError
from gateway.core.payment import Method
from gateway.core.settlement import Line, Payout, Settlement, State
from gateway.flows.settlements import Settlements
from gateway.ports import Response
from gateway.runtime import rfc3339
from gateway.storage.settlements import Movement
from gateway.vault import Vault

PAGE, PAGE_MAX = 100, 1_000  # entries


class DailyQuery(wire.Request, frozen=True, kw_only=True):
    """`date` is a day in the merchant's time zone."""

    merchant_id: wire.ShortId = msgspec.field(name="merchantID")
    date: datetime.date


class SettleRequest(wire.Request, frozen=True, kw_only=True):
    """`date` is a day in the merchant's time zone that is over."""

    merchant_id: wire.ShortId = msgspec.field(name="merchantID")
    date: datetime.date


class EntryQuery(wire.Request, frozen=True, kw_only=True):
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = PAGE
    cursor: wire.ShortId | None = None


class LineData(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What one provider moved. `net` is captured - fees - refunds - chargebacks. A refund that failed after all, and a chargeback that was
    won, are subtracted, and counted as movements of their own."""

    provider: Method
    captured: int
    fees: int
    refunds: int
    chargebacks: int
    net: int
    capture_count: int
    refund_count: int
    chargeback_count: int


class PayoutData(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """`reference` is ours at the bank, `utr` the payment network's. A settlement that is paid again has another reference."""

    reference: str
    account: str
    ifsc: str
    provider_id: str | None = msgspec.field(name="providerID", default=None)
    utr: str | None = None


class SettlementData(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """`totalAmount` is what is paid out: `openingBalance` (what the settlement before left below zero) + `net`. If that is below zero,
    nothing is paid, and it is `carriedForward` to the next settlement. `reason` says why nothing was, or could be, paid."""

    settlement_id: str = msgspec.field(name="settlementID")
    merchant_id: str = msgspec.field(name="merchantID")
    date: str
    timezone: str
    ends_at: str
    currency: str
    status: State
    reason: str | None = None
    total_amount: int
    transaction_count: int
    opening_balance: int
    captured: int
    fees: int
    refunds: int
    chargebacks: int
    net: int
    carried_forward: int
    lines: list[LineData]
    payout: PayoutData | None = None
    created_at: str
    updated_at: str


class UnsettledData(msgspec.Struct, frozen=True, rename="camel"):
    currency: str
    net: int
    transaction_count: int


class ProcessedData(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A settlement for each currency; none, if nothing moved."""

    merchant_id: str = msgspec.field(name="merchantID")
    date: str
    timezone: str
    settlements: list[SettlementData]


class DailyData(ProcessedData, frozen=True, rename="camel", kw_only=True):
    """`unsettled` is what was booked up to the end of that day, or up to now, and is in no settlement."""

    unsettled: list[UnsettledData]


class EntryData(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Of captures: `gross` - `fee` = `net`. Refunds and chargebacks are negative, what came back of them is positive."""

    entry_id: str = msgspec.field(name="entryID")
    payment_id: str = msgspec.field(name="paymentID")
    type: Literal["capture", "refund", "chargeback"]
    provider: Method
    gross: int
    fee: int
    net: int
    created_at: str


_decoder = msgspec.json.Decoder(SettleRequest)


class SettlementHandlers:
    def __init__(self, *, settlements: Settlements, keys: Keys, vault: Vault) -> None:
        self._settlements = settlements
        self._keys = keys
        self._vault = vault

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/api/settlements/daily",
                handler=self.daily,
                summary="A day's settlements, and what is not settled yet",
                tag="settlements",
                query=DailyQuery,
                gives=DailyData,
                errors=(403,),
            ),
            Route(
                method="POST",
                path="/api/settlements/process",
                handler=self.process,
                summary="Settle a day, and pay; again, if the payout has failed",
                tag="settlements",
                takes=SettleRequest,
                gives=ProcessedData,
                status=201,
                errors=(403, 409),
                idempotent=True,
            ),
            Route(
                method="GET",
                path="/api/settlements/{settlementID}",
                handler=self.get,
                summary="A settlement",
                tag="settlements",
                gives=SettlementData,
                errors=(404,),
            ),
            Route(
                method="GET",
                path="/api/settlements/{settlementID}/entries",
                handler=self.entries,
                summary="The entries of the ledger that a settlement consists of",
                tag="settlements",
                query=EntryQuery,
                gives=EntryData,
                listed=True,
                errors=(404,),
            ),
        ]

    async def daily(self, request: web.Request) -> web.Response:
        merchant_id = self._keys.merchant(request)
        asked = wire.query(request, DailyQuery)
        _check_merchant(asked.merchant_id, merchant_id)
        unsettled = await self._settlements.unsettled(merchant_id, asked.date)
        return wire.success(
            DailyData(
                merchant_id=merchant_id,
                date=asked.date.isoformat(),
                timezone=self._settlements.timezone(merchant_id),
                settlements=[settlement_data(found) for found in self._settlements.on(merchant_id, asked.date)],
                unsettled=[UnsettledData(*balance) for balance in unsettled],
            )
        )

    async def process(self, request: web.Request) -> web.Response:
        merchant_id = self._keys.merchant(request)
        body = await wire.read_body(request)
        asked = wire.decode(_decoder, body)
        _check_merchant(asked.merchant_id, merchant_id)
        timezone = self._settlements.timezone(merchant_id)

        def render(settlements: Sequence[Settlement]) -> Response:
            data = ProcessedData(
                merchant_id=merchant_id,
                date=asked.date.isoformat(),
                timezone=timezone,
                settlements=[settlement_data(settlement) for settlement in settlements],
            )
            return Response(201, wire.encode(wire.Success(True, data)))

        key = idempotency.key_of(request, merchant_id, body, self._vault)
        response = await self._settlements.process(merchant_id, asked.date, key, render)
        return wire.json_response(response.body, response.status)

    async def get(self, request: web.Request) -> web.Response:
        found = self._settlements.settlement(self._keys.merchant(request), request.match_info["settlementID"])
        return wire.success(settlement_data(found))

    async def entries(self, request: web.Request) -> web.Response:
        merchant_id = self._keys.merchant(request)
        asked = wire.query(request, EntryQuery)
        settlement = self._settlements.settlement(merchant_id, request.match_info["settlementID"])
        found = await self._settlements.movements(settlement, after=asked.cursor or "", limit=asked.limit + 1)
        page = found[: asked.limit]
        more = page[-1].entry_id if len(found) > len(page) else None
        return wire.listed([_entry_data(entry) for entry in page], wire.Pagination(asked.limit, more))


def _check_merchant(named: str, merchant_id: str) -> None:
    if named != merchant_id:
        raise CallerError(403, "wrong_merchant", "merchantID: this API key belongs to another merchant", "merchantID")


def settlement_data(settlement: Settlement) -> SettlementData:
    lines = settlement.lines
    return SettlementData(
        settlement_id=settlement.id,
        merchant_id=settlement.merchant_id,
        date=settlement.date,
        timezone=settlement.timezone,
        ends_at=rfc3339(settlement.until_ms),
        currency=settlement.currency,
        status=settlement.state,
        reason=settlement.reason,
        total_amount=settlement.amount_minor,
        transaction_count=settlement.entries,
        opening_balance=settlement.opening_minor,
        captured=sum(line.captured_minor for line in lines),
        fees=sum(line.fees_minor for line in lines),
        refunds=sum(line.refunds_minor for line in lines),
        chargebacks=sum(line.chargebacks_minor for line in lines),
        net=settlement.net_minor,
        carried_forward=settlement.carried_minor,
        lines=[_line_data(line) for line in lines],
        payout=None if settlement.payout is None else _payout_data(settlement, settlement.payout),
        created_at=rfc3339(settlement.created_at_ms),
        updated_at=rfc3339(settlement.updated_at_ms),
    )


def _line_data(line: Line) -> LineData:
    return LineData(
        provider=line.provider,
        captured=line.captured_minor,
        fees=line.fees_minor,
        refunds=line.refunds_minor,
        chargebacks=line.chargebacks_minor,
        net=line.net_minor,
        capture_count=line.captures,
        refund_count=line.refunds,
        chargeback_count=line.chargebacks,
    )


def _payout_data(settlement: Settlement, payout: Payout) -> PayoutData:
    return PayoutData(
        reference=payout.reference,
        account=f"...{payout.payee.account_number[-4:]}",
        ifsc=payout.payee.ifsc,
        provider_id=settlement.provider_id,
        utr=settlement.utr,
    )


def _entry_data(entry: Movement) -> EntryData:
    return EntryData(
        entry_id=entry.entry_id,
        payment_id=entry.payment_id,
        type=entry.kind,
        provider=entry.provider,
        gross=entry.gross_minor,
        fee=entry.fee_minor,
        net=entry.net_minor,
        created_at=rfc3339(entry.created_at_ms),
    )
