"""Idempotency keys: the same request again gets the stored response, and never a second effect.

Work that calls a provider claims its key in the commit that makes its intent durable (`begin`), and stores the response when it ends.
Work that is done in one commit claims and answers in that commit: `once`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import msgspec

from gateway.core.errors import CallerError, StoreError
from gateway.ports import (
    Claim,
    Clock,
    Commit,
    Committed,
    Conflict,
    Done,
    InFlight,
    Mismatch,
    Replay,
    Response,
    Store,
    StoredResponse,
)

CLAIM_LIFETIME_MS = 24 * 3600 * 1000  # DOMAIN: keys last 24 h
CONFLICTS_MAX = 10  # callback, inquiry and request race over one payment: three writers, each of whom wins in turn


class IdempotencyKey(msgspec.Struct, frozen=True):
    """`fingerprint` is a keyed hash of the request: its path and body."""

    merchant_id: str
    key: str
    fingerprint: bytes

    def claim(self, subject_id: str, now_ms: int) -> Claim:
        lapsed_ms = now_ms - CLAIM_LIFETIME_MS
        return Claim(self.merchant_id, self.key, self.fingerprint, subject_id, now_ms, lapsed_ms)

    def answer(self, response: Response) -> StoredResponse:
        return StoredResponse(self.merchant_id, self.key, response)


T = TypeVar("T")


async def begin(
    decide: Callable[[], tuple[Commit, T]],
    key: IdempotencyKey | None,
    *,
    subject_id: str,
    store: Store,
    commit: Callable[[Commit], Awaitable[Committed]],
    clock: Clock,
) -> T | InFlight | Response:
    """Makes durable the intent that `decide` gives beside a value, once per key. Returns that value to whoever is to carry it out;
    InFlight if the same request began before and was not answered, its Response if it was. `decide` reads what is stored, and is asked
    again after a conflict. Raises CallerError 422 for the key's sake, and what `decide` raises."""
    for _ in range(CONFLICTS_MAX):
        claim = None if key is None else key.claim(subject_id, clock.now_ms())
        committed: Committed | None
        try:
            intent, begun = decide()
        except CallerError:
            # Maybe because of this very request, the first time it came.
            committed = None if claim is None else store.claimed(claim)
            if committed is None:
                raise
        else:
            committed = await commit(msgspec.structs.replace(intent, claim=claim))
        match committed:
            case Done():
                return begun
            case Replay():
                return committed.response
            case InFlight():
                return committed
            case Mismatch():
                raise mismatch()
            case Conflict():
                continue
    raise StoreError(f"{subject_id}: {CONFLICTS_MAX} conflicts in a row")


async def once(
    decide: Callable[[], tuple[Commit, Response]],
    key: IdempotencyKey | None,
    *,
    subject_id: str,
    store: Store,
    commit: Callable[[Commit], Awaitable[Committed]],
    clock: Clock,
) -> Response:
    """Carries out in one commit what `decide` says, once per key; as `begin`, but it is answered by the same commit. Raises CallerError 409
    or 422 for the key's sake, and what `decide` raises."""

    def answered() -> tuple[Commit, Response]:
        write, response = decide()
        return (write if key is None else msgspec.structs.replace(write, response=key.answer(response))), response

    began = await begin(answered, key, subject_id=subject_id, store=store, commit=commit, clock=clock)
    if isinstance(began, InFlight):
        raise still_running()
    return began


def still_running() -> CallerError:
    return CallerError(409, "idempotency_in_flight", "a request with this Idempotency-Key is still running; retry in a moment")


def mismatch() -> CallerError:
    return CallerError(422, "idempotency_key_reused", "this Idempotency-Key was used with another request; use a new key")


class Running:
    """The keys of requests that this process is working on. Whoever repeats one of them finds its claim unanswered, but not interrupted."""

    def __init__(self) -> None:
        self._keys: set[IdempotencyKey] = set()

    @contextmanager
    def of(self, key: IdempotencyKey | None) -> Iterator[None]:
        """Raises CallerError 409 if a request with this key is under way."""
        if key is None:
            yield
            return
        if key in self._keys:
            raise still_running()
        self._keys.add(key)
        try:
            yield
        finally:
            self._keys.discard(key)


class Turns:
    """One at a time for each payment, first come, first served. The store refuses whoever decided on an old version; without turns a
    hundred refunds at once would refuse each other a hundred times."""

    def __init__(self) -> None:
        self._locks: dict[
            str, tuple[asyncio.Lock, int]
        ] = {}  # with how many hold or await it: nobody is in here longer than that

    @asynccontextmanager
    async def of(self, payment_id: str) -> AsyncIterator[None]:
        lock, users = self._locks.get(payment_id) or (asyncio.Lock(), 0)
        self._locks[payment_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[payment_id]
            if users == 1:
                del self._locks[payment_id]
            else:
                self._locks[payment_id] = (lock, users - 1)
