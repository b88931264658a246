"""What witnesses wrote down is read back whole, or refused with file, line and reason; and the figures that are told of it."""

import base64
import json

import msgspec
import numpy as np
import pytest

from loadtests import collect, figures
from loadtests.auditor import audit
from loadtests.child import Stopped
from loadtests.evidence import EvidenceError, Haystack, Sent, haystack, load_acks, load_gateway, load_journal, webhook_bodies
from loadtests.figures import Spread
from loadtests.records import GatewayRecords
from loadtests.samples import NEVER, GeneratorStats, Outcome, Samples
from loadtests.stack import Files, Stack, export
from simulators.config import Simulators


@pytest.fixture
def folder(tmp_path, healthy):
    """The files of a healthy run."""
    rows = [row for table in GatewayRecords.__struct_fields__ for row in getattr(healthy.gateway, table)]
    plain = [msgspec.structs.replace(entry, body=msgspec.Raw(bytes(entry.body) or b"null")) for entry in healthy.journal]
    for name, lines in {"acks": healthy.acks, "gateway": rows, "journal": plain}.items():
        (tmp_path / f"{name}.ndjson").write_bytes(msgspec.json.Encoder().encode_lines(lines))
    return tmp_path


def test_what_was_written_is_read_back_whole(folder, healthy):
    assert load_acks(folder / "acks.ndjson") == healthy.acks
    assert load_gateway(folder / "gateway.ndjson") == healthy.gateway
    entries = load_journal(folder / "journal.ndjson")
    assert [entry.webhookID for entry in entries] == [entry.webhookID for entry in healthy.journal]
    read = msgspec.structs.replace(healthy, journal=entries)
    assert [found.violations for found in audit(read)] == [()] * 13


def test_columns_that_are_new_in_an_export_are_passed_over(folder):
    with (folder / "gateway.ndjson").open("a") as file:
        row = {"kind": "idempotency", "merchantID": "m", "key": "k", "paymentID": "pay_card", "responseStatus": None, "new": 1}
        file.write(json.dumps(row) + "\n")
    assert load_gateway(folder / "gateway.ndjson").idempotency[-1].key == "k"


@pytest.mark.parametrize(
    ("name", "load", "line", "reason"),
    [
        ("gateway", load_gateway, '{"kind":"payment"}', "missing required field"),
        ("gateway", load_gateway, '{"kind":"loan"}', "Invalid value 'loan'"),
        ("acks", load_acks, '{"index":1,"key":"k', "truncated"),
        ("journal", load_journal, "{}", "missing required field"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(folder, name, load, line, reason):
    path = folder / f"{name}.ndjson"
    number = len(path.read_bytes().splitlines()) + 1
    with path.open("a") as file:
        file.write(line)
    with pytest.raises(EvidenceError, match=rf"{name}\.ndjson: line {number}: .*{reason}"):
        load(path)


def test_a_journal_with_a_gap_is_refused_since_the_missing_entry_could_be_a_charge(folder):
    path = folder / "journal.ndjson"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    with pytest.raises(EvidenceError, match="line 3: seq is 4, expected 3"):
        load_journal(path)


def test_webhook_bodies_are_what_the_merchant_received(healthy):
    searched = webhook_bodies(healthy.journal).content
    assert searched.count(b'"event"') == sum(entry.operation == "webhook" for entry in healthy.journal)


def test_a_file_to_search_is_mapped_an_empty_one_is_empty_and_a_missing_one_is_none(tmp_path):
    (tmp_path / "log").write_bytes(b"hello")
    (tmp_path / "empty").touch()
    mapped = haystack("log", tmp_path / "log")
    assert mapped is not None
    assert mapped.content.find(b"llo") == 2
    assert haystack("log", tmp_path / "empty") == Haystack("log", b"")
    assert haystack("log", tmp_path / "missing") is None


def samples(*rows: tuple[int, int, Outcome]) -> Samples:
    """One row for each (method, latency in ms, outcome), all judged and due at 0."""
    n = len(rows)
    dropped = np.array([outcome == Outcome.DROPPED for *_, outcome in rows])
    answered = np.array([outcome in (Outcome.OK, Outcome.REJECTED) for *_, outcome in rows])
    return Samples(
        index=np.arange(n, dtype=np.uint32),
        due_ns=np.zeros(n, np.int64),
        sent_ns=np.where(dropped, NEVER, 0).astype(np.int64),
        done_ns=np.where(dropped, NEVER, [ms * 1_000_000 for _, ms, _ in rows]).astype(np.int64),
        method=np.array([method for method, *_ in rows], np.uint8),
        http_status=np.where(answered, 201, 0).astype(np.uint16),
        outcome=np.array([outcome for *_, outcome in rows], np.uint8),
        duplicate=np.zeros(n, np.bool_),
        warm_up=np.zeros(n, np.bool_),
        step=np.zeros(n, np.uint8),
        number=np.zeros(n, np.uint8),
        judged_from_ns=0,
        judged_until_ns=1,
    )


def test_the_generators_account_counts_outcomes_and_statuses_of_what_was_sent():
    rows = samples((0, 10, Outcome.OK), (0, 10, Outcome.OK), (1, 10, Outcome.TIMEOUT), (1, 0, Outcome.DROPPED))
    sent = Sent.of(rows, GeneratorStats(cpu_share=0.1, lag_p99_ms=1.0, scheduled=4, sent=3, dropped=1))
    assert sent == Sent(scheduled=4, sent=3, dropped=1, outcomes={"ok": 2, "timeout": 1}, http_statuses={201: 2, 0: 1})


def test_latencies_are_told_by_method_and_leave_out_what_was_never_sent():
    rows = [(0, 10, Outcome.OK), (0, 30, Outcome.OK), (1, 20, Outcome.OK), (1, 0, Outcome.DROPPED)]
    found = figures.latencies(samples(*rows))
    assert {name: (spread.count, spread.p50_ms, spread.max_ms) for name, spread in found.items()} == {
        "all": (3, 20.0, 30.0),
        "card": (2, 10.0, 30.0),
        "upi": (1, 20.0, 20.0),
    }


def test_a_percentile_that_no_answer_reached_has_no_value():
    spread = figures.latencies(samples((0, 10, Outcome.OK), (0, 10, Outcome.TIMEOUT)))["card"]
    assert (spread.count, spread.p50_ms, spread.max_ms) == (2, 10.0, None)


def test_unknown_outcomes_are_counted_with_how_long_they_took(healthy):
    found = figures.unknowns(healthy)
    assert found is not None
    assert (found.count, found.unresolved, found.manual_review, found.inquiries) == (2, 0, 0, 2)
    assert (found.to_resolve.count, found.to_resolve.p50_ms, found.to_resolve.max_ms) == (2, 500.0, 1000.0)


def test_the_asynchronous_rest_is_timed_from_the_customers_decision(healthy):
    found = figures.completion(healthy)
    assert found is not None
    decision = next(entry for entry in healthy.journal if entry.operation == "decide")
    assert found.decision_to_final == Spread(1, *[float(3000 - decision.at)] * 6)
    assert found.final_to_webhook.count == sum(entry.operation == "webhook" for entry in healthy.journal)


def test_there_are_no_figures_of_a_gateway_that_was_not_heard(healthy):
    foreign = msgspec.structs.replace(healthy, gateway=None, journal=None)
    assert figures.unknowns(foreign) is None
    assert figures.completion(foreign) is None


def test_open_work_is_told_by_kind(healthy):
    assert collect.open_work(healthy.gateway) == {"pending attempts": 1}
    waiting = [msgspec.structs.replace(row, state="pending") for row in healthy.gateway.deliveries]
    records = msgspec.structs.replace(healthy.gateway, attempts=(), deliveries=tuple(waiting))
    assert collect.open_work(records) == {"webhooks": len(waiting)}


@pytest.mark.parametrize(
    "form", [b"4111111111111111", b"4111 1111 1111 1111", b"4111-1111-1111-1111", (4111111111111111).to_bytes(8)]
)
def test_a_card_number_is_found_however_it_is_written(healthy, form):
    secrets = (collect.card_secret("4111111111111111"),)
    leaked = msgspec.structs.replace(healthy, secrets=secrets, haystacks=(Haystack("database", b"..." + form + b"..."),))
    assert next(found for found in audit(leaked) if found.number == 12).violations == (
        "card number 411111...1111 is in the database, at byte 3",
    )


async def test_how_the_gateway_stopped_is_part_of_the_evidence(tmp_path, healthy):
    async with Stack(Files.under(tmp_path), Simulators(), seed=1) as stack:
        (tmp_path / "metrics.txt").write_bytes(await collect.metrics_text(stack))
        await stack.kill_gateway()
        stopped = await stack.stop_gateway()
        await collect.save_journal(stack, tmp_path / "journal.ndjson")
        await export(stack.files.db, tmp_path / "gateway.ndjson")
        evidence = collect.stack_evidence(stack, tmp_path, acks=(), sent=healthy.sent, gateway_stopped=stopped)
        drained = collect.stack_evidence(
            stack, tmp_path, acks=(), sent=healthy.sent, gateway_stopped=Stopped("gateway", exit_code=0, killed=False)
        )
    assert drained.unclean_stop is None
    assert next(found for found in audit(evidence) if found.number == 6).violations == (
        "the gateway did not drain when it was told to stop: the gateway ended with exit code -9",
    )


def test_a_signing_secret_is_found_as_text_and_as_bytes(healthy):
    key = bytes(range(32))
    secret = collect.signing_secret("the webhook secret", "whsec_" + base64.b64encode(key).decode())
    for form in (base64.b64encode(key), key):
        leaked = msgspec.structs.replace(healthy, secrets=(secret,), haystacks=(Haystack("database", form),))
        assert next(found for found in audit(leaked) if found.number == 12).ok is False
