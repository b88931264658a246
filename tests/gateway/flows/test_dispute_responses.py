"""A merchant's response to a dispute, when the process ends in the middle of it, or the provider says nothing: sent until it is taken,
never taken twice, and answered the same under the same key."""

import asyncio
from typing import Any

import msgspec
import pytest

from gateway.core.dispute import Dispute
from gateway.core.errors import CallerError
from gateway.core.outcome import Approved, Declined, Unknown
from gateway.flows.disputes import INQUIRY_EVERY_MS
from gateway.flows.idempotency import IdempotencyKey
from gateway.ports import Commit, DisputeResponse, DisputeTold, Response
from tests.gateway.doubles import NOW_MS, PATIENCE_S, Held, ScriptedProvider
from tests.gateway.flows.conftest import Shop, crash

KEY = IdempotencyKey("merchant_123", "k", b"accept")


class Issuer(ScriptedProvider):
    """Knows one dispute. `before` and `after` are awaited around what it does with a response; `lost` are the responses that it never
    gets (request) or does not answer (answer)."""

    def __init__(self) -> None:
        super().__init__()
        self.status: Any = "needs_response"
        self.reference = ""
        self.taken: list[str | None] = []
        self.before: Held | None = None
        self.after: Held | None = None
        self.lost: list[str] = []
        self.refuses = False

    def told(self) -> DisputeTold:
        return DisputeTold(
            provider_id="dp_1",
            reference=self.reference,
            reason="fraudulent",
            status=self.status,
            amount_minor=1000,
            currency="INR",
            respond_by_ms=NOW_MS + 7 * 86_400_000,
        )

    async def dispute(self, provider_id: str, response: DisputeResponse | None, *, deadline_s: float) -> Any:
        if response is None:
            return self.told()
        if self.before is not None:
            await self.before()
        lost = self.lost.pop(0) if self.lost else ""
        if lost == "request":
            return Unknown("TimeoutError")
        if self.refuses or self.status != "needs_response":
            return Declined("dispute_not_open", "dispute_not_open")
        self.taken.append(response.evidence)
        self.status = "lost" if response.evidence is None else "under_review"
        if self.after is not None:
            await self.after()
        return Unknown("TimeoutError") if lost == "answer" else self.told()


@pytest.fixture
async def issuer(shop: Shop) -> Issuer:
    made = Issuer()
    shop.providers["card"] = made
    shop.restart()
    return made


async def opened(shop: Shop, issuer: Issuer) -> str:
    """The id of a dispute that needs a response."""
    issuer.will("create", Approved("prov_1", "00"))
    payment_id = (await shop.pay())["paymentID"]
    issuer.reference = shop.attempt(payment_id).reference
    says = msgspec.json.decode(msgspec.json.encode(issuer.told()))
    return (await shop.disputes.callback("card", msgspec.json.encode({"provider": "card", "type": "dispute", "says": says}))).id


def render(dispute: Dispute) -> Response:
    return Response(200, f"{dispute.status} {dispute.responding} {dispute.failure_reason}".encode())


async def respond(shop: Shop, dispute_id: str, evidence: str | None = None, key: IdempotencyKey | None = KEY) -> bytes:
    return (await shop.disputes.respond("merchant_123", dispute_id, evidence, key, render)).body


async def recover(shop: Shop, after_ms: int = 60_000) -> int:
    """Lets time pass, and recovery look; how many disputes were due."""
    shop.clock.advance(after_ms)
    due = shop.store.due_disputes("card", shop.clock.now_ms(), 10)
    for dispute in due:
        await shop.disputes.recover(dispute)
    return len(due)


async def interrupted(shop: Shop, issuer: Issuer, dispute_id: str, where: str) -> None:
    """The process ends before, or after, the provider has taken the response."""
    held = Held(None)
    setattr(issuer, where, held)
    running = asyncio.create_task(respond(shop, dispute_id))
    await asyncio.wait_for(held.reached.wait(), PATIENCE_S)
    await crash(running)
    setattr(issuer, where, None)
    shop.restart()


@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_retry_with_the_same_key_finishes_what_a_crash_interrupted(shop: Shop, issuer: Issuer, where: str):
    dispute_id = await opened(shop, issuer)
    await interrupted(shop, issuer, dispute_id, where)
    assert [await respond(shop, dispute_id) for _ in range(2)] == [b"lost None None"] * 2
    assert issuer.taken == [None]


@pytest.mark.parametrize("where", ["before", "after"])
async def test_without_a_retry_recovery_finishes_it(shop: Shop, issuer: Issuer, where: str):
    dispute_id = await opened(shop, issuer)
    await interrupted(shop, issuer, dispute_id, where)
    assert await recover(shop) == 1
    assert shop.disputes.dispute("merchant_123", dispute_id).status == "lost"
    assert (await respond(shop, dispute_id), issuer.taken) == (b"lost None None", [None])
    assert await recover(shop) == 0


async def test_what_was_answered_stays_the_answer_whatever_comes_later(shop: Shop, issuer: Issuer):
    dispute_id = await opened(shop, issuer)
    issuer.lost = ["request"]
    first = await respond(shop, dispute_id)
    assert first == b"needs_response accept None"
    await recover(shop)
    assert shop.disputes.dispute("merchant_123", dispute_id).status == "lost"
    shop.restart()
    assert (await respond(shop, dispute_id), issuer.taken) == (first, [None])


async def test_evidence_whose_answer_was_lost_is_found_by_inquiry(shop: Shop, issuer: Issuer):
    dispute_id = await opened(shop, issuer)
    issuer.lost = ["answer"]
    assert await respond(shop, dispute_id, "proof") == b"under_review None None"
    assert issuer.taken == ["proof"]


async def test_evidence_is_sent_again_ever_more_rarely_until_it_is_taken(shop: Shop, issuer: Issuer):
    dispute_id = await opened(shop, issuer)
    issuer.lost = ["request"] * 3
    await respond(shop, dispute_id, "proof")
    waits = []
    for _ in range(3):
        due_at_ms = shop.disputes.dispute("merchant_123", dispute_id).due_at_ms
        assert due_at_ms is not None
        waits.append(due_at_ms - shop.clock.now_ms())
        await recover(shop, waits[-1])
    assert (waits, issuer.taken) == ([1_000, 2_000, 4_000], ["proof"])
    assert shop.disputes.dispute("merchant_123", dispute_id).evidence == "proof"


async def test_a_response_that_is_refused_leaves_the_dispute_open_for_another(shop: Shop, issuer: Issuer):
    dispute_id = await opened(shop, issuer)
    issuer.refuses = True
    first = await respond(shop, dispute_id)
    assert first == b"needs_response None dispute_not_open"
    issuer.refuses = False
    assert await respond(shop, dispute_id) == first
    assert await respond(shop, dispute_id, "proof", None) == b"under_review None None"
    due_at_ms = shop.disputes.dispute("merchant_123", dispute_id).due_at_ms
    assert due_at_ms == shop.clock.now_ms() + INQUIRY_EVERY_MS


async def test_the_issuers_decision_ends_a_response_that_is_on_its_way(shop: Shop, issuer: Issuer):
    dispute_id = await opened(shop, issuer)
    issuer.lost = ["request"]
    await respond(shop, dispute_id, "proof")
    issuer.status = "lost"
    await recover(shop)
    after = shop.disputes.dispute("merchant_123", dispute_id)
    assert (after.status, after.responding, after.due_at_ms, issuer.taken) == ("lost", None, None, [])
    with pytest.raises(CallerError, match="the dispute is lost"):
        await respond(shop, dispute_id, key=None)


async def test_of_many_responses_at_once_one_is_taken(shop: Shop, issuer: Issuer):
    dispute_id = await opened(shop, issuer)
    texts: list[str | None] = ["a", "b", None, "c"]
    answers = await asyncio.gather(*(respond(shop, dispute_id, text, None) for text in texts), return_exceptions=True)
    refused = [answer.code for answer in answers if isinstance(answer, CallerError)]
    assert (len(issuer.taken), refused) == (1, ["operation_in_progress"] * 3)


async def test_an_answer_that_does_not_fit_what_is_known_is_asked_for_again_later(shop: Shop, issuer: Issuer):
    issuer.status = "warning_needs_response"
    dispute_id = await opened(shop, issuer)
    payment = shop.payment(shop.store.dispute(dispute_id).payment_id)
    refunded = msgspec.structs.replace(payment, version=payment.version + 1, refunded_minor=400)
    await shop.store.commit(Commit(payment=refunded))
    issuer.status = "needs_response"
    assert await recover(shop, INQUIRY_EVERY_MS) == 1
    assert await recover(shop, 0) == 0
    assert shop.store.dispute(dispute_id).status == "warning_needs_response"
    restored = msgspec.structs.replace(refunded, version=refunded.version + 2, refunded_minor=0)
    await shop.store.commit(Commit(payment=restored))
    assert await recover(shop, INQUIRY_EVERY_MS) == 1
    assert shop.store.dispute(dispute_id).status == "needs_response"
