"""What a settlement looks like in a file: CSV, or an ISO 20022 camt.053.001.08 statement. Pure: pieces of text, in order.

camt.053: element names and their order by the message definition BankToCustomerStatementV08 (www.iso20022.org). Amounts are in
the major unit, entries and balances net of fees; a debit is what the merchant pays. What may have 35 characters in ISO 20022, and
64 here, stands where it fits, and always in `RmtInf`.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from xml.etree.ElementTree import Element, tostring

from simulators.money import decimal
from simulators.settlement import Booking, Survey

NAMESPACE = "urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"
ID_LENGTH_MAX = 35  # Max35Text
NOT_PROVIDED = "NOTPROVIDED"  # the customary EndToEndId where there is none
ENTRIES_PER_PIECE = 20  # an entry takes 50 us: a piece must not hold the loop for 2 ms

_COLUMNS = Booking.__struct_fields__


def csv_file(rows: Iterable[list[Booking]]) -> Iterator[str]:
    """A header, then a line a booking (RFC 4180)."""
    yield _lines([_COLUMNS])
    for some in rows:
        yield _lines([getattr(row, name) for name in _COLUMNS] for row in some)


def camt053(found: Survey, rows: Iterable[list[Booking]]) -> Iterator[str]:
    """One statement: opening and closing balance, then an entry a booking."""
    yield f'<?xml version="1.0" encoding="UTF-8"?>\n<Document xmlns="{NAMESPACE}"><BkToCstmrStmt>'
    yield _head(found)
    number = 0
    for some in rows:
        yield ""
        for start in range(0, len(some), ENTRIES_PER_PIECE):
            piece = some[start : start + ENTRIES_PER_PIECE]
            yield "".join(_text(_entry(row, number + index, found.day)) for index, row in enumerate(piece, 1))
            number += len(piece)
    yield "</Stmt></BkToCstmrStmt></Document>\n"


def _lines(lines: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(lines)
    return text.getvalue()


def _head(found: Survey) -> str:
    currency = found.order.currency or ""
    name = f"{found.provider}-{currency}-{found.day:%Y%m%d}"
    made = _time(found.day + timedelta(days=1))  # not the time of asking: the same statement is the same bytes
    net = found.closing - found.opening
    total = _element("Amt", decimal(abs(net), currency)), _element("CdtDbtInd", _direction(net))  # a bare number, only here
    parts = [
        _element("FrToDt", _element("FrDtTm", _time(found.day)), _element("ToDtTm", made)),
        _element("Acct", _nested("Id/Othr/Id", f"paydrome-{found.provider}"), _element("Ccy", currency)),
        _balance("OPBD", found.opening, found),
        _balance("CLBD", found.closing, found),
        _nested("TxsSummry/TtlNtries", _element("NbOfNtries", str(found.count)), _element("TtlNetNtry", *total)),
    ]
    header = _element("GrpHdr", _element("MsgId", name), _element("CreDtTm", made))
    return _text(header) + f"<Stmt><Id>{name}</Id><CreDtTm>{made}</CreDtTm>" + "".join(map(_text, parts))


def _balance(code: str, amount_minor: int, found: Survey) -> Element:
    money = _money(amount_minor, found.order.currency or "")
    return _element("Bal", _nested("Tp/CdOrPrtry/Cd", code), *money, _nested("Dt/Dt", found.day.date().isoformat()))


def _entry(row: Booking, number: int, day: datetime) -> Element:
    at = datetime.fromtimestamp(row.at / 1000, UTC)
    return _element(
        "Ntry",
        _element("NtryRef", str(number)),
        *_money(row.net, row.currency),
        _nested("Sts/Cd", "BOOK"),
        _nested("BookgDt/Dt", day.date().isoformat()),
        _nested("ValDt/Dt", at.date().isoformat()),
        *_id("AcctSvcrRef", row.providerID),
        _nested("BkTxCd/Prtry", _element("Cd", row.type), _element("Issr", "paydrome")),
        _nested("NtryDtls/TxDtls", *_details(row, at)),
    )


def _details(row: Booking, at: datetime) -> Iterator[Element]:
    end_to_end = _id("EndToEndId", row.reference) or [_element("EndToEndId", NOT_PROVIDED)]
    yield _element("Refs", *_id("AcctSvcrRef", row.providerID), *_id("InstrId", row.subject), *end_to_end)
    yield from _money(row.gross, row.currency)
    if row.fee:
        yield _nested("Chrgs/Rcrd", *_money(-row.fee, row.currency), _element("ChrgInclInd", "true"))
    yield _element("RmtInf", *(_element("Ustrd", text) for text in (row.reference, row.subject) if text))
    yield _nested("RltdDts/TxDtTm", _time(at))
    if row.merchantID:
        yield _element("AddtlTxInf", row.merchantID)


def _money(amount_minor: int, currency: str) -> tuple[Element, Element]:
    amount = _element("Amt", decimal(abs(amount_minor), currency))
    amount.set("Ccy", currency)
    return amount, _element("CdtDbtInd", _direction(amount_minor))


def _direction(amount_minor: int) -> str:
    return "DBIT" if amount_minor < 0 else "CRDT"


def _id(name: str, text: str) -> list[Element]:
    return [_element(name, text)] if 0 < len(text) <= ID_LENGTH_MAX else []


def _nested(path: str, *content: Element | str) -> Element:
    """`a/b/c` with the content in the innermost."""
    outer, _, inner = path.partition("/")
    return _element(outer, _nested(inner, *content)) if inner else _element(outer, *content)


def _element(name: str, *content: Element | str) -> Element:
    element = Element(name)
    for part in content:
        if isinstance(part, str):
            element.text = part
        else:
            element.append(part)
    return element


def _text(element: Element) -> str:
    return tostring(element, encoding="unicode")


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
