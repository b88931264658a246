"""Increments and captures of an authorization: what one answers, and those that there were.

Each has a reference of its own, so that a repeated call changes nothing twice and gets the answer of the first again.
"""

from typing import Literal

import msgspec

from simulators.charges import Charge, Conflict

StepOperation = Literal["increment", "capture"]


class Step(msgspec.Struct, frozen=True, gc=False):
    """An increment or a capture as it goes over the wire. `charge` is the charge right after it."""

    reference: str
    chargeReference: str
    status: Literal["approved", "declined"]
    responseCode: str
    amount: int
    currency: str
    createdAt: int
    charge: Charge


class StepRecord(msgspec.Struct, gc=False):
    """What a provider remembers about the reference of a step: how often it was called, and what came of it."""

    calls: int = 0
    step: Step | None = None
    final: bool = False


class Steps:
    """The steps of one provider, by operation and their own reference."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, str], StepRecord] = {}

    def called(self, operation: StepOperation, own_reference: str) -> StepRecord:
        """The record of this reference, with this call counted."""
        record = self._records.get((operation, own_reference))
        if record is None:
            record = self._records[operation, own_reference] = StepRecord()
        record.calls += 1
        return record


def check_repeat(record: StepRecord, reference: str, amount: int, currency: str, *, final: bool) -> None:
    """Raises Conflict if the reference of this step stands for another one."""
    step = record.step
    assert step is not None
    if (step.chargeReference, step.amount, step.currency, record.final) != (reference, amount, currency, final):
        what = f"{step.amount} {step.currency} (minor units) of charge {step.chargeReference!r}"
        final_words = ", final" if record.final else ""
        raise Conflict("reference_conflict", f"reference {step.reference!r} already stands for {what}{final_words}")
