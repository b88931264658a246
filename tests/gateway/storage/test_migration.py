"""A database of the first schema, with work in it, is opened by this gateway: everything is still there, and the work goes on."""

from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from gateway.core import operation as core
from gateway.core.outcome import NextAction
from gateway.core.payment import step
from gateway.ports import Commit, Delivery, Done, InFlight, Replay, Response, Transaction
from gateway.storage import export, schema
from gateway.storage.sqlite import SqliteStore
from tests.gateway.doubles import KEY_ID, NOW_MS, OUTCOMES, make_attempt, make_claim, make_operation, make_payment

# A payment that is complete, and one that waits for its customer.
PAID = make_payment(1, status="completed", version=2, sequence=2, captured_minor=1000)
WAITING = make_payment(2, status="requires_action", version=2, sequence=2, method="upi", next_action=NextAction("upi_collect"))
PAID_ATTEMPT = make_attempt(PAID, state="succeeded", provider_id="prov_1", response_code="00", due_at_ms=None)
WAITING_ATTEMPT = make_attempt(WAITING, state="pending", provider_id="prov_2")
ANSWER = Response(201, b'{"success":true}')
BODY = b'{"event":"payment.completed"}'


def write_first_version(path: Path) -> None:
    """As the first gateway wrote it: its own script, and rows in the order of its columns."""
    with closing(apsw.Connection(str(path))) as database:
        script = (Path(schema.__file__).parent / "0001.sql").read_text()
        database.execute(
            f"BEGIN; {script}; PRAGMA application_id={schema.APPLICATION_ID}; PRAGMA user_version=1; COMMIT"
        ).fetchall()
        database.execute("INSERT INTO meta VALUES ('vault_key_id', ?)", (KEY_ID,))
        for p, action in ((PAID, None), (WAITING, '{"type":"upi_collect"}')):
            database.execute(
                f"INSERT INTO payments VALUES ({','.join('?' * 17)})",
                (p.id, p.version, p.merchant_id, p.order_id, p.method, p.amount_minor, p.currency, p.status, p.transaction_id,
                 p.captured_minor, p.sequence, None, None, action, bytes(p.details).decode(), p.created_at_ms, p.updated_at_ms),
            )  # fmt: skip
        for a in (PAID_ATTEMPT, WAITING_ATTEMPT):
            database.execute(
                f"INSERT INTO attempts VALUES ({','.join('?' * 14)})",
                (a.reference, a.payment_id, a.provider, a.state, a.amount_minor, a.currency, a.provider_id, a.response_code, 0,
                 a.due_at_ms, a.expires_at_ms, None, None, a.created_at_ms),
            )  # fmt: skip
        entry = f"ent_{1:032x}_capture"
        for line, (account, debit, credit) in enumerate(
            [("receivable:card", 1000, 0), ("payable:merchant_123", 0, 980), ("fees", 0, 20)]
        ):
            database.execute(
                "INSERT INTO postings VALUES (?,?,?,?,?,?,?,?)", (entry, line, PAID.id, account, "INR", debit, credit, NOW_MS)
            )
        for p in (PAID, WAITING):
            for sequence, kind in ((1, "processing"), (2, p.status)):
                row = (p.id, sequence, f"evt_{p.id[4:]}_{sequence}", p.merchant_id, f"payment.{kind}")
                database.execute(
                    "INSERT INTO events VALUES (?,?,?,?,?,?,?)", (*row, BODY if kind == "completed" else None, NOW_MS)
                )
        event_id = f"evt_{PAID.id[4:]}_2"
        database.execute("INSERT INTO deliveries VALUES ('ep_1',?,2,?,'pending',1,?,'HTTP 500')", (PAID.id, event_id, NOW_MS))
        database.execute("INSERT INTO cards VALUES ('card_1','merchant_123',x'00',?)", (NOW_MS,))
        for n, response in ((1, ANSWER), (2, None)):
            claim = make_claim(f"key-{n}", payment=n)
            answered = (None, None) if response is None else (response.status, response.body)
            row = (claim.merchant_id, claim.key, claim.fingerprint, claim.subject_id, *answered, claim.created_at_ms)
            database.execute("INSERT INTO claims VALUES (?,?,?,?,?,?,?)", row)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_first_version(tmp_path / "gateway.db")
    return tmp_path / "gateway.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore.open(path, vault_key_id=KEY_ID)
    yield opened
    await opened.close()


async def test_what_the_first_version_wrote_is_read_as_it_was(store: SqliteStore):
    assert [store.payment(payment.id) for payment in (PAID, WAITING)] == [PAID, WAITING]
    assert [store.attempt_of(payment.id) for payment in (PAID, WAITING)] == [PAID_ATTEMPT, WAITING_ATTEMPT]
    assert store.totals() == (2, 2)
    assert store.transaction(PAID.transaction_id) == Transaction(
        id=PAID.transaction_id,
        payment_id=PAID.id,
        merchant_id=PAID.merchant_id,
        type="payment",
        method="card",
        amount_minor=1000,
        currency="INR",
        status="completed",
        created_at_ms=NOW_MS,
        updated_at_ms=NOW_MS,
    )


async def test_what_was_open_is_still_open(store: SqliteStore):
    assert [attempt.reference for attempt in store.due_attempts("upi", NOW_MS + 10_000, 10)] == [WAITING_ATTEMPT.reference]
    [(delivery, body)] = store.due_deliveries("ep_1", NOW_MS, 10)
    assert isinstance(delivery, Delivery)
    assert (delivery.subject_id, delivery.sequence, delivery.tries, delivery.last_error) == (PAID.id, 2, 1, "HTTP 500")
    assert body == BODY
    assert store.claimed(make_claim("key-1", payment=1)) == Replay(ANSWER)
    assert store.claimed(make_claim("key-2", payment=2)) == InFlight(WAITING.id)


async def test_the_books_and_the_history_are_in_the_export(store: SqliteStore, path: Path):
    records = list(export.records(path))
    [entry] = [record for record in records if record["kind"] == "entry"]
    assert entry["paymentID"] == PAID.id
    assert [(p["account"], p["debit"], p["credit"]) for p in entry["postings"]] == [
        ("receivable:card", 1000, 0),
        ("payable:merchant_123", 0, 980),
        ("fees", 0, 20),
    ]
    events = [(record["paymentID"], record["sequence"]) for record in records if record["kind"] == "event"]
    assert events == [(PAID.id, 1), (PAID.id, 2), (WAITING.id, 1), (WAITING.id, 2)]


async def test_old_payments_go_on_and_can_be_refunded(store: SqliteStore):
    taken = step(WAITING, WAITING_ATTEMPT, OUTCOMES["Approved"], now_ms=NOW_MS, timestamp="T", fee_basis_points=0)
    assert taken is not None
    went_on = Commit(payment=taken.payment, attempt=taken.attempt, events=taken.events, entries=taken.entries)
    begun = core.begin(PAID, make_operation(PAID, amount_minor=600), now_ms=NOW_MS, timestamp="T")
    refunding = Commit(payment=begun.payment, operation=begun.operation, events=begun.events)
    assert [await store.commit(went_on), await store.commit(refunding)] == [Done(), Done()]
    assert (store.payment(WAITING.id), store.payment(PAID.id)) == (taken.payment, begun.payment)
    assert store.operation(begun.operation.id) == begun.operation
    assert store.totals() == (2, 3)


async def test_a_file_is_brought_up_to_date_once(path: Path):
    for _ in range(2):
        await SqliteStore.open(path, vault_key_id=KEY_ID).close()
    with closing(apsw.Connection(str(path))) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS),)
