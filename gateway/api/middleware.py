"""Around every request: whether it is let in, under which id, how long it took, and what an error looks like from outside."""

import re
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from gateway import observe
from gateway.api import versions, wire
from gateway.api.admission import Admission
from gateway.api.cors import Cors
from gateway.core.errors import CallerError, GatewayError, Overloaded, StoreFull
from gateway.ports import Ids
from gateway.runtime import timer_s

log = structlog.get_logger("gateway.api")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9_.:-]{1,64}")  # the caller's own is kept if it can stand in a log

# What aiohttp itself refuses, in our words.
_HTTP_ERRORS = {
    404: CallerError(404, "not_found", "no such path"),
    413: wire.too_large(),
}


def boundary(*, ids: Ids, metrics: observe.Metrics, admission: Admission, cors: Cors | None) -> Middleware:
    """The one middleware. Whatever happens inside, the caller gets the envelope and a request id."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started_s = timer_s()
        given = request.headers.get("X-Request-ID")
        request_id = given if given is not None and _REQUEST_ID_PATTERN.fullmatch(given) else ids.new("req")
        observe.request_id.set(request_id)
        headers = request[wire.HEADERS] = {"X-Request-ID": request_id, versions.HEADER: versions.NEWEST}
        priority = admission.priority(request)
        response: web.StreamResponse
        try:
            if cors is not None and (preflight := cors.answer(request, headers)) is not None:
                response = preflight
            else:
                if priority == "callback":
                    await admission.arrival(request)
                admission.enter(request, priority, headers, started_s)
                try:
                    headers[versions.HEADER] = versions.of(request)
                    response = await handler(request)
                finally:
                    admission.leave(priority)
        except Exception as error:
            if isinstance(error, StoreFull | Overloaded):
                metrics.shed(priority, error.bound if isinstance(error, Overloaded) else "store")
            response = _failed(request, error, request_id)
        response.headers.update(headers)
        resource = request.match_info.route.resource
        metrics.answered(resource.canonical if resource else "unmatched", response.status, timer_s() - started_s)
        return response

    return middleware


def _failed(request: web.Request, error: Exception, request_id: str) -> web.Response:
    match error:
        case CallerError():
            return wire.failure(request, error, request_id)
        case web.HTTPException():
            return _refused(request, error, request_id)
        case StoreFull() | Overloaded():
            return _unavailable(request, request_id, "too much to do at the moment; retry in a second")
        case GatewayError():
            log.exception("request.failed", path=request.path)
            why = f"the request cannot be carried out now ({type(error).__name__}); retry"
            return _unavailable(request, request_id, why)
        case _:
            log.exception("request.crashed", path=request.path)
            bug = CallerError(500, "internal_error", "this is a fault of the gateway; give the requestID to its operator")
            return wire.failure(request, bug, request_id)


def _refused(request: web.Request, error: web.HTTPException, request_id: str) -> web.Response:
    allow = error.headers.get("Allow")
    known = _HTTP_ERRORS.get(error.status) or CallerError(error.status, "invalid_request", error.reason)
    if allow and error.status == 405:
        known = CallerError(405, "method_not_allowed", f"this path takes {allow.replace(',', ', ')}")
    response = wire.failure(request, known, request_id)
    if allow:
        response.headers["Allow"] = allow
    return response


def _unavailable(request: web.Request, request_id: str, message: str) -> web.Response:
    response = wire.failure(request, CallerError(503, "unavailable", message), request_id)
    response.headers["Retry-After"] = "1"
    return response
