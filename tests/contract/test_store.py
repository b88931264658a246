"""What every store keeps to (gateway/ports.py): all or nothing, versions, durability, reads and lists."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from gateway.core.errors import StoreError, StoreFull
from gateway.core.event import Event
from gateway.core.ledger import Entry, Posting
from gateway.core.outcome import NextAction
from gateway.core.payment import Payment, step
from gateway.ports import Card, Commit, Committed, Conflict, Done, Store, Transaction, Try
from gateway.storage import endpoints
from tests.contract.conftest import SqliteAdapter
from tests.gateway.doubles import NOW_MS, OUTCOMES, answer_to, intent, make_claim, make_delivery, make_endpoint


def completion(begun: Commit) -> Commit:
    """What commit 2 of an approved payment writes, with a delivery and a fee."""
    assert begun.payment is not None
    assert begun.attempt is not None
    taken = step(begun.payment, begun.attempt, OUTCOMES["Approved"], now_ms=NOW_MS + 200, timestamp="T", fee_basis_points=200)
    assert taken is not None
    return Commit(
        payment=taken.payment,
        attempt=taken.attempt,
        entries=taken.entries,
        events=taken.events,
        deliveries=[make_delivery(taken.payment.id)],
    )


def changed(commit: Commit, **payment: Any) -> Commit:
    assert commit.payment is not None
    return msgspec.structs.replace(commit, payment=msgspec.structs.replace(commit.payment, **payment))


async def together(store: Store, commits: Sequence[Commit]) -> list[Committed | BaseException]:
    """All handed over before the store gets to work, so that they may share a transaction."""
    return await asyncio.gather(*(store.commit(commit) for commit in commits), return_exceptions=True)


def id_of(n: int) -> str:
    return f"pay_{n:032x}"


# What was written is there


async def test_everything_in_a_commit_is_read_back_as_it_was_written(store: Store):
    first = intent(next_action=NextAction("upi_qr", payload="upi://pay?am=1"), order_id="order/ü")
    second = completion(first)
    assert [await store.commit(first), await store.commit(second)] == [Done(), Done()]
    assert second.payment is not None
    assert second.attempt is not None
    assert store.payment(id_of(1)) == second.payment
    assert store.attempt(second.attempt.reference) == second.attempt
    assert store.attempt_of(id_of(1)) == second.attempt
    assert store.transaction(second.payment.transaction_id) == Transaction(
        id=second.payment.transaction_id,
        payment_id=second.payment.id,
        merchant_id=second.payment.merchant_id,
        type="payment",
        method="card",
        amount_minor=second.payment.amount_minor,
        currency=second.payment.currency,
        status="completed",
        created_at_ms=second.payment.created_at_ms,
        updated_at_ms=second.payment.updated_at_ms,
    )
    [(delivery, body)] = store.due_deliveries("ep_1", NOW_MS, 10)
    assert delivery == second.deliveries[0]
    assert body == second.events[0].body


async def test_what_does_not_exist_is_none(store: Store):
    await store.commit(intent(1))
    assert store.payment(id_of(2)) is None
    assert store.attempt("att_nothing_01") is None
    assert store.attempt_of(id_of(2)) is None
    assert store.attempt_of("pay_") is None
    assert store.transaction("txn_nothing") is None
    assert store.due_deliveries("ep_nobody", NOW_MS, 10) == []


@pytest.mark.parametrize("text", ["'; DROP TABLE payments; --", "a\0b", "%", "_", "ü€😀", "x" * 10_000])
async def test_ids_are_data_and_nothing_else(store: Store, text: str):
    await store.commit(intent(1))
    for read in (store.payment, store.attempt, store.attempt_of, store.transaction):
        assert read(text) is None
    assert store.payment(id_of(1)) is not None


async def test_a_commit_that_answered_is_in_the_file(adapter: SqliteAdapter, store: Store):
    begun = intent(1, claim=make_claim())
    await store.commit(begun)
    assert [record["status"] for record in adapter.records("payment")] == ["processing"]
    await store.commit(completion(begun))
    assert [record["status"] for record in adapter.records("payment")] == ["completed"]
    assert [record["state"] for record in adapter.records("attempt")] == ["succeeded"]
    assert [record["status"] for record in adapter.records("transaction")] == ["completed"]
    assert [(record["sequence"], record["published"]) for record in adapter.records("event")] == [(1, False), (2, True)]
    assert [record["state"] for record in adapter.records("delivery")] == ["pending"]
    [entry] = adapter.records("entry")
    assert [(p["account"], p["debit"], p["credit"]) for p in entry["postings"]] == [
        ("receivable:card", 1000, 0),
        ("payable:merchant_123", 0, 980),
        ("fees", 0, 20),
    ]


async def test_reads_see_every_commit_that_answered(store: Store):
    for n in range(1, 30):
        await store.commit(intent(n))
        assert store.payment(id_of(n)) is not None


async def test_a_reopened_store_knows_what_the_last_one_wrote(adapter: SqliteAdapter):
    first = adapter.open()
    begun = intent(1)
    await together(first, [begun, intent(2)])
    await first.commit(completion(begun))
    await adapter.close(first)
    second = adapter.open()
    assert second.totals() == (2, 2)
    assert second.payment(id_of(1)) == completion(begun).payment
    assert [attempt.payment_id for attempt in second.due_attempts("card", NOW_MS + 10_000, 10)] == [id_of(2)]


async def test_the_same_card_twice_is_stored_once(adapter: SqliteAdapter, store: Store):
    card = Card("card_1", "merchant_123", b"sealed", NOW_MS)
    again = msgspec.structs.replace(card, sealed=b"sealed with another nonce")
    commits = [msgspec.structs.replace(intent(n), card=made) for n, made in ((1, card), (2, again))]
    assert await together(store, commits) == [Done(), Done()]
    assert await store.commit(msgspec.structs.replace(intent(3), card=again)) == Done()


# Versions


@pytest.mark.parametrize("version", [1, 3, 4])
async def test_a_payment_must_follow_the_stored_version(store: Store, version: int):
    begun = intent(1)
    await store.commit(begun)
    assert await store.commit(changed(completion(begun), version=version)) == Conflict()
    assert store.payment(id_of(1)) == begun.payment


async def test_a_payment_that_is_not_there_has_no_second_version(store: Store):
    assert await store.commit(completion(intent(1))) == Conflict()
    assert store.payment(id_of(1)) is None
    assert store.totals() == (0, 0)


async def test_the_same_payment_cannot_be_made_twice(store: Store):
    assert await store.commit(intent(1)) == Done()
    assert await store.commit(intent(1, order_id="another")) == Conflict()
    kept = store.payment(id_of(1))
    assert kept is not None
    assert kept.order_id == "order-1"
    assert store.totals() == (1, 1)


async def test_a_conflict_writes_nothing_at_all(adapter: SqliteAdapter, store: Store):
    begun = intent(1, claim=make_claim())
    await store.commit(begun)
    late = changed(completion(begun), version=3)
    refused = msgspec.structs.replace(late, response=answer_to(make_claim()), claim=make_claim("key-2"))
    assert await store.commit(refused) == Conflict()
    assert [len(adapter.records(kind)) for kind in ("event", "entry", "delivery", "idempotency")] == [1, 0, 0, 1]
    assert adapter.records("attempt")[0]["state"] == "intent"
    assert adapter.records("transaction")[0]["status"] == "processing"
    assert adapter.records("idempotency")[0]["responseStatus"] is None
    assert store.due_deliveries("ep_1", NOW_MS, 10) == []


async def test_of_writers_that_race_one_wins_and_the_others_hear_it(adapter: SqliteAdapter, store: Store):
    begun = intent(1)
    await store.commit(begun)
    results = await together(store, [completion(begun)] * 5)
    assert results == [Done(), *[Conflict()] * 4]
    assert len(adapter.records("event")) == 2
    assert len(adapter.records("entry")) == 1


async def test_two_steps_of_a_payment_in_one_group_follow_each_other(store: Store):
    begun = intent(1)
    assert await together(store, [begun, completion(begun)]) == [Done(), Done()]
    kept = store.payment(id_of(1))
    assert kept is not None
    assert (kept.status, kept.version) == ("completed", 2)


async def test_one_step_overtaking_its_predecessor_is_a_conflict(store: Store):
    begun = intent(1)
    assert await together(store, [completion(begun), begun]) == [Conflict(), Done()]
    assert store.payment(id_of(1)) == begun.payment


# Groups


def unwritable(kind: str) -> Commit:
    """A commit that the database refuses, or that cannot even be given to it."""
    good = intent(50)
    payment = good.payment
    assert payment is not None
    return {
        "amount": changed(good, amount_minor=0),
        "surrogate": changed(good, order_id="\ud800"),
        "huge": changed(good, created_at_ms=2**63),
        "event twice": msgspec.structs.replace(good, events=[*good.events, *good.events]),
        "entry twice": Commit(entries=[entry_of(payment, 2)]),
    }[kind]


def entry_of(payment: Payment, lines: int) -> Entry:
    postings = tuple(Posting(f"account-{line}", "INR", line % 2, 1 - line % 2) for line in range(lines))
    return Entry("ent_taken", payment.id, NOW_MS, postings)


@pytest.mark.parametrize("kind", ["amount", "surrogate", "huge", "event twice", "entry twice"])
async def test_one_bad_commit_in_a_group_leaves_the_others_whole(adapter: SqliteAdapter, store: Store, kind: str):
    taken = intent(40)
    assert taken.payment is not None
    await store.commit(msgspec.structs.replace(taken, entries=[entry_of(taken.payment, 2)]))
    good = [intent(n, claim=make_claim(f"key-{n}", payment=n)) for n in range(1, 6)]
    results = await together(store, [*good[:3], unwritable(kind), *good[3:]])
    assert [result for position, result in enumerate(results) if position != 3] == [Done()] * 5
    assert isinstance(results[3], StoreError | Conflict)
    assert [record["paymentID"] for record in adapter.records("payment")] == [id_of(n) for n in (1, 2, 3, 4, 5, 40)]
    assert len(adapter.records("event")) == 6
    assert store.totals() == (6, 6)
    assert store.payment(id_of(50)) is None
    assert await store.commit(intent(60)) == Done()


async def test_a_big_group_is_written_whole(store: Store):
    count = 700
    assert await together(store, [intent(n) for n in range(1, count + 1)]) == [Done()] * count
    assert store.totals() == (count, count)
    assert len(store.due_attempts("card", NOW_MS + 10_000, 1000)) == count


async def test_a_commit_stands_though_its_caller_was_cancelled(store: Store):
    waiting = asyncio.create_task(store.commit(intent(1)))
    await asyncio.sleep(0)
    waiting.cancel()
    assert await store.commit(intent(2)) == Done()
    assert store.payment(id_of(1)) is not None
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_too_many_waiting_commits_are_refused_and_not_written(adapter: SqliteAdapter, store: Store):
    adapter.limit_waiting(3)
    results = await together(store, [intent(n) for n in range(1, 6)])
    assert results[:3] == [Done()] * 3
    assert [type(result) for result in results[3:]] == [StoreFull, StoreFull]
    assert len(adapter.records("payment")) == 3
    assert await store.commit(intent(5)) == Done()


async def test_closing_waits_for_what_was_handed_over(adapter: SqliteAdapter, store: Store):
    tasks = [asyncio.create_task(store.commit(intent(n))) for n in range(1, 21)]
    await asyncio.sleep(0)
    await adapter.close(store)
    assert [task.result() for task in tasks] == [Done()] * 20
    assert len(adapter.records("payment")) == 20
    with pytest.raises(StoreError, match="closed"):
        await store.commit(intent(99))


# Lists


async def test_due_attempts_are_the_open_ones_whose_time_has_come_longest_due_first(store: Store):
    for n, due_ms in enumerate([NOW_MS + 30, NOW_MS + 10, NOW_MS + 20, None, NOW_MS + 31], start=1):
        await store.commit(intent(n, attempt={"due_at_ms": due_ms}))
    due = store.due_attempts("card", NOW_MS + 30, 10)
    assert [attempt.payment_id for attempt in due] == [id_of(2), id_of(3), id_of(1)]
    assert [attempt.payment_id for attempt in store.due_attempts("card", NOW_MS + 30, 2)] == [id_of(2), id_of(3)]
    assert store.due_attempts("card", NOW_MS + 9, 10) == []


async def test_each_providers_due_attempts_are_listed_apart(store: Store):
    for n, provider in enumerate(["upi", "card", "upi", "netbanking"], start=1):
        await store.commit(intent(n, method=provider, attempt={"due_at_ms": NOW_MS}))
    due = {
        provider: [a.payment_id for a in store.due_attempts(provider, NOW_MS, 10)] for provider in ("card", "upi", "netbanking")
    }
    assert due == {"card": [id_of(2)], "upi": [id_of(1), id_of(3)], "netbanking": [id_of(4)]}


async def test_waking_makes_interrupted_intents_due_and_leaves_the_rest(store: Store):
    later_ms = NOW_MS + 60_000
    states = ["intent", "unknown", "pending", "intent", "reversing"]
    for n, state in enumerate(states, start=1):
        await store.commit(intent(n, attempt={"state": state, "due_at_ms": later_ms}))
    assert store.due_attempts("card", NOW_MS, 10) == []
    assert await store.wake_intents(NOW_MS) == 2
    assert [attempt.payment_id for attempt in store.due_attempts("card", NOW_MS, 10)] == [id_of(1), id_of(4)]


async def test_the_latest_attempt_is_the_one_of_its_own_payment(store: Store):
    for n in (1, 2, 16):
        await store.commit(intent(n))
    found = store.attempt_of(id_of(1))
    assert found is not None
    assert found.reference == f"att_{1:032x}_01"


async def test_totals_count_payments_and_not_steps(store: Store):
    assert store.totals() == (0, 0)
    begun = intent(1)
    await together(store, [begun, intent(1), intent(2)])
    await store.commit(completion(begun))
    assert store.totals() == (2, 2)


def published(payment: int, sequences: Sequence[int], *, due_ms: int = NOW_MS, endpoint: str = "ep_1") -> Commit:
    events = [Event(f"evt_{payment}_{s}", id_of(payment), "m", s, "payment.x", b"%d" % s, NOW_MS) for s in sequences]
    deliveries = [make_delivery(id_of(payment), s, endpoint_id=endpoint, due_at_ms=due_ms) for s in sequences]
    return Commit(events=events, deliveries=deliveries)


def due(store: Store, at_ms: int = NOW_MS, *, endpoint: str = "ep_1", limit: int = 100) -> list[tuple[str, int]]:
    return [(delivery.subject_id, delivery.sequence) for delivery, _ in store.due_deliveries(endpoint, at_ms, limit)]


async def test_an_event_waits_until_the_earlier_one_of_its_payment_is_through(store: Store):
    await store.commit(published(1, [2, 3, 5]))
    assert due(store) == [(id_of(1), 2)]
    failed = make_delivery(id_of(1), 2, tries=1, due_at_ms=NOW_MS + 500, last_error="HTTP 500")
    await store.commit(Commit(deliveries=[failed]))
    assert due(store) == []
    assert due(store, NOW_MS + 500) == [(id_of(1), 2)]
    await store.commit(Commit(deliveries=[make_delivery(id_of(1), 2, state="delivered", tries=2, due_at_ms=None)]))
    assert due(store) == [(id_of(1), 3)]
    await store.commit(Commit(deliveries=[make_delivery(id_of(1), 3, state="dead", tries=8, due_at_ms=None)]))
    assert due(store) == [(id_of(1), 5)]


async def test_one_payments_failure_and_one_endpoints_holds_up_no_other(store: Store):
    await together(store, [published(1, [2, 3], due_ms=NOW_MS + 500), published(2, [2]), published(1, [4], endpoint="ep_2")])
    assert due(store) == [(id_of(2), 2)]
    assert due(store, endpoint="ep_2") == [(id_of(1), 4)]


async def test_due_deliveries_come_longest_due_first_and_no_more_than_asked_for(store: Store):
    for n, due_ms in ((1, NOW_MS - 1), (2, NOW_MS - 3), (3, NOW_MS - 2), (4, NOW_MS + 1)):
        await store.commit(published(n, [2], due_ms=due_ms))
    assert due(store) == [(id_of(2), 2), (id_of(3), 2), (id_of(1), 2)]
    assert due(store, limit=2) == [(id_of(2), 2), (id_of(3), 2)]


async def test_pending_deliveries_are_counted_per_endpoint_due_or_not(store: Store):
    await together(store, [published(1, [2, 3]), published(2, [2], due_ms=NOW_MS + 10**6), published(3, [2], endpoint="ep_2")])
    await store.commit(Commit(deliveries=[make_delivery(id_of(1), 2, state="delivered", tries=1, due_at_ms=None)]))
    assert [store.pending_deliveries(endpoint) for endpoint in ("ep_1", "ep_2", "ep_3")] == [2, 1, 0]


async def test_deliveries_of_endpoints_that_are_no_more_are_buried(adapter: SqliteAdapter, store: Store):
    for endpoint in (make_endpoint("ep_2"), make_endpoint("ep_4", state="disabled"), make_endpoint("ep_5", state="gone")):
        await store.commit(Commit(endpoint=endpoint))
    await together(store, [published(1, [2, 3]), published(2, [2], endpoint="ep_2"), published(3, [2], endpoint="ep_5")])
    await together(store, [published(4, [2], endpoint="ep_4")])
    await store.commit(Commit(deliveries=[make_delivery(id_of(1), 2, state="delivered", tries=1, due_at_ms=None)]))
    assert await store.bury_deliveries() == 2
    states = {(record["endpointID"], record["sequence"]): record["state"] for record in adapter.records("delivery")}
    assert states == {("ep_1", 2): "delivered", ("ep_1", 3): "dead", ("ep_2", 2): "pending", ("ep_4", 2): "pending"} | {
        ("ep_5", 2): "dead"
    }
    assert [record["lastError"] for record in adapter.records("delivery") if record["state"] == "dead"] == [
        "endpoint removed",
        "endpoint gone",
    ]
    assert await store.bury_deliveries() == 0


async def test_a_large_backlog_is_buried_in_parts_between_which_payments_go_on(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(endpoints, "BURY_MAX", 1)
    await together(store, [published(n, [2]) for n in range(300)])
    burying = asyncio.create_task(store.bury_deliveries())
    assert isinstance(await store.commit(intent(999)), Done)
    assert store.pending_deliveries("ep_1") > 0
    assert await burying == 300
    assert store.pending_deliveries("ep_1") == 0


async def test_endpoints_are_read_back_as_they_were_written_last(store: Store):
    before = make_endpoint("ep_1", description="the shop", old_secret=b"o", old_secret_until_ms=5, configured=b"c")
    after = replace(before, state="deleted", events=("payment.*", "refund.completed"), secret=b"", old_secret=None)
    await store.commit(Commit(endpoint=before))
    assert store.endpoints() == [before]
    await together(store, [Commit(endpoint=after), Commit(endpoint=make_endpoint("ep_0"))])
    assert store.endpoints() == [make_endpoint("ep_0"), after]


async def test_a_delivery_keeps_the_log_of_its_tries(store: Store):
    await store.commit(published(1, [2]))
    log = (Try(NOW_MS, 12, None, "TimeoutError"), Try(NOW_MS + 5, 3, 500, None, "no \x00, \N{PILE OF POO}"))
    dead = make_delivery(id_of(1), 2, state="dead", tries=2, due_at_ms=None, last_error="HTTP 500", log=log)
    await store.commit(Commit(deliveries=[dead]))
    assert store.delivery("ep_1", id_of(1), 2) == dead
    assert store.dead_deliveries("ep_1", 10) == [dead]
    assert store.delivery("ep_2", id_of(1), 2) is None
    assert store.dead_deliveries("ep_2", 10) == []


async def test_a_store_is_healthy_until_it_is_closed(adapter: SqliteAdapter, store: Store):
    await together(store, [unwritable("amount"), intent(1)])
    assert store.healthy()
    await adapter.close(store)
    assert not store.healthy()


async def test_a_redelivered_event_has_the_same_body(store: Store):
    await store.commit(published(1, [2]))
    before = store.due_deliveries("ep_1", NOW_MS, 1)[0]
    await store.commit(Commit(deliveries=[make_delivery(id_of(1), 2, tries=3)]))
    after = store.due_deliveries("ep_1", NOW_MS, 1)[0]
    assert (before[0].event_id, before[1]) == (after[0].event_id, after[1])
    assert after[0].tries == 3
