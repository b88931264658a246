"""What is sent to each provider, and what its codes mean (docs/providers.md, DOMAIN.md)."""

import json
from typing import Any

import msgspec
import pytest

from gateway.core.outcome import Approved, NextAction, Pending, Unknown
from gateway.core.payment import Method
from gateway.ports import Instrument
from gateway.providers.card import CardDialect
from gateway.providers.client import Dialect, read_charge
from gateway.providers.netbanking import NetbankingDialect
from gateway.providers.upi import UpiDialect
from tests.gateway.doubles import CVV, INSTRUMENTS, NUMBER, make_attempt, make_payment

DIALECTS: dict[Method, Dialect] = {"card": CardDialect(), "upi": UpiDialect(), "netbanking": NetbankingDialect()}
URL = "http://gateway.example/api/webhooks/payment"
COMMON = {
    "reference": f"att_{1:032x}_01",
    "amount": 1000,
    "currency": "INR",
    "merchantID": "merchant_123",
    "orderID": "order-1",
}
CARD = {"number": NUMBER, "expiryMonth": "12", "expiryYear": "2035", "cvv": CVV}
LATER = {"callbackURL": URL, "expiresInMs": 60_000}


def encoded(method: Method, instrument: Instrument) -> dict[str, Any]:
    payment = make_payment(method=method)
    return json.loads(DIALECTS[method].encode(payment, make_attempt(payment), instrument, URL))


@pytest.mark.parametrize(
    ("method", "instrument", "expected"),
    [
        ("card", INSTRUMENTS["card"], {"card": CARD | {"holderName": "A Person"}, "disputeURL": URL}),
        ("upi", INSTRUMENTS["upi"], {"flow": "collect", "vpa": "success@upi", **LATER}),
        ("upi", Instrument(upi_flow="qr"), {"flow": "qr", **LATER}),
        (
            "netbanking",
            INSTRUMENTS["netbanking"],
            {"bankCode": "HDFC0000001", "returnURL": "https://shop.example/back", **LATER},
        ),
        ("netbanking", Instrument(bank_code="TESTS"), {"bankCode": "TESTS", **LATER}),
    ],
)
def test_a_create_carries_what_the_protocol_asks_for_and_nothing_else(
    method: Method, instrument: Instrument, expected: dict[str, Any]
):
    assert encoded(method, instrument) == COMMON | expected


def test_a_card_without_a_holder_name_has_none():
    card = INSTRUMENTS["card"].card
    assert card is not None
    nameless = Instrument(card=msgspec.structs.replace(card, holder_name=None))
    assert encoded("card", nameless) == COMMON | {"card": CARD, "disputeURL": URL}


def test_a_card_that_is_captured_by_hand_says_so():
    payment = make_payment(capture_method="manual")
    body = CardDialect().encode(payment, make_attempt(payment), INSTRUMENTS["card"], URL)
    assert json.loads(body)["capture"] == "manual"


@pytest.mark.parametrize(
    ("method", "fields", "expected"),
    [
        ("card", {}, None),
        ("upi", {"intentURL": "upi://pay?pa=x"}, NextAction("upi_intent", url="upi://pay?pa=x")),
        ("upi", {"qrPayload": "upi://pay?pa=x"}, NextAction("upi_qr", payload="upi://pay?pa=x")),
        ("upi", {}, NextAction("upi_collect")),
        ("netbanking", {"redirectURL": "http://bank/1"}, NextAction("redirect", url="http://bank/1")),
        ("netbanking", {}, None),
    ],
)
def test_the_customer_is_told_what_to_do(method: Method, fields: dict[str, str], expected: NextAction | None):
    attempt = make_attempt(make_payment(method=method))
    charge = {"reference": attempt.reference, "amount": 1000, "currency": "INR", "providerID": "p", "status": "pending"}
    assert read_charge(json.dumps(charge | fields).encode(), attempt, DIALECTS[method]) == Pending("p", expected)


@pytest.mark.parametrize(
    ("method", "code", "reason"),
    [
        ("card", "05", "do_not_honor"),
        ("card", "41", "lost_card"),
        ("card", "43", "stolen_card"),
        ("card", "51", "insufficient_funds"),
        ("card", "54", "expired_card"),
        ("card", "65", "velocity_exceeded"),
        ("card", "91", "issuer_unavailable"),
        ("card", "96", "processing_error"),
        ("card", "N7", "incorrect_cvc"),
        ("card", "??", "declined"),
        ("upi", "ZA", "declined_by_customer"),
        ("upi", "U69", "collect_expired"),
        ("upi", "Z9", "insufficient_funds"),
        ("upi", "ZM", "incorrect_pin"),
        ("upi", "ZH", "invalid_vpa"),
        ("upi", "??", "declined"),
        ("netbanking", "customer_cancelled", "customer_cancelled"),
        ("netbanking", "", "declined"),
    ],
)
def test_decline_codes_have_their_names(method: Method, code: str, reason: str):
    assert DIALECTS[method].reason(code) == reason


def test_a_callback_has_fields_of_its_own_and_is_read_like_a_charge():
    attempt = make_attempt(make_payment(method="upi"))
    told = {"reference": attempt.reference, "amount": 1000, "currency": "INR", "providerID": "p", "status": "approved"}
    whole = json.dumps(told | {"responseCode": "00", "id": "cb_1", "provider": "upi", "rrn": "0" * 12}).encode()
    assert read_charge(whole, attempt, UpiDialect()) == Approved("p", "00")
    assert isinstance(read_charge(whole.replace(b"1000", b"9000"), attempt, UpiDialect()), Unknown)
