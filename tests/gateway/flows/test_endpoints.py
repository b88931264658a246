"""Endpoints between configuration, API and restart: whoever spoke last counts, and only what is durable applies."""

from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from gateway import config
from gateway.core.endpoint import Endpoint
from gateway.core.errors import StoreError
from gateway.flows.endpoints import Endpoints, Wish
from gateway.flows.outbox import Outbox
from gateway.flows.webhooks import Sender
from gateway.ports import Commit, Response
from gateway.storage.sqlite import SqliteStore
from gateway.vault import Vault
from tests.gateway.doubles import CountingIds, ManualClock, ScriptedCourier, secret

FIRST = config.Endpoint(id="ep_1", merchant_id="m1", url="http://127.0.0.1/1", secret=secret("first"))


class Opening:
    """A gateway's endpoints, from its start to its stop."""

    def __init__(self, store: SqliteStore, clock: ManualClock) -> None:
        sender = Sender(courier=ScriptedCourier(), clock=clock, config=config.Webhooks(), draw=lambda: 0.5)
        self.outbox = Outbox(store=store, sender=sender, clock=clock, concurrency_max=1)
        self.endpoints = Endpoints(
            store=store, outbox=self.outbox, fault_of=self._fault_of, vault=Vault(bytes(32)), clock=clock, ids=CountingIds()
        )

    async def start(self, *configured: config.Endpoint) -> Endpoints:
        await self.endpoints.start(configured)
        return self.endpoints

    async def _fault_of(self, url: str) -> str | None:
        return None


@pytest.fixture
async def opened(store: SqliteStore, clock: ManualClock) -> AsyncIterator[Callable[[], Opening]]:
    made: list[Opening] = []

    def once_more() -> Opening:
        made.append(Opening(store, clock))
        return made[-1]

    yield once_more
    for opening in made:
        await opening.outbox.stop()


def render(endpoint: Endpoint, _: str | None) -> Response:
    return Response(200, endpoint.id.encode())


def routes(endpoints: Endpoints) -> list[str]:
    return list(endpoints.endpoints_of("m1", "payment.completed"))


async def test_what_the_api_changed_stays_while_the_configuration_stays(opened: Callable[[], Opening]):
    endpoints = await opened().start(FIRST)
    assert routes(endpoints) == ["ep_1"]
    await endpoints.update("m1", "ep_1", Wish(url="http://127.0.0.1/2", state="disabled"), None, render)
    again = await opened().start(FIRST)
    assert (again.one("m1", "ep_1").url, routes(again)) == ("http://127.0.0.1/2", [])


@pytest.mark.parametrize("changed", [{"url": "http://127.0.0.1/3"}, {"secret": secret("other")}, {"merchant_id": "m2"}])
async def test_a_configuration_that_has_changed_counts(opened: Callable[[], Opening], changed: dict[str, str]):
    endpoints = await opened().start(FIRST)
    await endpoints.update("m1", "ep_1", Wish(url="http://127.0.0.1/2", state="disabled", events=("refund.*",)), None, render)
    entry = msgspec.structs.replace(FIRST, **changed)
    after = (await opened().start(entry)).one(entry.merchant_id, "ep_1")
    assert (after.url, after.state, after.events) == (entry.url, "enabled", ("refund.*",))
    assert Vault(bytes(32)).open_secret(after.secret, owner="ep_1") == entry.secret.encode()


async def test_what_the_api_deleted_stays_deleted_until_its_entry_changes(opened: Callable[[], Opening]):
    endpoints = await opened().start(FIRST)
    await endpoints.delete("m1", "ep_1")
    assert routes(endpoints) == routes(await opened().start(FIRST)) == []
    moved = msgspec.structs.replace(FIRST, url="http://127.0.0.1/4")
    assert routes(await opened().start(moved)) == ["ep_1"]


async def test_an_entry_that_is_taken_out_deletes_its_endpoint_and_one_that_comes_back_makes_it_again(
    opened: Callable[[], Opening], store: SqliteStore
):
    await opened().start(FIRST)
    assert routes(await opened().start()) == []
    assert [(each.state, each.secret) for each in store.endpoints()] == [("deleted", b"")]
    assert routes(await opened().start(FIRST)) == ["ep_1"]


async def test_what_could_not_be_stored_does_not_apply(
    opened: Callable[[], Opening], store: SqliteStore, monkeypatch: pytest.MonkeyPatch
):
    endpoints = await opened().start(FIRST)

    async def fails(commit: Commit) -> None:
        raise StoreError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "commit", fails)
        for change in (
            endpoints.update("m1", "ep_1", Wish(state="disabled"), None, render),
            endpoints.create("m1", Wish(url="http://127.0.0.1/"), None, render),
            endpoints.rotate("m1", "ep_1", 1_000, None, render),
            endpoints.delete("m1", "ep_1"),
        ):
            with pytest.raises(StoreError):
                await change
    assert routes(endpoints) == ["ep_1"]
    assert [each.id for each in endpoints.of("m1")] == ["ep_1"]
    assert endpoints.one("m1", "ep_1").old_secret is None
