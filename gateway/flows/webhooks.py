"""The story of a webhook: signed, sent, and what becomes of it. The outbox's queues are in workers.py."""

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from gateway.config import Webhooks
from gateway.core import signature, webhook
from gateway.ports import Clock, Courier, Delivery, Receipt, Try

LOG_MAX = 10  # tries that are kept of a delivery: more than a round of 8 has, and at most 7 KiB


class Target(msgspec.Struct, frozen=True):
    """An endpoint as it is called: its signing key decoded, and the old one, which signs, too, for a while after a rotation."""

    endpoint_id: str
    url: str
    key: bytes
    old_key: bytes | None = None
    old_key_until_ms: int = 0

    def __repr__(self) -> str:
        return f"Target({self.endpoint_id})"


class Sender:
    def __init__(self, *, courier: Courier, clock: Clock, config: Webhooks, draw: Callable[[], float]) -> None:
        """`draw` is uniform in [0, 1), for the jitter."""
        self._courier = courier
        self._clock = clock
        self._policy = webhook.Policy(config.tries_max, config.backoff_base_ms)
        self._draw = draw

    async def send(self, target: Target, delivery: Delivery, body: bytes) -> tuple[Delivery, webhook.Fate]:
        """One try. Returns the delivery as it is afterwards, and what became of it."""
        started_ms = self._clock.now_ms()
        headers = _headers(target, delivery.event_id, body, started_ms)
        receipt = await self._courier.post(target.url, headers, body)
        now_ms = self._clock.now_ms()
        log = (*delivery.log, _try(receipt, started_ms, now_ms))[-LOG_MAX:]
        tries = delivery.tries + 1
        fate = webhook.fate(status=receipt.status, tries=tries, policy=self._policy)
        if fate == "delivered":
            return replace(delivery, state="delivered", tries=tries, due_at_ms=None, last_error=None, log=log), fate
        error = receipt.error or f"HTTP {receipt.status}"
        if fate != "retry":
            return replace(delivery, state="dead", tries=tries, due_at_ms=None, last_error=error, log=log), fate
        wait_ms = webhook.delay_ms(
            status=receipt.status,
            tries=tries,
            retry_after_s=receipt.retry_after_s,
            draw=self._draw(),
            policy=self._policy,
        )
        return replace(delivery, tries=tries, due_at_ms=now_ms + wait_ms, last_error=error, log=log), fate


def _try(receipt: Receipt, started_ms: int, now_ms: int) -> Try:
    response = receipt.body.decode(errors="replace") or None
    return Try(started_ms, max(0, now_ms - started_ms), receipt.status, receipt.error, response)


def _headers(target: Target, event_id: str, body: bytes, now_ms: int) -> dict[str, str]:
    timestamp_s = now_ms // 1000
    signatures = signature.sign(target.key, event_id, timestamp_s, body)
    if target.old_key is not None and now_ms < target.old_key_until_ms:
        signatures += " " + signature.sign(target.old_key, event_id, timestamp_s, body)
    return {
        "Content-Type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": signatures,
        "X-Webhook-Signature": signature.sign_body(target.key, body),
    }
