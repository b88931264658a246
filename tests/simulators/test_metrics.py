import asyncio

from prometheus_client.parser import text_string_to_metric_families

from simulators.charges import Charge
from simulators.journal import BLOCK_WEIGHT, Entry, Journal

CONSTANT = {"kind": "constant", "value": "7ms"}


async def scrape(client, path: str = "/metrics") -> dict[tuple[str, frozenset], float]:
    async with client.session.get(client.url + path) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        text = await answer.text()
    families = text_string_to_metric_families(text)
    return {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}


def series(name: str, **labels: str) -> tuple[str, frozenset]:
    return f"paydrome_simulators_{name}", frozenset(labels.items())


def entries(operation: str, status: str = "", fault: str = "", provider: str = "card") -> tuple[str, frozenset]:
    return series("entries_total", provider=provider, operation=operation, status=status, fault=fault)


async def test_calls_are_counted_by_provider_operation_status_and_fault(start):
    faults = [{"kind": "http_502", "acts": True, "first": 1, "amount": 2000}, {"kind": "unavailable", "amount": 3000}]
    client = await start(card={"faults": faults})
    await client.card("pay_1")
    await client.card("pay_2", number="4000000000000002")
    await client.card("pay_3", amount=2000)
    await client.card("pay_4", amount=3000)
    await client.reverse("/card/charges/pay_1")
    found = await scrape(client)
    assert found[entries("create", "approved")] == 1
    assert found[entries("create", "declined")] == 1
    assert found[entries("create", "approved", "http_502")] == 1
    assert found[entries("create", "", "unavailable")] == 1
    assert found[entries("reverse", "reversed")] == 1
    assert found[series("journal_entries")] == 5


async def test_injected_delays_are_a_histogram_in_seconds(start):
    client = await start(card={"latency": CONSTANT, "latencies": {"status": {"kind": "constant", "value": "0ms"}}})
    await asyncio.gather(*(client.card(f"pay_{number}") for number in range(3)))
    await client.call("GET", "/card/charges/pay_1")
    found = await scrape(client)
    name, labels = "injected_delay_seconds", {"provider": "card", "operation": "create"}
    assert found[series(f"{name}_bucket", **labels, le="0.005")] == 0
    assert found[series(f"{name}_bucket", **labels, le="0.01")] == 3
    assert found[series(f"{name}_bucket", **labels, le="+Inf")] == 3
    assert found[series(f"{name}_count", **labels)] == 3
    assert abs(found[series(f"{name}_sum", **labels)] - 0.021) < 1e-9
    assert found[series(f"{name}_bucket", provider="card", operation="status", le="0.0")] == 1


async def test_queues_and_the_time_spent_in_them_are_shown(start):
    service = {"kind": "constant", "value": "300ms"}
    client = await start(card={"latency": service, "capacity": {"create": {"servers": 1, "queue_max": 5}}})
    calls = [asyncio.create_task(client.card(f"pay_{number}")) for number in range(3)]
    labels = {"provider": "card", "operation": "create"}
    async with asyncio.timeout(10):
        while (found := await scrape(client))[series("journal_entries")] < 3:
            pass
    assert found[series("queue_length", **labels)] == 2
    waits_ms = sum(entry.get("waitMs", 0) for entry in await client.journal())
    assert waits_ms > 300
    assert abs(found[series("queue_wait_seconds_total", **labels)] - waits_ms / 1000) < 1e-9
    for call in calls:
        call.cancel()


async def test_callbacks_timers_clock_and_tenants_are_gauges(start, ear):
    ear.statuses = [500]
    client = await start(upi={"customer": {"acts": False}})
    await client.upi("pay_1", ear.url)
    await client.call("POST", "/admin/clock/advance", json={"by": "1min"})
    await client.call("GET", "/t/job-1/health")
    found = await scrape(client)
    assert found[series("timers_waiting")] == 1
    assert 60 <= found[series("clock_offset_seconds")] < 61
    assert found[series("callbacks_outstanding")] == 0
    assert found[series("tenants")] == 1
    await client.call("POST", "/admin/clock/advance", json={"by": "10min"})
    await ear.next()
    assert (await scrape(client))[series("callbacks_outstanding")] == 1


async def test_a_tenant_has_metrics_of_its_own(start):
    client = await start()
    await client.card("pay_1")
    await client.call("GET", "/t/job-1/health")  # who only watches makes no tenant
    found = await scrape(client, "/t/job-1/metrics")
    assert found[series("journal_entries")] == 0
    assert series("tenants") not in found
    assert entries("create", "approved") not in found


def an_entry(number: int, fault: str | None = None) -> Entry:
    charge = Charge(f"pay_{number}", "card_1", "approved", "00", 100, "INR", 1, 1)
    return Entry(1, "card", "create", charge.reference, 1, charge, delay_ms=number % 3, fault=fault)


def test_the_tally_does_not_depend_on_where_blocks_end():
    journal = Journal()
    for number in range(3 * BLOCK_WEIGHT + 7):
        journal.append(an_entry(number, "late" if number % 5 == 0 else None))
        if number in (0, BLOCK_WEIGHT - 2, BLOCK_WEIGHT - 1, BLOCK_WEIGHT):
            assert journal.tally().entries().total() == number + 1
    tally = journal.tally()
    assert sorted(tally.entries().values()) == [152, 605]
    delays = tally.delays()["card", "create"]
    assert (delays.counts[:4], delays.sum_ms) == ([253, 252, 252, 0], 252 * 1 + 252 * 2)
    assert journal.tally().entries() == tally.entries()  # asking changes nothing


def test_a_rewind_takes_its_counts_back():
    journal = Journal()
    for number in range(BLOCK_WEIGHT + 3):
        journal.append(an_entry(number))
    mark, before = journal.mark(), journal.tally()
    for number in range(2 * BLOCK_WEIGHT):
        journal.append(an_entry(number))
    assert journal.tally().entries().total() == 3 * BLOCK_WEIGHT + 3
    for _ in range(2):  # a mark can be used again
        journal.rewind(mark)
        assert journal.tally().entries() == before.entries()
        assert journal.tally().delays()["card", "create"].counts == before.delays()["card", "create"].counts
        for number in range(BLOCK_WEIGHT):
            journal.append(an_entry(number))
