"""Disputes as a merchant meets them: opened by the provider, accepted or answered, decided; and the books at each step."""

import asyncio
import json
from typing import Any

import pytest

from gateway.storage import export
from tests.gateway.api.conftest import KEYS, Site, without_ids
from tests.gateway.doubles import PATIENCE_S, Held

OTHER = KEYS["merchant_2"]
RESPOND_BY_MS = 1_900_000_000_000


async def disputed(site: Site, status: str = "needs_response", *, amount: int = 1000) -> str:
    """The path of a dispute that the provider has just told of."""
    await site.pay()
    document = {
        "disputeID": f"dp_{len(site.provider.disputes)}",
        "chargeReference": json.loads(site.provider.requests[-1])["reference"],
        "reason": "fraudulent",
        "status": status,
        "amount": amount,
        "currency": "INR",
        "respondBy": RESPOND_BY_MS,
    }
    site.provider.disputes[document["disputeID"]] = document
    assert (await tell(site)).status == 200
    newest = (await site.get("/api/disputes?limit=1"))[0]
    return f"/api/disputes/{newest['disputeID']}"


async def tell(site: Site, **changed: Any) -> Any:
    """The provider calls back about its latest dispute."""
    document = next(reversed(site.provider.disputes.values()))
    document |= changed
    return await site.call_back(document | {"id": "cb_1", "provider": "card", "type": "dispute"}, provider="card")


async def payment_of(site: Site, path: str) -> dict[str, Any]:
    return await site.get(f"/api/payments/{(await site.get(path))['paymentID']}")


def owed(site: Site) -> int:
    """What the books say that the merchant is owed."""
    postings = [p for record in export.records(site.db) if record["kind"] == "entry" for p in record["postings"]]
    return sum(p["credit"] - p["debit"] for p in postings if p["account"] == "payable:merchant_123")


async def test_a_dispute_is_opened_by_callback_and_takes_the_money(site: Site):
    path = await disputed(site, amount=600)
    for _ in range(2):  # told twice
        await tell(site)
    data = await site.get(path)
    assert (data["status"], data["reason"], data["amount"]) == ("needs_response", "fraudulent", 600)
    assert data["respondBy"] == "2030-03-17T17:46:40.000Z"
    payment = await payment_of(site, path)
    assert (payment["status"], payment["disputeStatus"]) == ("completed", "needs_response")
    assert (payment["disputedAmount"], payment["refundableAmount"], payment["disputes"]) == (600, 400, [data])
    assert owed(site) == 400
    transaction = await site.get(f"/api/transactions/{data['transactionID']}")
    assert (transaction["type"], transaction["status"], transaction["amount"]) == ("chargeback", "needs_response", 600)
    assert await site.totals() == (1, 2)
    refused = await site.post("/api/refunds/process", {"paymentID": payment["paymentID"], "amount": 401})
    assert (refused.status, refused.json["code"]) == (409, "payment_disputed")


async def test_a_dispute_with_a_deadline_outside_of_time_is_refused(site: Site):
    path = await disputed(site, amount=600)
    for respond_by_ms in (-1, 253_402_300_800_000, 2**63 - 1, 2**63, 10**30):
        answer = await tell(site, respondBy=respond_by_ms)
        assert (answer.status, answer.json["code"]) == (400, "invalid_request"), respond_by_ms
    assert (await site.get(path))["respondBy"] == "2030-03-17T17:46:40.000Z"


async def test_accepting_gives_the_money_up(site: Site):
    path = await disputed(site)
    data = (await site.post(path + "/accept")).json["data"]
    assert data["status"] == "lost"
    assert (owed(site), (await payment_of(site, path))["disputeStatus"]) == (0, "lost")
    again = await site.post(path + "/accept")
    assert (again.status, again.json["code"]) == (409, "dispute_not_open")


@pytest.mark.parametrize(("decision", "left"), [("won", 1000), ("lost", 0)])
async def test_evidence_goes_to_the_issuer_who_decides(site: Site, decision: str, left: int):
    path = await disputed(site)
    data = (await site.post(path + "/evidence", {"text": "signed for, see 4711"})).json["data"]
    assert (data["status"], data["evidence"], "responding" in data) == ("under_review", "signed for, see 4711", False)
    assert site.provider.operations == [("evidence", {"text": "signed for, see 4711"})]
    await tell(site, status=decision)
    await tell(site, status="under_review")  # late
    data = await site.get(path)
    assert (data["status"], data["evidence"], owed(site)) == (decision, "signed for, see 4711", left)


async def test_an_inquiry_moves_no_money_and_is_no_transaction(site: Site):
    path = await disputed(site, "warning_needs_response")
    data = await site.get(path)
    assert ("transactionID" in data, owed(site), await site.totals()) == (False, 1000, (1, 1))
    assert (await site.post(path + "/accept")).json["data"]["status"] == "warning_closed"
    assert owed(site) == 1000


async def test_disputes_are_listed_the_newest_first_in_pages_and_by_status(site: Site):
    made = [(await disputed(site)).rpartition("/")[2] for _ in range(3)]
    await site.post(f"/api/disputes/{made[1]}/accept")
    first = (await site.request("GET", "/api/disputes?limit=2")).json
    rest = (await site.request("GET", f"/api/disputes?limit=2&cursor={first['pagination']['nextCursor']}")).json
    assert [dispute["disputeID"] for dispute in first["data"] + rest["data"]] == made[::-1]
    assert rest["pagination"] == {"limit": 2}
    listed = {status: await site.get(f"/api/disputes?status={status}") for status in ("needs_response", "lost", "won")}
    assert {status: [d["disputeID"] for d in found] for status, found in listed.items()} == {
        "needs_response": [made[2], made[0]], "lost": [made[1]], "won": []
    }  # fmt: skip
    assert (await site.request("GET", "/api/disputes", key=OTHER)).json["data"] == []


@pytest.mark.parametrize("operation", ["accept", "evidence"])
async def test_the_same_key_is_answered_the_same_and_reaches_the_provider_once(site: Site, operation: str):
    path = await disputed(site)
    body = {"text": "x"} if operation == "evidence" else None
    first, again = [await site.post(f"{path}/{operation}", body, idempotency_key="k") for _ in range(2)]
    await tell(site, status="lost")  # what comes later does not change the answer
    last = await site.post(f"{path}/{operation}", body, idempotency_key="k")
    assert first.status == 200
    assert first.body == again.body == last.body
    assert len(site.provider.operations) == 1
    other = await site.post(path + "/evidence", {"text": "y"}, idempotency_key="k")
    assert (other.status, other.json["code"]) == (422, "idempotency_key_reused")


async def test_while_a_response_is_under_way_there_is_no_other(site: Site):
    path = await disputed(site)
    held = Held(None)
    site.provider.wait = held
    running = asyncio.create_task(site.post(path + "/accept", idempotency_key="k"))
    await asyncio.wait_for(held.reached.wait(), PATIENCE_S)
    assert (await site.get(path))["responding"] == "accept"
    answers = [
        await site.post(path + "/accept", idempotency_key="k"),
        await site.post(path + "/accept"),
        await site.post(path + "/evidence", {"text": "x"}, idempotency_key="k2"),
    ]
    assert [(answer.status, answer.json["code"]) for answer in answers] == [
        (409, "idempotency_in_flight"), (409, "operation_in_progress"), (409, "operation_in_progress")
    ]  # fmt: skip
    held.let_go.set()
    assert (await running).json["data"]["status"] == "lost"
    assert len(site.provider.operations) == 1


async def test_a_response_that_the_provider_did_not_answer_is_on_its_way(site: Site):
    path = await disputed(site)
    site.provider.refusal = (503, "unavailable")
    first, again = [await site.post(path + "/accept", idempotency_key="k") for _ in range(2)]
    assert (first.status, first.body) == (again.status, again.body) == (200, first.body)
    assert (first.json["data"]["status"], first.json["data"]["responding"]) == ("needs_response", "accept")


async def test_a_response_that_the_provider_refuses_says_why_and_may_be_given_again(site: Site):
    path = await disputed(site)
    site.provider.refusal = (400, "invalid_request")
    data = (await site.post(path + "/evidence", {"text": "x"})).json["data"]
    assert (data["status"], data["failureReason"], "responding" in data) == ("needs_response", "invalid_request", False)
    site.provider.refusal = None
    data = (await site.post(path + "/evidence", {"text": "y"})).json["data"]
    assert (data["status"], data["evidence"], "failureReason" in data) == ("under_review", "y", False)


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("POST", "/evidence", {}, "text"),
        ("POST", "/evidence", {"text": ""}, "text"),
        ("POST", "/evidence", {"text": "x" * 10_001}, "text"),
        ("POST", "/evidence", {"text": "x", "file": "y"}, "file"),
        ("POST", "/accept", {"text": "x"}, "text"),
        ("GET", "?status=open", None, "status"),
        ("GET", "?limit=101", None, "limit"),
        ("GET", "?cursor=%20", None, "cursor"),
        ("GET", "?offset=1", None, "offset"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_cannot_be_meant_is_refused_by_name(shared_site: Site, method: str, path: str, body: Any, param: str):
    where = "/api/disputes" + ("/dsp_1" if method == "POST" else "") + path
    answer = await shared_site.request(method, where, **({} if body is None else {"json": body}))
    assert (answer.status, answer.json["code"], answer.json["param"]) == (400, "invalid_request", param)


async def test_anothers_dispute_is_no_dispute(site: Site):
    path = await disputed(site)
    for method, what, body in (("GET", "", None), ("POST", "/accept", {}), ("POST", "/evidence", {"text": "x"})):
        theirs = await site.request(method, path + what, key=OTHER, json=body)
        nothing = await site.request(method, "/api/disputes/dsp_" + "0" * 32 + what, key=OTHER, json=body)
        assert theirs.status == 404
        assert without_ids(theirs) == without_ids(nothing)
    assert site.provider.operations == []
