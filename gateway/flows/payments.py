"""The story of a payment: decide, commit, call, decide, commit.

process    commit 1 (key claimed, payment and attempt durable) -> provider -> commit 2 (state, ledger, outbox, response) -> answer
finish     a retry of work that a crash interrupted: asks the provider by our reference; never a second charge
void       the intent to reverse -> provider -> commit; so does recovery, for authorizations that expire
came_back  the customer's browser is back: the provider is asked

What becomes of the provider's answer is in attempts.py.
"""

from collections.abc import Callable, Mapping
from typing import Literal, assert_never

import msgspec
import structlog

from gateway.config import Recovery
from gateway.core import authentication, cards
from gateway.core.errors import Overloaded, StoreError, not_found
from gateway.core.outcome import Declined, NotSent, Unknown
from gateway.core.payment import UNSETTLED, Attempt, Method, Payment, Step, begin, begin_ending
from gateway.flows.attempts import Attempts, Respond
from gateway.flows.authentications import Authentications
from gateway.flows.channels import INTENT_GRACE_MS, LIFETIME_MS, Channel
from gateway.flows.idempotency import IdempotencyKey, Running, Turns, mismatch, still_running
from gateway.flows.idempotency import begin as begin_once
from gateway.flows.publishing import Publisher
from gateway.ports import (
    Clock,
    Commit,
    Conflict,
    Done,
    Ids,
    InFlight,
    Instrument,
    Mismatch,
    Replay,
    Response,
    Store,
    Transaction,
)
from gateway.runtime import rfc3339
from gateway.vault import Vault

# Inquiries about what waits for a customer, after which no browser causes another one: anybody can call up where customers return to.
# Recovery itself makes about 15 before time is up.
RETURN_INQUIRIES_MAX = 30

log = structlog.get_logger("gateway.payments")

Render = Callable[[Payment], Response]


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
    capture_method: Literal["automatic", "manual"] = "automatic"


_encode = msgspec.json.Encoder().encode


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
        publisher: Publisher,
        turns: Turns,
    ) -> None:
        self._store = store
        self._channels = channels
        self._vault = vault
        self._clock = clock
        self._ids = ids
        self._publisher = publisher
        self._turns = turns
        self._returning = Turns()
        self._alive: set[str] = set()  # payments that a request of this process is working on
        self._running = Running()  # of voids
        self.attempts = Attempts(
            store=store, channels=channels, clock=clock, recovery=recovery, publisher=publisher, turns=turns
        )
        self.authentications = Authentications(
            store=store,
            channels=channels,
            vault=vault,
            clock=clock,
            recovery=recovery,
            publisher=publisher,
            learn=self.attempts.learn,
        )

    # Process

    async def process(self, order: Order, key: IdempotencyKey | None, render: Render) -> Response:
        """Pays. Raises CallerError 409 or 422 for the key's sake, Overloaded; a decline is a Response like any other."""
        with self._channels[order.method].calls.creating:
            begun, commit = self._intent(order, key)
            # Before the claim is made: whoever meets that claim must be able to see that its work is not interrupted, but under way.
            self._alive.add(begun.payment.id)
            try:
                return await self._process(order, key, render, begun, commit)
            finally:
                self._alive.discard(begun.payment.id)

    async def _process(self, order: Order, key: IdempotencyKey | None, render: Render, begun: Step, commit: Commit) -> Response:
        committed = await self._publisher.commit(commit)
        match committed:
            case Done():
                pass
            case Replay():
                return committed.response
            case InFlight():
                assert key is not None
                return await self._finish(committed.subject_id, key, render)
            case Mismatch():
                raise mismatch()
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
            respond = lambda payment: key.answer(render(payment))  # noqa: E731 - closes over two names
        payment = None
        card = order.instrument.card
        if isinstance(outcome, Declined) and outcome.reason == authentication.REQUIRED and card is not None:
            payment = await self.authentications.begin(begun.payment, begun.attempt, outcome, card, respond)
        if payment is None:
            payment, _ = await self.attempts.learn(begun.payment, begun.attempt, outcome, respond)
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
            capture_method=order.capture_method,
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
        return begun, Commit(
            claim=None if key is None else key.claim(payment_id, now_ms),
            payment=begun.payment,
            attempt=attempt,
            card=sealed,
            events=begun.events,
        )

    async def _finish(self, payment_id: str, key: IdempotencyKey, render: Render) -> Response:
        """The key was claimed, and nothing answered yet: by a request that is running (409), or by one whose process is gone, whose
        payment is finished here, and answered."""
        if payment_id in self._alive:
            raise still_running()
        self._alive.add(payment_id)
        try:
            payment, _ = await self.attempts.resolve(*self._latest(payment_id))
            if payment.status in UNSETTLED and self._is_authenticating(payment_id):
                payment = await self.authentications.resolve(payment_id)
            response = render(payment)
            await self._store.commit(Commit(response=key.answer(response)))
            return response
        finally:
            self._alive.discard(payment_id)

    def _latest(self, payment_id: str) -> tuple[Payment, Attempt]:
        payment, attempt = self._store.payment(payment_id), self._store.attempt_of(payment_id)
        if payment is None or attempt is None:
            raise StoreError(f"payment {payment_id} does not exist, or has no attempt")
        return payment, attempt

    def _is_authenticating(self, payment_id: str) -> bool:
        """Or did so: from then on the payment does not go by its first attempt any more."""
        return self._store.authentication(authentication.id_for(payment_id)) is not None

    # Void

    async def void(self, merchant_id: str, payment_id: str, key: IdempotencyKey | None, render: Render) -> Response:
        """Releases what is authorized, or cancels what waits for the customer. Raises CallerError 404, 409, or 422 for the key's sake,
        Overloaded."""
        payment = self.payment(merchant_id, payment_id)
        with self._running.of(key), self._channels[payment.method].calls.changing:
            return await self._void(payment_id, key, render)

    async def _void(self, payment_id: str, key: IdempotencyKey | None, render: Render) -> Response:
        def decide() -> tuple[Commit, None]:
            if (cancelling := self.authentications.cancel(payment_id)) is not None:
                return cancelling, None
            now_ms = self._clock.now_ms()
            begun = begin_ending(*self._latest(payment_id), "voided", now_ms=now_ms)
            wait_ms = self._channels[begun.attempt.provider].timeout_ms + INTENT_GRACE_MS
            due = msgspec.structs.replace(begun.attempt, due_at_ms=now_ms + wait_ms)
            return Commit(payment=begun.payment, attempt=due), None

        async with self._turns.of(payment_id):
            began = await begin_once(
                decide, key, subject_id=payment_id, store=self._store, commit=self._publisher.commit, clock=self._clock
            )
        if isinstance(began, Response):
            return began
        self.authentications.forget(payment_id)
        # InFlight: it was begun by a process that is gone, and is finished here.
        payment, _ = await self.attempts.resolve(*self._latest(payment_id))
        response = render(payment)
        if key is not None:
            await self._store.commit(Commit(response=key.answer(response)))
        return response

    # Return

    async def came_back(self, payment_id: str) -> Payment:
        """The customer's browser is back, which proves nothing: the provider is asked, but not for ever. Raises CallerError 404."""
        if self._store.payment(payment_id) is None:
            raise not_found("payment")
        async with self._returning.of(payment_id):
            payment, attempt = self._latest(payment_id)
            if payment.status not in UNSETTLED:
                return payment
            try:
                with self._channels[payment.method].calls.changing:
                    return await self._ask_how_it_went(payment, attempt)
            except Overloaded:
                return payment  # recovery asks, and the merchant is told

    async def _ask_how_it_went(self, payment: Payment, attempt: Attempt) -> Payment:
        authenticating = self._store.authentication(authentication.id_for(payment.id))
        if authenticating is not None and authenticating.inquiries < RETURN_INQUIRIES_MAX:
            return await self.authentications.resolve(payment.id)
        if authenticating is None and attempt.state == "pending" and attempt.inquiries < RETURN_INQUIRIES_MAX:
            payment, _ = await self.attempts.resolve(payment, attempt)
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
