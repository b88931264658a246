import csv
import io
from collections import Counter
from decimal import Decimal
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.journal import BLOCK_WEIGHT, Entry, Journal
from simulators.money import decimal, share_half_even
from simulators.settlement import DAY_MS, PLANTED, Order, answers, day_start, survey, written
from simulators.settlement_files import NAMESPACE, camt053, csv_file

DAYS = ("2024-02-28", "2024-02-29", "2024-03-01")
FIRST_MS = int(day_start(DAYS[0]).timestamp() * 1000)


class State(msgspec.Struct, frozen=True):
    providerID: str
    currency: str
    status: str = "approved"
    amount: int = 1


def moved(day: int, operation: str, reference: str, amount: int, **fields: Any) -> Entry:
    at = FIRST_MS + day * DAY_MS + fields.pop("ms", 0)
    state = State(f"id_{reference}"[:35], fields.pop("currency", "INR"))
    return Entry(at, fields.pop("provider", "card"), operation, reference, 1, state, amount, merchant='m, "1" & <co>', **fields)


def journal_of(*entries: Entry) -> Journal:
    journal = Journal()
    for entry in entries:
        journal.append(entry)
    return journal


def charges(count: int, day: int = 1) -> list[Entry]:
    return [moved(day, "create", f"ref_{day}_{index}", 1000 + index, ms=index) for index in range(count)]


def surveyed(journal: Journal, day: str = DAYS[1], **order: Any):
    steps = survey(journal, "card", day_start(day), msgspec.convert(order, Order))
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def text(journal: Journal, day: str = DAYS[1], **order: Any) -> str:
    found = surveyed(journal, day, **order)
    rows = written(journal, found)
    return "".join(camt053(found, rows) if found.order.format == "camt.053" else csv_file(rows))


def rows_of(journal: Journal, day: str = DAYS[1], **order: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text(journal, day, **order), newline="")))


def key_of(journal: Journal, day: str = DAYS[1], **order: Any) -> dict[str, Any]:
    return msgspec.json.decode(answers(surveyed(journal, day, **order)))


def bag(rows: list[dict[str, Any]]) -> Counter:
    return Counter(tuple(str(value) for value in row.values()) for row in rows)


def test_every_movement_of_money_is_one_row_of_its_provider_and_day():
    journal = journal_of(
        moved(0, "create", "before", 1, ms=DAY_MS - 1),
        moved(1, "create", "a", 10_050),
        moved(1, "status", "a", 0),
        moved(1, "decide", "b", 70, currency="JPY"),
        moved(1, "create", "other", 5, provider="upi"),
        moved(1, "refund", "a", -50, subject="refund_1", ms=5),
        moved(1, "reverse", "b", -70, currency="JPY"),
        moved(1, "dispute", "a", -10_000, subject="dispute_1", ms=DAY_MS - 1),
        moved(2, "create", "after", 1),
    )
    rows = rows_of(journal, fee_bps=100)
    assert [
        (row["reference"], row["subject"], row["type"], row["gross"], row["fee"], row["net"], row["currency"]) for row in rows
    ] == [
        ("a", "", "charge", "10050", "100", "9950", "INR"),
        ("b", "", "charge", "70", "1", "69", "JPY"),
        ("a", "refund_1", "refund", "-50", "0", "-50", "INR"),
        ("b", "", "reversal", "-70", "-1", "-69", "JPY"),
        ("a", "dispute_1", "chargeback", "-10000", "0", "-10000", "INR"),
    ]
    assert (rows[0]["at"], rows[0]["providerID"], rows[0]["merchantID"]) == (str(FIRST_MS + DAY_MS), "id_a", 'm, "1" & <co>')
    assert [row["reference"] for row in rows_of(journal, currency="JPY")] == ["b", "b"]


def test_a_day_without_movements_is_a_header_alone():
    assert text(journal_of()) == "reference,subject,type,gross,fee,net,currency,at,providerID,merchantID\r\n"


def test_a_day_of_many_blocks_arrives_whole_and_piece_by_piece():
    journal = journal_of(*charges(2 * BLOCK_WEIGHT + 1))
    found = surveyed(journal)
    pieces = list(csv_file(written(journal, found)))
    assert [piece.count("\n") for piece in pieces] == [1, 0, BLOCK_WEIGHT, BLOCK_WEIGHT, 1]


def test_what_happens_after_the_survey_is_in_neither_pass():
    journal = journal_of(*charges(3))
    found = surveyed(journal)
    journal.append(moved(1, "create", "later", 1))
    assert (sum(map(len, written(journal, found))), found.count) == (3, 3)


@pytest.mark.parametrize("kind", PLANTED)
def test_each_break_is_what_it_is_called(kind):
    journal = journal_of(*charges(20))
    order = {"breaks": f"{kind}:3", "seed": 7, "fee_bps": 200}
    clean, key = bag(rows_of(journal, fee_bps=200)), key_of(journal, **order)
    wrong, tomorrow = rows_of(journal, **order), rows_of(journal, DAYS[2], **order)
    assert key["planted"] == {kind: 3}
    picked = {answer["reference"] for answer in key["answers"]}
    assert len(picked) == 3
    match kind:
        case "missing" | "late":
            assert {row["reference"] for row in wrong}.isdisjoint(picked)
            assert {row["reference"] for row in tomorrow} == (picked if kind == "late" else set())
            assert bag(tomorrow) <= clean
        case "duplicate":
            assert bag(wrong) - clean == bag(row for row in rows_of(journal, fee_bps=200) if row["reference"] in picked)
        case _:
            column = "gross" if kind == "wrong_amount" else "fee"
            for answer in key["answers"]:
                [true], [other] = answer["true"], answer["written"]
                changed = {name for name in true if true[name] != other[name]}
                assert changed == {column, "net"}
                assert other["gross"] - other["fee"] == other["net"]


# Days 0 to 2, a reference that may repeat, an amount that may be negative, an operation.
MOVES = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 9),
        st.integers(-3000, 3000),
        st.sampled_from(["create", "capture", "refund", "reverse", "dispute"]),
    ),
    max_size=40,
)
COUNTS = st.lists(st.integers(0, 4), min_size=len(PLANTED), max_size=len(PLANTED))


@given(MOVES, COUNTS, st.integers(0, 2**63 - 1))
def test_the_answer_key_repairs_the_file(moves, counts, seed):
    journal = journal_of(*[moved(day, operation, f"ref_{number}", amount) for day, number, amount, operation in moves])
    order = {"breaks": ",".join(f"{kind}:{count}" for kind, count in zip(PLANTED, counts, strict=True)), "seed": seed}
    for day in DAYS:
        key = key_of(journal, day, fee_bps=150, **order)["answers"]
        repaired = bag(rows_of(journal, day, fee_bps=150, **order))
        repaired.subtract(bag([row for answer in key for row in answer["written"]]))
        repaired.update(bag([row for answer in key for row in answer["true"]]))
        assert +repaired == bag(rows_of(journal, day, fee_bps=150))
        assert min(repaired.values(), default=0) >= 0


@given(MOVES, COUNTS)
def test_opening_balance_and_entries_add_up_to_the_closing_balance(moves, counts):
    journal = journal_of(*[moved(day, operation, f"ref_{number}", amount) for day, number, amount, operation in moves])
    order = {"breaks": ",".join(f"{kind}:{count}" for kind, count in zip(PLANTED, counts, strict=True)), "fee_bps": 90}
    found = {day: surveyed(journal, day, **order) for day in DAYS}
    for day in DAYS:
        rows = [row for some in written(journal, found[day]) for row in some]
        assert found[day].opening + sum(row.net for row in rows) == found[day].closing
        assert len(rows) == found[day].count
    if not any(counts):
        assert found[DAYS[0]].closing == found[DAYS[1]].opening


def test_breaks_are_the_same_whatever_order_things_happened_in():
    order = {"breaks": "missing:2,duplicate:2,wrong_amount:2,wrong_fee:2,late:2", "seed": 3}
    entries = charges(50)
    forwards, backwards = (key_of(journal_of(*some), **order)["answers"] for some in (entries, entries[::-1]))
    assert sorted(forwards, key=str) == sorted(backwards, key=str)
    assert key_of(journal_of(*entries), **order | {"seed": 4})["answers"] != forwards


def test_the_same_question_has_the_same_answer_byte_for_byte():
    journal = journal_of(*charges(300))
    for form in ("csv", "camt.053"):
        order = {"format": form, "currency": "INR", "breaks": "missing:2,late:1", "seed": 9}
        assert text(journal, **order) == text(journal, **order)


def test_a_short_day_gets_the_breaks_that_fit():
    journal = journal_of(*charges(2))
    assert key_of(journal, breaks="missing:1,duplicate:1,late:5")["planted"] == {"missing": 1, "duplicate": 1}


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({"breaks": "lost:1"}, "known are missing"),
        ({"breaks": "late"}, "late:2"),
        ({"breaks": "late:101"}, "0 to 100"),
        ({"breaks": "late:-1"}, "0 to 100"),
        ({"breaks": "late:1,late:2"}, "twice"),
        ({"format": "camt.053"}, "currency=INR"),
        ({"fee_bps": 10_001}, "10000"),
    ],
)
def test_an_impossible_order_is_refused_with_the_reason(order, reason):
    with pytest.raises(msgspec.ValidationError, match=reason):
        msgspec.convert(order, Order)


@pytest.mark.parametrize(
    "day", ["2024-02-30", "2024-2-3", "20240203", "2024-02-03 ", "", "x", "9999-12-31", "1969-12-31", "٢٠٢٤-02-03"]
)
def test_an_impossible_day_is_refused(day):
    with pytest.raises(ValueError, match=r"."):
        day_start(day)


def test_the_camt_statement_says_what_the_csv_says():
    journal = journal_of(
        moved(0, "create", "before", 5_000),
        moved(1, "create", "a" * 35, 10_050, ms=60_123),
        moved(1, "create", "b" * 36, 1),
        moved(1, "refund", "a" * 35, -20_000, subject="refund_1"),
    )
    order = {"fee_bps": 100, "currency": "INR"}
    document = ElementTree.fromstring(text(journal, format="camt.053", **order))
    space = {"c": NAMESPACE}

    def texts(path: str) -> list[str | None]:
        return [element.text for element in document.iterfind(f".//c:{path.replace('/', '/c:')}", space)]

    def signed(path: str) -> list[Decimal]:
        sign = {"CRDT": 1, "DBIT": -1}
        return [
            Decimal(amount) * sign[way] for amount, way in zip(texts(f"{path}/Amt"), texts(f"{path}/CdtDbtInd"), strict=True)
        ]

    rows = rows_of(journal, **order)
    assert signed("Ntry") == [Decimal(row["net"]) / 100 for row in rows]
    assert signed("TxDtls") == [Decimal(row["gross"]) / 100 for row in rows]
    assert signed("Chrgs/Rcrd") == [-Decimal(row["fee"]) / 100 for row in rows if row["fee"] != "0"]
    assert signed("Bal") == [Decimal("49.50"), Decimal("49.50") + sum(signed("Ntry"))]
    assert signed("TtlNetNtry") == [sum(signed("Ntry"))]
    assert texts("NbOfNtries") == ["3"]
    assert texts("Bal/Tp/CdOrPrtry/Cd") == ["OPBD", "CLBD"]
    assert texts("EndToEndId") == ["a" * 35, "NOTPROVIDED", "a" * 35]
    assert texts("Ntry/AcctSvcrRef") == texts("Refs/AcctSvcrRef") == ["id_" + letter * 32 for letter in "aba"]
    assert texts("InstrId") == ["refund_1"]
    assert texts("Ustrd") == ["a" * 35, "b" * 36, "a" * 35, "refund_1"]
    assert texts("AddtlTxInf") == ['m, "1" & <co>'] * 3
    assert texts("BookgDt/Dt") == texts("ValDt/Dt") == [DAYS[1]] * 3
    assert texts("TxDtTm")[0] == f"{DAYS[1]}T00:01:00.123Z"


def test_a_late_row_is_booked_a_day_after_its_value():
    journal = journal_of(*charges(1))
    order = {"breaks": "late:1", "currency": "INR", "format": "camt.053"}
    assert "<Ntry>" not in text(journal, **order)
    tomorrow = text(journal, DAYS[2], **order)
    assert f"<BookgDt><Dt>{DAYS[2]}</Dt></BookgDt><ValDt><Dt>{DAYS[1]}</Dt></ValDt>" in tomorrow


@pytest.mark.parametrize(
    ("amount", "currency", "written_as"),
    [
        (1, "INR", "0.01"),
        (-50, "INR", "-0.50"),
        (100, "INR", "1.00"),
        (5, "JPY", "5"),
        (1234, "KWD", "1.234"),
        (-7, "KWD", "-0.007"),
    ],
)
def test_a_decimal_has_the_currency_s_places(amount, currency, written_as):
    assert decimal(amount, currency) == written_as


@pytest.mark.parametrize(
    ("amount", "bps", "fee"),
    [(50, 100, 0), (150, 100, 2), (250, 100, 2), (251, 100, 3), (-150, 100, -2), (-50, 100, 0), (999, 10_000, 999)],
)
def test_a_fee_is_rounded_half_even(amount, bps, fee):
    assert share_half_even(amount, bps) == fee
