"""3-D Secure and the bank's page, end to end: merchant, gateway, acquirer, issuer, and the customer in between."""

import asyncio
import re
from collections import Counter
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.e2e.conftest import PATIENCE_S, Shop, open_world
from tests.simulators.browser import browsing, needs_browser

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHALLENGED, CHALLENGED_THEN_DECLINED = "4000000000003220", "4000008400001629"
FRICTIONLESS, FAILED, UNAVAILABLE, REJECTED = (f"40000000000010{last}" for last in ("00", "18", "34", "42"))
RIGHT, WRONG, CANCEL = {"action": "submit", "otp": "111000"}, {"action": "submit", "otp": "1"}, {"action": "cancel"}
CHALLENGE_MS = 600_000  # docs/3ds.md
CUSTOMER_MS = 5_000
ACTING = {"acts": True, "delay": {"kind": "constant", "value": f"{CUSTOMER_MS}ms"}}
BACK = "https://shop.example/back?cart=7#top"


async def challenged(shop: Shop, number: str = CHALLENGED, **more: Any) -> tuple[str, str]:
    """A payment whose customer is challenged, and where."""
    payment_id = await shop.pay(number, **more)
    payment = await shop.get(f"/api/payments/{payment_id}/status")
    assert (payment["status"], payment["nextAction"]["type"]) == ("requires_action", "redirect")
    return payment_id, payment["nextAction"]["url"]


async def fill_in(shop: Shop, url: str, *forms: dict[str, str]) -> tuple[str, dict[str, str]]:
    """What the issuer's page says at last: where its form leads, and its fields."""
    for form in forms:
        async with shop.world.session.post(url, data=form) as answer:
            text = await answer.text()
    [action] = re.findall(r'<form method="post" action="(.*?)">', text)
    fields = re.findall(r'<input type="hidden" name="(.*?)" value="(.*?)">', text)
    return unescape(action), {name: unescape(value) for name, value in fields}


async def come_back(shop: Shop, url: str, fields: dict[str, str] | None = None) -> tuple[int, str]:
    """Status of the gateway's answer to the browser, and where it sends it, or what it shows."""
    method = "GET" if fields is None else "POST"
    async with shop.world.session.request(method, url, data=fields, allow_redirects=False) as answer:
        return answer.status, answer.headers.get("Location") or await answer.text()


async def second_charge(shop: Shop, payment_id: str) -> dict[str, Any]:
    """What the acquirer knows of the second attempt."""
    reference = f"att_{payment_id.removeprefix('pay_')}_02"
    async with shop.world.session.get(f"{shop.world.url}/card/charges/{reference}") as answer:
        told: dict[str, Any] = await answer.json()
        return told


async def outcome(shop: Shop, payment_id: str) -> tuple[str, str | None, str | None]:
    payment = await shop.get(f"/api/payments/{payment_id}/status")
    assert "nextAction" not in payment
    return payment["status"], payment.get("failureReason"), payment.get("declineCode")


@pytest.mark.parametrize(
    ("number", "forms", "expected", "second"),
    [
        (CHALLENGED, [RIGHT], ("completed", None, None), ("approved", "00")),
        (CHALLENGED, [WRONG, RIGHT], ("completed", None, None), ("approved", "00")),
        (CHALLENGED, [WRONG] * 3, ("failed", "authentication_failed", "1A"), None),
        (CHALLENGED, [CANCEL], ("failed", "authentication_failed", "1A"), None),
        (CHALLENGED_THEN_DECLINED, [RIGHT], ("failed", "do_not_honor", "05"), ("declined", "05")),
    ],
)
async def test_a_challenge_ends_as_the_issuer_says_and_the_customer_is_sent_to_the_merchant(
    shop: Shop, number: str, forms: list[dict[str, str]], expected: tuple[Any, ...], second: tuple[str, str] | None
):
    payment_id, url = await challenged(shop, number, returnUrl=BACK)
    assert (await shop.charge(payment_id))["responseCode"] == "1A"
    status, location = await come_back(shop, *await fill_in(shop, url, *forms))
    assert (status, location) == (303, f"https://shop.example/back?cart=7&paymentID={payment_id}&status={expected[0]}#top")
    assert await outcome(shop, payment_id) == expected
    assert (await shop.heard(payment_id, f"payment.{expected[0]}"))["status"] == expected[0]
    charge = await second_charge(shop, payment_id)
    assert (charge.get("status"), charge.get("responseCode")) == (second or (None, None))
    assert charge.get("eci") == (second and "05")
    shown = (await shop.get(f"/api/payments/{payment_id}"))["authentication"]
    known = {"status": "authenticated", "transStatus": "Y", "eci": "05"} if second else {"status": "failed", "transStatus": "N"}
    assert shown | known == shown
    assert bool(shop.books(payment_id)) == (expected[0] == "completed")


async def test_the_callback_finishes_the_payment_without_the_browser(shop: Shop):
    payment_id, url = await challenged(shop)
    await fill_in(shop, url, RIGHT)
    await shop.heard(payment_id, "payment.completed")
    assert (await second_charge(shop, payment_id))["status"] == "approved"


async def test_a_browser_that_lies_changes_nothing(shop: Shop):
    payment_id, url = await challenged(shop, returnUrl=BACK)
    lie = {"cres": "eyJ0cmFuc1N0YXR1cyI6IlkifQ"}  # {"transStatus":"Y"}
    here = f"{shop.url}/api/payments/{payment_id}/3ds/return"
    for _ in range(2):
        assert (await come_back(shop, here, lie))[1].endswith("status=requires_action#top")
    assert (await shop.get(f"/api/payments/{payment_id}/status"))["nextAction"]["url"] == url
    assert (await come_back(shop, *await fill_in(shop, url, RIGHT)))[1].endswith("status=completed#top")


async def test_many_who_come_back_at_once_make_one_charge(shop: Shop):
    payment_id, url = await challenged(shop, returnUrl=BACK)
    back = await fill_in(shop, url, RIGHT)
    answers = await asyncio.gather(*(come_back(shop, *back) for _ in range(10)))
    assert {location.rpartition("status=")[2] for _, location in answers} == {"completed#top"}
    assert (await shop.charge(payment_id))["status"] == "declined"
    assert shop.books(payment_id)["receivable:card"] == 1000


async def test_without_a_return_url_the_customer_reads_how_it_ended(shop: Shop):
    payment_id, url = await challenged(shop, orderID="a:1")
    status, text = await come_back(shop, *await fill_in(shop, url, RIGHT))
    assert status == 200
    assert all(part in text for part in ("<h1>Paid</h1>", "Order a:1.", payment_id))


async def test_what_is_authenticated_can_be_captured_and_refunded_like_any_other(shop: Shop):
    payment_id, url = await challenged(shop, captureMethod="manual")
    assert "Authorized" in (await come_back(shop, *await fill_in(shop, url, RIGHT)))[1]
    assert (await shop.post(f"/api/payments/{payment_id}/capture", {"amount": 600, "final": True})).data[
        "status"
    ] == "completed"
    assert (await shop.post("/api/refunds/process", {"paymentID": payment_id})).data["amount"] == 600
    charge = await second_charge(shop, payment_id)
    assert (charge["capturedAmount"], charge["refundedAmount"]) == (600, 600)


async def test_a_void_ends_the_challenge_and_whoever_passes_it_later_is_not_charged(shop: Shop):
    payment_id, url = await challenged(shop, returnUrl=BACK)
    assert (await shop.post(f"/api/payments/{payment_id}/void", key=payment_id)).data["status"] == "voided"
    await shop.heard(payment_id, "payment.voided")
    assert (await come_back(shop, *await fill_in(shop, url, RIGHT)))[1].endswith("status=voided#top")
    assert (await second_charge(shop, payment_id))["code"] == "not_found"
    assert (await shop.post(f"/api/payments/{payment_id}/void", key=payment_id)).data["status"] == "voided"


async def test_a_challenge_that_nobody_answers_expires_at_the_issuer(shop: Shop):
    payment_id, _ = await challenged(shop)
    shop.world.clock.advance(CHALLENGE_MS)
    told = await shop.heard(payment_id, "payment.expired")
    assert (told["failureReason"], told["declineCode"]) == ("authentication_expired", "1A")


async def test_our_own_patience_ends_a_challenge_too_and_late_success_is_not_charged(shop: Shop, tmp_path: Path):
    async with shop.world.shop(tmp_path, authentication_lifetime_ms=1, pending_after_ms=1) as hasty:
        payment_id = await hasty.pay(CHALLENGED, returnUrl=BACK)
        await hasty.heard(payment_id, "payment.expired")
        reference = f"aut_{payment_id.removeprefix('pay_')}"
        async with shop.world.session.get(f"{shop.world.url}/card/3ds/authentications/{reference}") as answer:
            url = (await answer.json())["acsURL"]
        assert (await come_back(hasty, *await fill_in(hasty, url, RIGHT)))[1].endswith("status=expired#top")
        assert (await second_charge(hasty, payment_id))["code"] == "not_found"


async def test_the_simulated_customer_passes_a_challenge_that_no_browser_is_there_for(tmp_path: Path):
    async with open_world(challenge="simulated", customer=ACTING) as world, world.shop(tmp_path) as shop:
        payment_id, _ = await challenged(shop)
        world.clock.advance(CUSTOMER_MS)
        await world.merchant.heard(payment_id, "payment.completed")
        assert (await second_charge(shop, payment_id))["status"] == "approved"


async def test_who_is_known_by_their_data_is_not_bothered(tmp_path: Path):
    async with open_world(outcomes={"1A": 0.5, "00": 0.5}) as world, world.shop(tmp_path) as shop:
        paid = await asyncio.gather(*(shop.pay(FRICTIONLESS) for _ in range(40)))
        seen = Counter()
        for payment_id in paid:
            first, second = await shop.charge(payment_id), await second_charge(shop, payment_id)
            last = first if first["status"] == "approved" else second
            seen[first["status"], second.get("status")] += 1
            expected = (
                ("completed", None, None) if last["status"] == "approved" else ("failed", "authentication_required", "1A")
            )
            assert await outcome(shop, payment_id) == expected
            assert last.get("eci", "05") == "05"
        assert set(seen) == {("approved", None), ("declined", "approved"), ("declined", "declined")}


async def test_who_is_not_authenticated_is_not_charged(tmp_path: Path):
    async with open_world(outcomes={"1A": 1}) as world, world.shop(tmp_path) as shop:
        for number, why in ((FAILED, "failed"), (REJECTED, "rejected"), (UNAVAILABLE, "unavailable")):
            payment_id = await shop.pay(number)
            assert await outcome(shop, payment_id) == ("failed", f"authentication_{why}", "1A")
            assert (await second_charge(shop, payment_id))["code"] == "not_found"


# The bank's page


async def at_the_bank(shop: Shop, **more: Any) -> tuple[str, str]:
    details = {
        "paymentMethod": "netbanking",
        "netbankingDetails": {"bankCode": "TESTP"},
        "cardDetails": None,
        "returnUrl": BACK,
    }
    payment_id = await shop.pay(**details | more)
    return payment_id, (await shop.get(f"/api/payments/{payment_id}/status"))["nextAction"]["url"]


LOGIN, CONFIRM, PAY = {"action": "login", "user": "asha", "password": "demo"}, {"action": "confirm"}, {"action": "pay"}


@pytest.mark.parametrize(("otp", "status"), [("111000", "completed"), ("1", "failed")])
async def test_from_the_banks_page_the_customer_goes_to_the_merchant_with_the_result(shop: Shop, otp: str, status: str):
    payment_id, url = await at_the_bank(shop)
    for form in (LOGIN, CONFIRM, PAY | {"otp": otp}):
        async with shop.world.session.post(url, data=form, allow_redirects=False) as answer:
            location = answer.headers["Location"]
    assert location == f"{shop.url}/api/payments/{payment_id}/return"
    expected = f"https://shop.example/back?cart=7&paymentID={payment_id}&status={status}#top"
    assert await come_back(shop, location) == (303, expected)


async def test_a_bank_payment_that_nobody_makes_expires(shop: Shop):
    payment_id, _ = await at_the_bank(shop)
    shop.world.clock.advance(900_000)
    assert (await shop.heard(payment_id, "payment.expired"))["status"] == "expired"
    assert (await come_back(shop, f"{shop.url}/api/payments/{payment_id}/return"))[1].endswith("status=expired#top")


async def test_whoever_pays_at_the_bank_after_the_merchant_gave_up_pays_nothing(shop: Shop):
    payment_id, url = await at_the_bank(shop)
    assert (await shop.post(f"/api/payments/{payment_id}/void")).data["status"] == "voided"
    for form in (LOGIN, CONFIRM, PAY | {"otp": "111000"}):
        async with shop.world.session.post(url, data=form) as answer:
            assert answer.status == 200
    reference = f"att_{payment_id.removeprefix('pay_')}_01"
    async with shop.world.session.get(f"{shop.world.url}/bank/payments/{reference}") as answer:
        assert (await answer.json())["status"] == "reversed"
    assert (await come_back(shop, f"{shop.url}/api/payments/{payment_id}/return"))[1].endswith("status=voided#top")


# In a browser


@needs_browser
async def test_a_person_authenticates_in_a_browser_and_arrives_at_the_merchant(shop: Shop, tmp_path: Path):
    merchant = f"{shop.world.merchant_url}?cart=7"
    payment_id, url = await challenged(shop, returnUrl=merchant)
    bank_id, bank_url = await at_the_bank(shop, returnUrl=merchant)
    arrived = f"location.href.startsWith({merchant!r})"
    async with asyncio.timeout(3 * PATIENCE_S), browsing(str(tmp_path)) as page:
        await page.open(url)
        await page.until("document.querySelector('#otp')")
        await page.run("{ document.querySelector('#otp').value = '111000'; document.querySelector('.go').click(); }")
        await page.until(arrived)
        query = parse_qs(urlsplit(await page.run("location.href")).query)
        assert query == {"cart": ["7"], "paymentID": [payment_id], "status": ["completed"]}
        await page.open(bank_url)
        await page.until("document.querySelector('#password')")
        await page.run("{ user.value = 'asha'; password.value = 'demo'; document.querySelector('.go').click(); }")
        await page.until("document.querySelector('[value=confirm]')")
        await page.run("document.querySelector('[value=confirm]').click()")
        await page.until("document.querySelector('#otp')")
        await page.run("{ document.querySelector('#otp').value = '111000'; document.querySelector('.go').click(); }")
        await page.until(f"{arrived} && location.href.includes({bank_id!r})")
        assert "status=completed" in await page.run("location.href")
