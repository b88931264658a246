"""Whose request it is, by its API key."""

import hashlib
from collections.abc import Mapping

from aiohttp import web

from gateway.core.errors import CallerError

_CALLER: web.RequestKey[str | None] = web.RequestKey("caller")  # looked up once a request: hashing is most of what it costs


class Keys:
    """API keys, held as hashes."""

    def __init__(self, keys: Mapping[str, str], operator_key: str | None = None) -> None:
        """`keys` maps each API key to its merchant's id."""
        self._operator = None if operator_key is None else hashlib.sha256(operator_key.encode()).digest()
        self._merchants = {hashlib.sha256(key.encode()).digest(): merchant for key, merchant in keys.items()}

    def merchant(self, request: web.Request) -> str:
        """The merchant whose key this request carries. Raises CallerError 401, or 403 for the operator's."""
        merchant = self.caller(request)
        if merchant is None:
            raise CallerError(403, "insufficient_scope", "this is a merchant's, and the key is the operator's")
        return merchant

    def operator(self, request: web.Request) -> None:
        """Raises CallerError 401, or 403 for a merchant's key."""
        if self.caller(request) is not None:
            raise CallerError(
                403, "insufficient_scope", "this is the operator's: it takes the operator_key of the configuration"
            )

    def caller(self, request: web.Request) -> str | None:
        """The merchant whose key this request carries, None for the operator. Raises CallerError 401."""
        try:
            return request[_CALLER]
        except KeyError:
            return self.identify(request)

    def identify(self, request: web.Request) -> str | None:
        """As `caller`, of a request that is seen for the first time."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise CallerError(401, "missing_api_key", "send your API key as Authorization: Bearer sk_test_...")
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        merchant = self._merchants.get(digest)
        if merchant is None and digest != self._operator:
            raise CallerError(401, "invalid_api_key", "this API key is not known")
        request[_CALLER] = merchant
        return merchant
