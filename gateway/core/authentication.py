"""3-D Secure 2: the cardholder proves to the issuer who they are, and the card is charged once more, under a second reference. Pure.

    (declined: authentication required) --> intent --> authenticated --> second attempt
                                              |   '--> failed
                                              '-> challenge --> authenticated --> second attempt
                                                      |-------> failed | expired | cancelled

The first attempt is over: that decline was definite. While the authentication is open the payment is `processing`, or, while the customer
is challenged, `requires_action`. An authentication moves no money, so it may be ended at any time: whatever comes later changes nothing.
Only the commit that ends it as `authenticated` makes the second attempt, and so there is never a third.

Without the card's security code, which is in memory only, there can be no second attempt: after a restart what is open is `interrupted`.
"""

from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from gateway.core.event import Event
from gateway.core.outcome import Declined, NextAction
from gateway.core.payment import Attempt, Method, Payment, Status, move, touched

REQUIRED = "authentication_required"
"""The reason of a decline after which the customer may authenticate and be charged once more (Visa's 1A)."""

State = Literal["intent", "challenge", "authenticated", "failed", "expired", "cancelled"]
Finding = Literal[
    "challenged",
    "authenticated",
    "not_authenticated",
    "rejected",
    "not_performed",
    "timed_out",
    "unavailable",
    "interrupted",
    "overdue",
    "cancelled",
]

OPEN_STATES: frozenset[State] = frozenset({"intent", "challenge"})

_ENDS: dict[Finding, State] = {
    "authenticated": "authenticated",
    "not_authenticated": "failed",
    "rejected": "failed",
    "not_performed": "failed",
    "timed_out": "expired",
    "interrupted": "failed",
    "overdue": "expired",
}

# (state, what was learnt) -> state. A pair that is absent changes nothing.
TRANSITIONS: dict[State, dict[Finding, State]] = {
    "intent": {**_ENDS, "challenged": "challenge", "unavailable": "failed"},
    "challenge": {**_ENDS, "cancelled": "cancelled"},
    "authenticated": {},
    "failed": {},
    "expired": {},
    "cancelled": {},
}

# EMV 3-D Secure 2.2.0, annex A, transStatus: what a merchant can make of it. A charge counts as authenticated with Y and A only; U and I
# would be declined again. D (decoupled) is never asked for.
FINDINGS: dict[str, Finding] = {
    "Y": "authenticated",
    "A": "authenticated",
    "C": "challenged",
    "N": "not_authenticated",
    "R": "rejected",
    "U": "not_performed",
    "I": "not_performed",
}
TIMED_OUT_AT_ACS = "14"  # transStatusReason of an N: the customer did nothing in time

FAILURE_REASONS: dict[Finding, str] = {
    "not_authenticated": "authentication_failed",
    "rejected": "authentication_rejected",
    "not_performed": "authentication_unavailable",
    "unavailable": "authentication_unavailable",
    "interrupted": "authentication_interrupted",
    "timed_out": "authentication_expired",
    "overdue": "authentication_expired",
}


class Authentication(msgspec.Struct, frozen=True, kw_only=True):
    """`id` (`aut_...`) is our reference at the provider. `due_at_ms` is when recovery looks at it next, None once it is final;
    `expires_at_ms` is when we stop waiting for the customer. `trans_id` is EMV's threeDSServerTransID, by which a charge refers to it."""

    id: str
    payment_id: str
    provider: Method
    state: State = "intent"
    amount_minor: int
    currency: str
    decline_code: str
    """The issuer's, which led here. It stays the payment's, should the authentication fail."""
    trans_id: str | None = None
    trans_status: str | None = None
    trans_status_reason: str | None = None
    eci: str | None = None
    url: str | None = None
    inquiries: int = 0
    due_at_ms: int | None
    expires_at_ms: int
    created_at_ms: int
    updated_at_ms: int


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """An authentication as its provider tells of it. `url` is the challenge's page, there while it waits for the customer."""

    trans_id: str
    trans_status: str
    trans_status_reason: str | None = None
    eci: str | None = None
    url: str | None = None

    @property
    def finding(self) -> Finding | None:
        """None: nothing that the table knows, such as a challenge without a page."""
        if self.trans_status == "N" and self.trans_status_reason == TIMED_OUT_AT_ACS:
            return "timed_out"
        found = FINDINGS.get(self.trans_status)
        return None if found == "challenged" and self.url is None else found


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What to write. `attempt` is the first one as it ends, or the second one, which is to be carried out."""

    payment: Payment
    authentication: Authentication
    attempt: Attempt | None = None
    events: tuple[Event, ...] = ()


def id_for(payment_id: str) -> str:
    """The id of a payment's authentication: it has one at most."""
    return f"aut_{payment_id.removeprefix('pay_')}"


def begin(payment: Payment, attempt: Attempt, declined: Declined, *, due_at_ms: int, expires_at_ms: int, now_ms: int) -> Work:
    """The intent to authenticate, made durable with the end of the first attempt. The payment goes on `processing`."""
    ended = replace(
        attempt,
        state="declined",
        provider_id=declined.provider_id or attempt.provider_id,
        response_code=declined.response_code,
        due_at_ms=None,
        resolved_at_ms=now_ms,
    )
    authentication = Authentication(
        id=id_for(payment.id),
        payment_id=payment.id,
        provider=attempt.provider,
        amount_minor=attempt.amount_minor,
        currency=attempt.currency,
        decline_code=declined.response_code,
        due_at_ms=due_at_ms,
        expires_at_ms=expires_at_ms,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
    )
    return Work(payment=touched(payment, now_ms), authentication=authentication, attempt=ended)


def step(
    payment: Payment, authentication: Authentication, learnt: Told | Finding, *, now_ms: int, timestamp: str
) -> Work | None:
    """What follows from the provider's word, or from a finding of our own; None if nothing does. When that is due and expires is for the
    caller to set."""
    told, finding = (learnt, learnt.finding) if isinstance(learnt, Told) else (None, learnt)
    state = None if finding is None else TRANSITIONS[authentication.state].get(finding)
    if finding is None or state is None:
        return None
    after = _after(authentication, state, told, now_ms)
    second = _second(authentication, now_ms) if state == "authenticated" else None
    status = _next_status(payment, state)
    if status is None:
        return Work(payment=touched(payment, now_ms), authentication=after, attempt=second)
    fields: dict[str, Any] = {"version": payment.version + 1, "next_action": None}
    if status == "requires_action":
        fields["next_action"] = NextAction("redirect", url=after.url)
    elif status in ("failed", "expired"):
        fields |= {"failure_reason": FAILURE_REASONS[finding], "decline_code": authentication.decline_code}
    answered = status == "requires_action" and not authentication.inquiries  # later, nobody waits for the answer any more
    moved, event = move(payment, status, fields, now_ms=now_ms, timestamp=timestamp, answered=answered)
    return Work(payment=moved, authentication=after, attempt=second, events=(event,))


def _after(authentication: Authentication, state: State, told: Told | None, now_ms: int) -> Authentication:
    after = replace(
        authentication,
        state=state,
        inquiries=0,
        due_at_ms=authentication.due_at_ms if state in OPEN_STATES else None,
        updated_at_ms=now_ms,
    )
    if told is None:
        return after
    return replace(
        after,
        trans_id=told.trans_id,
        trans_status=told.trans_status,
        trans_status_reason=told.trans_status_reason,
        eci=told.eci,
        url=told.url if state == "challenge" else authentication.url,
    )


def _next_status(payment: Payment, state: State) -> Status | None:
    """The payment's next status; None: it stays `processing`."""
    waiting = payment.status == "requires_action"
    match state:
        case "challenge":
            return "requires_action"
        case "authenticated":
            return "processing" if waiting else None
        case "expired":
            return "expired" if waiting else "failed"
        case "cancelled":
            return "voided"
        case _:
            return "failed"


def _second(authentication: Authentication, now_ms: int) -> Attempt:
    return Attempt(
        reference=f"att_{authentication.id.removeprefix('aut_')}_02",
        payment_id=authentication.payment_id,
        provider=authentication.provider,
        state="intent",
        amount_minor=authentication.amount_minor,
        currency=authentication.currency,
        due_at_ms=now_ms,
        expires_at_ms=now_ms,
        created_at_ms=now_ms,
    )
