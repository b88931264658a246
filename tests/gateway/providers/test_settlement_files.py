"""Settlement files as the simulators write them come back as they were; whatever is wrong is refused, with the place and the reason."""

import io
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import FileRefused
from gateway.core.reconciliation import Row, RowType
from gateway.providers.camt053 import camt053_rows
from gateway.providers.settlement_files import COLUMNS, LINE_BYTES_MAX, csv_rows, sort_of
from simulators import settlement_files as witness
from simulators.settlement import Booking, Order, Survey, day_start

DATE = "2024-02-29"
START_MS = 1_709_164_800_000

NAMES = st.text("Aa0_-", min_size=1, max_size=64)


@st.composite
def bookings(draw: st.DrawFn, currency: str = "INR") -> Booking:
    gross = draw(st.integers(-(10**12), 10**12).filter(bool))
    kind = draw(st.sampled_from(["charge", "refund", "chargeback", "reversal", "payout"]))
    fee = draw(st.integers(-1000, 1000)) if kind in ("charge", "reversal") else 0
    return Booking(
        reference=draw(NAMES),
        subject="" if kind == "payout" else draw(st.just("") | NAMES),
        type=kind,
        gross=gross,
        fee=fee,
        net=gross - fee,
        currency=currency,
        at=START_MS + draw(st.integers(-86_400_000, 86_399_999)),
        providerID=draw(st.text("Aa0_", max_size=35)),
        merchantID=draw(st.text('m,"&<é 1', min_size=0, max_size=20).map(str.strip)),
    )


def row(made: Booking) -> Row:
    kind: RowType = made.type  # type: ignore[assignment]
    return Row(
        made.reference,
        made.subject,
        sort_of(kind),
        kind,
        made.gross,
        made.fee,
        made.currency,
        made.at,
        made.providerID,
        made.merchantID,
    )


def statement(made: list[Booking], currency: str = "INR", opening: int = 12_345) -> bytes:
    total = sum(one.net for one in made)
    day = datetime.fromtimestamp(START_MS / 1000, UTC)
    assert day == day_start(DATE)
    found = Survey("card", day, Order("camt.053", currency), 0, len(made), opening, opening + total, {}, [])  # type: ignore[arg-type]
    return "".join(witness.camt053(found, [made])).encode()


def read_camt(data: bytes | BinaryIO) -> list[Row]:
    return list(camt053_rows(io.BytesIO(data) if isinstance(data, bytes) else data, DATE, set()))


def read_csv(data: bytes | BinaryIO) -> list[Row]:
    return list(csv_rows(io.BytesIO(data) if isinstance(data, bytes) else data, DATE))


@settings(max_examples=40, deadline=None)
@given(st.lists(bookings(), max_size=5), st.sampled_from(["INR", "JPY", "KWD"]))
def test_what_a_provider_wrote_is_what_is_read(made, currency):
    made = [Booking(*[currency if name == "currency" else getattr(one, name) for name in COLUMNS]) for one in made]
    expected = [row(one) for one in made]
    assert read_csv("".join(witness.csv_file([made])).encode()) == expected
    covered: set[str] = set()
    assert list(camt053_rows(io.BytesIO(statement(made, currency)), DATE, covered)) == expected
    assert covered == {currency}


GOOD = Booking("att_1", "cap_1", "charge", 1000, 20, 980, "INR", START_MS + 5, "card_1", "merchant_123")
CSV = "".join(witness.csv_file([[GOOD, GOOD]]))
CAMT = statement([GOOD, GOOD]).decode()


def test_columns_may_come_in_any_order():
    lines = [",".join(reversed(line.split(","))) for line in CSV.splitlines()]
    assert read_csv(("\n".join(lines) + "\n").encode()) == [row(GOOD)] * 2


@pytest.mark.parametrize(
    ("find", "replace", "said"),
    [
        (CSV, "", "line 1: the file is empty"),
        ("gross,", "", "line 1: the columns must be"),
        (",1000,", ",1000", "line 2: 9 columns"),
        (",1000,", ",10.00,", "line 2: gross: expected a whole number"),
        (",1000,", ",1_000,", "line 2: gross: expected a whole number"),
        (",1000,", ",٣,", "line 2: gross: expected a whole number"),
        (",1000,", ",1e3,", "line 2: gross: expected a whole number"),
        (",1000,", ",999999999999999999,", "line 2: gross: Expected `int` <= 1000000000000000"),
        (",1000,", ",0,", "line 2: net: 980 is not gross 0"),
        (",20,", ",21,", "line 2: net: 980 is not gross 1000 less fee 21"),
        (",INR,", ",XXX,", "line 2: currency: 'XXX' is none of"),
        (",charge,", ",magic,", "line 2: type: Invalid enum value 'magic'"),
        ("att_1,", ",", "line 2: reference: "),
        ("att_1,", "att 1,", "line 2: reference: "),
        (f",{START_MS + 5},", f",{START_MS + 86_400_000},", f"line 2: at: {START_MS + 86_400_000} is after {DATE}"),
        (f",{START_MS + 5},", ",-1,", "line 2: at: Expected `int` >= 0"),
        ("merchant_123", "m" * LINE_BYTES_MAX, f"line 2: longer than {LINE_BYTES_MAX} bytes"),
        ("merchant_123", '"merchant', "line 3: "),
    ],
)
def test_a_csv_file_that_is_wrong_is_refused_with_its_line(find, replace, said):
    assert find in CSV
    with pytest.raises(FileRefused) as refused:
        read_csv(CSV.replace(find, replace, 1).encode())
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize("data", [CSV.encode()[:-5], CSV.encode()[:-2], CSV.encode()[:20], b"\xff\xfe" + CSV.encode()])
def test_a_csv_file_that_breaks_off_or_is_no_text_is_refused(data):
    with pytest.raises(FileRefused, match=r"^line \d: "):
        read_csv(data)


BOMB = '<?xml version="1.0"?>\n<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>\n<Document>&b;</Document>'
OUTSIDE = '<?xml version="1.0"?>\n<!DOCTYPE d SYSTEM "file:///etc/passwd">\n<Document/>'


@pytest.mark.parametrize(
    ("find", "replace", "said"),
    [
        (CAMT, "", "Document: the file is empty, or without a Stmt"),
        (CAMT, BOMB, "line 2: a DTD"),
        (CAMT, OUTSIDE, "line 2: a DTD"),
        (CAMT, '<?xml version="1.0" encoding="shift_jis"?><Document/>', "line 1: cannot be read as XML"),
        (CAMT, CAMT[: len(CAMT) // 2], "line 2: not well-formed"),
        (CAMT, CAMT[: len(CAMT) - 12], "line 2: not well-formed"),
        ("camt.053.001.08", "camt.053.001.99", "Document: Document in urn:iso:std:iso:20022:tech:xsd:camt.053.001.99"),
        ('<Document xmlns="', '<Document x="', "Document: Document in no namespace"),
        ("<TtlNtries><NbOfNtries>2", "<TtlNtries><NbOfNtries>3", "TxsSummry/TtlNtries/NbOfNtries: says 3, there are 2"),
        ('<Amt Ccy="INR">9.80', '<Amt Ccy="INR">9.801', "Stmt/Ntry/Amt (Ntry 1): '9.801' has more than the 2 decimals of INR"),
        ('<Amt Ccy="INR">9.80', '<Amt Ccy="INR">9,80', "Stmt/Ntry/Amt (Ntry 1): '9,80' is not an amount"),
        ('<Amt Ccy="INR">9.80', '<Amt Ccy="INR">-9.80', "Stmt/Ntry/Amt (Ntry 1): '-9.80' is not an amount"),
        ('<Amt Ccy="INR">9.80', '<Amt Ccy="INR">9e2', "Stmt/Ntry/Amt (Ntry 1): '9e2' is not an amount"),
        ('<Amt Ccy="INR">9.80', '<Amt Ccy="USD">9.80', "Stmt/Ntry/Amt (Ntry 1): USD in an account in INR"),
        ('<Amt Ccy="INR">9.80', '<Amt Ccy="XXX">9.80', "Stmt/Ntry/Amt (Ntry 1): currency 'XXX' is none of"),
        ('<Amt Ccy="INR">9.80', "<Amt>9.80", "Stmt/Ntry/Amt (Ntry 1): currency 'none' is none of"),
        (
            '<Amt Ccy="INR">9.80',
            '<Amt Ccy="INR">9.70',
            "Ntry 1/Amt: its TxDtls, gross less charges, do not add up to it: -10 (minor units) too few",
        ),
        (
            '<Amt Ccy="INR">123.45',
            '<Amt Ccy="INR">123.46',
            "Stmt/Bal: opening 12346 and entries 1960 do not add up to closing 14305",
        ),
        ("<Cd>OPBD</Cd>", "<Cd>XXXX</Cd>", "Stmt/Bal: the opening (OPBD) or closing"),
        ("<Sts><Cd>BOOK", "<Sts><Cd>PDNG", "Stmt/Bal: opening 12345 and entries 980"),
        (f"<BookgDt><Dt>{DATE}", "<BookgDt><Dt>2024-02-28", f"Ntry 1/BookgDt: 2024-02-28, in the file of {DATE}"),
        ("<Cd>charge</Cd>", "<Cd>PMNT</Cd>", "Ntry 1/BkTxCd/Prtry/Cd: Invalid enum value 'PMNT'"),
        ("<EndToEndId>att_1", "<EndToEndId>att 1", "Ntry 1/Refs/EndToEndId"),
        ("<TxDtTm>2024", "<TxDtTm>20x4", "Ntry 1: '20x4"),
        ("<TxDtTm>2024-02", "<TxDtTm>2025-02", "Ntry 1: '2025-02-29"),
        ("<TxDtTm>2024-02", "<TxDtTm>2024-03", f"Ntry 1: at: 1711670400005 is after {DATE}"),
        ("<CdtDbtInd>CRDT", "<CdtDbtInd>DEBT", "Stmt/Bal/CdtDbtInd: 'DEBT' is neither CRDT nor DBIT"),
        ("merchant_123", "m" * 3000, "Stmt/Ntry/NtryDtls/TxDtls/AddtlTxInf (Ntry 1): a text of more than"),
        ("<AddtlTxInf>", "<x>" * 40 + "</x>" * 40 + "<AddtlTxInf>", "an element: more than 32 elements deep"),
    ],
)
def test_a_statement_that_is_wrong_is_refused_with_its_element(find, replace, said):
    assert find in CAMT
    with pytest.raises(FileRefused) as refused:
        read_camt(CAMT.replace(find, replace, 1).encode())
    assert said in str(refused.value)


def test_no_number_of_bytes_cut_off_passes_for_a_statement():
    data = CAMT.encode()
    for length in range(0, len(data) - 1, 23):
        with pytest.raises(FileRefused):
            read_camt(data[:length])


def test_a_statement_may_have_a_prefix_and_be_of_the_older_version():
    """001.02: `Sts` is a text, and amount and charges of the details stand elsewhere."""
    old = CAMT.replace("camt.053.001.08", "camt.053.001.02").replace("<Sts><Cd>BOOK</Cd></Sts>", "<Sts>BOOK</Sts>")
    old = old.replace(
        '<Amt Ccy="INR">10.00</Amt><CdtDbtInd>CRDT</CdtDbtInd>', '<AmtDtls><TxAmt><Amt Ccy="INR">10.00</Amt></TxAmt></AmtDtls>'
    )
    old = old.replace("<Rcrd>", "").replace("</Rcrd>", "")
    assert read_camt(old.encode()) == [row(GOOD)] * 2
    prefixed = CAMT.replace("</", "\0").replace("<?", "\1").replace("<", "<x:").replace("\0", "</x:").replace("\1", "<?")
    assert read_camt(prefixed.replace("xmlns=", "xmlns:x=").encode()) == [row(GOOD)] * 2
    assert read_camt(CAMT.replace('encoding="UTF-8"', 'encoding="UTF-16"').encode("utf-16")) == [row(GOOD)] * 2


def test_one_entry_may_be_made_of_several_transactions():
    details = CAMT[CAMT.index("<TxDtls>") : CAMT.index("</NtryDtls>")]
    first = CAMT[CAMT.index("<Ntry>") : CAMT.index("</Ntry>") + 7]
    both = first.replace(details, details * 2).replace('<Amt Ccy="INR">9.80', '<Amt Ccy="INR">19.60', 1)
    batch = (
        CAMT.replace(first * 2, both)
        if first * 2 in CAMT
        else CAMT[: CAMT.index("<Ntry>")] + both + "</Stmt></BkToCstmrStmt></Document>"
    )
    batch = batch.replace("<NbOfNtries>2", "<NbOfNtries>1")
    assert read_camt(batch.encode()) == [row(GOOD)] * 2
    with pytest.raises(FileRefused, match=r"Ntry 1/Amt: its TxDtls, gross less charges, do not add up"):
        read_camt(batch.replace('<Amt Ccy="INR">19.60', '<Amt Ccy="INR">19.61').encode())


class Endless(io.RawIOBase):
    """A beginning, and then the same again and again, without end."""

    def __init__(self, head: bytes, again: bytes) -> None:
        self._pieces: Iterator[bytes] = iter([head])
        self._again = again

    def read(self, size: int = -1) -> bytes:
        return next(self._pieces, self._again * max(1, size // len(self._again)))

    readline = read  # type: ignore[assignment]


@pytest.mark.parametrize("again", [b"a", b">", b"a>", b"<!--", b"<a>", b"<Ntry><Amt>", b" a='1'"])
@pytest.mark.parametrize("inside", ["<AddtlTxInf>", "<Ntry>", "<TxDtls", "<!-- "])
def test_what_never_ends_is_refused_in_bounded_memory(again, inside):
    head = CAMT[: CAMT.index("<AddtlTxInf>")] + inside
    tracemalloc.start()
    try:
        with pytest.raises(FileRefused):
            read_camt(Endless(head.encode(), again))
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_balances_of_kinds_that_do_not_count_are_not_kept():
    kinds = 6_000  # of 1 kB each
    tail = CAMT[CAMT.index("<Bal>") :]
    amount = '<Amt Ccy="INR">1.00</Amt><CdtDbtInd>CRDT</CdtDbtInd>'
    pieces = iter([CAMT[: CAMT.index("<Bal>")].encode()])
    more = (f"<Bal><Tp><CdOrPrtry><Cd>{number:01000}</Cd></CdOrPrtry></Tp>{amount}</Bal>".encode() for number in range(kinds))

    class Balances(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return next(pieces, b"") or next(more, b"") or next(ending, b"")

    ending = iter([tail.encode()])
    tracemalloc.start()
    try:
        assert read_camt(Balances()) == read_camt(CAMT.encode())
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
