"""Settlement files as CSV (docs/settlement.md), and what both formats share. A row at a time, whatever the size of the file.

Nothing is guessed: a line that cannot be read, or that contradicts itself, refuses the whole file, with its number and the column.
"""

import csv
import re
from collections.abc import Iterator
from typing import Annotated, BinaryIO, Literal

import msgspec
from msgspec import Meta

from gateway.core.errors import FileRefused
from gateway.core.money import CURRENCY_EXPONENTS
from gateway.core.reconciliation import DAY_MS, Row, RowType, Sort, start_ms

COLUMNS = ("reference", "subject", "type", "gross", "fee", "net", "currency", "at", "providerID", "merchantID")
LINE_BYTES_MAX = 4_096  # ten short columns; an honest line has 200
MONEY_MINOR_MAX = 10**15  # a thousand times what one charge can be

Reference = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
Subject = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{0,64}\Z")]
Money = Annotated[int, Meta(ge=-MONEY_MINOR_MAX, le=MONEY_MINOR_MAX)]
Id = Annotated[str, Meta(max_length=256)]


class _Line(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """In the order of `COLUMNS`."""

    reference: Reference
    subject: Subject
    type: RowType
    gross: Money
    fee: Money
    net: Money
    currency: str
    at: Annotated[int, Meta(ge=0, le=2**53)]
    provider_id: Subject
    merchant_id: Id


_COLUMN_AT = re.compile(r"(?P<message>.*) - at `\$\[(?P<column>\d+)\]`", re.DOTALL)
_WHOLE = re.compile(r"-?[0-9]{1,18}")


def csv_rows(stream: BinaryIO, date: str) -> Iterator[Row]:
    """Raises FileRefused."""
    reader = csv.reader(_lines(stream), strict=True)
    try:
        header = next(reader, None)
        if header is None or sorted(header) != sorted(COLUMNS):
            raise FileRefused(f"line 1: the columns must be {', '.join(COLUMNS)}")
        order = [header.index(name) for name in COLUMNS]
        in_order = order == list(range(len(COLUMNS)))
        for cells in reader:
            if len(cells) != len(COLUMNS):
                raise FileRefused(f"line {reader.line_num}: {len(cells)} columns, the header has {len(COLUMNS)}")
            yield _row(cells if in_order else [cells[place] for place in order], reader.line_num, date)
    except csv.Error as error:
        raise FileRefused(f"line {reader.line_num}: {error}") from error


def _lines(stream: BinaryIO) -> Iterator[str]:
    number = 0
    while line := stream.readline(LINE_BYTES_MAX + 1):
        number += 1
        if len(line) > LINE_BYTES_MAX:
            raise FileRefused(f"line {number}: longer than {LINE_BYTES_MAX} bytes")
        if not line.endswith(b"\n"):
            raise FileRefused(f"line {number}: the file breaks off here: the last line must end like all others")
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise FileRefused(f"line {number}: not UTF-8") from error
    if not number:
        raise FileRefused("line 1: the file is empty")


def _row(cells: list[str], line: int, date: str) -> Row:
    for place in (3, 4, 5, 7):
        if not _WHOLE.fullmatch(cells[place]):
            raise FileRefused(f"line {line}: {COLUMNS[place]}: expected a whole number")
    try:
        one = msgspec.convert(cells, _Line, strict=False)
    except msgspec.ValidationError as error:
        located = _COLUMN_AT.fullmatch(str(error))
        what = f"{COLUMNS[int(located['column'])]}: {located['message']}" if located else str(error)
        raise FileRefused(f"line {line}: {what}") from error
    row = Row(
        one.reference, one.subject, sort_of(one.type), one.type, one.gross, one.fee, one.currency, one.at, one.provider_id, one.merchant_id
    )  # fmt: skip
    return checked(row, net_minor=one.net, date=date, place=f"line {line}")


def checked(row: Row, *, net_minor: int, date: str, place: str) -> Row:
    """The row, if it does not contradict itself. Raises FileRefused that begins with `place`."""
    if row.currency not in CURRENCY_EXPONENTS:
        raise FileRefused(f"{place}: currency: {row.currency[:8]!r} is none of {', '.join(CURRENCY_EXPONENTS)}")
    if net_minor != row.gross_minor - row.fee_minor:
        raise FileRefused(f"{place}: net: {net_minor} is not gross {row.gross_minor} less fee {row.fee_minor}")
    if row.gross_minor == 0:
        raise FileRefused(f"{place}: gross: 0 is no movement of money")
    if row.at_ms >= start_ms(date) + DAY_MS:
        raise FileRefused(f"{place}: at: {row.at_ms} is after {date}; is it the file of another day?")
    # What a payout is, its reference says; the subject is the network's own number, which our books do not have.
    return row._replace(subject="") if row.sort == "payout" else row


def sort_of(kind: RowType) -> Sort:
    """A reversal undoes a charge: they are about the same."""
    sort: Sort | Literal["reversal"] = kind
    return "charge" if sort == "reversal" else sort
