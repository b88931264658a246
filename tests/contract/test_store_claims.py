"""Idempotency keys as every store keeps them."""

import asyncio

import msgspec
import pytest

from gateway.ports import Commit, Done, InFlight, Mismatch, Replay, Response, Store
from tests.contract.conftest import SqliteAdapter
from tests.gateway.doubles import NOW_MS, answer_to, intent, make_claim

DAY_MS = 24 * 3600 * 1000
BODY = b'{"success":true,"data":{"note":"\xe2\x82\xb9\\u0000"}}'


def second(key: str = "key-1", **claim: object) -> Commit:
    return intent(2, claim=make_claim(key, payment=2, **claim))  # type: ignore[arg-type]


async def test_an_unclaimed_key_is_claimed_together_with_its_payment(adapter: SqliteAdapter, store: Store):
    assert await store.commit(intent(1, claim=make_claim())) == Done()
    [record] = adapter.records("idempotency")
    assert (record["merchantID"], record["key"], record["responseStatus"]) == ("merchant_123", "key-1", None)


async def test_the_same_request_again_is_in_flight_until_it_was_answered(store: Store):
    await store.commit(intent(1, claim=make_claim()))
    assert await store.commit(second()) == InFlight(f"pay_{1:032x}")
    assert store.totals() == (1, 1)


async def test_the_same_request_again_gets_the_stored_response_byte_for_byte(store: Store):
    await store.commit(intent(1, claim=make_claim()))
    await store.commit(Commit(response=answer_to(make_claim(), BODY)))
    assert await store.commit(second()) == Replay(Response(201, BODY))
    assert store.payment(f"pay_{2:032x}") is None


@pytest.mark.parametrize("answered", [False, True])
async def test_another_request_under_the_key_is_a_mismatch(store: Store, answered: bool):
    await store.commit(intent(1, claim=make_claim()))
    if answered:
        await store.commit(Commit(response=answer_to(make_claim())))
    assert await store.commit(second(fingerprint=b"another request!")) == Mismatch()
    assert store.totals() == (1, 1)


async def test_a_key_belongs_to_its_merchant(store: Store):
    await store.commit(intent(1, claim=make_claim()))
    elsewhere = msgspec.structs.replace(make_claim(payment=2), merchant_id="merchant_2")
    assert await store.commit(intent(2, claim=elsewhere)) == Done()


async def test_of_twenty_claims_at_once_one_wins(store: Store):
    commits = [intent(n, claim=make_claim(payment=n)) for n in range(1, 21)]
    results = await asyncio.gather(*(store.commit(commit) for commit in commits))
    assert results == [Done(), *[InFlight(f"pay_{1:032x}")] * 19]
    assert store.totals() == (1, 1)


async def test_claims_at_once_with_different_requests_are_mismatches(store: Store):
    first, other = intent(1, claim=make_claim()), second(fingerprint=b"another request!")
    assert await asyncio.gather(store.commit(first), store.commit(other)) == [Done(), Mismatch()]


@pytest.mark.parametrize(("age_ms", "lapsed"), [(0, False), (DAY_MS, False), (DAY_MS + 1, True)])
async def test_a_claim_lapses_after_its_lifetime(store: Store, age_ms: int, lapsed: bool):
    await store.commit(intent(1, claim=make_claim()))
    await store.commit(Commit(response=answer_to(make_claim())))
    again = await store.commit(second(fingerprint=b"another request!", at_ms=NOW_MS + age_ms))
    assert again == (Done() if lapsed else Mismatch())


async def test_a_lapsed_claims_response_is_not_replayed_to_its_successor(store: Store):
    await store.commit(intent(1, claim=make_claim()))
    await store.commit(Commit(response=answer_to(make_claim())))
    later_ms = NOW_MS + DAY_MS + 1
    assert await store.commit(second(at_ms=later_ms)) == Done()
    third = intent(3, claim=make_claim(payment=3, at_ms=later_ms))
    assert await store.commit(third) == InFlight(f"pay_{2:032x}")


async def test_purging_forgets_old_claims_and_no_others(adapter: SqliteAdapter, store: Store):
    for n in range(1, 5):
        await store.commit(intent(n, claim=make_claim(f"key-{n}", payment=n, at_ms=NOW_MS + n)))
    assert await store.purge_claims(NOW_MS + 3) == 2
    assert [record["key"] for record in adapter.records("idempotency")] == ["key-3", "key-4"]
    assert await store.purge_claims(NOW_MS + 3) == 0
    assert await store.commit(intent(9, claim=make_claim("key-1", payment=9))) == Done()


async def test_purging_goes_on_until_nothing_is_left(store: Store):
    """Bounded at a time, so a caller repeats it until it answers 0."""
    await asyncio.gather(*(store.commit(intent(n, claim=make_claim(f"key-{n}", payment=n))) for n in range(1, 701)))
    purged = 0
    while count := await store.purge_claims(NOW_MS + 1):
        purged += count
    assert purged == 700
