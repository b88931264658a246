"""What is told of a run and not judged: latencies, how unknown outcomes ended, how long the asynchronous rest took. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
from msgspec import Struct

from loadtests.case import Case, charge_id
from loadtests.evidence import Evidence
from loadtests.samples import METHODS, NO_ANSWER_NS, PROCESS, STEPS, Outcome, Samples, latencies_ns, percentile

ASYNCHRONOUS = frozenset({"upi", "netbanking"})


class Spread(Struct, frozen=True):
    """Exact nearest-rank percentiles, ms; None where there were no values, or where requests without an answer reach so far down."""

    count: int
    p50_ms: float | None = None
    p90_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    p999_ms: float | None = None
    max_ms: float | None = None


class Unknowns(Struct, frozen=True):
    """Attempts whose call had no definite outcome, and how long it took until it was known."""

    count: int
    unresolved: int
    manual_review: int
    inquiries: int  # about these attempts, as the providers counted them
    to_resolve: Spread


class Completion(Struct, frozen=True):
    """The asynchronous rest of UPI and net banking payments: from the customer's decision at the provider to the final state here,
    and for all payments from the final state to the merchant's receiver."""

    decision_to_final: Spread
    final_to_webhook: Spread


def latencies(samples: Samples) -> dict[str, Spread]:
    """Intended send to answer over the judged period: of all requests, of payments by method, and of the later steps of journeys."""
    judged = samples.judged()
    sent = judged.where(judged.outcome != Outcome.DROPPED)
    ns = latencies_ns(sent)
    of_payments = sent.step == PROCESS
    spreads = {name: _spread(ns[of_payments & (sent.method == code)], 1e6) for code, name in enumerate(METHODS)}
    spreads |= {name: _spread(ns[sent.step == code], 1e6) for code, name in enumerate(STEPS) if code != PROCESS}
    return {"all": _spread(ns, 1e6), **{name: spread for name, spread in spreads.items() if spread.count}}


def unknowns(evidence: Evidence) -> Unknowns | None:
    """None without the gateway's records and the providers' journal."""
    if evidence.gateway is None or evidence.journal is None:
        return None
    seen = [attempt for attempt in evidence.gateway.attempts if attempt.unknownAt is not None]
    took_ms = [attempt.resolvedAt - attempt.unknownAt for attempt in seen if attempt.resolvedAt and attempt.unknownAt]
    asked = Counter((entry.provider, entry.reference) for entry in evidence.journal if entry.operation == "status")
    review = sum(attempt.state == "manual_review" for attempt in seen)
    return Unknowns(
        count=len(seen),
        unresolved=sum(attempt.resolvedAt is None for attempt in seen) - review,
        manual_review=review,
        inquiries=sum(asked[charge_id(attempt)] for attempt in seen),
        to_resolve=_spread_ms(took_ms),
    )


def completion(evidence: Evidence) -> Completion | None:
    """None without the gateway's records and the providers' journal. Both run on one machine, so their clocks agree."""
    if evidence.gateway is None or evidence.journal is None:
        return None
    case = Case(evidence)
    decided: list[int] = []
    for attempt in evidence.gateway.attempts:
        charge = case.charge_of(attempt)
        if charge and attempt.provider in ASYNCHRONOUS and attempt.state == "succeeded" and attempt.resolvedAt:
            decided.append(attempt.resolvedAt - charge.changed_at)
    told: dict[str, int] = {}
    for entry in evidence.journal:
        if entry.operation == "webhook" and entry.webhookID:
            told.setdefault(entry.webhookID, entry.at)
    delays = [told[event.eventID] - event.createdAt for event in evidence.gateway.events if event.eventID in told]
    return Completion(_spread_ms(decided), _spread_ms(delays))


def _spread_ms(values_ms: Iterable[int]) -> Spread:
    return _spread(np.array(list(values_ms), np.int64), 1)


def _spread(values: np.typing.NDArray[np.int64], per_ms: float) -> Spread:
    if not len(values):
        return Spread(0)
    found = [percentile(values, share) for share in (0.5, 0.9, 0.95, 0.99, 0.999, 1.0)]
    return Spread(len(values), *(None if value == NO_ANSWER_NS else round(value / per_ms, 3) for value in found))
