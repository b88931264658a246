"""`connection_refused`: a provider's own port is closed, for as long as the fault is active and no longer."""

import asyncio
import errno
import socket

import aiohttp
import pytest
from yarl import URL

from simulators import ports
from simulators.app import serving
from simulators.clock import Clock
from simulators.config import ConfigError

DOWN = {"kind": "connection_refused"}
START = {"provider": "card", "name": "down", **DOWN}
HOUR_MS = 3_600_000


async def port_of(client, provider: str = "card") -> int:
    _, body, _ = await client.call("GET", "/admin/ports")
    return int(body["ports"][provider]["url"].rpartition(":")[2])


async def refusing(client) -> bool:
    return (await client.call("GET", "/admin/ports"))[1]["ports"]["card"]["refusing"]


async def connects(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


async def start_fault(client, **fields) -> tuple[int, str]:
    """Status, and the sentence of a refusal."""
    status, body, _ = await client.call("POST", "/admin/faults", json=START | fields)
    return status, body.get("error", "")


async def stop_fault(client) -> None:
    assert (await client.call("DELETE", "/admin/faults/down"))[0] == 200


async def test_a_port_of_its_own_serves_the_same_world(start):
    client = await start(card={"port": 0}, bank={"port": 0})
    card, bank = await port_of(client), await port_of(client, "bank")
    charge = await client.card("r")
    for port in (card, bank):
        async with client.session.get(f"http://127.0.0.1:{port}/card/charges/r") as answer:
            assert await answer.json() == charge
    assert (await client.call("GET", "/admin/ports"))[1] == {
        "ports": {
            "card": {"url": f"http://127.0.0.1:{card}", "refusing": False},
            "bank": {"url": f"http://127.0.0.1:{bank}", "refusing": False},
        }
    }


async def test_without_any_there_is_only_the_shared_port(start):
    client = await start()
    assert (await client.call("GET", "/admin/ports"))[1] == {"ports": {}}


async def test_while_the_fault_is_active_nobody_can_connect_and_the_journal_knows_of_nothing(start):
    client = await start(card={"port": 0})
    port = await port_of(client)
    for _ in range(3):
        assert await start_fault(client) == (201, "")
        with pytest.raises(aiohttp.ClientConnectorError) as error:
            await call_once(port)
        assert error.value.os_error.errno == errno.ECONNREFUSED
        assert await refusing(client)
        await stop_fault(client)
        assert await connects(port)
    assert await client.journal() == []
    assert (await client.call("GET", "/admin/explain/r"))[0] == 404


async def call_once(port: int) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/card/charges/r"):
        pass


async def test_a_fault_without_a_window_refuses_from_the_start(start):
    client = await start(card={"port": 0, "faults": [DOWN]}, bank={"port": 0})
    assert not await connects(await port_of(client))
    assert await connects(await port_of(client, "bank"))


@pytest.mark.parametrize("in_phase", [False, True])
async def test_a_window_of_the_timeline_closes_and_opens_the_port(start, in_phase):
    clock, window = Clock(), {"from": "1h", "until": "2h"}
    sections = {"card": {"port": 0}, "phases": [{"name": "night", "card": {"faults": [DOWN]}, **window}]}
    if not in_phase:
        sections = {"card": {"port": 0, "faults": [DOWN | window]}}
    client = await start(clock=clock, **sections)
    port = await port_of(client)
    seen = [await connects(port)]
    await client.call("POST", "/admin/timeline", json={"startAtMs": clock.now_ms()})
    for _ in range(3):
        seen.append(await connects(port))
        clock.advance(HOUR_MS)
    await client.call("POST", "/admin/timeline", json={"startAtMs": clock.now_ms() - HOUR_MS})
    seen.append(await connects(port))
    await client.call("POST", "/admin/timeline", json={"startAtMs": clock.now_ms() + HOUR_MS})
    seen.append(await connects(port))
    assert seen == [True, True, False, True, False, True]


async def test_a_window_ends_by_itself_when_its_time_has_come(start):
    now_ms = 1_000
    client = await start(clock=Clock(lambda: now_ms), card={"port": 0, "faults": [DOWN | {"from": "5ms", "until": "8ms"}]})
    port = await port_of(client)
    await client.call("POST", "/admin/timeline", json={"startAtMs": now_ms})
    for at_ms, open_then in ((1_005, False), (1_008, True)):
        assert await connects(port) is not open_then
        now_ms = at_ms
        async with asyncio.timeout(10):
            while await refusing(client) is open_then:
                pass
    assert await connects(port)


async def test_an_idle_connection_ends_and_one_with_a_call_under_way_ends_with_its_answer(start):
    client = await start(card={"port": 0})
    port = await port_of(client)
    (idle, one), (busy, other) = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    one.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await idle.readuntil(b'{"status":"ok"}')
    body = b'{"amount":1000,"currency":"INR"}'
    other.write(b"POST /card/charges/r/reverse HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n")
    other.write(b"Content-Length: %d\r\n\r\n" % len(body))
    assert await busy.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"  # it waits for the body
    assert await start_fault(client) == (201, "")
    other.write(body)
    async with asyncio.timeout(10):
        answer = await busy.read()
        assert await idle.read() == b""
    assert b'"status":"reversed"' in answer
    assert [entry["operation"] for entry in await client.journal()] == ["reverse"]
    one.close()
    other.close()


async def test_a_refused_request_under_way_ends_its_connection_too(start):
    client = await start(card={"port": 0})
    reader, writer = await asyncio.open_connection("127.0.0.1", await port_of(client))
    writer.write(b"POST /card/charges/r/reverse HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    await start_fault(client)
    writer.write(b"!")
    async with asyncio.timeout(10):
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_on_other_ports_the_providers_calls_are_reset_and_nobody_elses(start):
    client = await start(card={"port": 0}, upi={"port": 0})
    await client.card("r")
    await start_fault(client)
    upi = f"http://127.0.0.1:{await port_of(client, 'upi')}"
    for url in (client.url, upi):
        for path in ("/card/charges/r", "/%63ard/charges/r", "/card/nothing"):
            async with aiohttp.ClientSession() as session:
                with pytest.raises(aiohttp.ClientOSError) as error:
                    await session.post(URL(url + path, encoded=True))
            assert error.value.errno == errno.ECONNRESET
        async with client.session.get(f"{url}/upi/payments/r") as answer:
            assert answer.status == 404
    assert [entry["operation"] for entry in await client.journal()] == ["create", "status", "status"]
    await stop_fault(client)
    assert (await client.call("GET", "/card/charges/r"))[0] == 200


async def test_reset_and_restore_bring_back_the_port_that_belongs_to_the_settings(start):
    client = await start(card={"port": 0})
    port = await port_of(client)
    await start_fault(client)
    assert (await client.call("POST", "/admin/snapshots", json={"name": "closed"}))[0] == 201
    assert (await client.call("POST", "/admin/reset", json={}))[0] == 200
    assert not await connects(port)  # the settings stay
    assert (await client.call("POST", "/admin/reset", json={"config": True}))[0] == 200
    assert await connects(port)
    assert (await client.call("POST", "/admin/snapshots/closed/restore"))[0] == 200
    assert not await connects(port)
    assert (await client.call("PATCH", "/admin/config", json={"card": {"faults": None}}))[0] == 200
    assert await connects(port)


async def test_a_restore_to_a_time_before_the_window_opens_the_port_again(start):
    clock = Clock()
    client = await start(clock=clock, card={"port": 0, "faults": [DOWN | {"from": "1h"}]})
    port = await port_of(client)
    await client.call("POST", "/admin/timeline", json={"startAtMs": clock.now_ms()})
    await client.call("POST", "/admin/snapshots", json={"name": "before"})
    clock.advance(HOUR_MS)
    assert not await connects(port)
    assert (await client.call("POST", "/admin/snapshots/before/restore"))[0] == 200
    assert await connects(port)


async def test_a_tenant_has_no_port_and_refuses_nobody(start):
    client = await start(card={"port": 0, "faults": [DOWN]}, phases=[])
    assert (await client.call("GET", "/t/job/admin/faults"))[1] == {"faults": []}
    assert (await client.call("GET", "/t/job/card/charges/r"))[1]["code"] == "not_found"
    status, body, _ = await client.call("POST", "/t/job/admin/faults", json=START)
    assert (status, "give card a port of its own: port = 9001 (a tenant can have none)" in body["error"]) == (400, True)
    reason = "card.port: ports are opened at the start, for the process's own world, and stay as they are"
    for method, path, json in (
        ("PATCH", "/t/job/admin/config", {"card": {"port": 0}}),
        ("PATCH", "/admin/config", {"card": {"port": 9001}}),
        ("POST", "/admin/tenants", {"name": "other", "simulators": {"card": {"port": 0}}}),
    ):
        status, body, _ = await client.call(method, path, json=json)
        assert (status, body["error"]) == (400, reason)


async def test_a_second_one_beside_it_would_never_happen(start):
    client = await start(card={"port": 0})
    await start_fault(client)
    status, sentence = await start_fault(client, name="again")
    assert (status, sentence) == (
        409,
        "it would never happen: card.connect.down takes every such call already; stop that first",
    )


async def test_a_port_that_another_program_took_meanwhile_is_told_of_and_tried_again(start, caplog, monkeypatch):
    monkeypatch.setattr(ports, "RETRY_S", 0.01)
    client = await start(card={"port": 0})
    port = await port_of(client)
    await start_fault(client)
    with socket.create_server(("127.0.0.1", port)):  # which our own bound socket, that does not listen, cannot keep off
        await stop_fault(client)
        await client.call("PATCH", "/admin/config", json={})  # it looks again, and does not say it again
        assert await refusing(client)
    [message] = caplog.messages
    assert message.startswith(f"card.port: cannot listen on http://127.0.0.1:{port} again: ")
    async with asyncio.timeout(10):
        while await refusing(client):
            pass
    assert await connects(port)


async def test_a_port_that_is_taken_from_the_start_is_a_clear_error_and_leaves_nothing_open(configure):
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as listener:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as error:
            async with serving(configure(card={"port": 0}, upi={"port": port}), listener):
                pass
    assert (error.value.key, error.value.reason) == (
        "upi.port",
        f"cannot listen on 127.0.0.1 port {port}: Address already in use; another port may be free, and 0 takes any",
    )


async def test_metrics_say_who_refuses(start):
    client = await start(card={"port": 0}, bank={"port": 0})
    await start_fault(client)
    async with client.session.get(f"{client.url}/metrics") as answer:
        text = await answer.text()
    rows = [line for line in text.splitlines() if line.startswith("paydrome_simulators_refusing_connections{")]
    assert [row.partition("{")[2] for row in rows] == ['provider="card"} 1.0', 'provider="bank"} 0.0']
