"""Where customers' browsers come back to, from the issuer's page (3-D Secure) or the bank's, and from where they are sent on to the
merchant's `returnUrl`.

No key, and nothing that the browser brings is looked at: it could say anything. The provider is asked how it went. Nor does `status` in the
merchant's URL prove anything to the merchant, who is told by webhook and may ask for the payment's status.
"""

from html import escape
from typing import Literal
from urllib.parse import urlencode, urlsplit, urlunsplit

import msgspec
import structlog
from aiohttp import web

from gateway.api.routing import Handler, Route
from gateway.core.payment import Payment, Status
from gateway.flows.payments import Payments

CHALLENGE_RETURN_PATH = "/api/payments/{paymentID}/3ds/return"
BANK_RETURN_PATH = "/api/payments/{paymentID}/return"

_TITLES: dict[Status, str] = {
    "completed": "Paid",
    "authorized": "Authorized",
    "partially_captured": "Paid in part",
    "voided": "Cancelled",
    "failed": "Not paid",
    "expired": "Not paid: the time was up",
}
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors *",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_STYLE = "body{font:1rem/1.5 system-ui,sans-serif;margin:15vh auto;max-width:30rem;padding:0 1rem;color-scheme:light dark}"

log = structlog.get_logger("gateway.api")


class _Details(msgspec.Struct, frozen=True, rename="camel"):
    return_url: str | None = None


_decode_details = msgspec.json.Decoder(_Details).decode


class RedirectHandlers:
    def __init__(self, *, payments: Payments) -> None:
        self._payments = payments

    def routes(self) -> list[Route]:
        return [
            _route("POST", CHALLENGE_RETURN_PATH, self.come_back, "The browser comes back from a 3-D Secure challenge"),
            _route("GET", BANK_RETURN_PATH, self.come_back, "The browser comes back from a bank's page"),
        ]

    async def come_back(self, request: web.Request) -> web.Response:
        payment = await self._payments.came_back(request.match_info["paymentID"])
        log.info("customer.came_back", payment_id=payment.id, status=payment.status)
        url = _decode_details(payment.details).return_url
        if url is None:
            return web.Response(text=_page(payment), content_type="text/html", headers=_HEADERS)
        return web.Response(status=303, headers=_HEADERS | {"Location": return_to(url, payment)})


def return_to(url: str, payment: Payment) -> str:
    """The merchant's URL as it was given, with `paymentID` and `status` added to its query."""
    parts = urlsplit(url)
    told = urlencode({"paymentID": payment.id, "status": payment.status})
    return urlunsplit(parts._replace(query=f"{parts.query}&{told}" if parts.query else told))


def _page(payment: Payment) -> str:
    """For customers of a merchant who gave no returnUrl."""
    title = _TITLES.get(payment.status, "Not decided yet")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>"
        f"<p>Order {escape(payment.order_id)}. You can close this page and go back to the shop.</p>"
        f"<p><small>Payment {escape(payment.id)}</small></p></html>"
    )


def _route(method: Literal["GET", "POST"], path: str, handler: Handler, summary: str) -> Route:
    return Route(
        method=method,
        path=path,
        handler=handler,
        summary=summary + ", and is sent on to returnUrl",
        tag="redirects",
        status=303,
        content_type="text/html",
        accepts=("application/x-www-form-urlencoded",) if method == "POST" else (),
        errors=(404,),
        security="none",
        priority="return",  # it ends payments that are under way, and half a country comes from one carrier's address
    )
