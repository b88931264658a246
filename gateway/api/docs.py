"""GET /openapi.json, for programs, and GET /docs, which shows it to people.

The page is one file without outside resources (docs.html). Its Content-Security-Policy allows that file's script and style by their
hashes, and the document of this same gateway, and nothing else.
"""

import base64
import hashlib
import re
from functools import lru_cache
from pathlib import Path

from aiohttp import web
from msgspec.structs import replace

from gateway.api import openapi
from gateway.api.routing import Handler, Route

PAGE = Path(__file__).with_name("docs.html")


class DocsHandlers:
    """Of the routes given, and its own."""

    def __init__(self, routes: list[Route]) -> None:
        described = (*routes, *self.routes())
        self._document = _document(tuple(replace(route, handler=_nobody) for route in described))
        self._document_etag = _etag(self._document)
        self._page, self._policy = _read_page()
        self._page_etag = _etag(self._page)

    def routes(self) -> list[Route]:
        return [
            _route("/openapi.json", self.document, "This document: OpenAPI 3.1", "application/json"),
            _route("/docs", self.page, "This document, for people", "text/html"),
        ]

    async def document(self, request: web.Request) -> web.Response:
        return _answer(request, self._document, self._document_etag, "application/json", {})

    async def page(self, request: web.Request) -> web.Response:
        headers = {
            "Content-Security-Policy": self._policy,
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        return _answer(request, self._page, self._page_etag, "text/html", headers)


def _route(path: str, handler: Handler, summary: str, content_type: str) -> Route:
    return Route(
        method="GET",
        path=path,
        handler=handler,
        summary=summary,
        tag="documentation",
        bare=True,
        content_type=content_type,
        errors=(304,),
        security="none",
    )


@lru_cache(maxsize=1)
def _document(routes: tuple[Route, ...]) -> bytes:
    """Takes 50 ms: made once, for all gateways of this process, as they have the same routes."""
    return openapi.document(routes)


async def _nobody(request: web.Request) -> web.StreamResponse:
    """Stands in for handlers, each of which is one gateway's own, so that routes can be compared."""
    raise NotImplementedError(request.path)


def _etag(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]


def _answer(request: web.Request, body: bytes, etag: str, content_type: str, headers: dict[str, str]) -> web.Response:
    known = request.if_none_match or ()
    same = any(each.value in (etag, "*") for each in known)
    response = web.Response(status=304) if same else web.Response(body=body, content_type=content_type, charset="utf-8")
    response.etag = etag
    response.headers.update(headers | {"Cache-Control": "no-cache"})  # kept, but asked for again: a new gateway is seen at once
    return response


@lru_cache(maxsize=1)
def _read_page() -> tuple[bytes, str]:
    """The page and its Content-Security-Policy."""
    html = PAGE.read_text(encoding="utf-8")
    own = {kind: _hash(html, kind) for kind in ("script", "style")}
    allowed = f"script-src '{own['script']}'; style-src '{own['style']}'; connect-src 'self'; img-src data:"
    return html.encode(), f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def _hash(html: str, kind: str) -> str:
    """Of the one element of its kind."""
    [inside] = re.findall(f"<{kind}>(.*?)</{kind}>", html, re.DOTALL)
    return "sha256-" + base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
