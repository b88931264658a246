"""Webhook endpoints over the API: they come, change and go while the gateway runs, and nothing is lost by it."""

import hashlib
import hmac
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from gateway.config import Webhooks
from gateway.core import signature
from gateway.flows import outbox
from tests.gateway.api.conftest import KEYS, Site, running_site, without_ids
from tests.gateway.api.receiver import (
    ENDPOINTS,
    EVENTS,
    Received,
    Receiver,
    act,
    change,
    create,
    delivery,
    event_of,
    in_status,
    listed,
    refusal,
    running_receiver,
    settled,
)
from tests.gateway.doubles import Held, secret

QUICK = Webhooks(tries_max=2, backoff_base_ms=1)
DECLINED = ("declined", "51")


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


def verifies(secret: str, received: Received) -> bool:
    """By the public package, as a merchant would."""
    try:
        Webhook(secret).verify(received.body, received.headers)
    except WebhookVerificationError:
        return False
    return True


def plainly_signed(secret: str, received: Received) -> bool:
    expected = hmac.new(signature.secret_key(secret), received.body, hashlib.sha256).hexdigest()
    return received.headers["X-Webhook-Signature"] == expected


# Create, read, change


async def test_an_endpoint_is_told_of_events_from_the_moment_it_is_made(site: Site, receiver: Receiver):
    made = await create(site, receiver.url + "/shop", description="the shop")
    assert made["status"] == "enabled"
    assert made["events"] == ["*"]
    payment = await site.pay()
    [received] = await receiver.until("/shop", 1)
    assert received.event_id == event_of(payment)
    assert verifies(made["secret"], received)
    assert plainly_signed(made["secret"], received)
    assert not verifies(secret("merchant"), received)


async def test_the_secret_is_told_once(site: Site, receiver: Receiver):
    made = await create(site, receiver.url)
    told = made.pop("secret")
    assert await site.get(f"{ENDPOINTS}/{made['endpointID']}") == made
    everything = (await site.request("GET", ENDPOINTS)).body
    assert told.encode() not in everything
    assert [each["endpointID"] for each in await site.get(ENDPOINTS)] == ["ep_1", made["endpointID"]]


async def test_no_secret_is_in_the_database_or_a_log(site: Site, receiver: Receiver, capsys: pytest.CaptureFixture[str]):
    answer = await site.post(ENDPOINTS, {"url": receiver.url}, idempotency_key="once")
    made = answer.json["data"]
    again = await site.post(ENDPOINTS, {"url": receiver.url}, idempotency_key="once")
    assert (again.status, again.body) == (201, answer.body)
    rotated = await act(site, made["endpointID"], "rotate")
    kept = b"".join(path.read_bytes() for path in site.db.parent.iterdir())
    said = "".join(capsys.readouterr()).encode()
    assert made["endpointID"].encode() in kept
    for each in (made["secret"], rotated["secret"], secret("merchant")):
        for form in (each.encode(), each.removeprefix("whsec_").encode(), signature.secret_key(each)):
            assert form not in kept
            assert form not in said


async def test_a_repeated_request_makes_one_endpoint_and_another_body_is_refused(site: Site, receiver: Receiver):
    first = await site.post(ENDPOINTS, {"url": receiver.url}, idempotency_key="k")
    assert (await site.post(ENDPOINTS, {"url": receiver.url}, idempotency_key="k")).body == first.body
    assert (await site.post(ENDPOINTS, {"url": receiver.url + "/2"}, idempotency_key="k")).status == 422
    assert len(await site.get(ENDPOINTS)) == 2


async def test_a_merchant_has_at_most_sixteen(site: Site, receiver: Receiver):
    first = await site.post(ENDPOINTS, {"url": receiver.url}, idempotency_key="first")
    for _ in range(14):
        last = await create(site, receiver.url)
    full = await site.post(ENDPOINTS, {"url": receiver.url})
    assert refusal(full) == (409, "too_many_endpoints", None)
    assert (await site.post(ENDPOINTS, {"url": receiver.url}, idempotency_key="first")).body == first.body
    await create(site, receiver.url, key=KEYS["merchant_2"])
    await site.request("DELETE", f"{ENDPOINTS}/{last['endpointID']}")
    await create(site, receiver.url)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "invalid_request", "url"),
        ({"url": "http://127.0.0.1/", "colour": "blue"}, "invalid_request", "colour"),
        ({"url": "ftp://merchant.example"}, "url_not_allowed", "url"),
        ({"url": "http://user:password@127.0.0.1/"}, "url_not_allowed", "url"),
        ({"url": "http://10.0.0.1/"}, "url_not_allowed", "url"),
        ({"url": "http://169.254.169.254/latest/meta-data/"}, "url_not_allowed", "url"),
        ({"url": "http://[::ffff:127.0.0.1]/"}, "url_not_allowed", "url"),
        ({"url": "http://127.0.0.1/" + "x" * 2_000}, "invalid_request", "url"),
        ({"url": "http://127.0.0.1/\u0000"}, "invalid_request", None),
        ({"url": "http://127.0.0.1/a b"}, "url_not_allowed", "url"),
        ({"url": "http://127.0.0.1/", "events": []}, "invalid_request", "events"),
        ({"url": "http://127.0.0.1/", "events": ["payment.complete"]}, "unknown_event", "events"),
        ({"url": "http://127.0.0.1/", "events": ["payment.processing"]}, "unknown_event", "events"),
        ({"url": "http://127.0.0.1/", "events": ["paym*"]}, "unknown_event", "events"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_cannot_be_is_refused_by_the_name_of_its_field(shared_site: Site, body: Any, code: str, param: str | None):
    answer = await shared_site.post(ENDPOINTS, body)
    assert refusal(answer) == (400, code, param)
    made = await shared_site.get(ENDPOINTS)
    assert len(made) == 1
    if "url" in body and param is not None:
        assert (await shared_site.request("PATCH", f"{ENDPOINTS}/ep_1", json=body)).status == 400
        assert await shared_site.get(ENDPOINTS) == made


async def test_an_unknown_event_is_answered_with_the_known_ones(site: Site):
    answer = await site.post(ENDPOINTS, {"url": "http://127.0.0.1/", "events": ["payment.done"]})
    assert "payment.done" in answer.json["error"]
    assert "payment.completed" in answer.json["error"]
    assert "settlement.*" in answer.json["error"]


async def test_an_endpoint_is_told_of_the_events_that_it_wants(site: Site, receiver: Receiver):
    await create(site, receiver.url + "/failures", events=["payment.failed", "refund.*"])
    await create(site, receiver.url + "/payments", events=["payment.*", "payment.*"])
    completed = await site.pay()
    site.provider.status, site.provider.code = DECLINED
    failed = await site.pay()
    assert [each.event_id for each in await receiver.until("/payments", 2)] == [event_of(completed), event_of(failed)]
    assert [each.event_id for each in await receiver.until("/failures", 1)] == [event_of(failed)]


async def test_a_change_leaves_the_rest_as_it_is(site: Site, receiver: Receiver):
    made = await create(site, receiver.url + "/a", events=["payment.*"], description="first")
    after = await change(site, made["endpointID"], events=["refund.completed"])
    assert (after["url"], after["events"], after["description"]) == (made["url"], ["refund.completed"], "first")
    assert "description" not in await change(site, made["endpointID"], description=None)
    posted = await site.post(f"{ENDPOINTS}/{made['endpointID']}", {"enabled": False})
    assert posted.json["data"]["status"] == "disabled"
    assert (await change(site, made["endpointID"]))["status"] == "disabled"


# While it is being delivered to


async def test_a_new_url_gets_what_the_old_one_did_not_take(site: Site, receiver: Receiver):
    made = await create(site, receiver.url + "/old")
    receiver.behave = lambda path: web.Response(status=503 if path == "/old" else 200, headers={"Retry-After": "0"})
    payment = await site.pay()
    await receiver.until("/old", 1)
    await change(site, made["endpointID"], url=receiver.url + "/new")
    [received] = await receiver.until("/new", 1)
    assert received.event_id == event_of(payment)


async def test_while_secrets_rotate_both_sign_and_the_plain_signature_is_the_new_ones(site: Site, receiver: Receiver):
    made = await create(site, receiver.url + "/r")
    rotated = await act(site, made["endpointID"], "rotate")
    assert rotated["oldSecretExpiresAt"] > rotated["updatedAt"]
    await site.pay()
    [received] = await receiver.until("/r", 1)
    assert len(received.headers["webhook-signature"].split(" ")) == 2
    assert verifies(made["secret"], received)
    assert verifies(rotated["secret"], received)
    assert plainly_signed(rotated["secret"], received)
    ended = await act(site, made["endpointID"], "rotate", {"overlapSeconds": 0})
    assert "oldSecretExpiresAt" not in ended
    await site.pay()
    _, received = await receiver.until("/r", 2)
    assert [verifies(each["secret"], received) for each in (made, rotated, ended)] == [False, False, True]


async def test_a_disabled_endpoint_gets_nothing_and_then_what_was_waiting(site: Site, receiver: Receiver):
    made = await create(site, receiver.url + "/d")
    receiver.says(503, **{"Retry-After": "0"})
    waiting = await site.pay()
    await receiver.until("/d", 1)
    assert (await act(site, made["endpointID"], "disable"))["status"] == "disabled"
    receiver.says(200)
    missed = await site.pay()
    await settled(site, event_of(missed), "ep_1", "delivered")
    assert (await act(site, made["endpointID"], "enable"))["status"] == "enabled"
    new = await site.pay()
    arrived = [each.event_id for each in await receiver.until("/d", 3)]
    assert arrived[0] == event_of(waiting)
    assert set(arrived) == {event_of(waiting), event_of(new)}


async def test_a_deleted_endpoint_is_no_more_and_what_waited_for_it_is_dead(site: Site, receiver: Receiver):
    made = await create(site, receiver.url + "/d")
    path = f"{ENDPOINTS}/{made['endpointID']}"
    held = Held(web.Response(status=500))
    receiver.behave = lambda _: held()
    payment = await site.pay()
    await receiver.until("/d", 1)
    deleted = await site.request("DELETE", path)
    assert (deleted.status, deleted.json["data"]["status"]) == (200, "deleted")
    held.let_go.set()
    dead = await settled(site, event_of(payment), made["endpointID"], "dead")
    assert dead["lastError"] == "endpoint deleted"
    assert dead["attempts"][0]["status"] == 500
    await site.pay()
    assert [(await site.request(method, path)).status for method in ("GET", "DELETE")] == [404, 404]
    assert len(receiver.at("/d")) == 1


async def test_410_ends_an_endpoint_until_it_is_enabled_again(tmp_path: Path, receiver: Receiver):
    async with running_site(tmp_path, QUICK) as site:
        made = await create(site, receiver.url + "/g")
        receiver.says(410)
        payment = await site.pay()
        await in_status(site, made["endpointID"], "gone")
        await settled(site, event_of(payment), made["endpointID"], "dead")
    async with running_site(tmp_path, QUICK) as site:
        assert (await site.get(f"{ENDPOINTS}/{made['endpointID']}"))["status"] == "gone"
        receiver.says(200)
        await settled(site, event_of(await site.pay()), "ep_1", "delivered")
        assert len(receiver.at("/g")) == 1
        refused = await site.post(f"{ENDPOINTS}/{made['endpointID']}/replay")
        assert refusal(refused) == (409, "endpoint_disabled", None)
        await act(site, made["endpointID"], "enable")
        assert (await act(site, made["endpointID"], "replay"))["replayed"] == 1
        assert [each.event_id for each in await receiver.until("/g", 2)] == [event_of(payment)] * 2


async def test_a_redirect_is_not_followed(site: Site, receiver: Receiver):
    made = await create(site, receiver.url + "/r")
    receiver.says(302, Location=receiver.url + "/elsewhere")
    payment = await site.pay()
    dead = await settled(site, event_of(payment), made["endpointID"], "dead")
    assert dead["lastError"] == "HTTP 302"
    assert receiver.at("/elsewhere") == []


# Restart


async def test_a_restart_keeps_everything_and_the_configuration_counts_where_it_has_changed(tmp_path: Path, receiver: Receiver):
    async with running_site(tmp_path, QUICK) as site:
        made = await create(site, receiver.url + "/k", events=["payment.*"], description="kept")
        rotated = await act(site, made["endpointID"], "rotate")
        await change(site, "ep_1", url=receiver.url + "/moved", description="ours")
        deleted = await create(site, receiver.url + "/deleted")
        await site.request("DELETE", f"{ENDPOINTS}/{deleted['endpointID']}")
    async with running_site(tmp_path, QUICK) as site:  # its provider, and so the URL in its configuration, is at another port
        kept = {each["endpointID"]: each for each in await site.get(ENDPOINTS)}
        assert kept[made["endpointID"]] == {name: value for name, value in rotated.items() if name != "secret"}
        assert kept["ep_1"]["url"].endswith("/webhooks")
        assert kept["ep_1"]["description"] == "ours"
        assert set(kept) == {"ep_1", made["endpointID"]}
        await site.pay()
        [received] = await receiver.until("/k", 1)
        assert verifies(made["secret"], received)
        assert verifies(rotated["secret"], received)


# Other merchants


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", ENDPOINTS + "/{endpoint}", None),
        ("PATCH", ENDPOINTS + "/{endpoint}", {"url": "http://127.0.0.1/"}),
        ("POST", ENDPOINTS + "/{endpoint}", {"enabled": False}),
        ("DELETE", ENDPOINTS + "/{endpoint}", None),
        ("POST", ENDPOINTS + "/{endpoint}/rotate", {}),
        ("POST", ENDPOINTS + "/{endpoint}/disable", {}),
        ("POST", ENDPOINTS + "/{endpoint}/enable", {}),
        ("POST", ENDPOINTS + "/{endpoint}/replay", {}),
        ("GET", EVENTS + "/{event}", None),
        ("POST", EVENTS + "/{event}/replay", {}),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_is_anothers_does_not_exist(shared_site: Site, method: str, path: str, body: Any):
    event = event_of(await shared_site.pay())
    mine = (await shared_site.request("GET", f"{ENDPOINTS}/ep_1")).body
    other = KEYS["merchant_2"]
    options = {} if body is None else {"json": body}
    anothers = await shared_site.request(method, path.format(endpoint="ep_1", event=event), key=other, **options)
    nobodys = await shared_site.request(method, path.format(endpoint="ep_9", event="evt_9_2"), key=other, **options)
    assert anothers.status == 404
    assert without_ids(anothers) == without_ids(nobodys)
    assert (await shared_site.request("GET", f"{ENDPOINTS}/ep_1")).body == mine


async def test_anothers_events_and_endpoints_are_not_listed(site: Site):
    event = event_of(await site.pay())
    for query in ("", "?endpointID=ep_1", "?state=pending", "?state=delivered"):
        answer = await site.request("GET", EVENTS + query, key=KEYS["merchant_2"])
        assert answer.json["data"] == []
    assert (await site.request("GET", ENDPOINTS, key=KEYS["merchant_2"])).json["data"] == []
    assert refusal(await site.request("GET", f"{EVENTS}?cursor={event}", key=KEYS["merchant_2"])) == (
        400,
        "invalid_request",
        "cursor",
    )
    assert await listed(site) == [event]
    assert (await delivery(site, event, "ep_1"))["endpointID"] == "ep_1"
