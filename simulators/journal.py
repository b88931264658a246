"""Ground truth: everything that happened here, in order, in bounded memory.

Entries are gathered into blocks. The block being filled holds entries, each of which refers to the (frozen) charge as it was
afterwards; a full block is turned into NDJSON, compressed, and put into a temporary file without a name, so that a long run
costs disk (about 55 bytes an entry) and not memory. Filling up a block holds the loop for 0.5 to 0.9 ms, and costs 2 to 3 us an
entry (measured at a million card charges), from the first entry on, so that the last one costs what the first did.

Where the disk refuses a block (full, no temporary directory), the journal says so in the log and keeps that block in memory,
compressed: the ground truth is never dropped. Each later block tries the disk again.
"""

import logging
import os
import tempfile
import weakref
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from simulators.tally import Tally

BLOCK_WEIGHT = 250  # entries in a block, unless they have bodies: filling it up must not hold the loop for 2 ms
BODY_BYTES_PER_WEIGHT = 1024  # a webhook's body weighs like an entry for each of these: a block has 512 kB at the most
COMPRESSION_LEVEL = 1  # 283 bytes to 41; level 6 takes three times as long for 38

_ADVICE = "free space there, or set TMPDIR to a directory with space for 60 bytes an entry"
_log = logging.getLogger(__name__)


class Webhook(msgspec.Struct, frozen=True, gc=False):
    """What the merchant's receiver saw."""

    webhook_id: str
    signature_valid: bool
    duplicate: bool
    body: bytes | None  # one JSON object without line breaks; None: what came was not one


class Subject(Protocol):
    """What an entry takes its state from: a charge, a refund, a dispute. It may have `responseCode` and `providerID`, too."""

    @property
    def status(self) -> str: ...
    @property
    def amount(self) -> int: ...
    @property
    def currency(self) -> str: ...


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One thing that happened; see docs/providers.md. Where no charge exists, its fields are null in the journal."""

    at: int
    provider: str
    operation: str
    reference: str | None
    attempt: int
    charge: Subject | None
    moved: int = 0
    delay_ms: int = 0
    fault: str | None = None
    callback_status: int | UnsetType | None = UNSET
    webhook: Webhook | None = None
    merchant: str | None = None
    order: str | None = None
    subject: str | None = None  # the id of the capture, refund or dispute that `charge` is about or that moved the money
    wait_ms: int = 0  # in the queue of a station, part of delay_ms
    fault_id: str | None = None


class Row(msgspec.Struct, rename="camel", gc=False):
    """An entry as it is read: one line of the journal."""

    seq: int
    at: int
    provider: str
    operation: str
    reference: str | None
    attempt: int
    status: str | None
    response_code: str | None
    amount: int | None
    currency: str | None
    moved: int
    delay_ms: int
    fault: str | None
    callback_status: int | UnsetType | None = UNSET
    provider_id: str | UnsetType = msgspec.field(default=UNSET, name="providerID")
    merchant: str | UnsetType = msgspec.field(default=UNSET, name="merchantID")
    order: str | UnsetType = msgspec.field(default=UNSET, name="orderID")
    subject: str | UnsetType = UNSET
    wait_ms: int | UnsetType = UNSET
    fault_id: str | UnsetType = msgspec.field(default=UNSET, name="faultID")
    webhook_id: str | UnsetType = msgspec.field(default=UNSET, name="webhookID")
    signature_valid: bool | UnsetType = UNSET
    duplicate: bool | UnsetType = UNSET
    body: msgspec.Raw | UnsetType = UNSET


decode_rows = msgspec.json.Decoder(Row).decode_lines  # the rows of a chunk
_encode_rows = msgspec.json.Encoder().encode_lines


def temporary_file() -> int:
    """A descriptor of a new file that nobody else sees and that is gone with the process."""
    with tempfile.TemporaryFile(prefix="paydrome-journal-", buffering=0) as file:
        return os.dup(file.fileno())


class Mark(NamedTuple):
    """A journal as it was; see `Journal.mark`."""

    filling: tuple[Entry, ...]
    room: int
    starts: "array[int]"
    spans: tuple[tuple[int, int], ...]
    in_memory: dict[int, bytes]
    packed: Tally

    @property
    def entries(self) -> int:
        """How many there were."""
        return self.starts[-1] + len(self.filling)


class Journal:
    """Entries, numbered from 1. Append-only. `open_file` gives the descriptor of a file for blocks; the journal closes it."""

    def __init__(self, open_file: Callable[[], int] = temporary_file) -> None:
        self._open_file = open_file
        self._file: int | None = None
        self._filling: list[Entry] = []
        self._room = BLOCK_WEIGHT
        self._starts = array("Q", [0])  # index of the first entry of each block, of the one being filled as well
        self._spans: list[tuple[int, int]] = []  # where each full block begins and ends in the file
        self._file_end = 0  # what is in the file stays in it: a mark may need it again
        self._in_memory: dict[int, bytes] = {}  # full blocks that the disk refused, by number
        self._packed = Tally()  # of full blocks

    def __len__(self) -> int:
        return self._starts[-1] + len(self._filling)

    def append(self, entry: Entry) -> None:
        """Adds what happened. Never fails: see the top of this file for what becomes of it when the disk is full."""
        self._filling.append(entry)
        self._room -= 1 if entry.webhook is None else _weight(entry.webhook)
        if self._room <= 0:
            self._close_block()

    def chunks(self, since: int = 0, end: int | None = None) -> Iterator[bytes]:
        """NDJSON of the entries after number `since`, up to number `end` or the last one there is at the first step; a block at
        a time, so that a reader of a long journal can let others have their turn."""
        end = len(self) if end is None else min(end, len(self))
        while since < end:
            number = bisect_right(self._starts, since) - 1
            start, block = self._starts[number], self._block(number)
            lines = block.splitlines(keepends=True)[since - start : end - start]
            if not lines:  # it was rewound under the reader
                return
            yield b"".join(lines)
            since += len(lines)

    def tally(self) -> Tally:
        """Counts of all entries there are. A rewind takes back what it takes back."""
        tally = self._packed.copy()
        tally.add(self._filling)
        return tally

    def mark(self) -> "Mark":
        """What `rewind` needs to make it what it is now."""
        starts, spans = array("Q", self._starts), tuple(self._spans)
        return Mark(tuple(self._filling), self._room, starts, spans, dict(self._in_memory), self._packed.copy())

    def rewind(self, mark: "Mark") -> None:
        """Takes back what came after the mark, or brings back what was there when it was made."""
        self._filling, self._room = list(mark.filling), mark.room
        self._starts, self._spans, self._in_memory = array("Q", mark.starts), list(mark.spans), dict(mark.in_memory)
        self._packed = mark.packed.copy()

    def _close_block(self) -> None:
        start = self._starts[-1]
        data = zlib.compress(_encode_rows(_rows(start, self._filling)), COMPRESSION_LEVEL)
        if not self._written(data, self._file_end):
            self._in_memory[len(self._spans)] = data
            data = b""
        self._spans.append((self._file_end, self._file_end + len(data)))
        self._file_end += len(data)
        self._starts.append(start + len(self._filling))
        self._packed.add(self._filling)
        self._filling, self._room = [], BLOCK_WEIGHT

    def _written(self, data: bytes, offset: int) -> bool:
        try:
            if self._file is None:
                self._file = self._open_file()
                weakref.finalize(self, os.close, self._file)
            while data:
                count = os.pwrite(self._file, data, offset)
                data, offset = data[count:], offset + count
        except OSError as error:
            if not self._in_memory:  # once: it would be said for each block
                _log.error("the journal cannot write to its temporary file, and keeps on in memory: %s; %s", error, _ADVICE)
            return False
        return True

    def _block(self, number: int) -> bytes:
        if number == len(self._spans):
            return _encode_rows(_rows(self._starts[number], self._filling))
        data = self._in_memory.get(number)
        if data is None:
            assert self._file is not None
            begin, end = self._spans[number]
            data = os.pread(self._file, end - begin, begin)
        return zlib.decompress(data)


def _weight(webhook: Webhook) -> int:
    return 1 + len(webhook.body or b"") // BODY_BYTES_PER_WEIGHT


def _rows(start: int, entries: list[Entry]) -> list[Row]:
    return [_row(seq, entry) for seq, entry in enumerate(entries, start + 1)]


def _row(seq: int, entry: Entry) -> Row:
    charge = entry.charge
    row = Row(  # by position: by name, it takes half as long again
        seq,
        entry.at,
        entry.provider,
        entry.operation,
        entry.reference,
        entry.attempt,
        charge.status if charge else None,
        getattr(charge, "responseCode", None),
        charge.amount if charge else None,
        charge.currency if charge else None,
        entry.moved,
        entry.delay_ms,
        entry.fault,
        entry.callback_status,
        getattr(charge, "providerID", UNSET),
        entry.merchant or UNSET,
        entry.order or UNSET,
        entry.subject or UNSET,
        entry.wait_ms or UNSET,
        entry.fault_id or UNSET,
    )
    if entry.webhook:
        row.webhook_id = entry.webhook.webhook_id
        row.signature_valid = entry.webhook.signature_valid
        row.duplicate = entry.webhook.duplicate
        row.body = msgspec.Raw(b"null" if entry.webhook.body is None else entry.webhook.body)
    return row
