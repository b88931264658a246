"""What holds for a payment whatever is learnt about it, in whatever order, however often."""

import itertools

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core import payment as core
from gateway.core.payment import Step
from tests.gateway.doubles import NOW_MS, OUTCOMES, STEP_PAIRS, make_attempt, make_payment

outcomes = st.lists(st.sampled_from(sorted(OUTCOMES)), max_size=12)
amounts = st.integers(1, 999_999_999_999)


def live(amount: int, fee: int, found: list[str]) -> list[Step]:
    """All steps of a payment that meets these outcomes."""
    payment = make_payment(amount_minor=amount)
    steps = [core.begin(payment, make_attempt(payment), timestamp="T")]
    for offset, name in enumerate(found, start=1):
        last = steps[-1]
        taken = core.step(
            last.payment, last.attempt, OUTCOMES[name], now_ms=NOW_MS + offset, timestamp="T", fee_basis_points=fee
        )
        if taken is not None:
            steps.append(taken)
    return steps


@settings(max_examples=200, deadline=None)
@given(amounts, st.integers(0, 10_000), outcomes)
def test_events_number_replay_and_step_as_they_must(amount: int, fee: int, found: list[str]):
    steps = live(amount, fee, found)
    events = [event for step in steps for event in step.events]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert len({event.id for event in events}) == len(events)
    statuses = ["pending", *(event.type.removeprefix("payment.") for event in events)]
    assert set(itertools.pairwise(statuses)) <= STEP_PAIRS
    assert steps[-1].payment.status == statuses[-1]
    for event in events:
        if event.body is not None:
            told = msgspec.json.decode(event.body)
            assert (told["id"], told["sequence"], told["event"]) == (event.id, event.sequence, event.type)


@settings(max_examples=200, deadline=None)
@given(amounts, st.integers(0, 10_000), outcomes)
def test_money_is_captured_once_in_full_or_not_at_all(amount: int, fee: int, found: list[str]):
    steps = live(amount, fee, found)
    entries = [entry for step in steps for entry in step.entries]
    last = steps[-1].payment
    assert last.captured_minor in (0, amount)
    assert (last.captured_minor == amount) == (last.status == "completed") == (len(entries) == 1)
    for entry in entries:
        assert sum(p.debit_minor for p in entry.postings) == sum(p.credit_minor for p in entry.postings) == amount


@settings(max_examples=200, deadline=None)
@given(outcomes)
def test_each_step_is_the_next_version(found: list[str]):
    steps = live(1000, 0, found)
    assert [step.payment.version for step in steps] == list(range(1, len(steps) + 1))


@settings(max_examples=200, deadline=None)
@given(outcomes)
def test_a_payment_that_ended_stays_as_it_ended(found: list[str]):
    statuses = [step.payment.status for step in live(1000, 0, found)]
    ends = [status for status in statuses if status in ("completed", "failed", "expired")]
    assert len(set(ends)) <= 1
    assert statuses[len(statuses) - len(ends) :] == ends


@settings(max_examples=200, deadline=None)
@given(outcomes, st.sampled_from(sorted(OUTCOMES)))
def test_hearing_the_same_twice_in_a_row_changes_nothing_more(found: list[str], again: str):
    once, twice = live(1000, 0, [*found, again]), live(1000, 0, [*found, again, again])
    settled = [(step.payment.status, step.attempt.state) for step in twice[len(once) - 1 :]]
    assert {status for status, _ in settled} == {once[-1].payment.status}
    assert len(set(settled)) == 1
