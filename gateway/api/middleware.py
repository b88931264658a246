"""Around every request: who asks, under which id, how long it took, and what an error looks like from outside."""

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from gateway import observe
from gateway.api import wire
from gateway.core.errors import CallerError, GatewayError, StoreFull
from gateway.ports import Ids
from gateway.runtime import timer_s

log = structlog.get_logger("gateway.api")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9_.:-]{1,64}")  # the caller's own is kept if it can stand in a log

# What aiohttp itself refuses, in our words.
_HTTP_ERRORS = {
    404: CallerError(404, "not_found", "no such path"),
    405: CallerError(405, "method_not_allowed", "this path does not take this method"),
    413: wire.too_large(),
}


class Keys:
    """API keys, held as hashes."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        """`keys` maps each API key to its merchant's id."""
        self._merchants = {hashlib.sha256(key.encode()).digest(): merchant for key, merchant in keys.items()}

    def merchant(self, request: web.Request) -> str:
        """The merchant whose key this request carries. Raises CallerError 401."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise CallerError(401, "missing_api_key", "send your API key as Authorization: Bearer sk_test_...")
        merchant = self._merchants.get(hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest())
        if merchant is None:
            raise CallerError(401, "invalid_api_key", "this API key is not known")
        return merchant


def boundary(*, ids: Ids, metrics: observe.Metrics) -> Middleware:
    """The one middleware. Whatever happens inside, the caller gets the envelope and a request id."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started_s = timer_s()
        given = request.headers.get("X-Request-ID")
        request_id = given if given is not None and _REQUEST_ID_PATTERN.fullmatch(given) else ids.new("req")
        observe.request_id.set(request_id)
        try:
            response = await handler(request)
        except CallerError as error:
            response = wire.failure(request, error, request_id)
        except web.HTTPException as error:
            response = _refused(request, error, request_id)
        except StoreFull:
            response = _unavailable(request, request_id, "too much to do at the moment; retry in a second")
        except GatewayError as error:
            log.exception("request.failed", path=request.path)
            response = _unavailable(
                request, request_id, f"the request cannot be carried out now ({type(error).__name__}); retry"
            )
        except Exception:
            log.exception("request.crashed", path=request.path)
            bug = CallerError(500, "internal_error", "this is a fault of the gateway; give the requestID to its operator")
            response = wire.failure(request, bug, request_id)
        response.headers["X-Request-ID"] = request_id
        resource = request.match_info.route.resource
        metrics.answered(resource.canonical if resource else "unmatched", response.status, timer_s() - started_s)
        return response

    return middleware


def _refused(request: web.Request, error: web.HTTPException, request_id: str) -> web.Response:
    known = _HTTP_ERRORS.get(error.status) or CallerError(error.status, "invalid_request", error.reason)
    response = wire.failure(request, known, request_id)
    if allow := error.headers.get("Allow"):
        response.headers["Allow"] = allow
    return response


def _unavailable(request: web.Request, request_id: str, message: str) -> web.Response:
    response = wire.failure(request, CallerError(503, "unavailable", message), request_id)
    response.headers["Retry-After"] = "1"
    return response
