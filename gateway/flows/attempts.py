"""What becomes of an attempt: everything that is learnt about one, from its provider's answer, a callback, an inquiry or a reversal.

learn     what all of these end in: `core.payment.step`, and one commit of what follows from it
resolve   asks the provider by our reference, and reverses where that is what follows
callback  a provider's signed word -> commit
"""

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec
import structlog

from gateway.config import Recovery
from gateway.core import authentication
from gateway.core.errors import UNREADABLE, CallerError, StoreError, not_found
from gateway.core.outcome import GaveUp, Lapsed, NotSent, Outcome, Overdue, Pending, Unknown
from gateway.core.payment import OPEN_STATES, Attempt, AttemptState, Method, Payment, begin_ending, step
from gateway.flows.channels import OVERDUE_GRACE_MS, PROVIDER_NAMES, Channel
from gateway.flows.idempotency import CONFLICTS_MAX, Turns
from gateway.flows.publishing import Publisher
from gateway.ports import Clock, Commit, Done, Store, StoredResponse
from gateway.runtime import rfc3339

log = structlog.get_logger("gateway.attempts")

Respond = Callable[[Payment], StoredResponse]


class _Callback(msgspec.Struct, frozen=True):
    """The part of a callback that says which attempt it is about."""

    reference: str
    provider: Literal["card", "upi", "bank"]


_AFTER_DECLINE: frozenset[AttemptState] = frozenset({"declined", "reversing", "reversed", "manual_review"})

_decode_callback = msgspec.json.Decoder(_Callback).decode


class Attempts:
    def __init__(
        self,
        *,
        store: Store,
        channels: Mapping[Method, Channel],
        clock: Clock,
        recovery: Recovery,
        publisher: Publisher,
        turns: Turns,
    ) -> None:
        self._store = store
        self._channels = channels
        self._clock = clock
        self._recovery = recovery
        self._publisher = publisher
        self._turns = turns

    # Resolve: status inquiry and reversal

    async def recover(self, due: Attempt) -> str:
        """Resolves an attempt that is due; returns its state. It is read again: somebody may have learnt about it since it was found."""
        _, attempt = await self.resolve(*self._load(due))
        return attempt.state

    async def resolve(self, payment: Payment, attempt: Attempt) -> tuple[Payment, Attempt]:
        """Asks the provider about an open attempt by our reference, and reverses it where that is what follows."""
        if attempt.state == "authorized":
            payment, attempt = await self._expire(payment, attempt)
        elif attempt.state in OPEN_STATES and attempt.state != "reversing":
            payment, attempt = await self._inquire(payment, attempt)
        if attempt.state == "reversing":
            payment, attempt = await self._reverse(payment, attempt)
        return payment, attempt

    async def _expire(self, payment: Payment, attempt: Attempt) -> tuple[Payment, Attempt]:
        """Ends an authorization whose time is up: what was captured of it stays, the rest is released."""
        now_ms = self._clock.now_ms()
        if attempt.due_at_ms is None or now_ms < attempt.due_at_ms or payment.ending is not None:
            return payment, attempt
        if payment.capturing_minor:
            return await self._postpone(payment, attempt, now_ms)
        if payment.status == "partially_captured":
            return await self.learn(payment, attempt, Lapsed())
        begun = begin_ending(payment, attempt, "expired", now_ms=now_ms)
        committed = await self._publisher.commit(Commit(payment=begun.payment, attempt=begun.attempt))
        return (begun.payment, begun.attempt) if isinstance(committed, Done) else self._load(attempt)

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
        """Learns; if that left the attempt where it was, recovery looks again, later each time, but not for ever."""
        now_ms = self._clock.now_ms()
        after_payment, after = await self.learn(payment, attempt, outcome)
        if after.state != attempt.state or after.due_at_ms is None:
            return after_payment, after
        old = now_ms > attempt.created_at_ms + self._recovery.give_up_after_ms
        if old and attempt.inquiries >= self._recovery.give_up_inquiries:
            return await self.learn(after_payment, after, GaveUp())
        return await self._postpone(after_payment, after, now_ms)

    async def _postpone(self, payment: Payment, attempt: Attempt, now_ms: int) -> tuple[Payment, Attempt]:
        first_ms = self._recovery.pending_after_ms if attempt.state == "pending" else self._recovery.unknown_after_ms
        wait_ms = min(first_ms * 2 ** min(attempt.inquiries, 20), self._recovery.backoff_max_ms)
        later = msgspec.structs.replace(attempt, inquiries=attempt.inquiries + 1, due_at_ms=now_ms + wait_ms)
        touched = msgspec.structs.replace(payment, version=payment.version + 1)
        committed = await self._store.commit(Commit(payment=touched, attempt=later))
        # On a conflict somebody else has just learnt more: what they wrote stands.
        return (touched, later) if isinstance(committed, Done) else self._load(attempt)

    # Learn

    async def learn(
        self, payment: Payment, attempt: Attempt, outcome: Outcome, respond: Respond | None = None
    ) -> tuple[Payment, Attempt]:
        """Applies an outcome, and stores what follows together with the response it leads to. Returns both as they are now."""
        learnt = await self._try_to_learn(payment, attempt, outcome, respond)
        if learnt is not None:
            return learnt
        async with self._turns.of(payment.id):
            for _ in range(CONFLICTS_MAX):
                learnt = await self._try_to_learn(*self._load(attempt), outcome, respond)
                if learnt is not None:
                    return learnt
        raise StoreError(f"payment {payment.id}: {CONFLICTS_MAX} conflicts in a row")

    async def _try_to_learn(
        self, payment: Payment, attempt: Attempt, outcome: Outcome, respond: Respond | None
    ) -> tuple[Payment, Attempt] | None:
        """None after a conflict."""
        commit = self._consequences(payment, attempt, outcome)
        after = commit.payment or payment, commit.attempt or attempt
        if respond is not None:
            commit = msgspec.structs.replace(commit, response=respond(after[0]))
        if commit.payment is None and commit.response is None:
            return after
        return after if isinstance(await self._publisher.commit(commit), Done) else None

    def _consequences(self, payment: Payment, attempt: Attempt, outcome: Outcome) -> Commit:
        now_ms = self._clock.now_ms()
        fee = self._channels[attempt.provider].fee_basis_points
        taken = step(
            payment,
            attempt,
            outcome,
            now_ms=now_ms,
            timestamp=rfc3339(now_ms),
            fee_basis_points=fee,
            superseded=self._is_superseded(attempt),
        )
        if taken is None:
            return Commit()
        return Commit(
            payment=taken.payment,
            attempt=self._scheduled(taken.attempt, now_ms),
            entries=taken.entries,
            events=taken.events,
        )

    def _is_superseded(self, attempt: Attempt) -> bool:
        """Whether the payment no longer goes by this attempt. Only one that was declined has a successor: the others need no look."""
        if attempt.state not in _AFTER_DECLINE or not attempt.reference.endswith("_01"):
            return False
        return self._store.authentication(authentication.id_for(attempt.payment_id)) is not None

    def _scheduled(self, attempt: Attempt, now_ms: int) -> Attempt:
        """The attempt with the time at which recovery has to look at it."""
        match attempt.state:
            case "unknown":
                due_ms = now_ms + self._recovery.unknown_after_ms
            case "pending":
                due_ms = now_ms + self._recovery.pending_after_ms
            case "reversing":
                due_ms = now_ms
            case "authorized":
                due_ms = attempt.created_at_ms + self._recovery.authorization_lifetime_ms
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


def _of_an_inquiry(outcome: Outcome) -> Outcome:
    """That *this* call was not sent says nothing about the charge: only a create that was not sent is definite."""
    return Unknown(f"not sent: {outcome.reason}") if isinstance(outcome, NotSent) else outcome
