"""Reports against the ledger: over random histories, and for any period, they say to the minor unit what was posted."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec.structs import replace

from gateway.api.report_rows import REPORTS, Row, Total, add_up
from gateway.core import dispute, operation, settlement
from gateway.core.dispute import Dispute
from gateway.core.errors import CallerError
from gateway.core.ledger import Entry
from gateway.core.operation import Operation
from gateway.core.payment import Attempt, Payment, begin, step
from gateway.core.settlement import Payee, PayoutTold, Settlement
from gateway.storage import rows, schema
from gateway.storage import settlements as storage
from gateway.storage.reports import Place
from tests.gateway.doubles import NOW_MS, OUTCOMES, make_attempt, make_dispute, make_operation, make_payment

PAYMENTS = 50
DURATION_MS = 3_000
END_MS = NOW_MS + DURATION_MS + 1
MERCHANTS = ("merchant_1", "merchant_12")  # one's name begins like the other's
REPORT = {report.name: report for report in REPORTS}


@dataclass
class History:
    """Payments of two merchants in three currencies: captured at once, in parts or not at all, refunded, disputed, all at random times."""

    draws: random.Random
    payments: list[Payment] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    disputes: list[Dispute] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    settlements: list[Settlement] = field(default_factory=list)
    settlement_entries: list[Entry] = field(default_factory=list)

    def live(self) -> None:
        for n in range(1, PAYMENTS + 1):
            payment, attempt = self._charge(n)
            for _ in range(self.draws.randrange(6)):
                act = self.draws.choice([self._operate, self._operate, self._dispute])
                payment = act(payment, attempt)
            self.payments.append(payment)

    def _now(self) -> dict[str, Any]:
        return {"now_ms": NOW_MS + self.draws.randrange(DURATION_MS), "timestamp": "T"}

    def _charge(self, n: int) -> tuple[Payment, Attempt]:
        now = self._now()
        manual = self.draws.random() < 0.5
        payment = make_payment(
            n,
            merchant_id=self.draws.choice(MERCHANTS),
            method=self.draws.choice(["card", "upi"]),
            currency=self.draws.choice(["INR", "JPY", "KWD"]),
            amount_minor=self.draws.randrange(1, 100_000),
            capture_method="manual" if manual else "automatic",
            created_at_ms=now["now_ms"],
        )
        begun = begin(payment, make_attempt(payment), timestamp="T")
        outcome = self.draws.choice(
            ["Authorized" if manual else "Approved", "Authorized" if manual else "Approved", "Declined"]
        )
        taken = step(begun.payment, begun.attempt, OUTCOMES[outcome], fee_basis_points=175, **self._now())
        assert taken is not None
        self.entries += taken.entries
        return taken.payment, taken.attempt

    def _operate(self, payment: Payment, attempt: Attempt) -> Payment:
        capture = payment.status in operation.CAPTURABLE
        left = operation.capturable_minor(payment) if capture else operation.refundable_minor(payment)
        asked = make_operation(
            payment,
            "capture" if capture else "refund",
            len(self.operations) + 1_000,
            amount_minor=self.draws.randint(1, max(1, left)),
            created_at_ms=self._now()["now_ms"],
        )
        try:
            work = operation.begin(payment, asked, **self._now())
        except CallerError:
            return payment
        outcomes = self.draws.choice([["Approved"], ["Declined"], ["Unknown", "Approved"], ["Approved", "Declined"], []])
        for name in outcomes if not capture else ["Approved"]:
            more = operation.step(work.payment, attempt, work.operation, OUTCOMES[name], fee_basis_points=175, **self._now())
            if more is not None:
                work = more
                self.entries += work.entries
        self.operations.append(work.operation)
        return work.payment

    def _dispute(self, payment: Payment, attempt: Attempt) -> Payment:
        left = operation.refundable_minor(payment)
        if left == 0:
            return payment
        known: Dispute | None = None
        amount = self.draws.randint(1, left)
        told = make_dispute(payment, len(self.disputes) + 5_000, amount_minor=amount)
        for status in self.draws.choice(
            [
                ["warning_needs_response"],
                ["needs_response", "won"],
                ["warning_needs_response", "lost"],
                ["needs_response"],
                ["won"],
            ]
        ):
            work = dispute.step(payment, known, replace(told, status=status), **self._now())
            assert work is not None
            payment, known = work.payment, work.dispute
            self.entries += work.entries
        assert known is not None
        self.disputes.append(known)
        return payment

    def write(self, connection: apsw.Connection) -> None:
        connection.execute("BEGIN")
        connection.executemany(rows.INSERT_PAYMENT, [rows.payment_row(payment) for payment in self.payments])
        connection.executemany(rows.WRITE_OPERATION, [rows.operation_row(made) for made in self.operations])
        connection.executemany(rows.WRITE_DISPUTE, [rows.dispute_row(made) for made in self.disputes])
        connection.executemany(rows.INSERT_POSTING, [row for entry in self.entries for row in rows.posting_rows(entry)])
        computing = settlement.begin(
            "set_computing",
            merchant_id="merchant_1",
            day=date(2030, 2, 1),
            timezone="UTC",
            currency="INR",
            until_ms=NOW_MS + 500,
            now_ms=END_MS,
        )
        connection.execute(storage.WRITE_SETTLEMENT, storage.settlement_row(computing))
        for merchant_id in MERCHANTS:
            for currency in ("INR", "JPY", "KWD"):
                self._settle(connection, merchant_id, currency)
        connection.execute("COMMIT")

    def _settle(self, connection: apsw.Connection, merchant_id: str, currency: str) -> None:
        """Each second counts as a day. What is owed for it is paid, or not, or paid and returned."""
        opening = 0
        for day, from_ms in enumerate(range(NOW_MS, END_MS, 1_000)):
            number = len(self.settlements)
            settled = settlement.begin(
                f"set_{number:032x}",
                merchant_id=merchant_id,
                day=date(2030, 3, 1 + day),
                timezone="UTC",
                currency=currency,
                until_ms=from_ms + 1_000,
                now_ms=END_MS,
            )
            mine = [entry for entry in self.entries if is_owed(entry, merchant_id, currency, from_ms, from_ms + 1_000)]
            connection.executemany(storage.INSERT_SETTLED, [(entry.id, settled.id) for entry in mine])
            lines = storage.lines(connection, settled.id)
            work = settlement.close(settled, lines, opening, now_ms=END_MS, timestamp="T")
            entries = [*work.entries]
            if work.settlement.state == "ready":
                ordered = settlement.begin_payout(work.settlement, Payee("1", "2", "3"), now_ms=END_MS)
                assert ordered.payout is not None
                told = PayoutTold(status=self.draws.choice(["completed", "returned", "failed"]), provider_id="bank_1")
                more = settlement.step(ordered, ordered.payout.reference, told, now_ms=END_MS, timestamp="T")
                assert more is not None
                work = more
                entries += work.entries
            opening = work.settlement.carried_minor
            self.settlements.append(work.settlement)
            self.settlement_entries += entries
            connection.execute(storage.WRITE_SETTLEMENT, storage.settlement_row(work.settlement))
            connection.executemany(rows.INSERT_POSTING, [row for entry in entries for row in rows.posting_rows(entry)])


def is_owed(entry: Entry, merchant_id: str, currency: str, from_ms: int, to_ms: int) -> bool:
    return from_ms <= entry.created_at_ms < to_ms and any(
        (posting.account, posting.currency) == (f"payable:{merchant_id}", currency) for posting in entry.postings
    )


@pytest.fixture(params=range(3))
def history(request: pytest.FixtureRequest) -> History:
    made = History(random.Random(request.param))
    made.live()
    return made


@pytest.fixture
def connection(tmp_path: Path, history: History) -> Iterator[apsw.Connection]:
    path = tmp_path / "reports.db"
    made = schema.connect(path, read_only=False)
    schema.migrate(made, path)
    history.write(made)
    yield made
    made.close()


def read(connection: apsw.Connection, name: str, merchant_id: str, from_ms: int, to_ms: int, *, limit: int) -> list[Row]:
    found: list[Row] = []
    place: Place | None = Place(from_ms)
    while place is not None:
        some, place = REPORT[name].part(connection, merchant_id, place, to_ms, limit)
        found += some
    return found


def totals(found: list[Row]) -> dict[tuple[str, str], Total]:
    made: dict[tuple[str, str], Total] = {}
    add_up(made, found)
    return made


def summed(found: list[Row], amount: str, *kinds: str) -> Counter[str]:
    """By currency, without those that are zero."""
    made: Counter[str] = Counter()
    for (currency, kind), total in totals(found).items():
        if not kinds or kind in kinds:
            made[currency] += getattr(total, amount)
    return Counter({currency: minor for currency, minor in made.items() if minor})


def posted(history: History, merchant_id: str, account: str, from_ms: int, to_ms: int, names: str = "ent_") -> Counter[str]:
    """Credits less debits on the accounts that begin so, of the merchant's entries that are named so, by currency."""
    made: Counter[str] = Counter()
    for entry in history.entries:
        mine = any(posting.account == f"payable:{merchant_id}" for posting in entry.postings)
        if mine and from_ms <= entry.created_at_ms < to_ms and entry.id.startswith(names):
            for posting in entry.postings:
                if posting.account.startswith(account):
                    made[posting.currency] += posting.credit_minor - posting.debit_minor
    return Counter({currency: minor for currency, minor in made.items() if minor})


def negated(amounts: Counter[str]) -> Counter[str]:
    return Counter({currency: -minor for currency, minor in amounts.items()})


def periods(draws: random.Random) -> list[tuple[int, int]]:
    """All of it, nothing, an entry's own millisecond and the rest, and some at random."""
    made = [(0, 2**60), (NOW_MS, END_MS), (NOW_MS - 10, NOW_MS)]
    for _ in range(3):
        cut = NOW_MS + draws.randrange(DURATION_MS)
        made += [(0, cut), (cut, cut + 1), (cut, END_MS)]
    return made


@pytest.mark.parametrize("limit", [7, 1_000])
def test_totals_of_any_period_are_what_was_posted_in_it(connection: apsw.Connection, history: History, limit: int):
    for merchant_id in MERCHANTS:
        payable = f"payable:{merchant_id}"
        for from_ms, to_ms in periods(random.Random(limit)):
            found = {name: read(connection, name, merchant_id, from_ms, to_ms, limit=limit) for name in REPORT}
            at = (from_ms, to_ms)
            assert summed(found["transactions"], "net") == posted(history, merchant_id, payable, *at)
            assert summed(found["transactions"], "amount") == negated(posted(history, merchant_id, "receivable:", *at))
            assert summed(found["transactions"], "fee") == posted(history, merchant_id, "fees", *at)
            assert summed(found["refunds"], "amount") == posted(history, merchant_id, payable, *at, names="ent_ref_")
            assert summed(found["disputes"], "amount") == posted(history, merchant_id, payable, *at, names="ent_dsp_")


def test_totals_of_all_time_are_what_the_payments_say_of_themselves(connection: apsw.Connection, history: History):
    for merchant_id in MERCHANTS:
        found = read(connection, "transactions", merchant_id, 0, 2**60, limit=50)
        mine = [payment for payment in history.payments if payment.merchant_id == merchant_id]
        for kinds, minor in (
            (("payment",), "captured_minor"),
            (("refund", "refund_failed"), "refunded_minor"),
            (("chargeback", "chargeback_won"), "disputed_minor"),
        ):
            wanted: Counter[str] = Counter()
            for payment in mine:
                wanted[payment.currency] += getattr(payment, minor)
            told = summed(found, "amount", *kinds)
            assert +wanted == (told if minor == "captured_minor" else negated(told))


def test_failures_are_all_that_ended_without_money_and_nothing_else(connection: apsw.Connection, history: History):
    for merchant_id in MERCHANTS:
        found = read(connection, "failures", merchant_id, NOW_MS, END_MS, limit=5)
        failed = [(made.created_at_ms, made.transaction_id) for made in history.payments if made.status == "failed"]
        failed += [(o.created_at_ms, o.transaction_id) for o in history.operations if (o.kind, o.state) == ("refund", "failed")]
        owner = {made.transaction_id: made.merchant_id for made in (*history.payments, *history.operations)}
        assert [row.transaction_id for row in found] == [name for _, name in sorted(failed) if owner[name] == merchant_id]


@pytest.mark.parametrize("limit", [1, 1_000])
def test_settlements_of_any_days_come_to_what_was_posted_on_them_and_paid_for_them(
    connection: apsw.Connection, history: History, limit: int
):
    for merchant_id in MERCHANTS:
        for days in ((0, 0), (0, 1), (1, 2), (0, 4)):
            from_ms, to_ms = (NOW_MS + 1_000 * day for day in days)
            found = read(connection, "settlements", merchant_id, from_ms, to_ms, limit=limit)
            assert [row.settlement_id for row in found] == [
                made.id
                for made in sorted(history.settlements, key=lambda made: (made.until_ms, made.id))
                if made.merchant_id == merchant_id and from_ms < made.until_ms <= to_ms
            ]
            assert summed(found, "net") == posted(history, merchant_id, f"payable:{merchant_id}", from_ms, to_ms)
            assert summed(found, "fee") == posted(history, merchant_id, "fees", from_ms, to_ms)
        assert read(connection, "settlements", merchant_id, NOW_MS, NOW_MS + 999, limit=limit) == []  # the day is not over
    paid: Counter[str] = Counter()
    for posting in (posting for entry in history.settlement_entries for posting in entry.postings):
        if posting.account.startswith("payable:"):
            paid[posting.currency] += posting.debit_minor - posting.credit_minor
    told: Counter[str] = Counter()
    for merchant_id in MERCHANTS:
        told += summed(read(connection, "settlements", merchant_id, 0, 2**60, limit=limit), "amount", "completed")
    assert told == +paid
