"""The UPI switch: links and QR codes, deemed payments, inquiry storms."""

import asyncio
import re
from functools import partial
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
import segno
from msgspec import UNSET

from simulators.behaviour import Draws, Mix
from simulators.clock import Clock
from simulators.inquiries import REFERENCES_MAX, WINDOW_MS, InquiryLimit
from simulators.providers import Conduct
from simulators.providers.upi import Execution, open_charge
from simulators.upi_links import payment_link, qr_svg, rupees, transaction_reference


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def start(start, clock):
    return partial(start, clock=clock)


DRAW = Draws(1).draw("upi", "create", "ref", 1)


def link(flow: Any = "intent", **changes: Any) -> str:
    facts = {"payee": "Books & Co", "reference": "ref_1", "order": "order 7", "amount_paise": 123456, "draw": DRAW}
    return payment_link(flow, **(facts | changes))


def test_a_link_is_written_as_npci_has_it():
    tid = f"PDR{DRAW.identity:016x}{DRAW.numbers:016x}"
    assert link() == (
        f"upi://pay?pa=merchant@paydrome&pn=Books%20%26%20Co&mc=5999&tid={tid}&tr=ref_1&tn=order%207"
        "&am=1234.56&cu=INR&mode=04&purpose=00"
    )


def parameters(url: str) -> dict[str, str]:
    assert url.startswith("upi://pay?")
    pairs = [pair.split("=") for pair in url.removeprefix("upi://pay?").split("&")]
    return {name: unquote(value) for name, value in pairs}


def test_a_qr_code_says_that_it_is_a_dynamic_one():
    assert parameters(link("qr")) == parameters(link()) | {"mode": "15"}


@pytest.mark.parametrize(("paise", "text"), [(1, "0.01"), (99, "0.99"), (100, "1.00"), (10_000_000, "100000.00")])
def test_amounts_are_rupees_with_two_decimals(paise, text):
    assert rupees(paise) == text


@pytest.mark.parametrize("text", ["क" * 255, "&=#?%+ /" * 31, "a@b"])
def test_whatever_a_payee_or_order_is_called_the_link_stays_one_link_within_its_bounds(text):
    url = link(payee=text, order=text, reference="r" * 64, amount_paise=10**15)
    assert re.fullmatch(r"upi://[!-~]{1,2000}", url)
    found = parameters(url)
    assert (found["pn"], found["tn"]) == (text[:99], text[:50])
    assert (len(found["tid"]), found["tid"].isalnum(), len(found["tr"])) == (35, True, 35)


def test_a_reference_too_long_for_a_link_gets_a_short_one_that_is_its_own():
    assert transaction_reference("r" * 35) == "r" * 35
    shortened = {transaction_reference("r" * length) for length in range(36, 65)}
    assert len(shortened) == 29
    assert all(re.fullmatch(r"[A-Za-z0-9]{35}", name) for name in shortened)
    assert transaction_reference("r" * 36) == transaction_reference("r" * 36)


def test_the_svg_draws_the_modules_of_the_payload():
    svg = ElementTree.fromstring(qr_svg(link("qr")))
    code = segno.make_qr(link("qr"), error="m")
    size = str(code.symbol_size(scale=8, border=4)[0])
    assert (svg.tag, svg.get("width"), svg.get("height")) == ("{http://www.w3.org/2000/svg}svg", size, size)


async def test_the_qr_code_of_a_payment_is_served_as_svg(start, ear):
    client = await start(upi={"customer": {"acts": False}})
    charge = await client.upi("ref", ear.url, flow="qr", vpa=None)
    async with client.session.get(f"{client.url}/upi/payments/ref/qr.svg") as answer:
        assert (answer.status, answer.content_type) == (200, "image/svg+xml")
        assert await answer.read() == qr_svg(charge["qrPayload"])


@pytest.mark.parametrize("flow", ["collect", "intent", None])
async def test_a_payment_without_a_qr_code_has_no_svg(start, ear, flow):
    client = await start(upi={"customer": {"acts": False}})
    if flow:
        await client.upi("ref", ear.url, flow=flow)
    status, body, _ = await client.call("GET", "/upi/payments/ref/qr.svg")
    assert (status, body["code"]) == (404, "not_found")
    assert [entry["operation"] for entry in await client.journal()] == (["create"] if flow else [])


DEEMED = {"outcomes": {"RB": 1}}


async def deemed(client) -> dict[str, Any]:
    """The payment as soon as an inquiry finds it deemed."""
    while True:  # each inquiry lets the simulators run
        charge = (await client.call("GET", "/upi/payments/ref"))[1]
        if charge["responseCode"] is not None:
            return charge


@pytest.mark.parametrize("fields", [{"vpa": "deemed@upi"}, {"flow": "intent"}])
async def test_a_deemed_payment_is_pending_with_its_code_and_later_approved(start, clock, ear, fields):
    client = await start(upi={} if "vpa" in fields else DEEMED)
    await client.upi("ref", ear.url, **fields)
    charge = await deemed(client)
    assert (charge["status"], charge["responseCode"], "rrn" in charge) == ("pending", "RB", False)
    assert ear.silent
    clock.advance(10_000)
    heard = await ear.next()
    assert (heard["status"], heard["responseCode"], len(heard["rrn"])) == ("approved", "00", 12)
    decisions = [(entry["status"], entry["responseCode"], entry["moved"]) for entry in await decided(client)]
    assert decisions == [("pending", "RB", 0), ("approved", "00", 1000)]


async def decided(client) -> list[dict[str, Any]]:
    return [entry for entry in await client.journal() if entry["operation"] == "decide"]


async def test_a_deemed_payment_does_not_expire(start, clock, ear):
    client = await start(upi=DEEMED)
    await client.upi("ref", ear.url, expiresInMs=5_000)
    await deemed(client)
    clock.advance(9_000)
    assert (await client.call("GET", "/upi/payments/ref"))[1]["status"] == "pending"
    clock.advance(1_000)
    assert (await ear.next())["status"] == "approved"


async def test_a_deemed_payment_that_is_reversed_moves_no_money(start, clock, ear):
    client = await start(upi=DEEMED)
    await client.upi("ref", ear.url)
    await deemed(client)
    assert (await client.reverse("/upi/payments/ref"))[1]["status"] == "reversed"
    clock.advance(10_000)
    assert all(entry["moved"] == 0 for entry in await client.journal())
    assert ear.silent


@pytest.mark.parametrize(
    ("mix", "vpa", "status", "code", "moved"),
    [
        ("00", "a@upi", "approved", "00", 1000),
        ("ZA", "a@upi", "approved", "00", 1000),
        ("U69", "a@upi", "approved", "00", 1000),
        ("Z9", "a@upi", "declined", "Z9", 0),
        ("RB", "a@upi", "pending", "RB", 0),
        ("00", "FAILURE@upi", "declined", "U30", 0),
        ("Z9", "success@upi", "approved", "00", 1000),
    ],
)
def test_an_execution_meets_what_no_customer_can_cause(mix, vpa, status, code, moved):
    common = {"reference": "ref", "amount": 1000, "currency": "INR", "merchantID": "m", "callbackURL": "http://gateway/"}
    opening = open_charge(Execution(**common, vpa=vpa), Conduct(Mix({mix: 1})), DRAW, 1, "host")
    charge = opening.charge
    assert (charge.status, charge.responseCode, opening.moved) == (status, code, moved)
    assert (charge.rrn is not UNSET, opening.waiting is not None) == (status == "approved", status == "pending")


def test_inquiries_beyond_the_limit_wait_for_the_end_of_the_minute_that_began_with_the_first():
    limit = InquiryLimit(2)
    asked = [limit.retry_after_s("ref", now_ms) for now_ms in (1_000, 2_000, 3_000, 60_500, 61_000, 61_000, 61_000)]
    assert asked == [None, None, 58, 1, None, None, 60]


def test_the_limit_is_per_reference():
    limit = InquiryLimit(1)
    assert [limit.retry_after_s(name, 0) for name in ("a", "b", "a", "b")] == [None, None, 60, 60]


def test_a_window_outlives_the_turn_of_the_table():
    limit = InquiryLimit(1)
    limit.retry_after_s("first", WINDOW_MS)
    limit.retry_after_s("late", WINDOW_MS * 2 - 1)
    assert limit.retry_after_s("late", WINDOW_MS * 2) == 60
    assert limit.retry_after_s("late", WINDOW_MS * 3 - 2) == 1


def test_the_table_of_inquiries_is_bounded():
    limit = InquiryLimit(1)
    for index in range(REFERENCES_MAX * 2 + 10):
        limit.retry_after_s(f"ref_{index}", 0)
    assert len(limit._current) + len(limit._previous) <= 2 * REFERENCES_MAX
    assert limit.retry_after_s(f"ref_{REFERENCES_MAX * 2}", 0) == 60


async def test_a_storm_of_inquiries_is_answered_429_and_journalled(start, clock, ear):
    client = await start(upi={"inquiries_per_min": 2, "customer": {"acts": False}})
    await client.upi("ref", ear.url)
    answers = [await client.call("GET", "/upi/payments/ref") for _ in range(4)]
    assert [status for status, _, _ in answers] == [200, 200, 429, 429]
    _, body, headers = answers[-1]
    assert (body["code"], headers["X-Paydrome-Fault"]) == ("rate_limited", "rate_limited")
    assert 1 <= int(headers["Retry-After"]) <= 60
    assert (await client.call("GET", "/upi/payments/other"))[0] == 404
    faults = [(entry["attempt"], entry["fault"], entry["status"]) for entry in await client.journal()][1:5]
    assert faults == [
        (1, None, "pending"),
        (2, None, "pending"),
        (3, "rate_limited", "pending"),
        (4, "rate_limited", "pending"),
    ]
    clock.advance(60_000)
    assert (await client.call("GET", "/upi/payments/ref"))[0] == 200


async def test_an_inquiry_that_is_refused_takes_nobodys_place_in_the_queue(start, ear):
    """One server, busy for an hour, and one place in the queue: the calls that get either are never answered here."""
    slow = {
        "latencies": {"status": {"kind": "constant", "value": "60min"}},
        "capacity": {"status": {"servers": 1, "queue_max": 1}},
    }
    client = await start(upi={"inquiries_per_min": 1} | slow)
    asked = asyncio.create_task(client.call("GET", "/upi/payments/ref"))
    while not await client.journal():
        assert not asked.done()
    assert [(await client.call("GET", "/upi/payments/ref"))[1]["code"] for _ in range(3)] == ["rate_limited"] * 3
    queued = asyncio.create_task(client.call("GET", "/upi/payments/other"))
    while len(entries := await client.journal()) < 5:
        assert not queued.done()
    assert (entries[-1]["reference"], entries[-1]["fault"], entries[-1]["waitMs"] > 0) == ("other", None, True)
    asked.cancel()
    queued.cancel()


async def test_inquiries_are_unlimited_when_the_limit_is_off(start, ear):
    client = await start(upi={"inquiries_per_min": None, "customer": {"acts": False}})
    await client.upi("ref", ear.url)
    assert {(await client.call("GET", "/upi/payments/ref"))[0] for _ in range(100)} == {200}
