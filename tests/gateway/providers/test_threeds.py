"""What is sent to the acquirer's 3-D Secure server, and what its answers mean (docs/3ds.md)."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.core.authentication import Told
from gateway.core.outcome import Unknown
from gateway.providers.card import CardDialect
from gateway.providers.threeds import read_authentication, request
from tests.gateway.doubles import CVV, INSTRUMENTS, NUMBER, make_attempt, make_authentication, make_payment

PAYMENT = make_payment()
AUTHENTICATION = make_authentication(PAYMENT)
ANSWER = {
    "reference": AUTHENTICATION.id,
    "amount": 1000,
    "currency": "INR",
    "threeDSServerTransID": "4f1a0c9e-7b1d-4c57-9f41-0f3f5c2d9a10",
    "transStatus": "C",
    "acsURL": "http://acs.example/1",
    "messageVersion": "2.2.0",
}


def test_the_request_carries_what_the_protocol_asks_for_and_no_security_code():
    card = INSTRUMENTS["card"].card
    assert card is not None
    body = request(
        PAYMENT, AUTHENTICATION, card, return_url="http://gateway.example/back", callback_url="http://gateway.example/cb"
    )
    assert json.loads(body) == {
        "reference": AUTHENTICATION.id,
        "amount": 1000,
        "currency": "INR",
        "merchantID": "merchant_123",
        "orderID": "order-1",
        "card": {"number": NUMBER, "expiryMonth": "12", "expiryYear": "2035", "holderName": "A Person"},
        "returnURL": "http://gateway.example/back",
        "callbackURL": "http://gateway.example/cb",
    }
    assert CVV.encode() not in body.replace(NUMBER.encode(), b"")


def test_a_charge_shows_its_authentication_and_one_without_shows_none():
    for trans_id, expected in (("t_1", {"threeDSServerTransID": "t_1"}), (None, None)):
        instrument = replace(INSTRUMENTS["card"], authenticated_by=trans_id)
        sent = json.loads(CardDialect().encode(PAYMENT, make_attempt(PAYMENT), instrument, "http://gateway.example/cb"))
        assert sent.get("threeDS") == expected


def read(**changed: Any) -> Told | Unknown:
    return read_authentication(json.dumps(ANSWER | changed).encode(), AUTHENTICATION)


def test_an_answer_is_read_as_it_is_told():
    assert read() == Told(trans_id=ANSWER["threeDSServerTransID"], trans_status="C", url="http://acs.example/1")
    assert read(transStatus="N", transStatusReason="19", eci="07", acsURL=None) == Told(
        trans_id=ANSWER["threeDSServerTransID"], trans_status="N", trans_status_reason="19", eci="07"
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"reference": "aut_other"},
        {"amount": 1001},
        {"currency": "USD"},
        {"transStatus": "X"},
        {"transStatus": None},
        {"threeDSServerTransID": "<script>"},
        {"acsURL": "javascript:alert(1)"},
        {"acsURL": "http://acs.example/\r\nX: 1"},
        {"transStatusReason": "1"},
        {"eci": NUMBER},
    ],
)
def test_what_is_not_about_ours_or_no_answer_at_all_tells_nothing(changed: dict[str, Any]):
    told = read(**changed)
    assert isinstance(told, Unknown)
    assert NUMBER not in told.reason


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff"])
def test_garbage_tells_nothing(body: bytes):
    assert isinstance(read_authentication(body, AUTHENTICATION), Unknown)
