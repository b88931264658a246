import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.journal import BLOCK_WEIGHT, Entry, Journal, Webhook
from simulators.search import Window
from simulators.verification import Verification, balance, verify


class State(msgspec.Struct, frozen=True):
    status: str
    amount: int
    currency: str = "INR"


def charge(order: str, amount: int, *, moved: int | None = None, currency: str = "INR") -> Entry:
    state = State("approved", amount, currency)
    return Entry(1, "card", "create", f"ref_{order}", 1, state, amount if moved is None else moved, order=order)


def refund(order: str, amount: int) -> Entry:
    return Entry(2, "card", "refund", f"ref_{order}", 1, State("completed", amount), -amount, order=order, subject="refund_1")


def journal_of(*entries: Entry) -> Journal:
    journal = Journal()
    for entry in entries:
        journal.append(entry)
    return journal


def finished(steps):
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def verdict(journal: Journal, *expect: dict, in_order: bool = False) -> dict:
    asked = msgspec.convert({"expect": expect, "inOrder": in_order}, Verification)
    return msgspec.to_builtins(finished(verify(journal, asked)))


CHARGE = {"provider": "card", "operation": "create", "order": "X", "moved": 1000, "count": 1}
REFUND = {"operation": "refund", "order": "X", "moved": -500, "count": {"min": 1, "max": 1}}


def test_one_charge_and_then_a_refund_is_what_was_expected():
    journal = journal_of(charge("Y", 1000), charge("X", 1000), charge("X", 1000, moved=0), refund("X", 500))
    assert verdict(journal, CHARGE, REFUND, in_order=True) == {"ok": True, "entries": 4, "failures": []}


def test_a_second_charge_is_found_and_shown():
    journal = journal_of(charge("X", 1000), charge("X", 1000))
    [failure] = verdict(journal, CHARGE)["failures"]
    assert (failure["expectation"], failure["found"], failure["wanted"]) == (0, 2, 1)
    assert [row["seq"] for row in failure["nearest"]] == [1, 2]


def test_a_missing_entry_shows_those_that_come_nearest():
    journal = journal_of(charge("X", 900), refund("Y", 500), *[charge(f"Z{index}", 1000) for index in range(2 * BLOCK_WEIGHT)])
    result = verdict(journal, CHARGE, REFUND)
    assert [(failure["found"], failure["wanted"]) for failure in result["failures"]] == [(0, 1), (0, {"min": 1, "max": 1})]
    assert [[row["seq"] for row in failure["nearest"]][:2] for failure in result["failures"]] == [[1, 502], [1, 2]]


def test_what_has_nothing_of_an_expectation_is_not_near_to_it():
    [failure] = verdict(journal_of(charge("X", 1000)), {"provider": "upi", "order": "Y"})["failures"]
    assert failure["nearest"] == []


def test_a_count_is_exactly_one_unless_it_says_otherwise():
    journal = journal_of(charge("X", 1000), charge("X", 1000))
    counts = [None, 0, 1, 2, 3, {"min": 2}, {"min": 3}, {"max": 1}, {"max": 2}, {"min": 0, "max": 5}]
    expect = [{"order": "X"} | ({} if count is None else {"count": count}) for count in counts]
    failed = [failure["expectation"] for failure in verdict(journal, *expect)["failures"]]
    assert [counts[index] for index in failed] == [None, 0, 1, 3, {"min": 3}, {"max": 1}]


@pytest.mark.parametrize("gap", [0, BLOCK_WEIGHT])
def test_order_is_judged_only_where_it_was_asked_for(gap):
    between = [charge("Y", 1) for _ in range(gap)]
    journal = journal_of(refund("X", 500), *between, charge("X", 1000))
    assert verdict(journal, CHARGE, REFUND)["ok"]
    [failure] = verdict(journal, CHARGE, REFUND, in_order=True)["failures"]
    assert (failure["expectation"], failure["after"], failure["nearest"][0]["seq"]) == (1, 0, 1)


def test_one_entry_too_late_breaks_the_order():
    journal = journal_of(charge("X", 1000), refund("X", 500), charge("X", 1000))
    assert not verdict(journal, CHARGE | {"count": 2}, REFUND, in_order=True)["ok"]


@pytest.mark.parametrize("body", [b'{"id": 1}', None])
def test_a_webhook_that_comes_near_is_shown_with_its_body(body):
    webhook = Webhook("id", signature_valid=True, duplicate=False, body=body)
    journal = journal_of(Entry(1, "merchant", "webhook", "m", 1, None, webhook=webhook))
    asked = msgspec.convert({"expect": [{"operation": "webhook", "reference": "n"}]}, Verification)
    answer = msgspec.json.decode(msgspec.json.encode(finished(verify(journal, asked))))
    assert answer["failures"][0]["nearest"][0]["body"] == (body and {"id": 1})


def test_an_expectation_of_nothing_does_not_break_the_order():
    journal = journal_of(charge("X", 1000), refund("X", 500))
    nothing = {"operation": "dispute", "count": 0}
    assert verdict(journal, CHARGE, nothing, REFUND, in_order=True)["ok"]
    assert not verdict(journal, REFUND, nothing, CHARGE, in_order=True)["ok"]


def test_only_what_was_there_at_the_first_step_is_judged():
    journal = journal_of(*[charge("X", 1000)] + [charge("Y", 1)] * BLOCK_WEIGHT)
    steps = verify(journal, msgspec.convert({"expect": [CHARGE]}, Verification))
    next(steps)
    journal.append(charge("X", 1000))
    assert finished(steps).ok


@given(st.lists(st.tuples(st.sampled_from("XY"), st.sampled_from(["INR", "JPY"]), st.integers(-1000, 1000))))
def test_a_balance_is_the_sum_of_what_moved_by_currency(moves):
    journal = journal_of(*[charge(order, 1, moved=moved, currency=currency) for order, currency, moved in moves])
    expected = {}
    for order, currency, moved in moves:
        if order == "X" and moved:
            expected[currency] = expected.get(currency, 0) + moved
    assert finished(balance(journal, Window(order="X"))) == expected


def test_a_balance_can_be_of_a_window():
    journal = journal_of(charge("X", 1000), refund("X", 300))
    windows = [{}, {"until": 2}, {"from": 2}, {"since": 2}]
    assert [finished(balance(journal, msgspec.convert(window, Window)))["INR"] for window in windows] == [700, 1000, -300, 0]
