"""What must hold for a gateway and its providers, whatever has happened: DOMAIN.md's invariants 1 to 7, 10 and 11, read from the file."""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import apsw
from hypothesis.stateful import RuleBasedStateMachine, invariant

from gateway.core import money
from gateway.core.dispute import Dispute
from gateway.core.operation import OPEN_STATES, Operation
from gateway.core.payment import Payment
from gateway.storage import rows
from gateway.storage.sqlite import SqliteStore
from tests.gateway.acquirer import Acquirer
from tests.gateway.doubles import STEP_PAIRS
from tests.gateway.flows.conftest import Shop

MERCHANT, FEE = "merchant_123", 200

# What the provider may call what we call so, once nothing is open.
SAME = {
    "succeeded": {"approved"},
    "authorized": {"authorized", "partially_captured", "expired", "approved"},  # the provider may let it go a little earlier
    "declined": {"declined", "expired", "absent"},
    "reversed": {"reversed", "expired"},
}


class Audited(RuleBasedStateMachine):
    """Checked after every step. Whoever inherits it opens what it looks at."""

    shop: Shop
    store: SqliteStore
    reader: apsw.Connection
    acquirers: dict[Any, Acquirer]

    def payments(self) -> list[Payment]:
        found = [self.store.payment(row[0]) for row in self.reader.execute("SELECT id FROM payments ORDER BY id")]
        return [payment for payment in found if payment is not None]

    def operations_of(self, payment: Payment) -> list[Operation]:
        sql = "SELECT * FROM operations WHERE payment_id=?"
        return [rows.operation(row) for row in self.reader.execute(sql, (payment.id,))]

    def disputes_of(self, payment: Payment) -> list[Dispute]:
        return [rows.dispute(row) for row in self.reader.execute("SELECT * FROM disputes WHERE payment_id=?", (payment.id,))]

    def pick(self, n: int, suits: Callable[[Payment], object]) -> Payment:
        """Mostly one that something can be done to."""
        payments = self.payments()
        suitable = [payment for payment in payments if suits(payment)] if n % 5 else []
        return (suitable or payments)[n % len(suitable or payments)]

    def pick_of(self, books: str, n: int) -> tuple[Acquirer, Any]:
        everything = [(acquirer, thing) for acquirer in self.acquirers.values() for thing in getattr(acquirer, books).values()]
        return everything[n % len(everything)]

    @invariant()
    def the_books_balance(self) -> None:
        """Invariants 1, 10 and 11."""
        balances: Counter[str] = Counter()
        for entry, account, debit, credit in self.reader.execute(
            "SELECT entry_id, account, debit_minor, credit_minor FROM postings ORDER BY entry_id"
        ):
            balances[account] += debit - credit
            balances[entry] += debit - credit
        assert {key: balance for key, balance in balances.items() if key.startswith("ent_") and balance} == {}
        payments = self.payments()
        fees = sum(money.fee_minor(payment.captured_minor, basis_points=FEE) for payment in payments)
        left = sum(payment.captured_minor - payment.refunded_minor - payment.disputed_minor for payment in payments)
        assert (balances["fees"], balances[f"payable:{MERCHANT}"]) == (-fees, fees - left)
        assert balances["receivable:card"] + balances["receivable:upi"] == left

    @invariant()
    def no_payment_gives_back_more_than_it_took(self) -> None:
        """Invariant 4, and what is set aside is what is open."""
        for payment in self.payments():
            operations, disputes = self.operations_of(payment), self.disputes_of(payment)
            assert 0 <= payment.refunded_minor + payment.refunding_minor <= payment.captured_minor <= payment.amount_minor
            assert payment.captured_minor + payment.capturing_minor <= payment.amount_minor
            lost = sum(dispute.amount_minor for dispute in disputes if dispute.status == "lost")
            assert payment.refunded_minor + lost <= payment.captured_minor
            assert payment.capturing_minor == total(operations, "capture", OPEN_STATES)
            assert payment.refunding_minor == total(operations, "refund", OPEN_STATES)
            assert payment.refunded_minor == total(operations, "refund", {"completed"})
            taken = {"needs_response", "under_review", "lost"}
            assert payment.disputed_minor == sum(d.amount_minor for d in disputes if d.status in taken)
            if payment.capture_method == "manual":
                assert payment.captured_minor == total(operations, "capture", {"completed"})

    @invariant()
    def nothing_is_charged_twice_or_booked_without_the_provider(self) -> None:
        """Invariants 2 and 3; 3 is an equation only once nothing is open."""
        claimed = self.reader.execute("SELECT count(DISTINCT subject_id) FROM claims WHERE subject_id NOT LIKE 'pay%'").get
        assert self.reader.execute("SELECT count(*) FROM operations").get == claimed
        charged = Counter(charge.order_id for a in self.acquirers.values() for charge in a.charges.values() if charge.captured)
        assert max(charged.values(), default=0) <= 1
        for payment in self.payments():
            charge = self.acquirers[payment.method].charges.get(self.shop.attempt(payment.id).reference)
            assert payment.captured_minor <= (charge.captured if charge else 0)

    @invariant()
    def events_replay(self) -> None:
        """Invariant 7."""
        for payment in self.payments():
            sql = "SELECT sequence, type FROM events WHERE subject_id=? ORDER BY sequence"
            events = list(self.reader.execute(sql, (payment.id,)))
            assert [row[0] for row in events] == list(range(1, payment.sequence + 1))
            statuses = ["pending", *(row[1].partition(".")[2] for row in events if row[1].startswith("payment."))]
            assert set(pairwise(statuses)) <= STEP_PAIRS
            assert statuses[-1] == payment.status

    def open_things(self) -> int:
        sql = (
            "SELECT (SELECT count(*) FROM attempts WHERE due_at_ms IS NOT NULL AND state!='authorized')"
            " + (SELECT count(*) FROM operations WHERE due_at_ms IS NOT NULL)"
        )
        (count,) = self.reader.execute(sql).fetchone()
        return int(count)

    def agree(self) -> None:
        """Invariants 3, 5 and 6: nothing is open, and both books say the same."""
        assert self.open_things() == 0
        for acquirer in self.acquirers.values():
            assert acquirer.mail == []
        captures: dict[str, int] = {}
        refunds: dict[str, int] = {}
        for payment in self.payments():
            attempt = self.shop.attempt(payment.id)
            charge = self.acquirers[payment.method].charges.get(attempt.reference)
            assert payment.captured_minor == (charge.captured if charge else 0)
            assert (charge.status if charge else "absent") in SAME[attempt.state], (attempt.state, charge)
            for operation in self.operations_of(payment):
                if operation.state == "completed":
                    (captures if operation.kind == "capture" else refunds)[operation.id] = operation.amount_minor
        assert captures == {key: amount for a in self.acquirers.values() for key, amount in a.captures.items()}
        completed = [r for a in self.acquirers.values() for r in a.refunds.values() if r.status == "completed"]
        assert refunds == {refund.reference: refund.amount for refund in completed}
        for method, acquirer in self.acquirers.items():
            for theirs in acquirer.disputes.values():
                ours = self.store.dispute_at(method, theirs.id)
                assert ours is not None
                assert (ours.status, ours.amount_minor) == (theirs.status, theirs.amount)


def total(operations: list[Operation], kind: str, states: Any) -> int:
    return sum(operation.amount_minor for operation in operations if operation.kind == kind and operation.state in states)
