"""The story of a payment: decide, commit, call, decide, commit.

process   commit 1 (key claimed, payment and attempt durable) -> provider -> commit 2 (state, ledger, outbox, response) -> answer
callback  a provider's signed word about an attempt -> commit
finish    a retry of work that a crash interrupted: asks the provider by our reference; never a second charge
learn     what all of them end in: `core.payment.step`, and one commit of what follows from it
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, assert_never

import msgspec
import structlog

from gateway.config import Recovery
from gateway.core import cards
from gateway.core.errors import UNREADABLE, CallerError, StoreError, not_found
from gateway.core.outcome import GaveUp, NotSent, Outcome, Overdue, Pending, Unknown
from gateway.core.payment import OPEN_STATES, Attempt, Event, Method, Payment, Step, begin, step
from gateway.ports import (
    Claim,
    Clock,
    Commit,
    Conflict,
    Delivery,
    Done,
    Ids,
    InFlight,
    Instrument,
    Mismatch,
    Provider,
    Replay,
    Response,
    Store,
    StoredResponse,
    Transaction,
)
from gateway.runtime import rfc3339
from gateway.vault import Vault

CLAIM_LIFETIME_MS = 24 * 3600 * 1000  # DOMAIN: keys last 24 h
CONFLICTS_MAX = 10  # callback, inquiry and request race over one payment: three writers, each of whom wins in turn
INTENT_GRACE_MS = 1_000  # beyond the call's own deadline, before recovery asks about an intent
OVERDUE_GRACE_MS = 30_000  # beyond the provider's own expiry, before we cancel the charge ourselves

# How long customers get. NPCI lets a collect request live 5 minutes by default; bank sessions end after a quarter of an hour.
LIFETIME_MS: dict[Method, int] = {"card": 60_000, "upi": 300_000, "netbanking": 900_000}

log = structlog.get_logger("gateway.payments")

Render = Callable[[Payment], Response]
Respond = Callable[[Payment], StoredResponse]
Announce = Callable[[Payment, Sequence[Event], Sequence[Delivery]], None]


class Channel(msgspec.Struct, frozen=True):
    """A payment method as it is wired: its provider, and what using it costs."""

    provider: Provider
    timeout_ms: int
    fee_basis_points: int


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A valid request to pay."""

    merchant_id: str
    order_id: str
    method: Method
    amount_minor: int
    currency: str
    instrument: Instrument
    customer: msgspec.Struct
    metadata: dict[str, str] | None


class IdempotencyKey(msgspec.Struct, frozen=True):
    key: str
    fingerprint: bytes


class Callback(msgspec.Struct, frozen=True):
    """The part of a callback that says which attempt it is about."""

    reference: str
    provider: Literal["card", "upi", "bank"]


PROVIDER_NAMES: dict[str, Method] = {"card": "card", "upi": "upi", "bank": "netbanking"}

_encode = msgspec.json.Encoder().encode
_decode_callback = msgspec.json.Decoder(Callback).decode


class Payments:
    def __init__(
        self,
        *,
        store: Store,
        channels: Mapping[Method, Channel],
        vault: Vault,
        clock: Clock,
        ids: Ids,
        recovery: Recovery,
        endpoints_of: Mapping[str, Sequence[str]],
        announce: Announce,
    ) -> None:
        """`endpoints_of` gives each merchant's webhook endpoint ids; `announce` is told of every durable step."""
        self._store = store
        self._channels = channels
        self._vault = vault
        self._clock = clock
        self._ids = ids
        self._recovery = recovery
        self._endpoints_of = endpoints_of
        self._announce = announce
        self._alive: set[str] = set()  # payments that a request of this process is working on

    # Process

    async def process(self, order: Order, key: IdempotencyKey | None, render: Render) -> Response:
        """Pays. Raises CallerError 409 or 422 for the key's sake; a decline is a Response like any other."""
        begun, commit = self._intent(order, key)
        # Before the claim is made: whoever meets that claim must be able to see that its work is not interrupted, but under way.
        self._alive.add(begun.payment.id)
        try:
            return await self._process(order, key, render, begun, commit)
        finally:
            self._alive.discard(begun.payment.id)

    async def _process(self, order: Order, key: IdempotencyKey | None, render: Render, begun: Step, commit: Commit) -> Response:
        committed = await self._store.commit(commit)
        match committed:
            case Done():
                self._announce(begun.payment, begun.events, ())
            case Replay():
                return committed.response
            case InFlight():
                assert key is not None
                return await self._finish(committed.payment_id, order.merchant_id, key.key, render)
            case Mismatch():
                raise _mismatch()
            case Conflict():
                raise StoreError(f"payment id {begun.payment.id} was given out twice")
            case _:
                assert_never(committed)
        channel = self._channels[order.method]
        outcome = await channel.provider.create(
            begun.payment, begun.attempt, order.instrument, deadline_s=channel.timeout_ms / 1000
        )
        if isinstance(outcome, Unknown | NotSent):
            log.warning("provider.no_answer", payment_id=begun.payment.id, method=order.method, outcome=outcome)
        respond: Respond | None = None
        if key is not None:
            respond = lambda payment: StoredResponse(order.merchant_id, key.key, render(payment))  # noqa: E731 - closes over three names
        payment, _ = await self.learn(begun.payment, begun.attempt, outcome, respond)
        log.debug("payment.processed", payment_id=payment.id, method=payment.method, status=payment.status)
        return render(payment)

    def _intent(self, order: Order, key: IdempotencyKey | None) -> tuple[Step, Commit]:
        now_ms = self._clock.now_ms()
        payment_id = self._ids.new("pay")
        serial = payment_id.removeprefix("pay_")
        card = order.instrument.card
        sealed = None if card is None else self._vault.seal(merchant_id=order.merchant_id, number=card.number, now_ms=now_ms)
        payment = Payment(
            id=payment_id,
            version=1,
            merchant_id=order.merchant_id,
            order_id=order.order_id,
            method=order.method,
            amount_minor=order.amount_minor,
            currency=order.currency,
            status="pending",
            transaction_id=f"txn_{serial}",
            details=msgspec.Raw(_encode(_details(order, None if sealed is None else sealed.token))),
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
        )
        attempt = Attempt(
            reference=f"att_{serial}_01",
            payment_id=payment_id,
            provider=order.method,
            state="intent",
            amount_minor=order.amount_minor,
            currency=order.currency,
            due_at_ms=now_ms + self._channels[order.method].timeout_ms + INTENT_GRACE_MS,
            expires_at_ms=now_ms + LIFETIME_MS[order.method],
            created_at_ms=now_ms,
        )
        begun = begin(payment, attempt, timestamp=rfc3339(now_ms))
        claim = None
        if key is not None:
            lapsed_ms = now_ms - CLAIM_LIFETIME_MS
            claim = Claim(order.merchant_id, key.key, key.fingerprint, payment_id, now_ms, lapsed_ms)
        return begun, Commit(
            claim=claim,
            payment=begun.payment,
            attempt=attempt,
            card=sealed,
            events=begun.events,
        )

    async def _finish(self, payment_id: str, merchant_id: str, key: str, render: Render) -> Response:
        """The key was claimed, and nothing answered yet: by a request that is running (409), or by one whose process is gone, whose
        payment is finished here, and answered."""
        if payment_id in self._alive:
            raise _still_running()
        self._alive.add(payment_id)
        try:
            payment = self._store.payment(payment_id)
            attempt = self._store.attempt_of(payment_id)
            if payment is None or attempt is None:
                raise StoreError(f"claim {key} names payment {payment_id}, which does not exist")
            payment, attempt = await self.resolve(payment, attempt)
            response = render(payment)
            await self._store.commit(Commit(response=StoredResponse(merchant_id, key, response)))
            return response
        finally:
            self._alive.discard(payment_id)

    # Learn

    async def learn(
        self, payment: Payment, attempt: Attempt, outcome: Outcome, respond: Respond | None = None
    ) -> tuple[Payment, Attempt]:
        """Applies an outcome, and stores what follows together with the response it leads to. Returns both as they are now."""
        for _ in range(CONFLICTS_MAX):
            commit, events, deliveries = self._consequences(payment, attempt, outcome)
            after = commit.payment or payment, commit.attempt or attempt
            if respond is not None:
                commit = msgspec.structs.replace(commit, response=respond(after[0]))
            if commit.payment is None and commit.response is None:
                return after
            committed = await self._store.commit(commit)
            if isinstance(committed, Done):
                if commit.payment is not None:
                    self._announce(after[0], events, deliveries)
                return after
            payment, attempt = self._load(attempt)
        raise StoreError(f"payment {payment.id}: {CONFLICTS_MAX} conflicts in a row")

    def _consequences(
        self, payment: Payment, attempt: Attempt, outcome: Outcome
    ) -> tuple[Commit, Sequence[Event], Sequence[Delivery]]:
        now_ms = self._clock.now_ms()
        fee = self._channels[attempt.provider].fee_basis_points
        taken = step(payment, attempt, outcome, now_ms=now_ms, timestamp=rfc3339(now_ms), fee_basis_points=fee)
        if taken is None:
            return Commit(), (), ()
        deliveries = self._deliveries(taken.events, now_ms)
        commit = Commit(
            payment=taken.payment,
            attempt=self._scheduled(taken.attempt, now_ms),
            entry=taken.entry,
            events=taken.events,
            deliveries=deliveries,
        )
        return commit, taken.events, deliveries

    def _deliveries(self, events: Sequence[Event], now_ms: int) -> list[Delivery]:
        return [
            Delivery(
                endpoint_id=endpoint_id,
                payment_id=event.payment_id,
                sequence=event.sequence,
                event_id=event.id,
                state="pending",
                tries=0,
                due_at_ms=now_ms,
            )
            for event in events
            if event.body is not None
            for endpoint_id in self._endpoints_of.get(event.merchant_id, ())
        ]

    def _scheduled(self, attempt: Attempt, now_ms: int) -> Attempt:
        """The attempt with the time at which recovery has to look at it."""
        match attempt.state:
            case "unknown":
                due_ms = now_ms + self._recovery.unknown_after_ms
            case "pending":
                due_ms = now_ms + self._recovery.pending_after_ms
            case "reversing":
                due_ms = now_ms
            case _:
                return attempt
        return msgspec.structs.replace(attempt, due_at_ms=due_ms)

    def _load(self, attempt: Attempt) -> tuple[Payment, Attempt]:
        """Both as they are now. The payment first: if a commit comes between the two reads, its version is the old one, and what is
        decided on the pair meets a conflict. The other way round a stale attempt would pass."""
        payment = self._store.payment(attempt.payment_id)
        fresh = self._store.attempt(attempt.reference)
        if payment is None or fresh is None:
            raise StoreError(f"attempt {attempt.reference} or its payment {attempt.payment_id} does not exist")
        return payment, fresh

    # Resolve: status inquiry and reversal

    async def recover(self, due: Attempt) -> tuple[Payment, Attempt]:
        """Resolves an attempt that is due. It is read again: somebody may have learnt about it since it was found to be due."""
        payment, attempt = self._load(due)
        return await self.resolve(payment, attempt)

    async def resolve(self, payment: Payment, attempt: Attempt) -> tuple[Payment, Attempt]:
        """Asks the provider about an open attempt by our reference, and reverses it where that is what follows."""
        if attempt.state in OPEN_STATES and attempt.state != "reversing":
            payment, attempt = await self._inquire(payment, attempt)
        if attempt.state == "reversing":
            payment, attempt = await self._reverse(payment, attempt)
        return payment, attempt

    async def _inquire(self, payment: Payment, attempt: Attempt) -> tuple[Payment, Attempt]:
        channel = self._channels[attempt.provider]
        outcome = _of_an_inquiry(await channel.provider.inquire(attempt, deadline_s=channel.timeout_ms / 1000))
        if isinstance(outcome, Pending) and self._clock.now_ms() > attempt.expires_at_ms + OVERDUE_GRACE_MS:
            outcome = Overdue()
        return await self._learn_or_wait(payment, attempt, outcome)

    async def _reverse(self, payment: Payment, attempt: Attempt) -> tuple[Payment, Attempt]:
        channel = self._channels[attempt.provider]
        outcome = _of_an_inquiry(await channel.provider.reverse(attempt, deadline_s=channel.timeout_ms / 1000))
        return await self._learn_or_wait(payment, attempt, outcome)

    async def _learn_or_wait(self, payment: Payment, attempt: Attempt, outcome: Outcome) -> tuple[Payment, Attempt]:
        """Learns; if that left the attempt where it was, recovery looks again, later each time."""
        now_ms = self._clock.now_ms()
        old = now_ms > attempt.created_at_ms + self._recovery.give_up_after_ms
        if isinstance(outcome, Unknown) and old and attempt.inquiries >= self._recovery.give_up_inquiries:
            outcome = GaveUp()
        after_payment, after = await self.learn(payment, attempt, outcome)
        if after.state != attempt.state or after.due_at_ms is None:
            return after_payment, after
        return await self._postpone(after_payment, after, now_ms)

    async def _postpone(self, payment: Payment, attempt: Attempt, now_ms: int) -> tuple[Payment, Attempt]:
        first_ms = self._recovery.pending_after_ms if attempt.state == "pending" else self._recovery.unknown_after_ms
        wait_ms = min(first_ms * 2 ** min(attempt.inquiries, 20), self._recovery.backoff_max_ms)
        later = msgspec.structs.replace(attempt, inquiries=attempt.inquiries + 1, due_at_ms=now_ms + wait_ms)
        touched = msgspec.structs.replace(payment, version=payment.version + 1)
        committed = await self._store.commit(Commit(payment=touched, attempt=later))
        # On a conflict somebody else has just learnt more: what they wrote stands.
        return (touched, later) if isinstance(committed, Done) else self._load(attempt)

    # Callback

    async def callback(self, provider: Method, body: bytes) -> Payment:
        """Applies a provider's verified callback. Raises CallerError 400 for a malformed one, 404 for an unknown reference."""
        try:
            told = _decode_callback(body)
        except UNREADABLE as error:
            raise CallerError(400, "invalid_request", f"callback: {error}") from error
        attempt = self._store.attempt(told.reference)
        if PROVIDER_NAMES[told.provider] != provider or attempt is None or attempt.provider != provider:
            raise not_found("reference")
        payment, attempt = self._load(attempt)
        outcome = self._channels[provider].provider.read_callback(body, attempt)
        if isinstance(outcome, Unknown):
            log.warning("callback.refused", payment_id=payment.id, reference=attempt.reference, reason=outcome.reason)
            raise CallerError(400, "invalid_request", f"callback: {outcome.reason}")
        payment, _ = await self.learn(payment, attempt, outcome)
        return payment

    # Read

    def payment(self, merchant_id: str, payment_id: str) -> Payment:
        """Raises CallerError 404 if there is none, or if it is somebody else's."""
        payment = self._store.payment(payment_id)
        if payment is None or payment.merchant_id != merchant_id:
            raise not_found("payment")
        return payment

    def transaction(self, merchant_id: str, transaction_id: str) -> Transaction:
        """Raises CallerError 404 if there is none, or if it is somebody else's."""
        transaction = self._store.transaction(transaction_id)
        if transaction is None or transaction.merchant_id != merchant_id:
            raise not_found("transaction")
        return transaction


def _of_an_inquiry(outcome: Outcome) -> Outcome:
    """That *this* call was not sent says nothing about the charge: only a create that was not sent is definite."""
    return Unknown(f"not sent: {outcome.reason}") if isinstance(outcome, NotSent) else outcome


def _still_running() -> CallerError:
    return CallerError(409, "idempotency_in_flight", "a request with this Idempotency-Key is still running; retry in a moment")


def _mismatch() -> CallerError:
    return CallerError(422, "idempotency_key_reused", "this Idempotency-Key was used with another request body; use a new key")


class _Details(msgspec.Struct, omit_defaults=True, rename="camel"):
    """What is kept of a request besides the columns: a card as token, brand, BIN and last four, never its number or CVV."""

    customer: msgspec.Struct
    card: dict[str, str] | None = None
    upi: dict[str, str] | None = None
    netbanking: dict[str, str] | None = None
    return_url: str | None = None
    metadata: dict[str, str] | None = None


def _details(order: Order, token: str | None) -> _Details:
    details = _Details(order.customer, return_url=order.instrument.return_url, metadata=order.metadata)
    instrument = order.instrument
    if (card := instrument.card) is not None and token is not None:
        told = cards.summary(card.number)
        expiry = {"expiryMonth": card.expiry_month, "expiryYear": card.expiry_year}
        details.card = {"token": token, "brand": told.brand, "bin": told.bin, "last4": told.last4, **expiry}
    elif instrument.upi_flow is not None:
        details.upi = {"flow": instrument.upi_flow} | ({"vpa": instrument.vpa} if instrument.vpa else {})
    elif instrument.bank_code is not None:
        details.netbanking = {"bankCode": instrument.bank_code}
    return details
