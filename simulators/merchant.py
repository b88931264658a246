"""A merchant that receives webhooks: checks both signatures, remembers, and writes the journal.

In the journal, `reference` of a webhook is the receiver's name (the last part of its URL): each name is a receiver of
its own.
"""

import asyncio

import msgspec
from aiohttp import web

from simulators.journal import Entry, Webhook
from simulators.latency import LatencyTable
from simulators.provider import World
from simulators.signatures import valid
from simulators.wire import DELAY_HEADER, JSON, Refused, check_ascii, read

NAME_LENGTH_MAX = 64
WEBHOOK_ID_LENGTH_MAX = 256


class Receiver:
    """Receives the webhooks of all merchants."""

    def __init__(self, world: World, *, key: bytes, latency: LatencyTable) -> None:
        self._world = world
        self._key = key
        self.latency = latency
        self._received: dict[tuple[str, str], int] = {}  # how often, by name and webhook id; only what was signed
        world.remember(self, "_received")

    async def receive(self, request: web.BaseRequest, name: str) -> web.Response:
        """200 for a webhook that verifies, also when it is a repetition; 401 for one that does not."""
        webhook_id = request.headers.get("webhook-id", "")
        if not name:
            raise Refused(400, "invalid_request", "the receiver has no name; put one at the end of the path")
        if len(name) > NAME_LENGTH_MAX or len(webhook_id) > WEBHOOK_ID_LENGTH_MAX:
            raise Refused(400, "invalid_request", "the receiver's name or the webhook-id is too long")
        check_ascii("the receiver's name", name)
        check_ascii("the webhook-id", webhook_id)
        body = await read(request)
        now_ms = self._world.now_ms()
        signed = valid(self._key, request.headers, body, now_s=self._world.clock.system_ms() // 1000)
        attempt = self._received.get((name, webhook_id), 0) + 1
        if signed:
            self._received[name, webhook_id] = attempt
        delay_ms = self.latency.pick(self._world.draws.draw("merchant", "webhook", f"{name}\0{webhook_id}", attempt).latency)
        line = json_line(body)
        webhook = Webhook(webhook_id, signature_valid=signed, duplicate=attempt > 1, body=line)
        self._world.journal.append(
            Entry(now_ms, "merchant", "webhook", name, attempt, None, delay_ms=delay_ms, webhook=webhook)
        )
        if delay_ms:
            await asyncio.sleep(delay_ms / 1000)
        if not signed:
            raise Refused(401, "bad_signature", "the signatures or the timestamp of this webhook do not verify")
        if line is None:
            raise Refused(400, "invalid_request", "the body is not a JSON object")
        return web.Response(body=b'{"received":true}', headers=JSON | {DELAY_HEADER: str(delay_ms)})


def json_line(body: bytes) -> bytes | None:
    """The JSON object in `body` on one line, `None` if there is none. Line breaks in JSON are always mere white space."""
    try:
        if not isinstance(msgspec.json.decode(body), dict):
            return None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return body.replace(b"\n", b" ").replace(b"\r", b" ")
