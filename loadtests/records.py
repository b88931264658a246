"""The gateway's records, as `python -m gateway export` writes them. Field names are those of the export; amounts are minor units, times
integer ms since 1970. What an export has besides is passed over."""

from __future__ import annotations

from msgspec import Struct


class Payment(Struct, frozen=True, gc=False, tag_field="kind", tag="payment"):
    paymentID: str
    merchantID: str
    status: str
    amount: int
    currency: str
    method: str
    capturedAmount: int
    createdAt: int
    updatedAt: int
    orderID: str | None = None
    transactionID: str | None = None
    captureMethod: str = "automatic"
    refundedAmount: int = 0
    disputedAmount: int = 0


class Attempt(Struct, frozen=True, gc=False, tag_field="kind", tag="attempt"):
    reference: str
    paymentID: str
    provider: str
    state: str
    amount: int
    currency: str
    createdAt: int
    responseCode: str | None = None
    unknownAt: int | None = None
    resolvedAt: int | None = None
    inquiries: int = 0


class Capture(Struct, frozen=True, gc=False, tag_field="kind", tag="capture"):
    captureID: str
    paymentID: str
    provider: str
    chargeReference: str
    amount: int
    currency: str
    status: str
    final: bool
    inquiries: int = 0


class Refund(Struct, frozen=True, gc=False, tag_field="kind", tag="refund"):
    refundID: str
    transactionID: str
    paymentID: str
    provider: str
    chargeReference: str
    amount: int
    currency: str
    status: str
    inquiries: int = 0


class Dispute(Struct, frozen=True, gc=False, tag_field="kind", tag="dispute"):
    """`providerID` is the provider's name of it. `responding`: the merchant's response has not been taken yet."""

    disputeID: str
    transactionID: str
    providerID: str
    paymentID: str
    provider: str
    status: str
    amount: int
    currency: str
    responding: str | None = None


class Authentication(Struct, frozen=True, gc=False, tag_field="kind", tag="authentication"):
    """3-D Secure. `authenticationID` is its reference at the provider."""

    authenticationID: str
    paymentID: str
    provider: str
    status: str
    transStatus: str | None = None


class Transaction(Struct, frozen=True, gc=False, tag_field="kind", tag="transaction"):
    transactionID: str
    paymentID: str
    merchantID: str
    type: str
    amount: int
    currency: str
    status: str
    createdAt: int


class Posting(Struct, frozen=True, gc=False):
    account: str
    currency: str
    debit: int
    credit: int


class Entry(Struct, frozen=True, gc=False, tag_field="kind", tag="entry"):
    entryID: str
    createdAt: int
    postings: tuple[Posting, ...]
    paymentID: str | None = None
    settlementID: str | None = None  # the settlement whose own entry it is
    settledIn: str | None = None  # the settlement that it was settled in


class Event(Struct, frozen=True, gc=False, tag_field="kind", tag="event"):
    eventID: str
    paymentID: str | None
    sequence: int
    type: str
    published: bool
    createdAt: int
    settlementID: str | None = None

    @property
    def subject_id(self) -> str:
        """What it is about."""
        return self.paymentID or self.settlementID or ""

    @property
    def about(self) -> str:
        return f"payment {self.paymentID}" if self.settlementID is None else f"settlement {self.settlementID}"


class Delivery(Struct, frozen=True, gc=False, tag_field="kind", tag="delivery"):
    eventID: str
    endpointID: str
    paymentID: str | None
    sequence: int
    state: str
    tries: int


class Idempotency(Struct, frozen=True, gc=False, tag_field="kind", tag="idempotency"):
    merchantID: str
    key: str
    paymentID: str | None
    responseStatus: int | None = None
    subjectID: str | None = None  # the payment, capture, refund or dispute that was made or changed


class SettlementLine(Struct, frozen=True, gc=False):
    """What one provider moved for a settlement."""

    provider: str
    captured_minor: int
    fees_minor: int
    refunds_minor: int
    chargebacks_minor: int


class Settlement(Struct, frozen=True, gc=False, tag_field="kind", tag="settlement"):
    settlementID: str
    merchantID: str
    date: str
    currency: str
    status: str
    openingBalance: int
    net: int
    totalAmount: int
    lines: tuple[SettlementLine, ...]


GatewayRow = (
    Payment
    | Attempt
    | Capture
    | Refund
    | Dispute
    | Authentication
    | Transaction
    | Entry
    | Event
    | Delivery
    | Idempotency
    | Settlement
)


class GatewayRecords(Struct, frozen=True):
    """Everything a gateway knows, by kind, in the order of its export."""

    payments: tuple[Payment, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    transactions: tuple[Transaction, ...] = ()
    entries: tuple[Entry, ...] = ()
    events: tuple[Event, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    idempotency: tuple[Idempotency, ...] = ()
    settlements: tuple[Settlement, ...] = ()
    captures: tuple[Capture, ...] = ()
    refunds: tuple[Refund, ...] = ()
    disputes: tuple[Dispute, ...] = ()
    authentications: tuple[Authentication, ...] = ()
