"""The HTTP side of every provider, and the one place where its failures become outcomes.

    no connection (refused, no address, connect timeout)        NotSent: no request byte left
    anything after that (read timeout, reset, 5xx, garbage)     Unknown
    a well-formed charge, about our reference and amount        what it says

The dialects (card.py, upi.py, netbanking.py) say how a request is encoded and what an answer means.
"""

from typing import Annotated, Literal, Protocol

import aiohttp
import msgspec
from msgspec import Meta
from yarl import URL

from gateway.config import ProviderConfig
from gateway.core.errors import UNREADABLE
from gateway.core.outcome import Approved, Declined, Expired, NextAction, NotFound, NotSent, Outcome, Pending, Reversed, Unknown
from gateway.core.payment import Attempt, Payment
from gateway.outbound import open_session
from gateway.ports import Instrument

ANSWER_BYTES_MAX = 64 * 1024  # a charge has less than 1 KiB
CONNECT_TIMEOUT_S = 0.5  # loopback or the next data centre; together with the pool's queue

_JSON = {"Content-Type": "application/json"}


# What a provider says is stored, shown to merchants and sent in webhooks, so it has to look like what it claims to be.
Code = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_]{1,32}\Z")]
ProviderId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,64}\Z")]
WebUrl = Annotated[str, Meta(pattern=r"^https?://[!-~]{1,2000}\Z")]
UpiUrl = Annotated[str, Meta(pattern=r"^upi://[!-~]{1,2000}\Z")]


class Charge(msgspec.Struct, frozen=True, rename="camel"):
    """A provider's answer (docs/providers.md). Unknown fields are ignored: providers add some without asking."""

    reference: str
    provider_id: ProviderId = msgspec.field(name="providerID")
    status: Literal["pending", "approved", "declined", "expired", "reversed"]
    amount: int
    currency: str
    response_code: Code | None = None
    intent_url: UpiUrl | None = msgspec.field(name="intentURL", default=None)
    qr_payload: UpiUrl | None = None
    redirect_url: WebUrl | None = msgspec.field(name="redirectURL", default=None)


class Dialect(Protocol):
    collection: str
    """Path of the charges below the provider's base URL."""

    def encode(self, payment: Payment, attempt: Attempt, instrument: Instrument, callback_url: str) -> bytes: ...

    def reason(self, response_code: str) -> str:
        """A decline code in words (snake_case)."""
        ...

    def next_action(self, charge: Charge) -> NextAction | None: ...


_decode = msgspec.json.Decoder(Charge).decode


def read_charge(body: bytes, attempt: Attempt, dialect: Dialect) -> Outcome:
    """What a charge in a provider's answer or callback says about the attempt. Unknown if it says nothing definite about it."""
    try:
        charge = _decode(body)
    except UNREADABLE as error:
        # Only up to the first quotation: that is the provider's own text, which may repeat a card number, and reasons are logged.
        said = str(error).partition("'")[0]
        return Unknown(f"the provider's answer cannot be read: {type(error).__name__}: {said}")
    if (charge.reference, charge.amount, charge.currency) != (attempt.reference, attempt.amount_minor, attempt.currency):
        return Unknown("the provider's answer is about another reference, amount or currency")
    match charge.status:
        case "approved":
            return Approved(charge.provider_id, charge.response_code or "")
        case "declined":
            code = charge.response_code or ""
            return Declined(code, dialect.reason(code), charge.provider_id)
        case "expired":
            return Expired(charge.response_code or "", charge.provider_id)
        case "reversed":
            return Reversed()
        case "pending":
            return Pending(charge.provider_id, dialect.next_action(charge))


class HttpProvider:
    """A `Provider` over HTTP. `close` it."""

    def __init__(self, config: ProviderConfig, dialect: Dialect, *, callback_url: str) -> None:
        self._dialect = dialect
        self._callback_url = callback_url
        self._charges = URL(config.url.rstrip("/") + dialect.collection)
        self._session = open_session(connections_max=config.connections_max)

    async def create(self, payment: Payment, attempt: Attempt, instrument: Instrument, *, deadline_s: float) -> Outcome:
        body = self._dialect.encode(payment, attempt, instrument, self._callback_url)
        return await self._call("POST", self._charges, body, attempt, deadline_s)

    async def inquire(self, attempt: Attempt, *, deadline_s: float) -> Outcome:
        return await self._call("GET", self._charges / attempt.reference, None, attempt, deadline_s)

    async def reverse(self, attempt: Attempt, *, deadline_s: float) -> Outcome:
        body = msgspec.json.encode({"amount": attempt.amount_minor, "currency": attempt.currency})
        return await self._call("POST", self._charges / attempt.reference / "reverse", body, attempt, deadline_s)

    def read_callback(self, body: bytes, attempt: Attempt) -> Outcome:
        return read_charge(body, attempt, self._dialect)

    async def close(self) -> None:
        await self._session.close()

    async def _call(self, method: str, url: URL, body: bytes | None, attempt: Attempt, deadline_s: float) -> Outcome:
        timeout = aiohttp.ClientTimeout(total=deadline_s, connect=min(CONNECT_TIMEOUT_S, deadline_s / 2))
        try:
            async with self._session.request(
                method, url, data=body, headers=_JSON, timeout=timeout, allow_redirects=False
            ) as answer:
                data = await _bounded_read(answer)
                status = answer.status
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return NotSent(type(error).__name__)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            return Unknown(type(error).__name__)
        if status == 200 and data is not None:
            return read_charge(data, attempt, self._dialect)
        if status == 404 and method == "GET" and _error_code(data) == "not_found":
            return NotFound()
        return Unknown(f"the provider answered HTTP {status}")


class _Error(msgspec.Struct, frozen=True):
    code: str


def _error_code(data: bytes | None) -> str | None:
    """The code in an error body. A 404 without one comes from something in between, and tells nothing about the charge."""
    try:
        return msgspec.json.decode(data or b"", type=_Error).code
    except UNREADABLE:
        return None


async def _bounded_read(answer: aiohttp.ClientResponse) -> bytes | None:
    """The body, or None if it is longer than any honest answer."""
    length = answer.content_length
    if length is not None and length <= ANSWER_BYTES_MAX:
        return await answer.read()
    data = await answer.content.read(ANSWER_BYTES_MAX + 1)
    while len(data) <= ANSWER_BYTES_MAX and (more := await answer.content.read(ANSWER_BYTES_MAX + 1)):
        data += more
    return data if len(data) <= ANSWER_BYTES_MAX else None
