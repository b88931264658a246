import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from gateway.core import signature
from tests.gateway.doubles import secret

SECRET, OTHER = secret("one"), secret("two")
KEY = signature.secret_key(SECRET)
NOW_S = 1_900_000_000
BODY = b'{"amount":1000,"note":"\xe2\x82\xb9"}'


def verifies(**changed: object) -> bool:
    """A good callback, with one thing changed."""
    given_: dict[str, object] = {
        "message_id": "cb_1",
        "timestamp": str(NOW_S),
        "body": BODY,
        "signatures": signature.sign(KEY, "cb_1", NOW_S, BODY),
        "now_s": NOW_S,
    }
    return signature.verifies(KEY, **given_ | changed)  # type: ignore[arg-type]


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1), st.text(st.characters(codec="utf-8")))
def test_we_sign_like_the_public_implementation(message_id: str, body: str):
    at = datetime.fromtimestamp(NOW_S, UTC)
    assert signature.sign(KEY, message_id, NOW_S, body.encode()) == Webhook(SECRET).sign(message_id, at, body)


def test_the_public_implementation_accepts_our_signature_and_refuses_another_body():
    now_s = int(datetime.now(UTC).timestamp())
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(now_s),
        "webhook-signature": signature.sign(KEY, "evt_1", now_s, BODY),
    }
    assert Webhook(SECRET).verify(BODY, headers)["amount"] == 1000
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY.replace(b"1000", b"9000"), headers)


def test_we_accept_a_signature_of_the_public_implementation():
    made = Webhook(SECRET).sign("cb_1", datetime.fromtimestamp(NOW_S, UTC), BODY.decode())
    assert verifies(signatures=made)
    assert not verifies(signatures=Webhook(OTHER).sign("cb_1", datetime.fromtimestamp(NOW_S, UTC), BODY.decode()))


def test_the_plain_signature_is_a_hex_hmac_of_the_body():
    assert signature.sign_body(KEY, BODY) == hmac.new(KEY, BODY, hashlib.sha256).hexdigest()


@pytest.mark.parametrize("position", [0, 1, 2])
def test_one_right_signature_among_several_is_enough_while_secrets_rotate(position: int):
    others = [signature.sign(signature.secret_key(OTHER), "cb_1", NOW_S, BODY), "v1a,c29tZXRoaW5nIGVsc2U="]
    others.insert(position, signature.sign(KEY, "cb_1", NOW_S, BODY))
    assert verifies(signatures=" ".join(others))
    assert not verifies(signatures=" ".join(other for other in others if other != others[position]))


@pytest.mark.parametrize(
    "changed",
    [
        {"body": BODY + b" "},
        {"body": b""},
        {"message_id": "cb_2"},
        {"message_id": ""},
        {"timestamp": str(NOW_S + 1)},
        {"signatures": ""},
        {"signatures": "v1,"},
        {"signatures": "v2" + signature.sign(KEY, "cb_1", NOW_S, BODY)[2:]},
        {"signatures": signature.sign(KEY, "cb_1", NOW_S, BODY).swapcase()},
        {"signatures": signature.sign(KEY, "cb_1", NOW_S, BODY)[:-1]},
        {"signatures": signature.sign_body(KEY, BODY)},
    ],
)
def test_what_was_tampered_with_does_not_verify(changed: dict[str, object]):
    assert verifies()
    assert not verifies(**changed)


@pytest.mark.parametrize(("off_s", "good"), [(0, True), (300, True), (-300, True), (301, False), (-301, False), (10**9, False)])
def test_a_signature_is_good_for_300_seconds_both_ways(off_s: int, good: bool):
    assert verifies(now_s=NOW_S + off_s) is good


@pytest.mark.parametrize(
    "timestamp", ["", " ", "-1", "+1900000000", "1.9e9", "1900000000.0", "0x10", "१९", "9" * 13, "9" * 5000, "x"]
)
def test_a_timestamp_that_is_no_number_does_not_verify(timestamp: str):
    assert not verifies(timestamp=timestamp)


# What aiohttp makes of header bytes that are not UTF-8.
@pytest.mark.parametrize("name", ["message_id", "timestamp", "signatures"])
@pytest.mark.parametrize("garbage", ["\udcff", "v1,\udcff\udcfe", "\x00", "€", "v1," + "A" * 10_000])
def test_garbage_in_a_header_does_not_verify_and_does_not_raise(name: str, garbage: str):
    assert not verifies(**{name: garbage})


@pytest.mark.parametrize(
    ("given_", "why"),
    [
        ("c2VjcmV0c2VjcmV0c2VjcmV0", "starts with whsec_"),
        ("whsec_not base64!", "is base64"),
        ("whsec_abc", "is base64"),
        ("whsec_", "at least 16 bytes"),
        ("whsec_" + base64.b64encode(b"x" * 15).decode(), "at least 16 bytes"),
    ],
)
def test_a_secret_that_is_none_is_refused_with_the_reason(given_: str, why: str):
    with pytest.raises(ValueError, match=why):
        signature.secret_key(given_)
