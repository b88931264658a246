"""Authorize, increment, capture, void and expire a card charge over HTTP."""

import asyncio
from typing import Any

import pytest

from simulators.clock import Clock

DAY_MS = 24 * 3_600_000
CARD = {"number": "4111111111111111", "expiryMonth": "12", "expiryYear": "2099", "cvv": "123"}


def charge_body(reference: str) -> dict[str, Any]:
    return {"reference": reference, "amount": 1000, "currency": "INR", "merchantID": "m", "card": CARD}


async def authorize(client, reference: str = "ref", **fields: Any) -> dict[str, Any]:
    body = charge_body(reference) | {"capture": "manual"} | fields
    status, charge, _ = await client.call("POST", "/card/charges", json=body)
    assert status == 200
    return charge


async def step(client, operation: str, own: str, amount: int, reference: str = "ref", **fields: Any) -> tuple[int, Any]:
    body = {"reference": own, "amount": amount, "currency": "INR"} | fields
    status, answer, _ = await client.call("POST", f"/card/charges/{reference}/{operation}", json=body)
    return status, answer


async def moves(client) -> list[tuple[str, str | None, int]]:
    return [(entry["operation"], entry.get("subject"), entry["moved"]) for entry in await client.journal()]


async def test_an_authorization_moves_no_money(start):
    client = await start()
    charge = await authorize(client)
    assert (charge["status"], charge["responseCode"], charge["amount"]) == ("authorized", "00", 1000)
    assert (charge["authorizedAmount"], charge["capturedAmount"]) == (1000, 0)
    assert (len(charge["rrn"]), len(charge["authorizationCode"])) == (12, 6)
    assert await authorize(client) == charge
    assert await moves(client) == [("create", None, 0), ("create", None, 0)]


async def test_a_declined_authorization_is_a_declined_charge(start):
    client = await start(card={"outcomes": {"51": 1}})
    charge = await authorize(client)
    assert (charge["status"], charge["responseCode"], "authorizedAmount" in charge) == ("declined", "51", False)


async def test_an_automatic_charge_has_no_amounts_that_would_only_repeat(start):
    client = await start()
    assert not {"authorizedAmount", "capturedAmount", "refundedAmount", "disputedAmount"} & set(await client.card("ref"))


async def test_captures_take_parts_until_all_is_captured(start):
    client = await start()
    await authorize(client)
    _, first = await step(client, "capture", "c1", 300)
    _, second = await step(client, "capture", "c2", 700)
    assert (first["reference"], first["chargeReference"], first["status"], first["responseCode"], first["amount"]) == (
        *("c1", "ref", "approved", "00", 300),
    )
    assert (first["charge"]["status"], first["charge"]["capturedAmount"]) == ("partially_captured", 300)
    assert (second["charge"]["status"], second["charge"]["capturedAmount"]) == ("approved", 1000)
    assert (await client.call("GET", "/card/charges/ref"))[1] == second["charge"]
    assert await moves(client) == [("create", None, 0), ("capture", "c1", 300), ("capture", "c2", 700), ("status", None, 0)]


async def test_a_final_capture_releases_the_rest(start):
    client = await start()
    await authorize(client)
    _, capture = await step(client, "capture", "c1", 300, final=True)
    assert (capture["charge"]["status"], capture["charge"]["capturedAmount"]) == ("approved", 300)
    assert (await step(client, "capture", "c2", 1))[1]["code"] == "not_capturable"


async def test_the_same_capture_again_is_the_same_answer_whatever_happened_since(start):
    client = await start()
    await authorize(client)
    first = await step(client, "capture", "c1", 300)
    await step(client, "capture", "c2", 200)
    assert await step(client, "capture", "c1", 300) == first
    assert [moved for *_, moved in await moves(client)] == [0, 300, 200, 0]


@pytest.mark.parametrize("change", [{"amount": 301}, {"currency": "USD"}, {"final": True}, {"reference": "other"}])
async def test_the_reference_of_a_capture_stands_for_one_capture(start, change):
    client = await start()
    for reference in ("ref", "other"):
        await authorize(client, reference)
    await step(client, "capture", "c1", 300)
    status, body = await step(client, "capture", "c1", **{"amount": 300} | change)
    assert (status, body["code"]) == (409, "reference_conflict")
    assert sum(moved for *_, moved in await moves(client)) == 300


async def test_captures_that_arrive_at_once_never_take_more_than_is_authorized(start):
    client = await start()
    await authorize(client)
    answers = await asyncio.gather(*(step(client, "capture", f"c{index}", 300) for index in range(20)))
    assert sorted(status for status, _ in answers) == [200] * 3 + [409] * 17
    assert {body["code"] for status, body in answers if status == 409} == {"capture_exceeds_authorized"}
    assert sum(moved for *_, moved in await moves(client)) == 900


async def test_an_increment_raises_what_can_be_captured_once(start):
    client = await start()
    await authorize(client)
    first = await step(client, "increment", "i1", 500)
    assert await step(client, "increment", "i1", 500) == first
    assert (first[1]["status"], first[1]["charge"]["authorizedAmount"], first[1]["charge"]["amount"]) == (
        "approved",
        1500,
        1000,
    )
    assert (await step(client, "increment", "i1", 501))[1]["code"] == "reference_conflict"
    assert (await step(client, "capture", "c1", 1500))[1]["charge"]["status"] == "approved"


async def test_the_issuer_may_decline_an_increment_by_the_mix_and_the_authorization_stays(start):
    client = await start(card={"outcomes": {"00": 0.5, "61": 0.5}})
    charges = [await authorize(client, f"ref_{index}") for index in range(20)]
    authorized = [charge for charge in charges if charge["status"] == "authorized"]
    answers = [(await step(client, "increment", f"i_{one['reference']}", 10, one["reference"]))[1] for one in authorized]
    declined = [answer for answer in answers if answer["status"] == "declined"]
    assert 0 < len(declined) < len(answers)
    assert {answer["responseCode"] for answer in declined} == {"61"}
    for answer in declined:
        assert answer["charge"] in authorized


async def test_a_card_that_is_always_approved_is_approved_for_increments_too(start):
    client = await start(card={"outcomes": {"61": 1}})
    await authorize(client, card=CARD | {"number": "4000000000007726"})
    assert (await step(client, "increment", "i1", 10))[1]["responseCode"] == "00"


async def test_a_void_releases_an_authorization_and_nothing_can_be_captured_after_it(start):
    client = await start()
    await authorize(client)
    status, voided = await client.reverse("/card/charges/ref")
    assert (status, voided["status"], voided["responseCode"]) == (200, "reversed", "00")
    assert await client.reverse("/card/charges/ref") == (200, voided)
    assert (await step(client, "capture", "c1", 1))[1]["code"] == "not_capturable"
    assert (await step(client, "increment", "i1", 1))[1]["code"] == "not_incrementable"
    assert [moved for *_, moved in await moves(client)] == [0] * 5


@pytest.mark.parametrize("final", [False, True])
async def test_what_was_captured_is_not_reversed(start, final):
    client = await start()
    await authorize(client)
    await step(client, "capture", "c1", 300, final=final)
    status, body = await client.reverse("/card/charges/ref")
    assert (status, body["code"]) == (409, "not_reversible")
    assert [moved for *_, moved in await moves(client)] == [0, 300, 0]


async def test_an_authorization_expires_after_its_lifetime_on_the_clock(start):
    clock = Clock()
    client = await start(clock=clock)
    await authorize(client)
    clock.advance(7 * DAY_MS - 60_000)
    assert (await step(client, "capture", "c1", 300))[0] == 200
    await authorize(client, "other")
    clock.advance(7 * DAY_MS)
    assert (await client.call("GET", "/card/charges/ref"))[1]["status"] == "approved"  # the rest of it was released
    assert (await client.call("GET", "/card/charges/other"))[1]["status"] == "expired"
    status, late = await step(client, "capture", "c2", 300, "other")
    assert (status, late["code"]) == (409, "authorization_expired")
    assert (await step(client, "capture", "c3", 1))[1]["code"] == "not_capturable"
    expiries = [entry for entry in await client.journal() if entry["operation"] == "expire"]
    assert [(entry["reference"], entry["status"], entry["moved"]) for entry in expiries] == [
        *(("ref", "approved", 0), ("other", "expired", 0)),
    ]
    assert clock.waiting == 0


async def test_the_lifetime_is_configured(start):
    clock = Clock()
    client = await start(clock=clock, card={"authorization_lifetime": "1h"})
    await authorize(client)
    clock.advance(3_600_000)
    assert (await client.call("GET", "/card/charges/ref"))[1]["status"] == "expired"


async def test_what_is_over_leaves_no_timer(start):
    clock = Clock()
    client = await start(clock=clock)
    for reference in ("captured", "voided"):
        await authorize(client, reference)
    assert clock.waiting == 2
    await step(client, "capture", "c1", 1, "captured", final=True)
    await client.reverse("/card/charges/voided")
    assert clock.waiting == 0


@pytest.mark.parametrize("operation", ["increment", "capture"])
async def test_a_step_of_a_charge_that_never_arrived_is_not_found_and_blocks_nothing(start, operation):
    client = await start()
    status, body = await step(client, operation, "own", 300)
    assert (status, body["code"]) == (404, "not_found")
    await authorize(client)
    assert (await step(client, operation, "own", 300))[0] == 200


@pytest.mark.parametrize(
    ("operation", "body", "where"),
    [
        ("capture", {"reference": "c", "amount": 0, "currency": "INR"}, "amount"),
        ("capture", {"reference": "c d", "amount": 1, "currency": "INR"}, "reference"),
        ("capture", {"reference": "c", "amount": 1, "currency": "INR", "final": "yes"}, "final"),
        ("increment", {"reference": "c", "amount": 1, "currency": "inr"}, "currency"),
        ("increment", {"reference": "c", "amount": 1}, "currency"),
    ],
)
async def test_a_bad_body_is_refused_with_its_field(start, operation, body, where):
    client = await start()
    await authorize(client)
    status, answer, _ = await client.call("POST", f"/card/charges/ref/{operation}", json=body)
    assert (status, answer["code"], where in answer["error"]) == (400, "invalid_request", True)


async def test_a_retry_after_an_outage_captures_and_increments_by_the_fate_of_the_reference(start):
    outage = [{"kind": "unavailable", "operation": operation, "first": 2} for operation in ("increment", "capture")]
    mix = {"outcomes": {"00": 0.5, "61": 0.5}}
    calm, stormy = await start(card=mix), await start(card=mix | {"faults": outage})
    calm_codes, stormy_codes = [], []
    for index in range(12):
        reference = f"ref_{index}"
        if (await authorize(calm, reference))["status"] == "authorized":
            await authorize(stormy, reference)
            calm_codes.append((await step(calm, "increment", reference, 10, reference))[1]["responseCode"])
            tries = [await step(stormy, "increment", reference, 10, reference) for _ in range(3)]
            assert [status for status, _ in tries] == [503, 503, 200]
            stormy_codes.append(tries[2][1]["responseCode"])
    assert calm_codes == stormy_codes
    assert len(set(calm_codes)) == 2


async def test_a_capture_whose_answer_is_an_error_was_made_all_the_same(start):
    fault = {"kind": "http_500", "acts": True, "operation": "capture", "first": 1}
    client = await start(card={"faults": [fault]})
    await authorize(client)
    assert (await step(client, "capture", "c1", 300))[0] == 500
    assert (await step(client, "capture", "c1", 300))[1]["charge"]["capturedAmount"] == 300
    entries = [entry for entry in await client.journal() if entry["operation"] == "capture"]
    assert [(entry["attempt"], entry["moved"], entry["fault"]) for entry in entries] == [(1, 300, "http_500"), (2, 0, None)]


async def test_a_capture_that_the_provider_makes_twice_is_in_the_journal_twice_and_in_the_charge_once(start):
    client = await start(card={"faults": [{"kind": "duplicate_charge", "operation": "capture"}]})
    await authorize(client)
    assert (await step(client, "capture", "c1", 300))[1]["charge"]["capturedAmount"] == 300
    assert await moves(client) == [("create", None, 0), ("capture", "c1", 300), ("capture", "duplicate", 300)]


async def test_a_stale_inquiry_answers_what_was_true_before_the_last_change(start):
    client = await start(card={"faults": [{"kind": "stale_status", "operation": "status"}]})
    assert (await client.call("GET", "/card/charges/ref"))[0] == 404
    charge = await authorize(client)
    assert (await client.call("GET", "/card/charges/ref"))[0] == 404
    await step(client, "capture", "c1", 300)
    assert (await client.call("GET", "/card/charges/ref"))[1] == charge
    assert [entry["status"] for entry in await client.journal() if entry["operation"] == "status"] == [
        *(None, "authorized", "partially_captured"),
    ]


async def test_an_overloaded_acquirer_rejects_and_does_not_act_and_who_waits_is_known(start):
    slow = {"kind": "constant", "value": "60min"}
    client = await start(card={"latencies": {"create": slow}, "capacity": {"create": {"servers": 1, "queue_max": 1}}})
    calls = [asyncio.create_task(client.card(reference)) for reference in ("served", "waits")]
    while len(entries := await client.journal()) < len(calls):  # their answers are an hour or two away
        pass
    status, body, headers = await client.call("POST", "/card/charges", json=charge_body("rejected"))
    assert (status, body["code"], headers["X-Paydrome-Fault-Id"]) == (429, "overloaded", "card.create.overloaded")
    assert (await client.call("GET", "/card/charges/rejected"))[0] == 404
    rejected = (await client.journal())[2]
    assert (rejected["fault"], rejected["faultID"], rejected["status"], rejected["moved"], rejected["delayMs"]) == (
        *("overloaded", "card.create.overloaded", None, 0, 0),
    )
    hour_ms = 3_600_000
    assert [entry["moved"] for entry in entries] == [1000, 1000]
    assert "waitMs" not in entries[0]
    assert hour_ms - 60_000 < entries[1]["waitMs"] == entries[1]["delayMs"] - hour_ms
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_who_is_not_served_waits_for_nothing_and_takes_no_place(start):
    hour = {"kind": "constant", "value": "60min"}
    capacity = {"create": {"servers": 1, "queue_max": 0}}
    outage = [{"kind": "unavailable", "first": 1}]
    client = await start(card={"latencies": {"create": hour}, "capacity": capacity, "faults": outage})
    assert (await client.call("POST", "/card/charges", json=charge_body("ref")))[0] == 503
    retry = asyncio.create_task(client.card("ref"))
    while len(entries := await client.journal()) < 2:
        pass
    assert [(entry["fault"], entry["delayMs"], entry["moved"]) for entry in entries] == [
        *(("unavailable", 0, 0), (None, 3_600_000, 1000)),
    ]
    retry.cancel()
    await asyncio.gather(retry, return_exceptions=True)
