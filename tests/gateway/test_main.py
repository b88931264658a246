"""`python -m gateway` as a process: how it starts, what it refuses, how it stops."""

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp.test_utils import TestServer

from gateway.__main__ import main
from gateway.storage import export
from tests.gateway.api.conftest import GOOD, KEYS, PlainProvider
from tests.gateway.doubles import CVV, NUMBER, PATIENCE_S, Held, secret

AUTHORIZED = {"Authorization": f"Bearer {KEYS['merchant_123']}", "X-Request-ID": "my-request"}


async def start(*arguments: str | Path, **options: Any) -> Process:
    command = [sys.executable, "-m", "gateway", *map(str, arguments)]
    return await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE, **options)


async def run(*arguments: str | Path) -> tuple[int | None, str, str]:
    """Exit code, standard output and standard error of a process that ends by itself."""
    process = await start(*arguments)
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


class Running:
    def __init__(self, process: Process, url: str) -> None:
        self.process, self.url = process, url

    async def pay(self) -> tuple[int, dict[str, Any]]:
        url = self.url + "/api/payments/process"
        async with aiohttp.ClientSession(headers=AUTHORIZED) as session, session.post(url, json=GOOD["card"]) as answer:
            return answer.status, await answer.json()

    async def refuses_connections(self) -> None:
        """Waits until the gateway has stopped listening."""
        host, port = self.url.removeprefix("http://").split(":")
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection(host, int(port))
                except ConnectionError:
                    return
                writer.close()

    async def end(self) -> tuple[int | None, str]:
        """Exit code and log."""
        async with asyncio.timeout(PATIENCE_S):
            _, err = await self.process.communicate()
        return self.process.returncode, err.decode()


class Place:
    """A folder with a configuration, and the provider that it names."""

    def __init__(self, folder: Path, provider: PlainProvider, url: str) -> None:
        self.provider, self.db, self.config = provider, folder / "gateway.db", folder / "gateway.json"
        document = {
            "public_url": "http://gateway.example",
            "key_file": str(folder / "vault.key"),
            "providers": {
                "card": {"url": url + "/card", "timeout_ms": 8_000},
                "upi": {"url": url + "/upi", "callback_secret": secret("upi")},
                "netbanking": {"url": url + "/bank", "callback_secret": secret("bank")},
            },
            "webhook_endpoints": [
                {"id": "ep_1", "merchantID": "merchant_123", "url": url + "/webhooks", "secret": secret("merchant")}
            ],
        }
        self.config.write_text(json.dumps(document))

    @asynccontextmanager
    async def gateway(self, *arguments: str, **options: Any) -> AsyncIterator[Running]:
        where = () if "--fd" in arguments else ("--port", "0")
        process = await start("--config", self.config, "--db", self.db, *where, *arguments, **options)
        assert process.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE_S):
                line = await process.stdout.readline()
            assert line, await process.communicate()
            ready = json.loads(line)
            assert (ready["ready"], ready["pid"]) == ("gateway", process.pid)
            yield Running(process, ready["url"])
        finally:
            if process.returncode is None:
                process.kill()
                print((await process.communicate())[1].decode())  # a test that failed shows what the gateway logged

    def records(self, kind: str) -> list[dict[str, Any]]:
        """What is in the database file."""
        return [record for record in export.records(self.db) if record["kind"] == kind]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    provider = PlainProvider()
    async with TestServer(provider.app()) as server:
        yield Place(tmp_path, provider, str(server.make_url("")).rstrip("/"))


async def test_sigterm_lets_what_is_in_flight_end_and_marks_what_was_delivered(place: Place):
    async with place.gateway() as running:
        assert (await running.pay())[0] == 201
        await asyncio.wait_for(place.provider.webhooks.get(), PATIENCE_S)
        held = Held(None)
        place.provider.wait = held
        paying = asyncio.create_task(running.pay())
        await asyncio.wait_for(held.reached.wait(), PATIENCE_S)
        running.process.send_signal(signal.SIGTERM)
        await running.refuses_connections()
        held.let_go.set()
        status, answer = await paying
        assert (status, answer["data"]["status"]) == (201, "completed")
        code, log = await running.end()
    assert code == 0, log
    assert [record["status"] for record in place.records("payment")] == ["completed"] * 2
    deliveries = {record["paymentID"]: record["state"] for record in place.records("delivery")}
    assert deliveries.pop(answer["data"]["paymentID"]) in ("pending", "delivered")
    assert list(deliveries.values()) == ["delivered"]


async def test_the_log_is_json_with_request_ids_and_without_card_data(place: Place):
    place.provider.status = "nonsense"  # so that something is logged
    async with place.gateway("--log-level", "debug") as running:
        assert (await running.pay())[1]["data"]["status"] == "processing"
        running.process.send_signal(signal.SIGINT)
        code, log = await running.end()
    assert code == 0
    lines = [json.loads(line) for line in log.splitlines()]
    [unanswered] = [line for line in lines if line["event"] == "provider.no_answer"]
    assert unanswered["request_id"] == "my-request"
    assert unanswered["payment_id"].startswith("pay_")
    assert NUMBER not in log
    assert f'"{CVV}"' not in log


async def test_a_supervised_gateway_stops_when_its_parent_is_gone_and_serves_on_an_inherited_socket(place: Place):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        fd = listening.fileno()
        async with place.gateway("--supervised", "--fd", str(fd), pass_fds=[fd]) as running:
            assert running.url == f"http://127.0.0.1:{port}"
            assert (await running.pay())[0] == 201
            assert running.process.stdin is not None
            running.process.stdin.close()
            assert (await running.end())[0] == 0


async def test_a_second_gateway_on_the_database_is_refused_and_the_first_goes_on_and_can_be_exported(place: Place):
    async with place.gateway() as running:
        code, out, err = await run("--config", place.config, "--db", place.db, "--port", "0")
        assert (code, out) == (1, "")
        assert f"another gateway (process {running.process.pid}) uses this database" in err
        assert "Traceback" not in err
        assert (await running.pay())[0] == 201
        code, out, err = await run("export", "--db", place.db)
    assert (code, err) == (0, "")
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["status"] for record in records if record["kind"] == "payment"] == ["completed"]
    assert NUMBER not in out


async def test_after_a_kill_the_next_gateway_finishes_what_was_interrupted(place: Place):
    async with place.gateway() as running:
        held = Held(None)
        place.provider.wait = held
        paying = asyncio.create_task(running.pay())
        await asyncio.wait_for(held.reached.wait(), PATIENCE_S)
        os.kill(running.process.pid, signal.SIGKILL)
        with pytest.raises(aiohttp.ClientError):
            await paying
        held.let_go.set()
    assert [record["state"] for record in place.records("attempt")] == ["intent"]
    place.provider.wait = None
    async with place.gateway() as again:
        await asyncio.wait_for(place.provider.inquired.wait(), PATIENCE_S)
        await asyncio.wait_for(place.provider.webhooks.get(), PATIENCE_S)
        again.process.send_signal(signal.SIGTERM)
        assert (await again.end())[0] == 0
    assert [record["state"] for record in place.records("attempt")] == ["succeeded"]
    assert len(place.provider.requests) == 1


@pytest.fixture
def defaults() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ("--port 0", 2, "--config FILE is required"),
        ("--config {folder}/bad.json", 1, "bad.json: "),
        ("--config {folder}/none.json", 1, "none.json: cannot be read: No such file or directory"),
        ("export --db {folder}/none.db", 1, "none.db: no such file"),
        ("export --db {folder}/diary.db", 1, "diary.db: file is not a database"),
        ("--colour", 2, "unrecognized arguments: --colour"),
        ("--port eighty", 2, "invalid int value: 'eighty'"),
        ("--port 1 --fd 1", 2, "not allowed with argument"),
    ],
)
def test_a_command_that_cannot_be_carried_out_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, code: int, says: str
):
    (tmp_path / "bad.json").write_text('{"public_url": 5}')
    (tmp_path / "diary.db").write_bytes(b"Dear diary,\n" * 200)
    try:
        ended = main(arguments.format(folder=tmp_path).split())
    except SystemExit as refused:  # argparse
        ended = refused.code
    out, err = capsys.readouterr()
    assert (ended, out) == (code, "")
    assert says in err


async def test_a_port_that_is_taken_is_a_clear_error(place: Place, defaults: None, capsys: pytest.CaptureFixture[str]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["--config", str(place.config), "--db", str(place.db), "--port", port]) == 1
    err = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in err
    assert "choose another --port" in err
