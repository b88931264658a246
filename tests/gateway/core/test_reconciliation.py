"""Every way in which a file and the books can differ, and what becomes of a break when they are compared again."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.breaks import NOTES_MAX, Break, explained, made, merged, resolve
from gateway.core.errors import CallerError
from gateway.core.reconciliation import (
    DAY_MS,
    Booked,
    Carried,
    Finding,
    Known,
    Row,
    Rules,
    cancelled,
    compare,
    explain,
    fee_minor,
    start_ms,
)

RULES = Rules("card", "2030-03-17", 200)
AT_MS = start_ms(RULES.date) + 5


def row(gross: int = 1000, **fields: Any) -> Row:
    made = Row("att_1", "", "charge", "charge", gross, 0, "INR", AT_MS, "card_1", "merchant_123")
    made = made._replace(**fields)
    return made if "fee_minor" in fields else made._replace(fee_minor=fee_minor(made, 200))


def booked(amount: int = 1000, **fields: Any) -> Booked:
    return Booked("att_1", "", "charge", amount, "INR", AT_MS, f"ent_{amount}", "pay_1", "merchant_123")._replace(**fields)


def kinds(rows: list[Row], ours: list[Booked]) -> tuple[int, list[str], int, int]:
    group = compare(rows, ours, RULES)
    return group.matched, [one.kind for one in group.findings], len(group.rows), len(group.booked)


@pytest.mark.parametrize(
    ("rows", "ours", "expected"),
    [
        ([row()], [booked()], (1, [], 0, 0)),
        ([row()], [], (0, [], 1, 0)),
        ([], [booked()], (0, [], 0, 1)),
        ([row(1001)], [booked()], (0, ["amount_mismatch"], 0, 0)),
        ([row(fee_minor=21)], [booked()], (0, ["amount_mismatch"], 0, 0)),
        ([row(currency="USD")], [booked()], (0, [], 1, 1)),
        ([row(), row()], [booked()], (1, ["duplicate"], 0, 0)),
        ([row(), row(), row()], [booked()], (1, ["duplicate", "duplicate"], 0, 0)),
        ([row(), row()], [booked(), booked(entry_id="ent_2")], (2, [], 0, 0)),
        ([row(1001), row()], [booked()], (1, [], 1, 0)),
        ([row(), row(-1000, type="reversal")], [booked()], (1, [], 1, 0)),
        ([row(-1000, sort="refund")], [booked(-1000), booked(1000)], (1, [], 0, 1)),
        ([row(at_ms=AT_MS - DAY_MS)], [booked()], (0, ["late"], 0, 0)),
    ],
)
def test_how_a_group_comes_out(rows, ours, expected):
    assert kinds(rows, ours) == expected


@given(st.lists(st.integers(-5, 5).filter(bool), max_size=12), st.lists(st.integers(-5, 5).filter(bool), max_size=12))
def test_each_row_and_each_movement_is_counted_exactly_once(grosses, amounts):
    group = compare(
        [row(gross) for gross in grosses], [booked(amount, entry_id=f"e{n}") for n, amount in enumerate(amounts)], RULES
    )
    in_rows = sum(one.row is not None for one in group.findings)
    in_booked = sum(one.booked is not None for one in group.findings)
    assert group.matched + in_rows + len(group.rows) == len(grosses)
    assert group.matched + in_booked + len(group.booked) == len(amounts)
    assert not {one.gross_minor for one in group.rows} & {one.amount_minor for one in group.booked}
    ids = [made(one, RULES, "rec_1", "", None, now_ms=1).id for one in group.findings]
    assert len(set(ids)) == len(ids)


def test_rows_that_cancel_each_other_out_are_matched_in_pairs():
    assert cancelled([row(), row(-1000), row(), row(-999)]) == (2, [row(), row(-999)])
    assert cancelled([row(), row(-1000, currency="USD")]) == (0, [row(), row(-1000, currency="USD")])


TODAY, YESTERDAY, TOMORROW = booked(), booked(at_ms=AT_MS - DAY_MS), booked(at_ms=AT_MS + DAY_MS)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ([], None),
        ([Known(booked=TOMORROW)], Carried("ent_1000", "card", RULES.date)),
        ([Known(booked=TOMORROW, missed=True, day_done=True)], Carried("ent_1000", "card", RULES.date)),
        ([Known(booked=TOMORROW, day_done=True)], Finding("duplicate", row())),
        ([Known(booked=YESTERDAY)], Finding("late", row(), YESTERDAY)),
        ([Known(booked=YESTERDAY, missed=True, day_done=True)], Finding("late", row(), YESTERDAY)),
        ([Known(booked=YESTERDAY, found_date=RULES.date, day_done=True)], Finding("late", row(), YESTERDAY)),
        ([Known(booked=YESTERDAY, day_done=True)], Finding("duplicate", row())),
        ([Known(booked=YESTERDAY, found_date="2030-03-18")], Finding("duplicate", row())),
        (
            [Known(booked=YESTERDAY._replace(amount_minor=999), missed=True)],
            Finding("amount_mismatch", row(), YESTERDAY._replace(amount_minor=999)),
        ),
        ([Known(booked=YESTERDAY._replace(amount_minor=999))], None),
    ],
)
def test_what_movements_of_other_days_make_of_a_row(known, expected):
    assert explain(row(), known, RULES) == expected


def test_a_late_row_with_a_wrong_fee_is_a_mismatch():
    found = explain(row(fee_minor=0), [Known(booked=YESTERDAY, missed=True)], RULES)
    assert found == Finding("amount_mismatch", row(fee_minor=0), YESTERDAY)


@pytest.mark.parametrize(("gross", "fee"), [(1000, 20), (-1000, -20), (25, 0), (75, 2), (-75, -2), (125, 2)])
def test_fees_are_rounded_half_to_even_whatever_their_sign(gross, fee):
    assert fee_minor(row(gross, fee_minor=0), 200) == fee
    assert fee_minor(row(gross, sort="refund", fee_minor=0), 200) == 0


# Breaks


def a_break(kind: str = "missing_in_provider", **fields: Any) -> Break:
    finding = {
        "missing_in_provider": Finding("missing_in_provider", booked=booked()),
        "missing_in_gateway": Finding("missing_in_gateway", row()),
        "amount_mismatch": Finding("amount_mismatch", row(1001), booked()),
        "late": Finding("late", row(), booked()),
    }[kind]
    return msgspec.structs.replace(made(finding, RULES, "rec_1", "merchant_123", "pay_1", now_ms=1), **fields)


def test_what_is_found_again_as_it_was_does_not_change():
    for kind in ("missing_in_provider", "missing_in_gateway", "amount_mismatch", "late"):
        before = a_break(kind)
        assert merged(before, a_break(kind)) is before


def test_a_break_resolved_by_a_person_stays_resolved():
    by_hand = resolve(a_break(), by="merchant_123", note="paid by cheque", now_ms=2)
    assert merged(by_hand, a_break()) is by_hand
    late = merged(by_hand, a_break("late"))
    assert (late.kind, late.status, late.resolved_by) == ("late", "resolved", "merchant_123")
    with pytest.raises(CallerError) as refused:
        resolve(by_hand, by="operator", note="again", now_ms=3)
    assert (refused.value.status, refused.value.code) == (409, "already_resolved")


def test_a_break_resolved_by_a_person_opens_again_if_the_file_says_something_else():
    by_hand = resolve(a_break(), by="merchant_123", note="paid by cheque", now_ms=2)
    again = merged(by_hand, a_break("amount_mismatch"))
    assert (again.kind, again.status, again.resolved_by) == ("amount_mismatch", "open", None)
    assert [note.note for note in again.history] == ["found", "paid by cheque", "now amount_mismatch"]


def test_a_break_that_closed_by_itself_opens_again_if_it_is_there_again():
    closed = explained(a_break(), note="gone", found_date=None, now_ms=2)
    again = merged(closed, a_break())
    assert (again.status, again.resolved_by) == ("open", None)
    assert [(note.by, note.status, note.note) for note in again.history] == [
        ("system", "open", "found"),
        ("system", "resolved", "gone"),
        ("system", "open", "found"),
    ]


def test_what_another_days_file_explained_is_not_opened_by_its_own():
    for kind in ("missing_in_provider", "missing_in_gateway"):
        closed = explained(a_break(kind), note="in another file", found_date="2030-03-18", now_ms=2)
        assert merged(closed, a_break(kind)) is closed


def test_a_break_that_becomes_another_kind_says_so_and_keeps_its_history_bounded():
    one = a_break()
    for _ in range(NOTES_MAX):
        one = merged(one, a_break("amount_mismatch"))
        assert (one.kind, one.status, one.history[-1].note) == ("amount_mismatch", "open", "now amount_mismatch")
        one = merged(one, a_break())
    assert len(one.history) == NOTES_MAX
