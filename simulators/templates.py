"""What the bank's page looks like: plain HTML, its style inside, nothing from outside, everything escaped.

Each function gives one whole document. A form posts to the address of the page that it is on.
"""

from html import escape
from typing import NamedTuple, Protocol

from simulators.charges import Charge
from simulators.magic import OTP_THAT_PASSES
from simulators.money import decimal
from simulators.providers import Waiting

PASSWORD_THAT_PASSES = "demo"  # noqa: S105 - shown on the page
FIELD_LENGTH_MAX = 64

_STEPS = ("Log in", "Confirm", "One-time password")


class Result(NamedTuple):
    """How the page speaks of a payment that is over."""

    title: str
    kind: str  # of the badge: good, bad, or neutral
    sentence: str


_RESULTS = {
    "approved": Result("Payment successful", "good", "The amount has been taken from your account."),
    "declined": Result("Payment declined", "bad", "No money has left your account."),
    "expired": Result("This payment has expired", "neutral", "No money has left your account."),
    "reversed": Result("This payment was cancelled by the merchant", "neutral", "Any money that was taken is given back."),
}
_REASONS = {
    "customer_cancelled": "You cancelled the payment.",
    "insufficient_funds": "There is not enough money in the account.",
    "otp_failed": "The one-time password was wrong.",
}
_BADGES = {"good": "&#10003;", "bad": "&#10005;", "neutral": "&#8211;"}

_STYLE = """
:root { color-scheme: light dark; --page: #eef2f7; --card: #fff; --text: #16212e; --soft: #526273; --line: #c9d3de;
  --brand: #0b57a4; --on-brand: #fff; --note: #fff6dc; --note-text: #5c4300; --good: #14723f; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #0f151d; --card: #18212c; --text: #e7edf4; --soft: #a3b2c2; --line: #3a4857;
  --brand: #7db7f2; --on-brand: #08203a; --note: #33290d; --note-text: #f3dc9b; --good: #6fd39b; --bad: #ff9a90; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; background: var(--page); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
.sandbox { margin: 0; background: var(--note); color: var(--note-text); padding: .6rem 1rem; text-align: center; font-size: .9rem; }
.sandbox code { font-weight: 600; }
main { max-width: min(26rem, calc(100% - 2rem)); margin: clamp(1rem, 7vh, 5rem) auto; background: var(--card);
  border: 1px solid var(--line); border-radius: .9rem; overflow: hidden; box-shadow: 0 8px 30px #0002; }
header { display: flex; justify-content: space-between; gap: 1rem; padding: 1rem 1.6rem; background: var(--brand);
  color: var(--on-brand); }
header strong { overflow-wrap: anywhere; }
section { padding: 1.4rem 1.6rem 1.8rem; }
ol { display: flex; gap: .4rem; list-style: none; margin: 0 0 1.4rem; padding: 0; font-size: .8rem; color: var(--soft); }
ol li { flex: 1; border-top: 3px solid var(--line); padding-top: .35rem; }
ol li.done, ol li[aria-current] { border-color: var(--brand); }
ol li[aria-current] { color: var(--text); font-weight: 600; }
h1 { font-size: 1.3rem; line-height: 1.3; margin: 0 0 1rem; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .35rem 1rem; margin: 0 0 1.4rem; }
dt { color: var(--soft); }
dd { margin: 0; text-align: right; overflow-wrap: anywhere; }
dd.amount { font-size: 1.25rem; font-weight: 650; }
label { display: block; font-weight: 600; margin-top: .9rem; }
input, button { font: inherit; width: 100%; padding: .7rem .8rem; border-radius: .5rem; border: 1px solid var(--line); }
input { background: var(--page); color: inherit; margin-top: .25rem; }
button { margin-top: .8rem; cursor: pointer; background: none; color: inherit; }
button.go { margin-top: 1.4rem; background: var(--brand); border-color: var(--brand); color: var(--on-brand); font-weight: 600; }
:focus-visible { outline: 3px solid var(--brand); outline-offset: 2px; }
.error { color: var(--bad); font-weight: 600; margin: 0; }
.badge { width: 3.2rem; height: 3.2rem; line-height: 3.2rem; border-radius: 50%; margin: 0 0 1rem; text-align: center;
  font-size: 1.5rem; font-weight: 700; color: var(--card); background: var(--soft); }
.badge.good { background: var(--good); } .badge.bad { background: var(--bad); }
a { color: var(--brand); font-weight: 600; }
"""

_NOTE = f"""Simulated bank, no real money. Any user name, password <code>{PASSWORD_THAT_PASSES}</code>,
one-time password <code>{OTP_THAT_PASSES}</code> (any other fails)."""


def login(charge: Charge, waiting: Waiting, *, error: str = "") -> str:
    """The first step: who pays."""
    return _step(
        charge,
        waiting,
        0,
        error,
        """<label for="user">User name</label>
<input id="user" name="user" autocomplete="username" maxlength="64" required autofocus>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" maxlength="64" required>
<button class="go" name="action" value="login">Log in</button>""",
    )


def confirm(charge: Charge, waiting: Waiting) -> str:
    """The second step: what is paid, and to whom."""
    pay = f'<button class="go" name="action" value="confirm" autofocus>Confirm {escape(money(charge))}</button>'
    return _step(charge, waiting, 1, "", pay)


def otp(charge: Charge, waiting: Waiting) -> str:
    """The third step: whatever one-time password is sent now decides the payment."""
    return _step(
        charge,
        waiting,
        2,
        "",
        f"""<label for="otp">One-time password</label>
<input id="otp" name="otp" inputmode="numeric" autocomplete="one-time-code" maxlength="{FIELD_LENGTH_MAX}" required autofocus>
<button class="go" name="action" value="pay">Pay {escape(money(charge))}</button>""",
    )


def result(charge: Charge, waiting: Waiting) -> str:
    """The page after the decision."""
    over = _RESULTS[charge.status]
    reason = f"<p>{escape(_REASONS.get(charge.responseCode or '', ''))}</p>" if charge.status == "declined" else ""
    back = f'<p><a href="{escape(waiting.return_url)}">Return to the merchant</a></p>' if waiting.return_url else ""
    content = f"{badge(over.kind)}<h1>{escape(over.title)}</h1>{_summary(charge, waiting)}{reason}<p>{escape(over.sentence)}</p>{back}"
    return page(over.title, waiting.bank_code, content)


class Priced(Protocol):
    """What has an amount in minor units: a charge, an authentication."""

    @property
    def amount(self) -> int: ...
    @property
    def currency(self) -> str: ...


def money(priced: Priced) -> str:
    """`INR 1,000.00`: an amount as people write it."""
    whole, point, minor = decimal(priced.amount, priced.currency).partition(".")
    return f"{priced.currency} {int(whole):,}{point}{minor}"


def badge(kind: str) -> str:
    """The sign of a result: good, bad or neutral."""
    return f'<p class="badge {kind}" aria-hidden="true">{_BADGES[kind]}</p>'


def _step(charge: Charge, waiting: Waiting, index: int, error: str, fields: str) -> str:
    title = ("Log in to pay", "Confirm your payment", "Enter your one-time password")[index]
    alert = f'<p class="error" role="alert">{escape(error)}</p>' if error else ""
    return page(
        title,
        waiting.bank_code,
        f"""{_progress(index)}<h1>{title}</h1>
{_summary(charge, waiting)}{alert}
<form method="post">
{fields}
<button name="action" value="cancel" formnovalidate>Cancel payment</button>
</form>""",
    )


def _progress(current: int) -> str:
    marks = [
        'class="done"' if index < current else 'aria-current="step"' if index == current else "" for index in range(len(_STEPS))
    ]
    items = "".join(f"<li {mark}>{step}</li>" for mark, step in zip(marks, _STEPS, strict=True))
    return f'<ol aria-label="Steps of the payment">{items}</ol>'


def _summary(charge: Charge, waiting: Waiting) -> str:
    rows = (("Pay to", waiting.merchant_id), ("Reference", charge.reference))
    plain = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in rows)
    return f'<dl>{plain}<dt>Amount</dt><dd class="amount">{escape(money(charge))}</dd></dl>'


def page(title: str, heading: str, content: str, *, kind: str = "Net banking", note: str = _NOTE) -> str:
    """A whole document. `content` and `note` are HTML, all else is text."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{_STYLE}</style></head>
<body><p class="sandbox">{note}</p>
<main><header><strong>{escape(heading)}</strong><span>{escape(kind)}</span></header>
<section>{content}
</section></main></body></html>
"""
