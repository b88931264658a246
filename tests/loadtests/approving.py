"""A stack whose providers approve everything at once: its settings, a payment through it, and the end of its processes."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from loadtests.stack import Stack
from simulators.config import Bank, Card, Simulators, Upi
from simulators.durations import Duration
from simulators.latency import Constant

FAST = Constant(Duration("0ms"))
APPROVING = Simulators(
    card=Card(latency=FAST, outcomes={"00": 1.0}),
    upi=Upi(latency=FAST, outcomes={"00": 1.0}),
    bank=Bank(latency=FAST, outcomes={"00": 1.0}),
)
GONE_S_MAX = 10.0  # for a process to end that has been told to; far more than it takes


async def pay(client: aiohttp.ClientSession, stack: Stack, order: str) -> dict[str, Any]:
    body = {
        "merchantID": stack.merchant_id,
        "amount": 1000,
        "currency": "INR",
        "paymentMethod": "card",
        "cardDetails": {
            "number": "4111111111111111",
            "expiryMonth": "12",
            "expiryYear": str(datetime.now(UTC).year + 3),
            "cvv": "123",
        },
        "customerInfo": {"email": "asha@example.com", "phone": "+919812345678"},
        "orderID": order,
    }
    async with client.post(f"{stack.gateway_url}/api/payments/process", json=body) as answer:
        assert answer.status == 201, await answer.text()
        data: dict[str, Any] = (await answer.json())["data"]
        return data


def configurations(stack: Stack) -> list[bytes]:
    return [(stack.files.directory / name).read_bytes() for name in ("gateway.json", "simulators.json")]


async def gone(pid: int) -> None:
    """Returns when there is no such process any more; a zombie has ended too."""
    async with asyncio.timeout(GONE_S_MAX):
        while _state(pid) not in ("", "Z"):  # noqa: ASYNC110 - the end of a process that is not our child is no event
            await asyncio.sleep(0.01)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
