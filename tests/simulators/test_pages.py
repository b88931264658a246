import re
from typing import Any

import pytest

NOBODY = {"customer": {"acts": False}}


async def opened(start, ear, **fields: Any) -> tuple[Any, str]:
    client = await start(bank=NOBODY)
    charge = await client.bank("ref", ear.url, **fields)
    return client, charge["redirectURL"]


async def show(client, page: str) -> str:
    async with client.session.get(page) as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
        return await answer.text()


async def click(client, page: str, action: str, otp: str = "") -> tuple[int, str | None, str]:
    async with client.session.post(page, data={"action": action, "otp": otp}, allow_redirects=False) as answer:
        return answer.status, answer.headers.get("Location"), await answer.text()


async def test_the_page_shows_what_is_to_be_paid(start, ear):
    client, page = await opened(start, ear, amount=12345678, merchantID="Books & Co")
    text = await show(client, page)
    assert all(part in text for part in ("INR 123,456.78", "Books &amp; Co", "HDFC0000001", 'name="otp"'))
    assert not re.search(r"(src|href|@import|url\()", text)  # nothing from outside


@pytest.mark.parametrize(("currency", "shown"), [("JPY", "JPY 1,000"), ("KWD", "KWD 1.000"), ("USD", "USD 10.00")])
async def test_amounts_have_the_decimals_of_their_currency(start, ear, currency, shown):
    client, page = await opened(start, ear, currency=currency)
    assert f"<dd>{shown}</dd>" in await show(client, page)


@pytest.mark.parametrize(
    ("action", "otp", "bank", "status", "code"),
    [
        ("pay", "111000", "HDFC", "approved", "00"),
        ("pay", " 111000 ", "TESTP", "approved", "00"),
        ("pay", "111000", "TESTF", "declined", "insufficient_funds"),
        ("pay", "123456", "HDFC", "declined", "otp_failed"),
        ("cancel", "", "HDFC", "declined", "customer_cancelled"),
    ],
)
async def test_a_click_decides_and_the_gateway_is_told(start, ear, action, otp, bank, status, code):
    client, page = await opened(start, ear, bankCode=bank)
    http_status, _, text = await click(client, page, action, otp)
    heard = await ear.next()
    assert (http_status, heard["status"], heard["responseCode"]) == (200, status, code)
    assert ("Payment successful" in text) is (status == "approved")


@pytest.mark.parametrize("action", ["pay", "cancel"])
async def test_a_click_leads_back_to_the_merchant(start, ear, action):
    client, page = await opened(start, ear, returnURL="https://shop.test/done?order=1&x=2")
    assert (await click(client, page, action, "111000"))[:2] == (303, "https://shop.test/done?order=1&x=2")
    assert 'href="https://shop.test/done?order=1&amp;x=2"' in await show(client, page)


async def test_a_payment_keeps_its_first_decision(start, ear):
    client, page = await opened(start, ear)
    await click(client, page, "cancel")
    _, _, text = await click(client, page, "pay", "111000")
    assert "Payment declined" in text
    assert "customer_cancelled" in text
    entries = [(entry["operation"], entry["status"], entry["moved"]) for entry in await client.journal()]
    assert [entry for entry in entries if entry[0] == "decide"] == [("decide", "declined", 0)]


async def test_a_payment_that_the_merchant_cancelled_cannot_be_paid(start, ear):
    client, page = await opened(start, ear)
    await client.reverse("/bank/payments/ref")
    _, _, text = await click(client, page, "pay", "111000")
    assert "cancelled by the merchant" in text
    assert all(entry["moved"] == 0 for entry in await client.journal())


async def test_an_expired_payment_cannot_be_paid(start, ear):
    client, page = await opened(start, ear, expiresInMs=1)
    assert (await ear.next())["status"] == "expired"
    assert "has expired" in (await click(client, page, "pay", "111000"))[2]


async def test_nobody_clicks_when_the_customer_does_not_act_but_a_bank_that_forces_success_waits_for_a_person(start, ear):
    client, page = await opened(start, ear, bankCode="TESTS")
    assert "<form" in await show(client, page)
    assert (await client.call("GET", "/bank/payments/ref"))[1]["status"] == "pending"


async def test_whatever_the_merchant_calls_itself_is_escaped(start, ear):
    client, page = await opened(start, ear, merchantID="<script>alert('1')</script>")
    text = await show(client, page)
    assert "<script" not in text
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize("body", [b"", b"action=steal", b"otp=111000", b"\xff\xfe", b"&".join([b"a=1"] * 20), b"action=%00"])
async def test_a_form_that_says_nothing_decides_nothing(start, ear, body):
    client, page = await opened(start, ear)
    async with client.session.post(page, data=body) as answer:
        assert (answer.status, (await answer.json())["code"]) == (400, "invalid_request")
    assert "<form" in await show(client, page)


async def test_a_page_of_no_payment_is_not_found(start):
    client = await start()
    await client.card("ref")
    card_id = (await client.call("GET", "/card/charges/ref"))[1]["providerID"]
    for page in ("bank_0000000000000000", card_id, "", "%00", "<script>"):
        status, body, _ = await client.call("GET", f"/bank/pages/{page}")
        assert (status, body["code"]) == (404, "not_found")
