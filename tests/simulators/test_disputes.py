"""Disputes: the state table, and the card acquirer over HTTP."""

from typing import Any, get_args

import pytest
from msgspec.structs import replace

from simulators import disputes
from simulators.clock import Clock
from simulators.disputes import Dispute, happen, judged

DAY_MS = 24 * 3_600_000
NOW_MS = 2_000
FRAUDULENT, NOT_RECEIVED, INQUIRY = "4000000000000259", "4000000000002685", "4000000000001976"
EVENTS = ("accept", "evidence", "no_answer", "issuer_agrees", "issuer_disagrees")

# The status after each event in the order of EVENTS, and the money moved; None: it cannot happen.
ROWS = {
    "needs_response": (("lost", 0), ("under_review", 0), ("lost", 0), None, None),
    "under_review": (None, None, None, ("won", 300), ("lost", 0)),
    "won": (None,) * 5,
    "lost": (None,) * 5,
    "warning_needs_response": (("warning_closed", 0), ("warning_under_review", 0), ("warning_closed", 0), None, None),
    "warning_under_review": (None, None, None, ("warning_closed", 0), ("warning_closed", 0)),
    "warning_closed": (None,) * 5,
}
CASES = [(status, event, outcome) for status, row in ROWS.items() for event, outcome in zip(EVENTS, row, strict=True)]


def test_the_table_is_about_every_status():
    assert set(ROWS) == set(get_args(disputes.Status))


@pytest.mark.parametrize(("status", "event", "expected"), CASES)
def test_each_event_in_each_state(status, event, expected):
    before = Dispute("dp_1", "ref", "fraudulent", status, 300, "INR", 9_000, 1_000, 1_000)
    after = expected and (replace(before, status=expected[0], updatedAt=NOW_MS), expected[1])
    assert happen(before, event, now_ms=NOW_MS) == after


@pytest.mark.parametrize(
    ("text", "draw", "event"),
    [
        ("a winning argument", 2**64 - 1, "issuer_agrees"),
        ("WINNING", 2**64 - 1, "issuer_agrees"),
        ("a losing argument", 0, "issuer_disagrees"),
        ("the parcel was signed for", 0, "issuer_agrees"),
        ("the parcel was signed for", 2**64 - 1, "issuer_disagrees"),
    ],
)
def test_how_the_issuer_judges(text, draw, event):
    assert judged(text, draw) == event


class World:
    """A charge that is disputed, and everything around it."""

    def __init__(self, client, clock: Clock, ear) -> None:
        self.client, self.clock, self.ear = client, clock, ear

    async def charge(self, number: str = FRAUDULENT, reference: str = "ref", **fields: Any) -> dict[str, Any]:
        card = {"number": number, "expiryMonth": "12", "expiryYear": "2099", "cvv": "123"}
        body = {"reference": reference, "amount": 1000, "currency": "INR", "merchantID": "m", "card": card}
        return (await self.client.call("POST", "/card/charges", json=body | {"disputeURL": self.ear.url} | fields))[1]

    async def disputed(self, number: str = FRAUDULENT) -> str:
        """The id of the dispute of a new charge, of which the merchant has been told."""
        await self.charge(number)
        self.clock.advance(2_000)
        return (await self.ear.next())["disputeID"]

    async def post(self, path: str, **body: Any) -> tuple[int, Any]:
        return (await self.client.call("POST", f"/card/disputes/{path}", json=body))[:2]

    async def show(self, dispute_id: str) -> Any:
        return (await self.client.call("GET", f"/card/disputes/{dispute_id}"))[1]

    async def moves(self) -> list[tuple[str, int]]:
        return [(entry["status"], entry["moved"]) for entry in await self.client.journal() if entry["operation"] == "dispute"]


@pytest.fixture
async def world(start, ear) -> World:
    clock = Clock()
    return World(await start(clock=clock), clock, ear)


@pytest.mark.parametrize(
    ("number", "reason", "status", "moved"),
    [
        (FRAUDULENT, "fraudulent", "needs_response", -1000),
        (NOT_RECEIVED, "product_not_received", "needs_response", -1000),
        (INQUIRY, "inquiry", "warning_needs_response", 0),
    ],
)
async def test_a_test_card_is_disputed_some_time_after_the_charge(world, number, reason, status, moved):
    await world.charge(number)
    assert await world.moves() == []
    world.clock.advance(2_000)
    heard = await world.ear.next()
    assert (heard["type"], heard["provider"], heard["chargeReference"], heard["reason"], heard["status"]) == (
        *("dispute", "card", "ref", reason, status),
    )
    assert (heard["amount"], heard["currency"], heard["respondBy"] - heard["createdAt"]) == (1000, "INR", 7 * DAY_MS)
    assert (await world.show(heard["disputeID"])).items() <= heard.items()
    entry = next(entry for entry in await world.client.journal() if entry["operation"] == "dispute")
    assert (entry["subject"], entry["reference"], entry["status"], entry["merchantID"], entry["moved"]) == (
        *(heard["disputeID"], "ref", status, "m", moved),
    )
    charge = (await world.client.call("GET", "/card/charges/ref"))[1]
    assert charge.get("disputedAmount") == (-moved or None)


async def test_a_card_without_a_story_is_never_disputed(world):
    await world.charge("4242424242424242")
    world.clock.advance(30 * DAY_MS)
    assert await world.moves() == []


async def test_without_a_dispute_url_nobody_is_told(world):
    await world.charge(disputeURL=None)
    world.clock.advance(2_000)
    assert await world.moves() == [("needs_response", -1000)]
    assert "callback" not in {entry["operation"] for entry in await world.client.journal()}


async def test_winning_evidence_gives_the_money_back(world):
    dispute_id = await world.disputed()
    status, answer = await world.post(f"{dispute_id}/evidence", text="a winning argument")
    assert (status, answer["status"]) == (200, "under_review")
    assert (await world.ear.next())["status"] == "under_review"
    world.clock.advance(2_000)
    assert (await world.ear.next())["status"] == "won"
    assert await world.moves() == [("needs_response", -1000), ("under_review", 0), ("won", 1000)]
    assert "disputedAmount" not in (await world.client.call("GET", "/card/charges/ref"))[1]


async def test_losing_evidence_leaves_the_money_where_it_went(world):
    dispute_id = await world.disputed()
    await world.post(f"{dispute_id}/evidence", text="a losing argument")
    world.clock.advance(2_000)
    assert (await world.show(dispute_id))["status"] == "lost"
    assert sum(moved for _, moved in await world.moves()) == -1000
    assert (await world.client.call("GET", "/card/charges/ref"))[1]["disputedAmount"] == 1000


async def test_a_dispute_can_be_accepted_once(world):
    dispute_id = await world.disputed()
    assert (await world.post(f"{dispute_id}/accept"))[1]["status"] == "lost"
    status, body = await world.post(f"{dispute_id}/accept")
    assert (status, body["code"]) == (409, "dispute_not_open")
    status, body = await world.post(f"{dispute_id}/evidence", text="winning")
    assert (status, body["code"]) == (409, "dispute_not_open")
    world.clock.advance(30 * DAY_MS)
    assert (await world.show(dispute_id))["status"] == "lost"
    assert world.clock.waiting == 0


@pytest.mark.parametrize(("number", "end"), [(FRAUDULENT, "lost"), (INQUIRY, "warning_closed")])
async def test_no_answer_in_time_ends_a_dispute(world, number, end):
    dispute_id = await world.disputed(number)
    respond_by = (await world.show(dispute_id))["respondBy"]
    world.clock.advance(respond_by - world.clock.now_ms() - 60_000)
    assert (await world.show(dispute_id))["status"].endswith("needs_response")
    world.clock.advance(60_000)
    assert (await world.show(dispute_id))["status"] == end
    assert (await world.ear.next())["status"] == end


async def test_an_inquiry_moves_no_money(world):
    dispute_id = await world.disputed(INQUIRY)
    await world.post(f"{dispute_id}/evidence", text="losing")
    world.clock.advance(2_000)
    assert await world.moves() == [("warning_needs_response", 0), ("warning_under_review", 0), ("warning_closed", 0)]
    assert sum(entry["moved"] for entry in await world.client.journal()) == 1000


async def test_what_is_disputed_can_be_neither_refunded_nor_reversed(world):
    await world.disputed()
    refund = {"reference": "r1", "amount": 1, "currency": "INR"}
    status, body, _ = await world.client.call("POST", "/card/charges/ref/refunds", json=refund)
    assert (status, body["code"]) == (409, "charge_disputed")
    status, body = await world.client.reverse("/card/charges/ref")
    assert (status, body["code"]) == (409, "not_reversible")


async def test_a_dispute_takes_no_more_than_refunds_left(world):
    await world.charge()
    refund = {"reference": "r1", "amount": 400, "currency": "INR"}
    await world.client.call("POST", "/card/charges/ref/refunds", json=refund)
    world.clock.advance(2_000)
    assert (await world.ear.next())["amount"] == 600
    assert sum(entry["moved"] for entry in await world.client.journal()) == 0


async def test_a_charge_that_was_reversed_is_not_disputed(world):
    await world.charge()
    await world.client.reverse("/card/charges/ref")
    world.clock.advance(2_000)
    assert await world.moves() == []


async def test_an_authorization_is_disputed_after_its_first_capture_and_once(world):
    await world.charge(capture="manual")
    world.clock.advance(2_000)
    assert await world.moves() == []
    for own in ("c1", "c2"):
        capture = {"reference": own, "amount": 300, "currency": "INR"}
        await world.client.call("POST", "/card/charges/ref/capture", json=capture)
        world.clock.advance(2_000)
    assert await world.moves() == [("needs_response", -300)]


async def test_disputes_are_listed_newest_first_by_status(world):
    await world.charge(FRAUDULENT, "first")
    world.clock.advance(1_000)
    await world.charge(INQUIRY, "second")
    world.clock.advance(2_000)

    async def listed(query: str = "") -> list[str]:
        return [one["chargeReference"] for one in (await world.client.call("GET", f"/card/disputes{query}"))[1]["disputes"]]

    assert await listed() == ["second", "first"]
    assert await listed("?status=needs_response") == ["first"]
    assert await listed("?status=won") == []


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("status=open", "needs_response"),
        ("state=won", "did you mean 'status'?"),
        ("status=won&status=lost", "status: stands there twice"),
    ],
)
async def test_a_list_of_disputes_that_cannot_be_is_refused(start, query, reason):
    status, body, _ = await (await start()).call("GET", f"/card/disputes?{query}")
    assert (status, body["code"], reason in body["error"]) == (400, "invalid_request", True)


@pytest.mark.parametrize("path", ["dp_none", "dp_none/accept", "dp_none/evidence"])
async def test_an_unknown_dispute_is_not_found(world, path):
    method, body = ("GET", None) if path == "dp_none" else ("POST", {"text": "x"})
    status, answer, _ = await world.client.call(method, f"/card/disputes/{path}", json=body)
    assert (status, answer["code"]) == (404, "not_found")


@pytest.mark.parametrize("body", [{}, {"text": ""}, {"text": 1}, {"text": "x", "more": 1}, {"text": "x" * 10_001}])
async def test_bad_evidence_is_refused_and_changes_nothing(world, body):
    dispute_id = await world.disputed()
    status, answer = await world.post(f"{dispute_id}/evidence", **body)
    assert (status, answer["code"]) == (400, "invalid_request")
    assert (await world.show(dispute_id))["status"] == "needs_response"


async def test_a_fault_of_disputes_leaves_the_dispute_alone(start, ear):
    clock = Clock()
    client = await start(clock=clock, card={"faults": [{"kind": "unavailable", "operation": "dispute", "first": 1}]})
    world = World(client, clock, ear)
    dispute_id = await world.disputed()
    assert (await world.post(f"{dispute_id}/accept"))[0] == 503
    assert (await world.post(f"{dispute_id}/accept"))[1]["status"] == "lost"


async def test_the_same_seed_disputes_and_judges_the_same(start, ear):
    fates = []
    for order in (1, -1):
        clock = Clock()
        world = World(await start(clock=clock), clock, ear)
        references = [f"ref_{index}" for index in range(12)][::order]
        for reference in references:
            await world.charge(FRAUDULENT, reference, disputeURL=None)
        clock.advance(2_000)
        found = (await world.client.call("GET", "/card/disputes"))[1]["disputes"]
        for one in found:
            await world.post(f"{one['disputeID']}/evidence", text="the parcel was signed for")
        clock.advance(2_000)
        found = (await world.client.call("GET", "/card/disputes"))[1]["disputes"]
        fates.append({one["chargeReference"]: (one["disputeID"], one["status"]) for one in found})
    assert fates[0] == fates[1]
    assert {status for _, status in fates[0].values()} == {"won", "lost"}
