"""Callbacks to the gateway: signed, tried a bounded number of times, never in the way of anything else.

At most OUTSTANDING_MAX wait or are under way; one beyond that is given up at once and logged: callers must ask by
status inquiry anyway. Workers send them; a callback that waits for its next try holds a timer and no worker.
"""

import asyncio
from collections.abc import Callable

import aiohttp
import msgspec
import structlog

from simulators.charges import Charge
from simulators.journal import Entry, Journal
from simulators.signatures import sign

TIMEOUT_S = 5.0
RETRY_DELAYS_S = (0.5, 1.0, 2.0, 4.0)
OUTSTANDING_MAX = 100_000  # at 1 kB each 100 MB; more than five minutes of payments at twice the target rate
WORKERS = 128  # a gateway that answers within 100 ms gets 1 280 a second, a dead one takes 25 a second off the queue

log = structlog.get_logger()


class _Callback(msgspec.Struct, frozen=True):
    id: str
    provider: str
    charge: Charge
    url: str
    body: bytes


class Callbacks:
    """Sends callbacks. Use as an async context manager; `send` works inside of it only."""

    def __init__(
        self,
        *,
        keys: dict[str, bytes],
        journal: Journal,
        now_ms: Callable[[], int],
        retry_delays_s: tuple[float, ...] = RETRY_DELAYS_S,
        outstanding_max: int = OUTSTANDING_MAX,
    ) -> None:
        self._keys = keys
        self._journal = journal
        self._now_ms = now_ms
        self._retry_delays_s = retry_delays_s
        self._outstanding_max = outstanding_max
        self._queue: asyncio.Queue[tuple[_Callback, int]] = asyncio.Queue()  # bounded by `outstanding_max`
        self._outstanding = 0
        self._given_up = 0
        self._workers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Callbacks":
        # A session of its own: no cookies, no redirects, as many connections as there are workers.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=WORKERS),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._workers = [asyncio.create_task(self._work()) for _ in range(WORKERS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.cancel()
        ends = await asyncio.gather(*self._workers, return_exceptions=True)
        await self._session.close()
        for end in ends:
            if isinstance(end, Exception):  # a worker that died of a bug must not go unnoticed
                raise end

    def send(self, provider: str, charge: Charge, url: str) -> None:
        """Sends the charge to `url`, in the background."""
        if self._outstanding >= self._outstanding_max:
            self._give_up(charge, reason=f"{self._outstanding_max} callbacks are outstanding")
            return
        self._outstanding += 1
        callback_id = f"cb_{charge.providerID}"
        fields = {"id": callback_id, "provider": provider, **msgspec.to_builtins(charge)}
        self._queue.put_nowait((_Callback(callback_id, provider, charge, url, msgspec.json.encode(fields)), 1))

    async def _work(self) -> None:
        while True:
            callback, attempt = await self._queue.get()
            outcome = await self._post(callback)
            status = outcome if isinstance(outcome, int) else None
            self._journal.append(
                Entry(
                    self._now_ms(),
                    callback.provider,
                    "callback",
                    callback.charge.reference,
                    attempt,
                    callback.charge,
                    callback_status=status,
                )
            )
            self._finish(callback, attempt, outcome)

    def _finish(self, callback: _Callback, attempt: int, outcome: int | str) -> None:
        if isinstance(outcome, int) and 200 <= outcome < 300:
            self._outstanding -= 1
        elif attempt <= len(self._retry_delays_s):
            loop = asyncio.get_running_loop()
            loop.call_later(self._retry_delays_s[attempt - 1], self._queue.put_nowait, (callback, attempt + 1))
        else:
            self._outstanding -= 1
            self._give_up(callback.charge, reason=f"{attempt} tries failed, the last with {outcome}")

    async def _post(self, callback: _Callback) -> int | str:
        """The HTTP status of the answer, or why there was none."""
        stamp = self._now_ms() // 1000
        headers = {
            "content-type": "application/json",
            "webhook-id": callback.id,
            "webhook-timestamp": str(stamp),
            "webhook-signature": sign(self._keys[callback.provider], callback.id, stamp, callback.body),
        }
        try:
            async with self._session.post(callback.url, data=callback.body, headers=headers, allow_redirects=False) as answer:
                return answer.status
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a URL that only its use shows to be wrong
            return repr(error)

    def _give_up(self, charge: Charge, *, reason: str) -> None:
        self._given_up += 1
        if self._given_up & (self._given_up - 1) == 0:  # the 1st, 2nd, 4th, 8th, ...: an outage must not flood the log
            log.warning("callback_given_up", reference=charge.reference, reason=reason, given_up=self._given_up)
