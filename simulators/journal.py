"""Ground truth: everything that happened here, in order, in memory.

An entry refers to the (frozen) charge as it was afterwards instead of copying it, and becomes JSON only when somebody
reads the journal. It grows with the run: a card charge and its entry take about 640 bytes (measured at a million).
"""

from collections.abc import Iterator

import msgspec
from msgspec import UNSET, UnsetType

from simulators.charges import Charge
from simulators.faults import Kind

CHUNK_ENTRIES = 500  # encoded at a stretch: about 1 ms, so that a reader of a long journal holds nobody up


class Webhook(msgspec.Struct, frozen=True, gc=False):
    """What the merchant's receiver saw."""

    webhook_id: str
    signature_valid: bool
    duplicate: bool
    body: bytes | None  # one JSON object without line breaks; None: what came was not one


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One thing that happened; see docs/providers.md. Where no charge exists, its fields are null in the journal."""

    at: int
    provider: str
    operation: str
    reference: str | None
    attempt: int
    charge: Charge | None
    moved: int = 0
    delay_ms: int = 0
    fault: Kind | None = None
    callback_status: int | UnsetType | None = UNSET
    webhook: Webhook | None = None


class _Row(msgspec.Struct, rename="camel"):
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
    fault: Kind | None
    callback_status: int | UnsetType | None = UNSET
    webhook_id: str | UnsetType = msgspec.field(default=UNSET, name="webhookID")
    signature_valid: bool | UnsetType = UNSET
    duplicate: bool | UnsetType = UNSET
    body: msgspec.Raw | UnsetType | None = UNSET


class Journal:
    """An append-only list of entries, numbered from 1."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.append = self.entries.append

    def chunks(self, since: int) -> Iterator[bytes]:
        """NDJSON of the entries after number `since`, up to the last one there is at the first step; a chunk at a time."""
        end = len(self.entries)
        encode = msgspec.json.Encoder().encode_lines
        for start in range(since, end, CHUNK_ENTRIES):
            stop = min(start + CHUNK_ENTRIES, end)
            yield encode([_row(index + 1, self.entries[index]) for index in range(start, stop)])


def _row(seq: int, entry: Entry) -> _Row:
    charge = entry.charge
    row = _Row(
        seq=seq,
        at=entry.at,
        provider=entry.provider,
        operation=entry.operation,
        reference=entry.reference,
        attempt=entry.attempt,
        status=charge.status if charge else None,
        response_code=charge.responseCode if charge else None,
        amount=charge.amount if charge else None,
        currency=charge.currency if charge else None,
        moved=entry.moved,
        delay_ms=entry.delay_ms,
        fault=entry.fault,
        callback_status=entry.callback_status,
    )
    if entry.webhook:
        row.webhook_id = entry.webhook.webhook_id
        row.signature_valid = entry.webhook.signature_valid
        row.duplicate = entry.webhook.duplicate
        row.body = msgspec.Raw(entry.webhook.body) if entry.webhook.body is not None else None
    return row
