"""Every state of a charge times every operation, and what must never happen in any sequence of them."""

from contextlib import suppress

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from simulators import charges
from simulators.charges import AMOUNT_MAX, Change, Charge, Conflict, ReferenceConflict

CREATED_MS, NOW_MS = 1_000, 2_000
AMOUNT, CURRENCY = 700, "INR"


def charge(status: str, code: str | None, updated_ms: int = CREATED_MS, **more: object) -> Charge:
    return Charge("ref", "card_1", status, code, AMOUNT, CURRENCY, CREATED_MS, updated_ms, **more)


def manual(status: str, captured: int, updated_ms: int = CREATED_MS, **more: object) -> Charge:
    return charge(status, "00", updated_ms, **{"authorizedAmount": AMOUNT, "capturedAmount": captured} | more)


STATES = {
    "pending": charge("pending", None),
    "deemed": charge("pending", "RB"),
    "authorized": manual("authorized", 0),
    "partially_captured": manual("partially_captured", 400),
    "captured": manual("approved", AMOUNT),
    "finally_captured": manual("approved", 400),
    "approved": charge("approved", "00", rrn="0" * 12),
    "refunded": charge("approved", "00", refundedAmount=300),
    "fully_refunded": charge("approved", "00", refundedAmount=AMOUNT),
    "disputed": charge("approved", "00", disputedAmount=AMOUNT),
    "declined": charge("declined", "ZA"),
    "expired": charge("expired", "U69"),
    "lapsed": manual("expired", 0),
    "reversed": charge("reversed", "00", rrn="0" * 12),
    "voided": manual("reversed", 0),
    "cancelled": charge("reversed", None),
    "tombstone": charges.tombstone("ref", provider_id="card_1", amount=AMOUNT, currency=CURRENCY, now_ms=CREATED_MS).charge,
}
OPERATIONS = {
    "create": lambda c: charges.repeat(c, amount=AMOUNT, currency=CURRENCY),
    "reverse": lambda c: charges.reverse(c, amount=AMOUNT, currency=CURRENCY, now_ms=NOW_MS),
    "increment": lambda c: charges.increment(c, amount=50, currency=CURRENCY, code="00", now_ms=NOW_MS),
    "increment_declined": lambda c: charges.increment(c, amount=50, currency=CURRENCY, code="51", now_ms=NOW_MS),
    "capture": lambda c: charges.capture(c, amount=100, currency=CURRENCY, final=False, now_ms=NOW_MS),
    "capture_final": lambda c: charges.capture(c, amount=100, currency=CURRENCY, final=True, now_ms=NOW_MS),
    "refund": lambda c: charges.reserve_refund(c, amount=100, currency=CURRENCY, now_ms=NOW_MS),
    "approve": lambda c: charges.decide(c, code="00", rrn="1" * 12, now_ms=NOW_MS),
    "deem": lambda c: charges.decide(c, code="RB", rrn="1" * 12, now_ms=NOW_MS),
    "decline": lambda c: charges.decide(c, code="Z9", rrn="1" * 12, now_ms=NOW_MS),
    "expire": lambda c: charges.expire(c, code="U69", now_ms=NOW_MS),
}


def changed(state: str, moved: int = 0, **fields: object) -> Change:
    return Change(replace(STATES[state], updatedAt=NOW_MS, **fields), moved)


UNCHANGED, NOTHING = "unchanged", None  # answers the charge as it is; does nothing
approved = {"status": "approved", "responseCode": "00", "rrn": "1" * 12}
# In the order of OPERATIONS without create, which answers the charge as it is in each state. Text: the code of the refusal.
NO_STEP = ("not_incrementable", "not_incrementable", "not_capturable", "not_capturable")
ROWS = {
    "pending": (
        *(changed("pending", status="reversed"), *NO_STEP, "refund_exceeds_captured"),
        *(changed("pending", AMOUNT, **approved), changed("pending", responseCode="RB")),
        *(changed("pending", status="declined", responseCode="Z9"), changed("pending", status="expired", responseCode="U69")),
    ),
    "deemed": (
        *(changed("deemed", status="reversed"), *NO_STEP, "refund_exceeds_captured"),
        *(changed("deemed", AMOUNT, **approved), NOTHING, NOTHING, NOTHING),
    ),
    "authorized": (
        *(changed("authorized", status="reversed"), changed("authorized", authorizedAmount=750), UNCHANGED),
        changed("authorized", 100, status="partially_captured", capturedAmount=100),
        changed("authorized", 100, status="approved", capturedAmount=100),
        *("refund_exceeds_captured", NOTHING, NOTHING, NOTHING, changed("authorized", status="expired")),
    ),
    "partially_captured": (
        *("not_reversible", "not_incrementable", "not_incrementable"),
        changed("partially_captured", 100, capturedAmount=500),
        changed("partially_captured", 100, status="approved", capturedAmount=500),
        changed("partially_captured", refundedAmount=100),
        *(NOTHING, NOTHING, NOTHING, changed("partially_captured", status="approved")),
    ),
    "captured": ("not_reversible", *NO_STEP, changed("captured", refundedAmount=100), *[NOTHING] * 4),
    "finally_captured": ("not_reversible", *NO_STEP, changed("finally_captured", refundedAmount=100), *[NOTHING] * 4),
    "approved": (
        *(changed("approved", -AMOUNT, status="reversed"), *NO_STEP, changed("approved", refundedAmount=100)),
        *[NOTHING] * 4,
    ),
    "refunded": ("not_reversible", *NO_STEP, changed("refunded", refundedAmount=400), *[NOTHING] * 4),
    "fully_refunded": ("not_reversible", *NO_STEP, "refund_exceeds_captured", *[NOTHING] * 4),
    "disputed": ("not_reversible", *NO_STEP, "charge_disputed", *[NOTHING] * 4),
    "lapsed": (UNCHANGED, *["authorization_expired"] * 4, "refund_exceeds_captured", *[NOTHING] * 4),
} | {
    state: (UNCHANGED, *NO_STEP, "refund_exceeds_captured", *[NOTHING] * 4)
    for state in ("declined", "expired", "reversed", "voided", "cancelled", "tombstone")
}
CASES = [
    (state, operation, outcome)
    for state in STATES
    for operation, outcome in zip(OPERATIONS, (UNCHANGED, *ROWS[state]), strict=True)
]


@pytest.mark.parametrize(("state", "operation", "expected"), CASES)
def test_each_operation_in_each_state(state, operation, expected):
    before = STATES[state]
    if isinstance(expected, str) and expected != UNCHANGED:
        with pytest.raises(Conflict) as refusal:
            OPERATIONS[operation](before)
        assert refusal.value.code == expected
    else:
        assert OPERATIONS[operation](before) == (Change(before) if expected == UNCHANGED else expected)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("amount", "currency"), [(AMOUNT + 1, CURRENCY), (AMOUNT, "USD")])
def test_another_amount_or_currency_is_a_conflict_in_each_state(state, amount, currency):
    with pytest.raises(ReferenceConflict):
        charges.repeat(STATES[state], amount=amount, currency=currency)
    with pytest.raises(ReferenceConflict):
        charges.reverse(STATES[state], amount=amount, currency=currency, now_ms=NOW_MS)


@pytest.mark.parametrize("state", STATES)
def test_a_step_or_refund_in_another_currency_is_refused_in_each_state(state):
    calls = [
        lambda c: charges.increment(c, amount=1, currency="USD", code="00", now_ms=NOW_MS),
        lambda c: charges.capture(c, amount=1, currency="USD", final=False, now_ms=NOW_MS),
        lambda c: charges.reserve_refund(c, amount=1, currency="USD", now_ms=NOW_MS),
    ]
    for call in calls:
        with pytest.raises(Conflict) as refusal:
            call(STATES[state])
        assert refusal.value.code == "currency_mismatch"


def test_a_capture_of_all_that_is_left_is_final_and_of_more_is_refused():
    partly = STATES["partially_captured"]
    assert charges.capture(partly, amount=300, currency=CURRENCY, final=False, now_ms=NOW_MS).charge.status == "approved"
    with pytest.raises(Conflict) as refusal:
        charges.capture(partly, amount=301, currency=CURRENCY, final=False, now_ms=NOW_MS)
    assert refusal.value.code == "capture_exceeds_authorized"


def test_an_authorization_cannot_be_raised_beyond_the_largest_amount():
    with pytest.raises(Conflict) as refusal:
        charges.increment(STATES["authorized"], amount=AMOUNT_MAX, currency=CURRENCY, code="00", now_ms=NOW_MS)
    assert refusal.value.code == "amount_too_large"


def test_a_tombstone_is_reversed_and_moves_nothing():
    change = charges.tombstone("ref", provider_id="upi_1", amount=AMOUNT, currency=CURRENCY, now_ms=NOW_MS)
    assert change == Change(Charge("ref", "upi_1", "reversed", None, AMOUNT, CURRENCY, NOW_MS, NOW_MS), 0)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"rrn": "0" * 12},
        {"rrn": "1" * 12, "authorizationCode": "000001"},
        {"intentURL": "upi://pay?a=b", "qrPayload": "upi://pay?a=b"},
        {"redirectURL": "http://h/bank/pages/1", "eci": "05"},
    ],
)
def test_a_charge_is_the_same_after_it_was_packed(state, more):
    found = replace(STATES[state], **more)
    assert charges.unpack(charges.pack(found)) == found


class AnyInterleaving(RuleBasedStateMachine):
    """Money that moved, by charge, refunds that were asked for, and a dispute, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.charge: Charge = STATES["authorized"]
        self.charged = 0
        self.refunds: list[int] = []  # pending or completed
        self.disputed = 0

    def take(self, change: Change | None) -> None:
        if change is not None:
            self.charge, self.charged = change.charge, self.charged + change.moved

    @rule(state=st.sampled_from(["authorized", "approved"]))
    @precondition(lambda self: self.charged == 0 and self.charge.status == "authorized")
    def begin(self, state: str) -> None:
        self.charge, self.charged = STATES[state], AMOUNT if state == "approved" else 0

    @rule(amount=st.integers(1, AMOUNT), operation=st.sampled_from(["increment", "capture", "refund"]), final=st.booleans())
    def ask(self, amount: int, operation: str, final: bool) -> None:
        common = {"amount": amount, "currency": CURRENCY, "now_ms": NOW_MS}
        with suppress(Conflict):
            if operation == "increment":
                self.take(charges.increment(self.charge, code="00", **common))
            elif operation == "capture":
                self.take(charges.capture(self.charge, final=final, **common))
            else:
                self.take(charges.reserve_refund(self.charge, **common))
                self.refunds.append(amount)

    @rule()
    def reverse(self) -> None:
        with suppress(Conflict):
            self.take(charges.reverse(self.charge, amount=AMOUNT, currency=CURRENCY, now_ms=NOW_MS))

    @rule()
    def expire(self) -> None:
        self.take(charges.expire(self.charge, code="54", now_ms=NOW_MS))

    @rule(data=st.data())
    @precondition(lambda self: self.refunds)
    def refund_fails(self, data: st.DataObject) -> None:
        amount = self.refunds.pop(data.draw(st.integers(0, len(self.refunds) - 1)))
        self.take(charges.release_refund(self.charge, amount=amount, now_ms=NOW_MS))

    @rule()
    @precondition(lambda self: not self.disputed and charges.refundable(self.charge) > 0)
    def dispute_opens(self) -> None:
        self.disputed = charges.refundable(self.charge)
        self.take(charges.dispute(self.charge, amount=self.disputed, now_ms=NOW_MS))

    @rule()
    @precondition(lambda self: self.disputed)
    def dispute_is_won(self) -> None:
        self.disputed = 0
        self.take(charges.dispute(self.charge, amount=0, now_ms=NOW_MS))

    @invariant()
    def money_adds_up(self) -> None:
        authorized = self.charge.authorizedAmount or AMOUNT
        assert 0 <= sum(self.refunds) + self.disputed <= charges.captured(self.charge) == self.charged <= authorized
        assert (self.charge.refundedAmount or 0, self.charge.disputedAmount or 0) == (sum(self.refunds), self.disputed)


TestAnyInterleaving = AnyInterleaving.TestCase
TestAnyInterleaving.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
