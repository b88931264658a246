"""The story of a webhook endpoint: made, changed, ended; by its merchant, by the configuration, or by its receiver's 410.

All that exist are held in memory, so that asking where an event goes costs nothing. A change is durable first, and only then applies.
"""

import base64
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Literal

import msgspec
import structlog
from msgspec.structs import replace

from gateway import config
from gateway.core import signature
from gateway.core.endpoint import ENDPOINTS_MAX, Endpoint, wants
from gateway.core.errors import CallerError, invalid, not_found
from gateway.core.event import PUBLISHED, EventType
from gateway.flows.idempotency import IdempotencyKey, Turns, once
from gateway.flows.outbox import Outbox
from gateway.flows.webhooks import Target
from gateway.ports import Clock, Commit, Committed, Done, Ids, Response, Store
from gateway.vault import Vault

SECRET_SIZE = 32  # bytes, as long as what HMAC-SHA256 makes of it

log = structlog.get_logger("gateway.endpoints")

Render = Callable[[Endpoint, str | None], Response]
"""The answer; the secret is given where it is told, once."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a merchant wants of an endpoint; UNSET is left as it is."""

    url: str | msgspec.UnsetType = msgspec.UNSET
    events: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    description: str | msgspec.UnsetType | None = msgspec.UNSET
    state: Literal["enabled", "disabled"] | msgspec.UnsetType = msgspec.UNSET


class Endpoints:
    def __init__(
        self,
        *,
        store: Store,
        outbox: Outbox,
        fault_of: Callable[[str], Awaitable[str | None]],
        vault: Vault,
        clock: Clock,
        ids: Ids,
    ) -> None:
        """`fault_of` says why a URL may not be called, None if it may."""
        self._store = store
        self._outbox = outbox
        self._fault_of = fault_of
        self._vault = vault
        self._clock = clock
        self._ids = ids
        self._turns = Turns()  # a merchant's changes come one after the other
        self._known: dict[str, Endpoint] = {}
        self._routes: dict[str, Mapping[EventType, Sequence[str]]] = {}

    def endpoints_of(self, merchant_id: str, event_type: EventType) -> Iterable[str]:
        """The ids of the endpoints that this event goes to."""
        return self._routes.get(merchant_id, {}).get(event_type, ())

    def of(self, merchant_id: str) -> list[Endpoint]:
        """The oldest first."""
        mine = [endpoint for endpoint in self._known.values() if endpoint.merchant_id == merchant_id]
        return sorted(mine, key=lambda endpoint: (endpoint.created_at_ms, endpoint.id))

    def one(self, merchant_id: str, endpoint_id: str) -> Endpoint:
        """Raises CallerError 404 if there is none, or if it is somebody else's."""
        endpoint = self._known.get(endpoint_id)
        if endpoint is None or endpoint.merchant_id != merchant_id:
            raise not_found("webhook endpoint")
        return endpoint

    # Start

    async def start(self, configured: Sequence[config.Endpoint]) -> None:
        """Opens what is stored, after the configuration has been applied where it has changed since it was last: of configuration and API,
        whoever spoke last counts. What was taken out of the configuration is deleted."""
        stored = {endpoint.id: endpoint for endpoint in self._store.endpoints()}
        for entry in configured:
            await self._configure(entry, stored.pop(entry.id, None))
        for endpoint in stored.values():
            if endpoint.configured is None:
                self._apply(endpoint)
            else:
                await self._commit(Commit(endpoint=replace(self._ended(endpoint), configured=None)))

    async def _configure(self, entry: config.Endpoint, before: Endpoint | None) -> None:
        fingerprint = self._vault.fingerprint("\0".join((entry.merchant_id, entry.url, entry.secret)).encode())
        if before is not None and before.configured == fingerprint:
            self._apply(before)
            return
        now_ms = self._clock.now_ms()
        endpoint = Endpoint(
            id=entry.id,
            merchant_id=entry.merchant_id,
            url=entry.url,
            secret=self._vault.seal_secret(entry.secret.encode(), owner=entry.id),
            configured=fingerprint,
            created_at_ms=now_ms if before is None else before.created_at_ms,
            updated_at_ms=now_ms,
        )
        if before is not None:
            endpoint = replace(endpoint, events=before.events, description=before.description)
        log.info("endpoint.configured", endpoint_id=entry.id, merchant_id=entry.merchant_id)
        await self._commit(Commit(endpoint=endpoint))

    # Change

    async def create(self, merchant_id: str, wish: Wish, key: IdempotencyKey | None, render: Render) -> Response:
        """Raises CallerError 400 for a URL that may not be called, 409 for one too many, or 409 or 422 for the key's sake."""
        endpoint_id = self._ids.new("ep")
        await self._check_url(wish, key)
        secret = new_secret()

        def decide() -> tuple[Endpoint, Response]:
            if len(self.of(merchant_id)) >= ENDPOINTS_MAX:
                raise CallerError(
                    409, "too_many_endpoints", f"a merchant has at most {ENDPOINTS_MAX} endpoints; delete one first"
                )
            now_ms = self._clock.now_ms()
            sealed = self._vault.seal_secret(secret.encode(), owner=endpoint_id)
            made = Endpoint(
                id=endpoint_id, merchant_id=merchant_id, url="", secret=sealed, created_at_ms=now_ms, updated_at_ms=now_ms
            )
            return self._told(_changed(made, wish, now_ms), secret, render)

        return self._opened(merchant_id, await self._change(merchant_id, endpoint_id, key, decide))

    async def update(
        self, merchant_id: str, endpoint_id: str, wish: Wish, key: IdempotencyKey | None, render: Render
    ) -> Response:
        """Raises CallerError 404, 400 for a URL that may not be called, or 409 or 422 for the key's sake."""
        self.one(merchant_id, endpoint_id)
        await self._check_url(wish, key)

        def decide() -> tuple[Endpoint, Response]:
            after = _changed(self.one(merchant_id, endpoint_id), wish, self._clock.now_ms())
            return after, render(after, None)

        return await self._change(merchant_id, endpoint_id, key, decide)

    async def rotate(
        self, merchant_id: str, endpoint_id: str, overlap_ms: int, key: IdempotencyKey | None, render: Render
    ) -> Response:
        """A new secret; the old one signs, too, for `overlap_ms`. One that was still signing from before does not any more."""
        self.one(merchant_id, endpoint_id)
        secret = new_secret()

        def decide() -> tuple[Endpoint, Response]:
            now_ms = self._clock.now_ms()
            before = self.one(merchant_id, endpoint_id)
            after = replace(
                before,
                secret=self._vault.seal_secret(secret.encode(), owner=endpoint_id),
                old_secret=before.secret if overlap_ms else None,
                old_secret_until_ms=now_ms + overlap_ms if overlap_ms else None,
                updated_at_ms=now_ms,
            )
            return self._told(after, secret, render)

        return self._opened(merchant_id, await self._change(merchant_id, endpoint_id, key, decide))

    async def delete(self, merchant_id: str, endpoint_id: str) -> Endpoint:
        """What was not delivered becomes dead letters. Raises CallerError 404."""
        async with self._turns.of(merchant_id):
            deleted = self._ended(self.one(merchant_id, endpoint_id))
            await self._commit(Commit(endpoint=deleted))
        return deleted

    async def _gone(self, target: Target) -> None:
        """The receiver said 410. Not if it has been given another URL since."""
        endpoint = self._known.get(target.endpoint_id)
        if endpoint is None:
            return
        async with self._turns.of(endpoint.merchant_id):
            endpoint = self._known.get(target.endpoint_id)
            if endpoint is not None and endpoint.state == "enabled" and endpoint.url == target.url:
                log.warning("endpoint.gone", endpoint_id=endpoint.id)
                await self._commit(Commit(endpoint=replace(endpoint, state="gone", updated_at_ms=self._clock.now_ms())))

    async def _check_url(self, wish: Wish, key: IdempotencyKey | None) -> None:
        if isinstance(wish.url, msgspec.UnsetType):
            return
        if key is not None and self._store.claimed(key.claim("", self._clock.now_ms())) is not None:
            return  # this request came before, and its answer is stored: what DNS says now does not matter
        if (fault := await self._fault_of(wish.url)) is not None:
            raise invalid("url", fault, "url_not_allowed")

    async def _change(
        self, merchant_id: str, endpoint_id: str, key: IdempotencyKey | None, decide: Callable[[], tuple[Endpoint, Response]]
    ) -> Response:
        def both() -> tuple[Commit, Response]:
            endpoint, response = decide()
            return Commit(endpoint=endpoint), response

        async with self._turns.of(merchant_id):
            return await once(both, key, subject_id=endpoint_id, store=self._store, commit=self._commit, clock=self._clock)

    async def _commit(self, commit: Commit) -> Committed:
        committed = await self._store.commit(commit)
        if isinstance(committed, Done) and commit.endpoint is not None:
            self._apply(commit.endpoint)
        return committed

    def _told(self, endpoint: Endpoint, secret: str, render: Render) -> tuple[Endpoint, Response]:
        """An answer that tells a secret is sealed: it is stored for a day, for whoever repeats the request."""
        response = render(endpoint, secret)
        return endpoint, replace(response, body=self._vault.seal_secret(response.body, owner=endpoint.merchant_id))

    def _opened(self, merchant_id: str, response: Response) -> Response:
        return replace(response, body=self._vault.open_secret(response.body, owner=merchant_id))

    def _ended(self, endpoint: Endpoint) -> Endpoint:
        now_ms = self._clock.now_ms()
        return replace(endpoint, state="deleted", secret=b"", old_secret=None, old_secret_until_ms=None, updated_at_ms=now_ms)

    # Apply

    def _apply(self, endpoint: Endpoint) -> None:
        before = self._known.pop(endpoint.id, None)
        if endpoint.state != "deleted":
            self._known[endpoint.id] = endpoint
        for merchant_id in {endpoint.merchant_id, before.merchant_id if before else endpoint.merchant_id}:
            mine = [each for each in self.of(merchant_id) if each.state == "enabled"]
            self._routes[merchant_id] = {kind: tuple(each.id for each in mine if wants(each, kind)) for kind in PUBLISHED}
        if endpoint.state == "enabled":
            self._outbox.open(endpoint.merchant_id, self._target(endpoint), self._gone)
        elif before is not None:
            self._outbox.shut(endpoint.id, bury=endpoint.state != "disabled")

    def _target(self, endpoint: Endpoint) -> Target:
        def opened(sealed: bytes) -> bytes:
            return signature.secret_key(self._vault.open_secret(sealed, owner=endpoint.id).decode())

        until_ms = endpoint.old_secret_until_ms
        old_key = None if endpoint.old_secret is None or until_ms is None else opened(endpoint.old_secret)
        return Target(endpoint.id, endpoint.url, opened(endpoint.secret), old_key, until_ms or 0)


def _changed(endpoint: Endpoint, wish: Wish, now_ms: int) -> Endpoint:
    wanted = {name: value for name in wish.__struct_fields__ if not isinstance(value := getattr(wish, name), msgspec.UnsetType)}
    return replace(endpoint, **wanted, updated_at_ms=now_ms)


def new_secret() -> str:
    return signature.SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_SIZE)).decode()
