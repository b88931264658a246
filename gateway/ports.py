"""What the flows need from the world, and what it must keep to. One contract suite (tests/contract) runs against every adapter."""

from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Literal, Protocol, TypeVar

import apsw
import msgspec

from gateway.core import ledger
from gateway.core.authentication import Authentication, Told
from gateway.core.breaks import Reconciled
from gateway.core.dispute import Dispute
from gateway.core.dispute import Status as DisputeStatus
from gateway.core.endpoint import Endpoint
from gateway.core.event import Event
from gateway.core.operation import Kind, Operation
from gateway.core.outcome import Declined, NotFound, NotSent, Outcome, Unknown
from gateway.core.payment import Attempt, Method, Payment
from gateway.core.reconciliation import FileFormat
from gateway.core.settlement import Payout, PayoutTold, Settlement

T = TypeVar("T")

TransactionType = Literal["payment", "refund", "chargeback"]
DeliveryState = Literal["pending", "delivered", "dead"]


class Card(msgspec.Struct, frozen=True):
    """A card number as the vault seals it. The same number of the same merchant has the same token."""

    token: str
    merchant_id: str
    sealed: bytes
    created_at_ms: int


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """A money movement as the merchant sees it: derived from the payment, refund or dispute that moved it."""

    id: str
    payment_id: str
    merchant_id: str
    type: TransactionType
    method: Method
    amount_minor: int
    currency: str
    status: str
    created_at_ms: int
    updated_at_ms: int


class Try(msgspec.Struct, frozen=True, omit_defaults=True):
    """One try at a delivery: the receiver's answer, or why there was none."""

    at_ms: int
    duration_ms: int
    status: int | None = None
    error: str | None = None
    response: str | None = None
    """The beginning of the answer's body."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """The outbox: one event for one endpoint. `due_at_ms` is None once it is delivered or dead. `tries` counts since it was made or
    replayed; `log` is of the latest tries, the oldest first."""

    endpoint_id: str
    subject_id: str
    sequence: int
    event_id: str
    state: DeliveryState
    tries: int
    due_at_ms: int | None
    last_error: str | None = None
    log: tuple[Try, ...] = ()


class Claim(msgspec.Struct, frozen=True):
    """An idempotency key that must be unclaimed. `fingerprint` is a keyed hash of the request; `subject_id` is what it makes or changes,
    by which whoever retries finds work that was interrupted."""

    merchant_id: str
    key: str
    fingerprint: bytes
    subject_id: str
    created_at_ms: int
    expired_before_ms: int
    """Claims made before this time have lapsed, and are replaced."""


class Response(msgspec.Struct, frozen=True):
    """What was, or is to be, answered, byte for byte."""

    status: int
    body: bytes


class StoredResponse(msgspec.Struct, frozen=True):
    merchant_id: str
    key: str
    response: Response


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """What to write, all or nothing, durably; and what must hold for it.

    `claim` must be free. `payment`, and likewise `settlement`, must follow the stored version: version n needs n-1 to be there, version 1
    needs none. `settled` are (entry, settlement) pairs of ids: entries that are in no settlement so far.
    `attempt`, `authentication`, `operation` and `dispute` belong to the payment and, like `endpoint` and `reconciled`, are written whole; a
    second attempt comes as an intent about which no inquiry was made. `entries` and `events` are appended. `response` is kept under a
    claim that exists, or is made by this commit.
    """

    claim: Claim | None = None
    payment: Payment | None = None
    attempt: Attempt | None = None
    authentication: Authentication | None = None
    operation: Operation | None = None
    dispute: Dispute | None = None
    card: Card | None = None
    entries: Sequence[ledger.Entry] = ()
    events: Sequence[Event] = ()
    deliveries: Sequence[Delivery] = ()
    endpoint: Endpoint | None = None
    settlement: Settlement | None = None
    settled: Sequence[tuple[str, str]] = ()
    reconciled: Reconciled | None = None
    response: StoredResponse | None = None


class Done(msgspec.Struct, frozen=True):
    """Written, and durable."""


class Conflict(msgspec.Struct, frozen=True):
    """The payment or settlement is at another version: nothing was written. Read again, decide again."""


class Replay(msgspec.Struct, frozen=True):
    """The key was claimed by the same request, which was answered like this."""

    response: Response


class InFlight(msgspec.Struct, frozen=True):
    """The key was claimed by the same request, which has not been answered yet."""

    subject_id: str


class Mismatch(msgspec.Struct, frozen=True):
    """The key was claimed by a request with another body."""


Committed = Done | Conflict | Replay | InFlight | Mismatch


class Store(Protocol):
    """Durable before it answers. No transaction is open while anyone else is waited for.

    Reads see every commit that has answered. Point reads are quick enough to call from the event loop.
    """

    async def commit(self, commit: Commit) -> Committed:
        """Raises StoreFull when too many commits wait, StoreError when the database fails; nothing is written then."""
        ...

    def claimed(self, claim: Claim) -> Replay | InFlight | Mismatch | None:
        """What a commit with this claim would be answered, as far as the claim goes; None if the key is free."""
        ...

    def payment(self, payment_id: str) -> Payment | None: ...

    def attempt(self, reference: str) -> Attempt | None: ...

    def attempt_of(self, payment_id: str) -> Attempt | None:
        """The payment's latest attempt."""
        ...

    def authentication(self, authentication_id: str) -> Authentication | None: ...

    def card(self, token: str) -> Card | None: ...

    def transaction(self, transaction_id: str) -> Transaction | None: ...

    def operation(self, operation_id: str) -> Operation | None: ...

    def operations_of(self, payment_id: str, kind: Kind, limit: int) -> list[Operation]:
        """A payment's captures, or its refunds, the newest first."""
        ...

    def due_operations(self, provider: Method, now_ms: int, limit: int) -> list[Operation]:
        """A provider's captures and refunds with `due_at_ms <= now_ms`, the longest due first."""
        ...

    def dispute(self, dispute_id: str) -> Dispute | None: ...

    def dispute_at(self, provider: Method, provider_id: str) -> Dispute | None:
        """The dispute that a provider calls so."""
        ...

    def disputes_of(self, payment_id: str, limit: int) -> list[Dispute]:
        """A payment's disputes, the newest first."""
        ...

    def disputes(self, merchant_id: str, *, status: DisputeStatus | None, before_id: str, limit: int) -> list[Dispute]:
        """A merchant's disputes whose ids come before `before_id`, of one status or (None) of all, the newest first."""
        ...

    def events_of(self, subject_id: str, after: int, limit: int) -> list[Event]:
        """A subject's events with sequence numbers above `after`, in order."""
        ...

    def due_disputes(self, provider: Method, now_ms: int, limit: int) -> list[Dispute]: ...

    def settlement(self, settlement_id: str) -> Settlement | None: ...

    def settlements_on(self, merchant_id: str, date: str) -> list[Settlement]:
        """A merchant's settlements of a day, one for each currency, in their order."""
        ...

    def due_settlements(self, now_ms: int, limit: int) -> list[Settlement]:
        """Those whose payout is to be asked about, the longest due first."""
        ...

    def due_attempts(self, provider: Method, now_ms: int, limit: int) -> list[Attempt]:
        """A provider's attempts with `due_at_ms <= now_ms`, the longest due first."""
        ...

    def due_authentications(self, provider: Method, now_ms: int, limit: int) -> list[Authentication]: ...

    async def wake_intents(self, now_ms: int) -> int:
        """At start: makes every attempt and operation whose provider may not have been called due now, since whoever was about to call is
        gone; and every open authentication, since the card data it needs are gone. How many there were."""
        ...

    def due_deliveries(self, endpoint_id: str, now_ms: int, limit: int) -> list[tuple[Delivery, bytes]]:
        """Pending deliveries of an endpoint that are due, each the first pending one of its payment, the longest due first; with bodies."""
        ...

    def pending_deliveries(self, endpoint_id: str) -> int: ...

    async def purge_claims(self, created_before_ms: int) -> int: ...

    async def bury_deliveries(self) -> int:
        """Ends the pending deliveries of endpoints that are gone, deleted, or not known. How many there were."""
        ...

    def delivery(self, endpoint_id: str, subject_id: str, sequence: int) -> Delivery | None: ...

    def dead_deliveries(self, endpoint_id: str, limit: int) -> list[Delivery]:
        """The dead letters of an endpoint, those of the oldest payments first."""
        ...

    def endpoints(self) -> list[Endpoint]:
        """All there ever were, the deleted ones included."""
        ...

    def healthy(self) -> bool:
        """Whether it can still write."""
        ...

    def totals(self) -> tuple[int, int]:
        """(payments, transactions), without counting rows."""
        ...

    async def read(self, work: Callable[[apsw.Connection], T]) -> T:
        """What `work` returns of one consistent snapshot, read-only, in a thread: for what may take long. It holds nobody up, but keeps the
        write-ahead log from being folded back, so whoever reads for minutes does it in parts. Nothing that belongs to the connection may be
        returned: fetch the rows. Raises StoreFull when too many reads wait, StoreError when the database fails or the store is closed
        meanwhile; what `work` raises itself comes through."""
        ...

    async def close(self) -> None:
        """Waits for what was handed over to be durable."""
        ...


class CardSecret(msgspec.Struct, frozen=True):
    """Card data on its way to the provider. Lives in memory until the call returns; never written, never printed."""

    number: str
    expiry_month: str
    expiry_year: str
    cvv: str
    holder_name: str | None

    def __repr__(self) -> str:
        return "CardSecret(...)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Pretty tracebacks do not ask `__repr__`."""
        return []


class Instrument(msgspec.Struct, frozen=True):
    """What the customer pays with: the fields of the payment's own method are set."""

    card: CardSecret | None = None
    upi_flow: str | None = None
    vpa: str | None = None
    bank_code: str | None = None
    return_url: str | None = None
    authenticated_by: str | None = None
    """The threeDSServerTransID of the authentication that the card's holder has passed."""


class DisputeResponse(msgspec.Struct, frozen=True):
    """The merchant's: `evidence` None accepts the dispute."""

    evidence: str | None


class DisputeTold(msgspec.Struct, frozen=True, kw_only=True):
    """A dispute as its provider tells of it. `reference` is ours, of the charge."""

    provider_id: str
    reference: str
    reason: str
    status: DisputeStatus
    amount_minor: int
    currency: str
    respond_by_ms: int


class Provider(Protocol):
    """A payment method's provider. Never raises for what the provider or the network does: that is what `Outcome` is for.

    A definite outcome is given only if the provider's answer is well formed and is about this reference, amount and currency.
    """

    async def create(self, payment: Payment, attempt: Attempt, instrument: Instrument, *, deadline_s: float) -> Outcome: ...

    async def inquire(self, attempt: Attempt, *, deadline_s: float) -> Outcome:
        """The charge's fate by our reference. NotFound if the provider has not seen it."""
        ...

    async def reverse(self, attempt: Attempt, *, deadline_s: float) -> Outcome:
        """Undoes, cancels or blocks the charge. Reversed, or what it definitely ended as: Irreversible if it can only be refunded. May
        take a second call, with a deadline of its own, to find that out."""
        ...

    async def authenticate(
        self, payment: Payment, authentication: Authentication, card: CardSecret, *, deadline_s: float
    ) -> Told | Declined | NotSent | Unknown:
        """Has the card's holder authenticated (3-D Secure). The same again is the same authentication, as it is now. Declined: the request
        was refused."""
        ...

    async def inquire_authentication(
        self, authentication: Authentication, *, deadline_s: float
    ) -> Told | Declined | NotSent | Unknown: ...

    async def capture(self, operation: Operation, *, deadline_s: float) -> Outcome:
        """Takes what is authorized: Approved, Declined, NotSent or Unknown. The same operation again does nothing twice."""
        ...

    async def refund(self, operation: Operation, *, deadline_s: float) -> Outcome:
        """Gives back what was taken: as `capture`, or Pending where the provider will tell later. The same operation again does nothing
        twice, and tells how it is now."""
        ...

    async def dispute(
        self, provider_id: str, response: DisputeResponse | None, *, deadline_s: float
    ) -> DisputeTold | Declined | NotSent | Unknown:
        """Accepts a dispute, answers it with evidence, or (None) asks about it. Declined: it cannot be, as things stand."""
        ...

    def read_callback(self, body: bytes, attempt: Attempt) -> Outcome:
        """What a callback, whose signature has been verified, says about the attempt."""
        ...

    def read_authentication(self, body: bytes, authentication: Authentication) -> Told | Unknown:
        """What a callback says about an authentication."""
        ...

    def read_refund(self, body: bytes, operation: Operation) -> Outcome:
        """What a callback says about a refund."""
        ...

    def read_dispute(self, body: bytes) -> DisputeTold | Unknown:
        """What a callback says about a dispute."""
        ...


class Payouts(Protocol):
    """The bank that pays merchants. Never raises for what it or the network does.

    A payout is told of only if the bank's answer is well formed and is about this reference, amount and currency.
    """

    async def order(self, payout: Payout, *, deadline_s: float) -> PayoutTold | Declined | NotSent | Unknown:
        """Pays. The same payout again does nothing twice, and tells how it is now."""
        ...

    async def inquire(self, payout: Payout, *, deadline_s: float) -> PayoutTold | NotFound | NotSent | Unknown: ...

    def read_callback(self, body: bytes, payout: Payout) -> PayoutTold | Unknown:
        """What a callback, whose signature has been verified, says about the payout."""
        ...


class Receipt(msgspec.Struct, frozen=True):
    """How one try at a delivery ended. `status` is None if there was no answer, and then `error` says why. `body` is how the answer
    begins."""

    status: int | None
    error: str | None = None
    retry_after_s: int | None = None
    body: bytes = b""


class SettlementFiles(Protocol):
    """Where a provider's settlement files are."""

    async def fetch(self, date: str, file_format: FileFormat, into: BinaryIO, *, currency: str | None = None) -> None:
        """Writes the file of a day. `currency` is for camt.053, which has a file for each. Raises FileRefused if it cannot be had."""
        ...


class Courier(Protocol):
    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Receipt:
        """One POST, without redirects, within the configured time. Never raises for what the receiver does."""
        ...


class Clock(Protocol):
    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        ...


class Ids(Protocol):
    def new(self, prefix: str) -> str:
        """`{prefix}_{32 hex digits}`, unique; ids made later sort later, so that they append to an index."""
        ...
