"""The goals of the gateway and the simulators, each against a yardstick that runs beside it in the same rounds.

`make bench` measures, prints each goal as met or missed, and fails where one is missed.
`make test` runs the same once, briefly and without judging, so that the benchmark itself stays whole.
"""

import base64
import json
import os
import platform
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.rig import HERE, UNIQUE, Measured, Server, in_turn, load, ratio, table

ROUNDS = 5
SECONDS = 4.0
DELIVERED_S_MAX = 30.0  # for what is left in the outbox when the load ends

HOP, PAYMENT_PLAIN, PAYMENT_DELIVERED = "(a) bare aiohttp hop", "(b) card payment", "(b) card payment, webhook delivered"
ECHO, CHARGE_OF_SIMULATOR = "bare aiohttp echo", "(c) simulator's card charge"
GOALS = {
    PAYMENT_PLAIN: 0.5,
    PAYMENT_DELIVERED: 0.4,
    CHARGE_OF_SIMULATOR: 0.6,
}

KEY = "sk_test_merchant_123"
PAYMENT = {
    "merchantID": "merchant_123",
    "amount": 1000,
    "currency": "INR",
    "paymentMethod": "card",
    "cardDetails": {"number": "4111111111111111", "expiryMonth": "12", "expiryYear": "2035", "cvv": "123"},
    "customerInfo": {"email": "customer@example.com", "phone": "+919876543210"},
    "orderID": f"order_{UNIQUE}",
}
CHARGE = {
    "reference": f"att_{UNIQUE}",
    "amount": 1000,
    "currency": "INR",
    "merchantID": "merchant_123",
    "orderID": "order_456",
    "card": PAYMENT["cardDetails"],
}


class Pace:
    def __init__(self, judged: bool) -> None:
        self.judged = judged
        self.rounds = ROUNDS if judged else 1
        self.seconds = SECONDS if judged else 0.2


@pytest.fixture
def pace(benchmark: Any) -> Pace:
    return Pace(judged=not benchmark.disabled)


def secret() -> str:
    return "whsec_" + base64.b64encode(os.urandom(32)).decode()


@pytest.fixture
def secrets() -> dict[str, str]:
    return {name: secret() for name in ("upi", "bank", "merchant")}


@pytest.fixture
def simulators(tmp_path: Path, secrets: dict[str, str]) -> Iterator[Server]:
    at_once = {"kind": "constant", "value": "0ms"}
    config = {
        "seed": 1,
        "secrets": secrets,
        "card": {"latency": at_once, "outcomes": {"00": 1.0}},
        "merchant": {"latency": at_once},
    }
    (tmp_path / "simulators.json").write_text(json.dumps(config))
    command = ["-m", "simulators", "--config", str(tmp_path / "simulators.json"), "--port", "0"]
    with Server(command, tmp_path / "simulators.log") as server:
        yield server


def gateway(directory: Path, simulators: Server, secrets: dict[str, str], *, webhooks: bool) -> Server:
    directory.mkdir()
    endpoint = {
        "id": "ep_bench",
        "merchantID": "merchant_123",
        "url": f"{simulators.url}/merchant/webhooks/merchant_123",
        "secret": secrets["merchant"],
    }
    config = {
        "public_url": "http://127.0.0.1:1",  # cards need no callback
        "db": str(directory / "gateway.db"),
        "key_file": str(directory / "vault.key"),
        "providers": {
            "card": {"url": f"{simulators.url}/card"},
            "upi": {"url": f"{simulators.url}/upi", "callback_secret": secrets["upi"]},
            "netbanking": {"url": f"{simulators.url}/bank", "callback_secret": secrets["bank"]},
        },
        "merchants": [{"id": "merchant_123", "key": KEY}],
        "webhook_endpoints": [endpoint] if webhooks else [],
    }
    (directory / "gateway.json").write_text(json.dumps(config))
    return Server(["-m", "gateway", "--config", str(directory / "gateway.json"), "--port", "0"], directory / "gateway.log")


def counted(db: Path, state: str) -> int:
    connection = sqlite3.connect(f"{db.as_uri()}?mode=ro", uri=True)
    try:
        return int(connection.execute("SELECT count(*) FROM deliveries WHERE state=?", (state,)).fetchone()[0])
    finally:
        connection.close()


def with_delivery(measure: Callable[[], Measured], db: Path) -> Measured:
    """A measurement that counts a payment only once its webhook was delivered: a backlog that grew is taken off the rate."""
    backlog = counted(db, "pending")
    found = measure()
    left = counted(db, "pending") - backlog
    deadline = time.monotonic() + DELIVERED_S_MAX
    while counted(db, "pending"):
        assert time.monotonic() < deadline, "the outbox was not delivered"
        time.sleep(0.05)
    share = max(0.0, 1 - left / (found.rate * SECONDS))
    return Measured(found.rate * share, found.cpu_us / share)


def judge(title: str, found: dict[str, list[Measured]], yardstick: str, benchmark: Any, pace: Pace) -> None:
    """Prints what was found beside the goals, and fails where one is missed."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(table(f"{title}  ({machine})", found, yardstick, GOALS))
    for name, rounds in found.items():
        benchmark.extra_info[name] = {"rates": [one.rate for one in rounds], "cpu_us": [one.cpu_us for one in rounds]}
    if pace.judged:
        shares = {name: ratio(found[name], found[yardstick]) for name in found.keys() & GOALS.keys()}
        missed = {name: share for name, share in shares.items() if share < GOALS[name]}
        assert not missed, f"goals missed: {missed}"


def test_card_payment_against_a_bare_hop(
    benchmark: Any, pace: Pace, simulators: Server, secrets: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "payment.json").write_text(json.dumps(PAYMENT))
    headers = [f"Authorization: Bearer {KEY}", f"Idempotency-Key: {UNIQUE}"]

    def pay(server: Server) -> Measured:
        return load(server, "/api/payments/process", tmp_path / "payment.json", headers, pace.seconds)

    with ExitStack() as servers:
        bare = servers.enter_context(Server([str(HERE / "bare_hop.py"), simulators.url], tmp_path / "bare.log"))
        plain = servers.enter_context(gateway(tmp_path / "plain", simulators, secrets, webhooks=False))
        webhooks = servers.enter_context(gateway(tmp_path / "webhooks", simulators, secrets, webhooks=True))
        subjects = {
            HOP: lambda: pay(bare),
            PAYMENT_PLAIN: lambda: pay(plain),
            PAYMENT_DELIVERED: lambda: with_delivery(lambda: pay(webhooks), tmp_path / "webhooks/gateway.db"),
        }
        found = benchmark.pedantic(in_turn, args=(subjects, pace.rounds), rounds=1)
        assert counted(tmp_path / "webhooks/gateway.db", "dead") == 0
    judge("Card payments", found, HOP, benchmark, pace)


def test_card_charge_against_a_bare_echo(benchmark: Any, pace: Pace, simulators: Server, tmp_path: Path) -> None:
    (tmp_path / "charge.json").write_text(json.dumps(CHARGE))
    with Server([str(HERE / "bare_echo.py")], tmp_path / "echo.log") as echo:
        subjects = {
            ECHO: lambda: load(echo, "/echo", tmp_path / "charge.json", [], pace.seconds),
            CHARGE_OF_SIMULATOR: lambda: load(simulators, "/card/charges", tmp_path / "charge.json", [], pace.seconds),
        }
        found = benchmark.pedantic(in_turn, args=(subjects, pace.rounds), rounds=1)
    judge("Card charges of the simulator", found, ECHO, benchmark, pace)
