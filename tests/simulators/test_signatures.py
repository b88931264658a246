import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from simulators.config import secret_key
from simulators.signatures import sign, valid

SECRET = "whsec_" + "QUJD" * 8
KEY = secret_key(SECRET)
NOW_S = 1_800_000_000
BODY = b'{"event": "payment.completed"}'


def headers(body: bytes = BODY, *, stamp: int = NOW_S, **changes: str) -> dict[str, str]:
    return {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(stamp),
        "webhook-signature": Webhook(SECRET).sign("evt_1", datetime.fromtimestamp(stamp, UTC), body.decode()),
        "X-Webhook-Signature": hmac.new(KEY, body, hashlib.sha256).hexdigest(),
    } | {name.replace("_", "-"): value for name, value in changes.items()}


def test_our_signatures_are_those_of_the_public_implementation():
    assert sign(KEY, "evt_1", NOW_S, BODY) == headers()["webhook-signature"]


def test_a_webhook_with_both_signatures_is_valid():
    assert valid(KEY, headers(), BODY, now_s=NOW_S)


def test_one_matching_signature_among_several_is_enough_while_a_secret_rotates():
    several = "v1,b2xk v2,zzz " + headers()["webhook-signature"]
    assert valid(KEY, headers(webhook_signature=several), BODY, now_s=NOW_S)


@pytest.mark.parametrize("offset_s", [-300, 300])
def test_a_timestamp_up_to_five_minutes_away_is_accepted(offset_s):
    assert valid(KEY, headers(stamp=NOW_S + offset_s), BODY, now_s=NOW_S)


@pytest.mark.parametrize("offset_s", [-301, 301])
def test_a_timestamp_farther_away_is_refused(offset_s):
    assert not valid(KEY, headers(stamp=NOW_S + offset_s), BODY, now_s=NOW_S)


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook_signature": ""},
        {"webhook_signature": "v1,AAAA"},
        {"X_Webhook_Signature": ""},
        {"X_Webhook_Signature": "0" * 64},
        {"webhook_id": ""},
        {"webhook_id": "evt_2"},
        {"webhook_timestamp": ""},
        {"webhook_timestamp": str(NOW_S - 1)},
        {"webhook_timestamp": f"{NOW_S}.0"},
        {"webhook_timestamp": "9" * 5000},
        {"webhook_timestamp": "٣"},
        {"webhook_signature": "v1,\udcff", "X_Webhook_Signature": "\udcff", "webhook_id": "\udcff"},
    ],
)
def test_anything_else_is_refused(changes):
    assert not valid(KEY, headers(**changes), BODY, now_s=NOW_S)


def test_one_other_byte_in_the_body_is_refused():
    assert not valid(KEY, headers(), BODY + b" ", now_s=NOW_S)


def test_each_signature_must_be_over_this_body():
    other = headers(b"{}")
    assert not valid(KEY, headers(webhook_signature=other["webhook-signature"]), BODY, now_s=NOW_S)
    assert not valid(KEY, headers(X_Webhook_Signature=other["X-Webhook-Signature"]), BODY, now_s=NOW_S)


def test_another_key_is_refused():
    assert not valid(b"another key of thirty-two bytes!", headers(), BODY, now_s=NOW_S)
