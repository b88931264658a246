"""Sends webhooks over pooled connections."""

import aiohttp

from gateway.outbound import Guard, NotAllowed, open_session
from gateway.ports import Receipt

CONNECTIONS_MAX = 1_024  # over all endpoints: 16 merchants with nothing but slow receivers, at 64 for each (flows/outbox.py)
ANSWER_BYTES_MAX = 64 * 1024  # of a receiver's body, read so that its connection can be used again
KEPT_BYTES_MAX = 512  # of it are kept for the merchant's developer: an error message, not a page


class HttpCourier:
    """A `Courier`. `close` it."""

    def __init__(self, *, timeout_ms: int, guard: Guard) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_ms / 1000)
        self._session = open_session(connections_max=CONNECTIONS_MAX, guard=guard)

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Receipt:
        try:
            async with self._session.post(
                url, data=body, headers=headers, timeout=self._timeout, allow_redirects=False
            ) as answer:
                said = await answer.content.read(ANSWER_BYTES_MAX)
                retry_after_s = _seconds(answer.headers.get("Retry-After"))
                return Receipt(answer.status, retry_after_s=retry_after_s, body=said[:KEPT_BYTES_MAX])
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return Receipt(None, _reason(error))

    async def close(self) -> None:
        await self._session.close()


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, NotAllowed):
        return str(error.os_error)
    return type(error).__name__


def _seconds(header: str | None) -> int | None:
    """`Retry-After` in seconds. Its other form, a date, is not honoured: the backoff is."""
    return int(header) if header is not None and header.isascii() and header.isdigit() and len(header) < 10 else None
