"""What each request says: pure. Payment i of a seed is always the same, whatever the length of the run.

The seed decides what a customer wants: method, amount, card, VPA, bank. The *run id* makes what must be unique so: the
idempotency key and the order id. Were the key a function of the seed alone, a second run against the same gateway would be
answered from the responses that were stored in the first, and would measure nothing.
"""

import bisect
from itertools import accumulate
from typing import NamedTuple

import msgspec
import numpy as np

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

_PAYMENTS = 3  # stream of draws, beside those of arrivals.py
_DRAWS = 6  # uniforms a payment
_encode = msgspec.json.Encoder().encode


class Payment(NamedTuple):
    """What one customer wants to pay; `instrument` is the part of the request that the method needs."""

    method: int  # position in METHODS
    amount: int  # minor units of CURRENCY
    instrument: dict[str, dict[str, str]]
    customer: int


class Payments:
    """The first n payments of a seed; `Payments(...)[i]` makes the i-th."""

    def __init__(self, *, seed: int, n: int, mix: Mix, year: int) -> None:
        """`year`: cards expire one to eight years after it."""
        self._draws = np.random.default_rng([_PAYMENTS, seed]).random((n, _DRAWS))  # row i does not depend on n
        self._thresholds = list(accumulate((mix.card, mix.upi)))  # what is above both is net banking
        self._year = year

    def __getitem__(self, i: int) -> Payment:
        method, amount, kind, detail, handle, customer = self._draws[i].tolist()
        code = bisect.bisect_right(self._thresholds, method)
        spread = AMOUNT_MINOR_MAX / AMOUNT_MINOR_MIN
        return Payment(
            method=code,
            amount=round(AMOUNT_MINOR_MIN * spread**amount),  # log-uniform: many small ones, some large
            instrument=(self._card, _upi, _netbanking)[code](kind, detail, handle),
            customer=int(customer * CUSTOMERS),
        )

    def _card(self, kind: float, detail: float, expiry: float) -> dict[str, dict[str, str]]:
        number = _pick(CARDS, kind)
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


def key(run_id: str, i: int) -> str:
    """The idempotency key of payment i in one run."""
    return f"{run_id}-{i}"


def body(payment: Payment, *, i: int, run_id: str, merchant_id: str) -> bytes:
    """The JSON of `POST /api/payments/process`."""
    return _encode(
        {
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
