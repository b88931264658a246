"""What becomes of a payment after it was asked for, as the merchant and the customer walk it: pure.

A journey is a generator: it yields what is to be done next (a `Step`) and is sent the answer. It knows no sockets and no clock; a test
walks it with answers of its own. Whoever carries it out ends it early where a step is not answered as hoped. All waiting is bounded:
asking again stops after ASKED_MAX answers.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

OTP_RIGHT, OTP_WRONG = "111000", "000000"  # DOMAIN.md, test values
WRONG_TRIES = 3  # so many wrong passwords end a challenge
THINK_S = 0.3  # of a merchant's system, from one answer to its next request
ASK_EVERY_S, ASKED_MAX = 0.5, 30  # how often, and how many times, it asks how something stands
PARTS = 3  # partial captures and refunds are a third each, the last one the rest

_ACTION = re.compile(r'<form method="post" action="([^"]+)"')
_CRES = re.compile(r'name="cres" value="([^"]+)"')


class Answer(NamedTuple):
    """`data` is that of the envelope, empty where there is none; `text` is the page, of a customer's step."""

    data: Mapping[str, Any]
    text: str = ""


class Step(NamedTuple):
    """One request. `name` is one of `samples.STEPS`. `at_issuer`: the customer's browser sends it to the issuer's page, whose URL `path`
    is; it is no request to the gateway and is not judged. `form`: what a browser sends instead of JSON."""

    name: str
    method: str
    path: str
    body: Mapping[str, Any] | None = None
    form: Mapping[str, str] | None = None
    after_s: float = THINK_S
    at_issuer: bool = False

    @property
    def changes(self) -> bool:
        """Whether it carries an idempotency key."""
        return self.method == "POST" and self.form is None

    @property
    def amount(self) -> int:
        """What it asks for, minor units; 0 where it names no amount."""
        return int((self.body or {}).get("amount", 0))


Walk = Generator[Step, Answer, None]


class LostWayError(Exception):
    """A journey cannot go on; says why, in words that many journeys can share."""


class Journey(NamedTuple):
    """`cards`: the test cards whose fate it needs; None: any method, as the mix has it. `manual`: the capture is a request of its own."""

    about: str
    walk: Callable[[Mapping[str, Any]], Walk]  # given the data of the answer to `process`
    cards: tuple[str, ...] | None = None
    manual: bool = False


def _capture(paid: Mapping[str, Any]) -> Walk:
    yield from _until_is(paid, "authorized")
    yield _post(paid, "capture", {})


def _partial_captures(paid: Mapping[str, Any]) -> Walk:
    yield from _until_is(paid, "authorized")
    part = max(1, paid["amount"] // PARTS)
    yield from _take_part(paid, {"amount": part}, captured=part)
    yield from _take_part(paid, {"amount": part, "final": True}, captured=2 * part)
    yield _refund(paid)  # all that was captured, which is less than was authorized


def _take_part(paid: Mapping[str, Any], body: Mapping[str, Any], *, captured: int) -> Walk:
    """One capture at a time: where the provider's answer was lost, the next one has to wait until it is known."""
    data = (yield _post(paid, "capture", body)).data
    if data["capture"]["status"] != "completed":
        yield from _until(lambda data: data.get("capturedAmount", 0) >= captured, _status(paid))


def _void(paid: Mapping[str, Any]) -> Walk:
    yield from _until_is(paid, "authorized")
    yield _post(paid, "void", None)


def _refund_all(paid: Mapping[str, Any]) -> Walk:
    yield from _until_is(paid, "completed")
    yield _refund(paid)


def _partial_refunds(paid: Mapping[str, Any]) -> Walk:
    yield from _until_is(paid, "completed")
    for _ in range(PARTS - 1):
        yield _refund(paid, max(1, paid["amount"] // PARTS))
    yield _refund(paid)


def _refund_until(status: str) -> Callable[[Mapping[str, Any]], Walk]:
    def walk(paid: Mapping[str, Any]) -> Walk:
        yield from _until_is(paid, "completed")
        refund = (yield _refund(paid)).data
        path = f"/api/refunds/{refund['refundID']}/status"
        yield from _until(lambda data: data.get("status") == status, Step("refund status", "GET", path, after_s=ASK_EVERY_S))

    return walk


def _challenge(*passwords: str, ends: frozenset[str]) -> Callable[[Mapping[str, Any]], Walk]:
    """The customer meets the issuer's page, and is sent back to the gateway by it."""

    def walk(paid: Mapping[str, Any]) -> Walk:
        asked = yield from _until_is(paid, "requires_action")
        page = asked["nextAction"]["url"]
        for password in passwords:
            yield Step("issuer", "POST", page, form={"action": "submit", "otp": password}, at_issuer=True)
        shown = html.unescape((yield Step("issuer", "GET", page, after_s=0, at_issuer=True)).text)
        action, cres = _ACTION.search(shown), _CRES.search(shown)
        if action is None or cres is None:
            raise LostWayError("the issuer's page leads nowhere")
        yield Step("return", "POST", action[1], form={"cres": cres[1]}, after_s=0)
        yield from _until(lambda data: data.get("status") in ends, _status(paid, after_s=0))

    return walk


def _dispute(response: str, body: Mapping[str, str] | None, ends: str) -> Callable[[Mapping[str, Any]], Walk]:
    """The issuer opens a dispute, the merchant responds, the issuer decides."""

    def walk(paid: Mapping[str, Any]) -> Walk:
        yield from _until_is(paid, "completed")
        details = Step("payment", "GET", f"/api/payments/{paid['paymentID']}", after_s=ASK_EVERY_S)
        found = yield from _until(lambda data: bool(data.get("disputes")), details)
        path = f"/api/disputes/{found['disputes'][0]['disputeID']}"
        yield Step(response, "POST", f"{path}/{response}", body=body)
        yield from _until(lambda data: data.get("status") == ends, Step("dispute", "GET", path, after_s=ASK_EVERY_S))

    return walk


def _post(paid: Mapping[str, Any], name: str, body: Mapping[str, Any] | None) -> Step:
    return Step(name, "POST", f"/api/payments/{paid['paymentID']}/{name}", body=body)


def _refund(paid: Mapping[str, Any], amount: int | None = None) -> Step:
    part = {} if amount is None else {"amount": amount}
    return Step("refund", "POST", "/api/refunds/process", body={"paymentID": paid["paymentID"], **part})


def _status(paid: Mapping[str, Any], after_s: float = ASK_EVERY_S) -> Step:
    return Step("status", "GET", f"/api/payments/{paid['paymentID']}/status", after_s=after_s)


def _until_is(paid: Mapping[str, Any], status: str) -> Generator[Step, Answer, Mapping[str, Any]]:
    """Nothing is asked where the answer to `process` said so already: the customer may decide later, or the provider answer late."""
    if paid["status"] == status:
        return paid
    return (yield from _until(lambda data: data.get("status") == status, _status(paid)))


def _until(is_so: Callable[[Mapping[str, Any]], bool], ask: Step) -> Generator[Step, Answer, Mapping[str, Any]]:
    """Asks until it is so; returns that answer. What failed or expired meanwhile is not waited for. Raises LostWayError."""
    for _ in range(ASKED_MAX):
        data = (yield ask).data
        if is_so(data):
            return data
        if data.get("status") in ENDED:
            raise LostWayError(f"{ask.name}: ended as {data['status']}")
        ask = ask._replace(after_s=ASK_EVERY_S)
    raise LostWayError(f"{ask.name}: asked {ASKED_MAX} times in vain")


ENDED = frozenset({"failed", "expired", "voided"})  # states that a payment does not leave
DISPUTED = ("4000000000000259", "4000000000002685")  # fraudulent, product not received

JOURNEYS: dict[str, Journey] = {
    "capture": Journey("authorize by card, then capture all of it", _capture, manual=True),
    "partial_captures": Journey(
        "authorize by card, capture two thirds in two parts, refund them", _partial_captures, manual=True
    ),
    "void": Journey("authorize by card, then void", _void, manual=True),
    "refund": Journey("pay by any method, then refund all of it", _refund_all),
    "partial_refunds": Journey("pay by any method, then refund it in three parts", _partial_refunds),
    "late_refund": Journey("a refund that is pending at first", _refund_until("completed"), ("4000000000007726",)),
    "failing_refund": Journey("a refund that fails after it was completed", _refund_until("failed"), ("4000000000005126",)),
    "three_ds": Journey(
        "3-D Secure: the customer passes the challenge",
        _challenge(OTP_RIGHT, ends=frozenset({"completed", "failed"})),  # the issuer decides after that, as of any card
        ("4000000000003220",),
    ),
    "three_ds_failed": Journey(
        "3-D Secure: three wrong passwords",
        _challenge(*[OTP_WRONG] * WRONG_TRIES, ends=frozenset({"failed"})),
        ("4000000000003220",),
    ),
    "dispute_accepted": Journey("a chargeback that the merchant accepts", _dispute("accept", None, "lost"), DISPUTED),
    "dispute_won": Journey(
        "a chargeback that the merchant wins", _dispute("evidence", {"text": "a winning argument"}, "won"), DISPUTED
    ),
    "dispute_lost": Journey(
        "a chargeback that the merchant loses", _dispute("evidence", {"text": "a losing argument"}, "lost"), DISPUTED
    ),
    "inquiry": Journey(
        "an issuer's inquiry that the merchant answers",
        _dispute("evidence", {"text": "the parcel's receipt"}, "warning_closed"),
        ("4000000000001976",),
    ),
}
