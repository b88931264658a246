"""Account statements of the bank: what a merchant's account was on a day, all that moved, and what it was then. Pure, but for the
route and for reading the journal.

A merchant has one account for each currency. Everything at the bank that moved money is in it, on the UTC day of its `at`: net
banking in, its refunds and reversals, payouts out and what came back. A statement is made in two passes over the journal, up to an
end that is fixed at the start, as a settlement file is: one adds up what was before the day, one writes.

MT940: SWIFT, Standards MT, Category 9, MT 940 Customer Statement Message. A message has at most 2 000 characters, so a long day has
several, with intermediate balances (60M, 62M) between. The character set has no underscore, which references may have: it becomes
a full stop, which they cannot have.
"""

import csv
import hashlib
import io
from collections.abc import Generator, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Literal

import msgspec
from aiohttp import web

from simulators.admin import finish, read_query, stream
from simulators.journal import Journal, Row, decode_rows
from simulators.money import decimal
from simulators.providers import Currency
from simulators.routes import Routes
from simulators.search import Criteria, Matcher
from simulators.settlement import DAY_MS, TYPES, day_start
from simulators.wire import Refused
from simulators.world import World

MERCHANT_LENGTH_MAX = 255
PER_MESSAGE = 5  # movements: one has at most 330 characters, the rest of a message 130
PAGES = 99_999  # the sequence number has five digits and starts again after these
SHORT = 16  # of a reference in field 61
LINE = 59  # what follows a code in field 86, whose lines have 65
NONREF = "NONREF"  # the standard's word where there is no reference that fits


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Query of a statement."""

    format: Literal["json", "csv", "mt940"] = "json"
    currency: Currency = "INR"


class Statement(msgspec.Struct, frozen=True):
    """What is known of a day before it is written. Balances in minor units; `end`: of the journal when it began."""

    merchantID: str
    account: str
    currency: str
    day: datetime
    opening: int
    end: int


class Movement(msgspec.Struct, frozen=True, gc=False):
    """One line. `amount` is signed as the merchant sees it, `balance` is what the account has afterwards, in minor units."""

    at: int
    type: str
    reference: str
    subject: str
    providerID: str
    amount: int
    balance: int


_COLUMNS = Movement.__struct_fields__


def account_of(merchant_id: str, currency: str) -> str:
    """The number of the merchant's account: 12 digits, a hash, so that any merchant has one that any format takes."""
    number = int.from_bytes(hashlib.blake2b(f"{merchant_id}\0{currency}".encode(), digest_size=8).digest(), "big")
    return f"{number % 10**12:012d}"


def survey(journal: Journal, merchant_id: str, day: datetime, currency: str) -> Generator[None, None, Statement]:
    """The first pass. Yields (nothing) once a chunk."""
    end, start_ms, opening = len(journal), _ms(day), 0
    for rows in _rows(journal, merchant_id, currency, end):
        opening += sum(row.moved for row in rows if row.at < start_ms)
        yield
    return Statement(merchant_id, account_of(merchant_id, currency), currency, day, opening, end)


def movements(journal: Journal, statement: Statement) -> Iterator[list[Movement]]:
    """The second pass: the day's lines, as many as there are in each chunk."""
    start_ms, balance = _ms(statement.day), statement.opening
    for rows in _rows(journal, statement.merchantID, statement.currency, statement.end):
        lines: list[Movement] = []
        for row in rows:
            if start_ms <= row.at < start_ms + DAY_MS:
                balance += row.moved
                reference, subject = row.reference or "", row.subject or ""
                lines.append(Movement(row.at, _type(row), reference, subject, row.provider_id or "", row.moved, balance))
        yield lines


def json_file(statement: Statement, pages: Iterable[list[Movement]]) -> Iterator[str]:
    """One object; the closing balance comes last."""
    head: dict[str, str | int] = {
        "merchantID": statement.merchantID,
        "account": statement.account,
        "currency": statement.currency,
    }
    head |= {"day": f"{statement.day:%Y-%m-%d}", "opening": statement.opening}
    yield msgspec.json.encode(head).decode()[:-1] + ',"movements":['
    count, closing = 0, statement.opening
    for lines in pages:
        if lines:
            yield ("," if count else "") + msgspec.json.encode(lines).decode()[1:-1]
            count, closing = count + len(lines), lines[-1].balance
        else:
            yield ""
    yield f'],"count":{count},"closing":{closing}}}\n'


def csv_file(statement: Statement, pages: Iterable[list[Movement]]) -> Iterator[str]:
    """A header, the opening balance, a line a movement, the closing balance (RFC 4180)."""
    start_ms, closing = _ms(statement.day), statement.opening
    yield _csv([_COLUMNS, (start_ms, "opening", "", "", "", "", closing)])
    for lines in pages:
        yield _csv([getattr(line, name) for name in _COLUMNS] for line in lines)
        closing = lines[-1].balance if lines else closing
    yield _csv([(start_ms + DAY_MS, "closing", "", "", "", "", closing)])


def mt940_file(statement: Statement, pages: Iterable[list[Movement]]) -> Iterator[str]:
    """As many messages as it takes, each closed by a line with a hyphen."""
    number, waiting, opening = 1, list[Movement](), statement.opening
    for lines in pages:
        waiting += lines
        while len(waiting) > PER_MESSAGE:
            page, waiting = waiting[:PER_MESSAGE], waiting[PER_MESSAGE:]
            yield _message(statement, number, opening, page, last=False)
            number, opening = number + 1, page[-1].balance
        yield ""
    yield _message(statement, number, opening, waiting, last=True)


def add_routes(routes: Routes, world: World) -> None:
    """Adds the route of this module."""
    files = {
        "json": ("application/json", json_file),
        "csv": ("text/csv; charset=utf-8; header=present", csv_file),
        "mt940": ("text/plain; charset=us-ascii", mt940_file),
    }

    async def statement(request: web.BaseRequest, where: str) -> web.StreamResponse:
        merchant_id, _, text = where.rpartition("/")
        if not (0 < len(merchant_id) <= MERCHANT_LENGTH_MAX and merchant_id.isprintable()):
            raise Refused(400, "invalid_request", f"the merchant must be 1 to {MERCHANT_LENGTH_MAX} printable characters")
        try:
            day = day_start(text)
        except ValueError:
            raise Refused(400, "invalid_request", f"the day {text!r} must be YYYY-MM-DD, from 1970 to 9998") from None
        order = read_query(request, Order)
        found = await finish(survey(world.journal, merchant_id, day, order.currency))
        kind, write = files[order.format]
        pieces = write(found, movements(world.journal, found))
        return await stream(request, {"Content-Type": kind}, (piece.encode() for piece in pieces))

    routes.add("/bank/statements/*/*", GET=statement)


def _rows(journal: Journal, merchant_id: str, currency: str, end: int) -> Iterator[list[Row]]:
    """What moved the account, as much as there is in each chunk."""
    matcher = Matcher(Criteria(provider="bank", merchant=merchant_id, currency=currency))
    for chunk in journal.chunks(end=end):
        rows = decode_rows(chunk) if matcher.may_be_in(chunk) else ()
        yield [row for row in rows if row.moved and not matcher.misses(row)]


def _type(row: Row) -> str:
    if row.operation == "payout":
        return "payout" if row.moved < 0 else "payout_return"
    return TYPES.get(row.operation, "charge")


def _ms(day: datetime) -> int:
    return round(day.timestamp() * 1000)


def _csv(lines: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(lines)
    return text.getvalue()


def _message(statement: Statement, number: int, opening: int, page: list[Movement], *, last: bool) -> str:
    day, currency = statement.day, statement.currency
    closing = page[-1].balance if page else opening
    before = day - timedelta(days=1) if number == 1 else day  # a first opening balance is the last closing one
    lines = [
        f":20:STMT{day:%Y%m%d}",
        f":25:{statement.account}",
        f":28C:{day:%j}/{(number - 1) % PAGES + 1:05d}",
        f":60{'F' if number == 1 else 'M'}:{_balance(opening, before, currency)}",
        *(line for movement in page for line in _field_61_86(movement, day, currency)),
        f":62{'F' if last else 'M'}:{_balance(closing, day, currency)}",
        "-",
    ]
    return "".join(f"{line}\r\n" for line in lines)


def _balance(amount: int, day: datetime, currency: str) -> str:
    return f"{'D' if amount < 0 else 'C'}{day:%y%m%d}{currency}{_amount(amount, currency)}"


def _amount(amount: int, currency: str) -> str:
    whole, _, minor = decimal(abs(amount), currency).partition(".")
    return f"{whole},{minor}"


def _field_61_86(movement: Movement, day: datetime, currency: str) -> Iterator[str]:
    credit = movement.amount > 0
    # R: takes back one of the other direction
    mark = {"reversal": "RC", "payout_return": "RD"}.get(movement.type, "C" if credit else "D")
    bank_reference = f"//{_plain(movement.subject)}" if 0 < len(movement.subject) <= SHORT else ""
    reference = _plain(movement.reference) if len(movement.reference) <= SHORT else NONREF
    yield f":61:{day:%y%m%d}{day:%m%d}{mark}{_amount(movement.amount, currency)}NTRF{reference}{bank_reference}"
    told = {"TYPE": movement.type, "REF": movement.reference, "SUBJ": movement.subject, "ID": movement.providerID}
    lines = [line for code, text in told.items() if text for line in _told(code, _plain(text))]
    yield f":86:{lines[0]}"
    yield from lines[1:]


def _told(code: str, text: str) -> Iterator[str]:
    """One line of field 86, or two. Each begins with a slash: SWIFT forbids lines that begin with a hyphen."""
    yield f"/{code}/{text[:LINE]}"
    if text[LINE:]:
        yield f"/CONT/{text[LINE:]}"


def _plain(text: str) -> str:
    return text.replace("_", ".")
