"""The story of a webhook: signed, sent, and what becomes of it. The outbox's queues are in workers.py."""

from collections.abc import Callable

import msgspec

from gateway.config import Endpoint, Webhooks
from gateway.core import signature, webhook
from gateway.ports import Clock, Courier, Delivery


class Target(msgspec.Struct, frozen=True):
    """An endpoint with its signing key decoded."""

    endpoint_id: str
    url: str
    key: bytes

    @classmethod
    def of(cls, endpoint: Endpoint) -> "Target":
        return cls(endpoint.id, endpoint.url, signature.secret_key(endpoint.secret))


class Sender:
    def __init__(self, *, courier: Courier, clock: Clock, config: Webhooks, draw: Callable[[], float]) -> None:
        """`draw` is uniform in [0, 1), for the jitter."""
        self._courier = courier
        self._clock = clock
        self._policy = webhook.Policy(config.tries_max, config.backoff_base_ms)
        self._draw = draw

    async def send(self, target: Target, delivery: Delivery, body: bytes) -> tuple[Delivery, webhook.Fate]:
        """One try. Returns the delivery as it is afterwards, and what became of it."""
        headers = self._headers(target, delivery.event_id, body)
        receipt = await self._courier.post(target.url, headers, body)
        tries = delivery.tries + 1
        fate = webhook.fate(status=receipt.status, tries=tries, policy=self._policy)
        if fate == "delivered":
            return msgspec.structs.replace(delivery, state="delivered", tries=tries, due_at_ms=None, last_error=None), fate
        error = receipt.error or f"HTTP {receipt.status}"
        if fate != "retry":
            return msgspec.structs.replace(delivery, state="dead", tries=tries, due_at_ms=None, last_error=error), fate
        wait_ms = webhook.delay_ms(
            status=receipt.status,
            tries=tries,
            retry_after_s=receipt.retry_after_s,
            draw=self._draw(),
            policy=self._policy,
        )
        due_at_ms = self._clock.now_ms() + wait_ms
        return msgspec.structs.replace(delivery, tries=tries, due_at_ms=due_at_ms, last_error=error), fate

    def _headers(self, target: Target, event_id: str, body: bytes) -> dict[str, str]:
        timestamp_s = self._clock.now_ms() // 1000
        return {
            "Content-Type": "application/json",
            "webhook-id": event_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": signature.sign(target.key, event_id, timestamp_s, body),
            "X-Webhook-Signature": signature.sign_body(target.key, body),
        }
