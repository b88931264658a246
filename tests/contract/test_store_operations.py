"""What every store keeps to (gateway/ports.py) about captures, refunds and disputes, and keys that are claimed and answered at once."""

from typing import Any

import msgspec
import pytest

from gateway.core.dispute import Dispute
from gateway.core.event import Event
from gateway.core.ledger import Entry
from gateway.core.operation import Operation
from gateway.core.payment import Payment
from gateway.ports import Commit, Conflict, Done, InFlight, Mismatch, Replay, Store
from tests.contract.conftest import SqliteAdapter
from tests.gateway.doubles import NOW_MS, answer_to, intent, make_claim, make_dispute, make_operation


async def begun(store: Store, n: int = 1, **fields: Any) -> Payment:
    """A stored payment of which 1000 are captured."""
    first = intent(n, **fields).payment
    assert first is not None
    assert await store.commit(intent(n, **fields)) == Done()
    captured = msgspec.structs.replace(first, version=2, status="completed", captured_minor=1000)
    assert await store.commit(Commit(payment=captured)) == Done()
    return captured


def next_version(payment: Payment, **fields: Any) -> Payment:
    return msgspec.structs.replace(payment, version=payment.version + 1, **fields)


FACETS = {
    "refunding_minor": 300,
    "refunded_minor": 200,
    "disputed_minor": 100,
    "dispute_status": "needs_response",
    "ending": "voided",
}


async def test_the_facets_of_a_payment_are_read_back_as_written(store: Store):
    made = await begun(store, capture_method="manual")
    changed = next_version(made, **FACETS)
    assert await store.commit(Commit(payment=changed)) == Done()
    assert store.payment(made.id) == changed


@pytest.mark.parametrize(
    "impossible",
    [
        {"refunding_minor": 1001},
        {"refunded_minor": 600, "refunding_minor": 401},
        {"capturing_minor": 1},
        {"refunded_minor": -1},
    ],
)
async def test_money_that_is_not_there_cannot_be_written(store: Store, impossible: dict[str, int]):
    made = await begun(store)
    with pytest.raises(Exception, match="CHECK"):
        await store.commit(Commit(payment=next_version(made, **impossible)))
    assert store.payment(made.id) == made


async def test_operations_are_read_back_as_written_and_as_they_are_now(store: Store):
    made = await begun(store)
    refund = make_operation(made, "refund", 1, note="too small", amount_minor=400)
    capture = make_operation(made, "capture", 2, final=True, amount_minor=1000)
    assert await store.commit(Commit(payment=next_version(made), operation=refund)) == Done()
    assert await store.commit(Commit(payment=next_version(next_version(made)), operation=capture)) == Done()
    assert [store.operation(operation.id) for operation in (refund, capture)] == [refund, capture]
    ended: dict[str, Any] = {"state": "failed", "provider_id": "rf_1", "response_code": "05", "failure_reason": "do_not_honor"}
    failed = msgspec.structs.replace(refund, inquiries=3, due_at_ms=None, updated_at_ms=NOW_MS + 9, **ended)
    latest = msgspec.structs.replace(made, version=5)
    assert await store.commit(Commit(payment=latest, operation=failed)) == Done()
    assert [store.operation(operation.id) for operation in (refund, capture)] == [failed, capture]
    assert [store.operations_of(made.id, kind, 10) for kind in ("refund", "capture")] == [[failed], [capture]]  # type: ignore[arg-type]
    assert store.operation("ref_nothing") is None


async def test_a_refund_is_a_transaction_and_a_capture_is_not(store: Store):
    made = await begun(store)
    refund, capture = make_operation(made, "refund", 7, amount_minor=400), make_operation(made, "capture", 8)
    created = Event("evt_1_9", made.id, made.merchant_id, 9, "refund.created", None, NOW_MS)
    await store.commit(Commit(payment=next_version(made), operation=refund, events=[created]))
    await store.commit(Commit(payment=next_version(next_version(made)), operation=capture))
    found = store.transaction(refund.transaction_id)
    assert found is not None
    assert (found.type, found.payment_id, found.amount_minor, found.status) == ("refund", made.id, 400, "pending")
    assert store.transaction(capture.transaction_id) is None
    assert store.totals() == (1, 2)


async def test_due_operations_are_the_providers_own_longest_due_first(store: Store):
    upi, card = await begun(store, 1, method="upi"), await begun(store, 2)
    version = {upi.id: upi, card.id: card}
    for n, (made, due_ms) in enumerate(
        [(card, NOW_MS + 30), (card, NOW_MS + 10), (upi, NOW_MS), (card, None), (card, NOW_MS + 31)], start=1
    ):
        version[made.id] = next_version(version[made.id])
        await store.commit(Commit(payment=version[made.id], operation=make_operation(made, n=n, due_at_ms=due_ms)))
    assert [o.id[-1] for o in store.due_operations("card", NOW_MS + 30, 10)] == ["2", "1"]
    assert [o.id[-1] for o in store.due_operations("card", NOW_MS + 30, 1)] == ["2"]
    assert [o.id[-1] for o in store.due_operations("upi", NOW_MS + 30, 10)] == ["3"]


async def test_waking_makes_interrupted_operations_due_and_leaves_the_rest(store: Store):
    made = await begun(store)
    for n, state in enumerate(["pending", "unknown", "processing", "pending"], start=1):
        made = next_version(made)
        await store.commit(Commit(payment=made, operation=make_operation(made, n=n, state=state, due_at_ms=NOW_MS + 60_000)))
    await store.wake_intents(NOW_MS)
    assert sorted(o.id[-1] for o in store.due_operations("card", NOW_MS, 10)) == ["1", "4"]


def told(store: Store, dispute: Dispute) -> list[Dispute | None]:
    return [store.dispute(dispute.id), store.dispute_at("card", dispute.provider_id)]


async def test_disputes_are_read_back_as_written_and_as_they_are_now(store: Store):
    made = await begun(store)
    opened = make_dispute(made, 21, amount_minor=600, status="warning_needs_response")
    assert await store.commit(Commit(payment=next_version(made), dispute=opened)) == Done()
    assert told(store, opened) == [opened, opened]
    assert store.transaction(opened.transaction_id) is None  # an inquiry moves no money
    lost = msgspec.structs.replace(
        opened, status="lost", reason="not_received", respond_by_ms=1, inquiries=2, due_at_ms=None, updated_at_ms=NOW_MS + 9
    )
    booked = Entry(f"ent_{opened.id}_opened", made.id, NOW_MS, ())
    assert (
        await store.commit(Commit(payment=msgspec.structs.replace(made, version=4), dispute=lost, entries=[booked])) == Done()
    )
    assert told(store, opened) == [lost, lost]
    assert store.disputes_of(made.id, 10) == [lost]
    found = store.transaction(opened.transaction_id)
    assert found is not None
    assert (found.type, found.payment_id, found.amount_minor, found.status) == ("chargeback", made.id, 600, "lost")
    assert store.dispute("dsp_nothing") is None
    assert store.dispute_at("upi", opened.provider_id) is None


async def test_due_disputes_are_the_open_ones_whose_time_has_come(store: Store):
    made = await begun(store)
    for n, due_ms in enumerate([NOW_MS + 5, NOW_MS, None, NOW_MS + 6], start=1):
        made = next_version(made)
        await store.commit(Commit(payment=made, dispute=make_dispute(made, n, due_at_ms=due_ms)))
    assert [dispute.provider_id for dispute in store.due_disputes("card", NOW_MS + 5, 10)] == ["dp_2", "dp_1"]
    assert store.due_disputes("upi", NOW_MS + 5, 10) == []


async def test_a_conflict_leaves_operation_and_dispute_out(adapter: SqliteAdapter, store: Store):
    made = await begun(store)
    operation: Operation = make_operation(made)
    late = msgspec.structs.replace(made, version=9)
    assert await store.commit(Commit(payment=late, operation=operation, dispute=make_dispute(made))) == Conflict()
    assert (store.operation(operation.id), store.dispute(make_dispute(made).id)) == (None, None)
    assert [record["type"] for record in adapter.records("transaction")] == ["payment"]


async def test_a_key_can_be_claimed_and_answered_in_one_commit(store: Store):
    claim = make_claim()
    assert store.claimed(claim) is None
    once = Commit(claim=claim, response=answer_to(claim))
    assert await store.commit(once) == Done()
    assert store.claimed(claim) == Replay(answer_to(claim).response) == await store.commit(once)
    assert store.claimed(make_claim(fingerprint=b"g" * 16)) == Mismatch()


async def test_what_a_commit_with_a_claim_would_meet_can_be_asked_beforehand(store: Store):
    claim = make_claim(at_ms=NOW_MS)
    await store.commit(Commit(claim=claim))
    assert store.claimed(claim) == InFlight(claim.subject_id)
    assert store.claimed(make_claim("another")) is None
    assert store.claimed(make_claim(at_ms=NOW_MS + 24 * 3600 * 1000 + 1)) is None  # it has lapsed
