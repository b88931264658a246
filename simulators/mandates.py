"""UPI AutoPay: the life of a mandate, and what may be debited under it: pure.

    pending --customer--> active | declined
       |                    |---revoke----> revoked
       |                    '---its end---> completed
       |---time--> expired
       '--revoke-> revoked

Nothing else ever changes. A registration moves no money and asks the customer for a UPI PIN; an execution moves money and asks
nobody. So of the outcome mix and the magic VPAs, what only a customer can cause (`upi.CUSTOMER_CODES`) concerns registrations, and
all else concerns executions: `insufficientfunds@upi` registers a mandate whose debits are declined.
"""

from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

Status = Literal["pending", "active", "declined", "expired", "revoked", "completed"]
Event = Literal["approve", "decline", "expire", "revoke", "end"]
Frequency = Literal["monthly", "weekly", "as_presented"]

# What is not in here changes nothing.
TRANSITIONS: dict[tuple[Status, Event], Status] = {
    ("pending", "approve"): "active",
    ("pending", "decline"): "declined",
    ("pending", "expire"): "expired",
    ("pending", "revoke"): "revoked",
    ("active", "revoke"): "revoked",
    ("active", "end"): "completed",
}
NOTICE_MS = 24 * 3_600_000  # RBI's e-mandate framework: the payer is told at least 24 hours before a debit
INDIA = timedelta(hours=5, minutes=30)  # a mandate's months and weeks are those of India's calendar, which has no summer time


class Mandate(msgspec.Struct, frozen=True, gc=False):
    """A mandate as it goes over the wire; amounts in paise, times in ms since 1970."""

    reference: str
    providerID: str
    status: Status
    responseCode: str | None
    vpa: str
    amountMax: int
    currency: str
    frequency: Frequency
    startAt: int
    endAt: int
    createdAt: int
    updatedAt: int
    umn: str | UnsetType = UNSET  # NPCI's unique mandate number, once active

    @property
    def amount(self) -> int:
        """What the journal shows."""
        return self.amountMax


class Refusal(msgspec.Struct, frozen=True):
    """Why a debit is not even tried."""

    code: str
    sentence: str


def happen(mandate: Mandate, event: Event, *, now_ms: int, code: str | None) -> Mandate | None:
    """The mandate after the event, with `code` as its response code; `None` where the event changes nothing."""
    status = TRANSITIONS.get((mandate.status, event))
    if status is None:
        return None
    umn = unique_number(mandate.providerID) if status == "active" else mandate.umn
    return msgspec.structs.replace(mandate, status=status, responseCode=code, updatedAt=now_ms, umn=umn)


def as_of(mandate: Mandate, now_ms: int) -> Mandate:
    """The mandate as it is now: one that is past its end is over, though nothing has happened."""
    if now_ms <= mandate.endAt:
        return mandate
    return happen(mandate, "end", now_ms=mandate.endAt, code=mandate.responseCode) or mandate


def refusal(
    mandate: Mandate, *, amount: int, now_ms: int, notified_at_ms: int | None, debited_in_period: bool
) -> Refusal | None:
    """Why this debit breaks the mandate's rules; `None` if it does not."""
    if mandate.status != "active":
        return Refusal("mandate_not_active", f"the mandate is {mandate.status}")
    if now_ms < mandate.startAt:
        return Refusal("mandate_not_started", f"the mandate starts at {mandate.startAt} (ms), it is {now_ms}")
    if amount > mandate.amountMax:
        return Refusal("mandate_amount_exceeded", f"amount: {amount} is more than the mandate's amountMax, {mandate.amountMax}")
    if debited_in_period:
        span = {"monthly": "month", "weekly": "week"}[mandate.frequency]
        return Refusal("mandate_already_executed", f"this {span}'s debit has been made or is under way")
    if notified_at_ms is not None and now_ms - notified_at_ms < NOTICE_MS:
        return Refusal("notified_too_late", "notifiedAt: the payer must be notified at least 24 hours before the debit")
    return None


def period(frequency: Frequency, now_ms: int) -> int | None:
    """A number that two times share if they are in the same month or week (from Monday); `None`: no limit by time."""
    today = (datetime.fromtimestamp(now_ms / 1000, UTC) + INDIA).date()
    match frequency:
        case "monthly":
            return today.year * 12 + today.month
        case "weekly":
            return (today.toordinal() - 1) // 7  # the first of January of the year 1 was a Monday
        case "as_presented":
            return None


def unique_number(provider_id: str) -> str:
    """The UMN: 32 characters and the PSP's handle."""
    return f"PDR{provider_id.rpartition('_')[2]:0>29}@paydrome"
