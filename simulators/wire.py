"""Reading requests, and refusing bad ones in JSON with a clear sentence."""

import re
from typing import TypeVar

import msgspec
from aiohttp import web

from simulators.config import locate
from simulators.provider import error_body
from simulators.providers import REFERENCE

T = TypeVar("T")

BODY_BYTES_MAX = 256 * 1024  # a charge has 500 bytes, a webhook 1 kB
DELAY_HEADER = "X-Paydrome-Delay-Ms"
FAULT_HEADER = "X-Paydrome-Fault"
FAULT_ID_HEADER = "X-Paydrome-Fault-Id"
JSON = {"Content-Type": "application/json", DELAY_HEADER: "0"}
_REFERENCE = re.compile(REFERENCE)


class Refused(web.HTTPException):
    """Raised by a handler, it becomes the answer: `{"error": sentence, "code": code}`."""

    def __init__(self, status: int, code: str, sentence: str, *, allow: str | None = None) -> None:
        self.status_code = status
        headers = {DELAY_HEADER: "0"} | ({"Allow": allow} if allow else {})
        super().__init__(text=error_body(code, sentence).decode(), content_type="application/json", headers=headers)


def refusal(status: int, code: str, sentence: str) -> web.Response:
    """The same as an answer, where nothing can be raised."""
    return web.Response(status=status, body=error_body(code, sentence), headers=JSON)


async def read(request: web.BaseRequest) -> bytes:
    """The body. Raises Refused (413) if it is too large."""
    body = _at_hand(request)
    if body is not None:
        return body
    try:
        if request.headers.get("Expect", "").lower() == "100-continue":  # curl waits a second for it, others for ever
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # the answer itself has not begun
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise Refused(413, "too_large", f"the body is larger than {BODY_BYTES_MAX} bytes") from None


def _at_hand(request: web.BaseRequest) -> bytes | None:
    """The body, if all of it came with the head, as it nearly always does: no need to wait for it."""
    content = request.content
    return content.read_nowait() if content.is_eof() and content.total_bytes <= BODY_BYTES_MAX else None


async def decode(request: web.BaseRequest, decoder: msgspec.json.Decoder[T]) -> T:
    """The JSON body as the decoder's type. Raises Refused (400, 413)."""
    body = _at_hand(request)
    if body is None:
        body = await read(request)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        field, reason = locate(error, decoder.type)
        raise Refused(400, "invalid_request", f"{field}: {reason}" if field else reason) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, "invalid_request", f"the body is not valid JSON: {error}") from None


def check_ascii(what: str, text: str) -> None:
    """Raises Refused (400) for what cannot be written down again: a header or path may hold any bytes."""
    if not (text.isascii() and text.isprintable()):
        raise Refused(400, "invalid_request", f"{what} must be printable ASCII")


def check_reference(reference: str) -> str:
    """The reference of a path, if it is one. Raises Refused (400)."""
    if not _REFERENCE.match(reference):
        raise Refused(400, "invalid_request", "reference: must be 1 to 64 of A-Z a-z 0-9 _ -")
    return reference
