import asyncio
from typing import Any

import pytest
import structlog
from standardwebhooks import Webhook

from simulators.callbacks import Callbacks
from simulators.charges import Charge
from simulators.journal import Journal

SECRET = "whsec_" + "QUJD" * 8


def charge(reference: str = "ref") -> Charge:
    return Charge(reference, f"upi_{reference}", "approved", "00", 1000, "INR", 1, 2, rrn="0" * 12)


class Sent:
    """Callbacks with a journal that tells when it grows."""

    def __init__(self, **options: Any) -> None:
        self.entries: list[Any] = []
        self._grew = asyncio.Event()
        journal = Journal()
        journal.append = self._append
        options = {"retry_delays_s": (0, 0, 0, 0)} | options
        self.callbacks = Callbacks(keys={"upi": b"ABC" * 8}, journal=journal, now_ms=lambda: 1_800_000_000_000, **options)

    def _append(self, entry: Any) -> None:
        self.entries.append(entry)
        self._grew.set()

    async def tries(self, count: int) -> list[tuple[int, int | None]]:
        """Attempt and status of the first `count` tries, as soon as they were made."""
        async with asyncio.timeout(10):
            while len(self.entries) < count:
                self._grew.clear()
                await self._grew.wait()
        return [(entry.attempt, entry.callback_status) for entry in self.entries]


@pytest.mark.parametrize(("provider", "fields"), [("upi", {}), ("bank", {})])
async def test_a_callback_verifies_with_the_secret_of_its_provider(start, ear, provider, fields):
    client = await start()
    await getattr(client, provider)("ref", ear.url, **fields)
    headers, body = await ear.hear()
    secret = "whsec_" + __import__("base64").b64encode(f"{provider:*<32}".encode()).decode()
    verified = Webhook(secret).verify(body, headers)
    assert (verified["provider"], verified["id"]) == (provider, headers["webhook-id"])
    assert headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("refusal", [500, 400, 307])
async def test_anything_but_2xx_is_tried_again_with_the_same_id_and_body(ear, refusal):
    ear.statuses = [refusal, refusal, 204]
    sent = Sent()
    async with sent.callbacks:
        sent.callbacks.send("upi", charge(), ear.url)
        assert await sent.tries(3) == [(1, refusal), (2, refusal), (3, 204)]
    heard = [await ear.hear() for _ in range(3)]
    assert len({(headers["webhook-id"], body) for headers, body in heard}) == 1
    assert ear.silent


async def test_after_five_tries_it_is_given_up_and_logged(ear):
    ear.statuses = [503] * 9
    sent = Sent()
    with structlog.testing.capture_logs() as logs:
        async with sent.callbacks:
            sent.callbacks.send("upi", charge("first"), ear.url)
            await sent.tries(5)
            sent.callbacks.send("upi", charge("second"), "http://127.0.0.1:1/nobody")
            tries = await sent.tries(10)
    assert tries == [(attempt, 503) for attempt in range(1, 6)] + [(attempt, None) for attempt in range(1, 6)]
    assert [(log["event"], log["reference"]) for log in logs] == [
        ("callback_given_up", "first"),
        ("callback_given_up", "second"),
    ]


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/", "http://[::1/", "http://no such host/", "ftp://127.0.0.1/"])
async def test_an_impossible_url_is_a_failed_try_and_harms_nothing_else(ear, url):
    sent = Sent(retry_delays_s=())
    async with sent.callbacks:
        sent.callbacks.send("upi", charge("bad"), url)
        assert await sent.tries(1) == [(1, None)]
        sent.callbacks.send("upi", charge("good"), ear.url)
        assert await sent.tries(2) == [(1, None), (1, 200)]


async def test_more_outstanding_callbacks_than_the_bound_are_given_up_at_once(ear):
    sent = Sent(outstanding_max=2)
    with structlog.testing.capture_logs() as logs:
        async with sent.callbacks:
            for index in range(3):
                sent.callbacks.send("upi", charge(f"ref_{index}"), ear.url)
            assert await sent.tries(2) == [(1, 200), (1, 200)]
            sent.callbacks.send("upi", charge("later"), ear.url)  # there is room again
            await sent.tries(3)
    assert [entry.reference for entry in sent.entries][-1] == "later"
    assert [log["reference"] for log in logs] == ["ref_2"]


async def test_each_try_is_in_the_journal(start, ear):
    ear.statuses = [500]
    client = await start()
    await client.upi("ref", ear.url)
    first, second = await ear.hear(), await ear.hear()
    assert first[1] == second[1]
    entries = [entry for entry in await client.journal() if entry["operation"] == "callback"]
    assert [(entry["attempt"], entry["status"], entry["moved"]) for entry in entries][:1] == [(1, "approved", 0)]
    assert entries[0]["callbackStatus"] == 500
