"""The bank's page, as a browser meets it."""

import asyncio
import re
from html.parser import HTMLParser
from itertools import product
from typing import Any

import pytest

from simulators import pages
from simulators.behaviour import Draws
from simulators.clock import Clock
from simulators.pages import ACTIONS, HEAD_START_MS, content_security_policy, returns_first

SEED = 1  # the configuration's default
NOBODY = {"customer": {"acts": False}}
LOGIN = {"action": "login", "user": "asha", "password": "demo"}
CONFIRM = {"action": "confirm"}
PAY = {"action": "pay", "otp": "111000"}
CANCEL = {"action": "cancel"}
STEPS = {"login": [], "confirm": [LOGIN], "otp": [LOGIN, CONFIRM]}


async def opened(start, ear, **fields: Any) -> tuple[Any, str]:
    client = await start(bank=NOBODY)
    charge = await client.bank(fields.pop("reference", "ref"), ear.url, **fields)
    return client, charge["redirectURL"]


async def show(client, page: str) -> str:
    async with client.session.get(page) as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
        return await answer.text()


async def click(client, page: str, *forms: dict[str, str]) -> tuple[int, str | None, str]:
    """Status, Location and text of the answer to the last form."""
    for form in forms:
        async with client.session.post(page, data=form, allow_redirects=False) as answer:
            found = answer.status, answer.headers.get("Location"), await answer.text()
    return found


async def status(client) -> tuple[str, str | None]:
    charge = (await client.call("GET", "/bank/payments/ref"))[1]
    return charge["status"], charge["responseCode"]


def step_of(text: str) -> str | None:
    """The step whose form the page shows."""
    shown = set(re.findall(r'name="action" value="(\w+)"', text)) - {"cancel"}
    return {"login": "login", "confirm": "confirm", "pay": "otp"}[shown.pop()] if shown else None


@pytest.mark.parametrize("step", STEPS)
async def test_each_step_shows_what_is_to_be_paid_and_the_test_values(start, ear, step):
    client, page = await opened(start, ear, amount=12345678, merchantID="Books & Co")
    for form in STEPS[step]:
        await click(client, page, form)
    text = await show(client, page)
    assert step_of(text) == step
    assert all(
        part in text for part in ("INR 123,456.78", "Books &amp; Co", "HDFC0000001", "<code>demo</code>", "<code>111000</code>")
    )
    assert not re.search(r"(src|href|@import|url\()", text)  # nothing from outside


class Labels(HTMLParser):
    """Collects what fields there are, and which of them have a label."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: set[str | None] = set()
        self.labelled: set[str | None] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "input":
            self.fields.add(dict(attrs).get("id"))
        elif tag == "label":
            self.labelled.add(dict(attrs).get("for"))


@pytest.mark.parametrize(("step", "fields"), [("login", {"user", "password"}), ("confirm", set()), ("otp", {"otp"})])
async def test_each_field_has_a_label(start, ear, step, fields):
    client, page = await opened(start, ear)
    for form in STEPS[step]:
        await click(client, page, form)
    found = Labels()
    found.feed(await show(client, page))
    assert found.fields == found.labelled == fields


@pytest.mark.parametrize(
    ("currency", "shown"),
    [("JPY", "JPY 1,000"), ("KWD", "KWD 1.000"), ("TND", "TND 1.000"), ("CLP", "CLP 1,000"), ("USD", "USD 10.00")],
)
async def test_amounts_have_the_decimals_of_their_currency(start, ear, currency, shown):
    client, page = await opened(start, ear, currency=currency)
    assert f">{shown}</dd>" in await show(client, page)


async def test_a_click_that_a_reset_overtakes_finds_no_payment(start, ear):
    client, page = await opened(start, ear)
    host, _, path = page.removeprefix("http://").partition("/")
    reader, writer = await asyncio.open_connection(*host.split(":"))
    head = f"POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 13\r\nExpect: 100-continue\r\n\r\n"
    writer.write(head.encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")  # the page waits for the form
    assert (await client.call("POST", "/admin/reset", json={}))[0] == 200
    writer.write(b"action=cancel")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 404")
    writer.close()
    assert await client.journal() == []


FOLLOWING = {
    ("login", "login"): "confirm",
    ("confirm", "confirm"): "otp",
    ("otp", "pay"): None,
    ("login", "cancel"): None,
    ("confirm", "cancel"): None,
    ("otp", "cancel"): None,
}


@pytest.mark.parametrize(("step", "action"), [*product(STEPS, ACTIONS)])
async def test_a_click_takes_the_step_that_it_belongs_to_and_no_other(start, ear, step, action):
    client, page = await opened(start, ear)
    form = {"login": LOGIN, "confirm": CONFIRM, "pay": PAY, "cancel": CANCEL}[action]
    http_status, location, _ = await click(client, page, *STEPS[step], form)
    assert (http_status, page.endswith(location)) == (303, True)
    following = FOLLOWING.get((step, action), step)
    assert step_of(await show(client, page)) == following
    decided = {"pay": ("approved", "00"), "cancel": ("declined", "customer_cancelled")}
    assert await status(client) == (("pending", None) if following else decided[action])


@pytest.mark.parametrize("change", [{"password": "Demo"}, {"password": ""}, {"user": " "}])
async def test_a_wrong_login_pays_nothing_and_can_be_tried_again(start, ear, change):
    client, page = await opened(start, ear)
    http_status, _, text = await click(client, page, LOGIN | change)
    assert (http_status, 'role="alert"' in text, step_of(text)) == (200, True, "login")
    await click(client, page, LOGIN)
    assert step_of(await show(client, page)) == "confirm"


@pytest.mark.parametrize(
    ("form", "bank", "status", "code", "title"),
    [
        (PAY, "HDFC", "approved", "00", "Payment successful"),
        (PAY | {"otp": " 111000 "}, "TESTP", "approved", "00", "Payment successful"),
        (PAY, "TESTF", "declined", "insufficient_funds", "Payment declined"),
        (PAY | {"otp": "123456"}, "HDFC", "declined", "otp_failed", "Payment declined"),
        (CANCEL, "HDFC", "declined", "customer_cancelled", "Payment declined"),
    ],
)
async def test_the_last_click_decides_and_the_gateway_is_told(start, ear, form, bank, status, code, title):
    client, page = await opened(start, ear, bankCode=bank)
    await click(client, page, LOGIN, CONFIRM, form)
    heard = await ear.next()
    assert (heard["status"], heard["responseCode"]) == (status, code)
    assert f"<h1>{title}</h1>" in await show(client, page)


@pytest.mark.parametrize("form", [PAY, CANCEL])
async def test_the_last_click_leads_back_to_the_merchant(start, ear, form):
    client, page = await opened(start, ear, returnURL="https://shop.test/done?order=1&x=2")
    assert (await click(client, page, LOGIN, CONFIRM, form))[:2] == (303, "https://shop.test/done?order=1&x=2")
    assert 'href="https://shop.test/done?order=1&amp;x=2"' in await show(client, page)


def drawn(*, return_first: bool) -> str:
    """A reference for which this is the order."""
    references = (f"ref_{index}" for index in range(100))
    return next(name for name in references if returns_first(Draws(SEED), name) is return_first)


async def test_the_callback_leaves_after_the_browser_where_that_was_drawn(start, ear):
    clock = Clock(lambda: 1_800_000_000_000)  # stands still
    client = await start(bank=NOBODY, clock=clock)
    page = (await client.bank(drawn(return_first=True), ear.url, returnURL="https://shop.test/done"))["redirectURL"]
    assert (await click(client, page, LOGIN, CONFIRM, PAY))[0] == 303
    clock.advance(HEAD_START_MS - 1)
    other = (await client.bank("other", ear.url))["redirectURL"]
    await click(client, other, CANCEL)
    assert (await ear.next())["reference"] == "other"  # of two callbacks, the one that was decided later came first
    assert ear.silent
    clock.advance(1)
    assert (await ear.next())["status"] == "approved"


async def test_the_browser_leaves_after_the_callback_where_that_was_drawn(start, ear):
    client, page = await opened(start, ear, reference=drawn(return_first=False), returnURL="https://shop.test/done")
    await click(client, page, LOGIN, CONFIRM)
    seen: list[str] = []

    async def pay() -> None:
        await click(client, page, PAY)
        seen.append("return")

    async def hear() -> None:
        await ear.hear()
        seen.append("callback")

    await asyncio.gather(pay(), hear())
    assert seen == ["callback", "return"]


def test_about_half_of_the_browsers_are_back_before_the_callback():
    assert 450 < sum(returns_first(Draws(SEED), f"ref_{index}") for index in range(1000)) < 550


async def test_the_bank_knows_the_outcome_before_the_browser_is_back(start, ear):
    client, page = await opened(start, ear, returnURL="https://shop.test/done")
    await click(client, page, LOGIN, CONFIRM, PAY)
    assert await status(client) == ("approved", "00")


async def test_a_payment_keeps_its_first_decision(start, ear):
    client, page = await opened(start, ear)
    await click(client, page, CANCEL)
    await click(client, page, LOGIN, CONFIRM, PAY)
    assert "You cancelled the payment." in await show(client, page)
    entries = [(entry["operation"], entry["status"], entry["moved"]) for entry in await client.journal()]
    assert [entry for entry in entries if entry[0] == "decide"] == [("decide", "declined", 0)]


async def test_a_payment_that_the_merchant_cancelled_cannot_be_paid(start, ear):
    client, page = await opened(start, ear)
    await client.reverse("/bank/payments/ref")
    await click(client, page, LOGIN, CONFIRM, PAY)
    assert "cancelled by the merchant" in await show(client, page)
    assert all(entry["moved"] == 0 for entry in await client.journal())


async def test_an_expired_payment_cannot_be_paid(start, ear):
    client, page = await opened(start, ear, expiresInMs=1)
    assert (await ear.next())["status"] == "expired"
    await click(client, page, LOGIN, CONFIRM, PAY)
    assert "has expired" in await show(client, page)


async def test_nobody_clicks_when_the_customer_does_not_act_but_a_bank_that_forces_success_waits_for_a_person(start, ear):
    client, page = await opened(start, ear, bankCode="TESTS")
    assert step_of(await show(client, page)) == "login"
    assert await status(client) == ("pending", None)


async def test_whatever_anybody_calls_themselves_is_escaped(start, ear):
    client, page = await opened(
        start, ear, merchantID="<script>alert('1')</script>", returnURL="https://shop.test/?a='onload=x"
    )
    await click(client, page, CANCEL)
    text = await show(client, page)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "a='onload" not in text


@pytest.mark.parametrize("body", [b"", b"action=steal", b"otp=111000", b"\xff\xfe", b"&".join([b"a=1"] * 20), b"action=%00"])
async def test_a_form_that_says_nothing_decides_nothing(start, ear, body):
    client, page = await opened(start, ear)
    async with client.session.post(page, data=body) as answer:
        assert (answer.status, (await answer.json())["code"]) == (400, "invalid_request")
    assert step_of(await show(client, page)) == "login"


async def test_the_oldest_payment_on_the_page_logs_in_again_when_there_are_too_many(start, ear, monkeypatch):
    monkeypatch.setattr(pages, "STEPS_MAX", 2)
    client = await start(bank=NOBODY)
    addresses = [(await client.bank(f"ref_{index}", ear.url))["redirectURL"] for index in range(3)]
    for page in addresses:
        await click(client, page, LOGIN)
    assert [step_of(await show(client, page)) for page in addresses] == ["login", "confirm", "confirm"]


@pytest.mark.parametrize(
    ("return_url", "sources"),
    [
        (None, "'self'"),
        ("https://shop.test/done?x=1", "'self' http: https:"),
        ("https://a;script-src*/", "'self' http: https:"),
    ],
)
def test_a_form_leads_to_this_page_only_unless_the_customer_returns_to_somebody(return_url, sources):
    directives = dict(part.split(" ", 1) for part in content_security_policy(return_url).split("; "))
    assert directives == {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
        "form-action": sources,
    }


async def test_every_answer_of_the_page_carries_the_policy(start, ear):
    client, page = await opened(start, ear, returnURL="https://shop.test/done")
    policy = content_security_policy("https://shop.test/done")
    async with client.session.get(page) as shown, client.session.post(page, data=CANCEL, allow_redirects=False) as clicked:
        assert [answer.headers["Content-Security-Policy"] for answer in (shown, clicked)] == [policy, policy]


@pytest.mark.parametrize("host", ["x//evil.example", 'x/"><script>', "x/t/../evil"])
async def test_a_hostile_host_header_leads_nowhere_else(start, ear, host):
    client, page = await opened(start, ear)
    form = {"action": "login", "user": "a", "password": "demo"}
    async with client.session.post(page, data=form, headers={"Host": host}, allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, page.removeprefix(client.url))


async def test_a_page_of_no_payment_is_not_found(start):
    client = await start()
    await client.card("ref")
    card_id = (await client.call("GET", "/card/charges/ref"))[1]["providerID"]
    for page in ("bank_0000000000000000", card_id, "", "%00", "<script>"):
        status, body, _ = await client.call("GET", f"/bank/pages/{page}")
        assert (status, body["code"]) == (404, "not_found")
