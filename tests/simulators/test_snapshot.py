"""Snapshots, restoring and reset: a world that is as it was, to the last timer."""

import gc
import types
from collections import deque

import pytest

from simulators import snapshot
from simulators.app import _site
from simulators.clock import Clock, Timer
from simulators.iso8583.host import Host
from simulators.journal import Entry, Journal
from simulators.snapshot import SNAPSHOTS_MAX
from tests.simulators.iso8583_client import Terminal, packed, unpacked

CARD = {"number": "4111111111111111", "expiryMonth": "12", "expiryYear": "2099", "cvv": "123"}
LATE_REFUND, DISPUTED = "4000000000007726", "4000000000000259"
DAY_MS = 86_400_000


async def save(client, name="s"):
    status, shown, _ = await client.call("POST", "/admin/snapshots", json={"name": name})
    assert status == 201
    return shown


async def restore(client, name="s"):
    status, answer, _ = await client.call("POST", f"/admin/snapshots/{name}/restore")
    assert (status, answer["restored"]) == (200, name)


async def advance(client, by):
    assert (await client.call("POST", "/admin/clock/advance", json={"by": by}))[0] == 200


async def shown(client, paths):
    return [(await client.call("GET", path))[1] for path in paths]


async def make_a_past(client, ear):
    """Something of everything that can wait: a customer, an authorization, a refund, a dispute, a mandate."""
    common = {"amount": 1000, "currency": "INR", "merchantID": "m"}
    await client.bank("bank", ear.url, bankCode="TESTP")
    await client.upi("upi", ear.url, vpa="pending@upi")
    await client.call("POST", "/card/charges", json=common | {"reference": "held", "card": CARD, "capture": "manual"})
    capture = {"reference": "step", "amount": 400, "currency": "INR"}
    await client.call("POST", "/card/charges/held/capture", json=capture)
    for reference, number in (("late", LATE_REFUND), ("disputed", DISPUTED)):
        await client.call("POST", "/card/charges", json=common | {"reference": reference, "card": CARD | {"number": number}})
    refund = {"reference": "refund", "amount": 100, "currency": "INR"}
    assert (await client.call("POST", "/card/charges/late/refunds", json=refund))[1]["status"] == "pending"
    now_ms = (await client.call("GET", "/admin/clock"))[1]["nowMs"]
    mandate = {
        "reference": "mandate",
        "merchantID": "m",
        "vpa": "pending@upi",
        "amountMax": 1000,
        "currency": "INR",
        "frequency": "monthly",
        "startAt": now_ms,
        "endAt": now_ms + 100 * DAY_MS,
        "callbackURL": ear.url,
    }
    status, made, _ = await client.call("POST", "/upi/mandates", json=mandate)
    assert (status, made["status"]) == (200, "pending")


PATHS = ("/bank/payments/bank", "/upi/payments/upi", "/card/charges/held", "/card/charges/late", "/card/charges/disputed",
         "/card/refunds/refund", "/upi/mandates/mandate")  # fmt: skip


async def test_a_restored_world_is_as_it_was_and_has_the_same_future(start, ear):
    client = await start(upi={"customer": {"delay": {"kind": "constant", "value": "1h"}}})
    await make_a_past(client, ear)
    await save(client)
    journal, then = await client.journal(), await shown(client, PATHS)
    futures = []
    for _ in range(2):
        await restore(client)
        assert await client.journal() == journal
        assert await shown(client, PATHS) == then
        await advance(client, "8d")
        ends = ["expired", "approved", "approved", "approved", "approved", "completed", "active"]
        assert [one["status"] for one in await shown(client, PATHS)] == ends
        moved = [(entry["operation"], entry["reference"], entry["moved"]) for entry in await client.journal() if entry["moved"]]
        assert ("dispute", "disputed", -1000) in moved
        futures.append(moved)
    assert futures[0] == futures[1]


async def test_what_was_done_since_is_undone_and_can_be_done_again(start):
    client = await start()
    await client.card("kept")
    await save(client)
    first = await client.card("undone")
    fault = {"provider": "card", "name": "outage", "kind": "unavailable"}
    await client.call("POST", "/admin/faults", json=fault)
    await client.call("POST", "/admin/timeline", json={"startAtMs": 5})
    await advance(client, "1d")
    await restore(client)
    assert (await client.call("GET", "/admin/faults"))[1]["faults"] == []
    clock = (await client.call("GET", "/admin/clock"))[1]
    assert (clock["offsetMs"], clock["timelineMs"]) == (0, None)
    assert [entry["reference"] for entry in await client.journal()] == ["kept"]
    assert (await client.call("GET", "/card/charges/undone"))[0] == 404
    again = await client.card("undone")
    assert (again["providerID"], again["status"]) == (first["providerID"], "approved")


async def test_snapshots_can_be_restored_in_any_order_with_journals_of_many_blocks(start):
    client = await start()
    journals = {}
    for name in ("a", "b", "c"):
        for number in range(300):
            await client.card(f"{name}{number}")
        await save(client, name)
        journals[name] = await client.journal()
    for name in ("a", "c", "b", "c", "a"):
        await restore(client, name)
        assert await client.journal() == journals[name]
        await client.card("other")
        assert (await client.journal())[-1]["seq"] == len(journals[name]) + 1


async def test_callbacks_under_way_are_forgotten_with_the_world_they_told_of(start, ear):
    client = await start(bank={"faults": [{"kind": "out_of_order", "operation": "callback"}]})
    await save(client)
    await client.bank("gone", ear.url, bankCode="TESTS")
    await advance(client, "1s")
    while not (await client.call("GET", "/admin/clock"))[1]["callbacksUnderWay"]:
        pass
    await restore(client)
    assert (await client.call("GET", "/admin/clock"))[1]["callbacksUnderWay"] == 0
    await client.call("PATCH", "/admin/config", json={"bank": {"faults": []}})
    await client.bank("told", ear.url, bankCode="TESTS")
    await advance(client, "2min")
    assert (await ear.next())["reference"] == "told"
    assert ear.silent


async def test_the_next_try_of_a_callback_is_forgotten_too(start, ear):
    client = await start()
    await save(client)
    ear.statuses = [500, 500]
    await client.bank("gone", ear.url, bankCode="TESTS")
    heard = [(await ear.next())["reference"]]
    while not any(entry["operation"] == "callback" for entry in await client.journal()):
        pass
    await restore(client)
    await client.bank("told", ear.url, bankCode="TESTS")
    heard += [
        (await ear.next())["reference"] for _ in range(2)
    ]  # its second try is due after that of the other would have been
    assert heard == ["gone", "told", "told"]
    assert {entry["reference"] for entry in await client.journal()} == {"told"}


async def test_a_reset_world_is_new(start):
    client = await start()
    await make_a_past(client, NoEar)
    old = await client.card("r")
    await client.call("PATCH", "/admin/config", json={"upi": {"inquiries_per_min": 7}})
    await advance(client, "1d")
    status, answer, _ = await client.call("POST", "/admin/reset")
    assert (status, answer["seed"]) == (200, 1)
    assert await client.journal() == []
    clock = answer["clock"]
    assert (clock["offsetMs"], clock["timersWaiting"], clock["callbacksUnderWay"]) == (0, 0, 0)
    assert (await client.card("r"))["providerID"] == old["providerID"]
    assert (await client.call("GET", "/admin/config"))[1]["upi"]["inquiries_per_min"] == 7
    assert [entry["attempt"] for entry in await client.journal()] == [1]


class NoEar:
    url = "http://127.0.0.1:9/"


async def test_a_reset_can_change_the_seed_and_bring_back_the_configuration(start):
    client = await start()
    old = await client.card("r")
    await client.call("PATCH", "/admin/config", json={"upi": {"inquiries_per_min": 7}})
    await client.call("POST", "/admin/reset", json={"seed": 2, "config": True})
    other = await client.card("r")
    assert (await client.call("GET", "/admin/config"))[1]["upi"]["inquiries_per_min"] == 60
    await client.call("POST", "/admin/reset", json={"seed": 1})
    assert (await client.card("r"))["providerID"] == old["providerID"] != other["providerID"]


async def test_snapshots_are_listed_replaced_deleted_and_bounded(start):
    client = await start()
    for number in range(SNAPSHOTS_MAX):
        await save(client, f"s{number}")
    status, answer, _ = await client.call("POST", "/admin/snapshots", json={"name": "more"})
    assert (status, answer["code"]) == (429, "too_many_snapshots")
    await client.card("r")
    assert (await save(client, "s0"))["entries"] == 1
    assert (await client.call("DELETE", "/admin/snapshots/s1"))[0] == 200
    await save(client, "more")
    listed = (await client.call("GET", "/admin/snapshots"))[1]["snapshots"]
    assert [one["name"] for one in listed] == ["s0", *(f"s{number}" for number in range(2, SNAPSHOTS_MAX)), "more"]
    for method, path in (("POST", "/admin/snapshots/s1/restore"), ("DELETE", "/admin/snapshots/s1")):
        status, answer, _ = await client.call(method, path)
        assert (status, answer["code"]) == (404, "not_found")


@pytest.mark.parametrize("body", [{}, {"name": "a/b"}, {"name": 3}, {"name": "a", "more": 1}])
async def test_a_snapshot_without_a_proper_name_is_refused(start, body):
    client = await start()
    assert (await client.call("POST", "/admin/snapshots", json=body))[0] == 400
    assert (await client.call("GET", "/admin/snapshots"))[1]["snapshots"] == []


# What has tables and yet nothing to remember: made from the settings, put in its place as a whole, or a counter that never goes back.
FORGETFUL = {"Conducts", "Faults", "Mix", "LatencyTable", "Station", "InquiryLimit", "Routes", "Site", "World", "Clock", "Journal",
             "Callbacks", "Intake", "Draws", "Tally", "History"}  # fmt: skip
MUTABLE = (dict, list, set, deque, int)


async def test_whoever_remembers_anything_is_in_a_snapshot(configure):
    async with _site(configure(), Clock(), 1, workers=1) as site:
        remembering = {id(owner): set(names) for owner, names in site.world.memories}
        forgotten = []
        for found in reachable(site):
            kind = type(found)
            if (
                not kind.__module__.startswith("simulators.")
                or kind.__name__ in FORGETFUL
                or hasattr(kind, "__struct_fields__")
            ):
                continue
            tables = {name for name, value in getattr(found, "__dict__", {}).items() if isinstance(value, MUTABLE)}
            shared = {"_records"} if kind.__name__ == "Refunds" else set()  # the provider's
            limits = {"delay_ms"} if kind.__name__ == "Disputes" else set()
            forgotten += [(kind.__name__, name) for name in tables - remembering.get(id(found), set()) - shared - limits]
        assert forgotten == []


def reachable(root):
    seen, todo = {id(root)}, [root]
    while todo:
        found = todo.pop()
        yield found
        for other in gc.get_referents(found):
            ours = type(other).__module__.startswith("simulators.")
            passage = isinstance(other, dict | list | tuple | types.FunctionType | types.CellType | types.MethodType)
            is_globals = isinstance(other, dict) and "__builtins__" in other
            if id(other) not in seen and (ours or passage) and not is_globals and not isinstance(other, type):
                seen.add(id(other))
                todo.append(other)


async def test_an_original_that_terminals_name_by_its_rrn_is_in_a_snapshot_and_not_in_an_empty_world(configure):
    async with _site(configure(), Clock(), 1, workers=1) as site:
        birth = snapshot.take(site)
        host, terminal = Host(site.providers["card"], originals_max=1), Terminal()  # it joins a world that is born already

        def call(message):
            return unpacked(host.answer(packed(message)[2:]).frame[2:])

        bought = call(terminal.purchase())
        kept = snapshot.take(site)
        call(terminal.purchase())  # of which one is remembered
        refund = terminal.following("0200", bought, 1, de90=None, de37=bought["37"], de38=bought["38"])
        assert call(refund)["39"] == "25"
        snapshot.restore(site, kept)
        assert call(refund)["39"] == "00"
        snapshot.reset(site, birth)
        assert call(refund)["39"] == "25"


async def test_a_timer_that_fired_or_was_cancelled_stays_so_after_a_restore(configure):
    async with _site(configure(), Clock(), 1, workers=1) as site:
        site.world.remember(keeper := Keeper(), "kept")
        fired = site.world.clock.call_at(0, keeper.note, "fired")
        cancelled = site.world.clock.call_at(0, keeper.note, "cancelled")
        waiting = site.world.clock.call_at(site.world.now_ms() + DAY_MS, keeper.note, "waited")
        cancelled.cancel()
        site.world.clock.advance(1)
        keeper.kept |= {"fired": fired, "cancelled": cancelled, "waiting": waiting}
        taken = snapshot.take(site)
        waiting.cancel()
        keeper.kept.clear()
        snapshot.restore(site, taken)
        keeper.kept["waiting"].cancel()
        assert site.world.clock.waiting == 0
        snapshot.restore(site, taken)
        assert all(isinstance(timer, Timer) for timer in keeper.kept.values() if timer is not True)
        for name in ("fired", "cancelled"):
            keeper.kept[name].cancel()
        assert site.world.clock.waiting == 1
        site.world.clock.advance(DAY_MS)
        assert [name for name, value in keeper.kept.items() if value is True] == ["waited"]
        assert site.world.clock.waiting == 0


class Keeper:
    def __init__(self):
        self.kept = {}

    def note(self, what):
        self.kept[what] = True


def test_a_reader_ends_where_the_journal_was_rewound_to():
    journal = Journal()
    mark = journal.mark()
    for number in range(600):
        journal.append(Entry(number, "card", "create", "r", 1, None))
    chunks = journal.chunks()
    first = next(chunks)
    journal.rewind(mark)
    journal.append(Entry(0, "card", "create", "r", 1, None))
    assert first.count(b"\n") == 250
    assert list(chunks) == []
