"""What the flows need from the world, and what it must keep to. One contract suite (tests/contract) runs against every adapter."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import msgspec

from gateway.core import ledger
from gateway.core.outcome import Outcome
from gateway.core.payment import Attempt, Event, Method, Payment

DeliveryState = Literal["pending", "delivered", "dead"]


class Card(msgspec.Struct, frozen=True):
    """A card number as the vault seals it. The same number of the same merchant has the same token."""

    token: str
    merchant_id: str
    sealed: bytes
    created_at_ms: int


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """A money movement as the merchant sees it: derived from the payment (later: refund, chargeback) that moved it."""

    id: str
    payment_id: str
    merchant_id: str
    type: Literal["payment"]
    amount_minor: int
    currency: str
    status: str
    created_at_ms: int
    updated_at_ms: int


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """The outbox: one event for one endpoint. `due_at_ms` is None once it is delivered or dead."""

    endpoint_id: str
    payment_id: str
    sequence: int
    event_id: str
    state: DeliveryState
    tries: int
    due_at_ms: int | None
    last_error: str | None = None


class Claim(msgspec.Struct, frozen=True):
    """An idempotency key that must be unclaimed. `fingerprint` is a keyed hash of the request's body."""

    merchant_id: str
    key: str
    fingerprint: bytes
    payment_id: str
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

    `claim` must be free. `payment` must follow the stored version: version n needs n-1 to be there, version 1 needs none.
    `attempt` belongs to the payment and is written whole. `entry` and `events` are appended. `response` is kept under a claim that
    exists.
    """

    claim: Claim | None = None
    payment: Payment | None = None
    attempt: Attempt | None = None
    card: Card | None = None
    entry: ledger.Entry | None = None
    events: Sequence[Event] = ()
    deliveries: Sequence[Delivery] = ()
    response: StoredResponse | None = None


class Done(msgspec.Struct, frozen=True):
    """Written, and durable."""


class Conflict(msgspec.Struct, frozen=True):
    """The payment is at another version: nothing was written. Read again, decide again."""


class Replay(msgspec.Struct, frozen=True):
    """The key was claimed by the same request, which was answered like this."""

    response: Response


class InFlight(msgspec.Struct, frozen=True):
    """The key was claimed by the same request, which has not been answered yet."""

    payment_id: str


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

    def payment(self, payment_id: str) -> Payment | None: ...

    def attempt(self, reference: str) -> Attempt | None: ...

    def attempt_of(self, payment_id: str) -> Attempt | None:
        """The payment's latest attempt."""
        ...

    def transaction(self, transaction_id: str) -> Transaction | None: ...

    def due_attempts(self, provider: Method, now_ms: int, limit: int) -> list[Attempt]:
        """A provider's attempts with `due_at_ms <= now_ms`, the longest due first."""
        ...

    async def wake_intents(self, now_ms: int) -> int:
        """At start: makes every attempt that is still `intent` due now, since whoever made it is gone. How many there were."""
        ...

    def due_deliveries(self, endpoint_id: str, now_ms: int, limit: int) -> list[tuple[Delivery, bytes]]:
        """Pending deliveries of an endpoint that are due, each the first pending one of its payment, the longest due first; with bodies."""
        ...

    def pending_deliveries(self, endpoint_id: str) -> int: ...

    async def purge_claims(self, created_before_ms: int) -> int: ...

    async def bury_deliveries(self, endpoint_ids: Sequence[str]) -> int:
        """At start: ends the pending deliveries of all endpoints but these, which exist. How many there were."""
        ...

    def healthy(self) -> bool:
        """Whether it can still write."""
        ...

    def totals(self) -> tuple[int, int]:
        """(payments, transactions), without counting rows."""
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


class Provider(Protocol):
    """A payment method's provider. Never raises for what the provider or the network does: that is what `Outcome` is for.

    A definite outcome is given only if the provider's answer is well formed and is about this reference, amount and currency.
    """

    async def create(self, payment: Payment, attempt: Attempt, instrument: Instrument, *, deadline_s: float) -> Outcome: ...

    async def inquire(self, attempt: Attempt, *, deadline_s: float) -> Outcome:
        """The charge's fate by our reference. NotFound if the provider has not seen it."""
        ...

    async def reverse(self, attempt: Attempt, *, deadline_s: float) -> Outcome:
        """Undoes, cancels or blocks the charge. Reversed, or what it definitely ended as."""
        ...

    def read_callback(self, body: bytes, attempt: Attempt) -> Outcome:
        """What a callback, whose signature has been verified, says about the attempt."""
        ...


class Receipt(msgspec.Struct, frozen=True):
    """How one try at a delivery ended. `status` is None if there was no answer, and then `error` says why."""

    status: int | None
    error: str | None = None
    retry_after_s: int | None = None


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
