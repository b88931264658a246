"""Webhook signatures, made and checked: https://www.standardwebhooks.com and the plain `X-Webhook-Signature`. Pure."""

import base64
import hashlib
import hmac
from collections.abc import Mapping

TIMESTAMP_TOLERANCE_S = 300  # Standard Webhooks' reference libraries use the same: 5 minutes either way


def sign(key: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    """The `webhook-signature` of a message: `v1,` and the base64 of HMAC-SHA256 over id.timestamp.body."""
    signed = b"%b.%d.%b" % (message_id.encode(errors="surrogateescape"), timestamp_s, body)
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def valid(key: bytes, headers: Mapping[str, str], body: bytes, *, now_s: int) -> bool:
    """Whether a webhook carries both signatures over these very bytes, and a timestamp at most 300 s away from now."""
    message_id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not message_id or len(stamp) > 12 or not (stamp.isascii() and stamp.isdigit()):
        return False
    expected = sign(key, message_id, int(stamp), body)
    standard = any(_same(expected, given) for given in headers.get("webhook-signature", "").split(" "))
    plain = _same(hmac.new(key, body, hashlib.sha256).hexdigest(), headers.get("X-Webhook-Signature", ""))
    return standard and plain and abs(now_s - int(stamp)) <= TIMESTAMP_TOLERANCE_S


def _same(expected: str, given: str) -> bool:
    return hmac.compare_digest(
        expected.encode(), given.encode(errors="surrogateescape")
    )  # as bytes: a header may hold anything
