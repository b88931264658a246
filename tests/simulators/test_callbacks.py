import asyncio
import base64
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import structlog
from standardwebhooks import Webhook, WebhookVerificationError

from simulators.callbacks import HELD_MS_MAX, OLD_S, Callbacks
from simulators.charges import Charge
from simulators.clock import Clock
from simulators.config import Upi, convert
from simulators.journal import Journal
from simulators.phases import Conducts
from simulators.refunds import Refund
from simulators.world import Record, World

KEY = b"ABC" * 8
NOW_MS = 1_800_000_000_000
CARD = {"number": "4000000000001976", "expiryMonth": "12", "expiryYear": "2099", "cvv": "123"}


def charge(reference: str = "ref") -> Charge:
    return Charge(reference, f"upi_{reference}", "approved", "00", 1000, "INR", 1, 2, rrn="0" * 12)


def refund(reference: str = "ref") -> Refund:
    return Refund(f"{reference}_back", reference, f"upi_{reference}_back", "completed", "00", 400, "INR", 1, 2)


class Sent:
    """Callbacks in a world whose clock stands still, with a journal that tells when it grows."""

    def __init__(self, *faults: dict[str, Any], **options: Any) -> None:
        self.entries: list[Any] = []
        self._grew = asyncio.Event()
        self.world = World(seed=1, clock=Clock(lambda: NOW_MS))
        self.world.journal = Journal()
        self.world.journal.append = self._append
        settings = convert({"faults": [{"operation": "callback"} | fault for fault in faults]}, Upi, file="test")
        options = {"retry_delays_s": (0, 0, 0, 0)} | options
        conducts = {"upi": Conducts("upi", settings)}
        self.callbacks = Callbacks(keys={"upi": KEY}, world=self.world, conducts=conducts, **options)

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

    @property
    def faults(self) -> list[tuple[str | None, str | None]]:
        return [(entry.fault, entry.fault_id) for entry in self.entries]


async def waits(sent: Sent, count: int = 1) -> None:
    """Until `count` callbacks wait on the world's clock; no timer of the event loop is involved."""
    async with asyncio.timeout(10):
        while sent.world.clock.waiting < count:  # noqa: ASYNC110 - the clock has no event for it
            await asyncio.sleep(0)


@pytest.mark.parametrize(("provider", "fields"), [("upi", {}), ("bank", {})])
async def test_a_callback_verifies_with_the_secret_of_its_provider(start, ear, provider, fields):
    client = await start()
    await getattr(client, provider)("ref", ear.url, **fields)
    headers, body = await ear.hear()
    secret = "whsec_" + base64.b64encode(f"{provider:*<32}".encode()).decode()
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


async def test_as_many_are_under_way_at_once_as_there_are_workers():
    together, under_way, most = asyncio.Barrier(4), 0, 0

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await together.wait()  # nobody is answered before four have come
        under_way -= 1
        writer.write(b"HTTP/1.1 204 x\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    sent = Sent(workers=4)
    async with server, sent.callbacks:
        for number in range(12):
            sent.callbacks.send("upi", charge(f"ref_{number}"), url)
        assert await sent.tries(12) == [(1, 204)] * 12
    assert most == 4


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


async def test_a_callback_is_journalled_under_the_merchant_and_order_of_its_charge(start, ear):
    client = await start(card={"dispute_delay": "0ms", "refund_delay": {"kind": "constant", "value": "0ms"}})
    await client.upi("payment", ear.url, orderID="order_7")
    whose = {"amount": 1000, "currency": "INR", "merchantID": "m", "orderID": "order_7"}
    disputed = {"reference": "card", "card": CARD, "disputeURL": ear.url}
    await client.call("POST", "/card/charges", json=whose | disputed)
    refunded = {"reference": "back", "amount": 1, "currency": "INR", "callbackURL": ear.url}
    await client.call("POST", "/card/charges/card/refunds", json=refunded)
    asked = {
        "reference": "a",
        "card": CARD | {"number": "4000000000001091"},
        "challenge": "simulated",
        "returnURL": ear.url,
        "callbackURL": ear.url,
    }
    await client.call("POST", "/card/3ds/authentications", json=whose | asked)
    await client.call("POST", "/admin/clock/advance", json={"by": "1min"})
    assert {(await ear.next()).get("type") for _ in range(4)} == {None, "dispute", "refund", "authentication"}
    found: list[Any] = []
    while len(found) < 4:  # a try is journalled when its answer is in
        found = [entry for entry in await client.journal() if entry["operation"] == "callback"]
    assert [(entry["merchantID"], entry.get("orderID")) for entry in found] == [("m", "order_7")] * 4


async def test_the_body_of_a_charge_is_the_charge_with_id_and_provider(ear):
    sent = Sent()
    async with sent.callbacks:
        sent.callbacks.send("upi", charge(), ear.url)
        body = await ear.next()
    assert body == {"id": "cb_upi_ref", "provider": "upi"} | msgspec.to_builtins(charge())


async def test_what_is_no_charge_has_a_type_an_id_for_each_status_and_is_journalled_under_its_charge(ear):
    sent = Sent()
    failed = msgspec.structs.replace(refund(), status="failed", responseCode="05")
    async with sent.callbacks:
        for state in (refund(), failed):
            sent.callbacks.send("upi", state, ear.url, "refund", record=Record(merchant_id="m", order_id="o"))
        await sent.tries(2)
    heard = [await ear.next() for _ in range(2)]
    assert {body["id"] for body in heard} == {"cb_upi_ref_back_completed", "cb_upi_ref_back_failed"}
    assert {(body["type"], body["reference"], body["chargeReference"]) for body in heard} == {("refund", "ref_back", "ref")}
    whose = {(entry.reference, entry.subject, entry.merchant, entry.order) for entry in sent.entries}
    assert whose == {("ref", "upi_ref_back", "m", "o")}


async def test_a_lost_callback_is_never_sent_and_never_tried_again(ear):
    sent = Sent({"kind": "lost", "amount": 1000})
    async with sent.callbacks:
        sent.callbacks.send("upi", charge(), ear.url)
        assert await sent.tries(1) == [(1, None)]
        sent.callbacks.send("upi", refund(), ear.url, "refund")  # another amount: it gets through, and what was lost does not
        assert await sent.tries(2) == [(1, None), (1, 200)]
        assert (await ear.next())["type"] == "refund"
    assert ear.silent
    assert sent.faults == [("lost", "upi.callback.0"), (None, None)]


async def test_a_lost_callback_makes_room_for_the_next(ear):
    sent = Sent({"kind": "lost"}, outstanding_max=1)
    async with sent.callbacks:
        for count in (1, 2, 3):
            sent.callbacks.send("upi", charge(f"ref_{count}"), ear.url)
            await sent.tries(count)
    assert [entry.fault for entry in sent.entries] == ["lost"] * 3


async def test_a_late_callback_comes_when_the_clock_says_so(ear):
    sent = Sent({"kind": "late", "delay": "1h", "name": "slow"})
    async with sent.callbacks:
        sent.callbacks.send("upi", charge(), ear.url)
        await waits(sent)
        sent.world.clock.advance(3_599_999)
        assert sent.world.clock.waiting == 1
        sent.world.clock.advance(1)
        assert await sent.tries(1) == [(1, 200)]
    assert (sent.faults, sent.entries[0].delay_ms) == ([("late", "upi.callback.slow")], 3_600_000)


@pytest.mark.parametrize("kind", ["twice", "twice_at_once"])
async def test_a_callback_sent_twice_is_the_same_both_times(ear, kind):
    sent = Sent({"kind": kind})
    async with sent.callbacks:
        sent.callbacks.send("upi", charge(), ear.url)
        assert await sent.tries(2) == [(1, 200), (1, 200)]
        (first_headers, first), (second_headers, second) = [await ear.hear() for _ in range(2)]
    assert (first, first_headers["webhook-id"]) == (second, second_headers["webhook-id"])
    assert ear.silent


@pytest.mark.parametrize(("kind", "together"), [("twice", 1), ("twice_at_once", 2)])
async def test_only_at_once_do_both_arrive_before_one_is_answered(kind, together):
    sent = Sent({"kind": kind})
    waiting, enough, go = [], asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        waiting.append(1)
        if len(waiting) == together:
            enough.set()
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, sent.callbacks:
        sent.callbacks.send("upi", charge(), f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        async with asyncio.timeout(10):
            await enough.wait()
        assert (len(waiting), sent.entries) == (together, [])
        go.set()
        assert await sent.tries(2) == [(1, 200), (1, 200)]


async def test_out_of_order_the_later_of_two_callbacks_about_a_charge_comes_first(ear):
    sent = Sent({"kind": "out_of_order"})
    async with sent.callbacks:
        sent.callbacks.send("upi", charge(), ear.url)
        sent.callbacks.send("upi", charge("other"), ear.url)  # is about another charge, and waits for one of its own
        await waits(sent, 2)
        assert ear.silent
        sent.callbacks.send("upi", refund(), ear.url, "refund")
        await sent.tries(2)
        heard = [await ear.next() for _ in range(2)]
        assert ear.silent
    assert [body["reference"] for body in heard] == ["ref_back", "ref"]


async def test_a_callback_that_waits_for_a_later_one_in_vain_goes_out_after_a_minute(ear):
    sent = Sent({"kind": "out_of_order"})
    async with sent.callbacks:
        sent.callbacks.send("upi", charge(), ear.url)
        await waits(sent)
        sent.world.clock.advance(HELD_MS_MAX)
        assert await sent.tries(1) == [(1, 200)]
        assert (await ear.next())["reference"] == "ref"
        assert ear.silent


def verdict(headers: dict[str, str], body: bytes) -> str:
    """What a strict receiver says to it, whose clock is the world's."""
    given = headers["webhook-signature"]
    expected = Webhook(base64.b64encode(KEY).decode()).sign(headers["webhook-id"], _moment(headers), body.decode())
    if given != expected:
        return "bad signature"
    return "good" if abs(int(headers["webhook-timestamp"]) - NOW_MS // 1000) <= 300 else "too old"


def _moment(headers: dict[str, str]) -> Any:
    return datetime.fromtimestamp(int(headers["webhook-timestamp"]), tz=UTC)


@pytest.mark.parametrize(("kind", "said"), [("bad_signature", "bad signature"), ("old_timestamp", "too old")])
async def test_a_forged_or_stale_callback_is_followed_by_a_good_one_if_it_is_refused(ear, kind, said):
    ear.statuses = [401]
    sent = Sent({"kind": kind, "first": 1})
    async with sent.callbacks:
        sent.callbacks.send("upi", charge(), ear.url)
        assert await sent.tries(2) == [(1, 401), (2, 200)]
    assert [verdict(*await ear.hear()) for _ in range(2)] == [said, "good"]
    assert sent.faults == [(kind, "upi.callback.0"), (None, None)]


async def test_an_old_timestamp_is_beyond_what_the_public_implementation_accepts(ear):
    assert OLD_S > 300
    sent = Sent({"kind": "old_timestamp"})
    async with sent.callbacks:
        sent.callbacks.send("upi", charge(), ear.url)
        headers, body = await ear.hear()
    with pytest.raises(WebhookVerificationError):
        Webhook(base64.b64encode(KEY).decode()).verify(body, headers)


async def test_a_callback_for_an_unknown_payment_comes_beside_the_real_one(ear):
    sent = Sent({"kind": "unknown_payment"})
    async with sent.callbacks:
        sent.callbacks.send("upi", charge(), ear.url)
        await sent.tries(2)
        (headers, body), (strange_headers, strange_body) = [await ear.hear() for _ in range(2)]
    real, strange = msgspec.json.decode(body), msgspec.json.decode(strange_body)
    assert (verdict(headers, body), verdict(strange_headers, strange_body)) == ("good", "good")
    assert real["reference"] == "ref"
    different = {name for name in real if real[name] != strange[name]}
    assert different == {"id", "reference", "providerID"}
    assert strange_headers["webhook-id"] == strange["id"]
    assert [(entry.reference, entry.charge is None) for entry in sent.entries] == [("ref", False), (strange["reference"], True)]


async def test_which_callbacks_go_wrong_depends_on_the_reference_alone(ear):
    async def lost(references: list[str]) -> set[str]:
        sent = Sent({"kind": "lost", "probability": 0.5})
        async with sent.callbacks:
            for reference in references:
                sent.callbacks.send("upi", charge(reference), ear.url)
            await sent.tries(len(references))
        return {entry.reference for entry in sent.entries if entry.fault == "lost"}

    references = [f"ref_{index}" for index in range(60)]
    first = await lost(references)
    assert 10 < len(first) < 50
    assert await lost(references[::-1]) == first
