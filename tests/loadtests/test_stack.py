"""The real gateway and the real simulators, started and stopped, killed and started again."""

import asyncio
import os
import signal
import sys

import aiohttp
import pytest
from msgspec.structs import replace

from loadtests import collect, evidence
from loadtests.child import ChildError
from loadtests.stack import HOST, Files, Stack, StackError, cpu_us, export
from simulators.config import Card
from tests.loadtests.approving import APPROVING, FAST, configurations, gone, pay


@pytest.fixture
def stack(tmp_path):
    return Stack(Files.under(tmp_path / "run"), APPROVING, seed=1)


@pytest.fixture
async def client(stack):
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {stack.key}"}) as session:
        yield session


async def test_a_payment_goes_through_the_whole_stack_and_a_provider_with_a_port_of_its_own_may_refuse_it(tmp_path, client):
    card = Card(latency=FAST, outcomes={"00": 1.0}, port=0)
    async with Stack(Files.under(tmp_path / "run"), replace(APPROVING, card=card), seed=1) as stack:
        fault = {"provider": "card", "kind": "connection_refused", "name": "down"}
        async with client.post(f"{stack.simulators_url}/admin/faults", json=fault) as answer:
            assert answer.status == 201
        assert (await pay(client, stack, "order_1"))["status"] == "failed"  # nothing was sent, so nothing is in doubt
        async with client.delete(f"{stack.simulators_url}/admin/faults/down") as answer:
            assert answer.status == 200
        assert (await pay(client, stack, "order_2"))["status"] == "completed"
        async with client.get(f"{stack.simulators_url}/journal") as answer:
            assert (await answer.text()).count('"operation":"create"') == 1
        stopped = await stack.stop()
    assert [(child.name, child.exit_code, child.killed) for child in stopped] == [
        ("gateway", 0, False),
        ("simulators", 0, False),
    ]


async def test_stopping_ends_both_children_and_frees_the_port_and_the_folder(stack):
    async with stack:
        pids, port, before = stack.pids, int(stack.gateway_url.rpartition(":")[2]), configurations(stack)
    for pid in pids.values():
        await gone(pid)
    server = await asyncio.start_server(lambda *_: None, HOST, port)
    server.close()
    await server.wait_closed()
    with pytest.raises(collect.TargetError, match="cannot be reached"):
        await collect.probe(stack.gateway_url, stack.key)
    async with Stack(stack.files, APPROVING, seed=1):
        assert configurations(stack) != before


async def test_an_error_inside_ends_both_children(stack):
    with pytest.raises(ZeroDivisionError):
        await fail_inside(stack)
    for pid in stack.pids.values():
        await gone(pid)


async def fail_inside(stack):
    async with stack:
        raise ZeroDivisionError


async def test_two_stacks_have_different_secrets(tmp_path):
    one, other = (Stack(Files.under(tmp_path / name), APPROVING, seed=1).secrets for name in ("one", "other"))
    secrets = [one.upi, one.bank, one.merchant, other.upi, other.bank, other.merchant]
    assert len(set(secrets)) == len(secrets)


async def test_a_child_that_dies_is_named(stack):
    async with stack:
        dying = asyncio.create_task(stack.died())
        os.kill(stack.pids["simulators"], signal.SIGKILL)
        assert "the simulators ended by itself with exit code -9" in await dying


async def test_children_end_when_their_parent_is_killed(tmp_path):
    program = (
        "import asyncio, sys\nfrom pathlib import Path\n"
        "from loadtests.stack import Files, Stack\nfrom simulators.config import Simulators\n"
        "async def main():\n"
        "    async with Stack(Files.under(Path(sys.argv[1])), Simulators(), seed=1) as stack:\n"
        "        print(*stack.pids.values(), flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    pipe = asyncio.subprocess.PIPE
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(tmp_path / "run"), stdout=pipe)
    assert parent.stdout is not None
    pids = [int(pid) for pid in (await parent.stdout.readline()).split()]
    assert len(pids) == 2
    parent.kill()
    await parent.wait()
    for pid in pids:
        await gone(pid)


async def test_a_port_that_is_taken_is_refused_with_advice(tmp_path):
    server = await asyncio.start_server(lambda *_: None, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(StackError, match=rf"port {port}: .*; choose another --port, or 0 for any"):
        async with Stack(Files.under(tmp_path), APPROVING, seed=1, port=port):
            pass
    server.close()
    await server.wait_closed()


async def test_an_export_of_nothing_says_why(tmp_path):
    with pytest.raises(ChildError, match=r"export of .*no\.db ended with exit code 1"):
        await export(tmp_path / "no.db", tmp_path / "rows.ndjson")


async def test_a_running_stack_comes_to_rest_and_its_export_tells_everything(stack, client, tmp_path):
    async with stack:
        paid = await pay(client, stack, "order_1")
        settled = await collect.settle(stack, tmp_path / "rows.ndjson", lambda _: None)
    assert settled.still_open == {}
    records = evidence.load_gateway(tmp_path / "rows.ndjson")
    payments = [(payment.paymentID, payment.status, payment.capturedAmount) for payment in records.payments]
    assert payments == [(paid["paymentID"], "completed", 1000)]
    assert [attempt.state for attempt in records.attempts] == ["succeeded"]
    assert [delivery.state for delivery in records.deliveries] == ["delivered"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "cannot be reached: it closed the connection without an answer;"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "cannot be reached: what it answered is not HTTP;"),
        (
            b"HTTP/1.1 307 x\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n",
            r"redirects with 307 to 'http://elsewhere/'",
        ),
        (None, r"cannot be reached: no answer within 0\.2 s;"),
    ],
)
async def test_a_target_that_is_no_gateway_is_told_by_the_kind_of_its_failure(answer, reason):
    done = asyncio.Event()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await done.wait()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    with pytest.raises(collect.TargetError, match=reason):
        await collect.probe(
            f"http://{HOST}:{server.sockets[0].getsockname()[1]}", "k", timeout_s=10 if answer is not None else 0.2
        )
    done.set()
    server.close()
    await server.wait_closed()


async def test_a_redirected_status_is_not_followed():
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 307 x\r\nLocation: /\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    answers = await collect.ask_statuses(f"http://{HOST}:{server.sockets[0].getsockname()[1]}", "k", ["pay_1"])
    assert answers == {"pay_1": evidence.StatusAnswer(307)}
    server.close()
    await server.wait_closed()


def test_cpu_time_of_a_process_is_measured_and_of_none_is_unknown():
    used = cpu_us(os.getpid())
    assert used is None or used > 0
    assert cpu_us(2**22 + 1) is None  # above the largest pid of Linux
