"""What every store keeps to: authentications, the second attempts that they lead to, and cards."""

from typing import Any

from msgspec.structs import replace

from gateway.core.authentication import Told, step
from gateway.ports import Card, Commit, Conflict, Done, Store
from tests.contract.conftest import SqliteAdapter
from tests.gateway.doubles import NOW_MS, intent, make_authentication


async def begun(store: Store, n: int = 1, **fields: Any) -> Commit:
    """Payment number `n`, the first attempt declined, its customer to be authenticated."""
    first = intent(n)
    assert first.payment is not None
    assert first.attempt is not None
    declined = replace(first.attempt, state="declined", due_at_ms=None)
    authentication = make_authentication(first.payment, **fields)
    second = Commit(payment=replace(first.payment, version=2), attempt=declined, authentication=authentication)
    assert [await store.commit(first), await store.commit(second)] == [Done(), Done()]
    return second


def result(commit: Commit, told: Told) -> Commit:
    assert commit.payment is not None
    assert commit.authentication is not None
    work = step(commit.payment, commit.authentication, told, now_ms=NOW_MS + 1, timestamp="T")
    assert work is not None
    return Commit(payment=work.payment, authentication=work.authentication, attempt=work.attempt, events=work.events)


async def test_an_authentication_is_read_back_as_it_was_written_each_time(store: Store):
    commit = await begun(store)
    assert commit.authentication is not None
    assert store.authentication(commit.authentication.id) == commit.authentication
    assert store.authentication("aut_nothing") is None
    challenged = result(commit, Told(trans_id="t_1", trans_status="C", url="https://acs.example/1"))
    assert await store.commit(challenged) == Done()
    assert store.authentication(commit.authentication.id) == challenged.authentication
    ended = result(challenged, Told(trans_id="t_1", trans_status="N", trans_status_reason="01", eci="07"))
    assert await store.commit(ended) == Done()
    assert store.authentication(commit.authentication.id) == ended.authentication


async def test_the_second_attempt_is_the_latest_and_the_first_stays(adapter: SqliteAdapter, store: Store):
    commit = await begun(store)
    charging = result(commit, Told(trans_id="t_1", trans_status="Y"))
    assert charging.attempt is not None
    assert await store.commit(charging) == Done()
    assert store.attempt_of(charging.attempt.payment_id) == charging.attempt
    assert commit.attempt is not None
    assert store.attempt(commit.attempt.reference) == commit.attempt
    assert charging.payment is not None
    asked = replace(charging.attempt, inquiries=1, due_at_ms=NOW_MS + 9)  # still an intent, and already there
    assert await store.commit(Commit(payment=replace(charging.payment, version=4), attempt=asked)) == Done()
    assert store.attempt_of(asked.payment_id) == asked
    await adapter.close(store)
    assert [record["state"] for record in adapter.records("attempt")] == ["declined", "intent"]


async def test_with_the_payment_at_another_version_neither_result_nor_attempt_is_written(store: Store):
    commit = await begun(store)
    charging = result(commit, Told(trans_id="t_1", trans_status="Y"))
    assert charging.payment is not None
    assert await store.commit(replace(charging, payment=replace(charging.payment, version=2))) == Conflict()
    assert commit.authentication is not None
    assert store.authentication(commit.authentication.id) == commit.authentication
    assert store.attempt_of(charging.payment.id) == commit.attempt


async def test_what_is_due_is_found_the_longest_due_first_and_of_one_provider_only(store: Store):
    for n, due_at_ms in ((1, 30), (2, 10), (3, 20), (4, 31), (5, None)):
        await begun(store, n, due_at_ms=due_at_ms)
    await begun(store, 6, due_at_ms=1, provider="upi")
    assert [due.id[-1] for due in store.due_authentications("card", 30, 10)] == ["2", "3", "1"]
    assert [due.id[-1] for due in store.due_authentications("card", 30, 2)] == ["2", "3"]


async def test_at_start_every_open_authentication_is_due(store: Store):
    await begun(store, 1, due_at_ms=NOW_MS + 10_000)
    await begun(store, 2, state="challenge", due_at_ms=NOW_MS + 600_000)
    await begun(store, 3, state="failed", due_at_ms=None)
    assert await store.wake_intents(NOW_MS) == 2
    assert {due.payment_id[-1] for due in store.due_authentications("card", NOW_MS, 10)} == {"1", "2"}


async def test_a_card_is_read_back_as_it_was_sealed(store: Store):
    card = Card("card_1", "merchant_123", b"sealed", NOW_MS)
    await store.commit(replace(intent(1), card=card))
    assert store.card("card_1") == card
    assert store.card("card_2") is None
