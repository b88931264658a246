"""The story of a dispute: the provider opens it, the merchant accepts it or answers with evidence, the issuer decides.

The provider's word comes by signed callback, as the answer to what the merchant does, or by inquiry where nobody told; all end in
`core.dispute.step` and one commit.

What the merchant does is durable before the provider hears of it, and sent until the provider has taken or refused it. Sending it twice
is harmless: the provider refuses it the second time, and an inquiry tells that the first one arrived.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec
import structlog

from gateway.core import dispute as core
from gateway.core.dispute import Dispute, begin_response
from gateway.core.errors import UNREADABLE, CallerError, StoreError, not_found
from gateway.core.outcome import Declined, NotSent, Unknown
from gateway.core.payment import Method, Payment
from gateway.flows.channels import INTENT_GRACE_MS, PROVIDER_NAMES, Channel
from gateway.flows.idempotency import CONFLICTS_MAX, IdempotencyKey, Running, Turns, begin
from gateway.flows.publishing import Publisher
from gateway.ports import Clock, Commit, DisputeResponse, DisputeTold, Done, Ids, InFlight, Response, Store
from gateway.runtime import rfc3339

log = structlog.get_logger("gateway.disputes")

INQUIRY_EVERY_MS = 3_600_000  # of an open dispute nobody tells about: issuers decide in days
RESEND_AFTER_MS = 1_000  # of a response that the provider has not answered; doubles each time, up to INQUIRY_EVERY_MS

Render = Callable[[Dispute], Response]


class _Callback(msgspec.Struct, frozen=True):
    provider: Literal["card", "upi", "bank"]
    type: Literal["dispute"]


_decode_callback = msgspec.json.Decoder(_Callback).decode


class Disputes:
    def __init__(
        self,
        *,
        store: Store,
        channels: Mapping[Method, Channel],
        clock: Clock,
        ids: Ids,
        publisher: Publisher,
        turns: Turns,
    ) -> None:
        self._store = store
        self._channels = channels
        self._clock = clock
        self._ids = ids
        self._publisher = publisher
        self._turns = turns
        self._running = Running()

    async def callback(self, provider: Method, body: bytes) -> Dispute:
        """Applies a provider's verified callback about a dispute. Raises CallerError 400 for a malformed one, 404 for an unknown charge."""
        try:
            told_by = PROVIDER_NAMES[_decode_callback(body).provider]
        except UNREADABLE as error:
            raise CallerError(400, "invalid_request", f"callback: {error}") from error
        told = self._channels[provider].provider.read_dispute(body)
        if not isinstance(told, DisputeTold):
            raise CallerError(400, "invalid_request", f"callback: {told.reason}")
        if told_by != provider:
            raise not_found("reference")
        return await self._learn(provider, told)

    # Respond

    async def respond(
        self, merchant_id: str, dispute_id: str, evidence: str | None, key: IdempotencyKey | None, render: Render
    ) -> Response:
        """Answers a dispute with evidence, or (None) accepts it. Raises CallerError 404, 409, or 422 for the key's sake. As long as the
        provider has not taken it, the dispute is `responding`, and recovery sends it again. Raises Overloaded."""
        dispute = self.dispute(merchant_id, dispute_id)
        with self._running.of(key), self._channels[dispute.provider].calls.changing:
            return await self._respond(dispute_id, evidence, key, render)

    async def _respond(self, dispute_id: str, evidence: str | None, key: IdempotencyKey | None, render: Render) -> Response:
        def decide() -> tuple[Commit, Dispute]:
            now_ms = self._clock.now_ms()
            payment, dispute = self._load(dispute_id)
            work = begin_response(payment, dispute, evidence, now_ms=now_ms)
            wait_ms = 2 * self._channels[dispute.provider].timeout_ms + INTENT_GRACE_MS  # the response, then an inquiry
            responding = msgspec.structs.replace(work.dispute, due_at_ms=now_ms + wait_ms)
            return Commit(payment=work.payment, dispute=responding), responding

        payment_id = self._dispute(dispute_id).payment_id
        async with self._turns.of(payment_id):
            began = await begin(
                decide, key, subject_id=dispute_id, store=self._store, commit=self._publisher.commit, clock=self._clock
            )
        if isinstance(began, Response):
            return began
        if isinstance(began, InFlight):  # of a process that is gone: what it began is finished here
            began = self._dispute(began.subject_id)
        response = render(await self.resolve(began))
        if key is not None:
            await self._store.commit(Commit(response=key.answer(response)))
        return response

    # Resolve

    async def recover(self, due: Dispute) -> str:
        """Sends a response that is due again, or asks about a dispute that nobody has told about for long; returns its status."""
        return (await self.resolve(self._dispute(due.id))).status

    async def resolve(self, dispute: Dispute) -> Dispute:
        """Sends the response that is on its way, if there is one; then asks how the dispute stands, unless that has changed it."""
        if dispute.status in core.FINAL:
            return dispute
        told: DisputeTold | Declined | NotSent | Unknown | None = None
        if dispute.responding is not None:
            told = await self._call(dispute, DisputeResponse(dispute.evidence))
            if isinstance(told, DisputeTold) and (after := await self._heard(dispute, told)).status != dispute.status:
                return after
            log.warning("dispute.no_answer", dispute_id=dispute.id, outcome=told)
        stands = await self._call(dispute, None)
        if isinstance(stands, DisputeTold):
            if (after := await self._heard(dispute, stands)).status != dispute.status:
                return after
            if isinstance(told, Declined):  # and nothing has changed: no earlier response of ours is why
                due_at_ms = self._clock.now_ms() + INQUIRY_EVERY_MS
                return await self._note(dispute, responding=None, failure_reason=told.reason, due_at_ms=due_at_ms)
        return await self._postpone(dispute)

    async def _call(self, dispute: Dispute, response: DisputeResponse | None) -> DisputeTold | Declined | NotSent | Unknown:
        channel = self._channels[dispute.provider]
        return await channel.provider.dispute(dispute.provider_id, response, deadline_s=channel.timeout_ms / 1000)

    async def _postpone(self, dispute: Dispute) -> Dispute:
        wait_ms = INQUIRY_EVERY_MS
        if dispute.responding is not None:
            wait_ms = min(RESEND_AFTER_MS * 2 ** min(dispute.inquiries, 20), INQUIRY_EVERY_MS)
        return await self._note(dispute, inquiries=dispute.inquiries + 1, due_at_ms=self._clock.now_ms() + wait_ms)

    async def _note(self, dispute: Dispute, **fields: Any) -> Dispute:  # noqa: ANN401 - fields of a Dispute
        """Notes something about a dispute, unless somebody has just learnt more."""
        async with self._turns.of(dispute.payment_id):
            payment, fresh = self._load(dispute.id)
            if (fresh.status, fresh.responding) != (dispute.status, dispute.responding):
                return fresh
            noted = msgspec.structs.replace(fresh, **fields)
            touched = msgspec.structs.replace(payment, version=payment.version + 1)
            committed = await self._store.commit(Commit(payment=touched, dispute=noted))
            return noted if isinstance(committed, Done) else self._dispute(dispute.id)

    # Learn

    async def _heard(self, dispute: Dispute, told: DisputeTold) -> Dispute:
        """The dispute after an answer. One that does not fit what we know (yet) leaves it as it is: we ask again."""
        try:
            return await self._learn(dispute.provider, told)
        except CallerError as error:
            log.warning("dispute.answer_refused", dispute_id=dispute.id, reason=error.message)
            return dispute

    async def _learn(self, provider: Method, told: DisputeTold) -> Dispute:
        attempt = self._store.attempt(told.reference)
        if attempt is None or attempt.provider != provider or attempt.currency != told.currency:
            raise not_found("reference")
        async with self._turns.of(attempt.payment_id):
            for _ in range(CONFLICTS_MAX):
                payment = self._store.payment(attempt.payment_id)
                before = self._store.dispute_at(provider, told.provider_id)
                if payment is None:
                    raise StoreError(f"payment {attempt.payment_id} does not exist")
                if before is not None and before.payment_id != payment.id:
                    raise not_found("reference")
                now_ms = self._clock.now_ms()
                dispute = self._as_told(before, told, payment.id, payment.merchant_id, provider, now_ms)
                work = core.step(payment, before, dispute, now_ms=now_ms, timestamp=rfc3339(now_ms))
                if work is None:
                    assert before is not None  # whatever comes first is a step
                    return before
                commit = Commit(payment=work.payment, dispute=work.dispute, entries=work.entries, events=work.events)
                if isinstance(await self._publisher.commit(commit), Done):
                    return work.dispute
        raise StoreError(f"payment {attempt.payment_id}: {CONFLICTS_MAX} conflicts in a row")

    def _as_told(
        self, before: Dispute | None, told: DisputeTold, payment_id: str, merchant_id: str, provider: Method, now_ms: int
    ) -> Dispute:
        return Dispute(
            id=before.id if before else self._ids.new("dsp"),
            provider_id=told.provider_id,
            provider=provider,
            payment_id=payment_id,
            merchant_id=merchant_id,
            reason=told.reason,
            status=told.status,
            amount_minor=before.amount_minor if before else told.amount_minor,
            currency=told.currency,
            respond_by_ms=told.respond_by_ms,
            inquiries=before.inquiries if before else 0,
            due_at_ms=now_ms + INQUIRY_EVERY_MS,
            created_at_ms=before.created_at_ms if before else now_ms,
            updated_at_ms=now_ms,
            evidence=before.evidence if before else None,
        )

    # Read

    def dispute(self, merchant_id: str, dispute_id: str) -> Dispute:
        """Raises CallerError 404 if there is none, or if it is somebody else's."""
        dispute = self._store.dispute(dispute_id)
        if dispute is None or dispute.merchant_id != merchant_id:
            raise not_found("dispute")
        return dispute

    def _dispute(self, dispute_id: str) -> Dispute:
        dispute = self._store.dispute(dispute_id)
        if dispute is None:
            raise StoreError(f"dispute {dispute_id} does not exist")
        return dispute

    def _load(self, dispute_id: str) -> tuple[Payment, Dispute]:
        """Both as they are now. The payment first, see `Payments._load`."""
        payment = self._store.payment(self._dispute(dispute_id).payment_id)
        if payment is None:
            raise StoreError(f"the payment of dispute {dispute_id} does not exist")
        return payment, self._dispute(dispute_id)
