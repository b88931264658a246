"""Reconciliation as the operator asks for it, and as merchants see what it found."""

import asyncio
import json
import tempfile
import time
from typing import Any

import pytest

from gateway.app import Gateway
from gateway.core.errors import StoreError
from gateway.core.reconciliation import KINDS, date_of
from gateway.flows import comparing
from gateway.flows import reconciliation as flow
from gateway.ports import Commit
from gateway.providers.settlement_files import COLUMNS
from gateway.storage.sqlite import SqliteStore
from tests.gateway.api.conftest import GOOD, KEYS, OPERATOR_KEY, Answer, Site, running_site
from tests.gateway.doubles import PATIENCE_S

CSV = {"Content-Type": "text/csv"}
AT_MS = int(time.time() * 1000)
TODAY = date_of(AT_MS)


def line(reference: str, gross: int, merchant: str = "merchant_123") -> str:
    return f"{reference},,charge,{gross},0,{gross},INR,{AT_MS},prov_1,{merchant}"


def file(*lines: str) -> str:
    return "".join(f"{one}\r\n" for one in (",".join(COLUMNS), *lines))


async def upload(site: Site, data: str, *, provider: str = "card", date: str = TODAY, **options: Any) -> Answer:
    headers = CSV | options.pop("headers", {})
    path = f"/api/reconciliation/upload?provider={provider}&date={date}"
    return await site.request("POST", path, key=OPERATOR_KEY, data=data.encode(), headers=headers, **options)


async def get(site: Site, path: str, *, key: str = OPERATOR_KEY) -> Answer:
    return await site.request("GET", f"/api/reconciliation/{path}", key=key)


async def post(site: Site, path: str, body: dict[str, Any], *, key: str = OPERATOR_KEY, **headers: str) -> Answer:
    headers = {"Content-Type": "application/json"} | headers
    return await site.request("POST", f"/api/reconciliation/{path}", key=key, data=json.dumps(body), headers=headers)


async def breaks(site: Site, query: str = "", *, key: str = OPERATOR_KEY) -> list[dict[str, Any]]:
    answer = await get(site, f"breaks?{query}", key=key)
    assert answer.status == 200, answer.body
    return answer.json["data"]


async def charge(site: Site, merchant: str = "merchant_123", amount: int = 1000) -> str:
    """The reference of a charge that the provider approved."""
    body = GOOD["card"] | {"merchantID": merchant, "amount": amount}
    answer = await site.process(body, key=KEYS[merchant])
    assert answer.json["data"]["status"] == "completed"
    return "att_" + answer.json["data"]["paymentID"].removeprefix("pay_") + "_01"


async def test_a_day_is_compared_and_its_breaks_are_worked_until_they_are_resolved(site):
    fine, wrong, gone = [await charge(site) for _ in range(3)]
    other = await charge(site, "merchant_2")
    done = await upload(
        site, file(line(fine, 1000), line(fine, 1000), line(wrong, 1001), line("att_x", 5), line(other, 999, "x"))
    )
    assert done.status == 201
    run = done.json["data"]
    assert (run["status"], run["rows"], run["movements"], run["matched"], run["runs"]) == ("completed", 5, 4, 1, 1)
    assert run["breaks"] == {
        "amount_mismatch": 2,
        "missing_in_provider": 1 if not _near_midnight() else run["breaks"]["missing_in_provider"],
        "missing_in_gateway": 1,
        "duplicate": 1,
        "late": 0,
    }
    assert (await get(site, f"runs/{run['runID']}")).json["data"] == run
    assert (await get(site, "runs")).json["data"] == [run]

    [mismatch] = await breaks(site, "kind=amount_mismatch", key=KEYS["merchant_123"])
    assert (mismatch["reference"], mismatch["expectedAmount"], mismatch["actualAmount"]) == (wrong, 1000, 1001)
    resolved = await post(site, f"breaks/{mismatch['breakID']}/resolve", {"note": "the provider will correct it"})
    assert resolved.status == 200
    data = resolved.json["data"]
    assert (data["status"], data["resolvedBy"]) == ("resolved", "operator")
    assert [(note["by"], note["note"]) for note in data["history"]] == [
        ("system", "found"),
        ("operator", "the provider will correct it"),
    ]
    assert (await get(site, f"breaks/{mismatch['breakID']}")).json["data"] == data
    again = await post(site, f"breaks/{mismatch['breakID']}/resolve", {"note": "once more"})
    assert (again.status, again.json["code"]) == (409, "already_resolved")

    mended = await upload(site, file(*(line(one, 1000) for one in (fine, wrong, gone, other))))
    assert mended.json["data"]["matched"] == mended.json["data"]["rows"] == 4
    assert (mended.json["data"]["runID"], mended.json["data"]["runs"]) == (run["runID"], 2)
    assert await breaks(site, "status=open") == []
    by_hand = [one for one in await breaks(site) if one["resolvedBy"] == "operator"]
    assert [one["breakID"] for one in by_hand] == [mismatch["breakID"]]


def _near_midnight() -> bool:
    return AT_MS % 86_400_000 > 86_400_000 - 120_000


async def test_the_same_file_again_changes_no_break(site):
    reference = await charge(site)
    data = file(line(reference, 1000), line(reference, 1000), line("att_x", 7), line("att_x", 7))
    await upload(site, data)
    before = await breaks(site)
    assert len(before) == 3
    await upload(site, data)
    assert await breaks(site) == before


async def test_a_run_that_breaks_off_while_it_writes_explains_the_same_when_done_again(site, monkeypatch):
    monkeypatch.setattr(comparing, "BOUNDARY_MS", 0)
    reference = await charge(site)
    await upload(site, file())
    [missed] = await breaks(site, "kind=missing_in_provider&status=open")
    midnight_ms = AT_MS - AT_MS % 86_400_000
    yesterday = file(line(reference, 1000).replace(str(AT_MS), str(midnight_ms - 1)))
    day = date_of(midnight_ms - 1)
    commit, full = SqliteStore.commit, "the disk is full"

    async def refuse_breaks(store: SqliteStore, told: Commit) -> Any:
        if told.reconciled is not None and told.reconciled.breaks:
            raise StoreError(full)
        return await commit(store, told)

    with monkeypatch.context() as faulty:
        faulty.setattr(SqliteStore, "commit", refuse_breaks)
        assert (await upload(site, yesterday, date=day)).json["data"]["status"] == "failed"
    done = await upload(site, yesterday, date=day)
    assert (done.json["data"]["status"], done.json["data"]["matched"]) == ("completed", 1)
    explained = (await get(site, f"breaks/{missed['breakID']}")).json["data"]
    assert (explained["status"], explained["resolvedBy"], explained["foundDate"]) == ("resolved", "system", day)


@pytest.mark.parametrize("amount", [1000, 1001])
async def test_what_a_corrected_file_has_no_more_is_missed_again(site, monkeypatch, amount: int):
    monkeypatch.setattr(comparing, "BOUNDARY_MS", 0)
    reference = await charge(site)
    await upload(site, file())
    [missed] = await breaks(site)
    tomorrow = date_of(AT_MS + 86_400_000)
    monkeypatch.setattr(flow, "date_of", lambda _: tomorrow)
    late = await upload(site, file(line(reference, amount)), date=tomorrow)
    assert late.json["data"]["breaks"] | {"late": 0, "amount_mismatch": 0} == dict.fromkeys(KINDS, 0)
    [found] = await breaks(site)
    assert (found["breakID"], found["foundDate"]) == (missed["breakID"], tomorrow)
    assert (found["kind"], found["status"]) == (("late", "resolved") if amount == 1000 else ("amount_mismatch", "open"))
    await upload(site, file(), date=tomorrow)
    [again] = await breaks(site)
    assert (again["kind"], again["status"], again["date"]) == ("missing_in_provider", "open", TODAY)
    assert again.keys() & {"foundDate", "actualAmount"} == set()
    await upload(site, file(line(reference, 1000)))
    assert await breaks(site, "status=open") == []


async def test_a_late_row_whose_time_is_corrected_is_not_missed(site):
    reference = await charge(site)
    late = await upload(site, file(line(reference, 1000).replace(str(AT_MS), str(AT_MS - 86_400_000))))
    assert late.json["data"]["breaks"]["late"] == 1
    done = await upload(site, file(line(reference, 1000)))
    assert done.json["data"]["matched"] == 1
    assert await breaks(site, "status=open") == []


async def test_merchants_see_and_resolve_their_own_breaks_and_nothing_else(site):
    own = await charge(site)
    await upload(site, file(line(own, 1001), line("att_x", 5, "nobody"), line("att_y", 6, "merchant_2")))
    mine, theirs = [await breaks(site, key=KEYS[name]) for name in KEYS]
    assert ([one["reference"] for one in mine], [one["reference"] for one in theirs]) == ([own], ["att_y"])
    assert len(await breaks(site)) == 3
    for path, ask in (("", get), ("/resolve", lambda *a, **k: post(*a, {"note": "n"}, **k))):
        foreign = await ask(site, f"breaks/{theirs[0]['breakID']}{path}", key=KEYS["merchant_123"])
        missing = await ask(site, f"breaks/brk_{0:032x}{path}", key=KEYS["merchant_123"])
        assert foreign.status == missing.status == 404
        assert foreign.json | {"requestID": ""} == missing.json | {"requestID": ""}
    answer = await post(site, f"breaks/{mine[0]['breakID']}/resolve", {"note": "agreed"}, key=KEYS["merchant_123"])
    assert answer.json["data"]["resolvedBy"] == "merchant_123"


async def test_runs_are_the_operators_and_payments_are_not(site):
    body = {"provider": "card", "date": TODAY}
    merchants = [
        await post(site, "run", body, key=KEYS["merchant_123"]),
        await site.request("POST", f"/api/reconciliation/upload?provider=card&date={TODAY}", data=b"", headers=CSV),
        await get(site, "runs", key=KEYS["merchant_123"]),
        await get(site, "runs/rec_1", key=KEYS["merchant_123"]),
        await site.process(GOOD["card"], key=OPERATOR_KEY),
    ]
    assert {(answer.status, answer.json["code"]) for answer in merchants} == {(403, "insufficient_scope")}
    assert (await get(site, "breaks", key="sk_test_nobody")).status == 401


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (file("att_1,,charge,10.5,0,10,INR,5,p,m"), "line 2: gross: expected a whole number"),
        (file(line("att_1", 5))[:-2], "line 2: the file breaks off here"),
        ("", "line 1: the file is empty"),
    ],
)
async def test_a_file_that_is_wrong_is_refused_and_leaves_what_was_found_before(site, data, said):
    good = await upload(site, file(line("att_x", 5)))
    before = await breaks(site)
    run = (await upload(site, data)).json["data"]
    assert run["status"] == "failed"
    assert run["error"].startswith(said)
    assert run["breaks"] == good.json["data"]["breaks"]
    assert await breaks(site) == before


async def test_a_file_of_somebody_else_is_refused_as_a_whole(site, monkeypatch):
    monkeypatch.setattr("gateway.flows.comparing.BREAKS_MAX", 2)
    run = (await upload(site, file(*(line(f"att_{n}", 5) for n in range(3))))).json["data"]
    assert run["error"].startswith(f"more than 2 breaks: is it the file of card for {TODAY}")
    assert await breaks(site) == []


async def test_an_idempotency_key_makes_a_retry_the_same_answer_and_no_second_run(site):
    data, key = file(line("att_x", 5)), {"Idempotency-Key": "key-1"}
    first = await upload(site, data, headers=key)
    again = await upload(site, data, headers=key)
    assert (again.status, again.body) == (first.status, first.body)
    assert (await get(site, "runs")).json["data"][0]["runs"] == 1
    assert (await upload(site, file(line("att_x", 6)), headers=key)).status == 422
    [one] = await breaks(site)
    resolved = [await post(site, f"breaks/{one['breakID']}/resolve", {"note": "n"}, **{"Idempotency-Key": "k"}) for _ in "ab"]
    assert resolved[0].body == resolved[1].body


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"provider": "cash", "date": TODAY}, "provider"),
        ({"provider": "card", "date": "2030-02-30"}, "date"),
        ({"provider": "card", "date": "0000-01-01"}, "date"),
        ({"provider": "card", "date": "9999-01-01"}, "date"),
        ({"provider": "card", "date": TODAY + "T00"}, "date"),
        ({"provider": "card", "date": TODAY, "format": "mt940"}, "format"),
        ({"provider": "card"}, "date"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_run_that_is_not_well_asked_for_is_refused_with_the_field(shared_site, body, param):
    answer = await post(shared_site, "run", body)
    assert (answer.status, answer.json["param"]) == (400, param)


@pytest.mark.parametrize("query", ["kind=x", "status=x", "date=x", "cursor=x", "limit=0", "limit=201", "y=1"])
@pytest.mark.asyncio(loop_scope="module")
async def test_a_list_that_is_not_well_asked_for_is_refused_with_the_parameter(shared_site, query):
    answer = await get(shared_site, f"breaks?{query}")
    assert (answer.status, answer.json["param"]) == (400, query.partition("=")[0])


@pytest.mark.asyncio(loop_scope="module")
async def test_files_that_are_not_sent_as_such_are_refused(shared_site):
    path = f"/api/reconciliation/upload?provider=card&date={TODAY}"
    for headers in ({"Content-Type": "application/json"}, CSV | {"Content-Encoding": "gzip"}):
        assert (await shared_site.request("POST", path, key=OPERATOR_KEY, data=b"x", headers=headers)).status == 415


async def test_an_upload_that_the_disk_has_no_room_for_may_come_again(site, monkeypatch):
    with monkeypatch.context() as full:
        full.setattr(tempfile, "TemporaryFile", lambda **_: open("/dev/full", "r+b", buffering=0))  # noqa: SIM115, PTH123
        answer = await upload(site, file(line("att_x", 5)))
    assert (answer.status, "Retry-After" in answer.headers) == (503, True), answer.body
    assert (await upload(site, file(line("att_x", 5)))).status == 201


async def test_a_provider_without_files_has_to_be_uploaded_and_one_that_has_none_fails_the_run(site):
    answer = await post(site, "run", {"provider": "upi", "date": TODAY})
    assert (answer.status, answer.json["code"]) == (409, "no_settlement_url")
    run = (await post(site, "run", {"provider": "card", "date": TODAY})).json["data"]
    assert (run["status"], run["error"]) == ("failed", f"the provider answered HTTP 404 for the file of {TODAY}")


async def test_pages_of_breaks_follow_each_other_without_gaps(site):
    await upload(site, file(*(line(f"att_{n}", 5) for n in range(7))))
    seen, query = [], "limit=3"
    while query:
        answer = (await get(site, f"breaks?{query}")).json
        seen += [one["breakID"] for one in answer["data"]]
        more = answer["pagination"].get("nextCursor")
        query = more and f"limit=3&cursor={more}"
    assert seen == [one["breakID"] for one in await breaks(site)]
    assert len(set(seen)) == 7


class Slow:
    """A provider whose file comes once it is let go."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()

    async def __call__(self) -> str:
        await self.let_go.wait()
        return file(line("att_x", 5))


async def test_a_long_run_is_answered_while_it_is_running_and_holds_nobody_up(site, monkeypatch):
    monkeypatch.setattr(flow, "ANSWER_S", 0.01)
    site.provider.settles = slow = Slow()
    body = {"provider": "card", "date": TODAY}
    first = await post(site, "run", body, **{"Idempotency-Key": "k"})
    assert (first.status, first.json["data"]["status"]) == (201, "running")
    run_id = first.json["data"]["runID"]
    second = await post(site, "run", body)
    assert (second.status, second.json["code"]) == (409, "run_in_progress")
    await charge(site)
    slow.let_go.set()
    async with asyncio.timeout(PATIENCE_S):
        while (run := (await get(site, f"runs/{run_id}")).json["data"])["status"] == "running":
            pass
    assert (run["status"], run["rows"]) == ("completed", 1)
    assert (await post(site, "run", body, **{"Idempotency-Key": "k"})).body == first.body


async def test_a_run_that_the_end_of_the_gateway_interrupted_says_so_and_can_be_done_again(tmp_path, monkeypatch):
    slow, stop = Slow(), Gateway.stop

    async def stop_before_the_file_comes(gateway: Gateway) -> None:
        await stop(gateway)
        slow.let_go.set()

    monkeypatch.setattr(flow, "ANSWER_S", 0.01)
    monkeypatch.setattr(Gateway, "stop", stop_before_the_file_comes)
    body, key = {"provider": "card", "date": TODAY}, {"Idempotency-Key": "k"}
    async with running_site(tmp_path) as site:
        site.provider.settles = slow
        answer = await post(site, "run", body, **key)
        assert answer.json["data"]["status"] == "running"
    monkeypatch.setattr(flow, "ANSWER_S", PATIENCE_S)
    async with running_site(tmp_path) as site:
        [run] = (await get(site, "runs")).json["data"]
        assert (run["status"], run["error"]) == ("failed", "interrupted: the gateway was stopped; run it again")
        site.provider.settles = slow
        assert (await post(site, "run", body, **key)).body == answer.body  # as it was answered
        done = await post(site, "run", body)
        assert (done.json["data"]["status"], done.json["data"]["runID"]) == ("completed", run["runID"])
