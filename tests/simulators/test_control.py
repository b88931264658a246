"""Control while it runs, over HTTP."""

import msgspec
import pytest

from simulators.config import Config, convert

BODY = {"amount": 1000, "currency": "INR", "merchantID": "m"}
CARD = {"number": "4111111111111111", "expiryMonth": "12", "expiryYear": "2099", "cvv": "123"}


async def charge(client, reference):
    status, body, _ = await client.call("POST", "/card/charges", json=BODY | {"reference": reference, "card": CARD})
    return status, body.get("responseCode")


async def settings(client):
    return (await client.call("GET", "/admin/config"))[1]


async def test_the_settings_in_force_are_a_configuration_without_secrets(start, configure):
    client = await start()
    shown = await settings(client)
    assert "secrets" not in shown
    assert convert(shown | {"secrets": msgspec.to_builtins(configure().secrets)}, Config, file="") == configure()


async def test_a_patch_changes_what_it_names_and_nothing_else(start):
    client = await start()
    before = await settings(client)
    patch = {"card": {"outcomes": {"00": None, "51": 1}, "latency": {"kind": "uniform", "low": "1ms", "high": "2ms"}}}
    status, after, _ = await client.call("PATCH", "/admin/config", json=patch)
    assert status == 200
    assert after == await settings(client)
    assert after["card"]["outcomes"] == {"51": 1}
    assert after["card"]["latency"] == {"kind": "uniform", "low": "1ms", "high": "2ms"}
    assert after | {"card": before["card"]} == before
    assert {field for field in after["card"] if after["card"][field] != before["card"][field]} == {"outcomes", "latency"}
    assert await charge(client, "r") == (200, "51")


async def test_null_is_the_default(start):
    client = await start(upi={"inquiries_per_min": 7})
    await client.call("PATCH", "/admin/config", json={"upi": {"inquiries_per_min": None}})
    assert (await settings(client))["upi"]["inquiries_per_min"] == 60


async def test_terms_can_be_changed(start):
    client = await start()
    patch = {"card": {"refund_delay": {"kind": "constant", "value": "60min"}}}
    states = []
    for reference in ("a", "b"):
        await charge(client, reference)
        refund = {"reference": f"refund_{reference}", "amount": 10, "currency": "INR"}
        states.append((await client.call("POST", f"/card/charges/{reference}/refunds", json=refund))[1]["status"])
        await client.call("PATCH", "/admin/config", json=patch)
    assert states == ["completed", "pending"]


async def test_the_merchants_latency_can_be_changed(start):
    client = await start()
    await client.call("PATCH", "/admin/config", json={"merchant": {"latency": {"kind": "constant", "value": "3ms"}}})
    await client.call("POST", "/merchant/webhooks/m", json={})
    assert [entry["delayMs"] for entry in await client.journal()] == [3]


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"card": {"outcomes": {"05": 1}}}, "card: outcomes must add up to 1"),
        ({"card": {"latency": {"value": "fast"}}}, "card.latency.value: "),
        ({"card": {"latency": 3}}, "card.latency: "),
        ({"crd": {}}, "did you mean 'card'"),
        ({"crd": None}, "crd: there is no such setting; did you mean 'card'?"),
        ({"card": {"latancy": None}}, "card.latancy: there is no such setting; did you mean 'latency'?"),
        ({"seed": 3}, "seed"),
        ({"secrets": {"upi": "whsec_x"}}, "secrets"),
        (
            {"card": {"outcomes": {"00": None, "51": 1}}, "upi": {"faults": [{"kind": "late"}]}},
            "upi.faults[0]: late needs delay",
        ),
        ({"card": None, "phases": [{"name": "x", "from": "2s", "until": "1s"}]}, "phases[0]: until"),
    ],
)
async def test_a_patch_that_is_wrong_anywhere_changes_nothing_at_all(start, patch, words):
    client = await start()
    before = await settings(client)
    status, answer, _ = await client.call("PATCH", "/admin/config", json=patch)
    assert (status, answer["code"]) == (400, "invalid_request")
    assert words in answer["error"]
    assert await settings(client) == before
    assert await charge(client, "r") == (200, "00")


@pytest.mark.parametrize(
    "body",
    [b"[]", b"3", b"null", b"{", b"\xff", b"[" * 5000, b'{"a":' * 5000, b'{"a":' * 500 + b"1" + b"}" * 500, b'{"card": 1e999}'],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", "/admin/config"),
        ("POST", "/admin/faults"),
        ("POST", "/admin/clock/advance"),
        ("POST", "/admin/reset"),
        ("POST", "/admin/snapshots"),
        ("POST", "/admin/tenants"),
    ],
)
async def test_what_is_no_sensible_json_is_refused(start, method, path, body):
    client = await start()
    status, answer, _ = await client.call(method, path, data=body)
    assert (status, answer["code"]) == (400, "invalid_request")


async def test_a_fault_is_started_and_stopped(start):
    client = await start()
    fault = {"provider": "card", "name": "outage", "kind": "unavailable", "operation": "create"}
    status, answer, _ = await client.call("POST", "/admin/faults", json=fault)
    assert (status, answer) == (201, fault)
    status, _, headers = await client.call("POST", "/card/charges", json=BODY | {"reference": "r", "card": CARD})
    assert (status, headers["X-Paydrome-Fault-Id"]) == (503, "card.create.outage")
    assert (await client.call("GET", "/admin/faults"))[1] == {"faults": [fault | {"probability": 1.0}]}
    assert (await client.call("DELETE", "/admin/faults/outage"))[0] == 200
    assert await charge(client, "r") == (200, "00")
    assert (await client.call("GET", "/admin/faults"))[1] == {"faults": []}
    assert (await client.call("DELETE", "/admin/faults/outage"))[0] == 404


async def test_a_fault_that_is_started_holds_in_phases_with_faults_of_their_own_too(start):
    slow = {"name": "slow", "from": "0s", "until": "1h", "card": {"faults": [{"kind": "late", "delay": "1ms", "first": 1}]}}
    client = await start(phases=[slow])
    await client.call("POST", "/admin/timeline", json={"startAtMs": (await client.call("GET", "/admin/clock"))[1]["nowMs"]})
    fault = {"provider": "card", "name": "outage", "kind": "unavailable", "operation": "status"}
    await client.call("POST", "/admin/faults", json=fault)
    status, _, headers = await client.call("GET", "/card/charges/r")
    assert (status, headers["X-Paydrome-Fault-Id"]) == (503, "card.status.slow.outage")
    await client.call("DELETE", "/admin/faults/outage")
    assert (await client.call("GET", "/card/charges/r"))[0] == 404


async def test_a_fault_does_not_change_whom_the_others_befall(start):
    def befallen(entries):
        return [entry["reference"] for entry in entries if entry["fault"] == "unavailable"]

    found = []
    for more in ([], [{"provider": "card", "name": "more", "kind": "late", "delay": "0ms", "probability": 0.3}]):
        client = await start(card={"faults": [{"kind": "unavailable", "probability": 0.3}]})
        for fault in more:
            assert (await client.call("POST", "/admin/faults", json=fault))[0] == 201
        for number in range(40):
            await charge(client, f"r{number}")
        found.append(await client.journal())
    assert befallen(found[0]) == befallen(found[1]) != []
    assert {entry["fault"] for entry in found[1]} == {None, "unavailable", "late"}


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        ({"name": "x", "kind": "unavailable"}, 400, "provider"),
        ({"provider": "card", "kind": "unavailable"}, 400, "name"),
        ({"provider": "atm", "name": "x", "kind": "unavailable"}, 400, "use bank or card or upi"),
        ({"provider": "card", "name": "a b", "kind": "unavailable"}, 400, "name: "),
        ({"provider": "card", "name": "x", "kind": "unavailble"}, 400, "kind: Invalid enum value 'unavailble'; did you mean"),
        ({"provider": "card", "name": "x", "kind": "late"}, 400, "late needs delay"),
        ({"provider": "card", "name": "x", "kind": "unavailable", "operation": "mandate"}, 400, "no mandate"),
        ({"provider": "card", "name": "x", "kind": "unavailable", "chance": 1}, 400, "chance"),
        ({"provider": "bank", "name": "known", "kind": "unavailable"}, 409, "already"),
        ({"provider": "card", "name": "never", "kind": "garbage", "operation": "status"}, 409, "card.status.known"),
    ],
)
async def test_a_fault_that_cannot_be_is_refused_and_changes_nothing(start, fault, status, words):
    client = await start(card={"faults": [{"kind": "unavailable", "operation": "status", "name": "known"}]})
    before = await settings(client)
    found, answer, _ = await client.call("POST", "/admin/faults", json=fault)
    assert (found, words in answer["error"]) == (status, True), answer
    assert await settings(client) == before


async def test_the_clock_moves_and_what_is_due_happens(start):
    client = await start()
    await client.call("POST", "/card/charges", json=BODY | {"reference": "r", "card": CARD, "capture": "manual"})
    before = (await client.call("GET", "/admin/clock"))[1]
    assert (before["offsetMs"], before["timersWaiting"], before["timelineMs"]) == (0, 1, None)
    status, after, _ = await client.call("POST", "/admin/clock/advance", json={"by": "7d"})
    assert (status, after["offsetMs"], after["timersWaiting"]) == (200, 7 * 86_400_000, 0)
    assert after["nowMs"] >= before["nowMs"] + 7 * 86_400_000
    assert (await client.call("GET", "/card/charges/r"))[1]["status"] == "expired"


@pytest.mark.parametrize("by", ["-1s", "7", 7, None, "400d", "1y"])
async def test_a_clock_that_cannot_move_so_stays(start, by):
    client = await start()
    status, answer, _ = await client.call("POST", "/admin/clock/advance", json={"by": by})
    assert (status, "by: " in answer["error"]) == (400, True)
    assert (await client.call("GET", "/admin/clock"))[1]["offsetMs"] == 0


async def test_tenants_are_controlled_one_by_one(start):
    client = await start()
    fault = {"provider": "card", "name": "outage", "kind": "unavailable"}
    await client.call("POST", "/t/a/admin/faults", json=fault)
    await client.call("POST", "/t/a/admin/clock/advance", json={"by": "1h"})
    assert await charge(client, "r") == (200, "00")
    assert (await client.call("GET", "/admin/clock"))[1]["offsetMs"] == 0
    assert (await client.call("POST", "/t/a/card/charges", json=BODY | {"reference": "r", "card": CARD}))[0] == 503
