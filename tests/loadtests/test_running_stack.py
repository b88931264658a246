"""What a running stack is proof against, and how its gateway comes back: one stack for all of it."""

import asyncio
import stat

import aiohttp
import pytest
import pytest_asyncio

from loadtests import collect, evidence
from loadtests.child import ChildError
from loadtests.stack import Files, Stack, StackError
from tests.loadtests.approving import APPROVING, configurations, gone, pay

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory):
    async with Stack(Files.under(tmp_path_factory.mktemp("stack") / "run"), APPROVING, seed=1) as stack:
        yield stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(stack):
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {stack.key}"}) as session:
        yield session


async def test_files_with_secrets_are_for_the_user_only(stack):
    private = [stack.files.directory / "gateway.json", stack.files.directory / "simulators.json", stack.files.vault_key]
    assert [stat.S_IMODE(path.stat().st_mode) for path in private] == [0o600] * 3
    assert stat.S_IMODE(stack.files.directory.stat().st_mode) == 0o700
    assert stack.secrets.upi not in repr(stack.secrets)


async def test_a_killed_gateway_starts_again_where_it_was_and_remembers(stack, client):
    paid, url = await pay(client, stack, "order_1"), stack.gateway_url
    await stack.kill_gateway()
    await stack.restart_gateway()
    assert stack.gateway_url == url
    async with client.get(f"{url}/api/payments/{paid['paymentID']}/status") as answer:
        assert (await answer.json())["data"]["status"] == "completed"


async def test_a_request_made_while_the_gateway_is_down_is_answered_by_its_successor(stack, client):
    await stack.kill_gateway()
    waiting = asyncio.create_task(pay(client, stack, "order_1"))
    await stack.restart_gateway()
    assert (await waiting)["status"] == "completed"


async def test_a_database_in_use_is_refused_and_nothing_is_left_running(stack, tmp_path):
    second = Stack(Files.under(tmp_path / "second", db=stack.files.db), APPROVING, seed=1)
    with pytest.raises(ChildError, match="the gateway ended with exit code 1 before it was ready"):
        async with second:
            pass
    await gone(second.pids["simulators"])


async def test_a_folder_in_use_is_refused_before_anything_in_it_changes(stack, client):
    before = configurations(stack)
    with pytest.raises(StackError, match=r"/run is in use by another paydrome; stop that one, or choose another --db"):
        async with Stack(stack.files, APPROVING, seed=1):
            pass
    assert configurations(stack) == before
    assert (await pay(client, stack, "order_1"))["status"] == "completed"


async def test_a_foreign_gateway_is_probed_before_it_is_loaded_and_asked_for_the_final_states(stack, client):
    await collect.probe(stack.gateway_url, stack.key)
    with pytest.raises(collect.TargetError, match="refuses the API key with 401"):
        await collect.probe(stack.gateway_url, "sk_test_wrong_key")
    with pytest.raises(collect.TargetError, match="is this the base URL"):
        await collect.probe(stack.simulators_url, stack.key)
    payment_id = str((await pay(client, stack, "order_1"))["paymentID"])
    answers = await collect.ask_statuses(stack.gateway_url, stack.key, [payment_id, "pay_0"])
    assert answers[payment_id] == evidence.StatusAnswer(200, "completed", 1000, "INR")
    assert answers["pay_0"].httpStatus == 404
