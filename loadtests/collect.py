"""Goes to the witnesses and writes down what they say: over HTTP, and from the gateway's export. The judging is elsewhere."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import aiohttp
import msgspec
from msgspec import Struct

from loadtests import evidence
from loadtests.case import OPEN, OPEN_OPERATIONS
from loadtests.child import Stopped
from loadtests.evidence import Ack, Evidence, Secret, Sent, StatusAnswer
from loadtests.payments import CARDS, JOURNEY_CARDS
from loadtests.records import GatewayRecords
from loadtests.stack import Stack, export

SETTLE_S_MAX = 60.0  # customers take up to 15 s, and where a callback was lost the gateway asks after 15 s more
SETTLE_PERIOD_S = 1.0  # each look exports the database, in a process of its own
ANSWER_S_MAX = 10.0
OPEN_AUTHENTICATIONS = frozenset({"intent", "challenge"})
STATUSES_MAX = 20_000  # payments of a foreign gateway that are asked for; more are sampled evenly
STATUS_CONCURRENCY = 16
CHUNK_SIZE = 1 << 16


class TargetError(Exception):
    """A foreign gateway cannot be tested; says why and what to do."""


class Settled(Struct, frozen=True):
    """How long the stack took to come to rest, and what was still open when the time was up."""

    seconds: float
    still_open: Mapping[str, int]

    def __str__(self) -> str:
        waiting = ", ".join(f"{count} {what}" for what, count in self.still_open.items())
        return f"after {self.seconds:.1f} s" + (f", still open: {waiting}" if waiting else " everything was at rest")


async def probe(target: str, key: str, *, timeout_s: float = ANSWER_S_MAX) -> None:
    """Asks for a payment that cannot exist. Raises TargetError unless `target` answers as a gateway that takes the key."""
    headers = {"Authorization": f"Bearer {key}"}
    try:
        url = f"{target}/api/payments/pay_none/status"
        async with (
            _session(total_s=timeout_s) as session,
            session.get(url, headers=headers, allow_redirects=False) as answer,
        ):
            status, body = answer.status, await answer.content.read(CHUNK_SIZE)
            location = answer.headers.get("Location", "")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise TargetError(
            f"{target} cannot be reached: {_failure(error, timeout_s)}; is the gateway running, and is the port right?"
        ) from None
    if 300 <= status < 400:
        raise TargetError(
            f"{target} redirects with {status} to {location[:200]!r}, which is not followed: a payment must not be sent "
            "elsewhere; give the final base URL as --target"
        )
    if status in (401, 403):
        raise TargetError(f"{target} refuses the API key with {status}; give its merchant's with --key (and --merchant)")
    if status not in (400, 404) or not _is_refusal(body):
        raise TargetError(
            f"{target} answered {status} to GET /api/payments/pay_none/status, where a gateway with this API answers 404 "
            'and {"success": false, ...}; is this the base URL?'
        )


def _failure(error: Exception, timeout_s: float) -> str:
    """What went wrong in words: the texts of some of these errors are empty, or name the library's innards."""
    match error:
        case TimeoutError():
            return f"no answer within {timeout_s:g} s"
        case aiohttp.ClientConnectorError():
            number = error.os_error.errno or 0  # of the system if above 0; a name that is not known has another kind
            return os.strerror(number) if number > 0 else str(error.os_error.strerror or error.os_error)
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection without an answer"
        case aiohttp.ClientResponseError():
            return "what it answered is not HTTP"
        case _:
            return str(error) or type(error).__name__


async def start_timeline(stack: Stack, at_s: float) -> None:
    """Tells the simulators when the schedule starts, in seconds since 1970: fault windows count from there."""
    async with _session() as session:
        url = f"{stack.simulators_url}/admin/timeline"
        async with session.post(url, json={"startAtMs": round(at_s * 1000)}, raise_for_status=True):
            pass


async def settle(stack: Stack, scratch: Path, on_wait: Callable[[Mapping[str, int]], None]) -> Settled:
    """Waits until no attempt is open and no webhook is waiting, at most SETTLE_S_MAX."""
    started = time.monotonic()
    while True:
        await export(stack.files.db, scratch)
        still_open = open_work(await asyncio.to_thread(evidence.load_gateway, scratch))
        waited_s = time.monotonic() - started
        if not still_open or waited_s > SETTLE_S_MAX:
            return Settled(waited_s, still_open)
        on_wait(still_open)
        await asyncio.sleep(SETTLE_PERIOD_S)


def open_work(records: GatewayRecords) -> dict[str, int]:
    """What the gateway still has to do or to hear, by kind; empty when it is at rest."""
    waiting = Counter(f"{attempt.state} attempts" for attempt in records.attempts if attempt.state in OPEN)
    waiting.update(f"{capture.status} captures" for capture in records.captures if capture.status in OPEN_OPERATIONS)
    waiting.update(f"{refund.status} refunds" for refund in records.refunds if refund.status in OPEN_OPERATIONS)
    decided_soon = (row for row in records.disputes if row.responding or row.status.endswith("under_review"))
    waiting.update(f"{dispute.status} disputes" for dispute in decided_soon)
    waiting.update("authentications" for row in records.authentications if row.status in OPEN_AUTHENTICATIONS)
    webhooks = sum(delivery.state == "pending" for delivery in records.deliveries)
    return {**waiting, **({"webhooks": webhooks} if webhooks else {})}


async def metrics_text(stack: Stack) -> bytes:
    async with _session() as session, session.get(f"{stack.gateway_url}/metrics", raise_for_status=True) as answer:
        return await answer.read()


async def save_journal(stack: Stack, to: Path) -> None:
    """Writes the simulators' whole journal as NDJSON."""
    async with (
        _session(total_s=None) as session,
        session.get(f"{stack.simulators_url}/journal", raise_for_status=True) as answer,
    ):
        with to.open("wb") as file:
            async for chunk in answer.content.iter_chunked(CHUNK_SIZE):
                file.write(chunk)


class Fates(Struct, frozen=True):
    """What became of the providers' charges, in one number: equal for equal references that met equal fates."""

    digest: str
    charges: int
    undecided: int


async def fates(stack: Stack) -> Fates:
    """The simulators' fate digest."""
    async with (
        _session(total_s=None) as session,
        session.get(f"{stack.simulators_url}/admin/digest", raise_for_status=True) as answer,
    ):
        return msgspec.json.decode(await answer.read(), type=Fates)


def stack_evidence(
    stack: Stack,
    directory: Path,
    *,
    acks: tuple[Ack, ...],
    sent: Sent,
    closed_at_ms: int | None = None,
    gateway_stopped: Stopped | None = None,
) -> Evidence:
    """All witnesses of a run of our own stack; `directory` has `gateway.ndjson`, `journal.ndjson` and `metrics.txt`."""
    journal = evidence.load_journal(directory / "journal.ndjson")
    db = stack.files.db
    files = {"database": db, "database's write-ahead log": db.with_name(f"{db.name}-wal"), "gateway log": stack.gateway_log}
    files["metrics"] = directory / "metrics.txt"
    found = (evidence.haystack(name, path) for name, path in files.items())
    return Evidence(
        acks=acks,
        sent=sent,
        gateway=evidence.load_gateway(directory / "gateway.ndjson"),
        journal=journal,
        endpoints=stack.endpoints,
        fees=stack.fees,
        haystacks=(*(hay for hay in found if hay), evidence.webhook_bodies(journal)),
        secrets=secrets_of(stack),
        closed_at_ms=closed_at_ms,
        unclean_stop=None if gateway_stopped is None or gateway_stopped.clean else str(gateway_stopped),
    )


def secrets_of(stack: Stack) -> tuple[Secret, ...]:
    """What nobody may find in what the gateway stores or tells."""
    vault_key = bytes.fromhex(stack.files.vault_key.read_text())
    return (
        *map(card_secret, CARDS + JOURNEY_CARDS),
        signing_secret("the UPI callback secret", stack.secrets.upi),
        signing_secret("the bank callback secret", stack.secrets.bank),
        signing_secret("the webhook secret", stack.secrets.merchant),
        Secret("the vault key", (vault_key, vault_key.hex().encode(), base64.b64encode(vault_key))),
        Secret("the merchant's API key", (stack.key.encode(),)),
    )


def card_secret(number: str) -> Secret:
    """A card number as digits, in groups, and as SQLite stores an integer of this size."""
    groups = [number[at : at + 4] for at in range(0, len(number), 4)]
    forms = (number.encode(), " ".join(groups).encode(), "-".join(groups).encode(), int(number).to_bytes(8))
    return Secret(f"card number {number[:6]}...{number[-4:]}", forms)


def signing_secret(label: str, secret: str) -> Secret:
    """A `whsec_...` secret as text, and as the bytes that it stands for."""
    encoded = secret.removeprefix("whsec_")
    return Secret(label, (encoded.encode(), base64.b64decode(encoded)))


async def ask_statuses(target: str, key: str, payment_ids: Sequence[str]) -> dict[str, StatusAnswer]:
    """What a foreign gateway says of the payments that it acknowledged, at most STATUSES_MAX of them, evenly spread."""
    step = max(1, -(-len(payment_ids) // STATUSES_MAX))
    asked = payment_ids[::step]
    slots = asyncio.Semaphore(STATUS_CONCURRENCY)
    async with _session(headers={"Authorization": f"Bearer {key}"}) as session:

        async def ask(payment_id: str) -> StatusAnswer:
            async with slots:
                return await _ask_status(session, f"{target}/api/payments/{payment_id}/status")

        return dict(zip(asked, await asyncio.gather(*map(ask, asked)), strict=True))


async def _ask_status(session: aiohttp.ClientSession, url: str) -> StatusAnswer:
    try:
        async with session.get(url, allow_redirects=False) as answer:
            body = await answer.read()
            if answer.status != 200:
                return StatusAnswer(answer.status)
    except (aiohttp.ClientError, TimeoutError):
        return StatusAnswer(0)
    try:
        said = msgspec.json.decode(body, type=_StatusBody).data
    except msgspec.MsgspecError:
        return StatusAnswer(0)
    return StatusAnswer(200, said.status, said.amount, said.currency)


class _StatusData(Struct, frozen=True):
    status: str
    amount: int
    currency: str


class _StatusBody(Struct, frozen=True):
    data: _StatusData


def _is_refusal(body: bytes) -> bool:
    try:
        said = msgspec.json.decode(body)
    except msgspec.MsgspecError:
        return False
    return isinstance(said, dict) and said.get("success") is False


def _session(*, total_s: float | None = ANSWER_S_MAX, headers: Mapping[str, str] | None = None) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=total_s), headers=headers)
