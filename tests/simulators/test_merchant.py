import base64
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import Webhook

from simulators.clock import Clock

KEY = f"{'merchant':*<32}".encode()
BODY = b'{"event":"payment.completed","data":{"paymentID":"pay_1"},"id":"evt_1","sequence":1}'


def headers(body: bytes = BODY, *, webhook_id: str = "evt_1", age_s: int = 0) -> dict[str, str]:
    stamp = int(time.time()) - age_s
    secret = "whsec_" + base64.b64encode(KEY).decode()
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(stamp),
        "webhook-signature": Webhook(secret).sign(webhook_id, datetime.fromtimestamp(stamp, UTC), body.decode()),
        "X-Webhook-Signature": hmac.new(KEY, body, hashlib.sha256).hexdigest(),
    }


async def deliver(client, body: bytes = BODY, *, name: str = "merchant_123", **changes: Any) -> int:
    given = changes.pop("headers", None) or headers(body, **changes)
    status, _, _ = await client.call("POST", f"/merchant/webhooks/{name}", data=body, headers=given)
    return status


async def test_a_signed_webhook_is_accepted_and_journalled(start):
    client = await start()
    assert await deliver(client) == 200
    [entry] = await client.journal()
    assert entry | {"at": 0} == {
        "seq": 1,
        "at": 0,
        "provider": "merchant",
        "operation": "webhook",
        "reference": "merchant_123",
        "attempt": 1,
        "status": None,
        "responseCode": None,
        "amount": None,
        "currency": None,
        "moved": 0,
        "delayMs": 0,
        "fault": None,
        "webhookID": "evt_1",
        "signatureValid": True,
        "duplicate": False,
        "body": json.loads(BODY),
    }


async def test_a_repetition_is_accepted_and_marked(start):
    client = await start()
    assert [await deliver(client), await deliver(client), await deliver(client, name="other")] == [200, 200, 200]
    assert [(entry["duplicate"], entry["attempt"]) for entry in await client.journal()] == [(False, 1), (True, 2), (False, 1)]


@pytest.mark.parametrize("broken", ["webhook-signature", "X-Webhook-Signature", "webhook-id", "webhook-timestamp"])
async def test_a_webhook_without_valid_signatures_is_refused_and_journalled(start, broken):
    client = await start()
    for value in (None, "v1,AAAA"):
        given = headers() | {broken: value}
        assert await deliver(client, headers={name: text for name, text in given.items() if text is not None}) == 401
    assert [(entry["signatureValid"], entry["duplicate"]) for entry in await client.journal()] == [(False, False)] * 2


@pytest.mark.parametrize(
    ("name", "webhook_id"), [("m", "\udcff"), ("m", "evt_\xe9"), ("m%C3%A9", "evt_1"), ("m%00", "evt_1"), ("m%0A", "evt_1")]
)
async def test_a_name_or_id_that_is_not_printable_ascii_is_refused_and_not_journalled(start, name, webhook_id):
    client = await start()
    head = f"POST /merchant/webhooks/{name} HTTP/1.1\r\nHost: x\r\nwebhook-id: {webhook_id}\r\nContent-Length: 2\r\n\r\n"
    status, sentence = await client.raw(head.encode(errors="surrogateescape") + b"{}")
    assert (status, "must be printable ASCII" in sentence) == (400, True)
    assert await client.journal() == []


@pytest.mark.parametrize("name", ["", "m" * 65])
async def test_a_receiver_has_a_name_of_1_to_64_characters(start, name):
    client = await start()
    assert await deliver(client, name=name) == 400
    assert await client.journal() == []


async def test_an_old_timestamp_is_refused(start):
    client = await start()
    assert [await deliver(client, age_s=290), await deliver(client, age_s=310)] == [200, 401]


async def test_what_was_refused_does_not_make_the_next_one_a_repetition(start):
    client = await start()
    assert await deliver(client, headers={"webhook-id": "evt_1"}) == 401
    assert await deliver(client) == 200
    assert [entry["duplicate"] for entry in await client.journal()] == [False, False]


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b'"text"', b"{" * 5000 + b"}" * 5000])
async def test_a_signed_body_that_is_no_object_is_refused_and_journalled_without_it(start, body):
    client = await start()
    assert await deliver(client, body) == 400
    assert [(entry["signatureValid"], entry["body"]) for entry in await client.journal()] == [(True, None)]


async def test_a_body_over_several_lines_is_one_line_of_the_journal(start):
    client = await start()
    body = b'{"a":\r\n  "line\\nbreak",\n "b": 1}'
    assert await deliver(client, body) == 200
    assert [entry["body"] for entry in await client.journal()] == [{"a": "line\nbreak", "b": 1}]


async def test_the_merchants_latency_is_waited_for_and_journalled(start):
    client = await start(merchant={"latency": {"kind": "constant", "value": "20ms"}})
    assert await deliver(client) == 200
    assert [entry["delayMs"] for entry in await client.journal()] == [20]


async def test_a_webhook_is_as_old_as_its_sender_says_wherever_the_clock_was_moved(start):
    clock = Clock()
    client = await start(clock=clock)
    clock.advance(3_600_000)
    assert [await deliver(client), await deliver(client, webhook_id="evt_2", age_s=3_600)] == [200, 401]
