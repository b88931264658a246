"""The bank's page, which a person can click through: log in, confirm, one-time password; or cancel at any step.

Which step a payment is at is kept here, not in the browser, so that no step can be left out. The last step decides; then the
browser goes back to the merchant and the bank calls back, and a draw of the payment says which of the two is first: a merchant must
cope with both, and ask the bank (`GET /bank/payments/{reference}`) rather than believe the browser.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import parse_qs

from aiohttp import web

from simulators import templates
from simulators.behaviour import Draws, fraction
from simulators.charges import Charge
from simulators.provider import Provider
from simulators.providers import Waiting
from simulators.providers.netbanking import clicked
from simulators.routes import Routes
from simulators.upi_links import qr_svg
from simulators.wire import DELAY_HEADER, Refused, check_reference, read

FORM_FIELDS_MAX = 10
STEPS_MAX = 10_000  # payments that are under way on the page; beyond it the oldest has to log in again
HEAD_START_MS = 500  # of the browser's return before the callback, or the other way round: more than any merchant's page takes

Step = Literal["login", "confirm", "otp"]

# Where each click leads; a click that does not belong to the step shows the step again.
NEXT: dict[tuple[Step, str], Step | Literal["decided"]] = {
    ("login", "login"): "confirm",
    ("confirm", "confirm"): "otp",
    ("otp", "pay"): "decided",
    ("login", "cancel"): "decided",
    ("confirm", "cancel"): "decided",
    ("otp", "cancel"): "decided",
}
ACTIONS = sorted({action for _, action in NEXT})
_PAGES: dict[Step, Callable[[Charge, Waiting], str]] = {
    "login": templates.login,
    "confirm": templates.confirm,
    "otp": templates.otp,
}
_TENANT = re.compile(r"/t/[A-Za-z0-9_-]{1,64}\Z")


def add_routes(routes: Routes, bank: Provider[Any], draws: Draws) -> None:
    """Adds the page of the bank's payments."""
    pages = BankPages(bank, draws)
    routes.add("/bank/pages/*", GET=pages.show, POST=pages.click)


def add_qr_route(routes: Routes, upi: Provider[Any]) -> None:
    """Adds the picture of the QR code that a UPI payment of the flow `qr` has."""

    async def picture(_: web.BaseRequest, reference: str) -> web.Response:
        charge = upi.charge(check_reference(reference))
        if charge is None or not charge.qrPayload:
            raise Refused(404, "not_found", f"no UPI payment with reference {reference!r} has a QR code")
        svg = await asyncio.to_thread(qr_svg, charge.qrPayload)
        return web.Response(body=svg, content_type="image/svg+xml", headers={DELAY_HEADER: "0", "Cache-Control": "no-store"})

    routes.add("/upi/payments/*/qr.svg", GET=picture)


class BankPages:
    """The handlers of the page."""

    def __init__(self, bank: Provider[Any], draws: Draws) -> None:
        self._bank = bank
        self._draws = draws
        self._steps: dict[str, Step] = {}  # by providerID; at most STEPS_MAX, a payment that is not in it is at the login
        bank.intake.world.remember(self, "_steps")

    async def show(self, _: web.BaseRequest, provider_id: str) -> web.Response:
        """The form of the step while the payment is pending, the result afterwards."""
        charge, waiting = self._find(provider_id)
        if charge.status != "pending":
            return _html(templates.result(charge, waiting), waiting)
        return _html(_PAGES[self._steps.get(provider_id, "login")](charge, waiting), waiting)

    async def click(self, request: web.BaseRequest, provider_id: str) -> web.StreamResponse:
        """Takes one step. A payment that is decided already keeps its decision."""
        fields = form_fields(await read(request))
        charge, waiting = self._find(provider_id)  # not before: much may happen while a form is on its way
        action = fields.get("action", "")
        if action not in ACTIONS:
            raise Refused(400, "invalid_request", f"action: must be one of {', '.join(ACTIONS)}")
        if charge.status != "pending":
            return _see(here(request), waiting)
        following = NEXT.get((self._steps.get(provider_id, "login"), action))
        if following == "decided":
            return await self._decide(request, charge, waiting, fields)
        if following == "confirm" and not _known(fields):
            error = "That user name and password do not match. Nothing has been paid."
            return _html(templates.login(charge, waiting, error=error), waiting)
        if following is not None:
            self._at(provider_id, following)
        return _see(here(request), waiting)  # see other: to load the page again sends no form again

    async def _decide(
        self, request: web.BaseRequest, charge: Charge, waiting: Waiting, fields: dict[str, str]
    ) -> web.StreamResponse:
        self._steps.pop(charge.providerID, None)
        action: Literal["pay", "cancel"] = "cancel" if fields["action"] == "cancel" else "pay"
        code = clicked(action, otp=fields.get("otp", "").strip(), bank_code=waiting.bank_code)
        if waiting.return_url is None:
            self._bank.decide(charge.reference, code)
            return _see(here(request), waiting)
        if returns_first(self._draws, charge.reference):
            self._bank.decide(charge.reference, code, announce_in_ms=HEAD_START_MS)
        else:
            self._bank.decide(charge.reference, code)
            await asyncio.sleep(HEAD_START_MS / 1000)
        return _see(waiting.return_url, waiting)

    def _at(self, provider_id: str, step: Step) -> None:
        if len(self._steps) >= STEPS_MAX and provider_id not in self._steps:
            del self._steps[next(iter(self._steps))]
        self._steps[provider_id] = step

    def _find(self, provider_id: str) -> tuple[Charge, Waiting]:
        found = self._bank.find(provider_id)
        if found is None:
            raise Refused(404, "not_found", "no net banking payment has this page")
        return found


def returns_first(draws: Draws, reference: str) -> bool:
    """Whether the browser is back at the merchant before the callback is sent: a draw of the payment, half and half."""
    return fraction(draws.draw("bank", "return", reference, 1).outcome) < 0.5


def content_security_policy(return_url: str | None) -> str:
    """Nothing from outside. Forms may lead to this page and, where the customer returns to somebody, anywhere: browsers follow the
    redirect, and each one after it, with this policy, and a gateway sends the customer on to a merchant that nobody here knows."""
    return f"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'; {form_action(return_url)}"


def form_action(return_url: str | None) -> str:
    return "form-action 'self' http: https:" if return_url else "form-action 'self'"


def _known(fields: dict[str, str]) -> bool:
    return bool(fields.get("user", "").strip()) and fields.get("password") == templates.PASSWORD_THAT_PASSES


def here(request: web.BaseRequest) -> str:
    """The path that the caller asked for, with its tenant."""
    tenant = _TENANT.search(request.host)  # put there by tenants.py; whatever else a caller writes there leads nowhere
    return f"{tenant[0] if tenant else ''}{request.rel_url.raw_path}"


def _see(where: str, waiting: Waiting) -> web.Response:
    return web.Response(status=303, headers=_headers(waiting) | {"Location": where})


def _html(body: str, waiting: Waiting) -> web.Response:
    return web.Response(text=body, content_type="text/html", headers=_headers(waiting))


def _headers(waiting: Waiting) -> dict[str, str]:
    return {
        DELAY_HEADER: "0",
        "Cache-Control": "no-store",
        "Content-Security-Policy": content_security_policy(waiting.return_url),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }


def form_fields(body: bytes) -> dict[str, str]:
    """The first value of each field of a posted form. Raises Refused (400)."""
    try:
        fields = parse_qs(body.decode(), max_num_fields=FORM_FIELDS_MAX, keep_blank_values=True)
    except ValueError as error:
        raise Refused(400, "invalid_request", f"the form is not usable: {error}") from None
    return {name: values[0] for name, values in fields.items()}
