"""What the adapter of the bank's payouts keeps to (gateway/ports.py): what is sent, and what each answer means."""

import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.config import ProviderConfig
from gateway.core.outcome import Declined, NotFound, NotSent, Unknown
from gateway.core.settlement import Payee, Payout, PayoutTold
from gateway.providers.payouts import HttpPayouts
from tests.contract.raw_server import RawServer, answering, http, raw_server, resetting
from tests.gateway.doubles import PATIENCE_S

PAYOUT = Payout(
    reference=f"out_{1:032x}_01",
    merchant_id="merchant_123",
    amount_minor=500_000_00,
    currency="INR",
    payee=Payee("000123456789", "HDFC0000001", "A. Payee"),
)
TOLD = {
    "reference": PAYOUT.reference,
    "providerID": "bank_1",
    "status": "processing",
    "responseCode": None,
    "amount": PAYOUT.amount_minor,
    "currency": "INR",
    "mode": "IMPS",
    "createdAt": 1,
    "updatedAt": 1,
    "utr": "123456789012",
}
CALLBACK_URL = "http://gateway.example/api/webhooks/payment"


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with raw_server() as made:
        yield made


@pytest.fixture
async def bank(server: RawServer) -> AsyncIterator[HttpPayouts]:
    made = HttpPayouts(ProviderConfig(url=server.url + "/bank/"), callback_url=CALLBACK_URL)
    yield made
    await made.close()


async def both(bank: HttpPayouts, *, deadline_s: float = PATIENCE_S) -> tuple[Any, Any]:
    return await bank.order(PAYOUT, deadline_s=deadline_s), await bank.inquire(PAYOUT, deadline_s=deadline_s)


@pytest.mark.parametrize(("amount", "mode"), [(1, "IMPS"), (500_000_00, "IMPS"), (500_000_01, "RTGS")])
async def test_an_order_says_who_gets_what_and_how(server: RawServer, bank: HttpPayouts, amount: int, mode: str):
    server.behaviour = answering(TOLD)
    payout = Payout(reference="out_1_01", merchant_id="m_1", amount_minor=amount, currency="INR", payee=PAYOUT.payee)
    await bank.order(payout, deadline_s=PATIENCE_S)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /bank/payouts HTTP/1.1\r\n")
    assert json.loads(body) == {
        "reference": "out_1_01",
        "amount": amount,
        "currency": "INR",
        "merchantID": "m_1",
        "mode": mode,
        "purpose": "settlement",
        "callbackURL": CALLBACK_URL,
        "beneficiary": {"type": "account", "accountNumber": "000123456789", "ifsc": "HDFC0000001", "name": "A. Payee"},
    }


async def test_an_inquiry_is_by_our_reference(server: RawServer, bank: HttpPayouts):
    server.behaviour = answering(TOLD)
    await bank.inquire(PAYOUT, deadline_s=PATIENCE_S)
    assert server.requests[0].startswith(f"GET /bank/payouts/{PAYOUT.reference} HTTP/1.1\r\n".encode())


@pytest.mark.parametrize("status", ["pending", "processing", "completed", "failed", "returned"])
async def test_a_payout_is_as_the_bank_tells(server: RawServer, bank: HttpPayouts, status: str):
    document = TOLD | {"status": status, "responseCode": "00"}
    server.behaviour = answering(document)
    told = PayoutTold(status=status, provider_id="bank_1", response_code="00", utr="123456789012")  # type: ignore[arg-type]
    assert await both(bank) == (told, told)
    assert bank.read_callback(json.dumps(document | {"id": "cb_1", "type": "payout"}).encode(), PAYOUT) == told


@pytest.mark.parametrize(
    "changed",
    [{"reference": "out_2"}, {"amount": 1}, {"currency": "USD"}, {"status": "paid"}, {"utr": "a b"}, {"providerID": ""}],
)
async def test_what_is_not_about_our_payout_says_nothing(server: RawServer, bank: HttpPayouts, changed: dict[str, Any]):
    server.behaviour = answering(TOLD | changed)
    assert [type(outcome) for outcome in await both(bank)] == [Unknown, Unknown]
    assert isinstance(bank.read_callback(json.dumps(TOLD | changed).encode(), PAYOUT), Unknown)


@pytest.mark.parametrize(
    ("status", "code", "order", "inquiry"),
    [
        (400, "invalid_request", Declined("invalid_request", "invalid_request"), Unknown),
        (404, "not_found", Declined("not_found", "not_found"), NotFound()),
        (409, "reference_conflict", Unknown, Unknown),
        (429, "too_many_inquiries", Unknown, Unknown),
        (500, "fault", Unknown, Unknown),
    ],
)
async def test_a_refusal_is_definite_for_an_order_only(
    server: RawServer, bank: HttpPayouts, status: int, code: str, order: Any, inquiry: Any
):
    server.behaviour = answering({"code": code, "error": "..."}, status)
    for outcome, expected in zip(await both(bank), (order, inquiry), strict=True):
        assert type(outcome) is expected if isinstance(expected, type) else outcome == expected


async def test_silence_garbage_and_resets_say_nothing(server: RawServer, bank: HttpPayouts):
    assert [type(outcome) for outcome in await both(bank, deadline_s=0.1)] == [Unknown, Unknown]
    for behaviour in (http(200, b"{"), http(404, b"<html>"), http(302, b"", headers="Location: /\r\n"), resetting):
        server.behaviour = behaviour
        assert [type(outcome) for outcome in await both(bank)] == [Unknown, Unknown]


async def test_a_bank_that_cannot_be_reached_has_got_nothing():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    bank = HttpPayouts(ProviderConfig(url=f"http://127.0.0.1:{port}/bank"), callback_url=CALLBACK_URL)
    assert [type(outcome) for outcome in await both(bank)] == [NotSent, NotSent]
    await bank.close()
