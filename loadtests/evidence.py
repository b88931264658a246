"""What the witnesses of a run say, parsed once into frozen structs; `auditor.py` compares them.

C  the clients: `acks.ndjson`, one line a request, and the generator's counts
G  the gateway: the rows of `python -m gateway export` (records.py)
V  the providers: the simulators' journal
W  the merchant's receiver: the journal's `webhook` entries

Field names are those of the wire (DOMAIN.md, docs/providers.md). Amounts are minor units, times integer ms since 1970.
Everything is held in memory: about 1 kB a payment, so a run of a million payments wants a gigabyte.
"""

from __future__ import annotations

import mmap
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from loadtests.records import (
    Attempt,
    Authentication,
    Capture,
    Delivery,
    Dispute,
    Entry,
    Event,
    GatewayRecords,
    GatewayRow,
    Idempotency,
    Payment,
    Refund,
    Settlement,
    Transaction,
)
from loadtests.samples import GeneratorStats, Outcome, Samples

T = TypeVar("T")

CVV = re.compile(rb"""[cC][vV][vVcC]2?["'\\]*\s*[:=]\s*["'\\]*\d{3,4}(?!\d)""")  # a key that holds a card security code


class EvidenceError(Exception):
    """A witness's file cannot be used; says which, where and why."""


class Ack(Struct, frozen=True, gc=False):
    """What one client saw of one request. `httpStatus` 0: no answer came. `leaked` says what of its card was in the answer.

    `step` is the request's name (`samples.STEPS`). `amount` is what was asked for, 0 where no amount was named. `status` is the payment's,
    if the answer told it; `subjectID` and `subjectStatus` are of the capture, refund or dispute that the request was about."""

    index: int
    key: str
    merchantID: str
    httpStatus: int
    amount: int
    currency: str
    method: str
    paymentID: str | None = None
    status: str | None = None
    bodySha256: str | None = None
    duplicate: bool = False
    code: str | None = None
    leaked: str | None = None
    step: str = "process"
    subjectID: str | None = None
    subjectStatus: str | None = None


class Sent(Struct, frozen=True):
    """The generator's own account of its requests, repeats with the same key included."""

    scheduled: int
    sent: int
    dropped: int
    outcomes: Mapping[str, int]  # ok, rejected, server_error, timeout, transport_error: each request that was sent is one
    http_statuses: Mapping[int, int]  # how often each was seen; 0 = no answer

    @classmethod
    def of(cls, samples: Samples, stats: GeneratorStats) -> Sent:
        was_sent = samples.outcome != Outcome.DROPPED
        outcomes = Counter(Outcome(code).name.lower() for code in samples.outcome[was_sent].tolist())
        statuses = Counter(samples.http_status[was_sent].tolist())
        return cls(stats.scheduled, stats.sent, stats.dropped, outcomes, statuses)


class JournalEntry(Struct, frozen=True, gc=False):
    """One line of the simulators' journal. `moved`: money moved by it, + charged, - reversed, refunded or charged back. `subject`: the
    capture, refund or dispute that it is about."""

    seq: int
    at: int
    provider: str
    operation: str
    reference: str | None = None
    attempt: int = 1
    status: str | None = None
    responseCode: str | None = None
    amount: int | None = None
    currency: str | None = None
    moved: int = 0
    subject: str | None = None
    delayMs: float | None = None
    fault: str | None = None
    callbackStatus: int | None = None
    webhookID: str | None = None
    signatureValid: bool | None = None
    duplicate: bool | None = None
    body: msgspec.Raw = msgspec.Raw()  # of a webhook; `null` if what came was no JSON object


class StatusAnswer(Struct, frozen=True):
    """What `GET /api/payments/{id}/status` of a foreign gateway said at the end. `httpStatus` 0: no answer."""

    httpStatus: int
    status: str | None = None
    amount: int | None = None
    currency: str | None = None


class Haystack(Struct, frozen=True):
    """Bytes in which no secret may be found. `name` tells a reader where they are from."""

    name: str
    content: bytes | mmap.mmap


class Secret(Struct, frozen=True):
    """Something that must not be stored: `label` says what it is without saying it, `forms` how it might be written."""

    label: str
    forms: tuple[bytes, ...]


class Evidence(Struct, frozen=True):
    """All statements about one run. `None`: that witness could not be heard (a foreign `--target`).

    `endpoints` are the webhook endpoints of each merchant. `fees` are what the gateway is to keep of captures, in basis points by payment
    method. `closed_at_ms` is when the gateway was told to stop: what a
    provider decided after that, it cannot know. `unclean_stop` says how it ended, if it did not drain and exit by itself with 0.
    """

    acks: tuple[Ack, ...]
    sent: Sent
    gateway: GatewayRecords | None = None
    journal: tuple[JournalEntry, ...] | None = None
    statuses: Mapping[str, StatusAnswer] | None = None
    endpoints: Mapping[str, tuple[str, ...]] = {}
    fees: Mapping[str, int] = {}
    haystacks: tuple[Haystack, ...] = ()
    secrets: tuple[Secret, ...] = ()
    closed_at_ms: int | None = None
    unclean_stop: str | None = None


def load_acks(path: Path) -> tuple[Ack, ...]:
    """What the clients saw, in the order of the answers. Raises EvidenceError naming file and line."""
    return tuple(_lines(path, msgspec.json.Decoder(Ack)))


def load_gateway(path: Path) -> GatewayRecords:
    """The rows of an export, sorted by kind. Raises EvidenceError naming file and line."""
    rows = tuple(_lines(path, msgspec.json.Decoder[GatewayRow](GatewayRow)))
    return GatewayRecords(
        payments=_of(Payment, rows),
        attempts=_of(Attempt, rows),
        transactions=_of(Transaction, rows),
        entries=_of(Entry, rows),
        events=_of(Event, rows),
        deliveries=_of(Delivery, rows),
        idempotency=_of(Idempotency, rows),
        settlements=_of(Settlement, rows),
        captures=_of(Capture, rows),
        refunds=_of(Refund, rows),
        disputes=_of(Dispute, rows),
        authentications=_of(Authentication, rows),
    )


def load_journal(path: Path) -> tuple[JournalEntry, ...]:
    """The whole journal. Raises EvidenceError if an entry is missing: an unseen entry could be a second charge."""
    entries = tuple(_lines(path, msgspec.json.Decoder(JournalEntry)))
    for expected, entry in enumerate(entries, start=1):
        if entry.seq != expected:
            raise EvidenceError(f"{path}: line {expected}: seq is {entry.seq}, expected {expected}: the journal has a gap")
    return entries


def webhook_bodies(journal: tuple[JournalEntry, ...]) -> Haystack:
    return Haystack("webhook bodies", b"\n".join(bytes(entry.body) for entry in journal if entry.operation == "webhook"))


def haystack(name: str, path: Path) -> Haystack | None:
    """The bytes of a file, mapped rather than read (a database can be large); None where there is no such file."""
    if not path.exists():
        return None
    with path.open("rb") as file:
        if path.stat().st_size == 0:  # mmap refuses empty files
            return Haystack(name, b"")
        return Haystack(name, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _of(kind: type[T], rows: tuple[GatewayRow, ...]) -> tuple[T, ...]:
    return tuple(row for row in rows if isinstance(row, kind))


def _lines(path: Path, decoder: msgspec.json.Decoder[T]) -> Iterator[T]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield decoder.decode(line)
            except msgspec.MsgspecError as error:
                raise EvidenceError(f"{path}: line {number}: {error}") from error
