"""The providers over HTTP, as docs/providers.md has them."""

import asyncio
from typing import Any

import aiohttp
import pytest

NEVER = {"kind": "constant", "value": "60min"}
PATHS = {"card": "/card/charges", "upi": "/upi/payments", "bank": "/bank/payments"}


async def create(client, ear, provider: str, reference: str, **fields: Any) -> dict[str, Any]:
    return await (
        client.card(reference, **fields) if provider == "card" else getattr(client, provider)(reference, ear.url, **fields)
    )


async def summary(client) -> list[tuple[Any, ...]]:
    """The journal without callbacks: operation, attempt, status, money moved."""
    return [
        (entry["operation"], entry["attempt"], entry["status"], entry["moved"])
        for entry in await client.journal()
        if entry["operation"] != "callback"
    ]


async def test_a_card_charge_answers_with_the_documented_fields(start):
    client = await start()
    charge = await client.card("ref_1", amount=1234)
    assert set(charge) == {
        *("reference", "providerID", "status", "responseCode", "amount", "currency"),
        *("rrn", "authorizationCode", "createdAt", "updatedAt"),
    }
    assert (charge["reference"], charge["status"], charge["responseCode"]) == ("ref_1", "approved", "00")
    assert (charge["amount"], charge["currency"], charge["createdAt"]) == (1234, "INR", charge["updatedAt"])


@pytest.mark.parametrize("provider", PATHS)
async def test_the_same_reference_twice_is_the_same_charge_and_moves_money_once(start, ear, provider):
    client = await start(upi={"customer": {"acts": False}}, bank={"customer": {"acts": False}})
    first = await create(client, ear, provider, "ref")
    assert await create(client, ear, provider, "ref") == first
    moved = 1000 if provider == "card" else 0
    assert await summary(client) == [("create", 1, first["status"], moved), ("create", 2, first["status"], 0)]


@pytest.mark.parametrize("provider", PATHS)
async def test_a_reference_belongs_to_one_provider(start, ear, provider):
    client = await start()
    charges = [await create(client, ear, name, "ref") for name in PATHS]
    assert len({charge["providerID"] for charge in charges}) == 3


@pytest.mark.parametrize("change", [{"amount": 1001}, {"currency": "USD"}])
async def test_the_same_reference_with_another_amount_or_currency_is_a_conflict(start, change):
    client = await start()
    await client.card("ref")
    assert (await client.card("ref", **change))["code"] == "reference_conflict"
    status, body = await client.reverse("/card/charges/ref", **change)
    assert (status, body["code"]) == (409, "reference_conflict")
    assert await summary(client) == [
        ("create", 1, "approved", 1000),
        ("create", 2, "approved", 0),
        ("reverse", 1, "approved", 0),
    ]


@pytest.mark.parametrize("path", PATHS.values())
async def test_a_reference_that_never_arrived_is_not_found(start, path):
    client = await start()
    status, body, headers = await client.call("GET", f"{path}/ref")
    assert (status, body["code"], headers["X-Paydrome-Delay-Ms"]) == (404, "not_found", "0")
    [entry] = await client.journal()
    assert (entry["operation"], entry["status"], entry["responseCode"], entry["amount"]) == ("status", None, None, None)


async def test_a_status_inquiry_answers_the_charge(start):
    client = await start()
    charge = await client.card("ref")
    assert (await client.call("GET", "/card/charges/ref"))[1] == charge


@pytest.mark.parametrize("provider", PATHS)
async def test_a_reversal_blocks_a_reference_that_never_arrived(start, ear, provider):
    client = await start()
    path = f"{PATHS[provider]}/ref"
    status, tombstone = await client.reverse(path)
    assert (status, tombstone["status"], tombstone["responseCode"]) == (200, "reversed", None)
    assert await create(client, ear, provider, "ref") == tombstone
    assert (await client.reverse(path))[1] == tombstone
    assert await summary(client) == [("reverse", 1, "reversed", 0), ("create", 1, "reversed", 0), ("reverse", 2, "reversed", 0)]
    assert ear.silent


async def test_a_reversal_undoes_an_approved_charge_once(start):
    client = await start()
    charge = await client.card("ref")
    _, undone = await client.reverse("/card/charges/ref")
    assert (undone["status"], undone["responseCode"], undone["rrn"]) == ("reversed", "00", charge["rrn"])
    assert (await client.reverse("/card/charges/ref"))[1] == undone == await client.card("ref")
    assert [moved for *_, moved in await summary(client)] == [1000, -1000, 0, 0]


@pytest.mark.parametrize("provider", ["upi", "bank"])
async def test_a_reversal_cancels_a_pending_charge_and_its_customer(start, ear, provider):
    client = await start(**{provider: {"customer": {"delay": {"kind": "constant", "value": "20ms"}}}})
    pending = await create(client, ear, provider, "ref")
    _, cancelled = await client.reverse(f"{PATHS[provider]}/ref")
    assert (pending["status"], cancelled["status"], cancelled["responseCode"]) == ("pending", "reversed", None)
    await create(client, ear, provider, "after")
    assert (await ear.next())["reference"] == "after"  # decided later than the cancelled one would have been
    assert ("decide", 1, "approved", 1000) in (journal := await summary(client))
    assert len([entry for entry in journal if entry[0] == "decide"]) == 1


@pytest.mark.parametrize(
    ("provider", "fields", "status", "code"),
    [
        ("card", {"number": "4000000000009995"}, "declined", "51"),
        ("upi", {"vpa": "insufficientfunds@upi"}, "declined", "Z9"),
        ("upi", {"vpa": "invalid@upi"}, "declined", "ZH"),
        ("upi", {"vpa": "expired@upi"}, "expired", "U69"),
        ("bank", {"bankCode": "TESTF"}, "declined", "insufficient_funds"),
        ("bank", {"bankCode": "TESTP", "expiresInMs": 1}, "expired", "expired"),
    ],
)
async def test_reversing_a_declined_or_expired_charge_changes_nothing(start, ear, provider, fields, status, code):
    client = await start()
    charge = await create(client, ear, provider, "ref", **fields)
    if charge["status"] == "pending":
        charge = {name: value for name, value in (await ear.next()).items() if name not in ("id", "provider")}
    assert (charge["status"], charge["responseCode"]) == (status, code)
    assert (await client.reverse(f"{PATHS[provider]}/ref"))[1] == charge
    assert all(moved == 0 for *_, moved in await summary(client))


@pytest.mark.parametrize("provider", ["upi", "bank"])
async def test_the_customer_decides_once_and_the_gateway_is_told(start, ear, provider):
    client = await start()
    pending = await create(client, ear, provider, "ref")
    heard = await ear.next()
    assert pending["status"] == "pending"
    assert (heard["provider"], heard["reference"], heard["status"], heard["responseCode"]) == (
        provider,
        "ref",
        "approved",
        "00",
    )
    assert (len(heard["rrn"]), heard["id"].startswith("cb_")) == (12, True)
    assert (await client.call("GET", f"{PATHS[provider]}/ref"))[1].items() <= heard.items()
    assert await summary(client) == [("create", 1, "pending", 0), ("decide", 1, "approved", 1000), ("status", 1, "approved", 0)]


@pytest.mark.parametrize("provider", ["upi", "bank"])
async def test_a_pending_charge_expires_and_the_gateway_is_told(start, ear, provider):
    client = await start(**{provider: {"customer": {"acts": False}}})
    await create(client, ear, provider, "ref", expiresInMs=1)
    heard = await ear.next()
    assert (heard["status"], heard["responseCode"]) == ("expired", "U69" if provider == "upi" else "expired")
    assert await summary(client) == [("create", 1, "pending", 0), ("expire", 1, "expired", 0)]


async def test_a_customer_who_would_decide_after_the_expiry_is_too_late(start, ear):
    client = await start(upi={"customer": {"delay": NEVER}})
    await client.upi("ref", ear.url, expiresInMs=1)
    assert (await ear.next())["status"] == "expired"


async def test_the_injected_delay_is_reported_and_waited_for(start):
    client = await start(card={"latency": {"kind": "constant", "value": "30ms"}})
    loop = asyncio.get_running_loop()
    began = loop.time()
    _, _, headers = await client.call("GET", "/card/charges/ref")
    assert loop.time() - began >= 0.029  # timers of the loop have a resolution of 1 ms
    assert headers["X-Paydrome-Delay-Ms"] == "30"
    assert [entry["delayMs"] for entry in await client.journal()] == [30]


@pytest.mark.parametrize("operation", ["create", "status", "reverse"])
async def test_an_unavailable_provider_answers_503_and_does_nothing(start, operation):
    client = await start(card={"faults": [{"kind": "unavailable", "probability": 1, "operation": operation}]})
    calls = {
        "create": lambda: client.session.post(f"{client.url}/card/charges", json=card_body()),
        "status": lambda: client.session.get(f"{client.url}/card/charges/ref"),
        "reverse": lambda: client.session.post(
            f"{client.url}/card/charges/ref/reverse", json={"amount": 1000, "currency": "INR"}
        ),
    }
    if operation != "create":
        await client.card("ref")
    async with calls[operation]() as answer:
        assert (answer.status, answer.headers["X-Paydrome-Fault"]) == (503, "unavailable")
    *_, entry = await client.journal()
    standing = None if operation == "create" else "approved"
    assert (entry["operation"], entry["fault"], entry["status"], entry["moved"]) == (operation, "unavailable", standing, 0)


def card_body(reference: str = "ref") -> dict[str, Any]:
    card = {"number": "4111111111111111", "expiryMonth": "12", "expiryYear": "2099", "cvv": "123"}
    return {"reference": reference, "amount": 1000, "currency": "INR", "merchantID": "m", "card": card}


async def test_a_lost_response_moves_money_and_hangs_up_without_an_answer(start):
    client = await start(hold_s=0.01, card={"faults": [{"kind": "response_lost", "probability": 1}]})
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await client.card("ref")
    assert (await client.call("GET", "/card/charges/ref"))[1]["status"] == "approved"
    lost, inquiry = await client.journal()
    assert (lost["fault"], lost["status"], lost["moved"], inquiry["fault"]) == ("response_lost", "approved", 1000, None)


async def test_a_lost_response_leaves_the_caller_waiting_until_it_gives_up(start):
    client = await start(card={"faults": [{"kind": "response_lost", "probability": 1}]})
    with pytest.raises(TimeoutError):
        await client.call("POST", "/card/charges", json=card_body(), timeout=aiohttp.ClientTimeout(total=0.1))
    assert [entry["moved"] for entry in await client.journal()] == [1000]


async def test_a_timing_out_vpa_gets_no_answer_and_is_approved(start, ear):
    client = await start(hold_s=0.01)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await client.upi("ref", ear.url, vpa="timeout@upi")
    assert (await ear.next())["status"] == "approved"
    assert [entry["fault"] for entry in await client.journal() if entry["operation"] == "create"] == ["response_lost"]


async def test_a_windowed_fault_waits_for_the_timeline_and_its_window(start):
    windowed = {"kind": "unavailable", "probability": 1, "from": "10min", "until": "20min"}
    client = await start(card={"faults": [windowed]})

    async def status(reference: str) -> int:
        return (await client.call("POST", "/card/charges", json=card_body(reference)))[0]

    assert await status("before_the_timeline") == 200
    now_ms = (await client.journal())[0]["at"]
    for minutes_ago, expected in [(5, 200), (15, 503), (25, 200)]:
        start_at = now_ms - minutes_ago * 60_000
        answer = await client.call("POST", "/admin/timeline", json={"startAtMs": start_at})
        assert answer[:2] == (200, {"startAtMs": start_at})
        assert await status(f"started_{minutes_ago}_minutes_ago") == expected


async def test_a_retry_after_an_outage_meets_the_fate_that_the_reference_always_had(start):
    outcomes = {"outcomes": {"00": 0.5, "05": 0.5}}
    outage = {"kind": "unavailable", "probability": 1, "until": "10min"}
    calm, stormy = await start(card=outcomes), await start(card=outcomes | {"faults": [outage]})
    references = [f"ref_{index}" for index in range(40)]
    expected = [(await calm.card(reference))["responseCode"] for reference in references]
    now_ms = (await calm.journal())[0]["at"]
    await stormy.call("POST", "/admin/timeline", json={"startAtMs": now_ms})
    assert {(await stormy.card(reference))["code"] for reference in references} == {"unavailable"}
    await stormy.call("POST", "/admin/timeline", json={"startAtMs": 0})
    assert [(await stormy.card(reference))["responseCode"] for reference in references] == expected


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
async def test_health(start, path):
    client = await start()
    assert (await client.call("GET", path))[:2] == (200, {"status": "ok"})
