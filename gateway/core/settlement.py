"""What a merchant gets for a day, in one currency, and its way to the merchant's bank account. Pure.

    computing --> ready --> processing --> completed     the bank has paid
        |           ^          |   '-----> failed        it refused, could not, or got the money back: may be paid again
        |           |          '--> unknown              it did not answer: asked by our reference until it does
        '--> completed                                   nothing to pay

`computing` collects the ledger's entries, each of which is in one settlement; their sum is the settlement. What captures, refunds and
chargebacks leave over in a provider's line is what that provider remits for the day; what they leave over in all, less fees, is paid to
the merchant. A sum below zero is not paid: the next settlement opens with it.

A payout has a reference of its own, which is durable before the bank is called, and which all tries at that call share. Only once it
has definitely failed, another payout, under another reference, may follow.
"""

from datetime import date
from typing import Literal

import msgspec
from msgspec.structs import replace

from gateway.core import ledger
from gateway.core.errors import CallerError
from gateway.core.event import Event, EventData, SettlementEvent, event
from gateway.core.outcome import Declined, NotSent, Unknown
from gateway.core.payment import Method

State = Literal["computing", "ready", "processing", "unknown", "completed", "failed"]
PayoutStatus = Literal["pending", "processing", "completed", "failed", "returned"]

CURRENCY_PAID = "INR"  # banks here pay out in no other
RETURNED_AFTER_MS_MAX = 48 * 3600 * 1000  # a payout that comes back does so within a day or two

ASKED_STATES: frozenset[State] = frozenset({"processing", "unknown"})
PAYABLE_STATES: frozenset[State] = frozenset({"ready", "failed"})

_TOLD: dict[str, State] = {
    "pending": "processing",
    "processing": "processing",
    "completed": "completed",
    "failed": "failed",
    "returned": "failed",
    "refused": "failed",
}

# (state, what the bank said of the payout) -> state. A pair that is absent changes nothing.
TRANSITIONS: dict[State, dict[str, State]] = {
    "computing": {},
    "ready": {},
    "processing": {**_TOLD, "unanswered": "unknown"},
    "unknown": _TOLD,
    "completed": {"returned": "failed"},
    "failed": {},
}


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What one provider moved. What was given back later (a refund that failed after all, a dispute that was won) is subtracted, and
    counted as a movement of its own."""

    provider: Method
    captured_minor: int = 0
    fees_minor: int = 0
    refunds_minor: int = 0
    chargebacks_minor: int = 0
    captures: int = 0
    refunds: int = 0
    chargebacks: int = 0

    @property
    def remitted_minor(self) -> int:
        """What the provider owes us for it; negative: what we owe the provider."""
        return self.captured_minor - self.refunds_minor - self.chargebacks_minor

    @property
    def net_minor(self) -> int:
        return self.remitted_minor - self.fees_minor

    @property
    def entries(self) -> int:
        return self.captures + self.refunds + self.chargebacks


class Payee(msgspec.Struct, frozen=True):
    """A merchant's bank account."""

    account_number: str
    ifsc: str
    name: str


class Payout(msgspec.Struct, frozen=True, kw_only=True):
    """An order to a bank to pay a merchant."""

    reference: str
    merchant_id: str
    amount_minor: int
    currency: str
    payee: Payee


class PayoutTold(msgspec.Struct, frozen=True, kw_only=True):
    """A payout as its bank tells of it. `utr` is the payment network's own number."""

    status: PayoutStatus
    provider_id: str
    response_code: str | None = None
    utr: str | None = None


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """`date` is the merchant's local day, YYYY-MM-DD, which was over at `until_ms`. `reason` says why nothing was, or could be, paid.
    `due_at_ms` is when the bank is asked about the payout next."""

    id: str
    version: int
    merchant_id: str
    date: str
    timezone: str
    currency: str
    until_ms: int
    state: State = "computing"
    reason: str | None = None
    sequence: int = 0
    lines: tuple[Line, ...] = ()
    opening_minor: int = 0
    net_minor: int = 0
    payouts: int = 0
    payee: Payee | None = None
    provider_id: str | None = None
    utr: str | None = None
    inquiries: int = 0
    due_at_ms: int | None = None
    created_at_ms: int
    updated_at_ms: int

    @property
    def closing_minor(self) -> int:
        return self.opening_minor + self.net_minor

    @property
    def amount_minor(self) -> int:
        """What the merchant gets."""
        return max(0, self.closing_minor)

    @property
    def carried_minor(self) -> int:
        """What the next settlement opens with: nothing, or less."""
        return min(0, self.closing_minor)

    @property
    def entries(self) -> int:
        return sum(line.entries for line in self.lines)

    @property
    def payout(self) -> Payout | None:
        """The last one, as it was ordered; None if there was none."""
        if self.payee is None:
            return None
        return Payout(
            reference=payout_reference(self.id, self.payouts),
            merchant_id=self.merchant_id,
            amount_minor=self.amount_minor,
            currency=self.currency,
            payee=self.payee,
        )


class Work(msgspec.Struct, frozen=True, kw_only=True):
    settlement: Settlement
    events: tuple[Event, ...] = ()
    entries: tuple[ledger.Entry, ...] = ()


def payout_reference(settlement_id: str, number: int) -> str:
    return f"out_{settlement_id.removeprefix('set_')}_{number:02}"


def settlement_of(reference: str) -> str:
    """The id of the settlement whose payout has this reference, if it is one."""
    return f"set_{reference.removeprefix('out_').rpartition('_')[0]}"


def begin(
    settlement_id: str, *, merchant_id: str, day: date, timezone: str, currency: str, until_ms: int, now_ms: int
) -> Settlement:
    """A new settlement, without entries."""
    return Settlement(
        id=settlement_id,
        version=1,
        merchant_id=merchant_id,
        date=day.isoformat(),
        timezone=timezone,
        currency=currency,
        until_ms=until_ms,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
    )


def close(settlement: Settlement, lines: tuple[Line, ...], opening_minor: int, *, now_ms: int, timestamp: str) -> Work:
    """All entries are in it, and `lines` is what they come to. Books what each provider remits for them, which is taken for granted
    here: whether it came is for reconciliation to find."""
    closed = replace(
        _changed(settlement, now_ms),
        state="ready",
        lines=lines,
        opening_minor=opening_minor,
        net_minor=sum(line.net_minor for line in lines),
    )
    entries = tuple(_remittance(closed, line, now_ms) for line in lines if line.remitted_minor)
    closed, created = _tell(closed, "settlement.created", now_ms, timestamp)
    if closed.amount_minor:
        return Work(settlement=closed, events=(created,), entries=entries)
    reason = "negative_balance" if closed.carried_minor else "nothing_to_pay"
    done, completed = _tell(replace(closed, state="completed", reason=reason), "settlement.completed", now_ms, timestamp)
    return Work(settlement=done, events=(created, completed), entries=entries)


def hold(settlement: Settlement, reason: str, *, now_ms: int) -> Settlement | None:
    """It cannot be paid, and why; None if that is known."""
    return None if settlement.reason == reason else replace(_changed(settlement, now_ms), reason=reason)


def begin_payout(settlement: Settlement, payee: Payee, *, now_ms: int) -> Settlement:
    """The intent to pay, to be made durable before the bank is called. Raises CallerError 409 if it is not to be paid."""
    if settlement.state not in PAYABLE_STATES:
        raise CallerError(409, "not_payable", f"the settlement is {settlement.state}")
    return replace(
        _changed(settlement, now_ms),
        state="processing",
        reason=None,
        payouts=settlement.payouts + 1,
        payee=payee,
        provider_id=None,
        utr=None,
        inquiries=0,
    )


def step(
    settlement: Settlement,
    reference: str,
    outcome: PayoutTold | Declined | NotSent | Unknown,
    *,
    now_ms: int,
    timestamp: str,
) -> Work | None:
    """What follows from the bank's word about the payout of this reference; None if nothing does."""
    payout = settlement.payout
    if payout is None or payout.reference != reference:
        return None  # a payout of before, which is known to have failed
    said = _said(outcome)
    state = TRANSITIONS[settlement.state].get(said)
    if state is None:
        return None
    told = replace(
        settlement,
        state=state,
        reason=_reason(outcome) if state == "failed" else None,
        provider_id=getattr(outcome, "provider_id", None) or settlement.provider_id,
        utr=getattr(outcome, "utr", None) or settlement.utr,
        due_at_ms=settlement.due_at_ms if state in ASKED_STATES else None,
    )
    if told == settlement:
        return None
    told = replace(told, version=settlement.version + 1, updated_at_ms=now_ms)
    entries = []
    if said in ("completed", "returned") and settlement.state != "completed":
        entries.append(_payment(told, payout, "paid", now_ms))
    if said == "returned":
        entries.append(_payment(told, payout, "returned", now_ms))
    if state in ASKED_STATES:
        return Work(settlement=told)
    told, event = _tell(told, "settlement.completed" if state == "completed" else "settlement.failed", now_ms, timestamp)
    return Work(settlement=told, events=(event,), entries=tuple(entries))


def _said(outcome: PayoutTold | Declined | NotSent | Unknown) -> str:
    match outcome:
        case PayoutTold():
            return outcome.status
        case Declined():
            return "refused"
        case NotSent() | Unknown():
            return "unanswered"


def _reason(outcome: PayoutTold | Declined | NotSent | Unknown) -> str | None:
    match outcome:
        case PayoutTold():
            return outcome.response_code or outcome.status
        case _:
            return outcome.reason


def _changed(settlement: Settlement, now_ms: int) -> Settlement:
    return replace(settlement, version=settlement.version + 1, updated_at_ms=now_ms)


def _remittance(settlement: Settlement, line: Line, now_ms: int) -> ledger.Entry:
    accounts = ledger.BANK, ledger.receivable(line.provider)
    debit, credit = accounts if line.remitted_minor > 0 else reversed(accounts)
    return ledger.transfer(
        name=f"{settlement.id}_remitted_{line.provider}",
        subject_id=settlement.id,
        debit=debit,
        credit=credit,
        currency=settlement.currency,
        amount_minor=abs(line.remitted_minor),
        now_ms=now_ms,
    )


def _payment(settlement: Settlement, payout: Payout, what: Literal["paid", "returned"], now_ms: int) -> ledger.Entry:
    accounts = ledger.payable(settlement.merchant_id), ledger.BANK
    debit, credit = accounts if what == "paid" else reversed(accounts)
    return ledger.transfer(
        name=f"{payout.reference}_{what}",
        subject_id=settlement.id,
        debit=debit,
        credit=credit,
        currency=settlement.currency,
        amount_minor=payout.amount_minor,
        now_ms=now_ms,
    )


def _tell(settlement: Settlement, kind: SettlementEvent, now_ms: int, timestamp: str) -> tuple[Settlement, Event]:
    told = replace(settlement, sequence=settlement.sequence + 1)
    data = EventData(
        settlement_id=told.id,
        status=told.state,
        amount=told.amount_minor,
        currency=told.currency,
        timestamp=timestamp,
        date=told.date,
        reason=told.reason,
    )
    return told, event(kind, data, subject_id=told.id, merchant_id=told.merchant_id, sequence=told.sequence, now_ms=now_ms)
