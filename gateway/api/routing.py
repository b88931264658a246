"""What a path does, said once: the router serves it, openapi.py describes it."""

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Literal

import msgspec
from aiohttp import web

from gateway.core.limits import Priority

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Security = Literal["key", "signature", "none"]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """`takes`, `query` and `gives` are the structs of the body, of the query and of the answer's `data` (`listed`: a list of them, with
    `pagination`; `bare`: the answer is the struct, without the envelope). `errors` are the statuses beside those that every route can
    have. `accepts` are the media types of a body that is not the JSON of a struct, `offers` those of the answer beside `content_type`.
    `idempotent`: takes an Idempotency-Key. `priority` says who is shed first when there is too much to do; None: as usual for something
    of its kind."""

    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    handler: Handler
    summary: str
    tag: str
    takes: type[msgspec.Struct] | None = None
    accepts: tuple[str, ...] = ()
    query: type[msgspec.Struct] | None = None
    gives: type[msgspec.Struct] | None = None
    listed: bool = False
    bare: bool = False
    status: int = 200
    content_type: str = "application/json"
    offers: tuple[str, ...] = ()
    errors: tuple[int, ...] = ()
    idempotent: bool = False
    security: Security = "key"
    priority: Priority | None = None


Priorities = dict[web.AbstractRoute, Priority]
UNCOUNTED: frozenset[Priority] = frozenset({"callback", "return", "health"})
"""What no rate is for."""
PRIORITIES: web.AppKey[Priorities] = web.AppKey("priorities")
ROUTES: web.AppKey[list[Route]] = web.AppKey("routes")
"""All that were added so far."""

# `process` is a verb and no id: GET /api/payments/process is not an unknown payment, but a path that takes POST only.
_LAST_ID = re.compile(r"\{(\w+)\}$")
_NOT_PROCESS = r"{\1:(?!process$)[^{}/]+}"


def add_routes(app: web.Application, routes: Iterable[Route]) -> None:
    for route in routes:
        served = app.router.add_route(route.method, _LAST_ID.sub(_NOT_PROCESS, route.path), route.handler)
        app[PRIORITIES][served] = priority_of(route)
        app.setdefault(ROUTES, []).append(route)


def priority_of(route: Route) -> Priority:
    if route.priority is not None:
        return route.priority
    if route.security == "signature":
        return "callback"
    return "read" if route.method == "GET" else "write"
