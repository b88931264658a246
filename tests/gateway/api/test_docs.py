"""The human page: one file, nothing from outside, and in a browser all operations and webhooks with commands that work."""

import asyncio
import re
import shlex
import shutil
from pathlib import Path

import pytest

from gateway.api.docs import PAGE
from tests.gateway.api.conftest import Site
from tests.simulators.browser import browsing, needs_browser


async def test_the_page_takes_nothing_from_outside_and_may_not(site: Site):
    answer = await site.request("GET", "/docs", key=None)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert (policy["default-src"], policy["connect-src"], policy["frame-ancestors"]) == ("'none'", "'self'", "'none'")
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    page = PAGE.read_text()
    assert answer.body.decode() == page
    assert re.findall(r'(?:src|href)="(?!data:,|openapi\.json)[^"#]', page) == []
    assert "//" not in re.sub(r"\n *// .*", "", page)  # comments apart: no address of anything
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", page)


@needs_browser
@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here, which the page's commands are for")
async def test_in_a_browser_it_shows_everything_and_its_first_command_pays(site: Site, tmp_path: Path):
    document = (await site.request("GET", "/openapi.json", key=None)).json
    operations = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
    events = [one["post"]["operationId"] for one in document["webhooks"].values()]
    async with browsing(str(tmp_path / "profile")) as page:
        await page.open(site.url + "/docs")
        await page.until("document.getElementById('message').hidden")
        shown = await page.run("[...document.querySelectorAll('article')].map(one => one.id)")
        assert sorted(shown) == sorted(operations + events)
        linked = await page.run("[...document.querySelectorAll('#contents a')].map(one => one.hash.slice(1))")
        assert linked == shown
        find = "document.getElementById('find'); find.value = 'refund GET status'; find.dispatchEvent(new Event('input'))"
        await page.run(f"{{ const find = {find} }}")
        assert await page.run("[...document.querySelectorAll('article')].filter(one => !one.hidden).length") == 1
        command = await page.run("document.querySelector('#postPaymentsProcess pre').textContent")
        again = await page.run("document.querySelector('#postRefundsProcess pre').textContent")
        assert page.complaints == []
    assert command.split("Idempotency-Key: ")[1][:20] != again.split("Idempotency-Key: ")[1][:20]
    process = await asyncio.create_subprocess_exec(
        *shlex.split(command.replace("\\\n", "")), "-s", stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert b'"success":true' in said
    assert await site.totals() == (1, 1)
