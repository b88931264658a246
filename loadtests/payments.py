"""What each request says: pure. Payment i of a seed is always the same, whatever the length of the run.

The seed decides what a customer wants: method, amount, card, VPA, bank. The *run id* makes what must be unique so: the
idempotency key and the order id. Were the key a function of the seed alone, a second run against the same gateway would be
answered from the responses that were stored in the first, and would measure nothing.
"""

import bisect
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec
import numpy as np

from loadtests.journeys import JOURNEYS
from loadtests.samples import METHODS
from loadtests.scenario import Mix

CURRENCY = "INR"
AMOUNT_MINOR_MIN, AMOUNT_MINOR_MAX = 1_000, 2_000_000  # 10 to 20 000 rupees: what people pay online, below every risk limit

# Test cards that every sandbox approves; whether one is declined here is up to the simulator's mix.
CARDS = (
    "4111111111111111",
    "4242424242424242",
    "5555555555554444",
    "5267318187975449",
    "378282246310005",
    "6011111111111117",
    "6521111111111110",
)
VPA_HANDLES = ("okaxis", "oksbi", "okicici", "ybl", "paytm", "upi")
FLOWS = ("intent", "intent", "qr", "collect")  # collect is being retired
BANK_CODES = ("HDFC0000240", "ICIC0000104", "SBIN0000300", "UTIB0000004", "KKBK0000958", "PUNB0112000")  # IFSC: bank, 0, branch
CUSTOMERS = 1_000_000

# What special cards of journeys are, beside CARDS; the fates of these are not up to the mix.
JOURNEY_CARDS = tuple(sorted({card for journey in JOURNEYS.values() for card in journey.cards or ()}))

_PAYMENTS, _JOURNEYS = 3, 4  # streams of draws, beside those of arrivals.py
_DRAWS, _JOURNEY_DRAWS = 6, 4  # uniforms a payment
_encode = msgspec.json.Encoder().encode


class Payment(NamedTuple):
    """What one customer wants to pay; `instrument` is the part of the request that the method needs."""

    method: int  # position in METHODS
    amount: int  # minor units of CURRENCY
    instrument: dict[str, dict[str, str]]
    customer: int
    journey: str | None = None  # key of JOURNEYS; None: it is only paid
    twice: float = 1.0  # in [0, 1): below the share of duplicates, each step of the journey is sent two times


class Payments:
    """The first n payments of a seed; `Payments(...)[i]` makes the i-th."""

    def __init__(self, *, seed: int, n: int, mix: Mix, year: int, journeys: Mapping[str, float] | None = None) -> None:
        """`year`: cards expire one to eight years after it. `journeys`: share of each in all payments; those of the rest are only paid."""
        self._draws = np.random.default_rng([_PAYMENTS, seed]).random((n, _DRAWS))  # row i does not depend on n
        self._thresholds = list(accumulate((mix.card, mix.upi)))  # what is above both is net banking
        self._year = year
        self._journeys = list(journeys or ())
        self._journey_thresholds = list(accumulate((journeys or {}).values()))
        self._journey_draws = np.random.default_rng([_JOURNEYS, seed]).random((n if journeys else 0, _JOURNEY_DRAWS))

    def __getitem__(self, i: int) -> Payment:
        payment = self._paid(i)
        if not self._journeys:
            return payment
        kind, card, detail, twice = self._journey_draws[i].tolist()
        number = bisect.bisect_right(self._journey_thresholds, kind)
        if number == len(self._journeys):
            return payment
        name = self._journeys[number]
        journey = JOURNEYS[name]
        if journey.cards is not None or (journey.manual and payment.method != METHODS.index("card")):
            by_card = self._card(card, detail, detail, journey.cards or CARDS)
            payment = payment._replace(method=METHODS.index("card"), instrument=by_card)
        return payment._replace(journey=name, twice=twice)

    def _paid(self, i: int) -> Payment:
        method, amount, kind, detail, handle, customer = self._draws[i].tolist()
        code = bisect.bisect_right(self._thresholds, method)
        spread = AMOUNT_MINOR_MAX / AMOUNT_MINOR_MIN
        return Payment(
            method=code,
            amount=round(AMOUNT_MINOR_MIN * spread**amount),  # log-uniform: many small ones, some large
            instrument=(self._card, _upi, _netbanking)[code](kind, detail, handle),
            customer=int(customer * CUSTOMERS),
        )

    def _card(self, kind: float, detail: float, expiry: float, numbers: tuple[str, ...] = CARDS) -> dict[str, dict[str, str]]:
        number = _pick(numbers, kind)
        months = 12 + int(expiry * 8 * 12)
        cvv = (
            f"{int(detail * 10_000):04}" if number.startswith("3") else f"{int(detail * 1_000):03}"
        )  # American Express has four
        expires = {"expiryMonth": f"{months % 12 + 1:02}", "expiryYear": str(self._year + months // 12)}
        return {"cardDetails": {"number": number, **expires, "cvv": cvv}}


def _upi(kind: float, detail: float, handle: float) -> dict[str, dict[str, str]]:
    flow = _pick(FLOWS, kind)
    if flow != "collect":
        return {"upiDetails": {"flow": flow}}  # the customer scans or taps, so nobody knows the VPA beforehand
    return {"upiDetails": {"flow": flow, "vpa": f"customer{int(detail * CUSTOMERS)}@{_pick(VPA_HANDLES, handle)}"}}


def _netbanking(kind: float, detail: float, handle: float) -> dict[str, dict[str, str]]:  # noqa: ARG001 - one shape for all three
    return {"netbankingDetails": {"bankCode": _pick(BANK_CODES, kind)}}


def _pick(values: tuple[str, ...], draw: float) -> str:
    return values[int(draw * len(values))]


def key(run_id: str, i: int, number: int = 0) -> str:
    """The idempotency key of payment i in one run, or of a later request of it, by its number."""
    return f"{run_id}-{i}-{number}" if number else f"{run_id}-{i}"


def body(payment: Payment, *, i: int, run_id: str, merchant_id: str) -> bytes:
    """The JSON of `POST /api/payments/process`."""
    manual: dict[str, Any] = {"captureMethod": "manual"} if payment.journey and JOURNEYS[payment.journey].manual else {}
    return _encode(
        {
            **manual,
            "merchantID": merchant_id,
            "amount": payment.amount,
            "currency": CURRENCY,
            "paymentMethod": METHODS[payment.method],
            **payment.instrument,
            "customerInfo": {
                "email": f"customer{payment.customer}@example.com",
                "phone": f"+9198{payment.customer:08}",
            },
            "orderID": f"order_{run_id}_{i}",
        }
    )
