"""Finding entries in the journal: pure.

A journal is read as chunks of NDJSON (`Journal.chunks`). Each function here yields once a chunk, so that who drives it can let
others have their turn, and looks at the bytes of a chunk before it decodes it: a reference that is not in there needs no rows.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Literal

import msgspec

from simulators.journal import Row, decode_rows
from simulators.providers import Currency

TIME_MS_MAX = 253_402_300_800_000  # the end of the year 9999
NUMBER_MAX = 2**53  # JSON numbers beyond it are not safe in every client; no journal has so many entries

Word = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]{1,64}\Z", description="1 to 64 of a-z 0-9 _")]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
TimeMs = Annotated[int, msgspec.Meta(ge=0, le=TIME_MS_MAX)]
Number = Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]
Signed = Annotated[int, msgspec.Meta(ge=-NUMBER_MAX, le=NUMBER_MAX)]


class Criteria(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an entry must say; what is `None` may be anything. `fault` is a kind or the id of a fault."""

    provider: Literal["card", "upi", "bank", "merchant"] | None = None
    operation: Word | None = None
    reference: Text | None = None
    merchant: Text | None = None
    order: Text | None = None
    subject: Text | None = None
    status: Word | None = None
    fault: Text | None = None
    amount: Number | None = None
    currency: Currency | None = None
    moved: Signed | None = None

    def __post_init__(self) -> None:
        for name in ("reference", "merchant", "order", "subject", "fault"):
            if not (getattr(self, name) or "").isprintable():  # a query may hold any bytes
                raise ValueError(f"{name} must be printable")


class Window(Criteria, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Criteria in a stretch of the journal, and the query of `GET /admin/balance`. `start` is inclusive, `end` exclusive, both in
    ms since 1970."""

    since: Number = 0  # entries after this number
    start: TimeMs = msgspec.field(default=0, name="from")
    end: TimeMs = msgspec.field(default=TIME_MS_MAX, name="until")


class Search(Window, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Query of `GET /journal`."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=NUMBER_MAX)] | None = None


_CRITERIA = tuple(field.name for field in msgspec.structs.fields(Criteria))
_WIRE_NAMES = {field.name: field.encode_name for field in msgspec.structs.fields(Row)}


class Matcher:
    """Criteria, ready to be held against many rows."""

    def __init__(self, criteria: Criteria) -> None:
        self.wanted = {name: value for name in _CRITERIA if (value := getattr(criteria, name)) is not None}
        self._needles = [_needle(name, value) for name, value in self.wanted.items()]

    def may_be_in(self, chunk: bytes) -> bool:
        """False if no row of the chunk can match."""
        return all(needle in chunk for needle in self._needles)

    def misses(self, row: Row) -> list[str]:
        """The criteria that the row does not meet, by name."""
        return [name for name, value in self.wanted.items() if not _meets(row, name, value)]


def _needle(name: str, value: object) -> bytes:
    encoded = msgspec.json.encode(value)
    return encoded if name == "fault" else b'"%s":%s' % (_WIRE_NAMES[name].encode(), encoded)


def _meets(row: Row, name: str, value: object) -> bool:
    if name == "fault":
        return value in (row.fault, row.fault_id)
    return bool(getattr(row, name) == value)


def find(chunks: Iterable[bytes], search: Search) -> Iterator[bytes]:
    """NDJSON of the entries that match, as they stand in the journal: what was found in each chunk, also where that is nothing.
    `chunks` start after `search.since`."""
    matcher, left = Matcher(search), search.limit
    within = _window(search)
    if not matcher.wanted and within is None and left is None:
        yield from chunks
        return
    for chunk in chunks:
        found = list(_lines(chunk, matcher, within))[:left] if matcher.may_be_in(chunk) else []
        yield b"".join(found)
        if left is not None:
            left -= len(found)
            if left == 0:
                return


def _window(search: Search) -> Callable[[int], bool] | None:
    if search.start == 0 and search.end == TIME_MS_MAX:
        return None
    return lambda at: search.start <= at < search.end


def _lines(chunk: bytes, matcher: Matcher, within: Callable[[int], bool] | None) -> Iterator[bytes]:
    for line, row in zip(chunk.splitlines(keepends=True), decode_rows(chunk), strict=True):
        if (within is None or within(row.at)) and not matcher.misses(row):
            yield line
