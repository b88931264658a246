import asyncio

import pytest

from simulators.history import CHANGES_MAX, History

LOGNORMAL = {"kind": "lognormal", "p50": "1ms", "p99": "9ms"}
PLAIN = {"headers": {"Accept": "text/plain"}}


async def explain(client, reference: str) -> dict:
    status, body, _ = await client.call("GET", f"/admin/explain/{reference}")
    assert status == 200, body
    return body


def reasons(entry: dict, about: str = "") -> str:
    return "\n".join(sentence for sentence in entry["because"] if sentence.startswith(about))


async def test_a_charge_is_explained_by_its_draw_mix_and_latency(start):
    client = await start(card={"latency": LOGNORMAL, "outcomes": {"00": 0.4, "05": 0.6}})
    charges = [await client.card(f"pay_{number}") for number in range(20)]
    assert {charge["responseCode"] for charge in charges} == {"00", "05"}
    for charge in charges:
        told = await explain(client, charge["reference"])
        (entry,) = told["entries"]
        approved = charge["responseCode"] == "00"
        assert (entry["draw"]["outcome"] < 0.4) == approved
        interval = "[0, 0.4) of 00" if approved else "[0.4, 1) of 05"
        assert f"lies in {interval} in the mix" in reasons(entry, "outcome:")
        assert f"delay: {entry['delayMs']} ms is the quantile {entry['draw']['latency']:.6f}" in reasons(entry)
        assert '"kind":"lognormal"' in reasons(entry, "delay:")
        assert told["moved"] == ({"INR": 1000} if approved else {})
        assert told["seed"] == 1


async def test_what_a_test_card_forces_is_told_without_its_number(start):
    client = await start()
    for number, code in {"4000000000009995": "51", "4000000000000119": "96", "4242424242424241": "14"}.items():
        await client.card(f"pay_{code}", number=number)
        async with client.session.get(f"{client.url}/admin/explain/pay_{code}") as answer:
            assert number.encode() not in await answer.read()
    forced = (await explain(client, "pay_51"))["entries"][0]
    assert "forced to 51 by a test value; test values for it: ...9995" in reasons(forced, "outcome:")
    assert "wrong check digit" in reasons((await explain(client, "pay_14"))["entries"][0], "outcome:")


async def test_a_card_with_a_story_is_told_from_one_of_the_mix(start):
    client = await start()
    await client.card("pay_story", number="4000000000000259")
    await client.card("pay_mix")
    assert "whatever the mix says" in reasons((await explain(client, "pay_story"))["entries"][0], "outcome:")
    assert "in the mix" in reasons((await explain(client, "pay_mix"))["entries"][0], "outcome:")


async def test_a_fault_is_explained_by_its_conditions_and_the_draw(start):
    faults = [
        {"kind": "http_500", "probability": 0.5, "amount": {"min": 5000}, "name": "large"},
        {"kind": "http_502", "probability": 0.3, "acts": True, "name": "gateway"},
        {"kind": "unavailable", "probability": 0.4},
    ]
    client = await start(card={"faults": faults})
    for number in range(40):
        async with client.session.post(f"{client.url}/card/charges", json=charge(f"pay_{number}")):
            pass
    seen = set()
    for number in range(40):
        (entry,) = (await explain(client, f"pay_{number}"))["entries"]
        share, told = entry["draw"]["fault"], reasons(entry, "fault:")
        seen.add(entry.get("fault"))
        if entry.get("fault") == "http_502":  # the fault before it wanted a larger amount, so its interval begins at 0
            assert share < 0.3
            assert "card.create.gateway (kind http_502, probability 0.3, acts True) applied" in told
            assert "lies in [0, 0.3)" in told
            assert entry["moved"] == 1000
        elif entry.get("fault") == "unavailable":
            assert 0.3 <= share < 0.7
            assert "lies in [0.3, 0.7)" in told
            assert "keeps the provider from acting" in reasons(entry, "outcome:")
        else:
            assert share >= 0.7
            assert "none; of 3" in told
    assert seen == {"http_502", "unavailable", None}


async def test_what_a_fault_asks_of_a_card_is_not_shown(start):
    client = await start(card={"faults": [{"kind": "unavailable", "bin": "41111111", "name": "bin"}]})
    async with client.session.post(f"{client.url}/card/charges", json=charge("pay_1")) as answer:
        assert answer.status == 503
    told = reasons((await explain(client, "pay_1"))["entries"][0])
    assert "bin as configured" in told
    assert "41111111" not in told


async def test_the_phase_and_settings_of_that_time_count(start):
    slow = {"name": "brownout", "from": "0s", "until": "60min", "card": {"latency": {"kind": "constant", "value": "3ms"}}}
    client = await start(phases=[slow])
    await client.card("pay_before")
    now_ms = (await client.call("GET", "/admin/clock"))[1]["nowMs"]
    await client.call("POST", "/admin/timeline", json={"startAtMs": now_ms})
    await client.card("pay_brownout")
    await client.call("POST", "/admin/clock/advance", json={"by": "2h"})
    await client.call("PATCH", "/admin/config", json={"card": {"latency": {"kind": "constant", "value": "2ms"}}})
    await client.card("pay_after")
    entries = {name: (await explain(client, f"pay_{name}"))["entries"][0] for name in ("before", "brownout", "after")}
    assert [entries[name]["delayMs"] for name in entries] == [0, 3, 2]
    assert [entries[name].get("phase", "") for name in entries] == ["", "brownout", ""]
    for name, value in {"before": "0ms", "brownout": "3ms", "after": "2ms"}.items():
        assert f'of {{"kind":"constant","value":"{value}"}}' in reasons(entries[name], "delay:")


async def test_a_wait_in_the_queue_is_part_of_the_delay(start):
    service = {"kind": "constant", "value": "250ms"}  # long beside how far apart three calls at once arrive
    client = await start(card={"latency": service, "capacity": {"create": {"servers": 1, "queue_max": 1}}})
    await asyncio.gather(*(client.card(f"pay_{number}") for number in range(3)))
    told = [(await explain(client, f"pay_{number}"))["entries"][0] for number in range(3)]
    waited = [entry for entry in told if entry.get("waitMs")]
    rejected = [entry for entry in told if entry.get("fault")]
    assert (len(waited), len(rejected)) == (1, 1)
    assert f"delay: 250 ms is the quantile {waited[0]['draw']['latency']:.6f}" in reasons(waited[0])
    assert f"{waited[0]['waitMs']} ms in the queue" in reasons(waited[0], "delay:")
    assert "all servers of the station were busy and its queue was full" in reasons(rejected[0], "fault:")


async def test_a_customer_callbacks_and_webhooks_are_part_of_the_story(start, ear):
    ear.statuses = [500]
    faults = [{"kind": "bad_signature", "operation": "callback", "first": 1, "name": "forged"}]
    client = await start(upi={"faults": faults})
    await client.upi("pay_1", ear.url, vpa="insufficientfunds@upi")
    await ear.next()
    await ear.next()
    await client.session.post(f"{client.url}/merchant/webhooks/shop", data=b'{"data": {"orderReference": "pay_1"}}')
    await client.session.post(f"{client.url}/merchant/webhooks/shop", data=b'{"data": {"orderReference": "pay_2"}}')
    entries = await told_when(client, "pay_1", count=5)
    assert {entry["kind"] for entry in entries} == {"call", "event", "callback", "webhook"}
    by_kind = {kind: [entry for entry in entries if entry["kind"] == kind] for kind in ("call", "event", "callback", "webhook")}
    assert "the customer decides Z9" in reasons(by_kind["call"][0], "outcome:")
    assert "test values for it: insufficientfunds@upi" in reasons(by_kind["call"][0], "outcome:")
    assert "the customer decided: forced to Z9" in reasons(by_kind["event"][0])
    first, second = by_kind["callback"]
    assert (first["callbackStatus"], second["callbackStatus"]) == (500, 200)
    assert first["faultID"] == "upi.callback.forged"
    assert "upi.callback.forged (kind bad_signature, probability 1.0, first 1) applied" in reasons(first, "fault:")
    assert "does not verify" in reasons(by_kind["webhook"][0])
    assert len(by_kind["webhook"]) == 1


async def test_a_refund_is_found_by_its_own_reference_and_by_that_of_the_charge(start):
    client = await start(card={"refund_delay": {"kind": "constant", "value": "1h"}})
    await client.card("pay_1")
    refund = {"reference": "refund_1", "amount": 400, "currency": "INR"}
    await client.call("POST", "/card/charges/pay_1/refunds", json=refund)
    await client.call("GET", "/card/refunds/refund_1")
    await client.call("POST", "/admin/clock/advance", json={"by": "2h"})
    own, whole = await explain(client, "refund_1"), await explain(client, "pay_1")
    assert [entry["kind"] for entry in own["entries"]] == ["call", "call", "event"]
    assert own["moved"] == {"INR": -400}
    assert [entry["operation"] for entry in whole["entries"]] == ["create", "refund", "refund_status", "refund"]
    assert whole["moved"] == {"INR": 600}


async def test_the_draws_of_callbacks_are_those_that_decided(start, ear):
    faults = [{"kind": "bad_signature", "operation": "callback", "probability": 0.5, "name": "half"}]
    client = await start(card={"refund_delay": {"kind": "constant", "value": "0ms"}, "faults": faults})
    await client.card("pay_1")
    for number in range(12):
        refund = {"reference": f"refund_{number}", "amount": 10, "currency": "INR", "callbackURL": ear.url}
        await client.call("POST", "/card/charges/pay_1/refunds", json=refund)
        await ear.next()
    entries = await told_when(client, "pay_1", count=1 + 3 * 12)
    callbacks = [entry for entry in entries if entry["kind"] == "callback"]
    faulty = [entry for entry in callbacks if entry.get("faultID") == "card.callback.half"]
    assert 0 < len(faulty) < len(callbacks) == 12
    assert all((entry["draw"]["fault"] < 0.5) == (entry in faulty) for entry in callbacks)
    assert all("lies in [0, 0.5)" in reasons(entry, "fault:") for entry in faulty)


async def test_what_the_journal_does_not_tell_is_said_so(start, ear):
    client = await start(upi={"faults": [{"kind": "unknown_payment", "operation": "callback"}]})
    await client.upi("pay_1", ear.url)
    await ear.next()
    stranger = (await ear.next())["reference"]
    body = {"reference": "mandate_1", "merchantID": "m", "vpa": "a@upi", "amountMax": 1, "currency": "INR"}
    body |= {"frequency": "monthly", "startAt": 0, "endAt": 32_503_680_000_000, "callbackURL": ear.url}
    assert (await client.call("POST", "/upi/mandates", json=body))[0] == 200
    for reference in (stranger, "mandate_1"):
        entry = (await told_when(client, reference, count=1))[0]
        assert "cannot be told" in reasons(entry, "draw:")
        assert "draw" not in entry


async def test_a_repeated_create_and_a_blocked_one_are_told_apart(start):
    client = await start()
    await client.card("pay_1")
    await client.card("pay_1")
    await client.reverse("/card/charges/pay_2")
    await client.card("pay_2")
    repeated = (await explain(client, "pay_1"))["entries"]
    assert "in the mix" in reasons(repeated[0], "outcome:")
    assert "the charge that there was" in reasons(repeated[1], "outcome:")
    assert "blocks it" not in reasons(repeated[1])
    assert "A reversal came first and blocks it" in reasons((await explain(client, "pay_2"))["entries"][1])


async def test_it_reads_as_text_too(start):
    client = await start()
    await client.card("pay_1")
    async with client.session.get(f"{client.url}/admin/explain/pay_1", **PLAIN) as answer:
        text = await answer.text()
    assert answer.content_type == "text/plain"
    assert text.startswith("pay_1: 1 entry, money moved (minor units): +1000 INR, seed 1\n")
    assert "card create, try 1 (call)" in text
    assert "    outcome: the draw 0." in text


@pytest.mark.parametrize(("path", "status"), [("nobody", 404), ("a%20b", 400), ("x" * 65, 400)])
async def test_an_unknown_or_impossible_reference_is_refused(start, path, status):
    client = await start()
    found, body, _ = await client.call("GET", f"/admin/explain/{path}")
    assert (found, bool(body["error"])) == (status, True)


async def test_after_a_reset_only_the_new_run_is_explained(start):
    client = await start(card={"outcomes": {"00": 1}})
    await client.card("pay_1")
    await client.call("PATCH", "/admin/config", json={"card": {"outcomes": {"00": 0.5, "05": 0.5}}})
    await client.call("POST", "/admin/reset", json={"seed": 7})
    await client.card("pay_1")
    told = await explain(client, "pay_1")
    assert (told["seed"], len(told["entries"])) == (7, 1)
    assert "0.5" in reasons(told["entries"][0], "outcome:")


def test_a_history_knows_what_held_when_each_entry_was_written():
    history = History("a")
    history.note(10, "b")
    history.note(10, "c")
    history.note(20, "d")
    assert [history.at(seq) for seq in (1, 10, 11, 20, 21)] == [("a",), ("a",), ("c",), ("c",), ("d",)]
    history.note(5, "e")  # rewound to 5 entries
    assert [history.at(seq) for seq in (5, 6, 30)] == [("a",), ("e",), ("e",)]


def test_a_history_forgets_the_oldest_and_says_so():
    history = History(0)
    for number in range(1, CHANGES_MAX + 1):
        history.note(number, number)
    assert history.at(1) is None
    assert history.at(2) == (1,)


def charge(reference: str) -> dict:
    card = {"number": "4111111111111111", "expiryMonth": "12", "expiryYear": "2099", "cvv": "123"}
    return {"reference": reference, "amount": 1000, "currency": "INR", "merchantID": "m", "card": card}


async def told_when(client, reference: str, *, count: int) -> list[dict]:
    """What is told of a reference as soon as it is `count` entries. The journal gets a callback's line after its receiver's answer."""
    async with asyncio.timeout(10):
        while True:
            _, told, _ = await client.call("GET", f"/admin/explain/{reference}")
            if len(entries := told.get("entries", [])) >= count:
                return entries
