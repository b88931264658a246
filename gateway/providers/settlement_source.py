"""Fetches a provider's settlement files over HTTP."""

from typing import BinaryIO

import aiohttp
from yarl import URL

from gateway.core.errors import FileRefused
from gateway.core.reconciliation import FileFormat
from gateway.outbound import open_session

FILE_BYTES_MAX = 4 * 1024**3  # a million entries of camt.053 are 1 GB
CHUNK_BYTES = 64 * 1024
TIMEOUT = aiohttp.ClientTimeout(
    total=1_800, connect=5, sock_read=60
)  # a provider may have to add up a long day before it begins


class HttpSettlementFiles:
    """A `SettlementFiles`: `{url}/{date}?format=csv`. `close` it."""

    def __init__(self, url: str) -> None:
        self._url = URL(url)
        self._session = open_session(connections_max=2)

    async def fetch(self, date: str, file_format: FileFormat, into: BinaryIO, *, currency: str | None = None) -> None:
        asked = {"format": file_format} | ({} if currency is None else {"currency": currency})
        url = (self._url / date).with_query(self._url.query).update_query(asked)
        size = 0
        try:
            async with self._session.get(url, timeout=TIMEOUT, allow_redirects=False) as answer:
                if answer.status != 200:
                    raise FileRefused(f"the provider answered HTTP {answer.status} for the file of {date}")
                async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                    size += len(chunk)
                    if size > FILE_BYTES_MAX:
                        raise FileRefused(f"the file is larger than {FILE_BYTES_MAX} bytes")
                    into.write(chunk)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise FileRefused(f"the file of {date} did not come, or breaks off: {type(error).__name__}") from error

    async def close(self) -> None:
        await self._session.close()
