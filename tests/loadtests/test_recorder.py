import hashlib
import io
import json

import numpy as np
import pytest

from loadtests.arrivals import Plan
from loadtests.journeys import Step
from loadtests.payments import Payment
from loadtests.recorder import GLANCE_NS, Recorder, Walked
from loadtests.samples import NEVER, STEPS, Outcome, answered_ns, refused

S = 1_000_000_000
PAYMENT = b'{"success":true,"data":{"paymentID":"pay_1","status":"completed","amount":5}}'


@pytest.fixture
def acks() -> io.BytesIO:
    return io.BytesIO()


def recorder(acks: io.BytesIO, *, due_s: list[float], index: list[int] | None = None) -> Recorder:
    """A run of one second of warm-up and nine to judge; an index that comes again is a duplicate."""
    index = index or list(range(len(due_s)))
    plan = Plan(
        due_ns=np.array([round(s * S) for s in due_s], np.int64),
        index=np.array(index, np.uint32),
        duplicate=np.array([i in index[:row] for row, i in enumerate(index)]),
    )
    return Recorder(plan, run_id="run", merchant_id="m_1", judged_from_ns=S, judged_until_ns=10 * S, acks=acks)


def pay(amount: int = 5) -> Payment:
    return Payment(method=1, amount=amount, instrument={}, customer=0)


def lines(acks: io.BytesIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in acks.getvalue().splitlines()]


def test_an_answer_is_recorded_with_what_its_client_saw(acks: io.BytesIO) -> None:
    run = recorder(acks, due_s=[0.5, 2.0])
    for row in (0, 1):
        run.sent(row, pay(amount=7 + row), round(2.1 * S))
        assert run.answered(row, round(2.5 * S), 201, PAYMENT) is None

    made = run.samples()
    assert made.due_ns.tolist() == [S // 2, 2 * S]
    assert (made.sent_ns.tolist(), made.done_ns.tolist()) == ([2_100_000_000] * 2, [2_500_000_000] * 2)
    assert (made.method.tolist(), made.http_status.tolist(), made.warm_up.tolist()) == ([1, 1], [201, 201], [True, False])
    assert lines(acks)[1] == {
        "index": 1,
        "key": "run-1",
        "merchantID": "m_1",
        "httpStatus": 201,
        "paymentID": "pay_1",
        "status": "completed",
        "amount": 8,
        "currency": "INR",
        "method": "upi",
        "bodySha256": hashlib.sha256(PAYMENT).hexdigest(),
        "duplicate": False,
        "code": None,
        "leaked": None,
    }


@pytest.mark.parametrize(
    ("http_status", "content", "outcome", "complaint", "code"),
    [
        (201, PAYMENT, Outcome.OK, None, None),
        (200, PAYMENT, Outcome.OK, None, None),
        (201, b"", Outcome.SERVER_ERROR, "HTTP 201 unreadable_body", "unreadable_body"),
        (201, b"\xff", Outcome.SERVER_ERROR, "HTTP 201 unreadable_body", "unreadable_body"),
        (201, b"[]", Outcome.SERVER_ERROR, "HTTP 201 unreadable_body", "unreadable_body"),
        (201, b'{"data":{"status":"completed"}}', Outcome.SERVER_ERROR, "HTTP 201 unreadable_body", "unreadable_body"),
        (201, b'{"success":true}', Outcome.SERVER_ERROR, "HTTP 201 without a payment", None),
        (302, b"", Outcome.REJECTED, "HTTP 302 unreadable_body", "unreadable_body"),
        (401, b'{"code":"unauthorized"}', Outcome.REJECTED, "HTTP 401 unauthorized", "unauthorized"),
        (409, b'{"code":"in_flight"}', Outcome.REJECTED, "HTTP 409 in_flight", "in_flight"),
        (429, b'{"code":"slow_down"}', Outcome.REJECTED, "HTTP 429 slow_down", "slow_down"),
        (500, PAYMENT, Outcome.SERVER_ERROR, "HTTP 500 without a payment", None),
        (503, b"<html>", Outcome.SERVER_ERROR, "HTTP 503 unreadable_body", "unreadable_body"),
    ],
)
def test_what_an_answer_counts_as(
    acks: io.BytesIO, http_status: int, content: bytes, outcome: Outcome, complaint: str | None, code: str | None
) -> None:
    run = recorder(acks, due_s=[2.0])
    run.sent(0, pay(), 2 * S)
    assert run.answered(0, 3 * S, http_status, content) == complaint
    assert run.samples().outcome.tolist() == [outcome]
    assert run.progress(3 * S).errors == (0 if complaint is None else 1)
    (ack,) = lines(acks)
    assert (ack["httpStatus"], ack["code"]) == (http_status, code)
    assert ack["paymentID"] == ("pay_1" if outcome == Outcome.OK else None)


CARD = {"cardDetails": {"number": "4111111111111111", "expiryMonth": "12", "expiryYear": "2030", "cvv": "737"}}


@pytest.mark.parametrize(
    ("content", "leaked"),
    [
        (PAYMENT, None),
        (b'{"data":{"paymentID":"pay_1","status":"completed"},"last4":"1111","cvvCheck":"pass"}', None),
        (b'{"code":"invalid_card","details":"4111111111111111 is refused"}', "card number"),
        (b"<p>4111 1111 1111 1111", "card number"),
        (b'{"number":"4111-1111-1111-1111"}', "card number"),
        (b'{"code":"invalid_card","details":{"cvv":"737"}}', "card security code"),
    ],
)
@pytest.mark.parametrize("http_status", [201, 400, 500])
def test_an_answer_is_searched_for_the_card_of_its_request(
    acks: io.BytesIO, http_status: int, content: bytes, leaked: str | None
) -> None:
    run = recorder(acks, due_s=[2])
    run.sent(0, Payment(method=0, amount=5, instrument=CARD, customer=0), 2 * S)
    run.answered(0, 3 * S, http_status, content)
    assert [ack["leaked"] for ack in lines(acks)] == [leaked]


def test_a_conflict_is_an_error_unless_the_payment_was_sent_twice(acks: io.BytesIO) -> None:
    run = recorder(acks, due_s=[1, 2, 3], index=[0, 1, 1])
    complaints = []
    for row in range(3):
        run.sent(row, pay(), 3 * S)
        complaints.append(run.answered(row, 4 * S, 409, b'{"code":"in_flight"}'))
    assert complaints == ["HTTP 409 in_flight", None, None]
    assert run.progress(4 * S).errors == 1
    assert run.samples().duplicate.tolist() == [False, False, True]
    assert [ack["key"] for ack in lines(acks)] == ["run-0", "run-1", "run-1"]


def test_no_answer_is_acknowledged_as_such(acks: io.BytesIO) -> None:
    run = recorder(acks, due_s=[2, 3])
    for row in (0, 1):
        run.sent(row, pay(), 3 * S)
    run.unanswered(0, 5 * S, Outcome.TRANSPORT_ERROR)
    run.give_up(6 * S)
    made = run.samples()
    assert made.outcome.tolist() == [Outcome.TRANSPORT_ERROR, Outcome.TIMEOUT]
    assert (made.http_status.tolist(), made.done_ns.tolist()) == ([0, 0], [5 * S, 6 * S])
    assert [(a["httpStatus"], a["paymentID"], a["bodySha256"], a["amount"]) for a in lines(acks)] == [(0, None, None, 5)] * 2


def test_a_dropped_request_was_never_sent_and_no_client_saw_anything(acks: io.BytesIO) -> None:
    run = recorder(acks, due_s=[2])
    run.dropped(0, pay())
    made, stats = run.samples(), run.stats(0.5)
    assert (made.outcome.tolist(), made.sent_ns.tolist(), made.done_ns.tolist()) == ([Outcome.DROPPED], [NEVER], [NEVER])
    assert (stats.scheduled, stats.sent, stats.dropped) == (1, 0, 1)
    assert lines(acks) == []


def test_a_run_that_was_cut_short_has_the_rows_it_reached_and_says_how_many_were_due(acks: io.BytesIO) -> None:
    run = recorder(acks, due_s=[2, 3, 4])
    run.sent(0, pay(), 2 * S)
    run.answered(0, 3 * S, 201, PAYMENT)
    assert len(run.samples()) == 1
    assert (run.stats(0.0).scheduled, run.stats(0.0).sent) == (3, 1)


def test_lag_is_judged_without_the_warm_up(acks: io.BytesIO) -> None:
    run = recorder(acks, due_s=[0.5, 2, 3])
    for row, late_ms in enumerate((900, 2, 4)):
        run.sent(row, pay(), [S // 2, 2 * S, 3 * S][row] + late_ms * 1_000_000)
    run.give_up(9 * S)
    assert run.stats(0.25).lag_p99_ms == 4
    assert run.stats(0.25).cpu_share == 0.25


def test_progress_tells_the_last_five_seconds_and_counts_from_the_start(acks: io.BytesIO) -> None:
    run = recorder(acks, due_s=[0.5, 8, 9, 20])
    for row, (due_ns, latency_ms) in enumerate([(S // 2, 100), (8 * S, 200), (9 * S, 400)]):
        run.sent(row, pay(), due_ns)
        run.answered(row, due_ns + latency_ms * 1_000_000, 201, PAYMENT)
    early, late = run.progress(S // 2), run.progress(10 * S)
    assert (early.phase, early.offered, late.phase, late.offered) == ("warm-up", 1, "draining", 3)
    assert run.progress(5 * S).phase == "steady"
    assert (late.sent, late.ok, late.errors, late.dropped, late.in_flight) == (3, 3, 0, 0, 0)
    assert (late.p50_ms, late.p95_ms, late.p99_ms) == (200, 400, 400)
    assert late.rate_per_s == 2 / (GLANCE_NS / S)
    assert (run.progress(30 * S).p50_ms, run.progress(30 * S).rate_per_s) == (None, 0)


REFUND = b'{"success":true,"data":{"refundID":"ref_1","paymentID":"pay_1","status":"completed","amount":2}}'
CAPTURE = (
    b'{"success":true,"data":{"paymentID":"pay_1","status":"completed","capture":{"captureID":"cap_1","status":"unknown"}}}'
)
DISPUTE = b'{"success":true,"data":{"disputeID":"dsp_1","paymentID":"pay_1","status":"lost"}}'


@pytest.mark.parametrize(
    ("step", "http_status", "content", "told"),
    [
        (Step("refund", "POST", "/r", {"amount": 2}), 201, REFUND, ("ref_1", "completed", None, 2)),
        (Step("capture", "POST", "/c", {}), 200, CAPTURE, ("cap_1", "unknown", "completed", 0)),
        (Step("accept", "POST", "/d"), 200, DISPUTE, ("dsp_1", "lost", None, 0)),
        (Step("status", "GET", "/s"), 200, PAYMENT, (None, None, "completed", 0)),
        (Step("return", "POST", "/b", form={"cres": "x"}), 303, b"", (None, None, None, 0)),
    ],
)
def test_a_step_of_a_journey_is_a_row_and_an_ack_of_what_it_was_about(
    acks: io.BytesIO, step: Step, http_status: int, content: bytes, told: tuple[object, ...]
) -> None:
    run = recorder(acks, due_s=[2.0, 9.5])
    row = run.add(step, index=1, number=3, payment_id="pay_1", due_ns=3 * S)
    run.sent(row, pay(), 4 * S)
    assert run.answered(row, 5 * S, http_status, content) is None
    made = run.samples()
    assert (made.index.tolist(), made.number.tolist(), made.step.tolist()) == ([1], [3], [STEPS.index(step.name)])
    assert (made.due_ns.tolist(), made.done_ns.tolist(), made.outcome.tolist()) == ([3 * S], [5 * S], [Outcome.OK])
    (ack,) = lines(acks)
    assert (ack["key"], ack["step"], ack["paymentID"]) == ("run-1-3", step.name, None if step.form else "pay_1")
    assert (ack.get("subjectID"), ack.get("subjectStatus"), ack["status"], ack["amount"]) == told
    assert run.stats(0.1).scheduled == 3


def test_steps_are_sorted_in_by_when_they_were_due_and_judged_until_the_end_of_the_schedule(acks: io.BytesIO) -> None:
    run = recorder(acks, due_s=[2.0, 9.0])
    rows = [run.add(Step("void", "POST", "/v"), index=0, number=n, payment_id="pay_1", due_ns=n * 4 * S) for n in (1, 2, 3)]
    for row in (0, 1, *rows):
        run.sent(row, pay(), 12 * S)
        run.answered(row, 13 * S, 200, PAYMENT)
    assert run.samples().due_ns.tolist() == [2 * S, 4 * S, 8 * S, 9 * S, 12 * S]
    assert run.samples().judged().number.tolist() == [0, 1, 2, 0]  # the third was due after the end
    assert len(answered_ns(run.samples())) == 2  # payments, not steps


def test_a_conflict_of_a_step_is_an_error_unless_it_was_sent_twice(acks: io.BytesIO) -> None:
    run = recorder(acks, due_s=[1])
    step, complaints = Step("refund", "POST", "/r"), []
    for number, twice, duplicate in ((1, False, False), (2, True, False), (2, True, True)):
        row = run.add(step, index=0, number=number, payment_id="pay_1", due_ns=S, twice=twice, duplicate=duplicate)
        run.sent(row, pay(), S)
        complaints.append(run.answered(row, 2 * S, 409, b'{"code":"in_flight"}'))
    assert complaints == ["HTTP 409 in_flight", None, None]
    assert refused(run.samples()).tolist() == [True, False, False]


def test_a_step_that_finds_no_room_is_dropped(acks: io.BytesIO) -> None:
    run = recorder(acks, due_s=[1])
    row = run.add(Step("void", "POST", "/v"), index=0, number=1, payment_id="pay_1", due_ns=S)
    run.dropped(row, pay())
    assert (run.stats(0).dropped, run.samples().outcome.tolist(), lines(acks)) == (1, [Outcome.DROPPED], [])


def test_journeys_are_counted_by_how_they_ended(acks: io.BytesIO) -> None:
    run = recorder(acks, due_s=[1])
    for ended in ("begun", "begun", "begun", "finished", "lost", "lost"):
        run.walked("void", ended)
    assert run.journeys() == {"void": Walked(3, 1, {"lost": 2})}
