"""UPI AutoPay: the state table and the rules, then mandates over HTTP."""

import gc
import weakref
from datetime import UTC, datetime
from functools import partial
from itertools import product
from typing import Any, get_args

import msgspec
import pytest

from simulators.autopay import Mandates, Register
from simulators.clock import Clock
from simulators.config import Upi, convert
from simulators.mandates import NOTICE_MS, Event, Mandate, Status, as_of, happen, period, refusal
from simulators.phases import Conducts
from simulators.provider import Provider
from simulators.providers import Terms, upi
from simulators.world import World

DAY_MS = 24 * 3_600_000
NOW_MS = 1_800_000_000_000
MANDATE = Mandate(
    "sub", "upi_mandate_00", "pending", None, "a@upi", 50_000, "INR", "monthly", NOW_MS, NOW_MS + 99 * DAY_MS, 1, 1
)

MOVES = {
    ("pending", "approve"): "active",
    ("pending", "decline"): "declined",
    ("pending", "expire"): "expired",
    ("pending", "revoke"): "revoked",
    ("active", "revoke"): "revoked",
    ("active", "end"): "completed",
}


def in_state(status: str) -> Mandate:
    return msgspec.structs.replace(MANDATE, status=status)


def test_a_mandate_moves_as_the_table_says_and_by_nothing_else():
    found = {
        pair: changed.status
        for pair in product(get_args(Status), get_args(Event))
        if (changed := happen(in_state(pair[0]), pair[1], now_ms=2, code="00"))
    }
    assert found == MOVES


@pytest.mark.parametrize(("status", "event"), MOVES)
def test_a_move_changes_status_code_and_time_and_only_an_active_mandate_gets_a_number(status, event):
    before = in_state(status)
    after = happen(before, event, now_ms=7, code="XX")
    expected = msgspec.structs.replace(before, status=MOVES[status, event], responseCode="XX", updatedAt=7, umn=after.umn)
    assert after == expected
    assert (after.umn is not msgspec.UNSET) is (event == "approve")


def test_a_mandate_number_has_32_characters_and_a_handle():
    umn = happen(MANDATE, "approve", now_ms=2, code="00").umn
    name, _, handle = umn.partition("@")
    assert (len(name), name.isalnum(), handle) == (32, True, "paydrome")


@pytest.mark.parametrize(("after_end_ms", "status"), [(-1, "active"), (0, "active"), (1, "completed")])
def test_an_active_mandate_is_over_after_its_end(after_end_ms, status):
    assert as_of(in_state("active"), MANDATE.endAt + after_end_ms).status == status


@pytest.mark.parametrize("status", ["pending", "declined", "expired", "revoked", "completed"])
def test_the_end_of_a_mandate_that_is_not_active_changes_nothing(status):
    assert as_of(in_state(status), MANDATE.endAt + 1) == in_state(status)


def refused(status: str = "active", **changes: Any) -> str | None:
    facts = {"amount": 50_000, "now_ms": NOW_MS, "notified_at_ms": None, "debited_in_period": False} | changes
    found = refusal(in_state(status), **facts)
    return found.code if found else None


@pytest.mark.parametrize("status", get_args(Status))
def test_only_an_active_mandate_can_be_debited(status):
    assert refused(status) == (None if status == "active" else "mandate_not_active")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"amount": 1}, None),
        ({"amount": 50_001}, "mandate_amount_exceeded"),
        ({"now_ms": NOW_MS - 1}, "mandate_not_started"),
        ({"debited_in_period": True}, "mandate_already_executed"),
        ({"notified_at_ms": NOW_MS - NOTICE_MS}, None),
        ({"notified_at_ms": NOW_MS - NOTICE_MS + 1}, "notified_too_late"),
        ({"notified_at_ms": NOW_MS + 1}, "notified_too_late"),
    ],
)
def test_a_debit_keeps_to_amount_start_period_and_notice(changes, code):
    assert refused(**changes) == code


def ms(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("frequency", "first", "second", "same"),
    [
        ("monthly", (2027, 1, 1), (2027, 1, 31, 18, 29), True),
        ("monthly", (2027, 1, 31, 18, 29), (2027, 1, 31, 18, 30), False),  # midnight in India
        ("monthly", (2026, 12, 15), (2027, 1, 15), False),
        ("monthly", (2026, 1, 15), (2027, 1, 15), False),
        ("weekly", (2027, 1, 4), (2027, 1, 10, 18, 29), True),  # Monday, Sunday
        ("weekly", (2027, 1, 10, 18, 29), (2027, 1, 10, 18, 30), False),
        ("weekly", (2026, 12, 31), (2027, 1, 1), True),
    ],
)
def test_a_period_is_a_month_or_a_week_from_monday_of_the_indian_calendar(frequency, first, second, same):
    assert (period(frequency, ms(*first)) == period(frequency, ms(*second))) is same


def test_a_mandate_as_presented_has_no_period():
    assert period("as_presented", NOW_MS) is None


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def start(start, clock):
    return partial(start, clock=clock)


FOREVER = 32_503_680_000_000  # the year 3000


async def register(client, ear, reference: str = "sub", **fields: Any) -> tuple[int, dict[str, Any]]:
    body = {"reference": reference, "merchantID": "m", "vpa": "a@upi", "amountMax": 50_000, "currency": "INR"}
    body |= {"frequency": "monthly", "startAt": 0, "endAt": FOREVER, "callbackURL": ear.url}
    return (await client.call("POST", "/upi/mandates", json=body | fields))[:2]


async def execute(
    client, reference: str = "debit", amount: int = 49_900, mandate: str = "sub", **fields: Any
) -> tuple[int, Any]:
    body = {"reference": reference, "amount": amount} | fields
    return (await client.call("POST", f"/upi/mandates/{mandate}/executions", json=body))[:2]


async def mandate(client, reference: str = "sub") -> dict[str, Any]:
    return (await client.call("GET", f"/upi/mandates/{reference}"))[1]


async def active(start, ear, **fields: Any) -> Any:
    client = await start()
    await register(client, ear, **fields)
    assert (await ear.next())["status"] == "active"
    return client


async def money(client) -> list[int]:
    return [entry["moved"] for entry in await client.journal() if entry["moved"]]


async def test_a_mandate_is_pending_until_the_customer_approves_it_and_the_caller_is_told(start, ear):
    client = await start()
    status, pending = await register(client, ear)
    heard = await ear.next()
    assert (status, pending["status"], pending["responseCode"], "umn" in pending) == (200, "pending", None, False)
    assert (heard["type"], heard["provider"], heard["status"], heard["responseCode"]) == ("mandate", "upi", "active", "00")
    assert (await mandate(client)).items() <= heard.items()
    entries = [(entry["operation"], entry["status"], entry["amount"], entry["moved"]) for entry in await client.journal()]
    told = [entry for entry in entries if entry[0] == "mandate"]
    assert told == [("mandate", "pending", 50_000, 0), ("mandate", "active", 50_000, 0), ("mandate", "active", 50_000, 0)]


@pytest.mark.parametrize(
    ("vpa", "status", "code"),
    [
        ("success@upi", "active", "00"),
        ("declined@upi", "declined", "ZA"),
        ("invalidpin@upi", "declined", "ZM"),
        ("expired@upi", "expired", "U69"),
        ("insufficientfunds@upi", "active", "00"),
        ("failure@upi", "active", "00"),
        ("deemed@upi", "active", "00"),
    ],
)
async def test_only_what_a_customer_can_do_decides_a_registration(start, clock, ear, vpa, status, code):
    client = await start()
    await register(client, ear, vpa=vpa, expiresInMs=1_000)
    clock.advance(1_000)
    heard = await ear.next()
    assert (heard["status"], heard["responseCode"]) == (status, code)


async def test_an_invalid_vpa_is_declined_at_once(start, ear):
    client = await start()
    _, declined = await register(client, ear, vpa="invalid@upi")
    assert (declined["status"], declined["responseCode"]) == ("declined", "ZH")


async def test_a_mandate_that_nobody_answers_expires(start, clock, ear):
    client = await start(upi={"customer": {"acts": False}})
    await register(client, ear, expiresInMs=60_000)
    clock.advance(59_000)
    assert (await mandate(client))["status"] == "pending"
    clock.advance(1_000)
    assert (await ear.next())["status"] == "expired"


async def test_a_world_that_is_gone_is_not_kept_by_a_customer_who_never_answered():
    world = World(seed=1, clock=Clock(lambda: NOW_MS))
    switch = Provider(
        upi.DIALECT,
        world=world,
        conducts=Conducts("upi", convert({}, Upi, file="test")),
        announce=lambda *_: None,
        terms=Terms(),
    )
    mandates = Mandates(switch, switch.intake, lambda *_: None)
    asked = {"reference": "sub", "merchantID": "m", "vpa": "a@upi", "amountMax": 1, "currency": "INR", "frequency": "weekly"}
    asked |= {"startAt": NOW_MS, "endAt": NOW_MS + DAY_MS, "callbackURL": "http://127.0.0.1:9/"}
    assert mandates.register(msgspec.convert(asked, Register)).http_status == 200
    assert world.clock.waiting == 1
    world.clock.close()
    gone = weakref.ref(mandates)
    del world, switch, mandates
    gc.collect()
    assert gone() is None


async def test_the_same_mandate_twice_is_one_mandate_and_another_with_its_reference_is_refused(start, ear):
    client = await start(upi={"customer": {"acts": False}})
    first = await register(client, ear)
    assert await register(client, ear) == first
    status, body = await register(client, ear, amountMax=60_000)
    assert (status, body["code"]) == (409, "reference_conflict")
    assert (await mandate(client))["amountMax"] == 50_000


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"endAt": 0}, "endAt"),
        ({"frequency": "hourly"}, "frequency"),
        ({"currency": "USD"}, "currency"),
        ({"vpa": "nobody"}, "vpa"),
        ({"amountMax": 0}, "amountMax"),
        ({"merchantID": "a\nb"}, "merchantID"),
        ({"startAt": -1}, "startAt"),
    ],
)
async def test_a_bad_mandate_is_refused_by_field(start, ear, fields, named):
    client = await start()
    status, body = await register(client, ear, **fields)
    assert (status, body["code"], named in body["error"]) == (400, "invalid_request", True)


@pytest.mark.parametrize("ago_ms", [0, 1])
async def test_a_new_mandate_that_is_over_already_is_refused_and_its_reference_stays_free(start, ear, ago_ms):
    client = await start(clock=Clock(lambda: NOW_MS))
    status, body = await register(client, ear, endAt=NOW_MS - ago_ms)
    assert (status, body["code"]) == (400, "invalid_request")
    assert body["error"] == f"endAt: must be in the future; it is {NOW_MS} (ms)"
    assert await client.journal() == []
    assert (await register(client, ear, endAt=NOW_MS + 1))[1]["status"] == "pending"


async def test_the_same_mandate_again_after_its_end_is_the_mandate_that_is_over(start, clock, ear):
    client = await start()
    end_ms = clock.now_ms() + DAY_MS
    await register(client, ear, endAt=end_ms)
    assert (await ear.next())["status"] == "active"
    clock.advance(2 * DAY_MS)
    status, over = await register(client, ear, endAt=end_ms)
    assert (status, over["status"]) == (200, "completed")


async def test_nobody_is_asked_about_a_mandate_longer_than_it_lasts(start, ear):
    client = await start(clock=Clock(lambda: NOW_MS), upi={"customer": {"delay": {"kind": "constant", "value": "2min"}}})
    await register(client, ear, endAt=NOW_MS + 60_000)
    await client.call("POST", "/admin/clock/advance", json={"by": "5min"})
    heard = await ear.next()
    assert (heard["status"], heard["responseCode"], heard["updatedAt"]) == ("expired", "U69", NOW_MS + 60_000)


@pytest.mark.parametrize("path", ["/upi/mandates/sub", "/upi/mandates/sub/revoke", "/upi/mandates/sub/executions"])
async def test_a_mandate_that_never_arrived_is_not_found(start, path):
    client = await start()
    method = "GET" if path.endswith("sub") else "POST"
    status, body, _ = await client.call(method, path, json={"reference": "debit", "amount": 1})
    assert (status, body["code"]) == (404, "not_found")


async def test_an_execution_is_a_payment_of_its_own_that_moves_money_at_once(start, ear):
    client = await active(start, ear)
    status, charge = await execute(client, orderID="order_7")
    assert (status, charge["status"], charge["responseCode"], charge["amount"]) == (200, "approved", "00", 49_900)
    assert (await client.call("GET", "/upi/payments/debit"))[1] == charge
    created = next(entry for entry in await client.journal() if entry["operation"] == "create")
    assert (created["moved"], created["merchantID"], created["orderID"]) == (49_900, "m", "order_7")


async def test_the_same_execution_twice_debits_once(start, ear):
    client = await active(start, ear)
    assert await execute(client) == await execute(client)
    assert (await execute(client, amount=1))[1]["code"] == "reference_conflict"
    assert await money(client) == [49_900]


async def test_a_mandate_is_debited_once_a_month(start, clock, ear):
    client = await active(start, ear)
    await execute(client, "first")
    status, body = await execute(client, "second")
    assert (status, body["code"]) == (409, "mandate_already_executed")
    assert (await client.call("GET", "/upi/payments/second"))[0] == 404
    clock.advance(31 * DAY_MS)
    assert (await execute(client, "second"))[1]["status"] == "approved"
    assert await money(client) == [49_900, 49_900]


async def test_a_debit_that_was_declined_or_reversed_can_be_tried_again(start, ear):
    client = await active(start, ear, vpa="insufficientfunds@upi")
    assert [(await execute(client, name))[1]["responseCode"] for name in ("first", "second")] == ["Z9", "Z9"]
    await register(client, ear, "other")
    assert (await ear.next())["status"] == "active"
    await execute(client, "third", mandate="other")
    await client.reverse("/upi/payments/third", amount=49_900)
    assert (await execute(client, "fourth", mandate="other"))[1]["status"] == "approved"


async def test_a_blocked_debit_does_not_hide_the_one_that_was_made(start, ear):
    client = await active(start, ear)
    await execute(client, "first")
    await client.reverse("/upi/payments/blocked", amount=49_900)
    assert (await execute(client, "blocked"))[1]["status"] == "reversed"
    assert (await execute(client, "second"))[1]["code"] == "mandate_already_executed"
    assert await money(client) == [49_900]


async def test_a_deemed_debit_counts_and_is_confirmed_later(start, clock, ear):
    client = await active(start, ear, vpa="deemed@upi")
    _, charge = await execute(client)
    assert (charge["status"], charge["responseCode"]) == ("pending", "RB")
    assert (await execute(client, "again"))[1]["code"] == "mandate_already_executed"
    clock.advance(10_000)
    assert (await ear.next())["status"] == "approved"
    assert await money(client) == [49_900]


async def test_a_mandate_as_presented_is_debited_as_often_as_asked(start, ear):
    client = await active(start, ear, frequency="as_presented")
    assert [(await execute(client, f"debit_{index}"))[1]["status"] for index in range(3)] == ["approved"] * 3


@pytest.mark.parametrize(
    ("mandate_fields", "fields", "code"),
    [
        ({}, {"amount": 50_001}, "mandate_amount_exceeded"),
        ({"startAt": FOREVER - 1}, {}, "mandate_not_started"),
        ({}, {"notifiedAt": FOREVER}, "notified_too_late"),
    ],
)
async def test_a_debit_that_breaks_the_mandate_is_refused_and_moves_nothing(start, ear, mandate_fields, fields, code):
    client = await active(start, ear, **mandate_fields)
    status, body = await execute(client, **fields)
    assert (status, body["code"], await money(client)) == (409, code, [])


async def test_a_mandate_ends_at_its_end(start, clock, ear):
    client = await active(start, ear, endAt=FOREVER)
    client_now = (await client.journal())[0]["at"]
    await register(client, ear, "short", endAt=client_now + DAY_MS)
    assert (await ear.next())["status"] == "active"
    clock.advance(DAY_MS)
    assert (await mandate(client, "short"))["status"] == "completed"
    assert (await execute(client, mandate="short"))[1]["code"] == "mandate_not_active"


async def test_a_revoked_mandate_stays_revoked_and_is_not_debited(start, ear):
    client = await active(start, ear)
    status, revoked, _ = await client.call("POST", "/upi/mandates/sub/revoke")
    assert (status, revoked["status"]) == (200, "revoked")
    assert (await client.call("POST", "/upi/mandates/sub/revoke"))[1] == revoked == await mandate(client)
    assert (await execute(client))[1]["code"] == "mandate_not_active"
    assert await money(client) == []


async def test_a_pending_mandate_that_is_revoked_asks_no_customer(start, clock, ear):
    client = await start(upi={"customer": {"delay": {"kind": "constant", "value": "1s"}}})
    await register(client, ear)
    await client.call("POST", "/upi/mandates/sub/revoke")
    clock.advance(2_000)
    assert [entry["status"] for entry in await client.journal()] == ["pending", "revoked"]
    assert (await mandate(client))["status"] == "revoked"
    assert ear.silent


async def test_a_reference_that_a_reversal_blocked_is_not_debited(start, ear):
    client = await active(start, ear)
    await client.reverse("/upi/payments/debit", amount=49_900)
    assert (await execute(client))[1]["status"] == "reversed"
    assert await money(client) == []


async def test_a_payment_cannot_be_passed_off_as_an_execution(start, ear):
    client = await active(start, ear)
    await client.upi("debit", ear.url, amount=49_900)
    status, body = await execute(client)
    assert (status, body["code"]) == (409, "reference_conflict")


async def test_an_unavailable_switch_does_nothing_about_a_mandate(start, ear):
    client = await start(upi={"faults": [{"kind": "unavailable", "operation": "mandate", "first": 1}]})
    status, body = await register(client, ear)
    assert (status, body["code"]) == (503, "unavailable")
    assert (await client.call("GET", "/upi/mandates/sub"))[0] == 503
    assert (await client.call("GET", "/upi/mandates/sub"))[0] == 404
    assert (await register(client, ear))[1]["status"] == "pending"
