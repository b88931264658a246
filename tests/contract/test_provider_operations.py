"""What every provider adapter keeps to (gateway/ports.py) when a merchant captures, refunds or answers a dispute.

Definite only if it is about this very capture, refund or dispute. A refusal with an error code is definite: it was not done.
"""

import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from gateway.core.outcome import Approved, Declined, NotSent, Outcome, Pending, Unknown
from gateway.ports import DisputeResponse, DisputeTold
from tests.contract.raw_server import RawServer, answering, http, raw_server
from tests.contract.test_provider import DIALECTS, SOON_S, Caller, broken, calling
from tests.gateway.doubles import PATIENCE_S, make_operation

CALLS = ("capture", "refund", "ask", "accept", "evidence")
RESPONSES = {"ask": None, "accept": DisputeResponse(None), "evidence": DisputeResponse("it was delivered")}
calls = pytest.mark.parametrize("name", CALLS)


class Merchant:
    """Asks for something that may be done to the caller's charge."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self.operations = {
            kind: make_operation(caller.payment, kind, amount_minor=400, final=True) for kind in ("capture", "refund")
        }

    async def call(self, name: str, *, deadline_s: float = PATIENCE_S) -> Outcome | DisputeTold:
        provider = self._caller.provider
        if name in self.operations:
            return await getattr(provider, name)(self.operations[name], deadline_s=deadline_s)
        return await provider.dispute("dp_1", RESPONSES[name], deadline_s=deadline_s)

    def answer(self, name: str, **changed: Any) -> dict[str, Any]:
        """A whole answer of the provider, with some of it changed, or (...) left out."""
        if name in self.operations:
            operation = self.operations[name]
            whole: dict[str, Any] = {
                "reference": operation.id,
                "chargeReference": operation.charge_reference,
                "status": "approved" if name == "capture" else "completed",
                "responseCode": "00",
                "amount": 400,
                "currency": "INR",
                "createdAt": 1,
            }
            more = {"charge": self._caller.charge()} if name == "capture" else {"providerID": "rf_1", "updatedAt": 1}
        else:
            whole = {"disputeID": "dp_1", "chargeReference": self._caller.attempt.reference, "reason": "fraudulent"}
            more = {"status": "under_review", "amount": 400, "currency": "INR", "respondBy": 9, "createdAt": 1, "updatedAt": 1}
        return {key: value for key, value in (whole | more | changed).items() if value is not ...}


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with raw_server() as made:
        yield made


@pytest.fixture
async def merchant(server: RawServer) -> AsyncIterator[Merchant]:
    async with calling(server.url + "/base/") as caller:
        yield Merchant(caller)


@calls
async def test_a_refused_connection_is_not_sent(name: str):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with calling(f"http://127.0.0.1:{port}") as caller:
        assert isinstance(await Merchant(caller).call(name), NotSent)


@calls
async def test_no_answer_within_the_deadline_is_unknown(server: RawServer, merchant: Merchant, name: str):
    assert isinstance(await merchant.call(name, deadline_s=SOON_S), Unknown)
    assert len(server.requests) == 1


@pytest.mark.parametrize("how", [how for how in broken() if how.split()[-1] not in ("400", "409")])
async def test_an_answer_that_tells_nothing_is_unknown(server: RawServer, merchant: Merchant, how: str):
    server.behaviour = broken()[how]
    assert {name: type(await merchant.call(name)) for name in CALLS} == dict.fromkeys(CALLS, Unknown)


@calls
@pytest.mark.parametrize("status", [400, 404, 409])
async def test_a_refusal_with_a_code_was_not_done(server: RawServer, merchant: Merchant, name: str, status: int):
    server.behaviour = answering({"error": "?", "code": "refund_exceeds_captured"}, status)
    assert await merchant.call(name) == Declined("refund_exceeds_captured", "refund_exceeds_captured")


@calls
@pytest.mark.parametrize("status", [401, 403, 413, 422, 429, 500, 502, 503, 504])
async def test_any_other_refusal_may_have_been_done(server: RawServer, merchant: Merchant, name: str, status: int):
    server.behaviour = answering({"error": "?", "code": "not_capturable"}, status)
    assert isinstance(await merchant.call(name), Unknown)


@calls
@pytest.mark.parametrize("status", [400, 404, 409])
@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{}", b'{"code":5}', b'{"code":"no such page"}', b'{"code":"reference_conflict"}']
)
async def test_a_refusal_that_does_not_say_why_tells_nothing(
    server: RawServer, merchant: Merchant, name: str, status: int, body: bytes
):
    server.behaviour = http(status, body)
    assert isinstance(await merchant.call(name), Unknown)


SOMETHING_ELSE: dict[str, list[dict[str, Any]]] = {
    "capture": [{"charge": ...}, {"responseCode": ...}, {"status": "completed"}],
    "refund": [{"providerID": ...}, {"providerID": "a b"}, {"status": "approved"}],
    "ask": [{"disputeID": "dp_2"}, {"reason": "<b>"}, {"amount": 0}, {"respondBy": ...}, {"chargeReference": ...}],
}
COMMON = [
    {"reference": "ref_another"},
    {"amount": 401},
    {"amount": "400"},
    {"currency": "USD"},
    {"status": ...},
    {"reference": ...},
]


@calls
async def test_an_answer_about_something_else_is_unknown(server: RawServer, merchant: Merchant, name: str):
    special = SOMETHING_ELSE.get(name, SOMETHING_ELSE["ask"])
    for changed in special + (COMMON if name in ("capture", "refund") else [{"status": "open"}, {"status": ...}]):
        server.behaviour = answering(merchant.answer(name, **changed))
        assert isinstance(await merchant.call(name), Unknown), changed


@pytest.mark.parametrize(
    ("name", "changed", "expected"),
    [
        ("capture", {}, Approved("prov_1", "00")),
        ("capture", {"status": "declined", "responseCode": "51"}, Declined("51", "insufficient_funds")),
        ("refund", {}, Approved("rf_1", "00")),
        ("refund", {"status": "pending", "responseCode": None}, Pending("rf_1", None)),
        ("refund", {"status": "failed", "responseCode": "05"}, Declined("05", "do_not_honor", "rf_1")),
    ],
)
async def test_an_answer_about_ours_is_what_it_says(
    server: RawServer, merchant: Merchant, name: str, changed: dict[str, Any], expected: Outcome
):
    server.behaviour = answering(merchant.answer(name, **changed))
    assert await merchant.call(name) == expected


STATUSES = ["warning_needs_response", "warning_under_review", "warning_closed", "needs_response", "under_review", "won", "lost"]


@pytest.mark.parametrize("name", ["ask", "accept", "evidence"])
async def test_a_dispute_is_as_its_provider_tells(server: RawServer, merchant: Merchant, name: str):
    for status in STATUSES:
        server.behaviour = answering(merchant.answer(name, status=status))
        told = await merchant.call(name)
        assert isinstance(told, DisputeTold)
        assert told == DisputeTold(
            provider_id="dp_1",
            reference=f"att_{1:032x}_01",
            reason="fraudulent",
            status=status,  # type: ignore[arg-type]
            amount_minor=400,
            currency="INR",
            respond_by_ms=9,
        )


@pytest.mark.parametrize("method", DIALECTS)
async def test_requests_go_where_the_protocol_has_them(server: RawServer, method: Any):
    async with calling(server.url + "/base/", method) as caller:
        merchant = Merchant(caller)
        for name in CALLS:
            server.behaviour = answering(merchant.answer(name))
            await merchant.call(name)
    charge = f"/base/{'charges' if method == 'card' else 'payments'}/{caller.attempt.reference}"
    told = {"amount": 400, "currency": "INR"}
    refund = {"reference": f"ref_{1:032x}", **told, "callbackURL": "http://gateway.example/api/webhooks/payment"}
    expected = [
        (f"POST {charge}/capture", {"reference": f"cap_{1:032x}", **told, "final": True}),
        (f"POST {charge}/refunds", refund),
        ("GET /base/disputes/dp_1", None),
        ("POST /base/disputes/dp_1/accept", {}),
        ("POST /base/disputes/dp_1/evidence", {"text": "it was delivered"}),
    ]
    sent = [request.split(b"\r\n\r\n", 1) for request in server.requests]
    assert [(head.split(b" HTTP/1.1")[0].decode(), json.loads(body) if body else None) for head, body in sent] == expected


async def test_callbacks_are_read_like_answers(merchant: Merchant):
    provider, refund = merchant._caller.provider, merchant.operations["refund"]
    body = msgspec.json.encode(merchant.answer("refund") | {"id": "cb_1", "provider": "card", "type": "refund"})
    assert provider.read_refund(body, refund) == Approved("rf_1", "00")
    assert isinstance(provider.read_refund(body.replace(b'"amount":400', b'"amount":401'), refund), Unknown)
    assert isinstance(provider.read_refund(b"[]", refund), Unknown)
    dispute = provider.read_dispute(msgspec.json.encode(merchant.answer("ask") | {"id": "cb_2", "type": "dispute"}))
    assert isinstance(dispute, DisputeTold)
    assert (dispute.provider_id, dispute.status) == ("dp_1", "under_review")
    assert isinstance(provider.read_dispute(b'{"disputeID":"dp_1"}'), Unknown)
