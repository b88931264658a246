"""The envelope that every answer has, and how bodies and queries are read.

Success is `{"success": true, "data": ...}`. Failure is `{"success": false, "error", "code", "param"?, "requestID"}`, or RFC 9457 with
`Accept: application/problem+json`.
"""

import asyncio
import re
from http import HTTPStatus
from typing import Annotated, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.api import hints
from gateway.core.errors import CallerError

BODY_S_MAX = 10.0  # a phone on a bad line needs a second or two for a few KiB
BODY_BYTES_MAX = 64 * 1024  # the largest honest request has a few KiB of metadata

END = r"(?!\n)"  # after a pattern's `$`, which in Python would let a trailing newline pass

Text = Annotated[str, Meta(min_length=1, max_length=256)]
ShortId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,64}$" + END)]

HEADERS: web.RequestKey[dict[str, str]] = web.RequestKey("headers")
"""What every answer to the request has among its headers. The middleware adds them; who streams an answer has to do it before."""

T = TypeVar("T", bound=msgspec.Struct)


class Request(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Base of what callers send: unknown fields are errors."""


class Success(msgspec.Struct, frozen=True):
    success: bool
    data: object


class Pagination(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """`next_cursor` is what to ask for as `cursor` next; absent on the last page. Lists that can also be asked for by `offset` say that,
    `has_more`, and with it the `total`, unless there is too much to count."""

    limit: int
    next_cursor: str | None = None
    offset: int | None = None
    total: int | None = None
    has_more: bool | None = None


class Listed(msgspec.Struct, frozen=True):
    success: bool
    data: object
    pagination: object


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    success: bool
    error: str
    code: str
    request_id: str = msgspec.field(name="requestID")
    param: str | None = None


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 9457. `type` is about:blank, so `title` is the status' own phrase."""

    title: str
    status: int
    detail: str
    code: str
    request_id: str = msgspec.field(name="requestID")
    type: str = "about:blank"
    param: str | None = None


encode = msgspec.json.Encoder().encode


def success(data: object, *, status: int = 200) -> web.Response:
    return json_response(encode(Success(True, data)), status)


def listed(data: object, pagination: msgspec.Struct) -> web.Response:
    return json_response(encode(Listed(True, data, pagination)), 200)


def json_response(body: bytes, status: int) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")


def failure(request: web.BaseRequest, error: CallerError, request_id: str) -> web.Response:
    if "application/problem+json" in request.headers.get("Accept", ""):
        problem = Problem(
            HTTPStatus(error.status).phrase, error.status, error.message, error.code, request_id, param=error.param
        )
        return web.Response(body=encode(problem), status=error.status, content_type="application/problem+json")
    return json_response(encode(Failure(False, error.message, error.code, request_id, error.param)), error.status)


async def read_body(request: web.Request) -> bytes:
    """The raw JSON body. Raises CallerError 400, 408, 413 or 415."""
    if request.content_type != "application/json":
        raise CallerError(415, "unsupported_media_type", "send the body as Content-Type: application/json")
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise CallerError(415, "unsupported_media_type", "send the body without Content-Encoding")
    length = request.content_length
    if length is not None and length > BODY_BYTES_MAX:
        raise too_large()
    try:
        if request.content.is_eof():  # it came with the headers, as nearly all do: no timer needed
            return await request.read()
        async with asyncio.timeout(BODY_S_MAX):
            return await request.read()
    except TimeoutError as error:
        raise CallerError(408, "request_timeout", f"the body did not arrive within {BODY_S_MAX:g} s") from error
    except (web.RequestPayloadError, ConnectionError) as error:  # the second if the caller hung up: nobody hears the answer
        raise CallerError(400, "invalid_request", "the body breaks off, or is not what its headers say") from error


async def read_optional_body(request: web.Request) -> bytes:
    """As `read_body`, of a request that has nothing to say and may leave the body out, which is the same as `{}`."""
    return await read_body(request) if request.body_exists else b"{}"


def too_large() -> CallerError:
    return CallerError(413, "request_too_large", f"the body is larger than {BODY_BYTES_MAX} bytes")


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Raises CallerError 400 that names the faulty field."""
    try:
        decoded = decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), decoder.type) from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise CallerError(400, "invalid_json", f"the body is not valid JSON: {error}") from error
    if b"\\u0000" in body and _has_nul(msgspec.to_builtins(decoded)):
        raise CallerError(400, "invalid_request", "the body contains a NUL character")
    return decoded


def query(request: web.Request, kind: type[T]) -> T:
    """The query string as a `kind`, whose base is `Request`. Raises CallerError 400 that names the faulty parameter."""
    given = dict(request.query)
    if len(given) != len(request.query):
        twice = next(name for name in given if len(request.query.getall(name)) > 1)
        raise _invalid(f"Given more than once - at `$.{twice}`", kind)
    for name, value in given.items():
        if value.lower() == "null":  # which msgspec takes for None: the same as if it had not been given
            raise _invalid(f"Expected a value, got null - at `$.{name}`", kind)
    try:
        decoded = msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), kind) from error
    if _has_nul(given):
        raise CallerError(400, "invalid_request", "the query contains a NUL character")
    return decoded


# msgspec tells in prose where the fault is: "Expected `int`, got `str` - at `$.a.b`", "... - at `key` in `$.a`".
_LOCATED = re.compile(r"(?P<message>.*) - at (?:`key` in )?`\$\.?(?P<path>.*)`", re.DOTALL)
_FIELD = re.compile(r"Object (?:missing required|contains unknown) field `(?P<name>.*)`", re.DOTALL)
_CARD_LIKE = re.compile(r"[0-9](?:[ -]?[0-9]){11,}")  # what was sent in the wrong place, and must not be repeated


def _invalid(said: str, kind: type[msgspec.Struct]) -> CallerError:
    said = _CARD_LIKE.sub("[...]", said)
    located = _LOCATED.fullmatch(said)
    message, path = (located["message"], located["path"]) if located else (said, "")
    if field := _FIELD.fullmatch(message):
        path = f"{path}.{field['name']}" if path else field["name"]
    message = hints.helped(kind, path, message)
    return CallerError(400, "invalid_request", f"{path}: {message}" if path else message, path or None)


def _has_nul(value: object) -> bool:
    match value:
        case str():
            return "\0" in value
        case dict():
            return any(_has_nul(part) for pair in value.items() for part in pair)
        case list() | tuple():
            return any(_has_nul(part) for part in value)
        case _:
            return False
