"""The story of paying a settlement out: the intent is made durable, the bank is called, what it says is booked.

pay       settlement `processing`, with the payout's reference (commit) -> bank -> state, ledger, event (commit)
callback  the bank's signed word about a payout -> commit
recover   a payout that nobody tells about is asked for, under its reference
"""

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
import structlog
from msgspec.structs import replace

from gateway.config import Merchant, Recovery
from gateway.core import settlement as core
from gateway.core.errors import UNREADABLE, CallerError, StoreError, not_found
from gateway.core.outcome import Declined, NotFound, NotSent, Unknown
from gateway.core.payment import Method
from gateway.core.settlement import ASKED_STATES, PAYABLE_STATES, Payee, PayoutTold, Settlement, Work
from gateway.flows.channels import INTENT_GRACE_MS, PROVIDER_NAMES
from gateway.flows.idempotency import CONFLICTS_MAX, Turns
from gateway.flows.publishing import Publisher
from gateway.ports import Clock, Commit, Done, Payouts, Store
from gateway.runtime import rfc3339

INQUIRY_EVERY_MS_MAX = 3_600_000  # of a payout that stays pending: banks take up to half an hour, or have lost it

log = structlog.get_logger("gateway.disbursements")

Outcome = PayoutTold | Declined | NotSent | Unknown


class _Callback(msgspec.Struct, frozen=True):
    reference: str
    provider: Literal["card", "upi", "bank"]
    type: Literal["payout"]


_decode_callback = msgspec.json.Decoder(_Callback).decode


class Disbursements:
    def __init__(
        self,
        *,
        store: Store,
        bank: Payouts,
        merchants: Sequence[Merchant],
        clock: Clock,
        recovery: Recovery,
        publisher: Publisher,
        timeout_ms: int,
    ) -> None:
        """`timeout_ms` bounds each call to the bank."""
        self._store = store
        self._bank = bank
        self._accounts = {merchant.id: merchant.payout_account for merchant in merchants}
        self._clock = clock
        self._recovery = recovery
        self._publisher = publisher
        self._timeout_ms = timeout_ms
        self._turns = Turns()  # of settlements

    async def pay(self, settlement: Settlement) -> Settlement:
        """Orders a payout from the bank, if the settlement is to be paid, and can be."""

        def decide(fresh: Settlement, now_ms: int) -> Work | None:
            if fresh.state not in PAYABLE_STATES:
                return None
            payee = self._payee(fresh)
            if isinstance(payee, str):
                held = core.hold(fresh, payee, now_ms=now_ms)
                return None if held is None else Work(settlement=held)
            intent = core.begin_payout(fresh, payee, now_ms=now_ms)
            return Work(settlement=replace(intent, due_at_ms=now_ms + self._timeout_ms + INTENT_GRACE_MS))

        begun, ours = await self._change(settlement.id, decide)
        if not ours or begun.state != "processing" or (payout := begun.payout) is None:
            return begun
        outcome = await self._bank.order(payout, deadline_s=self._timeout_ms / 1000)
        return await self._learn(begun, payout.reference, outcome)

    def _payee(self, settlement: Settlement) -> Payee | str:
        """Where the money goes, or why it cannot."""
        account = self._accounts.get(settlement.merchant_id)
        if account is None:
            return "no_payout_account"
        if settlement.currency != core.CURRENCY_PAID:
            return "currency_not_paid_out"
        return Payee(account.account_number, account.ifsc, account.name)

    async def recover(self, due: Settlement) -> Settlement:
        """Asks the bank about a payout. One that never reached it is ordered again, under the same reference."""
        settlement = self._settlement(due.id)
        payout = settlement.payout
        if payout is None or settlement.state not in (*ASKED_STATES, "completed"):
            return settlement
        deadline_s = self._timeout_ms / 1000
        outcome: Outcome | NotFound = await self._bank.inquire(payout, deadline_s=deadline_s)
        if isinstance(outcome, NotFound):
            if (fresh := self._settlement(due.id)).version != settlement.version:
                return fresh  # the bank's word came meanwhile: of a payout that has failed nothing is ordered any more
            if settlement.provider_id is not None:
                outcome = Unknown("the bank does not know a payout that it took")  # it may have paid: not ordered again
            else:
                outcome = await self._bank.order(payout, deadline_s=deadline_s)
        after = await self._learn(settlement, payout.reference, outcome)
        if (after.state, after.payouts) != (settlement.state, settlement.payouts):
            return after
        return await self._postpone(after, told=isinstance(outcome, PayoutTold))

    async def _learn(self, settlement: Settlement, reference: str, outcome: Outcome) -> Settlement:
        def decide(fresh: Settlement, now_ms: int) -> Work | None:
            work = core.step(fresh, reference, outcome, now_ms=now_ms, timestamp=rfc3339(now_ms))
            if work is None or work.settlement.state == fresh.state:
                return work
            return replace(work, settlement=self._scheduled(work.settlement, now_ms))

        after, learnt = await self._change(settlement.id, decide)
        if learnt:
            log.info("payout.told", settlement_id=after.id, reference=reference, state=after.state, reason=after.reason)
        return after

    def _scheduled(self, settlement: Settlement, now_ms: int) -> Settlement:
        """With the time at which the bank is asked about the payout, if nobody tells before."""
        match settlement.state:
            case "processing":
                return replace(settlement, due_at_ms=now_ms + self._recovery.pending_after_ms)
            case "unknown":
                return replace(settlement, due_at_ms=now_ms + self._recovery.unknown_after_ms)
            case "completed":
                return replace(settlement, due_at_ms=now_ms + core.RETURNED_AFTER_MS_MAX)
            case _:
                return settlement

    async def _postpone(self, asked: Settlement, *, told: bool) -> Settlement:
        """Nothing new: asks later, ever later. `told`: the bank has answered, so that one which is completed need not be asked about."""

        def decide(fresh: Settlement, now_ms: int) -> Work | None:
            if (fresh.state, fresh.payouts) != (asked.state, asked.payouts):
                return None
            first_ms = self._recovery.unknown_after_ms if fresh.state == "unknown" else self._recovery.pending_after_ms
            wait_ms = min(first_ms * 2 ** min(fresh.inquiries, 20), INQUIRY_EVERY_MS_MAX)
            due_at_ms = None if told and fresh.state == "completed" else now_ms + wait_ms
            later = replace(fresh, version=fresh.version + 1, inquiries=fresh.inquiries + 1, due_at_ms=due_at_ms)
            return Work(settlement=later)

        return (await self._change(asked.id, decide))[0]

    # Callback

    async def callback(self, provider: Method, body: bytes) -> Settlement:
        """Applies the bank's verified callback about a payout. Raises CallerError 400 for a malformed one, 404 for an unknown one."""
        try:
            told = _decode_callback(body)
        except UNREADABLE as error:
            raise CallerError(400, "invalid_request", f"callback: {error}") from error
        settlement = self._store.settlement(core.settlement_of(told.reference))
        if (
            settlement is None
            or (payout := settlement.payout) is None
            or not PROVIDER_NAMES[told.provider] == provider == "netbanking"
        ):
            raise not_found("reference")
        if told.reference != payout.reference:
            return settlement  # of an earlier payout, which has failed, as is known: another one would not have followed
        outcome = self._bank.read_callback(body, payout)
        if isinstance(outcome, Unknown):
            log.warning("callback.refused", settlement_id=settlement.id, reason=outcome.reason)
            raise CallerError(400, "invalid_request", f"callback: {outcome.reason}")
        return await self._learn(settlement, told.reference, outcome)

    def _settlement(self, settlement_id: str) -> Settlement:
        settlement = self._store.settlement(settlement_id)
        if settlement is None:
            raise StoreError(f"settlement {settlement_id} does not exist")
        return settlement

    async def _change(self, settlement_id: str, decide: Callable[[Settlement, int], Work | None]) -> tuple[Settlement, bool]:
        """Commits what `decide` makes of the settlement as it is now. Returns it as it is then, and whether that changed it."""
        async with self._turns.of(settlement_id):
            for _ in range(CONFLICTS_MAX):
                settlement = self._settlement(settlement_id)
                work = decide(settlement, self._clock.now_ms())
                if work is None:
                    return settlement, False
                commit = Commit(settlement=work.settlement, entries=work.entries, events=work.events)
                if isinstance(await self._publisher.commit(commit), Done):
                    return work.settlement, True
        raise StoreError(f"settlement {settlement_id}: {CONFLICTS_MAX} conflicts in a row")
