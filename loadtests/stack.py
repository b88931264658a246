"""The whole stack as two child processes: the gateway and the simulators, wired to each other.

Both listening sockets are bound here, before anything starts: the addresses are known at once, so both services start at the
same time, and a gateway that was killed can be started again where it was, with waiting connections kept by the kernel. A provider
with a port of its own is called there; its socket the simulators open themselves, as they close it for `connection_refused`.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import os
import secrets
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import msgspec
from msgspec import Struct

from loadtests.child import Child, ChildError, Stopped
from simulators import config as simulators_config
from simulators.config import Simulators, ports_of

HOST = "127.0.0.1"  # never more: the sandbox key is public
MERCHANT_ID, MERCHANT_KEY = "merchant_123", "sk_test_merchant_123"  # the documented sandbox merchant, DOMAIN.md
OPERATOR_KEY = "sk_test_operator"
ENDPOINT_ID = "ep_merchant_123"
PAYOUT_ACCOUNT = {
    "account_number": "000123456789",
    "ifsc": "HDFC0000001",
    "name": "Sandbox Merchant",
}  # docs/bank.md: completes
BACKLOG = 2_048  # connections that wait in the kernel, for a burst or while a killed gateway starts again
SECRET_SIZE = 32  # bytes; Standard Webhooks allows 24 to 64


class StackError(Exception):
    """The stack cannot run as asked; says what to do."""


class Secrets(Struct, frozen=True):
    """Made for one run. They are in the two configuration files (mode 0600) and nowhere else."""

    card: str
    upi: str
    bank: str
    merchant: str

    def __repr__(self) -> str:
        return "Secrets(...)"


class Files(Struct, frozen=True):
    """Where the stack keeps what. `directory` holds configurations and logs; `db` and `vault_key` may outlive it."""

    directory: Path
    db: Path
    vault_key: Path

    @classmethod
    def under(cls, directory: Path, *, db: Path | None = None) -> Files:
        """Everything in `directory`, except that a database elsewhere has its vault key beside it."""
        db = (db or directory / "gateway.db").absolute()
        return cls(directory.absolute(), db, db.with_name("vault.key"))  # where the gateway itself looks by default


class Stack:
    """`async with Stack(...) as stack:` is a running stack. Raises StackError or ChildError if it cannot start."""

    def __init__(
        self,
        files: Files,
        simulators: Simulators,
        *,
        seed: int,
        port: int = 0,
        simulators_port: int = 0,
        fees: Mapping[str, int] | None = None,
    ) -> None:
        """`port` is the gateway's; 0: any free one, of both. `fees`: basis points that the gateway keeps, by payment method."""
        self.files = files
        self.key, self.merchant_id, self.operator_key = MERCHANT_KEY, MERCHANT_ID, OPERATOR_KEY
        self.fees = fees or {}
        self.secrets = Secrets(*(_secret() for _ in Secrets.__struct_fields__))
        self._simulators, self._seed, self._ports = simulators, seed, (port, simulators_port)
        self._lock: int | None = None  # open while the folder is ours
        self._listeners: list[socket.socket] = []
        self._children: list[Child] = []  # the gateway first

    async def __aenter__(self) -> Stack:
        started = time.perf_counter()
        try:
            self._prepare()
            async with asyncio.TaskGroup() as starting:
                starting.create_task(self._gateway.start())
                starting.create_task(self._outside.start())
        except BaseExceptionGroup as failures:
            await self.stop()
            raise failures.exceptions[0] from None
        except BaseException:
            await self.stop()
            raise
        self.ready_s = time.perf_counter() - started
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        await self.stop()

    @property
    def pids(self) -> dict[str, int]:
        return {"gateway": self._gateway.pid, "simulators": self._outside.pid}

    @property
    def gateway_log(self) -> Path:
        return self._gateway.log

    @property
    def endpoints(self) -> dict[str, tuple[str, ...]]:
        """The webhook endpoints of each merchant."""
        return {MERCHANT_ID: (ENDPOINT_ID,)}

    async def died(self) -> str:
        """Waits until a child ends that nobody stopped; returns a sentence with its name, exit code and the end of its log."""
        waiting = {asyncio.ensure_future(child.ended()): child for child in (self._gateway, self._outside)}
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiting:
                waiter.cancel()
        first = next(iter(done))
        child = waiting[first]
        return f"the {child.name} ended by itself with exit code {first.result()}{child.log_tail()}"

    async def kill_gateway(self) -> None:
        """SIGKILL, as by a crash of the machine; its socket stays open here."""
        await self._gateway.kill()

    async def restart_gateway(self) -> None:
        """Starts it again on the same database and socket."""
        await self._gateway.start()

    async def stop_gateway(self) -> Stopped:
        """Stops the gateway alone, for good; the simulators go on."""
        self._children.remove(self._gateway)
        return await self._gateway.stop()

    async def stop(self) -> list[Stopped]:
        """Stops what runs, the gateway first, since it has calls to finish at the providers. A second call finds nothing to do."""
        stopped = [await child.stop() for child in self._children if child.started]
        for listener in self._listeners:
            listener.close()
        self._children, self._listeners = [], []
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        return stopped

    def _prepare(self) -> None:
        """Folders, sockets, configurations and the two children that will use them."""
        for folder in {self.files.directory, self.files.db.parent}:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _locked(self.files.directory)
        for port in self._ports:
            self._listeners.append(_listener(port))
        gateway, outside = self._listeners
        self._number_ports()
        self.gateway_url, self.simulators_url = _url(gateway), _url(outside)
        directory = self.files.directory
        _write_private(directory / "gateway.json", msgspec.json.encode(self._gateway_config()))
        _write_private(directory / "simulators.json", simulators_config.encode(self._simulators_config()))
        self._gateway = _child("gateway", directory, gateway)
        self._outside = _child("simulators", directory, outside)
        self._children = [self._gateway, self._outside]

    def _number_ports(self) -> None:
        """Makes "any free port" of a provider a certain one, which the gateway can be told."""
        for provider, port in ports_of(self._simulators).items():
            if port == 0:
                held = _held()
                self._listeners.append(held)
                own = msgspec.structs.replace(getattr(self._simulators, provider), port=held.getsockname()[1])
                self._simulators = msgspec.structs.replace(self._simulators, **{provider: own})

    def _simulators_config(self) -> simulators_config.Config:
        parts = {name: getattr(self._simulators, name) for name in Simulators.__struct_fields__}
        signing = simulators_config.Secrets(**msgspec.structs.asdict(self.secrets))
        return simulators_config.Config(**parts, seed=self._seed, secrets=signing)

    def _gateway_config(self) -> dict[str, object]:
        outside, ports = self.simulators_url, ports_of(self._simulators)
        urls = {name: f"http://{HOST}:{ports[name]}" if name in ports else outside for name in simulators_config.PROVIDERS}
        webhook_url = f"{outside}/merchant/webhooks/{MERCHANT_ID}"
        endpoint = {"id": ENDPOINT_ID, "merchantID": MERCHANT_ID, "url": webhook_url, "secret": self.secrets.merchant}
        return {
            "public_url": self.gateway_url,
            "db": str(self.files.db),
            "key_file": str(self.files.vault_key),
            "providers": {
                name: {
                    "url": f"{urls[provider]}/{provider}",
                    "callback_secret": getattr(self.secrets, provider),
                    "fee_basis_points": self.fees.get(name, 0),
                    "settlement_url": f"{urls[provider]}/settlements/{provider}",
                }
                for name, provider in (("card", "card"), ("upi", "upi"), ("netbanking", "bank"))
            },
            "merchants": [{"id": MERCHANT_ID, "key": MERCHANT_KEY, "payout_account": PAYOUT_ACCOUNT}],
            "webhook_endpoints": [endpoint],
            "operator_key": OPERATOR_KEY,
            "settlement": {"early": True},
        }


async def export(db: Path, to: Path) -> None:
    """Writes everything that the gateway's database knows, as NDJSON; works while a gateway runs. Raises ChildError."""
    with to.open("wb") as rows:
        process = await asyncio.create_subprocess_exec(
            *python("gateway"), *("export", "--db", str(db)), stdout=rows, stderr=asyncio.subprocess.PIPE
        )
        try:
            _, said = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
    if process.returncode != 0:
        raise ChildError(
            f"the export of {db} ended with exit code {process.returncode}: {said.decode(errors='replace').strip()}"
        )


def cpu_us(pid: int) -> int | None:
    """CPU time that a process has used, in microseconds (10 ms steps); None where the system has no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    user, system = stat.rpartition(")")[2].split()[11:13]  # proc(5): fields 14 and 15, counted after the command's name
    return (int(user) + int(system)) * 1_000_000 // os.sysconf("SC_CLK_TCK")


def python(module: str) -> tuple[str, ...]:
    """The command of one of our modules. -P: a folder named like it, where the user stands, must not be taken for it."""
    return (sys.executable, "-P", "-m", module)


def _child(name: str, directory: Path, listener: socket.socket) -> Child:
    command = (*python(name), "--config", str(directory / f"{name}.json"))
    return Child(name, command, listener=listener, log=directory / f"{name}.log")


def _locked(directory: Path) -> int:
    """An open file that keeps other stacks out of `directory` until it is closed, at the latest by the end of this process."""
    lock = os.open(directory / "stack.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise StackError(f"{directory} is in use by another paydrome; stop that one, or choose another --db") from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _listener(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port), backlog=BACKLOG)
    except OSError as error:
        raise StackError(
            f"cannot listen on {HOST} port {port}: {error.strerror}; choose another --port, or 0 for any"
        ) from None


def _held() -> socket.socket:
    """A socket that keeps a free port from others and does not listen: the simulators may bind the same address, and listen."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((HOST, 0))
    return held


def _url(listener: socket.socket) -> str:
    return f"http://{HOST}:{listener.getsockname()[1]}"


def _secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_SIZE)).decode()}"


def _write_private(path: Path, content: bytes) -> None:
    """Readable by the user only, from its first byte on."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123 - Path.open takes no mode bits
        file.write(content)
