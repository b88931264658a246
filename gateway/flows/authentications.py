"""The story of an authentication (3-D Secure 2): the issuer wants to know the cardholder before it lets the card be charged.

begin     the decline that asks for it and the intent to authenticate: one commit -> provider -> what it says
resolve   the customer came back, the provider called back, or recovery looks: the provider's word -> commit -> the second attempt, if the
          customer is who they say
cancel    the merchant voids the payment while its customer is challenged

One at a time for each payment: who comes second waits, and sees what became of it.

The security code may not be stored, and the acquirer takes no charge without one: what the second attempt needs besides the number (which
is in the vault) stays in memory, `Cards` says how long. If it is gone, because the gateway was restarted, the payment fails.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

import msgspec
import structlog

from gateway.config import Recovery
from gateway.core.authentication import (
    OPEN_STATES,
    TRANSITIONS,
    Authentication,
    Finding,
    Told,
    Work,
    begin,
    id_for,
    step,
)
from gateway.core.errors import UNREADABLE, CallerError, StoreError, not_found
from gateway.core.outcome import Declined, NotSent, Outcome, Unknown
from gateway.core.payment import Attempt, Method, Payment
from gateway.flows.channels import INTENT_GRACE_MS, LIFETIME_MS, PROVIDER_NAMES, Channel
from gateway.flows.idempotency import CONFLICTS_MAX, Turns
from gateway.flows.publishing import Publisher
from gateway.ports import CardSecret, Clock, Commit, Done, Instrument, Store, StoredResponse
from gateway.runtime import rfc3339
from gateway.vault import Vault

CALLER_MS = 1_800  # of the caller's 2 s (DOMAIN, targets), the rest being for the commits
CALL_MS_MIN = 300  # a call that gets less would only be a request without an answer
KEPT_MAX = 20_000  # cards in memory: 175 payments/s, a sixth of them challenged, each for at most 11 minutes; 10 MB
KEPT_SLACK_MS = 60_000  # beyond the last moment at which an authentication can succeed

log = structlog.get_logger("gateway.authentications")

Respond = Callable[[Payment], StoredResponse]
Learn = Callable[[Payment, Attempt, Outcome, Respond | None], Awaitable[tuple[Payment, Attempt]]]


class _Callback(msgspec.Struct, frozen=True):
    reference: str
    provider: Literal["card", "upi", "bank"]
    type: Literal["authentication"]


class _CardDetails(msgspec.Struct, frozen=True):
    token: str


class _Details(msgspec.Struct, frozen=True):
    card: _CardDetails


_decode_callback = msgspec.json.Decoder(_Callback).decode
_decode_details = msgspec.json.Decoder(_Details).decode


class Cards:
    """What is kept of cards, in memory only, while their holders authenticate: expiry, name and security code, but not the number. For a
    fixed time, so that the oldest come first."""

    def __init__(self, lifetime_ms: int) -> None:
        self._lifetime_ms = lifetime_ms
        self._kept: dict[str, tuple[int, CardSecret]] = {}

    def keep(self, payment_id: str, card: CardSecret, now_ms: int) -> bool:
        """False if there is no room."""
        while self._kept and (oldest := next(iter(self._kept))) and self._kept[oldest][0] < now_ms - self._lifetime_ms:
            del self._kept[oldest]
        if len(self._kept) >= KEPT_MAX:
            return False
        self._kept[payment_id] = (now_ms, msgspec.structs.replace(card, number=""))
        return True

    def get(self, payment_id: str) -> CardSecret | None:
        kept = self._kept.get(payment_id)
        return None if kept is None else kept[1]

    def wipe(self, payment_id: str) -> None:
        self._kept.pop(payment_id, None)


class Authentications:
    def __init__(
        self,
        *,
        store: Store,
        channels: Mapping[Method, Channel],
        vault: Vault,
        clock: Clock,
        recovery: Recovery,
        publisher: Publisher,
        learn: Learn,
    ) -> None:
        """`learn` applies what a charge became (`Payments.learn`)."""
        self._store = store
        self._channels = channels
        self._vault = vault
        self._clock = clock
        self._recovery = recovery
        self._publisher = publisher
        self._learn_charge = learn
        self._cards = Cards(LIFETIME_MS["card"] + recovery.authentication_lifetime_ms + KEPT_SLACK_MS)
        self._turns = Turns()

    # Begin

    async def begin(
        self, payment: Payment, attempt: Attempt, declined: Declined, card: CardSecret, respond: Respond | None
    ) -> Payment | None:
        """Ends the attempt that was declined for want of authentication, and goes on as far as it can without the customer. None if it
        cannot be begun, since no more cards can be kept, or somebody else has learnt of the decline: then it is one like any other."""
        now_ms = self._clock.now_ms()
        if not self._cards.keep(payment.id, card, now_ms):
            log.warning("authentication.no_room", payment_id=payment.id)
            return None
        due_at_ms = now_ms + self._channels[attempt.provider].timeout_ms + INTENT_GRACE_MS
        expires_at_ms = now_ms + LIFETIME_MS["card"]
        work = begin(payment, attempt, declined, due_at_ms=due_at_ms, expires_at_ms=expires_at_ms, now_ms=now_ms)
        commit = Commit(payment=work.payment, attempt=work.attempt, authentication=work.authentication)
        committed = None
        try:
            committed = await self._publisher.commit(commit)
        finally:
            if not isinstance(committed, Done):
                self._cards.wipe(payment.id)
        if not isinstance(committed, Done):
            return None
        async with self._turns.of(payment.id):
            learnt = await self._ask(work.payment, work.authentication, payment.created_at_ms + CALLER_MS)
            return await self._go_on(payment.id, learnt, respond)

    # Resolve

    async def recover(self, due: Authentication) -> str:
        """Looks at an authentication that is due; returns its state."""
        await self.resolve(due.payment_id)
        return self._load(due.payment_id)[1].state

    async def resolve(self, payment_id: str, told: Told | None = None) -> Payment:
        """Takes an open authentication as far as it goes, by what the provider `told`, or is asked now. The payment as it is then."""
        async with self._turns.of(payment_id):
            payment, authentication = self._load(payment_id)
            if authentication.state not in OPEN_STATES:
                return payment
            learnt = told or await self._ask(payment, authentication, None)
            return await self._go_on(payment_id, learnt, None)

    async def callback(self, provider: Method, body: bytes) -> Payment:
        """Applies a provider's verified callback. Raises CallerError 400 for a malformed one, 404 for an unknown authentication, and
        Overloaded, since it may lead to a charge."""
        try:
            told_by = _decode_callback(body)
        except UNREADABLE as error:
            raise CallerError(400, "invalid_request", f"callback: {error}") from error
        authentication = self._store.authentication(told_by.reference)
        if PROVIDER_NAMES[told_by.provider] != provider or authentication is None or authentication.provider != provider:
            raise not_found("reference")
        told = self._channels[provider].provider.read_authentication(body, authentication)
        if isinstance(told, Unknown):
            log.warning("callback.refused", authentication=authentication.id, reason=told.reason)
            raise CallerError(400, "invalid_request", f"callback: {told.reason}")
        with self._channels[provider].calls.changing:
            return await self.resolve(authentication.payment_id, told)

    # Cancel

    def cancel(self, payment_id: str) -> Commit | None:
        """What ends a payment whose customer is challenged: no money is on its way. None if no customer is. `forget` it once that is
        written."""
        if self._store.authentication(id_for(payment_id)) is None:
            return None
        now_ms = self._clock.now_ms()
        work = step(*self._load(payment_id), "cancelled", now_ms=now_ms, timestamp=rfc3339(now_ms))
        return None if work is None else self._commit_of(work, now_ms)

    def forget(self, payment_id: str) -> None:
        self._cards.wipe(payment_id)

    # Ask

    async def _ask(self, payment: Payment, authentication: Authentication, until_ms: int | None) -> Told | Finding | None:
        """What the provider says, or what its silence amounts to; None: wait. `until_ms` is when somebody stops waiting for us."""
        card = self._card(payment)
        if card is None:
            return "interrupted"
        answer = await self._call(payment, authentication, card, until_ms)
        if isinstance(answer, Told) and answer.finding in TRANSITIONS[authentication.state]:
            return answer
        beginning = authentication.state == "intent"
        if not isinstance(answer, Told):
            log.warning("authentication.no_answer", payment_id=payment.id, outcome=answer)
            if beginning and not isinstance(answer, Unknown):
                return "unavailable"
        if self._clock.now_ms() < authentication.expires_at_ms:
            return None
        return "unavailable" if beginning else "overdue"

    async def _call(
        self, payment: Payment, authentication: Authentication, card: CardSecret, until_ms: int | None
    ) -> Told | Declined | NotSent | Unknown:
        channel = self._channels[authentication.provider]
        left_ms = channel.timeout_ms if until_ms is None else until_ms - self._clock.now_ms()
        deadline_s = max(CALL_MS_MIN, min(left_ms, channel.timeout_ms)) / 1000
        if authentication.state == "intent":
            return await channel.provider.authenticate(payment, authentication, card, deadline_s=deadline_s)
        return await channel.provider.inquire_authentication(authentication, deadline_s=deadline_s)

    def _card(self, payment: Payment) -> CardSecret | None:
        """The card, whole again; None if the part that is not stored is gone. Raises StoreError or VaultError."""
        kept = self._cards.get(payment.id)
        if kept is None:
            return None
        sealed = self._store.card(_decode_details(payment.details).card.token)
        if sealed is None:
            raise StoreError(f"the card of payment {payment.id} does not exist")
        return msgspec.structs.replace(kept, number=self._vault.open(sealed))

    # Learn

    async def _go_on(self, payment_id: str, learnt: Told | Finding | None, respond: Respond | None) -> Payment:
        """Applies what was learnt. With a second attempt, `respond` answers what became of that."""
        for _ in range(CONFLICTS_MAX):
            payment, authentication = self._load(payment_id)
            card, now_ms = self._card(payment), self._clock.now_ms()
            if card is None and isinstance(learnt, Told) and learnt.finding == "authenticated":
                learnt = "interrupted"
            work = None
            if learnt is not None:
                work = step(payment, authentication, learnt, now_ms=now_ms, timestamp=rfc3339(now_ms))
            commit = self._postponed(payment, authentication, now_ms) if work is None else self._commit_of(work, now_ms)
            after = commit.payment or payment
            if respond is not None and commit.attempt is None:
                commit = msgspec.structs.replace(commit, response=respond(after))
            if commit == Commit() or isinstance(await self._publisher.commit(commit), Done):
                break
        else:
            raise StoreError(f"payment {payment_id}: {CONFLICTS_MAX} conflicts in a row")
        if commit.authentication is None or commit.authentication.state in OPEN_STATES:
            return after
        self._cards.wipe(payment_id)
        log.info("authentication.ended", payment_id=payment_id, state=commit.authentication.state)
        if commit.attempt is None or card is None:
            return after
        return await self._charge(
            after, commit.attempt, Instrument(card=card, authenticated_by=commit.authentication.trans_id), respond
        )

    async def _charge(self, payment: Payment, attempt: Attempt, instrument: Instrument, respond: Respond | None) -> Payment:
        """The second attempt, whose intent is durable. With all of its time: a charge cut short is one of which nobody knows."""
        channel = self._channels[attempt.provider]
        outcome = await channel.provider.create(payment, attempt, instrument, deadline_s=channel.timeout_ms / 1000)
        if isinstance(outcome, Unknown | NotSent):
            log.warning("provider.no_answer", payment_id=payment.id, method=payment.method, outcome=outcome)
        return (await self._learn_charge(payment, attempt, outcome, respond))[0]

    def _commit_of(self, work: Work, now_ms: int) -> Commit:
        authentication, attempt = work.authentication, work.attempt
        if authentication.state == "challenge":
            authentication = msgspec.structs.replace(
                authentication,
                due_at_ms=now_ms + self._recovery.pending_after_ms,
                expires_at_ms=now_ms + self._recovery.authentication_lifetime_ms,
            )
        if attempt is not None:
            due_at_ms = now_ms + self._channels[attempt.provider].timeout_ms + INTENT_GRACE_MS
            attempt = msgspec.structs.replace(
                attempt, due_at_ms=due_at_ms, expires_at_ms=now_ms + LIFETIME_MS[attempt.provider]
            )
        return Commit(payment=work.payment, authentication=authentication, attempt=attempt, events=work.events)

    def _postponed(self, payment: Payment, authentication: Authentication, now_ms: int) -> Commit:
        """Recovery looks again, later each time, but not after it expires. Nothing, if it has ended."""
        if authentication.state not in OPEN_STATES:
            return Commit()
        beginning = authentication.state == "intent"
        first_ms = self._recovery.unknown_after_ms if beginning else self._recovery.pending_after_ms
        due_at_ms = now_ms + min(first_ms * 2 ** min(authentication.inquiries, 20), self._recovery.backoff_max_ms)
        if authentication.expires_at_ms > now_ms:
            due_at_ms = min(due_at_ms, authentication.expires_at_ms)
        later = msgspec.structs.replace(authentication, inquiries=authentication.inquiries + 1, due_at_ms=due_at_ms)
        return Commit(payment=msgspec.structs.replace(payment, version=payment.version + 1), authentication=later)

    def _load(self, payment_id: str) -> tuple[Payment, Authentication]:
        """Both as they are now. The payment first, see `Payments._load`."""
        payment = self._store.payment(payment_id)
        authentication = self._store.authentication(id_for(payment_id))
        if payment is None or authentication is None:
            raise StoreError(f"payment {payment_id} does not exist, or has no authentication")
        return payment, authentication
