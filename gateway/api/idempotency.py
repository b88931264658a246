"""The `Idempotency-Key` header (IETF draft), as the flows want it."""

import re

from aiohttp import web

from gateway.core.errors import invalid
from gateway.flows.idempotency import IdempotencyKey
from gateway.vault import Vault

IDEMPOTENCY_KEY_MAX = 255  # characters (DOMAIN)

_BARE_KEY = re.compile(r"[\x21\x23-\x7e]{1,255}")
_QUOTED_KEY = re.compile(r'"([\x20-\x21\x23-\x7e]{1,255})"')


def key_of(request: web.Request, merchant_id: str, body: bytes, vault: Vault) -> IdempotencyKey | None:
    """The request's key, with the fingerprint of its path and body. Raises CallerError 400."""
    key = parse(request.headers.getall("Idempotency-Key", []))
    if key is None:
        return None
    return IdempotencyKey(merchant_id, key, vault.fingerprint(request.path.encode() + b"\n" + body))


def parse(headers: list[str]) -> str | None:
    """The key in an `Idempotency-Key` header, quoted as the IETF draft has it, or bare. Raises CallerError 400."""
    if not headers:
        return None
    quoted = _QUOTED_KEY.fullmatch(headers[0])
    key = quoted[1] if quoted else headers[0]
    if len(headers) > 1 or not (quoted or _BARE_KEY.fullmatch(key)):
        raise invalid(
            "Idempotency-Key", f"send it once, 1 to {IDEMPOTENCY_KEY_MAX} printable ASCII characters", "invalid_idempotency_key"
        )
    return key
