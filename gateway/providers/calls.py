"""One HTTP call to a provider, and the one place where the failures of calls become outcomes.

no connection (refused, no address, connect timeout)        NotSent: no request byte left
anything after that (read timeout, reset, 5xx, garbage)     Unknown
a refusal of what a merchant asks for, with an error code   Declined: it was not done, and will not be
anything else                                               an answer, to be read
"""

from typing import Annotated, TypeVar

import aiohttp
import msgspec
from msgspec import Meta
from yarl import URL

from gateway.core.errors import UNREADABLE
from gateway.core.outcome import Declined, NotSent, Unknown

ANSWER_BYTES_MAX = 64 * 1024  # a charge has less than 1 KiB
CONNECT_TIMEOUT_S = 0.5  # loopback or the next data centre; together with the pool's queue

_JSON = {"Content-Type": "application/json"}

# What a provider says is stored, shown to merchants and sent in webhooks, so it has to look like what it claims to be.
Code = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_]{1,32}\Z")]
ProviderId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,64}\Z")]


class _Error(msgspec.Struct, frozen=True):
    code: Code


class Answer(msgspec.Struct, frozen=True):
    """`body` is None if it is longer than any honest answer."""

    status: int
    body: bytes | None


_T = TypeVar("_T", bound=msgspec.Struct)
_errors = msgspec.json.Decoder(_Error)

ABOUT_SOMETHING_ELSE = Unknown("the provider's answer is about another reference, amount or currency")

# Refusals of what merchants ask for: nothing was done under this reference. A conflict of references would be a fault of our own, and 429
# says that it may be asked again.
_REFUSED = frozenset({400, 404, 409})


async def call(
    session: aiohttp.ClientSession, method: str, url: URL, body: bytes | None, deadline_s: float
) -> Answer | NotSent | Unknown:
    timeout = aiohttp.ClientTimeout(total=deadline_s, connect=min(CONNECT_TIMEOUT_S, deadline_s / 2))
    try:
        async with session.request(method, url, data=body, headers=_JSON, timeout=timeout, allow_redirects=False) as answer:
            return Answer(answer.status, await _bounded_read(answer))
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        return NotSent(type(error).__name__)
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        return Unknown(type(error).__name__)


def read(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T | Unknown:
    try:
        return decoder.decode(body)
    except UNREADABLE as error:
        # Only up to the first quotation: that is the provider's own text, which may repeat a card number, and reasons are logged.
        said = str(error).partition("'")[0]
        return Unknown(f"the provider's answer cannot be read: {type(error).__name__}: {said}")


def done(answer: Answer | NotSent | Unknown) -> bytes | Declined | NotSent | Unknown:
    """The body of what was done, or what became of the call instead."""
    if not isinstance(answer, Answer):
        return answer
    if answer.status == 200 and answer.body is not None:
        return answer.body
    code = error_code(answer)
    if answer.status in _REFUSED and code is not None and code != "reference_conflict":
        return Declined(code, code)
    return no_answer(answer)


def no_answer(answer: Answer) -> Unknown:
    return Unknown(f"the provider answered HTTP {answer.status}")


def error_code(answer: Answer) -> str | None:
    """The code in an error body. An error without one comes from something in between, and tells nothing about the charge."""
    error = read(_errors, answer.body or b"")
    return None if isinstance(error, Unknown) else error.code


async def _bounded_read(answer: aiohttp.ClientResponse) -> bytes | None:
    """The body, or None if it is longer than any honest answer."""
    length = answer.content_length
    if length is not None and length <= ANSWER_BYTES_MAX:
        return await answer.read()
    data = await answer.content.read(ANSWER_BYTES_MAX + 1)
    while len(data) <= ANSWER_BYTES_MAX and (more := await answer.content.read(ANSWER_BYTES_MAX + 1)):
        data += more
    return data if len(data) <= ANSWER_BYTES_MAX else None
