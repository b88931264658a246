"""Refunds: the state table, and all three providers over HTTP."""

import asyncio
from typing import Any

import pytest

from simulators import refunds
from simulators.clock import Clock
from simulators.refunds import Refund

NOW_MS = 2_000
LATE = {"kind": "constant", "value": "3s"}
PATHS = {"card": "/card/charges", "upi": "/upi/payments", "bank": "/bank/payments"}
CARD = {"number": "4111111111111111", "expiryMonth": "12", "expiryYear": "2099", "cvv": "123"}


def refund_of(status: str, code: str | None, updated_ms: int = 1_000) -> Refund:
    return Refund("r1", "ref", "card_refund_1", status, code, 300, "INR", 1_000, updated_ms)


PENDING, COMPLETED, FAILED = refund_of("pending", None), refund_of("completed", "00"), refund_of("failed", "05")


@pytest.mark.parametrize(
    ("before", "event", "expected"),
    [
        (PENDING, refunds.completed, (refund_of("completed", "00", NOW_MS), -300)),
        (PENDING, refunds.failed, (refund_of("failed", "05", NOW_MS), 0)),
        (COMPLETED, refunds.completed, None),
        (COMPLETED, refunds.failed, (refund_of("failed", "05", NOW_MS), 300)),
        (FAILED, refunds.completed, None),
        (FAILED, refunds.failed, None),
    ],
)
def test_each_event_in_each_state(before, event, expected):
    assert event(before, now_ms=NOW_MS) == expected


async def charge(client, ear, provider: str, reference: str = "ref", **fields: Any) -> None:
    """A charge of 1000 that is approved by now."""
    if provider == "card":
        body = {"reference": reference, "amount": 1000, "currency": "INR", "merchantID": "m", "orderID": "o"}
        answer = await client.call("POST", "/card/charges", json=body | {"card": CARD | fields})
        assert answer[1]["status"] == "approved"
    else:
        await getattr(client, provider)(reference, ear.url, **fields)
        assert (await ear.next())["status"] == "approved"


async def refund(client, provider: str, own: str, amount: int, reference: str = "ref", **fields: Any) -> tuple[int, Any]:
    body = {"reference": own, "amount": amount, "currency": "INR"} | fields
    return (await client.call("POST", f"{PATHS[provider]}/{reference}/refunds", json=body))[:2]


async def refund_moves(client) -> list[tuple[str | None, str | None, int]]:
    return [
        (entry.get("subject"), entry["status"], entry["moved"])
        for entry in await client.journal()
        if entry["operation"] == "refund"
    ]


@pytest.mark.parametrize("provider", PATHS)
async def test_a_refund_completes_at_once_by_default(start, ear, provider):
    client = await start()
    await charge(client, ear, provider)
    status, answer = await refund(client, provider, "r1", 300)
    assert (status, set(answer)) == (
        200,
        {
            *("reference", "chargeReference", "providerID", "status", "responseCode", "amount", "currency"),
            *("createdAt", "updatedAt"),
        },
    )
    assert (answer["reference"], answer["chargeReference"], answer["status"], answer["responseCode"], answer["amount"]) == (
        *("r1", "ref", "completed", "00", 300),
    )
    assert (await client.call("GET", f"/{provider}/refunds/r1"))[1] == answer
    assert (await client.call("GET", f"{PATHS[provider]}/ref"))[1]["refundedAmount"] == 300
    assert await refund_moves(client) == [("r1", "completed", -300)]


async def test_the_journal_tells_whose_refund_it_is(start, ear):
    client = await start()
    await charge(client, ear, "card")
    await refund(client, "card", "r1", 300)
    await client.call("GET", "/card/refunds/r1")
    told = ("operation", "reference", "merchantID", "orderID", "subject", "amount")
    assert [tuple(entry.get(name) for name in told) for entry in (await client.journal())[1:]] == [
        ("refund", "ref", "m", "o", "r1", 300),
        ("refund_status", "ref", "m", "o", "r1", 300),
    ]


@pytest.mark.parametrize("provider", PATHS)
async def test_a_refund_that_takes_its_time_is_pending_completes_and_calls_back(start, ear, provider):
    clock = Clock()
    client = await start(clock=clock, **{provider: {"refund_delay": LATE}})
    await charge(client, ear, provider)
    _, pending = await refund(client, provider, "r1", 300, callbackURL=ear.url)
    assert (pending["status"], pending["responseCode"]) == ("pending", None)
    assert await refund_moves(client) == [("r1", "pending", 0)]
    clock.advance(3_000)
    heard = await ear.next()
    assert (heard["type"], heard["provider"], heard["id"][:3]) == ("refund", provider, "cb_")
    answer = (await client.call("GET", f"/{provider}/refunds/r1"))[1]
    assert answer.items() <= heard.items()
    assert (answer["status"], answer["responseCode"], answer["createdAt"]) == ("completed", "00", pending["createdAt"])
    assert await refund_moves(client) == [("r1", "pending", 0), ("r1", "completed", -300)]


async def test_a_callback_is_signed_at_the_time_of_its_receiver_wherever_the_clock_was_moved(start, ear):
    system_ms = 1_800_000_000_000
    clock = Clock(lambda: system_ms)
    client = await start(clock=clock, card={"refund_delay": LATE})
    await charge(client, ear, "card")
    await refund(client, "card", "r1", 300, callbackURL=ear.url)
    clock.advance(3_600_000)
    headers, _ = await ear.hear()
    assert headers["webhook-timestamp"] == str(system_ms // 1000)


async def test_a_refund_without_a_callback_url_completes_silently(start, ear):
    clock = Clock()
    client = await start(clock=clock, card={"refund_delay": LATE})
    await charge(client, ear, "card")
    await refund(client, "card", "r1", 300)
    clock.advance(3_000)
    assert (await client.call("GET", "/card/refunds/r1"))[1]["status"] == "completed"
    assert "callback" not in {entry["operation"] for entry in await client.journal()}


async def test_the_test_card_whose_refund_completes_late(start, ear):
    clock = Clock()
    client = await start(clock=clock)
    await charge(client, ear, "card", number="4000000000007726")
    assert (await refund(client, "card", "r1", 300, callbackURL=ear.url))[1]["status"] == "pending"
    clock.advance(2_000)
    assert (await ear.next())["status"] == "completed"
    assert await refund_moves(client) == [("r1", "pending", 0), ("r1", "completed", -300)]


@pytest.mark.parametrize(
    ("delay", "first", "moves"),
    [
        (None, "completed", [("r1", "completed", -300), ("r1", "failed", 300)]),
        (LATE, "pending", [("r1", "pending", 0), ("r1", "failed", 0)]),
    ],
)
async def test_the_test_card_whose_refund_fails_late_gives_back_what_it_had_moved(start, ear, delay, first, moves):
    clock = Clock()
    client = await start(clock=clock, card={"refund_delay": delay})
    await charge(client, ear, "card", number="4000000000005126")
    assert (await refund(client, "card", "r1", 300, callbackURL=ear.url))[1]["status"] == first
    clock.advance(3_000)
    heard = await ear.next()
    assert (heard["status"], heard["responseCode"]) == ("failed", "05")
    assert "refundedAmount" not in (await client.call("GET", "/card/charges/ref"))[1]
    assert await refund_moves(client) == moves
    assert (await refund(client, "card", "r2", 1000))[0] == 200  # what failed can be asked for again


@pytest.mark.parametrize("delay", [None, LATE])
async def test_refunds_that_arrive_at_once_never_exceed_what_was_captured(start, ear, delay):
    client = await start(card={"refund_delay": delay})
    await charge(client, ear, "card")
    answers = await asyncio.gather(*(refund(client, "card", f"r{index}", 300) for index in range(20)))
    assert sorted(status for status, _ in answers) == [200] * 3 + [409] * 17
    assert {body["code"] for status, body in answers if status == 409} == {"refund_exceeds_captured"}
    assert (await client.call("GET", "/card/charges/ref"))[1]["refundedAmount"] == 900


async def test_only_what_was_captured_can_be_refunded(start, ear):
    client = await start()
    body = {"reference": "ref", "amount": 1000, "currency": "INR", "merchantID": "m", "card": CARD, "capture": "manual"}
    await client.call("POST", "/card/charges", json=body)
    assert (await refund(client, "card", "r1", 1))[1]["code"] == "refund_exceeds_captured"
    await client.call("POST", "/card/charges/ref/capture", json={"reference": "c1", "amount": 400, "currency": "INR"})
    assert (await refund(client, "card", "r1", 401))[1]["code"] == "refund_exceeds_captured"
    assert (await refund(client, "card", "r1", 400))[1]["status"] == "completed"


async def test_the_same_refund_again_is_the_same_refund(start, ear):
    client = await start()
    await charge(client, ear, "card")
    first = await refund(client, "card", "r1", 300)
    assert await refund(client, "card", "r1", 300) == first
    assert await refund_moves(client) == [("r1", "completed", -300), ("r1", "completed", 0)]


@pytest.mark.parametrize("change", [{"amount": 301}, {"currency": "USD"}, {"reference": "other"}])
async def test_the_reference_of_a_refund_stands_for_one_refund(start, ear, change):
    client = await start()
    for reference in ("ref", "other"):
        await charge(client, ear, "card", reference)
    await refund(client, "card", "r1", 300)
    status, body = await refund(client, "card", "r1", **{"amount": 300} | change)
    assert (status, body["code"]) == (409, "reference_conflict")


@pytest.mark.parametrize(
    ("fields", "code"), [({"currency": "USD"}, "currency_mismatch"), ({"amount": 1001}, "refund_exceeds_captured")]
)
async def test_a_refused_refund_does_not_exist_and_changes_nothing(start, ear, fields, code):
    client = await start()
    await charge(client, ear, "card")
    before = (await client.call("GET", "/card/charges/ref"))[1]
    status, body = await refund(client, "card", "r1", **{"amount": 300} | fields)
    assert (status, body["code"]) == (409, code)
    assert (await client.call("GET", "/card/charges/ref"))[1] == before
    assert (await client.call("GET", "/card/refunds/r1"))[0] == 404


@pytest.mark.parametrize("provider", PATHS)
async def test_a_refund_of_nothing_is_not_found(start, provider):
    client = await start()
    status, body = await refund(client, provider, "r1", 300)
    assert (status, body["code"]) == (404, "not_found")
    assert (await client.call("GET", f"/{provider}/refunds/r1"))[0] == 404
    assert [entry["status"] for entry in await client.journal()] == [None, None]


async def test_a_refunded_charge_cannot_be_reversed_as_well(start, ear):
    client = await start()
    await charge(client, ear, "card")
    await refund(client, "card", "r1", 1)
    status, body = await client.reverse("/card/charges/ref")
    assert (status, body["code"]) == (409, "not_reversible")
    assert sum(entry["moved"] for entry in await client.journal()) == 999


async def test_a_reversed_charge_has_nothing_left_to_refund(start, ear):
    client = await start()
    await charge(client, ear, "card")
    await client.reverse("/card/charges/ref")
    assert (await refund(client, "card", "r1", 1))[1]["code"] == "refund_exceeds_captured"


@pytest.mark.parametrize("provider", PATHS)
async def test_a_refund_that_was_not_served_is_made_by_the_retry(start, ear, provider):
    client = await start(**{provider: {"faults": [{"kind": "unavailable", "operation": "refund", "first": 1}]}})
    await charge(client, ear, provider)
    assert [(await refund(client, provider, "r1", 300))[0] for _ in range(2)] == [503, 200]
    assert await refund_moves(client) == [("r1", "approved", 0), ("r1", "completed", -300)]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"reference": "", "amount": 1, "currency": "INR"}, "reference"),
        ({"reference": "r", "amount": 1.5, "currency": "INR"}, "amount"),
        ({"reference": "r", "amount": 1, "currency": "INR", "callbackURL": "ftp://x"}, "callbackURL"),
        ({"reference": "r", "amount": 1, "currency": "INR", "reason": "x"}, "reason"),
    ],
)
async def test_a_bad_body_is_refused_with_its_field(start, body, where):
    client = await start()
    status, answer, _ = await client.call("POST", "/card/charges/ref/refunds", json=body)
    assert (status, answer["code"], where in answer["error"]) == (400, "invalid_request", True)
