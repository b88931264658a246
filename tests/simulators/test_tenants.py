"""Tenants as their users see them: worlds of their own behind one port."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from simulators.app import _site
from simulators.clock import Clock
from simulators.tenants import TENANTS_MAX, Tenants, seed_of

BODY = {
    "reference": "r",
    "amount": 1000,
    "currency": "INR",
    "merchantID": "m",
    "card": {"number": "4111111111111111", "expiryMonth": "12", "expiryYear": "2099", "cvv": "123"},
}
BANK = {"reference": "r", "amount": 1000, "currency": "INR", "merchantID": "m", "bankCode": "HDFC0000001"}


async def entries(client, **options):
    async with client.session.get(client.url + options.pop("path", "/journal"), **options) as answer:
        return (await answer.read()).count(b"\n")


async def test_a_header_and_a_path_lead_to_the_same_tenant_and_to_no_other(start):
    client = await start()
    await client.call("POST", "/card/charges", json=BODY, headers={"X-Paydrome-Tenant": "a"})
    status, charge, _ = await client.call("GET", "/t/a/card/charges/r")
    assert (status, charge["status"]) == (200, "approved")
    for path in ("/card/charges/r", "/t/b/card/charges/r"):
        assert (await client.call("GET", path))[0] == 404
    assert await entries(client, path="/t/a/journal") == 2
    assert await entries(client, path="/t/a/journal?operation=create") == 1
    assert await entries(client, path="/journal?operation=create") == 0


async def test_the_path_goes_before_the_header(start):
    client = await start()
    await client.call("POST", "/t/a/card/charges", json=BODY, headers={"X-Paydrome-Tenant": "b"})
    assert await entries(client, path="/t/a/journal") == 1
    assert await entries(client, path="/t/b/journal") == 0


async def test_tenants_meet_other_fates_each_the_same_in_every_process(start):
    fates = []
    for _ in range(2):
        client = await start()
        ids = [
            (await client.call("POST", f"{prefix}/card/charges", json=BODY))[1]["providerID"] for prefix in ("", "/t/a", "/t/b")
        ]
        assert len(set(ids)) == 3
        fates.append(ids)
    assert fates[0] == fates[1]


async def test_a_seed_that_is_given_is_the_seed(start):
    client = await start()
    seed = seed_of(1, "a")
    status, made, _ = await client.call("POST", "/admin/tenants", json={"name": "b", "seed": seed})
    assert (status, made["seed"]) == (201, seed)
    a, b = [(await client.call("POST", f"/t/{name}/card/charges", json=BODY))[1] for name in "ab"]
    assert a["providerID"] == b["providerID"]


async def test_a_tenant_can_have_settings_of_its_own(start):
    client = await start()
    patch = {"card": {"outcomes": {"51": 1, "00": None}}}
    assert (await client.call("POST", "/admin/tenants", json={"name": "poor", "simulators": patch}))[0] == 201
    codes = [(await client.call("POST", f"{prefix}/card/charges", json=BODY))[1]["responseCode"] for prefix in ("", "/t/poor")]
    assert codes == ["00", "51"]


@pytest.mark.parametrize("headers", [{"X-Paydrome-Tenant": "a"}, {}])
async def test_the_page_of_a_payment_is_the_tenants(start, ear, headers):
    client = await start(bank={"customer": {"acts": False}})
    prefix = "" if headers else "/t/a"
    _, payment, _ = await client.call("POST", f"{prefix}/bank/payments", json=BANK | {"callbackURL": ear.url}, headers=headers)
    assert payment["redirectURL"].startswith(f"{client.url}/t/a/bank/pages/")
    async with client.session.get(payment["redirectURL"]) as page:
        assert page.status == 200
    async with client.session.post(
        payment["redirectURL"], data={"action": "cancel"}, allow_redirects=False, headers=headers
    ) as clicked:
        assert clicked.headers["Location"] == payment["redirectURL"].removeprefix(client.url)
    assert (await ear.next())["status"] == "declined"


async def test_a_tenant_that_is_deleted_sends_nothing_more(start, ear):
    client = await start()
    await client.call(
        "POST", "/t/a/bank/payments", json=BANK | {"bankCode": "TESTP", "callbackURL": ear.url, "expiresInMs": 50}
    )
    assert (await client.call("DELETE", "/admin/tenants/a"))[0] == 200
    await client.bank("other", ear.url, expiresInMs=50, bankCode="TESTP")
    assert (await ear.next())["reference"] == "other"  # due later, and yet the first
    assert ear.silent
    assert (await client.call("DELETE", "/admin/tenants/a"))[0] == 404
    assert await entries(client, path="/t/a/journal") == 0


@pytest.mark.parametrize("path", ["/live", "/admin/live", "/metrics", "/metrics?x=1"])
async def test_a_tenant_that_is_deleted_does_not_come_back_because_somebody_watches_it(start, path):
    client = await start()
    await client.call("GET", "/t/a/health")
    async with client.session.get(f"{client.url}/t/a{path}") as watched:
        assert watched.status == 200
    await client.call("DELETE", "/admin/tenants/a")
    status, refusal, _ = await client.call("GET", f"/t/a{path}")
    assert (status, refusal["code"]) == (404, "not_found")
    assert (await client.call("POST", "/admin/tenants", json={"name": "a"}))[0] == 201


async def test_tenants_are_listed(start):
    client = await start()
    await client.call("POST", "/t/a/card/charges", json=BODY)
    listed = (await client.call("GET", "/admin/tenants"))[1]
    assert listed["max"] == TENANTS_MAX
    assert [(one["name"], one["url"], one["seed"], one["entries"]) for one in listed["tenants"]] == [
        ("a", f"{client.url}/t/a", seed_of(1, "a"), 1)
    ]


async def test_there_are_only_so_many_tenants(start, monkeypatch):
    monkeypatch.setattr("simulators.tenants.TENANTS_MAX", 2)
    client = await start()
    for name in "ab":
        assert (await client.call("GET", f"/t/{name}/health"))[0] == 200
    status, answer, _ = await client.call("GET", "/t/c/health")
    assert (status, answer["code"]) == (429, "too_many_tenants")
    await client.call("DELETE", "/admin/tenants/a")
    assert (await client.call("GET", "/t/c/health"))[0] == 200


async def test_a_tenant_is_made_once_however_many_call_first_and_however_long_it_takes(configure):
    made = []

    @asynccontextmanager
    async def slowly(config):
        async with _site(config, Clock(), 1, workers=1) as site:
            await asyncio.sleep(0)
            made.append(site)
            yield site

    async with _site(configure(), Clock(), 1, workers=1) as default:
        tenants = Tenants(default, slowly)
        found = await asyncio.gather(*(tenants._open("a", default.base) for _ in range(5)))
        assert found == made * 5
        await tenants.close()


async def test_a_tenant_ends_whole_though_whoever_ended_it_has_gone(configure):
    ending, ended = asyncio.Event(), []

    @asynccontextmanager
    async def slowly(config):
        async with _site(config, Clock(), 1, workers=1) as site:
            yield site
            ending.set()
            await asyncio.sleep(0)
        ended.append(site.callbacks._session.closed)

    async with _site(configure(), Clock(), 1, workers=1) as default:
        tenants = Tenants(default, slowly)
        await tenants._open("a", default.base)
        call = asyncio.create_task(tenants._end("a"))
        await ending.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await tenants.close()
    assert ended == [True]


async def test_nothing_waits_on_the_clock_of_a_world_that_is_gone(configure):
    async with _site(configure(), Clock(), 1, workers=1) as site:
        site.world.clock.call_at(site.world.now_ms() + 60_000, print)
    assert site.world.clock.waiting == 0
    site.world.clock.call_at(0, pytest.fail, "a world that is gone did something")
    site.world.clock.call_at(0, pytest.fail, "a world that is gone did something")
    assert site.world.clock._alarm is None


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"name": "a b"}, 400, "name: "),
        ({"name": "taken"}, 409, "already"),
        ({"name": "x", "seed": -1}, 400, "seed: "),
        ({"name": "x", "simulators": {"card": {"latency": "fast"}}}, 400, "card.latency: "),
        ({"name": "x", "simulators": {"secrets": {}}}, 400, "secrets"),
        ({"name": "x", "colour": 1}, 400, "colour"),
    ],
)
async def test_a_tenant_that_cannot_be_is_refused_and_not_made(start, body, status, words):
    client = await start()
    await client.call("POST", "/admin/tenants", json={"name": "taken"})
    found, answer, _ = await client.call("POST", "/admin/tenants", json=body)
    assert (found, words in answer["error"]) == (status, True), answer
    assert [one["name"] for one in (await client.call("GET", "/admin/tenants"))[1]["tenants"]] == ["taken"]


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/t/", {}, 400),
        ("/t/a%20b/health", {}, 400),
        ("/t/" + "a" * 65 + "/health", {}, 400),
        ("/t/a", {}, 404),
        ("/t/a//health", {}, 404),
        ("/t/a/t/b/health", {}, 404),
        ("/t/a/admin/tenants", {}, 404),
        ("/health", {"X-Paydrome-Tenant": "ä"}, 400),
        ("/health", {"X-Paydrome-Tenant": ""}, 400),
    ],
)
async def test_an_address_that_is_no_tenants_is_refused(start, path, headers, status):
    client = await start()
    assert (await client.call("GET", path, headers=headers))[0] == status
