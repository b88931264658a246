"""Signatures on webhooks and callbacks: Standard Webhooks (https://www.standardwebhooks.com), and a plain hex HMAC of the body."""

import base64
import binascii
import hmac

SECRET_PREFIX = "whsec_"  # noqa: S105 - the public prefix of the scheme, not a secret
TOLERANCE_S = 300  # the scheme's own recommendation against replays


def secret_key(secret: str) -> bytes:
    """The key bytes of a `whsec_<base64>` secret. Raises ValueError if it is not one."""
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError("a webhook secret starts with whsec_")
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("a webhook secret is base64 after whsec_") from error
    if len(key) < 16:
        raise ValueError("a webhook secret has at least 16 bytes")
    return key


def sign(key: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    """The `webhook-signature` header's value: `v1,<base64 HMAC-SHA256 of id.timestamp.body>`."""
    digest = hmac.digest(key, b"%b.%d.%b" % (_raw(message_id), timestamp_s, body), "sha256")
    return "v1," + base64.b64encode(digest).decode()


def sign_body(key: bytes, body: bytes) -> str:
    """The `X-Webhook-Signature` header's value: hex HMAC-SHA256 of the raw body."""
    return hmac.digest(key, body, "sha256").hex()


def verifies(key: bytes, *, message_id: str, timestamp: str, body: bytes, signatures: str, now_s: int) -> bool:
    """Whether one of the space-separated signatures is right and the timestamp is at most `TOLERANCE_S` off. Constant time."""
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        return False
    timestamp_s = int(timestamp)
    expected = sign(key, message_id, timestamp_s, body).encode()
    found = False
    for candidate in signatures.split(" "):
        found |= hmac.compare_digest(expected, _raw(candidate))
    return found and abs(now_s - timestamp_s) <= TOLERANCE_S


def _raw(header: str) -> bytes:
    """The bytes of a header as they came; aiohttp keeps those that are not UTF-8 as lone surrogates."""
    return header.encode("utf-8", "surrogateescape")
