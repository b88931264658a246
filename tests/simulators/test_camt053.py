"""The settlement statement keeps to the schema of camt.053.001.08: which elements, in which order, how often, and what is in them.

The tables are the published schema's (www.iso20022.org, BankToCustomerStatementV08 of February 2019), as far as the statement goes.
"""

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element, fromstring, tostring

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulators.journal import Entry, Journal
from simulators.settlement import DAY_MS, PLANTED, Order, day_start, survey, written
from simulators.settlement_files import NAMESPACE, camt053

DAY = "2024-02-29"
START_MS = round(day_start(DAY).timestamp() * 1000)

# Of an element (after its parent's name where that matters) the children in order: ! once, + at least once, * any number, others
# at most once. Where there is a |, one of them.
CHILDREN = {
    "Document": "BkToCstmrStmt!",
    "BkToCstmrStmt": "GrpHdr! Stmt+ SplmtryData*",
    "GrpHdr": "MsgId! CreDtTm! MsgRcpt MsgPgntn OrgnlBizQry AddtlInf",
    "Stmt": "Id! StmtPgntn ElctrncSeqNb RptgSeq LglSeqNb CreDtTm FrToDt CpyDplctInd RptgSrc Acct! RltdAcct Intrst* Bal+ TxsSummry "
    "Ntry* AddtlStmtInf",
    "FrToDt": "FrDtTm! ToDtTm!",
    "Acct": "Id! Tp Ccy Nm Prxy Ownr Svcr",
    "Acct/Id": "IBAN|Othr",
    "Othr": "Id! SchmeNm Issr",
    "Bal": "Tp! CdtLine* Amt! CdtDbtInd! Dt! Avlbty*",
    "Bal/Tp": "CdOrPrtry! SubTp",
    "CdOrPrtry": "Cd|Prtry",
    "Bal/Dt": "Dt|DtTm",
    "BookgDt": "Dt|DtTm",
    "ValDt": "Dt|DtTm",
    "TxsSummry": "TtlNtries TtlCdtNtries TtlDbtNtries TtlNtriesPerBkTxCd*",
    "TtlNtries": "NbOfNtries Sum TtlNetNtry",
    "TtlNetNtry": "Amt! CdtDbtInd!",
    "Ntry": "NtryRef Amt! CdtDbtInd! RvslInd Sts! BookgDt ValDt AcctSvcrRef Avlbty* BkTxCd! ComssnWvrInd AddtlInfInd AmtDtls Chrgs "
    "TechInptChanl Intrst CardTx NtryDtls* AddtlNtryInf",
    "Sts": "Cd|Prtry",
    "BkTxCd": "Domn Prtry",
    "BkTxCd/Prtry": "Cd! Issr",
    "NtryDtls": "Btch TxDtls*",
    "TxDtls": "Refs Amt CdtDbtInd AmtDtls Avlbty* BkTxCd Chrgs Intrst RltdPties RltdAgts LclInstrm Purp RltdRmtInf* RmtInf RltdDts "
    "RltdPric RltdQties* FinInstrmId Tax RtrInf CorpActn SfkpgAcct CshDpst* CardTx AddtlTxInf SplmtryData*",
    "Refs": "MsgId AcctSvcrRef PmtInfId InstrId EndToEndId UETR TxId MndtId ChqNb ClrSysRef AcctOwnrTxId AcctSvcrTxId "
    "MktInfrstrctrTxId PrcgId Prtry*",
    "Chrgs": "TtlChrgsAndTaxAmt Rcrd*",
    "Rcrd": "Amt! CdtDbtInd ChrgInclInd Tp Rate Br Agt Tax",
    "RmtInf": "Ustrd* Strd*",
    "RltdDts": "AccptncDtTm TradActvtyCtrctlSttlmDt TradDt IntrBkSttlmDt StartDt EndDt TxDtTm Prtry*",
}
# Of an element without children, what is in it; of all others Max35Text.
DATE_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
TEXTS = {
    "Amt": r"(?=[0-9.]{1,19}\Z)\d+(\.\d{1,5})?",
    "CdtDbtInd": "CRDT|DBIT",
    "Ccy": "[A-Z]{3}",
    "Dt": r"\d{4}-\d\d-\d\d",
    "NbOfNtries": "[0-9]{1,15}",
    "CdOrPrtry/Cd": ".{1,4}",
    "Sts/Cd": ".{1,4}",
    "Othr/Id": ".{1,34}",
    "ChrgInclInd": "true|false",
    "Ustrd": ".{1,140}",
    "AddtlTxInf": ".{1,500}",
    **dict.fromkeys(("CreDtTm", "FrDtTm", "ToDtTm", "TxDtTm"), DATE_TIME),
}
TIMES = {"": "?", "!": "", "+": "+", "*": "*"}


def mistakes(element: Element, parent: str = "") -> Iterator[str]:
    """What the schema does not allow in this element."""
    name = element.tag.removeprefix(f"{{{NAMESPACE}}}")
    where = f"{parent}/{name}"
    wanted = CHILDREN.get(where, CHILDREN.get(name, ""))
    names = [child.tag.removeprefix(f"{{{NAMESPACE}}}") for child in element]
    if wanted:
        each = "".join(f"({one} ){TIMES[times]}" for one, times in re.findall(r"([A-Za-z]+)([!+*]?)", wanted))
        order = f"({wanted}) " if "|" in wanted else each
        if not re.fullmatch(order, "".join(f"{one} " for one in names)):
            yield f"{where}: has {names}, not {wanted}"
    elif names or not re.fullmatch(TEXTS.get(where, TEXTS.get(name, ".{1,35}")), element.text or ""):
        yield f"{where}: {element.text!r}"
    ccy = element.get("Ccy")
    if (ccy is not None) != (name == "Amt" and parent != "TtlNetNtry") or not re.fullmatch("[A-Z]{3}", ccy or "INR"):
        yield f"{where}: Ccy is {ccy!r}"
    for child in element:
        yield from mistakes(child, name)


class State(msgspec.Struct, frozen=True):
    providerID: str
    currency: str
    status: str = "approved"
    amount: int = 1


def statement(*entries: Entry, breaks: str = "") -> str:
    journal = Journal()
    for entry in entries:
        journal.append(entry)
    steps = survey(journal, "card", day_start(DAY), Order("camt.053", "INR", 150, breaks))
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return "".join(camt053(end.value, written(journal, end.value)))


def moved(amount: int, reference: str = "ref", subject: str | None = None, merchant: str | None = "m", day: int = 0) -> Entry:
    state, at = State(f"card_{reference}", "INR"), START_MS + day * DAY_MS
    return Entry(at, "card", "create", reference, 1, state, amount, merchant=merchant, subject=subject)


REFERENCES = st.text("Aa0_-", min_size=1, max_size=64)
ENTRIES = st.builds(
    moved,
    st.integers(-(10**15), 10**15),
    REFERENCES,
    st.none() | REFERENCES,
    st.none() | st.text(min_size=1, max_size=255).filter(str.isprintable),
    st.integers(-1, 0),
)


@settings(max_examples=30)
@given(st.lists(ENTRIES, max_size=8), st.booleans())
def test_a_statement_keeps_to_the_schema(entries, broken):
    breaks = ",".join(f"{kind}:1" for kind in PLANTED) if broken else ""
    assert list(mistakes(fromstring(statement(*entries, breaks=breaks)))) == []


def edited(find: str, replace: str) -> str:
    text = tostring(fromstring(statement(moved(1000))), encoding="unicode").replace("ns0:", "").replace(":ns0", "")
    assert find in text
    return text.replace(find, replace, 1)


@pytest.mark.parametrize(
    ("find", "replace", "where"),
    [
        ("<NtryRef>1</NtryRef>", "", None),
        ("<Sts><Cd>BOOK</Cd></Sts>", "", "Stmt/Ntry"),
        ("<Sts><Cd>BOOK</Cd></Sts>", "<Sts>BOOK</Sts>", "Ntry/Sts"),
        ("<CdtDbtInd>CRDT</CdtDbtInd>", "<CdtDbtInd>D</CdtDbtInd>", "Bal/CdtDbtInd"),
        ("<NtryRef>1</NtryRef>", "<NtryRef>1</NtryRef><Surprise>1</Surprise>", "Stmt/Ntry"),
        ("<NtryRef>1</NtryRef>", f"<NtryRef>{'1' * 36}</NtryRef>", "Ntry/NtryRef"),
        ("<EndToEndId>ref</EndToEndId>", "<TxId>t</TxId><EndToEndId>ref</EndToEndId>", "TxDtls/Refs"),
        (' Ccy="INR"', "", "Bal/Amt"),
        ("<Amt>", '<Amt Ccy="INR">', "TtlNetNtry/Amt"),
        ("10.00", "10.000001", "TxDtls/Amt"),
    ],
)
def test_the_check_finds_what_the_schema_does_not_allow(find, replace, where):
    found = [one.partition(":")[0] for one in mistakes(fromstring(edited(find, replace)))]
    assert found == ([where] if where else [])
