"""Payouts: the merchant's bank sends money to somebody. The life of a payout, and what may be asked for: pure.

    pending --send--> processing --complete--> completed --return--> returned
       '--reject--> failed  '--fail--> failed

`pending`: the bank has the order; `processing`: the network has it, under a UTR. Nothing else ever changes: a payout cannot be
called back. Money leaves when it completes and comes back when it is returned.

- RTGS takes 200 000 rupees and more, and NEFT settles in half-hourly batches around the clock: RBI, FAQs on RTGS (December 2020) and
  on NEFT (December 2019).
- IMPS takes up to 500 000 rupees: RBI, Statement on Developmental and Regulatory Policies, 8 October 2021. UPI takes
  up to 100 000: NPCI, FAQs on UPI.
- A UTR of RTGS has 22 characters, XXXXRCYYYYMMDDnnnnnnnn: the sender's bank, R, channel, day, sequence (RBI, RTGS System
  Regulations). NEFT's is built alike here, with N, as several banks do; others have one of 16. IMPS and UPI have an RRN of 12 digits.
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from simulators.durations import Duration
from simulators.latency import Latency, Lognormal
from simulators.magic import APPROVED
from simulators.providers.upi import Vpa

Status = Literal["pending", "processing", "completed", "failed", "returned"]
Event = Literal["send", "reject", "complete", "fail", "return"]
Mode = Literal["IMPS", "NEFT", "RTGS", "UPI"]
Kind = Literal["account", "wallet", "vpa"]

# What is not in here changes nothing.
TRANSITIONS: dict[tuple[Status, Event], Status] = {
    ("pending", "send"): "processing",
    ("pending", "reject"): "failed",
    ("processing", "complete"): "completed",
    ("processing", "fail"): "failed",
    ("completed", "return"): "returned",
}

SHORT_OF_FUNDS, RETURNED = "insufficient_funds", "returned"
# Response codes, our own words as for net banking; `returned` completes first. The mix `payouts` of the bank's settings has these.
PAYOUT_CODES = frozenset({APPROVED, "invalid_account", "account_closed", SHORT_OF_FUNDS, RETURNED})
STAYS_PENDING = "stays_pending"  # no code: what some test values do

# What is paid to these does as told; all else follows the mix. The first four account numbers are Stripe's, which are widely known.
TEST_PAYEES: dict[Kind, dict[str, str]] = {
    "account": {
        "000123456789": APPROVED,
        "000111111116": "invalid_account",
        "000111111113": "account_closed",
        "000222222227": SHORT_OF_FUNDS,
        "000777777771": STAYS_PENDING,
        "000777777772": RETURNED,
    },
    "wallet": {
        "9000000000": APPROVED,
        "9000000001": "invalid_account",
        "9000000002": "account_closed",
        "9000000003": SHORT_OF_FUNDS,
        "9000000004": STAYS_PENDING,
        "9000000005": RETURNED,
    },
    "vpa": {
        "success@upi": APPROVED,
        "invalid@upi": "invalid_account",
        "closed@upi": "account_closed",
        "insufficientfunds@upi": SHORT_OF_FUNDS,
        "stuck@upi": STAYS_PENDING,
        "returned@upi": RETURNED,
    },
}

BATCH_MS = 30 * 60_000  # NEFT; India is 5:30 ahead, so its half hours are those of UTC
RETURNED_AFTER_MS = 24 * 3_600_000
INDIA = timedelta(hours=5, minutes=30)
BANK = "PAYD"  # the first four characters of our bank's IFSC


class Rules(NamedTuple):
    """What is so of a mode. Amounts in paise; `takes` is how long from the network to the result."""

    kinds: tuple[Kind, ...]
    takes: Latency
    min: int = 1
    max: int | None = None


RULES: dict[Mode, Rules] = {
    "IMPS": Rules(("account", "wallet"), Lognormal(Duration("2s"), Duration("30s")), max=500_000_00),
    "NEFT": Rules(
        ("account",), Lognormal(Duration("10min"), Duration("2h"))
    ),  # two hours from the batch: RBI's bound for a credit
    "RTGS": Rules(("account",), Lognormal(Duration("1min"), Duration("30min")), min=200_000_00),  # 30 min: RBI's bound
    "UPI": Rules(("vpa", "wallet"), Lognormal(Duration("2s"), Duration("30s")), max=100_000_00),
}


class Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="account"):
    """A bank account: 9 to 18 digits, as RBI's account numbers have."""

    accountNumber: Annotated[str, Meta(pattern=r"^[0-9]{9,18}\Z", description="9 to 18 digits")]
    ifsc: Annotated[
        str,
        Meta(
            pattern=r"^[A-Z]{4}0[A-Z0-9]{6}\Z",
            description="an IFSC: four capital letters, a zero, six of A-Z 0-9, such as HDFC0000001",
        ),
    ]
    name: Annotated[str, Meta(min_length=1, max_length=100)]


class Wallet(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="wallet"):
    """A prepaid wallet, by its owner's Indian mobile number."""

    provider: Annotated[str, Meta(pattern=r"^[a-z0-9_]{1,32}\Z", description="1 to 32 of a-z 0-9 _")]
    phone: Annotated[
        str,
        Meta(
            pattern=r"^(?:\+91)?[6-9][0-9]{9}\Z",
            description="an Indian mobile number: ten digits, the first from 6 to 9, with or without +91 before them",
        ),
    ]


class Handle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="vpa"):
    """Whoever is behind a VPA."""

    vpa: Vpa


Beneficiary = Account | Wallet | Handle


class Payout(msgspec.Struct, frozen=True, gc=False):
    """A payout as it goes over the wire; the amount in paise, times in ms since 1970."""

    reference: str
    providerID: str
    status: Status
    responseCode: str | None
    amount: int
    currency: str
    mode: Mode
    createdAt: int
    updatedAt: int
    utr: str | UnsetType = UNSET  # once the network has it


def happen(
    payout: Payout, event: Event, *, now_ms: int, code: str | None = None, utr: str | UnsetType = UNSET
) -> Payout | None:
    """The payout after the event, with `code` as its response code; a UTR comes with `send`. `None`: the event changes nothing."""
    status = TRANSITIONS.get((payout.status, event))
    if status is None:
        return None
    kept = utr if event == "send" else payout.utr
    return msgspec.structs.replace(payout, status=status, responseCode=code, updatedAt=now_ms, utr=kept)


def moved(payout: Payout) -> int:
    """The money that moved when it became what it is, in paise: - out, + back."""
    return {"completed": -payout.amount, "returned": payout.amount}.get(payout.status, 0)


def kind_of(beneficiary: Beneficiary) -> Kind:
    """The beneficiary's `type`."""
    match beneficiary:
        case Account():
            return "account"
        case Wallet():
            return "wallet"
        case Handle():
            return "vpa"


def told(beneficiary: Beneficiary) -> str | None:
    """What a test value does: a response code or `STAYS_PENDING`; `None`: it is none."""
    match beneficiary:
        case Account(accountNumber=number):
            return TEST_PAYEES["account"].get(number)
        case Wallet(phone=phone):
            return TEST_PAYEES["wallet"].get(phone.removeprefix("+91"))
        case Handle(vpa=vpa):
            return TEST_PAYEES["vpa"].get(vpa.lower())


def refusal(mode: Mode, beneficiary: Beneficiary, amount: int) -> str | None:
    """Why the network would not take such a payout at all; `None`: it would."""
    rules = RULES[mode]
    if kind_of(beneficiary) not in rules.kinds:
        able = ", ".join(name for name, other in RULES.items() if kind_of(beneficiary) in other.kinds)
        return f"mode: {mode} does not reach a beneficiary of type {kind_of(beneficiary)}; use {able}"
    if amount < rules.min:
        return f"amount: {mode} takes at least {rules.min} paise; use NEFT or IMPS"
    if rules.max is not None and amount > rules.max:
        return f"amount: {mode} takes at most {rules.max} paise" + ("; use NEFT or RTGS" if mode == "IMPS" else "")
    return None


def sent_at(mode: Mode, now_ms: int) -> int:
    """When the network gets a payout that is ordered now: at NEFT's next batch, else at once."""
    return now_ms // BATCH_MS * BATCH_MS + BATCH_MS if mode == "NEFT" else now_ms


def utr(mode: Mode, number: int, now_ms: int) -> str:
    """The unique transaction reference, made of a draw; its day is India's."""
    if mode in ("IMPS", "UPI"):
        return f"{number % 10**12:012d}"
    day = datetime.fromtimestamp(now_ms / 1000, UTC) + INDIA
    return f"{BANK}{mode[0]}1{day:%Y%m%d}{number % 10**8:08d}"
