"""What a caller is told who sent the wrong thing: for each slip that is likely, what would have been right."""

from typing import Any

import msgspec
import pytest

from gateway.api import wire
from gateway.api.payments import ProcessRequest
from gateway.api.settlements import SettleRequest
from gateway.core.errors import CallerError

PAYMENT: dict[str, Any] = {
    "merchantID": "merchant_123",
    "orderID": "order-1",
    "amount": 1000,
    "currency": "INR",
    "paymentMethod": "card",
    "customerInfo": {"email": "asha@example.com", "phone": "+919812345678"},
}
CARD = {"number": "4111111111111111", "expiryMonth": "12", "expiryYear": "2035", "cvv": "123"}


def said(kind: type[wire.Request], body: object) -> str:
    """The answer to a body that is refused."""
    with pytest.raises(CallerError) as refused:
        wire.decode(msgspec.json.Decoder(kind), msgspec.json.encode(body))
    assert (refused.value.status, refused.value.code) == (400, "invalid_request")
    return refused.value.message


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"amount": 10.5}, "amount: expected a whole number, got a number"),
        ({"amount": "1000"}, "amount: expected a whole number, got text"),
        ({"metadata": ["a"]}, "metadata: expected an object or null, got a list"),
        ({"captureMetod": "manual"}, "captureMetod: there is no such field; did you mean captureMethod?"),
        ({"nonsense": 1}, "nonsense: there is no such field"),
        ({"x" * 60_000: 1}, f"{'x' * 60_000}: there is no such field"),
        ({"paymentMethod": "cash"}, "paymentMethod: Invalid enum value 'cash'; known are card, netbanking, upi"),
        ({"cardDetails": CARD | {"number": "4111 1111 1111 1111"}}, "such as 4111111111111111 is"),
        ({"cardDetails": CARD | {"expiryYear": "35"}}, "cardDetails.expiryYear: not of the right form, such as 2035 is"),
        ({"cardDetails": CARD | {"cvc": "123"}}, "cardDetails.cvc: there is no such field; did you mean cvv?"),
        ({"upiDetails": {"vpa": "success"}}, "upiDetails.vpa: not of the right form, such as success@upi is"),
        ({"returnUrl": "shop.example"}, "returnUrl: not of the right form, such as https://shop.example/thanks is"),
    ],
)
def test_a_slip_is_answered_with_what_is_right(wrong: dict[str, Any], message: str):
    assert said(ProcessRequest, PAYMENT | wrong).endswith(message)


def test_what_is_missing_is_required():
    assert said(ProcessRequest, {}) == "merchantID: required"
    assert said(ProcessRequest, PAYMENT | {"cardDetails": {}}) == "cardDetails.number: required"


@pytest.mark.parametrize("date", ["today", "23.11.2026", "2026-02-30", ""])
def test_a_day_that_is_none_is_answered_with_one(date: str):
    assert said(SettleRequest, {"merchantID": "merchant_123", "date": date}) == "date: expected a day, such as 2026-01-31"


@pytest.mark.parametrize("body", [[], 1, None, "text"])
def test_a_body_that_is_no_object(body: object):
    assert said(ProcessRequest, body).startswith("expected an object, got ")
