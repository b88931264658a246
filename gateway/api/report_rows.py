"""The reports: what a row of each says, and where rows come from. Those of transactions, refunds and disputes are read from the books, by
when an entry was booked, so that their totals are the ledger's.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import apsw
import msgspec

from gateway.core.settlement import Settlement, State
from gateway.runtime import rfc3339
from gateway.storage import reports
from gateway.storage.reports import Booked, Failed, Place, Subject


class TransactionRow(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """An entry of the ledger. What the merchant gets is positive, what is taken is negative; `net` is `amount` less `fee`."""

    entry_id: str = msgspec.field(name="entryID")
    booked_at: str
    type: Literal["payment", "refund", "refund_failed", "chargeback", "chargeback_won"]
    transaction_id: str = msgspec.field(name="transactionID")
    payment_id: str = msgspec.field(name="paymentID")
    order_id: str = msgspec.field(name="orderID")
    payment_method: str
    currency: str
    amount: int
    fee: int
    net: int


class RefundRow(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """An entry about a refund: completed, or (`refund_failed`) failed after it was completed. `status` is what it is now."""

    entry_id: str = msgspec.field(name="entryID")
    booked_at: str
    type: Literal["refund", "refund_failed"]
    refund_id: str = msgspec.field(name="refundID")
    transaction_id: str = msgspec.field(name="transactionID")
    payment_id: str = msgspec.field(name="paymentID")
    order_id: str = msgspec.field(name="orderID")
    payment_method: str
    currency: str
    amount: int
    status: str
    reason: str | None


class DisputeRow(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """An entry about a dispute: money taken, or (`chargeback_won`) given back. `status` is what it is now."""

    entry_id: str = msgspec.field(name="entryID")
    booked_at: str
    type: Literal["chargeback", "chargeback_won"]
    dispute_id: str = msgspec.field(name="disputeID")
    transaction_id: str = msgspec.field(name="transactionID")
    payment_id: str = msgspec.field(name="paymentID")
    order_id: str = msgspec.field(name="orderID")
    payment_method: str
    currency: str
    amount: int
    status: str
    reason: str


class FailureRow(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A payment or refund that was created in the period and moved no money. `amount` is what was asked for."""

    type: Literal["payment", "refund"]
    transaction_id: str = msgspec.field(name="transactionID")
    payment_id: str = msgspec.field(name="paymentID")
    order_id: str = msgspec.field(name="orderID")
    payment_method: str
    currency: str
    amount: int
    status: str
    failure_reason: str | None
    decline_code: str | None
    created_at: str
    updated_at: str


class SettlementRow(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The settlement of a day that ended in the period. `net` is captured - fees - refunds - chargebacks; `totalAmount`, which is paid out
    once the status is completed, is what that and `openingBalance` come to, unless it is below zero and `carriedForward`."""

    settlement_id: str = msgspec.field(name="settlementID")
    date: str
    timezone: str
    currency: str
    status: State
    reason: str | None
    transaction_count: int
    opening_balance: int
    captured: int
    fees: int
    refunds: int
    chargebacks: int
    net: int
    total_amount: int
    carried_forward: int
    utr: str | None
    created_at: str
    updated_at: str


Row = TransactionRow | RefundRow | DisputeRow | FailureRow | SettlementRow


class Total(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Of the rows of one currency and type (of settlements: status). `fee` and `net` where rows have them; `amount` of settlements is
    their `totalAmount`."""

    currency: str
    type: str
    count: int
    amount: int
    fee: int | None = None
    net: int | None = None


class ReportData(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    report: str
    merchant_id: str = msgspec.field(name="merchantID")
    from_: str = msgspec.field(name="from")
    to: str


class TransactionsReport(ReportData, frozen=True, kw_only=True):
    rows: list[TransactionRow]
    totals: list[Total]


class RefundsReport(ReportData, frozen=True, kw_only=True):
    rows: list[RefundRow]
    totals: list[Total]


class DisputesReport(ReportData, frozen=True, kw_only=True):
    rows: list[DisputeRow]
    totals: list[Total]


class FailuresReport(ReportData, frozen=True, kw_only=True):
    rows: list[FailureRow]
    totals: list[Total]


class SettlementsReport(ReportData, frozen=True, kw_only=True):
    rows: list[SettlementRow]
    totals: list[Total]


class Report(NamedTuple):
    """`part` gives the rows after a place and before a time, up to a limit, and the place where it ended, None at the end."""

    name: str
    summary: str
    row: type[Row]
    gives: type[ReportData]
    part: Callable[[apsw.Connection, str, Place, int, int], tuple[Sequence[Row], Place | None]]


def add_up(totals: dict[tuple[str, str], Total], rows: Iterable[Row]) -> None:
    """Adds rows to the totals of their currencies and types."""
    for row in rows:
        kind, amount = (row.status, row.total_amount) if isinstance(row, SettlementRow) else (row.type, row.amount)
        total = totals.get((row.currency, kind))
        if total is None:
            total = totals[row.currency, kind] = Total(currency=row.currency, type=kind, count=0, amount=0)
        total.count += 1
        total.amount += amount
        if isinstance(row, TransactionRow | SettlementRow):
            total.fee = (total.fee or 0) + (row.fees if isinstance(row, SettlementRow) else row.fee)
            total.net = (total.net or 0) + row.net


def _booked(
    connection: apsw.Connection,
    merchant_id: str,
    after: Place,
    to_ms: int,
    limit: int,
    *,
    subject: Subject,
    row: Callable[[Booked], Row],
) -> tuple[list[Row], Place | None]:
    found = reports.booked(connection, merchant_id, subject=subject, after=after, to_ms=to_ms, limit=limit)
    made = [row(entry) for entry in found if entry.payment_id is not None]  # the others are payouts: see settlements
    return made, found[-1].place if len(found) == limit else None


def _failures(
    connection: apsw.Connection, merchant_id: str, after: Place, to_ms: int, limit: int
) -> tuple[list[Row], Place | None]:
    found = reports.failures(connection, merchant_id, after=after, to_ms=to_ms, limit=limit)
    return [_failure_row(failed) for failed in found], found[-1].place if len(found) == limit else None


def _settlements(
    connection: apsw.Connection, merchant_id: str, after: Place, to_ms: int, limit: int
) -> tuple[list[Row], Place | None]:
    found = reports.settlements(connection, merchant_id, after=after, to_ms=to_ms, limit=limit)
    last = Place(found[-1].until_ms - 1, found[-1].id) if len(found) == limit else None
    return [_settlement_row(settlement) for settlement in found], last


def _transaction_row(entry: Booked) -> TransactionRow:
    kind, amount = "payment", entry.net_minor + entry.fee_minor
    if entry.refund_id is not None:
        kind = "refund" if amount < 0 else "refund_failed"
    elif entry.dispute_id is not None:
        kind = "chargeback" if amount < 0 else "chargeback_won"
    return TransactionRow(**_entry(entry, kind), amount=amount, fee=entry.fee_minor, net=entry.net_minor)


def _refund_row(entry: Booked) -> RefundRow:
    about = {"refund_id": entry.refund_id, "status": entry.refund_status, "reason": entry.refund_note}
    return RefundRow(**_entry(entry, "refund" if entry.net_minor < 0 else "refund_failed") | about, amount=entry.net_minor)


def _dispute_row(entry: Booked) -> DisputeRow:
    about = {"dispute_id": entry.dispute_id, "status": entry.dispute_status, "reason": entry.dispute_reason}
    return DisputeRow(
        **_entry(entry, "chargeback" if entry.net_minor < 0 else "chargeback_won") | about, amount=entry.net_minor
    )


def _entry(entry: Booked, kind: str) -> dict[str, Any]:
    """What all rows about an entry say."""
    own_id = entry.refund_id or entry.dispute_id
    return {
        "entry_id": entry.entry_id,
        "booked_at": rfc3339(entry.at_ms),
        "type": kind,
        "transaction_id": f"txn_{own_id.partition('_')[2]}" if own_id else entry.payment_transaction_id,
        "payment_id": entry.payment_id,
        "order_id": entry.order_id,
        "payment_method": entry.method,
        "currency": entry.currency,
    }


def _failure_row(failed: Failed) -> FailureRow:
    return FailureRow(
        type=failed.type,
        transaction_id=failed.transaction_id,
        payment_id=failed.payment_id,
        order_id=failed.order_id,
        payment_method=failed.method,
        currency=failed.currency,
        amount=failed.amount_minor,
        status=failed.status,
        failure_reason=failed.failure_reason,
        decline_code=failed.decline_code,
        created_at=rfc3339(failed.created_at_ms),
        updated_at=rfc3339(failed.updated_at_ms),
    )


def _settlement_row(settlement: Settlement) -> SettlementRow:
    lines = settlement.lines
    return SettlementRow(
        settlement_id=settlement.id,
        date=settlement.date,
        timezone=settlement.timezone,
        currency=settlement.currency,
        status=settlement.state,
        reason=settlement.reason,
        transaction_count=settlement.entries,
        opening_balance=settlement.opening_minor,
        captured=sum(line.captured_minor for line in lines),
        fees=sum(line.fees_minor for line in lines),
        refunds=sum(line.refunds_minor for line in lines),
        chargebacks=sum(line.chargebacks_minor for line in lines),
        net=settlement.net_minor,
        total_amount=settlement.amount_minor,
        carried_forward=settlement.carried_minor,
        utr=settlement.utr,
        created_at=rfc3339(settlement.created_at_ms),
        updated_at=rfc3339(settlement.updated_at_ms),
    )


REPORTS = (
    Report(
        "transactions",
        "All that was booked: payments, refunds, chargebacks, with fees",
        TransactionRow,
        TransactionsReport,
        partial(_booked, subject="all", row=_transaction_row),
    ),
    Report(
        "refunds",
        "Refunds that were booked",
        RefundRow,
        RefundsReport,
        partial(_booked, subject="refund", row=_refund_row),
    ),
    Report(
        "disputes",
        "Chargebacks that were booked, and those won back",
        DisputeRow,
        DisputesReport,
        partial(_booked, subject="dispute", row=_dispute_row),
    ),
    Report("settlements", "What was settled, by day and currency", SettlementRow, SettlementsReport, _settlements),
    Report("failures", "Payments and refunds that failed", FailureRow, FailuresReport, _failures),
)
