"""Sends webhooks over pooled connections."""

import aiohttp

from gateway.outbound import open_session
from gateway.ports import Receipt

CONNECTIONS_MAX = 256  # over all endpoints; each endpoint has its own bound besides
ANSWER_BYTES_MAX = 64 * 1024  # a receiver's body is not looked at, only read so that its connection can be used again


class HttpCourier:
    """A `Courier`. `close` it."""

    def __init__(self, *, timeout_ms: int) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_ms / 1000)
        self._session = open_session(connections_max=CONNECTIONS_MAX)

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Receipt:
        try:
            async with self._session.post(
                url, data=body, headers=headers, timeout=self._timeout, allow_redirects=False
            ) as answer:
                await answer.content.read(ANSWER_BYTES_MAX)
                return Receipt(answer.status, retry_after_s=_seconds(answer.headers.get("Retry-After")))
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return Receipt(None, type(error).__name__)

    async def close(self) -> None:
        await self._session.close()


def _seconds(header: str | None) -> int | None:
    """`Retry-After` in seconds. Its other form, a date, is not honoured: the backoff is."""
    return int(header) if header is not None and header.isascii() and header.isdigit() and len(header) < 10 else None
