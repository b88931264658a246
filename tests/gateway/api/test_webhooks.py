"""What a merchant's developer sees of events and deliveries, and sending them again."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from gateway.courier import KEPT_BYTES_MAX
from gateway.flows import outbox, replays
from gateway.storage import endpoints as storage
from tests.gateway.api.conftest import Site, running_site
from tests.gateway.api.receiver import (
    ENDPOINTS,
    EVENTS,
    Receiver,
    act,
    create,
    delivery,
    event_of,
    listed,
    refusal,
    running_receiver,
    settled,
)
from tests.gateway.api.test_endpoints import DECLINED, QUICK
from tests.gateway.doubles import PATIENCE_S, Held


@pytest.fixture(autouse=True)
def quick_lanes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REFILL_S", "FLUSH_S", "FAILURE_PAUSE_S", "FAILURE_PAUSE_S_MAX"):
        monkeypatch.setattr(outbox, name, 0.002)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running_site(tmp_path, QUICK) as made:
        yield made


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with running_receiver() as made:
        yield made


async def test_an_event_tells_its_body_and_how_each_try_went(site: Site, receiver: Receiver):
    made = await create(site, receiver.url + "/e")
    receiver.says(500, "out of paper " * 100)
    payment = await site.pay()
    event = event_of(payment)
    dead = await settled(site, event, made["endpointID"], "dead")
    assert (dead["tries"], dead["lastError"]) == (2, "HTTP 500")
    assert [(each["status"], len(each["response"])) for each in dead["attempts"]] == [(500, KEPT_BYTES_MAX)] * 2
    good = await settled(site, event, "ep_1", "delivered")
    assert [each["status"] for each in good["attempts"]] == [200]
    assert "response" not in good["attempts"][0]
    told = await site.get(f"{EVENTS}/{event}")
    assert told["body"]["data"]["paymentID"] == payment["paymentID"] == told["subjectID"]
    assert (told["type"], told["sequence"], told["body"]["id"]) == ("payment.completed", 2, event)


async def test_whoever_does_not_answer_is_told_so(site: Site):
    made = await create(site, "http://127.0.0.1:1/")
    dead = await settled(site, event_of(await site.pay()), made["endpointID"], "dead")
    assert [each["error"] for each in dead["attempts"]] == ["ClientConnectorError"] * 2
    assert "status" not in dead["attempts"][0]


async def test_events_are_listed_the_newest_first_by_page_and_by_filter(site: Site, receiver: Receiver):
    made = await create(site, receiver.url + "/l", events=["payment.failed"])
    receiver.says(500)
    payments = [await site.pay() for _ in range(3)]
    site.provider.status, site.provider.code = DECLINED
    payments.append(await site.pay())
    events = [event_of(payment) for payment in reversed(payments)]
    await settled(site, events[0], made["endpointID"], "dead")
    for event in events:
        await settled(site, event, "ep_1", "delivered")
    assert await listed(site) == events
    first = (await site.request("GET", EVENTS, params={"limit": "3"})).json
    assert [event["eventID"] for event in first["data"]] == events[:3]
    rest = (await site.request("GET", EVENTS, params={"limit": "3", "cursor": first["pagination"]["nextCursor"]})).json
    assert [event["eventID"] for event in rest["data"]] == events[3:]
    assert "nextCursor" not in rest["pagination"]
    assert await listed(site, type="payment.failed") == events[:1]
    assert await listed(site, paymentID=payments[1]["paymentID"]) == events[2:3]
    assert await listed(site, paymentID=payments[1]["paymentID"], type="payment.failed") == []
    assert await listed(site, state="dead") == await listed(site, endpointID=made["endpointID"]) == events[:1]
    assert await listed(site, state="dead", endpointID="ep_1") == await listed(site, state="pending") == []
    assert await listed(site, state="delivered") == await listed(site, endpointID="ep_1") == events
    assert await listed(site, state="delivered", endpointID="ep_1", limit="2") == events[:2]
    assert await listed(site, state="dead", cursor=events[0]) == []


async def test_what_a_filter_passes_over_is_looked_at_in_parts(site: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(storage, "SCAN_MAX", 2)
    for _ in range(5):
        await site.pay()
    site.provider.status, site.provider.code = DECLINED
    declined = event_of(await site.pay())
    pages, cursor = [], {}
    for kind in ("payment.completed", "payment.failed"):
        while True:
            answer = (await site.request("GET", EVENTS, params={"type": kind} | cursor)).json
            pages.append([event["eventID"] for event in answer["data"]])
            if "nextCursor" not in answer["pagination"]:
                break
            cursor = {"cursor": answer["pagination"]["nextCursor"]}
        cursor = {}
    assert [len(page) for page in pages] == [1, 2, 2, 0, 1, 0, 0, 0]
    assert pages[4] == [declined]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("state=lost", "state"),
        ("type=payment.done", "type"),
        ("cursor=evt_1_2", "cursor"),
        ("cursor=evt__", "cursor"),
        ("cursor=evt_1_99999999999", "cursor"),
        ("cursor=pay_1", "cursor"),
        ("paymentID=a%20b", "paymentID"),
        ("colour=blue", "colour"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_query_that_cannot_be_is_refused_by_the_name_of_its_parameter(shared_site: Site, query: str, param: str):
    assert refusal(await shared_site.request("GET", f"{EVENTS}?{query}")) == (400, "invalid_request", param)


@pytest.mark.parametrize("event_id", ["evt_1_2", "evt_1_0", "evt_1_-1", "evt_1_२", "evt__2", "evt_", "pay_1", "2", "x" * 500])
@pytest.mark.asyncio(loop_scope="module")
async def test_an_event_that_is_none_is_not_found(shared_site: Site, event_id: str):
    for answer in (
        await shared_site.request("GET", f"{EVENTS}/{event_id}"),
        await shared_site.post(f"{EVENTS}/{event_id}/replay"),
    ):
        assert refusal(answer) == (404, "not_found", None)


async def test_history_that_is_not_published_is_no_event_here(site: Site):
    processing = event_of(await site.pay()).removesuffix("2") + "1"
    assert (await site.request("GET", f"{EVENTS}/{processing}")).status == 404


# Replay


async def test_a_replay_has_the_same_id_and_body_and_a_new_timestamp(
    site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
):
    made = await create(site, receiver.url + "/p")
    event = event_of(await site.pay())
    await settled(site, event, made["endpointID"], "delivered")
    real_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + 60 * 10**9)
    answer = await site.post(f"{EVENTS}/{event}/replay", {"endpointID": made["endpointID"]}, idempotency_key="again")
    assert [each["state"] for each in answer.json["data"]["deliveries"]] == ["pending"]
    before, after = await receiver.until("/p", 2)
    assert (before.event_id, before.body) == (after.event_id, after.body)
    assert int(after.headers["webhook-timestamp"]) >= int(before.headers["webhook-timestamp"]) + 60
    done = await settled(site, event, made["endpointID"], "delivered")
    assert (done["tries"], len(done["attempts"])) == (1, 2)
    assert (await delivery(site, event, "ep_1"))["tries"] == 1
    repeated = await site.post(f"{EVENTS}/{event}/replay", {"endpointID": made["endpointID"]}, idempotency_key="again")
    assert repeated.body == answer.body
    assert (await delivery(site, event, made["endpointID"]))["state"] == "delivered"


async def test_a_replay_goes_to_all_that_the_event_is_for_also_those_made_since(site: Site, receiver: Receiver):
    event = event_of(await site.pay())
    await settled(site, event, "ep_1", "delivered")
    late = await create(site, receiver.url + "/late")
    other = await create(site, receiver.url + "/other", events=["refund.*"])
    answer = await site.post(f"{EVENTS}/{event}/replay")
    assert {each["endpointID"] for each in answer.json["data"]["deliveries"]} == {"ep_1", late["endpointID"]}
    assert [each.event_id for each in await receiver.until("/late", 1)] == [event]
    await site.post(f"{EVENTS}/{event}/replay", {"endpointID": other["endpointID"]})
    assert [each.event_id for each in await receiver.until("/other", 1)] == [event]


async def test_what_waits_to_be_sent_is_not_sent_twice_by_a_replay(site: Site, receiver: Receiver):
    made = await create(site, receiver.url + "/w")
    held = Held(web.Response())
    receiver.behave = lambda _: held()
    event = event_of(await site.pay())
    await receiver.until("/w", 1)
    answer = await site.post(f"{EVENTS}/{event}/replay", {"endpointID": made["endpointID"]})
    assert [each["state"] for each in answer.json["data"]["deliveries"]] == ["pending"]
    held.let_go.set()
    await settled(site, event, made["endpointID"], "delivered")
    receiver.says(200)
    await settled(site, event_of(await site.pay()), made["endpointID"], "delivered")
    assert [each.event_id for each in receiver.at("/w")].count(event) == 1


async def test_what_waits_for_its_next_try_is_left_as_it_is_by_a_replay(site: Site, receiver: Receiver):
    made = await create(site, receiver.url + "/w")
    receiver.says(503, **{"Retry-After": "3600"})
    event = event_of(await site.pay())
    async with asyncio.timeout(PATIENCE_S):
        while (waiting := await delivery(site, event, made["endpointID"]))["tries"] == 0:
            pass
    replayed = await site.post(f"{EVENTS}/{event}/replay", {"endpointID": made["endpointID"]})
    del waiting["attempts"]
    assert replayed.json["data"]["deliveries"] == [waiting]
    assert await listed(site, state="pending") == [event]


async def test_without_an_endpoint_that_is_enabled_there_is_no_replay(site: Site):
    event = event_of(await site.pay())
    await act(site, "ep_1", "disable")
    assert refusal(await site.post(f"{EVENTS}/{event}/replay")) == (409, "no_endpoint", None)
    named = await site.post(f"{EVENTS}/{event}/replay", {"endpointID": "ep_1"})
    assert refusal(named) == (409, "endpoint_disabled", None)
    assert refusal(await site.post(f"{EVENTS}/{event}/replay", {"endpointID": "ep_9"})) == (404, "not_found", None)


async def test_dead_letters_are_replayed_so_many_at_a_time(site: Site, receiver: Receiver, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(replays, "REPLAY_MAX", 2)
    made = await create(site, receiver.url + "/d")
    receiver.says(500)
    events = [event_of(await site.pay()) for _ in range(3)]
    for event in events:
        await settled(site, event, made["endpointID"], "dead")
    receiver.says(200)
    path = f"{ENDPOINTS}/{made['endpointID']}/replay"
    first = await site.post(path, idempotency_key="1")
    assert first.json["data"] == {"endpointID": made["endpointID"], "replayed": 2, "hasMore": True}
    for event in events[:2]:
        await settled(site, event, made["endpointID"], "delivered")
    assert (await site.post(path, idempotency_key="1")).body == first.body
    assert (await delivery(site, events[2], made["endpointID"]))["state"] == "dead"
    assert (await act(site, made["endpointID"], "replay"))["replayed"] == 1
    await settled(site, events[2], made["endpointID"], "delivered")
    assert await act(site, made["endpointID"], "replay") == {
        "endpointID": made["endpointID"],
        "replayed": 0,
        "hasMore": False,
    }
