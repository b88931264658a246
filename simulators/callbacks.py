"""Callbacks to the gateway: signed, tried a bounded number of times, never in the way of anything else.

At most OUTSTANDING_MAX wait or are under way; one beyond that is given up at once and logged: callers must ask by
status inquiry anyway. Workers send them; a callback that waits for its next try holds a timer and no worker.

Each try may meet a fault of the operation `callback`, drawn for it alone. See docs/faults.md for what the receiver sees.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec
import structlog

from simulators.faults import Call, Injected
from simulators.intake import UNKNOWN
from simulators.journal import Entry
from simulators.phases import Conducts
from simulators.signatures import TIMESTAMP_TOLERANCE_S, sign
from simulators.world import Record, World

TIMEOUT_S = 5.0
RETRY_DELAYS_S = (0.5, 1.0, 2.0, 4.0)
OUTSTANDING_MAX = 100_000  # at 1 kB each 100 MB; more than five minutes of payments at twice the target rate
WORKERS = 128  # a gateway that answers within 100 ms gets 1 280 a second, a dead one takes 25 a second off the queue
HELD_MS_MAX = 60_000  # a callback that is to come after a later one goes out anyway, as most charges have only one
OLD_S = 2 * TIMESTAMP_TOLERANCE_S  # clearly beyond what a receiver may accept

log = structlog.get_logger()


class _Callback(msgspec.Struct, frozen=True):
    id: str
    provider: str
    reference: str  # of the charge
    subject: Any  # the charge, or what belongs to it and has a type: a refund, a dispute, a mandate
    type: str
    url: str
    body: bytes
    merchant_id: str | None
    order_id: str | None

    @property
    def key(self) -> str:
        """What its draws belong to: a charge has one callback of its own, and any number about its refunds and disputes."""
        return f"{self.reference}:{self.id}" if self.type else self.reference


class _Try(msgspec.Struct, frozen=True):
    callback: _Callback
    attempt: int
    era: int  # see `Callbacks.forget`
    fault: Injected | None = None
    due: bool = False  # its fault was drawn, and what it had to wait for is over


class Callbacks:
    """Sends callbacks. Use as an async context manager; `send` works inside of it only.

    `keys` and `conducts` are by provider; one without conducts has no faults.
    """

    def __init__(
        self,
        *,
        keys: Mapping[str, bytes],
        world: World,
        conducts: Mapping[str, Conducts],
        retry_delays_s: tuple[float, ...] = RETRY_DELAYS_S,
        outstanding_max: int = OUTSTANDING_MAX,
        workers: int = WORKERS,
    ) -> None:
        self._keys = keys
        self._world = world
        self._conducts = conducts
        self._retry_delays_s = retry_delays_s
        self._outstanding_max = outstanding_max
        self._workers_count = workers
        self._era = 0
        self._queue: asyncio.Queue[_Try] = asyncio.Queue()  # bounded by `outstanding_max`
        self._held: dict[
            tuple[str, str], _Try
        ] = {}  # by provider and charge: the try that waits for a later callback; as bounded
        self._outstanding = 0
        self._given_up = 0
        self._workers: list[asyncio.Task[None]] = []
        self._idle = 0  # workers that wait for something to do
        world.remember(self)
        world.remember(self._queue)

    async def __aenter__(self) -> "Callbacks":
        # A session of its own: no cookies, no redirects, as many connections as there are workers.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._workers_count),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._hire()
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.cancel()
        ends = await asyncio.gather(*self._workers, return_exceptions=True)
        await self._session.close()
        for end in ends:
            if isinstance(end, Exception):  # a worker that died of a bug must not go unnoticed
                raise end

    def send(
        self,
        provider: str,
        subject: Any,  # noqa: ANN401 - a Charge, Refund, Dispute or Mandate
        url: str,
        callback_type: str = "",
        *,
        record: Record = UNKNOWN,
    ) -> None:
        """Sends `subject` to `url`, in the background. What is not a charge has a `callback_type`, which becomes its `type`.
        `record` says whose it is, for faults and the journal."""
        reference = getattr(subject, "chargeReference", None) or subject.reference
        if self._outstanding >= self._outstanding_max:
            self._give_up(reference, reason=f"{self._outstanding_max} callbacks are outstanding")
            return
        self._outstanding += 1
        fields = {"id": callback_id(subject, callback_type), "provider": provider}
        fields |= {"type": callback_type} if callback_type else {}
        body = msgspec.json.encode(fields | msgspec.to_builtins(subject))
        whose = (record.merchant_id, record.order_id)
        one = _Callback(fields["id"], provider, reference, subject, callback_type, url, body, *whose)
        self._queue.put_nowait(_Try(one, 1, self._era))

    @property
    def outstanding(self) -> int:
        """How many wait or are under way."""
        return self._outstanding

    def forget(self) -> None:
        """Sends nothing more of what waits or is under way, and journals nothing of it: it belongs to an era that is over."""
        self._era += 1
        while not self._queue.empty():
            self._queue.get_nowait()
        self._held.clear()
        self._outstanding = 0

    def _hire(self) -> None:
        self._workers.append(asyncio.create_task(self._work()))
        self._idle += 1

    async def _work(self) -> None:
        while True:
            one = await self._queue.get()
            self._idle -= 1
            if not self._idle and len(self._workers) < self._workers_count:  # most worlds, and there are many, need a few
                self._hire()
            await self._attend(one)
            self._idle += 1

    async def _attend(self, one: _Try) -> None:
        if one.era != self._era:
            return
        if not one.due:
            one = msgspec.structs.replace(one, fault=self._pick(one), due=True)
            if self._postponed(one):
                return
        await self._perform(one)

    def _pick(self, one: _Try) -> Injected | None:
        callback, world = one.callback, self._world
        conducts = self._conducts.get(callback.provider)
        elapsed_ms = world.elapsed_ms(world.now_ms())
        faults = conducts.at(elapsed_ms).faults if conducts else None
        if faults is None or "callback" not in faults.operations:
            return None
        call = Call("callback", one.attempt, elapsed_ms, callback.merchant_id, callback.subject.amount)
        return faults.pick(call, world.draws.draw(callback.provider, "callback", callback.key, one.attempt).fault)

    def _postponed(self, one: _Try) -> bool:
        """Whether the try has to wait, as its fault wants it. If so it comes back to the queue."""
        clock, fault = self._world.clock, one.fault
        if fault is not None and fault.kind == "late":
            clock.call_at(clock.now_ms() + fault.delay_ms, self._queue.put_nowait, one)
            return True
        where = (one.callback.provider, one.callback.reference)
        if fault is not None and fault.kind == "out_of_order" and where not in self._held:
            self._held[where] = one
            clock.call_at(clock.now_ms() + HELD_MS_MAX, self._release, where, one)
            return True
        return False

    def _release(self, where: tuple[str, str], one: _Try | None) -> None:
        if one is not None and self._held.get(where) is one:
            self._queue.put_nowait(self._held.pop(where))

    async def _perform(self, one: _Try) -> None:
        """Makes this try, or tries, and journals what came of it. The first answer counts."""
        callback, kind = one.callback, one.fault.kind if one.fault else None
        if kind == "lost":
            self._journal(one, callback, None)
            self._outstanding -= 1
            return
        if kind == "twice_at_once":
            outcomes = list(await asyncio.gather(self._post(callback, kind), self._post(callback, kind)))
        else:
            outcomes = [await self._post(callback, kind) for _ in range(2 if kind == "twice" else 1)]
        for outcome in outcomes:
            self._journal(one, callback, outcome)
        if kind == "unknown_payment":
            stranger = _about_nobody(callback)
            self._journal(one, stranger, await self._post(stranger, kind))
        if one.era != self._era:
            return
        where = (callback.provider, callback.reference)
        self._release(where, self._held.get(where))
        self._finish(one, outcomes[0])

    def _journal(self, one: _Try, callback: _Callback, outcome: int | str | None) -> None:
        if one.era != self._era:
            return
        self._world.journal.append(
            Entry(
                self._world.now_ms(),
                callback.provider,
                "callback",
                callback.reference,
                one.attempt,
                callback.subject,
                delay_ms=one.fault.delay_ms if one.fault else 0,
                fault=one.fault.kind if one.fault else None,
                callback_status=outcome if isinstance(outcome, int) else None,
                merchant=callback.merchant_id,
                order=callback.order_id,
                subject=subject_id(callback.subject) if callback.type else None,
                fault_id=one.fault.id if one.fault else None,
            )
        )

    def _finish(self, one: _Try, outcome: int | str) -> None:
        if isinstance(outcome, int) and 200 <= outcome < 300:
            self._outstanding -= 1
        elif one.attempt <= len(self._retry_delays_s):
            again = _Try(one.callback, one.attempt + 1, one.era)
            asyncio.get_running_loop().call_later(self._retry_delays_s[one.attempt - 1], self._queue.put_nowait, again)
        else:
            self._outstanding -= 1
            self._give_up(one.callback.reference, reason=f"{one.attempt} tries failed, the last with {outcome}")

    async def _post(self, callback: _Callback, kind: str | None) -> int | str:
        """The HTTP status of the answer, or why there was none."""
        stamp = self._world.clock.system_ms() // 1000 - (OLD_S if kind == "old_timestamp" else 0)
        key = self._keys[callback.provider]
        if kind == "bad_signature":
            key = hashlib.sha256(key).digest()  # a signature as it should look, under a key that nobody has
        headers = {
            "content-type": "application/json",
            "webhook-id": callback.id,
            "webhook-timestamp": str(stamp),
            "webhook-signature": sign(key, callback.id, stamp, callback.body),
        }
        try:
            async with self._session.post(callback.url, data=callback.body, headers=headers, allow_redirects=False) as answer:
                return answer.status
        except (aiohttp.ClientError, OSError, ValueError) as error:  # ValueError: a URL that only its use shows to be wrong
            return repr(error)

    def _give_up(self, reference: str, *, reason: str) -> None:
        self._given_up += 1
        if self._given_up & (self._given_up - 1) == 0:  # the 1st, 2nd, 4th, 8th, ...: an outage must not flood the log
            log.warning("callback_given_up", reference=reference, reason=reason, given_up=self._given_up)


def subject_id(subject: Any) -> str:  # noqa: ANN401 - a Charge, Refund, Dispute or Mandate
    """The provider's id of what a callback is about."""
    found: str = getattr(subject, "disputeID", None) or subject.providerID
    return found


def callback_id(subject: Any, callback_type: str) -> str:  # noqa: ANN401 - a Charge, Refund, Dispute or Mandate
    """The id of a callback, the same in each of its tries; disputes and mandates have a callback for each status."""
    return f"cb_{subject_id(subject)}_{subject.status}" if callback_type else f"cb_{subject_id(subject)}"


def _about_nobody(callback: _Callback) -> _Callback:
    """The same callback for a payment that does not exist; its ids are a hash of the real one's, the same in each run."""
    number = hashlib.sha256(callback.id.encode()).hexdigest()[:16]
    reference, provider_id = f"unknown_{number}", f"{callback.provider}_{number}"
    fields = msgspec.json.decode(callback.body) | {"id": f"cb_{provider_id}"}
    strange = {"reference": reference, "chargeReference": reference, "providerID": provider_id, "disputeID": provider_id}
    fields |= {name: value for name, value in strange.items() if name in fields}
    return msgspec.structs.replace(
        callback, id=fields["id"], reference=reference, subject=None, type="", body=msgspec.json.encode(fields)
    )
