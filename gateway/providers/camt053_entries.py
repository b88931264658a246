"""What an entry of a camt.053 statement says: its rows. Pure.

Where what we look for may stand, first come first:

    reference   TxDtls/Refs/EndToEndId, unless it is NOTPROVIDED; TxDtls/RmtInf/Ustrd, the first
    subject     TxDtls/Refs/InstrId; TxDtls/RmtInf/Ustrd, the second
    type        BkTxCd/Prtry/Cd
    gross       TxDtls/Amt; TxDtls/AmtDtls/TxAmt/Amt (001.02); Ntry/Amt with the charges
    fee         TxDtls/Chrgs: a debit is what the provider keeps
    at          TxDtls/RltdDts/TxDtTm; Ntry/ValDt; the day of the file

An `Ntry` may have several `TxDtls`: each is a row, and together they are the entry's amount.
"""

import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from gateway.core.errors import FileRefused
from gateway.core.money import CURRENCY_EXPONENTS
from gateway.core.reconciliation import Row, RowType, start_ms
from gateway.providers.settlement_files import MONEY_MINOR_MAX, Id, Reference, Subject, checked, sort_of

_DECIMAL = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,5}))?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Names(msgspec.Struct, frozen=True, array_like=True):
    reference: Reference
    subject: Subject
    type: RowType
    provider_id: Subject
    merchant_id: Id


_NAMED = ("Refs/EndToEndId or RmtInf/Ustrd", "Refs/InstrId or RmtInf/Ustrd", "BkTxCd/Prtry/Cd", "AcctSvcrRef", "AddtlTxInf")


def minor_units(text: str, currency: str) -> int:
    """A decimal in the currency's major unit, digit by digit. Raises ValueError."""
    found, exponent = _DECIMAL.fullmatch(text), CURRENCY_EXPONENTS[currency]
    if found is None:
        raise ValueError(f"{text[:40]!r} is not an amount such as 10.00")
    whole, part = found.groups("")
    if len(part) > exponent:
        raise ValueError(f"{text!r} has more than the {exponent} decimals of {currency}")
    minor = int(whole + part.ljust(exponent, "0"))
    if minor > MONEY_MINOR_MAX:
        raise ValueError(f"{text!r} is more than can be")
    return minor


def rows_of(entry: dict[str, Any], *, currency: str, date: str, where: str) -> list[Row]:
    """The rows of a booked entry, of which the parser kept `net`, `direction` (1 or -1) and texts, and the like of its `details`. Raises
    FileRefused that begins with `where`."""
    if entry.get("booked", date)[:10] != date:
        raise FileRefused(f"{where}/BookgDt: {entry['booked'][:10]}, in the file of {date}")
    every, net = entry["details"], entry["net"] * entry["direction"]
    if not every:
        raise FileRefused(f"{where}: without NtryDtls/TxDtls, so without a reference")
    if len(every) == 1:
        rows = [_row(entry, every[0], net, currency=currency, date=date, place=where)]
    else:
        rows = [
            _row(entry, details, None, currency=currency, date=date, place=f"{where}, TxDtls {number}")
            for number, details in enumerate(every, 1)
        ]
    if left := net - sum(row.gross_minor - row.fee_minor for row in rows):
        raise FileRefused(f"{where}/Amt: its TxDtls, gross less charges, do not add up to it: {left} (minor units) too few")
    return rows


def _row(entry: dict[str, Any], details: dict[str, Any], net: int | None, *, currency: str, date: str, place: str) -> Row:
    """`net`: of the entry, if it has no other details."""
    gross, fee = details.get("gross"), details["fee"]
    if gross is not None:
        gross *= details.get("direction", entry["direction"])
    elif net is None:
        raise FileRefused(f"{place}: without Amt")
    else:
        gross = net + fee
    texts, end_to_end = details["texts"], details.get("end_to_end", "NOTPROVIDED")
    reference = end_to_end if end_to_end != "NOTPROVIDED" else (texts[0] if texts else "")
    subject = details.get("instruction") or (texts[1] if len(texts) > 1 else "")
    kind = details.get("type") or entry.get("type") or ""
    provider_id = details.get("provider_id") or entry.get("provider_id") or ""
    try:
        names = msgspec.convert([reference, subject, kind, provider_id, details.get("merchant_id", "")], _Names)
    except msgspec.ValidationError as error:
        message, _, at = str(error).partition(" - at `$[")
        raise FileRefused(f"{place}/{_NAMED[int(at[0])] if at else 'NtryDtls'}: {message}") from error
    at_ms = _at(details.get("at") or entry.get("value"), date, place)
    row = Row(reference, subject, sort_of(names.type), names.type, gross, fee, currency, at_ms, provider_id, names.merchant_id)
    return checked(row, net_minor=gross - fee, date=date, place=place)


def _at(text: str | None, date: str, place: str) -> int:
    if text is None:
        return start_ms(date)
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        since = moment - _EPOCH
    except (ValueError, OverflowError) as error:
        raise FileRefused(f"{place}: {text[:40]!r} is not a date, or not one that can be") from error
    return max(0, since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000)
