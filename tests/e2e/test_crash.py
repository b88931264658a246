"""kill -9 of the gateway in the middle of its work, then a restart on the same file: no money is lost, doubled or made up.

Clients behave as good ones do: whoever got no answer asks again with the same key and body, until there is one.
"""

import asyncio
import hashlib
from collections import Counter
from pathlib import Path

import aiohttp
import msgspec
import pytest

from loadtests import auditor, collect
from loadtests.evidence import Ack, Evidence, Sent
from loadtests.payments import CURRENCY, Payments, body, key
from loadtests.samples import METHODS
from loadtests.scenario import Mix
from loadtests.stack import Files, Stack, export
from simulators.config import Simulators, convert

PAYMENTS = 240
IN_FLIGHT = 40  # of each method, some between their two commits at every moment
TRIES_MAX = 20
RUN_ID = "crash"

# Providers are slow enough that a kill finds calls under way, customers quick enough that the test is short.
SIMULATORS = convert(
    {
        "card": {"latency": {"kind": "constant", "value": "60ms"}},
        "upi": {
            "latency": {"kind": "constant", "value": "40ms"},
            "customer": {"acts": True, "delay": {"kind": "uniform", "low": "10ms", "high": "400ms"}},
        },
        "bank": {
            "latency": {"kind": "constant", "value": "40ms"},
            "customer": {"acts": True, "delay": {"kind": "uniform", "low": "10ms", "high": "400ms"}},
        },
    },
    Simulators,
    file="test_crash.py",
)


class Clients:
    """Pays PAYMENTS times, IN_FLIGHT at once; `acks` is what the clients saw."""

    def __init__(self, stack: Stack, session: aiohttp.ClientSession) -> None:
        self._stack = stack
        self._session = session
        self._payments = Payments(seed=7, n=PAYMENTS, mix=Mix(card=0.5, upi=0.3, netbanking=0.2), year=2030)
        self._numbers = iter(range(PAYMENTS))
        self.acks: list[Ack] = []
        self.cut_off = 0
        self._answered = asyncio.Condition()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(self._client())

    async def answered(self, count: int) -> None:
        async with self._answered:
            await self._answered.wait_for(lambda: len(self.acks) >= count)

    async def _client(self) -> None:
        for i in self._numbers:
            payment = self._payments[i]
            sent = body(payment, i=i, run_id=RUN_ID, merchant_id=self._stack.merchant_id)
            for _ in range(TRIES_MAX):
                if (answer := await self._send(i, sent)) is not None:
                    break
            else:
                raise AssertionError(f"payment {i} got no answer in {TRIES_MAX} tries")
            status, data = answer
            told = msgspec.json.decode(data)
            payment_data = told.get("data") or {}
            ack = Ack(
                index=i,
                key=key(RUN_ID, i),
                merchantID=self._stack.merchant_id,
                httpStatus=status,
                amount=payment.amount,
                currency=CURRENCY,
                method=METHODS[payment.method],
                paymentID=payment_data.get("paymentID"),
                status=payment_data.get("status"),
                bodySha256=hashlib.sha256(data).hexdigest(),
                code=told.get("code"),
            )
            async with self._answered:
                self.acks.append(ack)
                self._answered.notify_all()

    async def _send(self, i: int, sent: bytes) -> tuple[int, bytes] | None:
        headers = {
            "Authorization": f"Bearer {self._stack.key}",
            "Idempotency-Key": key(RUN_ID, i),
            "Content-Type": "application/json",
        }
        try:
            async with self._session.post("/api/payments/process", data=sent, headers=headers) as answer:
                return answer.status, await answer.read()
        except (aiohttp.ClientError, ConnectionError):
            self.cut_off += 1
            return None


def evidence_of(stack: Stack, directory: Path, acks: list[Ack]) -> Evidence:
    statuses = Counter(ack.httpStatus for ack in acks)
    sent = Sent(scheduled=len(acks), sent=len(acks), dropped=0, outcomes={"ok": len(acks)}, http_statuses=statuses)
    return collect.stack_evidence(stack, directory, acks=tuple(acks), sent=sent)


@pytest.mark.parametrize("kill_after", [(1,), (30, 100, 170)], ids=["at the first answer", "three times"])
async def test_money_survives_kill_nine(tmp_path: Path, kill_after: tuple[int, ...]) -> None:
    async with (
        Stack(Files.under(tmp_path), SIMULATORS, seed=11) as stack,
        aiohttp.ClientSession(stack.gateway_url, timeout=aiohttp.ClientTimeout(total=20)) as session,
    ):
        clients = Clients(stack, session)
        running = asyncio.create_task(clients.run())
        for count in kill_after:
            await clients.answered(count)
            await stack.kill_gateway()
            await stack.restart_gateway()
        await running
        settled = await collect.settle(stack, tmp_path / "gateway.ndjson", lambda _: None)
        (tmp_path / "metrics.txt").write_bytes(await collect.metrics_text(stack))
        assert (await stack.stop_gateway()).clean
        await collect.save_journal(stack, tmp_path / "journal.ndjson")
        await export(stack.files.db, tmp_path / "gateway.ndjson")
        evidence = evidence_of(stack, tmp_path, clients.acks)

    assert settled.still_open == {}
    assert clients.cut_off > 0, "the kill found nobody waiting: it proved nothing"
    assert [ack.httpStatus for ack in clients.acks] == [201] * PAYMENTS
    found = {invariant.number: invariant for invariant in auditor.audit(evidence)}
    broken = {number: found[number].violations for number in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12) if not found[number].ok}
    assert broken == {}
    assert found[2].checked >= PAYMENTS
