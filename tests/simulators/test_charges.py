"""Every state of a charge times every operation."""

import pytest

from simulators import charges
from simulators.charges import Change, Charge, ReferenceConflict

NEVER_ARRIVED = None
CREATED_MS, NOW_MS = 1_000, 2_000
AMOUNT, CURRENCY = 700, "INR"


def charge(status: str, code: str | None, updated_ms: int = CREATED_MS, **more: str) -> Charge:
    return Charge("ref", "upi_1", status, code, AMOUNT, CURRENCY, CREATED_MS, updated_ms, **more)


STATES = {
    "pending": charge("pending", None),
    "approved": charge("approved", "00", rrn="0" * 12),
    "declined": charge("declined", "ZA"),
    "expired": charge("expired", "U69"),
    "reversed": charge("reversed", "00", rrn="0" * 12),
    "cancelled": charge("reversed", None),
    "tombstone": charges.tombstone("ref", provider_id="upi_1", amount=AMOUNT, currency=CURRENCY, now_ms=CREATED_MS).charge,
}
OPERATIONS = {
    "create": lambda c: charges.repeat(c, amount=AMOUNT, currency=CURRENCY),
    "reverse": lambda c: charges.reverse(c, amount=AMOUNT, currency=CURRENCY, now_ms=NOW_MS),
    "approve": lambda c: charges.decide(c, code="00", rrn="1" * 12, now_ms=NOW_MS),
    "decline": lambda c: charges.decide(c, code="Z9", rrn="1" * 12, now_ms=NOW_MS),
    "expire": lambda c: charges.expire(c, code="U69", now_ms=NOW_MS),
}
# What changes the charge. Every other pair answers it as it is (create, reverse) or does nothing (approve, decline, expire).
CHANGES = {
    ("pending", "reverse"): Change(charge("reversed", None, NOW_MS)),
    ("pending", "approve"): Change(charge("approved", "00", NOW_MS, rrn="1" * 12), AMOUNT),
    ("pending", "decline"): Change(charge("declined", "Z9", NOW_MS)),
    ("pending", "expire"): Change(charge("expired", "U69", NOW_MS)),
    ("approved", "reverse"): Change(charge("reversed", "00", NOW_MS, rrn="0" * 12), -AMOUNT),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation_in_each_state(state, operation):
    before = STATES[state]
    unchanged = Change(before) if operation in ("create", "reverse") else None
    assert OPERATIONS[operation](before) == CHANGES.get((state, operation), unchanged)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("amount", "currency"), [(AMOUNT + 1, CURRENCY), (AMOUNT, "USD")])
def test_another_amount_or_currency_is_a_conflict_in_each_state(state, amount, currency):
    with pytest.raises(ReferenceConflict):
        charges.repeat(STATES[state], amount=amount, currency=currency)
    with pytest.raises(ReferenceConflict):
        charges.reverse(STATES[state], amount=amount, currency=currency, now_ms=NOW_MS)


def test_a_tombstone_is_reversed_and_moves_nothing():
    change = charges.tombstone("ref", provider_id="upi_1", amount=AMOUNT, currency=CURRENCY, now_ms=NOW_MS)
    assert change == Change(Charge("ref", "upi_1", "reversed", None, AMOUNT, CURRENCY, NOW_MS, NOW_MS), 0)
