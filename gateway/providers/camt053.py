"""Settlement files as ISO 20022 camt.053 statements: BankToCustomerStatement, versions 001.02 and 001.08 (www.iso20022.org).

Read by defusedxml's parser: no DTD, so no entities and nothing from outside. The document is never held: what is kept of it is the
entry that is being read. Amounts are decimals in the currency's major unit, and become minor units digit by digit.

Which elements are looked at is a table at the end of this file; what they mean is in camt053_entries.py. Entries that are not booked
(`Sts`) do not count. The statement must agree with itself: opening balance, entries and closing balance; the number of entries where
it is told.
"""

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO
from xml.sax import SAXException, SAXParseException
from xml.sax.handler import ContentHandler

from defusedxml.common import DefusedXmlException  # type: ignore[import-untyped]
from defusedxml.expatreader import DefusedExpatParser  # type: ignore[import-untyped]

from gateway.core.errors import FileRefused
from gateway.core.money import CURRENCY_EXPONENTS
from gateway.core.reconciliation import Row
from gateway.providers.camt053_entries import minor_units, rows_of

NAMESPACES = tuple(f"urn:iso:std:iso:20022:tech:xsd:camt.053.001.{version}" for version in ("02", "08"))
CHUNK_BYTES = 64 * 1024
TEXT_MAX = 2_000  # characters; the standard's longest has 500
DEPTH_MAX = 32  # the standard's deepest element is in the teens
DETAILS_MAX = 10_000  # TxDtls of an Ntry, which are held until its end
REMITTANCES_MAX = 16

_DIRECTIONS = {"CRDT": 1, "DBIT": -1}
_OPENING, _CLOSING = ("OPBD", "PRCD"), ("CLBD",)


def camt053_rows(stream: BinaryIO, date: str, covered: set[str]) -> Iterator[Row]:
    """Adds the statements' currencies to `covered`. Raises FileRefused."""
    parser = _Parser(date, covered)
    place, stuck = (0, 0), 0
    try:
        while chunk := stream.read(CHUNK_BYTES):
            parser.feed(chunk)
            before, place = place, (parser.getLineNumber(), parser.getColumnNumber())
            stuck = stuck + 1 if place == before else 0
            parser.check_size(stuck)
            yield from parser.take()
        parser.close()
    except DefusedXmlException as error:
        raise FileRefused(f"line {parser.getLineNumber()}: a DTD, as entities need it, is not taken") from error
    except SAXParseException as error:
        raise FileRefused(f"line {error.getLineNumber()}: not well-formed: {error.getMessage()}") from error
    except (SAXException, LookupError, ValueError) as error:  # the last two for encodings that the parser does not know
        raise FileRefused(f"line {parser.getLineNumber()}: cannot be read as XML: {error}") from error
    except FileRefused as error:
        raise FileRefused(f"{error} (line {parser.getLineNumber()})") from error
    parser.finish()


class _Node:
    """An element that is looked at, by its path below Stmt: what happens where it begins and ends. `key` is where its text is kept."""

    __slots__ = ("begin", "end", "key", "kids", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.kids: dict[str, _Node] = {}
        self.begin: Callable[[_Parser], None] | None = None
        self.end: Callable[[_Parser], None] | None = None
        self.key = ""


_ELSEWHERE = _Node("an element")  # whatever is not looked at, and all in it


class _Parser(DefusedExpatParser):  # type: ignore[misc]  # untyped
    def __init__(self, date: str, covered: set[str]) -> None:
        super().__init__(forbid_dtd=True)
        self._date = date
        self._covered = covered
        self._prefix = ""
        self._parts: list[str] = []
        handler = ContentHandler()
        handler.__dict__["characters"] = self._parts.append
        self.setContentHandler(handler)
        self._stack: list[_Node] = []
        self._node = _DOCUMENT
        self._attributes: dict[str, str] = {}
        self._rows: list[Row] = []
        self._statements = 0
        self._number = 0  # of the entry in its statement
        self._currency: str | None = None  # of the statement's account
        self._statement: dict[str, Any] = {}
        self._entry: dict[str, Any] = {}
        self._details: dict[str, Any] = {}

    def take(self) -> list[Row]:
        rows, self._rows = self._rows, []
        return rows

    def check_size(self, stuck: int) -> None:
        """Of what goes on in the next piece of the file, as nothing says when it will end: a text; or a tag or comment, which the parser
        holds back, so that it stands where it stood `stuck` pieces ago."""
        if stuck > 1:
            raise FileRefused(f"{self._where()}: a tag or comment of more than {CHUNK_BYTES} bytes")
        if sum(map(len, self._parts)) > TEXT_MAX:
            raise FileRefused(f"{self._where()}: a text of more than {TEXT_MAX} characters")

    def finish(self) -> None:
        if not self._statements:
            raise FileRefused("Document: the file is empty, or without a Stmt")

    # What expat calls

    def start_element(self, name: str, attributes: dict[str, str]) -> None:
        stack = self._stack
        if self._prefix or not stack:
            name = name.removeprefix(self._prefix) if stack else self._start_document(name, attributes)
        node = self._node
        stack.append(node)
        self._node = node = node.kids.get(name, _ELSEWHERE)
        self._attributes = attributes
        if self._parts:
            self._parts.clear()
        if node.begin is not None:
            node.begin(self)
        elif len(stack) > DEPTH_MAX:
            raise FileRefused(f"{stack[-1].path}: more than {DEPTH_MAX} elements deep")

    def end_element(self, name: str) -> None:  # noqa: ARG002 - expat's
        if self._node.end is not None:
            self._node.end(self)
        self._node = self._stack.pop()

    def _start_document(self, name: str, attributes: dict[str, str]) -> str:
        prefix, colon, local = name.rpartition(":")
        found = attributes.get(f"xmlns:{prefix}" if colon else "xmlns") or "no namespace"
        if local != "Document" or found not in NAMESPACES:
            raise FileRefused(f"Document: {local[:40]} in {found[:80]}; expected Document in {' or '.join(NAMESPACES)}")
        self._prefix = prefix + colon
        return local

    # Statement

    def begin_statement(self) -> None:
        self._statements += 1
        self._number = 0
        self._currency = None
        self._statement = {"sum": 0, "balances": {}}

    def account_currency(self) -> None:
        self._check_currency(self._text())

    def statement_text(self) -> None:
        self._statement[self._node.key] = self._text()

    def balance_amount(self) -> None:
        self._statement["amount"] = self._money()

    def balance_direction(self) -> None:
        self._statement["direction"] = self._direction()

    def end_balance(self) -> None:
        one = self._statement
        if "code" not in one or "amount" not in one or "direction" not in one:
            raise FileRefused(f"{self._where()}: without Tp, Amt or CdtDbtInd")
        code, amount = one.pop("code"), one.pop("amount") * one.pop("direction")
        if code in _OPENING + _CLOSING:
            one["balances"].setdefault(code, amount)

    def end_statement(self) -> None:
        balances, total = self._statement["balances"], self._statement["sum"]
        opening = next((balances[code] for code in _OPENING if code in balances), None)
        closing = next((balances[code] for code in _CLOSING if code in balances), None)
        if opening is None or closing is None:
            raise FileRefused("Stmt/Bal: the opening (OPBD) or closing (CLBD) balance is not there")
        if opening + total != closing:
            raise FileRefused(
                f"Stmt/Bal: opening {opening} and entries {total} do not add up to closing {closing} (minor units); a part is missing"
            )
        count = self._statement.get("count")
        if count is not None and count != str(self._number):
            raise FileRefused(f"TxsSummry/TtlNtries/NbOfNtries: says {count[:20]}, there are {self._number}")

    # Entry

    def begin_entry(self) -> None:
        self._number += 1
        self._entry = {"details": []}

    def entry_text(self) -> None:
        if text := self._text().strip():
            self._entry[self._node.key] = text

    def entry_amount(self) -> None:
        self._entry["net"] = self._money()

    def entry_direction(self) -> None:
        self._entry["direction"] = self._direction()

    def begin_details(self) -> None:
        self._details = {"texts": [], "fee": 0}

    def details_text(self) -> None:
        if text := self._text():
            self._details[self._node.key] = text

    def details_amount(self) -> None:
        self._details["gross"] = self._money()

    def details_direction(self) -> None:
        self._details["direction"] = self._direction()

    def charge_amount(self) -> None:
        self._details["charge"] = self._money()

    def charge_direction(self) -> None:
        self._details["fee"] -= self._direction() * self._details.pop("charge", 0)

    def remittance(self) -> None:
        self._details["texts"].append(self._text())
        if len(self._details["texts"]) > REMITTANCES_MAX:
            raise FileRefused(f"{self._where()}: more than {REMITTANCES_MAX}")

    def end_details(self) -> None:
        self._entry["details"].append(self._details)
        if len(self._entry["details"]) > DETAILS_MAX:
            raise FileRefused(f"{self._where()}: more than {DETAILS_MAX} in one Ntry")

    def end_entry(self) -> None:
        entry, where = self._entry, f"Ntry {self._number}"
        if "net" not in entry or "direction" not in entry or "status" not in entry:
            raise FileRefused(f"{where}: without Amt, CdtDbtInd or Sts")
        if entry["status"] != "BOOK":
            return
        self._statement["sum"] += entry["net"] * entry["direction"]
        self._rows += rows_of(entry, currency=self._currency or "", date=self._date, where=where)

    # Text

    def _text(self) -> str:
        parts = self._parts
        text = parts[0] if len(parts) == 1 else "".join(parts)
        if len(text) > TEXT_MAX:
            raise FileRefused(f"{self._where()}: a text of more than {TEXT_MAX} characters")
        return text

    def _money(self) -> int:
        """Minor units of an `Amt`."""
        text, currency = self._text(), self._attributes.get("Ccy")
        if currency is None or currency != self._currency:
            currency = self._check_currency(currency)
        try:
            return minor_units(text, currency)
        except ValueError as error:
            raise FileRefused(f"{self._where()}: {error}") from error

    def _check_currency(self, currency: str | None) -> str:
        """All of a statement is in the currency that is named first."""
        if currency is None or currency not in CURRENCY_EXPONENTS:
            raise FileRefused(
                f"{self._where()}: currency {(currency or 'none')[:8]!r} is none of {', '.join(CURRENCY_EXPONENTS)}"
            )
        if currency != (self._currency or currency):
            raise FileRefused(f"{self._where()}: {currency} in an account in {self._currency}")
        self._currency = currency
        self._covered.add(currency)
        return currency

    def _direction(self) -> int:
        sign = _DIRECTIONS.get(self._text())
        if sign is None:
            raise FileRefused(f"{self._where()}: {self._text()[:8]!r} is neither CRDT nor DBIT")
        return sign

    def _where(self) -> str:
        """The element that is open, with the entry that it is in."""
        path = next((node.path for node in (self._node, *reversed(self._stack)) if node is not _ELSEWHERE), "Document")
        return f"{path} (Ntry {self._number})" if path.startswith("Stmt/Ntry") else path


Action = Callable[[_Parser], None]

# What is done at the end of an element, and under which key its text is kept; of the first three what is done where they begin, too.
_ENTRY, _DETAILS = "Stmt/Ntry/", "Stmt/Ntry/NtryDtls/TxDtls/"
_BEGINNINGS: dict[str, Action] = {
    "Stmt": _Parser.begin_statement,
    "Stmt/Ntry": _Parser.begin_entry,
    "Stmt/Ntry/NtryDtls/TxDtls": _Parser.begin_details,
}
_ENDS: dict[str, tuple[Action, str]] = {
    "Stmt": (_Parser.end_statement, ""),
    "Stmt/Acct/Ccy": (_Parser.account_currency, ""),
    "Stmt/Bal": (_Parser.end_balance, ""),
    "Stmt/Bal/Tp/CdOrPrtry/Cd": (_Parser.statement_text, "code"),
    "Stmt/Bal/Amt": (_Parser.balance_amount, ""),
    "Stmt/Bal/CdtDbtInd": (_Parser.balance_direction, ""),
    "Stmt/TxsSummry/TtlNtries/NbOfNtries": (_Parser.statement_text, "count"),
    "Stmt/Ntry": (_Parser.end_entry, ""),
    _ENTRY + "Amt": (_Parser.entry_amount, ""),
    _ENTRY + "CdtDbtInd": (_Parser.entry_direction, ""),
    _ENTRY + "Sts": (_Parser.entry_text, "status"),
    _ENTRY + "Sts/Cd": (_Parser.entry_text, "status"),
    _ENTRY + "BookgDt/Dt": (_Parser.entry_text, "booked"),
    _ENTRY + "BookgDt/DtTm": (_Parser.entry_text, "booked"),
    _ENTRY + "ValDt/Dt": (_Parser.entry_text, "value"),
    _ENTRY + "ValDt/DtTm": (_Parser.entry_text, "value"),
    _ENTRY + "AcctSvcrRef": (_Parser.entry_text, "provider_id"),
    _ENTRY + "BkTxCd/Prtry/Cd": (_Parser.entry_text, "type"),
    "Stmt/Ntry/NtryDtls/TxDtls": (_Parser.end_details, ""),
    _DETAILS + "Refs/EndToEndId": (_Parser.details_text, "end_to_end"),
    _DETAILS + "Refs/InstrId": (_Parser.details_text, "instruction"),
    _DETAILS + "Refs/AcctSvcrRef": (_Parser.details_text, "provider_id"),
    _DETAILS + "Amt": (_Parser.details_amount, ""),
    _DETAILS + "AmtDtls/TxAmt/Amt": (_Parser.details_amount, ""),
    _DETAILS + "CdtDbtInd": (_Parser.details_direction, ""),
    _DETAILS + "BkTxCd/Prtry/Cd": (_Parser.details_text, "type"),
    _DETAILS + "Chrgs/Amt": (_Parser.charge_amount, ""),
    _DETAILS + "Chrgs/CdtDbtInd": (_Parser.charge_direction, ""),
    _DETAILS + "Chrgs/Rcrd/Amt": (_Parser.charge_amount, ""),
    _DETAILS + "Chrgs/Rcrd/CdtDbtInd": (_Parser.charge_direction, ""),
    _DETAILS + "RmtInf/Ustrd": (_Parser.remittance, ""),
    _DETAILS + "RltdDts/TxDtTm": (_Parser.details_text, "at"),
    _DETAILS + "AddtlTxInf": (_Parser.details_text, "merchant_id"),
}


def _document() -> _Node:
    """The tree of what is looked at; returns what Document is in."""
    outside, above = _Node("Document"), _Node("Document/BkToCstmrStmt")
    outside.kids["Document"] = document = _Node("Document")
    document.kids["BkToCstmrStmt"] = above
    for path, (end, key) in _ENDS.items():
        node = above
        names = path.split("/")
        for depth, name in enumerate(names, 1):
            node = node.kids.setdefault(name, _Node("/".join(names[:depth])))
        node.end, node.key = end, key
    for path, begin in _BEGINNINGS.items():
        node = above
        for name in path.split("/"):
            node = node.kids[name]
        node.begin = begin
    return outside


_DOCUMENT = _document()
