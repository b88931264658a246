"""The story of a capture or refund: decide, commit, call, decide, commit.

perform   commit 1 (key claimed, intent durable, amount set aside on the payment) -> provider -> commit 2 (state, ledger, events, response)
callback  a provider's signed word about a refund -> commit
recover   what is open is asked for again, under the same reference, until the provider answers

The calls are idempotent by our reference, so repeating one is how its fate is found out.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Literal

import msgspec
import structlog

from gateway.config import Recovery
from gateway.core.errors import UNREADABLE, CallerError, StoreError, not_found
from gateway.core.operation import OPEN_STATES, Kind, Operation, Work, begin, capturable_minor, refundable_minor, step
from gateway.core.outcome import NotSent, Outcome, Unknown
from gateway.core.payment import Attempt, Method, Payment
from gateway.flows.channels import INTENT_GRACE_MS, PROVIDER_NAMES, Channel
from gateway.flows.idempotency import CONFLICTS_MAX, IdempotencyKey, Turns, still_running
from gateway.flows.idempotency import begin as begin_once
from gateway.flows.publishing import Publisher
from gateway.ports import Clock, Commit, Done, Ids, InFlight, Response, Store, StoredResponse
from gateway.runtime import rfc3339

log = structlog.get_logger("gateway.operations")

PREFIXES: dict[Kind, Literal["cap", "ref"]] = {"capture": "cap", "refund": "ref"}

Render = Callable[[Payment, Operation], Response]


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What a merchant asks for. `amount_minor` None: all that is left."""

    kind: Kind
    merchant_id: str
    payment_id: str
    amount_minor: int | None
    final: bool = False
    note: str | None = None


class _Callback(msgspec.Struct, frozen=True):
    reference: str
    provider: Literal["card", "upi", "bank"]
    type: Literal["refund"]


_decode_callback = msgspec.json.Decoder(_Callback).decode


class Operations:
    def __init__(
        self,
        *,
        store: Store,
        channels: Mapping[Method, Channel],
        clock: Clock,
        ids: Ids,
        recovery: Recovery,
        publisher: Publisher,
        turns: Turns,
    ) -> None:
        self._store = store
        self._channels = channels
        self._clock = clock
        self._ids = ids
        self._recovery = recovery
        self._publisher = publisher
        self._turns = turns
        self._alive: set[str] = set()  # operations that a request of this process is working on

    # Perform

    async def perform(self, ask: Ask, key: IdempotencyKey | None, render: Render) -> Response:
        """Captures or refunds. Raises CallerError 404, 409, or 422 for the key's sake, Overloaded; the provider's refusal is a Response."""
        payment = self._store.payment(ask.payment_id)
        with nullcontext() if payment is None else self._channels[payment.method].calls.changing:
            return await self._perform(ask, key, render)

    async def _perform(self, ask: Ask, key: IdempotencyKey | None, render: Render) -> Response:
        operation_id = self._ids.new(PREFIXES[ask.kind])
        self._alive.add(operation_id)  # before the claim is made: who meets it must see that its work is under way
        try:
            began = await self._begin(ask, operation_id, key)
            if isinstance(began, Response):
                return began
            if isinstance(began, InFlight):
                assert key is not None
                return await self._finish(began.subject_id, key, render)
            outcome = await self._call(began.operation)
            if isinstance(outcome, Unknown | NotSent):
                log.warning("provider.no_answer", payment_id=ask.payment_id, operation=operation_id, outcome=outcome)
            respond = None if key is None else lambda payment, operation: key.answer(render(payment, operation))
            return render(*await self._learn(operation_id, outcome, respond))
        finally:
            self._alive.discard(operation_id)

    async def _begin(self, ask: Ask, operation_id: str, key: IdempotencyKey | None) -> Work | InFlight | Response:
        """Commit 1."""

        def decide() -> tuple[Commit, Work]:
            work = self._intent(ask, operation_id)
            return Commit(payment=work.payment, operation=work.operation, events=work.events), work

        async with self._turns.of(ask.payment_id):
            return await begin_once(
                decide, key, subject_id=operation_id, store=self._store, commit=self._publisher.commit, clock=self._clock
            )

    def _intent(self, ask: Ask, operation_id: str) -> Work:
        now_ms = self._clock.now_ms()
        payment, attempt = self._store.payment(ask.payment_id), self._store.attempt_of(ask.payment_id)
        if payment is None or attempt is None or payment.merchant_id != ask.merchant_id:
            raise not_found("payment")
        left = capturable_minor(payment) if ask.kind == "capture" else refundable_minor(payment)
        operation = Operation(
            id=operation_id,
            kind=ask.kind,
            payment_id=payment.id,
            merchant_id=payment.merchant_id,
            provider=attempt.provider,
            charge_reference=attempt.reference,
            # 1 where nothing is left: the decision refuses it, and says why.
            amount_minor=ask.amount_minor or left or 1,
            currency=payment.currency,
            final=ask.final,
            note=ask.note,
            due_at_ms=now_ms + self._channels[attempt.provider].timeout_ms + INTENT_GRACE_MS,
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
        )
        return begin(payment, operation, now_ms=now_ms, timestamp=rfc3339(now_ms))

    async def _finish(self, operation_id: str, key: IdempotencyKey, render: Render) -> Response:
        """The key was claimed, and nothing answered yet: by a request that is running (409), or by one whose process is gone."""
        if operation_id in self._alive:
            raise still_running()
        self._alive.add(operation_id)
        try:
            payment, operation = await self.resolve(self._operation(operation_id))
            response = render(payment, operation)
            await self._store.commit(Commit(response=key.answer(response)))
            return response
        finally:
            self._alive.discard(operation_id)

    async def _call(self, operation: Operation) -> Outcome:
        channel = self._channels[operation.provider]
        call = channel.provider.capture if operation.kind == "capture" else channel.provider.refund
        return await call(operation, deadline_s=channel.timeout_ms / 1000)

    # Learn

    async def _learn(
        self, operation_id: str, outcome: Outcome, respond: Callable[[Payment, Operation], StoredResponse] | None = None
    ) -> tuple[Payment, Operation]:
        """Applies an outcome, and stores what follows together with the response it leads to. Returns both as they are now."""
        payment_id = self._operation(operation_id).payment_id
        async with self._turns.of(payment_id):
            for _ in range(CONFLICTS_MAX):
                payment, attempt, operation = self._load(operation_id)
                commit = self._consequences(payment, attempt, operation, outcome)
                after = commit.payment or payment, commit.operation or operation
                if respond is not None:
                    commit = msgspec.structs.replace(commit, response=respond(*after))
                if commit.payment is None and commit.response is None:
                    return after
                if isinstance(await self._publisher.commit(commit), Done):
                    return after
        raise StoreError(f"payment {payment_id}: {CONFLICTS_MAX} conflicts in a row")

    def _consequences(self, payment: Payment, attempt: Attempt, operation: Operation, outcome: Outcome) -> Commit:
        now_ms = self._clock.now_ms()
        work = step(
            payment,
            attempt,
            operation,
            outcome,
            now_ms=now_ms,
            timestamp=rfc3339(now_ms),
            fee_basis_points=self._channels[operation.provider].fee_basis_points,
        )
        if work is None:
            return Commit()
        return Commit(
            payment=work.payment,
            attempt=work.attempt,
            operation=self._scheduled(work.operation, now_ms),
            entries=work.entries,
            events=work.events,
        )

    def _scheduled(self, operation: Operation, now_ms: int) -> Operation:
        if operation.state not in OPEN_STATES:
            return operation
        waits = operation.state == "processing"
        first_ms = self._recovery.pending_after_ms if waits else self._recovery.unknown_after_ms
        return msgspec.structs.replace(operation, due_at_ms=now_ms + first_ms)

    def _operation(self, operation_id: str) -> Operation:
        operation = self._store.operation(operation_id)
        if operation is None:
            raise StoreError(f"operation {operation_id} does not exist")
        return operation

    def _load(self, operation_id: str) -> tuple[Payment, Attempt, Operation]:
        """All as they are now. The payment first, see `Payments._load`."""
        payment = self._store.payment(self._operation(operation_id).payment_id)
        if payment is None or (attempt := self._store.attempt_of(payment.id)) is None:
            raise StoreError(f"the payment of operation {operation_id} does not exist")
        return payment, attempt, self._operation(operation_id)

    # Resolve

    async def recover(self, due: Operation) -> str:
        """Resolves a capture or refund that is due; returns its state."""
        _, operation = await self.resolve(self._operation(due.id))
        return operation.state

    async def resolve(self, operation: Operation) -> tuple[Payment, Operation]:
        """Asks for an open operation again, under its reference; the provider does nothing twice, and answers what became of it."""
        if operation.state not in OPEN_STATES:
            return self._load(operation.id)[0], operation
        outcome = await self._call(operation)
        if isinstance(outcome, NotSent):  # says nothing about the call before
            outcome = Unknown(f"not sent: {outcome.reason}")
        payment, after = await self._learn(operation.id, outcome)
        if after.state != operation.state or after.due_at_ms is None:
            return payment, after
        return payment, await self._postpone(after)

    async def _postpone(self, operation: Operation) -> Operation:
        now_ms = self._clock.now_ms()
        waits = operation.state == "processing"
        first_ms = self._recovery.pending_after_ms if waits else self._recovery.unknown_after_ms
        wait_ms = min(first_ms * 2 ** min(operation.inquiries, 20), self._recovery.backoff_max_ms)
        async with self._turns.of(operation.payment_id):
            payment, _, fresh = self._load(operation.id)
            if fresh.state != operation.state:
                return fresh
            later = msgspec.structs.replace(fresh, inquiries=fresh.inquiries + 1, due_at_ms=now_ms + wait_ms)
            touched = msgspec.structs.replace(payment, version=payment.version + 1)
            committed = await self._store.commit(Commit(payment=touched, operation=later))
            return later if isinstance(committed, Done) else self._operation(operation.id)

    # Callback

    async def callback(self, provider: Method, body: bytes) -> Operation:
        """Applies a provider's verified callback about a refund. Raises CallerError 400 for a malformed one, 404 for an unknown one."""
        try:
            told = _decode_callback(body)
        except UNREADABLE as error:
            raise CallerError(400, "invalid_request", f"callback: {error}") from error
        operation = self._store.operation(told.reference)
        if (
            operation is None
            or operation.kind != "refund"
            or PROVIDER_NAMES[told.provider] != provider
            or operation.provider != provider
        ):
            raise not_found("reference")
        outcome = self._channels[provider].provider.read_refund(body, operation)
        if isinstance(outcome, Unknown):
            log.warning("callback.refused", operation=operation.id, reason=outcome.reason)
            raise CallerError(400, "invalid_request", f"callback: {outcome.reason}")
        _, after = await self._learn(operation.id, outcome)
        return after

    # Read

    def refund(self, merchant_id: str, refund_id: str) -> Operation:
        """Raises CallerError 404 if there is none, or if it is somebody else's."""
        operation = self._store.operation(refund_id)
        if operation is None or operation.kind != "refund" or operation.merchant_id != merchant_id:
            raise not_found("refund")
        return operation
