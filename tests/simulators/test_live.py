import base64
import hashlib
import re

import pytest

from simulators.live import RECENT, SHOWN, percentile
from simulators.origin import ours
from tests.simulators.browser import browsing, needs_browser

HOSTILE = "<img src=x onerror=alert(1)>"


async def page_of(client, path: str = "/live"):
    async with client.session.get(client.url + path) as answer:
        return answer, await answer.text()


@pytest.mark.parametrize(("path", "lands"), [("/", "/live"), ("/t/job-1/", "/t/job-1/live")])
async def test_the_root_leads_to_the_live_page(start, path, lands):
    client = await start()
    answer, text = await page_of(client, path)
    assert (answer.status, answer.url.path, answer.content_type) == (200, lands, "text/html")
    assert "<title>paydrome simulators</title>" in text


async def test_the_policy_allows_the_page_itself_and_nothing_else(start):
    answer, text = await page_of(await start())
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert (policy["default-src"], policy["connect-src"], policy["frame-ancestors"]) == ("'none'", "'self'", "'none'")
    for tag in ("script", "style"):
        blocks = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", text, re.DOTALL)
        assert len(blocks) == 1
        digest = base64.b64encode(hashlib.sha256(blocks[0].encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", text)  # nothing from elsewhere
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\son[a-z]+=", text)


async def test_the_state_tells_how_each_provider_is(start):
    faults = [{"kind": "http_502", "acts": True, "amount": 2000, "name": "flaky"}]
    client = await start(card={"faults": faults, "latency": {"kind": "uniform", "low": "0ms", "high": "9ms"}})
    for number in range(7):
        await client.card(f"pay_{number}", amount=2000 if number == 0 else 1000)
    await client.card("pay_declined", number="4000000000000002")
    _, state, _ = await client.call("GET", "/admin/live")
    card, upi, bank = state["providers"]
    delays = sorted(entry["delayMs"] for entry in await client.journal())
    assert (card["name"], card["entries"], card["approvalShare"], card["faultyShare"]) == ("card", 8, 7 / 8, 1 / 8)
    assert (card["delayP50Ms"], card["delayP99Ms"]) == (delays[3], delays[7])
    assert [(one["entries"], one["approvalShare"], one["delayP50Ms"]) for one in (upi, bank)] == [(0, None, None)] * 2
    (fault,) = state["faults"]
    assert (fault["provider"], fault["name"], fault["kind"]) == ("card", "flaky", "http_502")
    assert [row["seq"] for row in state["newest"]] == list(range(8, 0, -1))
    assert (state["entries"], state["seed"], state["timelineMs"], state["phase"]) == (8, "1", None, "")


async def test_the_state_is_bounded_however_long_the_journal(start):
    client = await start(card={"outcomes": {"00": 1}})
    await client.card("pay_declined", number="4000000000000002")
    for number in range(RECENT):
        await client.call("GET", f"/card/charges/pay_{number}")
    _, state, _ = await client.call("GET", "/admin/live")
    card = state["providers"][0]
    assert (card["entries"], card["approvalShare"]) == (RECENT + 1, None)  # the declined one is no longer recent
    assert len(state["newest"]) == SHOWN


async def test_phases_and_their_faults_are_shown(start):
    phase = {"name": "outage", "from": "0s", "until": "1h", "card": {"faults": [{"kind": "unavailable"}]}}
    client = await start(phases=[phase])
    now_ms = (await client.call("GET", "/admin/clock"))[1]["nowMs"]
    await client.call("POST", "/admin/timeline", json={"startAtMs": now_ms})
    _, state, _ = await client.call("GET", "/admin/live")
    assert (state["phase"], state["phases"]) == ("outage", [{"name": "outage", "from": "0s", "until": "1h"}])
    assert (state["faults"][0]["phase"], state["faults"][0]["kind"]) == ("outage", "unavailable")


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([], 50, None), ([4], 50, 4), ([4], 99, 4), ([1, 2], 50, 1), (list(range(1, 101)), 99, 99), ([3, 1, 2], 100, 3)],
)
def test_percentiles_are_nearest_ranks(values, percent, expected):
    assert percentile(values, percent) == expected


@pytest.mark.parametrize(
    ("host", "origin", "site", "allowed"),
    [
        ("localhost:9000", None, None, True),  # curl, requests, our own client
        ("payments.example.com", None, None, True),
        ("localhost:9000", "http://localhost:9000", "same-origin", True),
        ("127.0.0.1:9000", "http://127.0.0.1:9000", None, True),
        ("[::1]:9000", "http://[::1]:9000", "same-origin", True),
        ("simulators:9000", "http://simulators:9000", "same-origin", True),
        ("localhost:9000", "http://localhost:3000", "same-site", False),
        ("localhost:9000", "http://localhost:3000", None, False),
        ("localhost:9000", "https://evil.example", "cross-site", False),
        ("localhost:9000", None, "cross-site", False),
        ("localhost:9000", "null", None, False),  # a sandboxed frame
        ("evil.example:9000", "http://evil.example:9000", "same-origin", False),  # DNS rebinding
        ("evil.example:9000", "http://evil.example:9000", None, False),
        ("[::1", "http://[::1", None, False),
        ("", "http://", None, True),  # no browser sends it
    ],
)
def test_who_may_use_the_admin_api(host, origin, site, allowed):
    assert ours(host, origin=origin, site=site) is allowed


@pytest.mark.parametrize("prefix", ["", "/t/job-1"])
async def test_a_page_of_another_site_changes_nothing(start, prefix):
    client = await start()
    before = (await client.call("GET", f"{prefix}/admin/config"))[1]
    calls = [
        ("POST", "/admin/faults", {"provider": "card", "kind": "unavailable", "name": "x"}),
        ("PATCH", "/admin/config", {"card": {"refund_delay": {"kind": "constant", "value": "1s"}}}),
        ("POST", "/admin/clock/advance", {"by": "1d"}),
        ("POST", "/admin/timeline", {"startAtMs": 1}),
        ("POST", "/admin/reset", {}),
        ("DELETE", "/admin/faults/x", None),
    ]
    for method, path, body in calls:
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            status, refusal, _ = await client.call(method, prefix + path, json=body, headers=headers)
            assert (status, refusal["code"]) == (403, "cross_origin"), path
    assert (await client.call("GET", f"{prefix}/admin/config"))[1] == before
    assert (await client.call("GET", f"{prefix}/admin/clock"))[1]["offsetMs"] == 0
    status, refusal, _ = await client.call("POST", "/admin/tenants", json={"name": "y"}, headers={"Origin": "null"})
    assert (status, refusal["code"]) == (403, "cross_origin")
    headers = {"Origin": client.url, "Sec-Fetch-Site": "same-origin"}
    assert (await client.call("POST", f"{prefix}/admin/clock/advance", json={"by": "1d"}, headers=headers))[0] == 200


@needs_browser
async def test_a_person_can_watch_and_steer_the_world_in_a_browser(start, tmp_path):
    client = await start(upi={"faults": [{"kind": "http_500", "name": "there_before"}]})
    await client.card("pay_1")
    await client.session.post(f"{client.url}/merchant/webhooks/{HOSTILE}", data=b"{}")
    await client.call("GET", "/t/job-1/health")
    async with browsing(str(tmp_path)) as page:
        await page.open(f"{client.url}/")
        await page.until("document.body.dataset.ready === 'yes' && location.pathname === '/live'")
        assert await page.run("document.querySelector('#providers').innerText") != ""
        journal = await page.run("document.querySelector('#journal').innerText")
        assert "pay_1" in journal
        assert HOSTILE in journal
        assert await page.run("document.querySelectorAll('img').length") == 0
        links = await page.run("[...document.querySelectorAll('#journal a')].map(one => one.getAttribute('href'))")
        assert links == ["/admin/explain/pay_1"]  # and no explanation of a receiver

        await client.card("pay_2")
        await page.until("document.querySelector('#journal').innerText.includes('pay_2')")

        await page.run("document.querySelector('[data-by=\"1d\"]').click()")
        await page.until("document.querySelector('#clock').innerText.includes('24.0 h ahead')")

        choose = "{ const f = document.querySelector('#start').elements; f.kind.value = 'drip'; f.kind.dispatchEvent(new Event('change'));"
        await page.run(
            choose + "f.duration.value = '20ms'; f.name.value = 'mine'; document.querySelector('#start').requestSubmit(); }"
        )
        await page.until("document.querySelector('[aria-label=\"Stop fault mine\"]')")
        faults = (await client.call("GET", "/admin/faults"))[1]["faults"]
        assert [(fault["name"], fault["kind"], fault["over"]) for fault in faults if fault["provider"] == "card"] == [
            ("mine", "drip", "20ms")
        ]
        await page.run("document.querySelector('[aria-label=\"Stop fault mine\"]').click()")
        await page.until("!document.querySelector('[aria-label=\"Stop fault mine\"]')")
        assert [fault["name"] for fault in (await client.call("GET", "/admin/faults"))[1]["faults"]] == ["there_before"]

        await page.until("document.querySelector('#tenant').options.length === 2")
        assert page.complaints == []
        inject = "{ const s = document.createElement('script'); s.textContent = 'window.hacked = 1'; document.body.append(s); }"
        await page.run(inject)
        assert await page.run("window.hacked === undefined")
        assert any("Content Security Policy" in complaint for complaint in page.complaints)
