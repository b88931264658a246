"""The bank's page, which a person can click: plain HTML, nothing from outside, everything escaped."""

from html import escape
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

from simulators.charges import Charge
from simulators.magic import OTP_THAT_PASSES
from simulators.provider import Provider
from simulators.providers import Waiting
from simulators.providers.netbanking import clicked
from simulators.wire import DELAY_HEADER, Refused, read

FORM_FIELDS_MAX = 10
OTP_LENGTH_MAX = 64
CURRENCY_EXPONENTS = {"JPY": 0, "KRW": 0, "BHD": 3, "KWD": 3, "OMR": 3}  # ISO 4217; all others that matter here have 2

_HEADERS = {
    DELAY_HEADER: "0",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
}
_OUTCOMES = {
    "approved": "Payment successful",
    "declined": "Payment declined",
    "expired": "This payment has expired",
    "reversed": "This payment was cancelled by the merchant",
}
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; background: #eef1f5; color: #1c2733; margin: 0; }
main { max-width: 22rem; margin: 10vh auto; padding: 1.5rem 2rem 2rem;
  background: #fff; border-radius: .6rem; box-shadow: 0 1px 6px #0003; }
h1 { font-size: 1.25rem; margin: 0 0 1rem; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .2rem 1rem; margin: 0 0 1.2rem; }
dt { color: #5b6b7b; } dd { margin: 0; text-align: right; overflow-wrap: anywhere; }
input, button { font: inherit; width: 100%;
  box-sizing: border-box; padding: .55rem; border-radius: .35rem; border: 1px solid #b8c2cc; }
button { margin-top: .8rem; cursor: pointer; background: #fff; }
button.pay { background: #0a5fb4; border-color: #0a5fb4; color: #fff; }
small { color: #5b6b7b; }
"""


class BankPages:
    """The handlers of the page."""

    def __init__(self, bank: Provider[Any]) -> None:
        self._bank = bank

    async def show(self, _: web.BaseRequest, provider_id: str) -> web.Response:
        """The form while the payment is pending, the result afterwards."""
        charge, waiting = self._find(provider_id)
        body = form(charge, waiting) if charge.status == "pending" else result(charge, waiting)
        return _html(body)

    async def click(self, request: web.BaseRequest, provider_id: str) -> web.StreamResponse:
        """Decides, then leads back to the merchant. A payment that is decided already keeps its decision."""
        charge, waiting = self._find(provider_id)
        fields = _fields(await read(request))
        action = fields.get("action")
        if action not in ("pay", "cancel"):
            raise Refused(400, "invalid_request", "action: must be pay or cancel")
        code = clicked("pay" if action == "pay" else "cancel", otp=fields.get("otp", "").strip(), bank_code=waiting.bank_code)
        self._bank.decide(charge.reference, code)
        if waiting.return_url is not None:
            return web.Response(status=303, headers=_HEADERS | {"Location": waiting.return_url})
        return _html(result(*self._find(provider_id)))

    def _find(self, provider_id: str) -> tuple[Charge, Waiting]:
        found = self._bank.find(provider_id)
        if found is None:
            raise Refused(404, "not_found", "no net banking payment has this page")
        return found


def form(charge: Charge, waiting: Waiting) -> str:
    """The page on which the customer decides."""
    return _page(
        "Confirm your payment",
        f"""{_summary(charge, waiting)}
<form method="post">
<label for="otp">One-time password</label>
<input id="otp" name="otp" inputmode="numeric" autocomplete="one-time-code" maxlength="{OTP_LENGTH_MAX}" autofocus>
<small>This bank is simulated: {OTP_THAT_PASSES} passes, anything else fails.</small>
<button class="pay" name="action" value="pay">Pay {escape(money(charge))}</button>
<button name="action" value="cancel">Cancel</button>
</form>""",
    )


def result(charge: Charge, waiting: Waiting) -> str:
    """The page after the decision."""
    reason = f"<p>Reason: {escape(charge.responseCode)}</p>" if charge.status == "declined" and charge.responseCode else ""
    back = f'<p><a href="{escape(waiting.return_url)}">Return to the merchant</a></p>' if waiting.return_url else ""
    return _page(_OUTCOMES[charge.status], _summary(charge, waiting) + reason + back)


def money(charge: Charge) -> str:
    """`INR 1,000.00`: an amount as people write it."""
    exponent = CURRENCY_EXPONENTS.get(charge.currency, 2)
    whole, minor = divmod(charge.amount, 10**exponent)
    return f"{charge.currency} {whole:,}" + (f".{minor:0{exponent}d}" if exponent else "")


def _summary(charge: Charge, waiting: Waiting) -> str:
    rows = {"Bank": waiting.bank_code, "Merchant": waiting.merchant_id, "Reference": charge.reference, "Amount": money(charge)}
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows.items()) + "</dl>"


def _page(title: str, content: str) -> str:
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{_STYLE}</style></head>
<body><main><h1>{escape(title)}</h1>
{content}
</main></body></html>
"""


def _html(body: str) -> web.Response:
    return web.Response(text=body, content_type="text/html", headers=_HEADERS)


def _fields(body: bytes) -> dict[str, str]:
    try:
        fields = parse_qs(body.decode(), max_num_fields=FORM_FIELDS_MAX, keep_blank_values=True)
    except ValueError as error:
        raise Refused(400, "invalid_request", f"the form is not usable: {error}") from None
    return {name: values[0] for name, values in fields.items()}
