"""Every state of an authentication, times everything that can be learnt about it, times the statuses that its payment can have then."""

from itertools import product
from typing import Any, get_args

import msgspec
import pytest

from gateway.core import authentication as core
from gateway.core import payment as payments
from gateway.core.authentication import Authentication, Told, Work
from gateway.core.outcome import Declined, NextAction, Outcome
from gateway.core.payment import Payment
from tests.gateway.doubles import NOW_MS, OUTCOMES, make_attempt, make_authentication, make_payment

LATER_MS = NOW_MS + 700
TIMESTAMP = "2030-03-17T17:46:40.700Z"
URL = "https://acs.example/1"

# The authentication's state afterwards. A dot: nothing follows, nothing changes.
STATES_AFTER = """
                   intent         challenge      authenticated  failed  expired  cancelled
challenged         challenge      .              .              .       .        .
authenticated      authenticated  authenticated  .              .       .        .
not_authenticated  failed         failed         .              .       .        .
rejected           failed         failed         .              .       .        .
not_performed      failed         failed         .              .       .        .
timed_out          expired        expired        .              .       .        .
unavailable        failed         .              .              .       .        .
interrupted        failed         failed         .              .       .        .
overdue            expired        expired        .              .       .        .
cancelled          .              cancelled      .              .       .        .
"""

# The payment waits for its customer while they are challenged, and is `processing` before.
STATUS_BEFORE = {"intent": "processing", "challenge": "requires_action"}
STATUSES_AFTER = {
    ("intent", "challenge"): "requires_action",
    ("intent", "authenticated"): "processing",
    ("intent", "failed"): "failed",
    ("intent", "expired"): "failed",
    ("challenge", "authenticated"): "processing",
    ("challenge", "failed"): "failed",
    ("challenge", "expired"): "expired",
    ("challenge", "cancelled"): "voided",
}
REASONS = {
    "not_authenticated": "authentication_failed",
    "rejected": "authentication_rejected",
    "not_performed": "authentication_unavailable",
    "unavailable": "authentication_unavailable",
    "interrupted": "authentication_interrupted",
    "timed_out": "authentication_expired",
    "overdue": "authentication_expired",
}

# EMV 3-D Secure 2.2.0: transStatus and transStatusReason -> what was learnt.
TOLD = {
    ("Y", None): "authenticated",
    ("A", None): "authenticated",
    ("C", None): "challenged",
    ("N", "01"): "not_authenticated",
    ("N", "19"): "not_authenticated",
    ("N", "14"): "timed_out",
    ("R", "11"): "rejected",
    ("U", "22"): "not_performed",
    ("I", None): "not_performed",
    ("D", None): None,
}


def states_after() -> dict[tuple[str, str], str]:
    header, *lines = [line.split() for line in STATES_AFTER.strip().splitlines()]
    return {(state, line[0]): cell for line in lines for state, cell in zip(header, line[1:], strict=True)}


TABLE = states_after()
ALLOWED = {pair: state for pair, state in TABLE.items() if state != "."}


def told(trans_status: str, reason: str | None = None, **fields: Any) -> Told:
    url = URL if trans_status == "C" else None
    return Told(
        **{"trans_id": "t_1", "trans_status": trans_status, "trans_status_reason": reason, "eci": "05", "url": url} | fields
    )


def at(state: str) -> tuple[Payment, Authentication]:
    status = STATUS_BEFORE.get(state, "processing")
    waits = {"next_action": NextAction("redirect", url=URL)} if status == "requires_action" else {}
    payment = make_payment(status=status, version=3, sequence=1, **waits)
    return payment, make_authentication(payment, state=state, inquiries=2)


def take(state: str, learnt: Any) -> tuple[Work | None, Payment, Authentication]:
    payment, authentication = at(state)
    before = msgspec.json.encode((payment, authentication))
    work = core.step(payment, authentication, learnt, now_ms=LATER_MS, timestamp=TIMESTAMP)
    assert msgspec.json.encode((payment, authentication)) == before
    return work, payment, authentication


def test_the_table_is_complete():
    assert {state for state, _ in TABLE} == set(get_args(core.State))
    assert {found for _, found in TABLE} == set(get_args(core.Finding))
    assert set(core.TRANSITIONS) == set(get_args(core.State))
    assert {(state, ALLOWED[state, found]) for state, found in ALLOWED} == set(STATUSES_AFTER)


@pytest.mark.parametrize("state", get_args(core.State))
def test_each_finding_leads_where_the_table_says_and_nowhere_else(state: str):
    for found in get_args(core.Finding):
        if found == "challenged":
            continue  # nobody but the provider finds that: it comes with a page
        work, payment, authentication = take(state, found)
        if (state, found) not in ALLOWED:
            assert work is None, found
            continue
        assert work is not None, found
        after = ALLOWED[state, found]
        status = STATUSES_AFTER[state, after]
        moved = status != payment.status
        assert (work.authentication.state, work.payment.status, work.payment.version) == (after, status, 4), found
        assert [(event.type, event.sequence) for event in work.events] == ([(f"payment.{status}", 2)] if moved else [])
        reason = REASONS.get(found)
        assert (work.payment.failure_reason, work.payment.decline_code) == (reason, reason and "1A"), found
        assert work.payment.next_action is None
        assert (work.authentication.due_at_ms, work.authentication.inquiries) == (None, 0)
        assert (work.attempt is None) == (after != "authenticated")
        kept = {"id", "payment_id", "provider", "amount_minor", "currency", "decline_code", "created_at_ms"}
        assert all(getattr(work.authentication, name) == getattr(authentication, name) for name in kept)


@pytest.mark.parametrize("pair", TOLD, ids=str)
def test_what_the_provider_says_means_what_the_standard_says(pair: tuple[str, str | None]):
    assert told(*pair).finding == TOLD[pair]
    for state in ("intent", "challenge"):
        work, _, _ = take(state, told(*pair))
        found = TOLD[pair]
        expected = None if found is None else ALLOWED.get((state, found))
        assert (work and work.authentication.state) == expected


def test_a_challenge_without_a_page_is_none():
    assert told("C", url=None).finding is None
    assert take("intent", told("C", url=None))[0] is None


@pytest.mark.parametrize("inquiries", [0, 2])
def test_a_challenge_sends_the_customer_to_the_issuers_page(inquiries: int):
    payment, authentication = at("intent")
    authentication = msgspec.structs.replace(authentication, inquiries=inquiries)
    work = core.step(payment, authentication, told("C"), now_ms=LATER_MS, timestamp=TIMESTAMP)
    assert work is not None
    assert (work.payment.status, work.payment.next_action) == ("requires_action", NextAction("redirect", url=URL))
    late = inquiries > 0  # the answer to the payment has told that it is processing
    assert [(event.type, event.body is not None) for event in work.events] == [("payment.requires_action", late)]
    assert (work.authentication.trans_id, work.authentication.url) == ("t_1", URL)
    assert work.authentication.due_at_ms == authentication.due_at_ms


@pytest.mark.parametrize("state", ["intent", "challenge"])
def test_who_is_authenticated_is_charged_again_under_a_second_reference(state: str):
    work, payment, _ = take(state, told("Y"))
    assert work is not None
    assert work.attempt == make_attempt(
        payment,
        reference=f"att_{1:032x}_02",
        due_at_ms=LATER_MS,
        expires_at_ms=LATER_MS,
        created_at_ms=LATER_MS,
    )
    assert (work.authentication.trans_id, work.authentication.trans_status, work.authentication.eci) == ("t_1", "Y", "05")


def test_it_begins_with_the_end_of_the_first_attempt_and_the_payment_goes_on():
    payment = make_payment(status="processing", sequence=1)
    attempt = make_attempt(payment)
    declined = Declined("1A", core.REQUIRED, "prov_1")
    begun = core.begin(payment, attempt, declined, due_at_ms=LATER_MS + 1, expires_at_ms=LATER_MS + 2, now_ms=LATER_MS)
    ended = payments.step(payment, attempt, declined, now_ms=LATER_MS, timestamp=TIMESTAMP, fee_basis_points=0)
    assert ended is not None
    assert begun.attempt == ended.attempt  # declined, as by any other decline
    assert (begun.payment.status, begun.payment.version, begun.events) == ("processing", 2, ())
    expected = {"due_at_ms": LATER_MS + 1, "expires_at_ms": LATER_MS + 2, "created_at_ms": LATER_MS, "updated_at_ms": LATER_MS}
    assert begun.authentication == make_authentication(payment, **expected)


# The first attempt afterwards


@pytest.mark.parametrize("status", ["processing", "requires_action", "completed", "failed"])
@pytest.mark.parametrize(("state", "found"), [*product(("declined", "reversing", "reversed", "manual_review"), OUTCOMES)])
def test_what_is_heard_of_an_attempt_that_has_a_successor_moves_no_payment(status: str, state: str, found: str):
    payment = make_payment(status=status, version=3, sequence=2)
    attempt = make_attempt(payment, state=state)
    outcome: Outcome = OUTCOMES[found]
    options: Any = {"now_ms": LATER_MS, "timestamp": TIMESTAMP, "fee_basis_points": 0}
    taken = payments.step(payment, attempt, outcome, superseded=True, **options)
    following = payments.ATTEMPT_TRANSITIONS[state].get(type(outcome)) if state != "manual_review" else None  # type: ignore[call-overload]
    if found == "Irreversible" and following is not None:
        following = "manual_review"
    assert (taken and taken.attempt.state) == following
    if taken is not None:
        assert (taken.payment.status, taken.payment.version, taken.events, taken.entries) == (status, 4, (), ())


def test_a_first_attempt_that_succeeded_after_all_is_reversed():
    assert payments.ATTEMPT_TRANSITIONS["declined"][type(OUTCOMES["Approved"])] == "reversing"
