"""A provider's account of a day, with the mistakes that were asked for: pure, but for reading the journal.

Each entry of the journal that moved money is one booking, on the UTC day of its `at`. Planted breaks are keyed: a booking's draw
depends on the seed and on what the booking says, so the same bookings break whatever order they happened in. A booking has at
most one break. Where a day has fewer bookings than breaks were asked for, the last kinds go without; the answer key says what
was planted.

A file is made in two passes over the journal, up to an end that is fixed at the start: one adds up and picks what breaks
(`survey`), one writes (`written`); neither holds more than one chunk, the broken bookings and the late ones.
"""

import heapq
from collections import Counter
from collections.abc import Generator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

import msgspec
from msgspec.structs import replace

from simulators.behaviour import Draws
from simulators.journal import Journal, Row, decode_rows
from simulators.money import BPS, share_half_even
from simulators.providers import Currency

DAY_MS = 86_400_000
BREAKS_MAX = 100  # of one kind: far more than anybody works by hand, few enough to hold
ERROR_MINOR_MAX = 100  # wrong amounts and fees are wrong by 1 to this: small, as mistakes that are overlooked are

BreakKind = Literal["missing", "duplicate", "wrong_amount", "wrong_fee", "late", "late_arrival"]
PLANTED: tuple[BreakKind, ...] = ("missing", "duplicate", "wrong_amount", "wrong_fee", "late")
TYPES = {
    "refund": "refund",
    "dispute": "chargeback",
    "reverse": "reversal",
    "payout": "payout",
}  # by operation; all else that moves money is a charge


class Booking(msgspec.Struct, frozen=True, gc=False):
    """One row. Money is in minor units, signed as the merchant sees it: what it gets is positive. `net` is `gross` less `fee`."""

    reference: str
    subject: str
    type: str
    gross: int
    fee: int
    net: int
    currency: str
    at: int
    providerID: str
    merchantID: str


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Query of a settlement file."""

    format: Literal["csv", "camt.053"] = "csv"
    currency: Currency | None = None
    fee_bps: Annotated[int, msgspec.Meta(ge=0, le=BPS)] = 0
    breaks: str = ""  # `missing:2,late:1`
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0

    def __post_init__(self) -> None:
        self.kinds()
        if self.format == "camt.053" and self.currency is None:
            raise ValueError("currency: a camt.053 statement is of one account in one currency; add for example &currency=INR")

    def kinds(self) -> list[BreakKind]:
        """The breaks to plant, one by one. Raises ValueError."""
        counts: dict[BreakKind, int] = {}
        for part in filter(None, self.breaks.split(",")):
            name, _, count = part.partition(":")
            kind = next((known for known in PLANTED if known == name), None)
            if kind is None or kind in counts:
                raise ValueError(f"breaks: {name!r} is not a break or stands there twice; known are {', '.join(PLANTED)}")
            if not (count.isascii() and count.isdigit() and len(count) <= 3 and int(count) <= BREAKS_MAX):
                raise ValueError(f"breaks: {part!r} must be a kind and a count of 0 to {BREAKS_MAX}, as in {name}:2")
            counts[kind] = int(count)
        return [kind for kind in PLANTED for _ in range(counts.get(kind, 0))]


class Broken(msgspec.Struct, frozen=True):
    """One line of the answer key. Take `written` from the file's rows and add `true`, and the file is right."""

    kind: BreakKind = msgspec.field(name="break")
    reference: str
    subject: str
    type: str
    true: list[Booking]
    written: list[Booking]


class Survey(msgspec.Struct, frozen=True):
    """What is known of a day before its file is written. `opening` is all that was booked before the day, net; `closing` that
    and what the file has. `broken` is by number in the journal."""

    provider: str
    day: datetime
    order: Order
    end: int  # of the journal when the survey began
    count: int
    opening: int
    closing: int
    broken: dict[int, Broken]
    arrivals: list[Broken]  # the late ones of the day before


def day_start(text: str) -> datetime:
    """The start of a day written as YYYY-MM-DD, in UTC. Raises ValueError."""
    day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    if day.date().isoformat() != text or not 1970 <= day.year < 9999:
        raise ValueError("not YYYY-MM-DD, or too far away")
    return day


def booking(row: Row, fee_bps: int) -> Booking:
    """How an entry that moved money is settled. The fee is taken on charges and given back with a reversal; a refund or
    chargeback keeps it, as acquirers do."""
    kind = TYPES.get(row.operation, "charge")
    fee = share_half_even(row.moved, fee_bps) if kind in ("charge", "reversal") else 0
    return Booking(
        reference=row.reference or "",
        subject=row.subject or "",
        type=kind,
        gross=row.moved,
        fee=fee,
        net=row.moved - fee,
        currency=row.currency or "",
        at=row.at,
        providerID=row.provider_id or "",
        merchantID=row.merchant or "",
    )


def survey(journal: Journal, provider: str, day: datetime, order: Order) -> Generator[None, None, Survey]:
    """The first pass. Yields (nothing) once a chunk."""
    today, end = _day(day), len(journal)
    picks = {date: _Pick(provider, order) for date in (today - 1, today)}
    opening = count = net = 0
    for chunk in journal.chunks(end=end):
        for row in _moved(chunk, provider, order):
            date, booked = row.at // DAY_MS, booking(row, order.fee_bps)
            if date < today:
                opening += booked.net
            if date == today:
                count, net = count + 1, net + booked.net
            if date in picks:
                picks[date].add(row.seq, booked)
        for pick in picks.values():
            pick.settle()
        yield
    broken = picks[today].broken()
    late = [one for one in picks[today - 1].broken().values() if one.kind == "late"]
    arrivals = [replace(one, kind="late_arrival", true=[], written=one.true) for one in late]
    errors = [*broken.values(), *arrivals]
    count += sum(len(one.written) - len(one.true) for one in errors)
    net += sum(row.net for one in errors for row in one.written) - sum(row.net for one in errors for row in one.true)
    return Survey(provider, day, order, end, count, opening, opening + net, broken, arrivals)


def written(journal: Journal, found: Survey) -> Iterator[list[Booking]]:
    """The second pass: the file's rows, as many as there are in each chunk; first those that are late from the day before."""
    today = _day(found.day)
    yield [row for one in found.arrivals for row in one.written]
    for chunk in journal.chunks(end=found.end):
        rows: list[Booking] = []
        for row in _moved(chunk, found.provider, found.order):
            if row.at // DAY_MS == today:
                broken = found.broken.get(row.seq)
                rows += broken.written if broken else [booking(row, found.order.fee_bps)]
        yield rows


def answers(found: Survey) -> bytes:
    """The answer key as JSON."""
    key = [*found.arrivals, *found.broken.values()]
    planted = Counter(one.kind for one in key)
    day = found.day.date().isoformat()
    return msgspec.json.encode({"provider": found.provider, "day": day, "planted": planted, "answers": key})


class _Pick:
    """Those bookings of a day whose draws are lowest: as many as there are breaks to plant."""

    def __init__(self, provider: str, order: Order) -> None:
        self._provider, self._kinds = provider, order.kinds()
        self._draws = Draws(order.seed)
        self._best: list[tuple[int, int, int, Booking]] = []

    def add(self, seq: int, booked: Booking) -> None:
        if self._kinds:
            key = f"{booked.reference}\0{booked.subject}\0{booked.type}\0{booked.gross}"
            draw = self._draws.draw(self._provider, "settlement", key, 1)
            self._best.append((draw.fault, seq, draw.numbers, booked))

    def settle(self) -> None:
        self._best = heapq.nsmallest(len(self._kinds), self._best)

    def broken(self) -> dict[int, Broken]:
        pairs = zip(self._kinds, self._best, strict=False)  # a short day has fewer
        return {seq: _broken(kind, booked, number) for kind, (_, seq, number, booked) in pairs}


def _broken(kind: BreakKind, true: Booking, draw: int) -> Broken:
    error = 1 + draw % ERROR_MINOR_MAX
    files: dict[BreakKind, list[Booking]] = {
        "duplicate": [true, true],
        "wrong_amount": [replace(true, gross=true.gross + error, net=true.net + error)],
        "wrong_fee": [replace(true, fee=true.fee + error, net=true.net - error)],
    }
    return Broken(kind, true.reference, true.subject, true.type, [true], files.get(kind, []))


def _moved(chunk: bytes, provider: str, order: Order) -> Iterator[Row]:
    for row in decode_rows(chunk):
        if row.moved and row.provider == provider and order.currency in (None, row.currency):
            yield row


def _day(day: datetime) -> int:
    return (day - datetime.fromtimestamp(0, UTC)) // timedelta(days=1)
