"""3-D Secure over HTTP: the calls of the merchant's side, and the page of the issuer's access control server (ACS).

The cardholder's browser comes to the acsURL by a POST with `creq`, as EMV 3-D Secure has it, or by a plain GET, which is easier to
try. One-time password, resend or cancel follow. When it is over, the page posts `cres` (and the `threeDSSessionData` that came with
`creq`) to the merchant's returnURL by a form that submits itself: the specification knows no redirect with a query. What `cres`
says came through the browser; a merchant asks for the result.
"""

import base64
import binascii
import hashlib
from html import escape
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from simulators import templates
from simulators.answering import perform
from simulators.authentications import AuthenticationRequest, Authentications, Standing
from simulators.config import locate
from simulators.magic import OTP_THAT_PASSES
from simulators.pages import form_action, form_fields, here
from simulators.provider import Provider
from simulators.refunds import Announce
from simulators.routes import Routes
from simulators.threeds import MESSAGE_VERSION, RESENDS_MAX, TRIES_MAX, Authentication
from simulators.wire import DELAY_HEADER, Refused, check_ascii, check_reference, decode, read

ACTIONS = ("submit", "resend", "cancel")
SUBMIT_SCRIPT = "document.forms[0].submit()"
_SCRIPT_HASH = base64.b64encode(hashlib.sha256(SUBMIT_SCRIPT.encode()).digest()).decode()
_NOTE = f"Simulated bank, no real money. One-time password <code>{OTP_THAT_PASSES}</code> (any other fails)."
_RESULTS = {
    "Y": ("Verified", "good", "You have been verified. You are being taken back to the merchant."),
    "N": ("Not verified", "bad", "You could not be verified. You are being taken back to the merchant."),
}


class CReq(msgspec.Struct, frozen=True):
    """The challenge request; what else it has does not matter here."""

    threeDSServerTransID: str
    acsTransID: str
    messageType: str
    messageVersion: str


class _Arrival(msgspec.Struct, frozen=True):
    """What the merchant's page has the browser send along."""

    creq: CReq
    session_data: Annotated[
        str, Meta(max_length=1024, pattern=r"^[A-Za-z0-9_=-]*\Z", description="base64url, as the specification has it")
    ] = msgspec.field(default="", name="threeDSSessionData")


def add_routes(routes: Routes, acquirer: Provider[Any], announce: Announce, *, hold_s: float) -> None:
    """Adds 3-D Secure to the acquirer: its routes, and what its charges make of an authentication."""
    authentications = Authentications(acquirer, announce)
    acquirer.dialect = acquirer.dialect._replace(open_charge=authentications.open_charge)
    decoder = msgspec.json.Decoder(AuthenticationRequest)

    async def authenticate(request: web.BaseRequest, _: str) -> web.StreamResponse:
        check_ascii("the Host", request.host)  # it becomes part of the acsURL
        body = await decode(request, decoder)
        return await perform(request, authentications.authenticate(body, request.host), hold_s)

    async def result(request: web.BaseRequest, reference_or_id: str) -> web.StreamResponse:
        return await perform(request, authentications.result(check_reference(reference_or_id)), hold_s)

    pages = AcsPages(authentications)
    routes.add("/card/3ds/authentications", POST=authenticate)
    routes.add("/card/3ds/authentications/*", GET=result)
    routes.add("/card/acs/*", GET=pages.show, POST=pages.post)


class AcsPages:
    """The handlers of the page."""

    def __init__(self, authentications: Authentications) -> None:
        self._authentications = authentications

    async def show(self, _: web.BaseRequest, acs_trans_id: str) -> web.Response:
        """The form while the challenge waits; afterwards the one that takes the browser back to the merchant."""
        standing, authentication = self._find(acs_trans_id)
        standing.opened = True
        text = _challenge(standing, authentication) if authentication.transStatus == "C" else _result(standing, authentication)
        return web.Response(text=text, content_type="text/html", headers=_headers(standing))

    async def post(self, request: web.BaseRequest, acs_trans_id: str) -> web.Response:
        """Takes the CReq, or what the cardholder does. One that is over stays as it is."""
        fields = form_fields(await read(request))
        standing, authentication = self._find(acs_trans_id)  # not before: much may happen while a form is on its way
        if "creq" in fields:
            _arrive(standing, authentication, fields)
        else:
            self._act(standing, fields)
        # See other: to load the page again sends no form again.
        return web.Response(status=303, headers=_headers(standing) | {"Location": here(request)})

    def _act(self, standing: Standing, fields: dict[str, str]) -> None:
        standing.opened = True
        match fields.get("action"):
            case "submit" if fields.get("otp", "").strip() == OTP_THAT_PASSES:
                self._authentications.passed(standing)
            case "submit":
                self._authentications.tried(standing)
            case "resend":
                standing.resends = min(standing.resends + 1, RESENDS_MAX)
            case "cancel":
                self._authentications.happen(standing, "cancel")
            case _:
                raise Refused(400, "invalid_request", f"action: must be one of {', '.join(ACTIONS)}; or send creq")

    def _find(self, acs_trans_id: str) -> tuple[Standing, Authentication]:
        found = self._authentications.challenged(acs_trans_id)
        if found is None:
            raise Refused(404, "not_found", "no 3-D Secure challenge has this page")
        return found


def cres(authentication: Authentication) -> str:
    """The final CRes of a browser's challenge, in base64url without padding."""
    message = {
        "threeDSServerTransID": authentication.threeDSServerTransID,
        "acsTransID": authentication.acsTransID,
        "messageType": "CRes",
        "messageVersion": MESSAGE_VERSION,
        "challengeCompletionInd": "Y",
        "transStatus": authentication.transStatus,
    }
    return base64.urlsafe_b64encode(msgspec.json.encode(message)).decode().rstrip("=")


def _arrive(standing: Standing, authentication: Authentication, fields: dict[str, str]) -> None:
    """Raises Refused (400) for a CReq that is none, or not this challenge's."""
    try:
        document = base64.b64decode(fields["creq"] + "=" * (-len(fields["creq"]) % 4), altchars=b"-_", validate=True)
        message = msgspec.json.decode(document)
    except (binascii.Error, ValueError) as error:  # msgspec's errors are ValueErrors, and so is a character beyond ASCII
        raise Refused(400, "invalid_request", f"creq: must be JSON in base64url: {error}") from None
    try:
        arrival = msgspec.convert(fields | {"creq": message}, _Arrival)
    except msgspec.ValidationError as error:
        field, reason = locate(error, _Arrival)
        raise Refused(400, "invalid_request", f"{field}: {reason}") from None
    expected = (authentication.threeDSServerTransID, authentication.acsTransID, "CReq", MESSAGE_VERSION)
    if msgspec.structs.astuple(arrival.creq) != expected:
        reason = "threeDSServerTransID, acsTransID, messageType and messageVersion must be CReq and those of the ARes"
        raise Refused(400, "invalid_request", f"creq: {reason}")
    standing.opened, standing.session_data = True, arrival.session_data


def _challenge(standing: Standing, authentication: Authentication) -> str:
    left = TRIES_MAX - standing.tries
    wrong = f"That one-time password is wrong; {left} {'try' if left == 1 else 'tries'} left." if standing.tries else ""
    alert = f'<p class="error" role="alert">{wrong}</p>' if wrong else ""
    sent = f'<p role="status">Sent again ({standing.resends} of {RESENDS_MAX} times).</p>' if standing.resends else ""
    resend = '<button name="action" value="resend" formnovalidate>Send it again</button>'
    return _page(
        "Verify your payment",
        f"""<h1>Verify your payment</h1>{_summary(standing, authentication)}
<p>We have sent a one-time password to your phone.</p>{sent}{alert}
<form method="post">
<label for="otp">One-time password</label>
<input id="otp" name="otp" inputmode="numeric" autocomplete="one-time-code" maxlength="{templates.FIELD_LENGTH_MAX}" required autofocus>
<button class="go" name="action" value="submit">Verify</button>
{resend if standing.resends < RESENDS_MAX else ""}
<button name="action" value="cancel" formnovalidate>Cancel</button>
</form>""",
    )


def _result(standing: Standing, authentication: Authentication) -> str:
    title, kind, sentence = _RESULTS[authentication.transStatus]
    values = {"cres": cres(authentication)}
    values |= {"threeDSSessionData": standing.session_data} if standing.session_data else {}
    hidden = "".join(f'<input type="hidden" name="{name}" value="{escape(value)}">' for name, value in values.items())
    return _page(
        title,
        f"""{templates.badge(kind)}<h1>{title}</h1>{_summary(standing, authentication)}<p>{sentence}</p>
<form method="post" action="{escape(standing.return_url)}">{hidden}
<button class="go">Return to the merchant</button></form><script>{SUBMIT_SCRIPT}</script>""",
    )


def _summary(standing: Standing, authentication: Authentication) -> str:
    rows = (("Pay to", standing.record.merchant_id or ""), ("Card", f"•••• {standing.last_four}"))
    plain = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in rows)
    return f'<dl>{plain}<dt>Amount</dt><dd class="amount">{escape(templates.money(authentication))}</dd></dl>'


def _page(title: str, content: str) -> str:
    return templates.page(title, "Your card's bank", content, kind="3-D Secure", note=_NOTE)


def _headers(standing: Standing) -> dict[str, str]:
    """Nothing from outside, but forms may lead to the merchant, and a merchant's page may show this one in a frame, as most do."""
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{_SCRIPT_HASH}'; base-uri 'none'; "
        f"{form_action(standing.return_url)}"
    )
    return {
        DELAY_HEADER: "0",
        "Cache-Control": "no-store",
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
