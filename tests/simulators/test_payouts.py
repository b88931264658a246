"""Payouts: the state table and the networks' rules, then payouts over HTTP."""

import re
from collections import Counter
from functools import partial
from itertools import product
from typing import Any, get_args

import msgspec
import pytest

from simulators.clock import Clock
from simulators.payouts import (
    BATCH_MS,
    PAYOUT_CODES,
    RETURNED_AFTER_MS,
    RULES,
    STAYS_PENDING,
    TEST_PAYEES,
    Event,
    Mode,
    Payout,
    Status,
    happen,
    moved,
    sent_at,
    utr,
)

NOW_MS = 1_800_000_000_000
PAYOUT = Payout("p", "bank_payout_00", "pending", None, 1000, "INR", "IMPS", 1, 1)
MOVES = {
    ("pending", "send"): "processing",
    ("pending", "reject"): "failed",
    ("processing", "complete"): "completed",
    ("processing", "fail"): "failed",
    ("completed", "return"): "returned",
}


def in_state(status: str) -> Payout:
    return msgspec.structs.replace(PAYOUT, status=status)


def test_a_payout_moves_as_the_table_says_and_by_nothing_else():
    found = {
        pair: changed.status
        for pair in product(get_args(Status), get_args(Event))
        if (changed := happen(in_state(pair[0]), pair[1], now_ms=2, code="00"))
    }
    assert found == MOVES


@pytest.mark.parametrize(("status", "event"), MOVES)
def test_a_move_changes_status_code_and_time_and_only_sending_gives_a_utr(status, event):
    after = happen(in_state(status), event, now_ms=7, code="XX", utr="1")
    expected = msgspec.structs.replace(PAYOUT, status=MOVES[status, event], responseCode="XX", updatedAt=7)
    assert after == (msgspec.structs.replace(expected, utr="1") if event == "send" else expected)


def test_money_leaves_when_a_payout_completes_and_comes_back_when_it_is_returned():
    assert {status: moved(in_state(status)) for status in get_args(Status)} == {
        "pending": 0,
        "processing": 0,
        "completed": -1000,
        "failed": 0,
        "returned": 1000,
    }


@pytest.mark.parametrize(("after_ms", "batch"), [(0, 1), (1, 1), (BATCH_MS - 1, 1), (BATCH_MS, 2)])
def test_neft_goes_with_the_next_half_hour_and_all_else_at_once(after_ms, batch):
    assert NOW_MS % BATCH_MS == 0
    assert sent_at("NEFT", NOW_MS + after_ms) == NOW_MS + batch * BATCH_MS
    for mode in set(get_args(Mode)) - {"NEFT"}:
        assert sent_at(mode, NOW_MS + after_ms) == NOW_MS + after_ms


def test_a_utr_has_22_characters_with_the_indian_day_or_is_an_rrn_of_12_digits():
    late_ms = 1_767_207_600_000  # 2025-12-31 19:00 UTC: it is 2026 in India
    assert utr("RTGS", 7, late_ms) == "PAYDR12026010100000007"
    assert utr("NEFT", 10**8 + 7, late_ms) == "PAYDN12026010100000007"
    assert utr("IMPS", 7, late_ms) == utr("UPI", 10**12 + 7, late_ms) == "000000000007"


ACCOUNT = {"type": "account", "accountNumber": "123456789012", "ifsc": "HDFC0000001", "name": "A. Payee"}
WALLET = {"type": "wallet", "provider": "paytm", "phone": "+919876543210"}
VPA = {"type": "vpa", "vpa": "payee@bank"}
PAYEES = {"account": ("accountNumber", ACCOUNT), "wallet": ("phone", WALLET), "vpa": ("vpa", VPA)}
LAKH = 100_000_00


@pytest.fixture
def clock() -> Clock:
    return Clock(lambda: NOW_MS)  # it moves only where it is moved to


@pytest.fixture
def start(start, clock):
    return partial(start, clock=clock)


async def order(client, ear=None, reference: str = "p", **fields: Any) -> tuple[int, dict[str, Any]]:
    body = {"reference": reference, "amount": 1000, "currency": "INR", "merchantID": "m", "beneficiary": ACCOUNT}
    body |= {"mode": "IMPS", "purpose": "salary", "callbackURL": ear.url if ear else "http://127.0.0.1:9/"}
    return (await client.call("POST", "/bank/payouts", json=body | fields))[:2]


async def payout(client, reference: str = "p") -> dict[str, Any]:
    return (await client.call("GET", f"/bank/payouts/{reference}"))[1]


async def movements(client) -> list[tuple[str, int]]:
    return [(entry["status"], entry["moved"]) for entry in await client.journal() if is_event(entry)]


def is_event(entry: dict[str, Any]) -> bool:
    return entry["operation"] == "payout" and "subject" in entry


async def test_a_payout_is_pending_then_with_the_network_then_completed_and_called_back(start, ear, clock):
    client = await start()
    status, ordered = await order(client, ear)
    assert (status, ordered["status"], ordered["responseCode"], "utr" in ordered) == (200, "pending", None, False)
    clock.advance(0)
    sent = await payout(client)
    assert (sent["status"], sent["responseCode"]) == ("processing", None)
    assert re.fullmatch(r"[0-9]{12}", sent["utr"])
    clock.advance(3_600_000)
    done = await payout(client)
    assert (done["status"], done["responseCode"], done["utr"]) == ("completed", "00", sent["utr"])
    told = await ear.next()
    assert {name: told[name] for name in done} == done
    assert (told["type"], told["provider"], told["id"]) == ("payout", "bank", f"cb_{done['providerID']}_completed")
    assert await movements(client) == [("processing", 0), ("completed", -1000)]
    entry = next(entry for entry in await client.journal() if entry["moved"])
    assert (entry["operation"], entry["reference"], entry["subject"], entry["merchantID"]) == ("payout", "p", done["utr"], "m")


@pytest.mark.parametrize("mode", get_args(Mode))
async def test_the_result_comes_within_the_time_of_its_mode(start, clock, mode):
    client = await start()
    await order(client, mode=mode, amount=RULES[mode].min, beneficiary=VPA if mode == "UPI" else ACCOUNT)
    clock.advance(0)
    assert (await payout(client))["status"] == ("pending" if mode == "NEFT" else "processing")
    clock.advance(BATCH_MS if mode == "NEFT" else 1)
    assert (await payout(client))["status"] == "processing"
    clock.advance(24 * 3_600_000)
    assert (await payout(client))["status"] == "completed"


OUTCOMES = {
    "00": [("processing", 0), ("completed", -1000)],
    "invalid_account": [("processing", 0), ("failed", 0)],
    "account_closed": [("processing", 0), ("failed", 0)],
    "insufficient_funds": [],
    "returned": [("processing", 0), ("completed", -1000), ("returned", 1000)],
    STAYS_PENDING: [],
}


@pytest.mark.parametrize(("kind", "value", "code"), [(k, v, c) for k, some in TEST_PAYEES.items() for v, c in some.items()])
async def test_a_test_payee_does_as_told_whatever_the_mix_says(start, ear, clock, kind, value, code):
    client = await start(bank={"payouts": {"invalid_account" if code == "00" else "00": 1}})
    field, payee = PAYEES[kind]
    _, ordered = await order(client, ear, beneficiary=payee | {field: value}, mode="UPI" if kind == "vpa" else "IMPS")
    at_once = code == "insufficient_funds"
    assert (ordered["status"], ordered["responseCode"]) == (("failed", code) if at_once else ("pending", None))
    clock.advance(3_600_000)
    clock.advance(RETURNED_AFTER_MS)
    assert await movements(client) == OUTCOMES[code]
    end = await payout(client)
    last = OUTCOMES[code][-1][0] if OUTCOMES[code] else ordered["status"]
    assert (end["status"], end["responseCode"]) == (last, None if code == STAYS_PENDING else code)
    heard = Counter([(await ear.next())["status"] for status, _ in OUTCOMES[code] if status != "processing"])
    assert heard == Counter(status for status, _ in OUTCOMES[code] if status != "processing")
    assert ear.silent


async def test_what_is_returned_comes_back_a_day_after_it_completed(start, clock):
    client = await start(bank={"payouts": {"returned": 1}})
    await order(client)
    clock.advance(3_600_000)
    completed = await payout(client)
    clock.advance(completed["updatedAt"] + RETURNED_AFTER_MS - 1 - clock.now_ms())
    assert (await payout(client))["status"] == "completed"
    clock.advance(1)
    returned = await payout(client)
    assert (returned["status"], returned["updatedAt"] - completed["updatedAt"]) == ("returned", RETURNED_AFTER_MS)
    assert (await client.call("GET", "/admin/balance?merchant=m"))[1] == {"balance": {"INR": 0}}


async def test_the_same_order_again_is_the_same_payout_and_another_one_is_refused(start, clock):
    client = await start()
    _, first = await order(client)
    clock.advance(3_600_000)
    _, again = await order(client)
    assert (again["providerID"], again["status"]) == (first["providerID"], "completed")
    journal = [entry["moved"] for entry in await client.journal() if entry["moved"]]
    for change in ({"amount": 999}, {"merchantID": "x"}, {"beneficiary": ACCOUNT | {"name": "B"}}, {"purpose": "vendor"}):
        status, answer = await order(client, **change)
        assert (status, answer["code"]) == (409, "reference_conflict")
    assert (await payout(client)) == again
    assert [entry["moved"] for entry in await client.journal() if entry["moved"]] == journal == [-1000]


async def test_a_payout_that_never_arrived_is_not_found(start):
    client = await start()
    status, answer, _ = await client.call("GET", "/bank/payouts/p")
    assert (status, answer["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"mode": "RTGS", "amount": 2 * LAKH - 1}, "RTGS takes at least 20000000 paise"),
        ({"mode": "IMPS", "amount": 5 * LAKH + 1}, "IMPS takes at most 50000000 paise"),
        ({"mode": "UPI", "beneficiary": VPA, "amount": LAKH + 1}, "UPI takes at most"),
        ({"mode": "UPI"}, "does not reach a beneficiary of type account; use IMPS, NEFT, RTGS"),
        ({"mode": "IMPS", "beneficiary": VPA}, "of type vpa; use UPI"),
        ({"mode": "NEFT", "beneficiary": WALLET}, "of type wallet; use IMPS, UPI"),
        ({"beneficiary": ACCOUNT | {"ifsc": "HDFC1000001"}}, "beneficiary.ifsc"),
        ({"beneficiary": ACCOUNT | {"accountNumber": "12345678"}}, "beneficiary.accountNumber"),
        ({"beneficiary": ACCOUNT | {"type": "cash"}}, "beneficiary"),
        ({"beneficiary": WALLET | {"phone": "1234567890"}}, "beneficiary.phone"),
        ({"beneficiary": {"type": "vpa", "vpa": "nobody"}}, "beneficiary.vpa"),
        ({"currency": "USD"}, "currency"),
        ({"purpose": "a\x00b"}, "purpose: contains a control character"),
        ({"amount": 0}, "amount"),
    ],
)
async def test_an_order_that_no_network_takes_is_refused_and_leaves_nothing(start, fields, reason):
    client = await start()
    status, answer = await order(client, **fields)
    assert (status, answer["code"]) == (400, "invalid_request")
    assert reason in answer["error"]
    assert await client.journal() == []


@pytest.mark.parametrize(("mode", "amount"), [("RTGS", 2 * LAKH), ("IMPS", 5 * LAKH), ("NEFT", 99 * LAKH)])
async def test_the_limits_themselves_are_allowed(start, mode, amount):
    assert (await order(await start(), mode=mode, amount=amount))[0] == 200


async def test_fate_belongs_to_the_reference_whatever_the_order_and_the_tries(start, clock):
    mix = {"00": 0.4, "invalid_account": 0.2, "account_closed": 0.1, "insufficient_funds": 0.1, "returned": 0.2}
    assert set(mix) == PAYOUT_CODES
    names = [f"p{number}" for number in range(30)]
    fates = []
    for ordered, faults in ((names, []), (names[::-1], [{"kind": "unavailable", "operation": "payout", "first": 1}])):
        client = await start(bank={"payouts": mix, "faults": faults})
        for name in ordered:
            for _ in range(1 + len(faults)):
                status, _ = await order(client, reference=name)
            assert status == 200
        clock.advance(3_600_000)
        clock.advance(RETURNED_AFTER_MS)
        ends = [await payout(client, name) for name in names] if not faults else []
        for name in names if faults else ():
            await payout(client, name)  # the first inquiry meets the fault
            ends.append(await payout(client, name))
        facts = ("providerID", "status", "responseCode", "utr")
        fates.append([(*map(end.get, facts), end["updatedAt"] - end["createdAt"]) for end in ends])
    assert fates[0] == fates[1]
    assert {fate[1] for fate in fates[0]} == {"completed", "failed", "returned"}


async def test_a_payout_whose_answer_was_lost_is_found_by_its_reference_and_pays_once(start, clock):
    client = await start(bank={"faults": [{"kind": "http_500", "operation": "payout", "acts": True, "first": 1}]})
    assert (await order(client))[0] == 500
    assert (await order(client))[0] == 200
    clock.advance(3_600_000)
    await payout(client)
    assert (await payout(client))["status"] == "completed"
    assert [moved for _, moved in await movements(client) if moved] == [-1000]


async def test_a_slow_payout_answers_late_and_another_operation_does_not(start):
    slow = {"payout": {"kind": "constant", "value": "3ms"}}
    client = await start(bank={"latencies": slow})
    await order(client)
    await client.bank("r", "http://127.0.0.1:9/")
    delays = {entry["operation"]: entry["delayMs"] for entry in await client.journal() if entry["attempt"] == 1}
    assert (delays["payout"], delays["create"]) == (3, 0)


async def test_a_phase_changes_what_becomes_of_payouts(start, clock):
    phase = {"name": "closed", "from": "1h", "until": "2h", "bank": {"payouts": {"account_closed": 1}}}
    client = await start(phases=[phase])
    await client.call("POST", "/admin/timeline", json={"startAtMs": clock.now_ms()})
    await order(client, reference="before")
    clock.advance(3_600_000)
    await order(client, reference="within")
    clock.advance(3_600_000)
    assert [(await payout(client, name))["responseCode"] for name in ("before", "within")] == ["00", "account_closed"]


async def test_a_snapshot_keeps_payouts_and_what_waits_for_them(start):
    client = await start(bank={"payouts": {"returned": 1}})
    await order(client, mode="NEFT")
    await client.call("POST", "/admin/snapshots", json={"name": "s"})
    ends = []
    for _ in range(2):
        assert (await payout(client))["status"] == "pending"
        for by in ("3h", "1d"):
            await client.call("POST", "/admin/clock/advance", json={"by": by})
        ends.append((await payout(client))["status"])
        await client.call("POST", "/admin/snapshots/s/restore")
    assert ends == ["returned", "returned"]


async def test_a_settlement_has_payouts_as_such_and_without_a_fee(start, clock):
    client = await start(bank={"payouts": {"returned": 1}})
    await order(client)
    clock.advance(3_600_000)
    async with client.session.get(f"{client.url}/settlements/bank/2027-01-15?fee_bps=100") as answer:
        row = (await answer.text()).splitlines()[1].split(",")
    assert (row[0], row[2:7]) == ("p", ["payout", "-1000", "0", "-1000", "INR"])


async def test_an_explanation_tells_calls_from_what_the_network_did(start, clock):
    client = await start()
    await order(client)
    clock.advance(3_600_000)
    await payout(client)
    _, told, _ = await client.call("GET", "/admin/explain/p")
    kinds = [(entry["kind"], entry["status"]) for entry in told["entries"] if entry["operation"] == "payout"]
    assert kinds == [("call", "pending"), ("event", "processing"), ("event", "completed"), ("call", "completed")]
