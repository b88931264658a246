"""Where browsers come back to: what strangers get there, and where they are sent on. The rest is in tests/e2e/test_threeds.py."""

from urllib.parse import parse_qsl, urlsplit

import pytest

from gateway.api.redirects import return_to
from tests.gateway.api.conftest import GOOD, Site
from tests.gateway.doubles import make_payment

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUTES = [("POST", "3ds/return"), ("GET", "return")]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_a_payment_that_does_not_exist_is_not_found(shared_site: Site, method: str, path: str):
    for payment_id in ("pay_nothing", "pay_%00", "..%2f..", "x" * 1000):
        answer = await shared_site.request(method, f"/api/payments/{payment_id}/{path}", key=None)
        assert (answer.status, answer.json["code"]) == (404, "not_found")


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("body", [b"", b"cres=%ff", b"\xff\x00", b"x" * 10_000])
async def test_whatever_the_browser_brings_is_not_looked_at(shared_site: Site, method: str, path: str, body: bytes):
    shown = []
    payment_id = (await shared_site.pay())["paymentID"]
    for data in (b"cres=e30", body):
        answer = await shared_site.request(method, f"/api/payments/{payment_id}/{path}?status=failed", key=None, data=data)
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        shown.append(answer.body)
    assert shown[0] == shown[1]
    assert b"<h1>Paid</h1>" in shown[0]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_no_other_method_leads_there(shared_site: Site, method: str, path: str):
    other = "GET" if method == "POST" else "POST"
    answer = await shared_site.request(other, f"/api/payments/pay_1/{path}", key=None)
    assert (answer.status, answer.headers["Allow"]) == (405, method)


async def test_a_payment_that_is_over_leads_on_without_asking_anybody(shared_site: Site):
    answer = await shared_site.process(GOOD["card"] | {"returnUrl": "https://shop.example/back"})
    payment_id = answer.json["data"]["paymentID"]
    shared_site.provider.inquired.clear()
    for method, path in ROUTES:
        url = f"/api/payments/{payment_id}/{path}"
        back = await shared_site.request(method, url, key=None, allow_redirects=False)
        expected = f"https://shop.example/back?paymentID={payment_id}&status=completed"
        assert (back.status, back.headers["Location"], back.headers["Cache-Control"]) == (303, expected, "no-store")
    assert not shared_site.provider.inquired.is_set()


@pytest.mark.parametrize(
    ("url", "before", "after"),
    [
        ("https://shop.example", "https://shop.example?", ""),
        ("https://shop.example/back", "https://shop.example/back?", ""),
        ("https://shop.example/back?a=%20%2B&b", "https://shop.example/back?a=%20%2B&b&", ""),
        ("https://shop.example/back#top", "https://shop.example/back?", "#top"),
        ("http://[::1]:8080/b?status=x#y?z", "http://[::1]:8080/b?status=x&", "#y?z"),
    ],
)
async def test_the_merchants_url_stays_as_it_is_but_for_what_is_added(url: str, before: str, after: str):
    payment = make_payment(status="completed")
    found = return_to(url, payment)
    assert found == f"{before}paymentID={payment.id}&status=completed{after}"
    assert parse_qsl(urlsplit(found).query)[-2:] == [("paymentID", payment.id), ("status", "completed")]
