"""The envelope that every answer has, and how bodies are read.

Success is `{"success": true, "data": ...}`. Failure is `{"success": false, "error", "code", "param"?, "requestID"}`, or RFC 9457 with
`Accept: application/problem+json`.
"""

from http import HTTPStatus
from typing import Annotated, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta

from gateway.core.errors import CallerError

BODY_BYTES_MAX = 64 * 1024  # the largest honest request has a few KiB of metadata

END = r"(?!\n)"  # after a pattern's `$`, which in Python would let a trailing newline pass

Text = Annotated[str, Meta(min_length=1, max_length=256)]
ShortId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,64}$" + END)]

T = TypeVar("T", bound=msgspec.Struct)


class Request(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Base of what callers send: unknown fields are errors."""


class Success(msgspec.Struct, frozen=True):
    success: bool
    data: object


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


def json_response(body: bytes, status: int) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")


def failure(request: web.Request, error: CallerError, request_id: str) -> web.Response:
    if "application/problem+json" in request.headers.get("Accept", ""):
        problem = Problem(
            HTTPStatus(error.status).phrase, error.status, error.message, error.code, request_id, param=error.param
        )
        return web.Response(body=encode(problem), status=error.status, content_type="application/problem+json")
    return json_response(encode(Failure(False, error.message, error.code, request_id, error.param)), error.status)


async def read_body(request: web.Request) -> bytes:
    """The raw JSON body. Raises CallerError 413 or 415."""
    if request.content_type != "application/json":
        raise CallerError(415, "unsupported_media_type", "send the body as Content-Type: application/json")
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise CallerError(415, "unsupported_media_type", "send the body without Content-Encoding")
    length = request.content_length
    if length is not None and length > BODY_BYTES_MAX:
        raise too_large()
    return await request.read()


def too_large() -> CallerError:
    return CallerError(413, "request_too_large", f"the body is larger than {BODY_BYTES_MAX} bytes")


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Raises CallerError 400 that names the faulty field."""
    try:
        decoded = decoder.decode(body)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        param = path.rstrip("`").lstrip(".") or None
        raise CallerError(400, "invalid_request", f"{param}: {message}" if param else message, param) from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise CallerError(400, "invalid_json", f"the body is not valid JSON: {error}") from error
    if b"\\u0000" in body and _has_nul(msgspec.to_builtins(decoded)):
        raise CallerError(400, "invalid_request", "the body contains a NUL character")
    return decoded


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
