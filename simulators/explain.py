"""`GET /admin/explain/{reference}`: everything that happened under a reference, each entry with its reasons.

Read from the journal and computed anew (`reasons.py`), so that it costs nothing until somebody asks. docs/explain.md shows one.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from aiohttp import web

from simulators import reasons
from simulators.journal import Row, decode_rows
from simulators.reasons import Scene
from simulators.routes import Routes
from simulators.site import Site
from simulators.wire import JSON, Refused, check_reference
from simulators.world import Record

ENTRIES_MAX = 1_000  # of one explanation: nobody reads more, and a client in a loop must not make an answer of 100 MB
EVENTS = ("decide", "expire")

Kind = Literal["call", "event", "callback", "webhook"]


class Told(msgspec.Struct, kw_only=True, omit_defaults=True, rename="camel"):
    """An entry of the journal and why it is as it is."""

    seq: int
    at: int
    kind: Kind
    provider: str
    operation: str
    attempt: int
    status: str | None
    response_code: str | None
    moved: int
    delay_ms: int
    wait_ms: int = 0
    phase: str = ""
    fault: str | None = None
    fault_id: str = msgspec.field(default="", name="faultID")
    subject: str = ""
    callback_status: int | msgspec.UnsetType | None = msgspec.UNSET
    draw: dict[str, float] | None = None
    because: list[str]


class Explanation(msgspec.Struct, kw_only=True, rename="camel"):
    """Answer of `GET /admin/explain/{reference}`. `moved` is by currency, in minor units."""

    reference: str
    seed: int
    moved: dict[str, int]
    complete: bool  # false: there are more than ENTRIES_MAX entries
    entries: list[Told]


def add(routes: Routes, site: Site) -> None:
    """Adds the route."""

    async def explain(request: web.BaseRequest, reference: str) -> web.Response:
        found = await explained(site, check_reference(reference))
        if not found.entries:
            sentence = f"the journal has nothing about {reference!r}; GET /journal shows what there is"
            raise Refused(404, "not_found", sentence)
        accepted = request.headers.get("Accept", "")
        if "text/plain" in accepted or "text/html" in accepted:  # html: a person followed a link of the live page
            body = "\n".join(lines(found)) + "\n"
            return web.Response(text=body, content_type="text/plain", charset="utf-8")
        return web.Response(body=msgspec.json.encode(found), headers=JSON)

    routes.add("/admin/explain/*", GET=explain)


async def explained(site: Site, reference: str) -> Explanation:
    """What the journal has about a reference: of a charge, or the own one of a capture, increment, refund or dispute."""
    story, moved, entries = _Story(site), Counter[str](), []
    rows = await _rows(site, reference)
    for row in rows[:ENTRIES_MAX]:
        entries.append(story.tell(row))
        if row.moved and row.currency:
            moved[row.currency] += row.moved
    seed = site.world.draws.seed
    return Explanation(reference=reference, seed=seed, moved=dict(moved), complete=len(rows) <= ENTRIES_MAX, entries=entries)


def lines(found: Explanation) -> Iterator[str]:
    """The explanation for a person."""
    money = ", ".join(f"{amount:+d} {currency}" for currency, amount in found.moved.items()) or "none"
    count = "1 entry" if len(found.entries) == 1 else f"{len(found.entries)} entries"
    yield f"{found.reference}: {count}, money moved (minor units): {money}, seed {found.seed}"
    for told in found.entries:
        clock = datetime.fromtimestamp(told.at / 1000, UTC).isoformat(timespec="milliseconds")
        what = f"{told.provider} {told.operation}" + (f" {told.subject}" if told.subject else "")
        yield ""
        yield f"#{told.seq}  {clock}  {what}, try {told.attempt} ({told.kind})" + (
            f", phase {told.phase}" if told.phase else ""
        )
        yield from (f"    {sentence}" for sentence in told.because)
        if told.draw:
            yield "    draw: " + ", ".join(f"{name} {share:.6f}" for name, share in told.draw.items())
    if not found.complete:
        yield f"\nOnly the first {ENTRIES_MAX} entries are shown; GET /journal?reference={found.reference} has all."


async def _rows(site: Site, reference: str) -> list[Row]:
    """The entries about it, and the webhooks that speak of it or of its order; one more than are shown."""
    needle, orders = b'"%s"' % reference.encode(), set[bytes]()
    found: list[Row] = []
    for chunk in site.world.journal.chunks():
        if needle in chunk or any(order in chunk for order in orders):
            for row in decode_rows(chunk):
                if row.operation == "webhook":
                    body = bytes(row.body) if row.body else b""
                    wanted = needle in body or any(order in body for order in orders)
                else:
                    wanted = reference in (row.reference, row.subject)
                    if wanted and row.order:
                        orders.add(msgspec.json.encode(row.order))
                if wanted:
                    found.append(row)
        if len(found) > ENTRIES_MAX:
            break
        await asyncio.sleep(0)
    return found


class _Story:
    """Tells entries in their order; what one means may depend on those before."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._known: set[tuple[str, str | None]] = set()  # provider and reference of charges that there are by now
        self._subjects: set[tuple[str, str]] = set()  # operation and own reference of what was called for before

    def tell(self, row: Row) -> Told:
        kind = self._kind(row)
        told = Told(
            seq=row.seq,
            at=row.at,
            kind=kind,
            provider=row.provider,
            operation=row.operation,
            attempt=row.attempt,
            status=row.status,
            response_code=row.response_code,
            moved=row.moved,
            delay_ms=row.delay_ms,
            wait_ms=row.wait_ms or 0,
            fault=row.fault,
            fault_id=row.fault_id or "",
            subject=row.subject or "",
            callback_status=row.callback_status,
            because=list(self._first(row, kind)),
        )
        at = self._scene(row)
        if isinstance(at, str):
            told.because.append(at)
        elif at is not None:
            told.phase = at.phase
            self._explain(told, row, at)
        if row.status is not None and row.operation in ("create", "reverse"):
            self._known.add((row.provider, row.reference))
        return told

    def _kind(self, row: Row) -> Kind:
        if row.operation in ("callback", "webhook"):
            return row.operation  # type: ignore[return-value]  # the same words
        if row.operation in EVENTS:
            return "event"
        if row.operation == "payout":
            return "event" if row.subject else "call"  # what goes on has a UTR
        # A refund or dispute that goes on has no other mark than that it starts to count anew.
        again = (row.operation, row.subject or "") in self._subjects
        self._subjects.add((row.operation, row.subject or ""))
        if row.operation == "refund" and again and row.attempt == 1:
            return "event"
        quiet = row.attempt == 1 and row.delay_ms == 0 and row.fault is None
        return "event" if row.operation == "dispute" and quiet else "call"

    def _scene(self, row: Row) -> Scene | str | None:
        """The scene of an entry, or why there is none."""
        if row.provider == "merchant":
            return None
        settings, timeline = self._site.settings_history.at(row.seq), self._site.world.timelines.at(row.seq)
        if settings is None or timeline is None:
            return "the settings changed so often since that those of that time are forgotten: the rest cannot be told"
        return reasons.scene(row, settings[0], timeline[0])

    def _explain(self, told: Told, row: Row, at: Scene) -> None:
        record = self._record(row)
        if told.kind == "event":
            told.because += self._event(row, at, record)
            return
        drawn_for = reasons.key(row)
        if drawn_for is None:
            told.because.append("draw: cannot be told, because the journal does not say which call it was")
            return
        draw = self._site.world.draws.draw(row.provider, row.operation, drawn_for, row.attempt)
        told.draw = reasons.told(draw)
        fault, sentences = reasons.of_fault(row, draw, at)
        told.because += self._outcome(row, at, record, fault)
        told.because += [*reasons.of_latency(row, draw, at, fault), *sentences]

    def _outcome(self, row: Row, at: Scene, record: Record | None, fault: Any) -> Iterator[str]:  # noqa: ANN401 - Injected or None
        if row.operation == "callback":
            return
        if not reasons.acted(row, fault):
            yield "outcome: nothing was done; the fault keeps the provider from acting"
        elif row.operation == "create" and row.subject:
            yield "outcome: the second movement of a charge that the provider charged twice"
        elif row.operation == "create" and (row.provider, row.reference) in self._known:
            blocked = " A reversal came first and blocks it." if row.status == "reversed" and not row.response_code else ""
            yield f"outcome: the charge that there was (or 409, if the call wanted another amount or currency).{blocked}"
        elif row.operation == "create":
            yield f"outcome: {self._opening(row, at, record)}"
        elif row.operation == "increment" and row.response_code and row.subject:
            draw = self._draw(row.provider, "increment", row.subject)
            yield f"outcome: {reasons.of_outcome(row.response_code, draw, at, record)}"
        elif row.status is None:
            yield "outcome: 404, or a list; nothing that the call could be about had arrived"
        else:
            yield "outcome: follows from the state before (or 409, which the journal does not tell from it)"

    def _opening(self, row: Row, at: Scene, record: Record | None) -> str:
        assert row.reference is not None
        draw = self._draw(row.provider, "create", row.reference)
        if row.status == "pending" and row.response_code is None:
            return reasons.of_customer(record, draw, at)
        return reasons.of_outcome(row.response_code, draw, at, record)

    def _event(self, row: Row, at: Scene, record: Record | None) -> Iterator[str]:
        if row.operation == "decide" and row.reference is not None:
            draw = self._draw(row.provider, "create", row.reference)
            waiting = record.waiting if record else None
            if waiting is not None and row.response_code not in (waiting.decision, None):
                yield f"a person decided, or the banks came to agree: {row.response_code}"
            else:
                yield f"the customer decided: {reasons.of_outcome(row.response_code, draw, at, record)}"
        elif row.operation == "expire":
            yield "time ran out"
        else:
            yield f"the {row.operation} went on by time"

    def _draw(self, provider: str, operation: str, drawn_for: str) -> Any:  # noqa: ANN401 - a Draw
        return reasons.fate(self._site.world.draws, provider, operation, drawn_for)

    def _record(self, row: Row) -> Record | None:
        provider = self._site.providers.get(row.provider)
        return provider.record(row.reference) if provider and row.reference else None

    def _first(self, row: Row, kind: Kind) -> Iterator[str]:
        """What came out of it."""
        if kind == "webhook":
            signed = "signed" if row.signature_valid else "with a signature that does not verify"
            yield f"the receiver {row.reference} got the webhook {row.webhook_id}, {signed}" + (
                ", again" if row.duplicate else ""
            )
            return
        moved = f", moved {row.moved:+d} {row.currency}" if row.moved else ", no money moved"
        if kind == "callback":
            answer = "no answer" if row.callback_status is None else f"HTTP {row.callback_status}"
            yield f"told the callbackURL {reasons.charge_code(row)}: {answer}"
        elif row.status is None:
            yield f"nothing is there{moved}"
        else:
            yield f"{reasons.charge_code(row)} of {row.amount} {row.currency}{moved}"
