"""aiohttp's low-level server, taught to refuse what is not even HTTP in JSON, and to keep bodies small."""

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from simulators.wire import BODY_BYTES_MAX, refusal

BACKLOG = 2048  # a burst of new connections waits in the kernel instead of being refused
SHUTDOWN_S = 0.5  # what is still held then is a lost answer, which nobody will get anyway


class _Connection(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        if isinstance(exc, ConnectionError):  # the caller hung up while it was answered: no error of ours, and nobody to tell
            raise exc
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        response = refusal(status, "invalid_request", "this is not a valid HTTP request: " + " ".join((message or "").split()))
        response.force_close()
        return response


class Server(web.Server):
    """Serves what `find` gives for each request.

    A handler is cancelled when its caller is gone, so that a caller who gave up on a lost answer is forgotten at once. That
    never undoes anything: what a handler does is done before its first wait.
    """

    def __init__(self, find: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        # No decompression: a signature is over the bytes that were sent, and nobody needs to be able to send a zip bomb.
        super().__init__(find, request_factory=_request, handler_cancellation=True, access_log=None, auto_decompress=False)

    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


def _request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: "asyncio.Task[None]",
) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=BODY_BYTES_MAX)
