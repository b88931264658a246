"""Each invariant has violations planted into healthy evidence, one at a time, and must find exactly those."""

import msgspec
import pytest

from loadtests.auditor import NAMED_MAX, audit, success
from loadtests.evidence import Evidence, StatusAnswer
from loadtests.records import Delivery, Entry, Event, GatewayRecords, Settlement, SettlementLine
from tests.loadtests.planting import (
    Plant,
    ack,
    both,
    broken,
    changed,
    copied,
    entry,
    entry_with,
    gateway,
    journal,
    more,
    no_row,
    number,
    posting,
    row,
    second_charge,
    sent,
    stored,
    told,
    told_body,
    without,
)

RECEIVABLE, PAYABLE = posting("receivable:card", debit=1000), posting("payable:merchant_123", credit=1000)
WEBHOOK = {"webhookID": "evt_card_2"}
EVENT_1 = {"eventID": "evt_card_1"}
DUPLICATE = {"key": "key_card", "duplicate": True}

# What is planted, and for each invariant that it breaks a part of the first violation: the ids must be in it.
PLANTED: dict[str, tuple[Plant, dict[int, str]]] = {
    "an unbalanced entry": (
        entry_with(RECEIVABLE, posting("payable:merchant_123", credit=999)),
        {1: "entry ent_card of payment pay_card", 3: "999 credited to merchant_123 and 0 to fees", 10: "2999 unsettled"},
    ),
    "a balance across two currencies": (
        entry_with(RECEIVABLE, posting("payable:merchant_123", credit=1000, currency="USD")),
        {1: "ent_card", 3: "posted to payable:merchant_123 in USD", 10: "payable:merchant_123 in INR"},
    ),
    "a negative posting": (
        entry_with(RECEIVABLE, posting("payable:merchant_123", debit=-1000)),
        {1: "negative amount to payable:merchant_123"},
    ),
    "a capture credited to another merchant": (
        entry_with(RECEIVABLE, posting("payable:somebody_else", credit=1000)),
        {3: "payment pay_card: posted to payable:somebody_else in INR", 10: "payable:merchant_123 in INR"},
    ),
    "a capture owed by another provider": (
        entry_with(posting("receivable:upi", debit=1000), PAYABLE),
        {3: "payment pay_card: posted to receivable:upi in INR"},
    ),
    "a fee that the merchant pays twice": (
        entry_with(RECEIVABLE, posting("payable:merchant_123", debit=20), posting("fees", credit=1020)),
        {3: "-20 credited to merchant_123 and 1020 to fees", 11: "1020 INR kept as fees, but 0 basis points of 1000 are 0"},
    ),
    "a posting to an account of nobody": (
        entry_with(RECEIVABLE, PAYABLE, posting("suspense", debit=1), posting("suspense", credit=1)),
        {3: "payment pay_card: posted to suspense in INR"},
    ),
    "an entry of no payment": (
        row("entries", {"entryID": "ent_card"}, paymentID=None),
        {3: "entries of payment None, which does not exist"},
    ),
    "an entry without postings": (entry_with(), {1: "ent_card", 3: "pay_card", 10: "are 3000, but 0 are settled and 2000"}),
    "a second charge under a new reference": (lambda e: second_charge(e, "card"), {2: "card_1 x 1, card_2 x 1", 3: "pay_card"}),
    "a second charge for a payment without a key": (
        both(no_row("idempotency", key="key_lost"), lambda e: second_charge(e, "lost")),
        {2: "payment pay_lost: charged more than once", 3: "2000 moved"},
    ),
    "a second charge under the same reference": (
        lambda e: more(e, "card", "create", "card_1", "approved", moved=1000),
        {2: "card_1 x 2", 3: "2000 moved"},
    ),
    "one key, two payments": (ack(DUPLICATE, paymentID="pay_lost"), {2: "key_card"}),
    "one key, two answers": (ack(DUPLICATE, bodySha256="other"), {2: "key_card", 8: "key_card"}),
    "money that moved for a failed payment": (
        entry({"reference": "declined_1"}, status="approved", moved=1000),
        {3: "pay_declined (failed): captured 0 INR in the gateway, 1000 moved", 5: "declined_1"},
    ),
    "captured less than what moved": (
        row("payments", {"paymentID": "pay_card"}, capturedAmount=900),
        {3: "pay_card", 10: "are 2900"},
    ),
    "captured and not booked": (
        no_row("entries", entryID="ent_upi"),
        {3: "pay_upi (completed): captured 1000 INR, but the books say 0", 10: "2000 unsettled"},
    ),
    "more captured than asked for": (
        both(
            row("payments", {"paymentID": "pay_card"}, capturedAmount=2000),
            entry({"reference": "card_1"}, moved=2000),
            entry_with(posting("receivable:card", debit=2000), posting("payable:merchant_123", credit=2000)),
        ),
        {4: "captured 2000 INR of an amount of 1000"},
    ),
    "completed, and nothing captured": (
        row("payments", {"paymentID": "pay_unsent"}, status="completed"),
        {
            3: "pay_unsent",
            7: "pay_unsent is completed",
            8: "pay_unsent",
            9: "pay_unsent (completed): the merchant is told payment.failed",
        },
    ),
    "a charge that the gateway does not know": (
        lambda e: more(e, "card", "create", "ghost_1", "approved", moved=1000),
        {5: "charge ghost_1 at card (approved, 1000 INR, 1000 moved)"},
    ),
    "a known reference at another provider": (lambda e: more(e, "upi", "create", "card_1", "pending"), {5: "card_1 at upi"}),
    "another amount at the provider": (row("attempts", {"reference": "card_1"}, amount=1100), {5: "card_1"}),
    "another currency at the provider": (entry({"reference": "card_1"}, currency="USD"), {5: "at the provider over 1000 USD"}),
    "approved here, declined there": (row("attempts", {"reference": "declined_1"}, state="succeeded"), {5: "declined_1"}),
    "approved here, expired there": (row("attempts", {"reference": "expired_1"}, state="succeeded"), {5: "expired_1"}),
    "declined here, approved there": (row("attempts", {"reference": "card_1"}, state="declined"), {5: "card_1"}),
    "approved, and never sent": (
        row("attempts", {"reference": "unsent_1"}, state="succeeded"),
        {5: "never reached the provider"},
    ),
    "pending, and never sent": (row("attempts", {"reference": "unsent_1"}, state="pending"), {5: "unsent_1", 6: "unsent_1"}),
    "an attempt of no payment": (
        no_row("payments", paymentID="pay_unavailable"),
        {5: "unavailable_1", 8: "pay_unavailable", 9: "pay_unavailable"},
    ),
    "a reference used twice": (
        lambda e: gateway(e, "attempts", lambda rows: copied(rows, where={"reference": "declined_1"}, createdAt=1)),
        {5: "reference declined_1 is used by more than one attempt"},
    ),
    **{
        f"an attempt that is still {state}": (
            row("attempts", {"reference": "lost_1"}, state=state),
            {6: f"lost_1 of payment pay_lost is still {state}"},
        )
        for state in ("intent", "sent", "unknown", "reversing")
    },
    "pending, though the customer decided": (
        row("attempts", {"reference": "upi_1"}, state="pending"),
        {5: "upi_1", 6: "upi_1"},
    ),
    "a payment that nobody works on": (
        row("payments", {"paymentID": "pay_unavailable"}, status="processing"),
        {
            6: "pay_unavailable is stuck",
            7: "its events end in failed",
            9: "pay_unavailable (processing): the merchant is told payment.failed",
        },
    ),
    "a gateway that had to be killed": (
        lambda e: msgspec.structs.replace(e, unclean_stop="the gateway ended with exit code -9"),
        {6: "the gateway did not drain when it was told to stop: the gateway ended with exit code -9"},
    ),
    "acknowledged, and lost": (
        ack({"key": "key_unsent"}, paymentID="pay_ghost"),
        {2: "key_unsent", 8: "payment pay_ghost (key key_unsent, acknowledged failed) does not exist in the gateway"},
    ),
    "acknowledged as completed, and failed": (
        ack({"key": "key_declined", "duplicate": False}, status="completed"),
        {8: "pay_declined"},
    ),
    "acknowledged as failed, and completed": (ack(DUPLICATE, status="failed"), {8: "pay_card"}),
    "acknowledged with another amount": (
        ack({"key": "key_upi"}, amount=999),
        {8: "asked for 999 INR, the gateway has 1000 INR"},
    ),
    "acknowledged with another method": (ack({"key": "key_upi"}, method="card"), {8: "pay_upi"}),
    "acknowledged to another merchant": (ack({"key": "key_upi"}, merchantID="merchant_2"), {8: "pay_upi"}),
    "acknowledged without a payment": (ack({"key": "key_upi"}, paymentID=None), {8: "key_upi"}),
    "accepted, and refused when repeated": (ack(DUPLICATE, httpStatus=422, paymentID=None, status=None), {8: "key_card"}),
    "rejected, and charged": (ack({"key": "key_lost"}, httpStatus=400), {8: "key_lost"}),
    "an event without a delivery": (
        no_row("deliveries", eventID="evt_card_2"),
        {9: "evt_card_2 (payment.completed of payment pay_card)"},
    ),
    "a delivery that is still waiting": (row("deliveries", {"eventID": "evt_card_2"}, state="pending"), {9: "evt_card_2"}),
    "marked delivered, and never received": (lambda e: journal(e, lambda rows: without(rows, **WEBHOOK)), {9: "evt_card_2"}),
    "a webhook with a bad signature": (entry(WEBHOOK, signatureValid=False), {9: "webhook evt_card_2: the signature"}),
    "a webhook whose body changes": (
        lambda e: journal(e, lambda rows: copied(rows, where=WEBHOOK, body=msgspec.Raw(b'{"id":"evt_card_2"}'))),
        {9: "evt_card_2 came with 2 different bodies"},
    ),
    "a webhook that tells of something else": (
        entry(
            WEBHOOK,
            body=told_body("card", "completed", paymentID="pay_upi"),
        ),
        {9: "webhook evt_card_2 does not say what event payment.completed of payment pay_card is"},
    ),
    **{
        f"a webhook with another {field}": (told(**{field: value}), {9: f"webhook evt_card_2 tells {sentence}"})
        for field, value, sentence in [
            ("status", "failed", "failed, 1000, INR, txn_card of payment pay_card, which is completed, 1000, INR, txn_card"),
            ("amount", 999, "completed, 999, INR, txn_card"),
            ("currency", "USD", "completed, 1000, USD, txn_card"),
            ("transactionID", "txn_upi", "completed, 1000, INR, txn_upi"),
        ]
    },
    "a failed payment that is announced as completed": (
        both(
            row("events", {"eventID": "evt_declined_2"}, type="payment.completed"),
            entry({"webhookID": "evt_declined_2"}, body=told_body("declined", "completed")),
        ),
        {
            7: "payment pay_declined is failed, but its events end in completed",
            9: "payment pay_declined (failed): the merchant is told payment.completed by event evt_declined_2",
        },
    ),
    "a payment whose end is told to nobody": (
        both(
            row("events", {"eventID": "evt_card_2"}, published=False),
            no_row("deliveries", eventID="evt_card_2"),
            lambda e: journal(e, lambda rows: without(rows, **WEBHOOK)),
        ),
        {9: "payment pay_card (completed): 0 events tell the merchant how it ended, not 1"},
    ),
    "a payment whose end is told twice": (
        both(
            lambda e: gateway(e, "events", lambda rows: copied(rows, where={"eventID": "evt_card_2"}, eventID="evt_card_3")),
            lambda e: gateway(
                e, "deliveries", lambda rows: copied(rows, where={"eventID": "evt_card_2"}, eventID="evt_card_3")
            ),
            lambda e: journal(
                e,
                lambda rows: copied(
                    rows, where=WEBHOOK, webhookID="evt_card_3", body=told_body("card", "completed", id="evt_card_3")
                ),
            ),
        ),
        {
            7: "event evt_card_3 is number 2, not 3",
            9: "payment pay_card (completed): 2 events tell the merchant how it ended, not 1",
        },
    ),
    "a dead letter that was never tried": (
        row("deliveries", {"eventID": "evt_card_2"}, state="dead", tries=0),
        {9: "evt_card_2 (payment.completed of payment pay_card) is a dead letter for endpoint ep_merchant_123, and was never"},
    ),
    "a dead letter that the receiver took": (
        row("deliveries", {"eventID": "evt_card_2"}, state="dead"),
        {9: "the receiver failed 0 of 1 tries"},
    ),
    "a dead letter that the receiver never saw": (
        both(
            row("deliveries", {"eventID": "evt_card_2"}, state="dead", tries=8),
            lambda e: journal(e, lambda rows: without(rows, **WEBHOOK)),
        ),
        {9: "the receiver failed 0 of 8 tries"},
    ),
    "a webhook without a usable body": (entry(WEBHOOK, body=msgspec.Raw(b"null")), {9: "evt_card_2 has an unusable body"}),
    "a webhook of no event": (
        lambda e: journal(e, lambda rows: copied(rows, where=WEBHOOK, webhookID="evt_ghost_1")),
        {9: "evt_ghost_1"},
    ),
    "events out of order": (
        both(
            row("events", EVENT_1, published=True),
            lambda e: gateway(
                e, "deliveries", lambda rows: copied(rows, where={"eventID": "evt_card_2"}, eventID="evt_card_1")
            ),
            lambda e: journal(
                e,
                lambda rows: copied(
                    rows,
                    where=WEBHOOK,
                    webhookID="evt_card_1",
                    body=told_body("card", "processing", id="evt_card_1", sequence=1),
                ),
            ),
        ),
        {9: "payment pay_card: event evt_card_1 (number 1) came after evt_card_2 (number 2)"},
    ),
    "a card number in the database": (
        stored("database", b"\x00 4111111111111111 \x00"),
        {12: "card number 411111...1111 is in the database, at byte 2"},
    ),
    "an API key in the log": (stored("gateway log", b"Bearer sk_test_merchant_123"), {12: "the API key is in the gateway log"}),
    "a security code as JSON": (
        stored("gateway log", b'{"cvv": "123"}'),
        {12: "security code is in the gateway log, at byte 2"},
    ),
    "a security code in escaped JSON": (stored("gateway log", rb'{"body":"{\\"cvv\\":\\"1234\\"}"}'), {12: "security code"}),
    "a security code as a field": (stored("metrics", b"cvc=123"), {12: "security code"}),
    "a card number in an answer": (
        ack({"key": "key_refused"}, leaked="card number"),
        {12: "request 10 (key key_refused): its card number is in the answer (400)"},
    ),
    "a request that never ended": (sent(sent=12, scheduled=13), {14: "12 requests were sent, but 11 ended"}),
    "a request that was never sent": (sent(dropped=0), {14: "12 requests were due, but 11 sent and 0 dropped"}),
    "an answer that no client noted": (
        sent(http_statuses={201: 10, 0: 1, 400: 1, 409: 1}),
        {14: "HTTP 201: 10 measured, 8 noted"},
    ),
    "retries beyond the budget": (
        both(*[lambda e: more(e, "card", "create", "unavailable_1", None)] * 2),
        {14: "9 provider calls for 8 attempts"},
    ),
    "an inquiry storm": (
        both(*[lambda e: more(e, "card", "status", "lost_1", "approved")] * 14),
        {14: "17 status and reverse calls at card for 2 attempts that were ever open: more than the 16 allowed"},
    ),
    "a storm of reversals": (
        both(*[lambda e: more(e, "card", "reverse", "unavailable_1", "reversed")] * 14),
        {14: "17 status and reverse calls at card"},
    ),
    "inquiries about customers who are thinking": (
        both(*[lambda e: more(e, "bank", "status", "bank_1", "pending")] * 9),
        {14: "9 status and reverse calls at bank for 1 attempts that were ever open: more than the 8 allowed"},
    ),
}


def test_a_healthy_run_breaks_nothing(healthy):
    found = audit(healthy)
    assert [invariant.number for invariant in found] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14]
    assert {invariant.number: invariant.violations for invariant in found if invariant.ok is not True} == {}
    assert all(invariant.checked for invariant in found)


@pytest.mark.parametrize("name", PLANTED)
def test_the_auditor_finds(name, healthy):
    plant, expected = PLANTED[name]
    found = broken(plant(healthy))
    assert expected.keys() == found.keys()
    for invariant, part in expected.items():
        assert part in found[invariant]


def test_every_invariant_has_a_planted_violation(healthy):
    assert {number for _, expected in PLANTED.values() for number in expected} == {found.number for found in audit(healthy)}


def test_a_day_that_was_settled_and_paid_breaks_nothing(healthy):
    assert broken(settled(healthy)) == {}


def test_a_settlement_that_tells_of_another_is_found(healthy):
    evidence = settled(healthy)
    lie = row("events", {"eventID": "evt_day_1"}, settlementID="set_other")(evidence)
    assert broken(lie).keys() == {9}


DAY = {"settlementID": "set_day"}
SETTLED: dict[str, tuple[Plant, set[int], str]] = {
    "entries of a settlement that does not exist": (
        row("entries", {"entryID": "ent_upi"}, settledIn="set_ghost"),
        {10},
        "entries are in settlement set_ghost, which does not exist",
    ),
    "an entry of another merchant": (
        row("entries", {"entryID": "ent_card"}, postings=(RECEIVABLE, posting("payable:somebody_else", credit=1000))),
        {3, 10},
        "settlement set_day of merchant_123 for 2030-03-17 has entries of payable:somebody_else in INR",
    ),
    "more than its entries": (row("settlements", DAY, net=1100), {10, 11}, "is over 1100 INR, its entries come to 1000"),
    "completed, and never paid": (
        no_row("entries", entryID="ent_out_day_01_paid"),
        {10},
        "set_day of merchant_123 for 2030-03-17 is completed, with 0 of 1000 paid in the books",
    ),
    "lines that do not add up": (
        row("settlements", DAY, lines=(SettlementLine("card", 1000, 20, 0, 0),)),
        {11},
        "set_day of merchant_123 for 2030-03-17 is over 1000 INR, its lines come to 980",
    ),
    "a debt that was forgotten": (
        row("settlements", DAY, openingBalance=-300),
        {11},
        "opens with -300 and is over 1000 INR, but pays 1000",
    ),
}


@pytest.mark.parametrize("name", SETTLED)
def test_a_settlement_that_is_wrong_is_found(name, healthy):
    plant, numbers, sentence = SETTLED[name]
    found = {invariant.number: invariant.violations for invariant in audit(plant(settled(healthy))) if invariant.ok is False}
    assert found.keys() == numbers
    assert any(sentence in violation for violations in found.values() for violation in violations)


def settled(evidence: Evidence) -> Evidence:
    """With a settlement of what `card` earned: its entries belong to no payment, its event goes to the merchant."""
    own = ("set_day", None)
    books = [
        Entry(
            "ent_set_day_remitted_card",
            3000,
            (posting("bank", debit=1000), posting("receivable:card", credit=1000)),
            None,
            *own,
        ),
        Entry(
            "ent_out_day_01_paid", 3000, (posting("payable:merchant_123", debit=1000), posting("bank", credit=1000)), None, *own
        ),
    ]
    line = SettlementLine("card", 1000, 0, 0, 0)
    made = Settlement("set_day", "merchant_123", "2030-03-17", "INR", "completed", 0, 1000, 1000, (line,))
    evidence = row("entries", {"entryID": "ent_card"}, settledIn="set_day")(evidence)
    evidence = gateway(evidence, "entries", lambda rows: rows + books)
    evidence = gateway(evidence, "settlements", lambda rows: [*rows, made])
    told = Event("evt_day_1", None, 1, "settlement.completed", published=True, createdAt=3000, settlementID="set_day")
    evidence = gateway(evidence, "events", lambda rows: [*rows, told])
    delivery = Delivery("evt_day_1", evidence.endpoints["merchant_123"][0], None, 1, "delivered", 1)
    evidence = gateway(evidence, "deliveries", lambda rows: [*rows, delivery])
    data = {"settlementID": "set_day", "status": "completed", "amount": 1000, "currency": "INR"}
    body = {"event": "settlement.completed", "data": data, "id": "evt_day_1", "sequence": 1}
    seen = {"webhookID": "evt_day_1", "signatureValid": True, "duplicate": False}
    return more(evidence, "merchant", "webhook", "merchant_123", None, body=msgspec.Raw(msgspec.json.encode(body)), **seen)


def test_a_charge_that_was_reversed_does_not_count_as_a_second_one(healthy):
    twice = gateway(
        second_charge(healthy, "card"), "attempts", lambda rows: changed(rows, where={"reference": "card_2"}, state="reversed")
    )
    assert broken(more(twice, "card", "reverse", "card_2", "reversed", moved=-1000)) == {}


def test_a_customer_who_has_not_decided_is_counted_and_is_no_violation(healthy):
    assert number(healthy, 6).note == "1 waiting for the customer"


def untold(name: str) -> Plant:
    """The payment's last event, as if it had not happened."""
    event_id = {"eventID": f"evt_{name}_2"}
    return both(
        no_row("events", **event_id),
        no_row("deliveries", **event_id),
        lambda e: journal(e, lambda rows: without(rows, webhookID=f"evt_{name}_2")),
    )


def test_manual_review_is_counted_apart(healthy):
    review = row("attempts", {"reference": "lost_1"}, state="manual_review")(healthy)
    review = row("payments", {"paymentID": "pay_lost"}, status="processing", capturedAmount=0)(untold("lost")(review))
    assert broken(no_row("entries", entryID="ent_lost")(review)) == {}
    assert "1 in manual review" in number(review, 6).note
    assert "1 in manual review" in number(review, 3).note


@pytest.mark.parametrize(("decided_ms_before_the_end", "allowed"), [(0, True), (4_999, True), (5_001, False)])
def test_what_was_decided_as_the_gateway_was_stopped_it_need_not_know(healthy, decided_ms_before_the_end, allowed):
    assert healthy.closed_at_ms is not None
    at = healthy.closed_at_ms - decided_ms_before_the_end
    late = more(healthy, "bank", "decide", "bank_1", "approved", moved=1000, at=at)
    assert broken(late).keys() == (set() if allowed else {3, 5, 6})


@pytest.mark.parametrize("failure", [{"delayMs": 5_000.0}, {"fault": "unavailable"}])
def test_a_dead_letter_after_tries_that_the_receiver_failed_is_counted_and_is_no_violation(healthy, failure):
    dead = row("deliveries", {"eventID": "evt_card_2"}, state="dead")(healthy)
    dead = journal(dead, lambda rows: changed(rows, where=WEBHOOK, **failure))
    assert broken(dead) == {}
    assert number(dead, 9).note == "1 dead-lettered"


def test_an_event_delivered_again_with_the_same_body_is_no_violation(healthy):
    again = journal(healthy, lambda rows: copied(rows, where=WEBHOOK, duplicate=True))
    assert broken(again) == {}


@pytest.mark.parametrize("content", [b'"cvv_check": "pass"', b'"cvv": null', b'"cvv": "***"', b"cvv: 12345"])
def test_words_about_security_codes_are_no_security_codes(healthy, content):
    assert broken(stored("gateway log", content)(healthy)) == {}


def test_a_secret_that_was_found_is_not_repeated_in_the_report(healthy):
    found = number(stored("gateway log", b"4111111111111111 sk_test_merchant_123")(healthy), 12)
    assert len(found.violations) == 2
    assert not any("4111111111111111" in violation or "sk_test" in violation for violation in found.violations)


def test_many_violations_are_told_up_to_a_bound(healthy):
    ghosts = healthy
    for i in range(NAMED_MAX + 5):
        ghosts = more(ghosts, "card", "reverse", f"ghost_{i}", "reversed")
    violations = number(ghosts, 5).violations
    assert len(violations) == NAMED_MAX + 1
    assert violations[-1] == "and 5 more"


def test_without_gateway_and_journal_only_the_clients_account_is_checked(healthy):
    foreign = msgspec.structs.replace(healthy, gateway=None, journal=None, haystacks=(), closed_at_ms=None)
    assert {found.number: found.ok for found in audit(foreign)} == {
        1: None, 2: None, 3: None, 4: None, 5: None, 6: None, 7: None, 8: True, 9: None, 10: None, 11: None, 12: None, 14: True,
    }  # fmt: skip
    assert "the gateway's records are not there" in number(foreign, 3).note
    assert "final states unknown" in number(foreign, 8).note


@pytest.mark.parametrize(
    ("answer", "ok"),
    [
        (StatusAnswer(200, "completed", 1000, "INR"), True),
        (StatusAnswer(200, "failed", 1000, "INR"), False),
        (StatusAnswer(200, "completed", 1, "INR"), False),
        (StatusAnswer(404), False),
        (StatusAnswer(503), True),
    ],
)
def test_a_foreign_gateway_is_asked_for_what_it_acknowledged(healthy, answer, ok):
    first = next(ack for ack in healthy.acks if ack.paymentID == "pay_card")
    foreign = msgspec.structs.replace(healthy, gateway=None, journal=None, acks=(first,), statuses={"pay_card": answer})
    found = number(foreign, 8)
    assert found.ok is ok
    assert ("could not be asked for" in found.note) is (answer.httpStatus == 503)


def test_success_counts_payments_that_reached_what_was_decided(healthy):
    # card, declined, upi, lost, expired; not the thinking customer. Missed: what the gateway ended without an issuer's decision.
    assert success(healthy) == (5, 7)


@pytest.mark.parametrize(
    "plant",
    [
        row("payments", {"paymentID": "pay_card"}, status="failed"),
        row("payments", {"paymentID": "pay_upi"}, status="processing"),
        row("payments", {"paymentID": "pay_declined"}, status="completed"),
        row("payments", {"paymentID": "pay_declined"}, status="processing"),
    ],
)
def test_success_misses_a_payment_that_ended_otherwise(healthy, plant):
    assert success(plant(healthy)) == (4, 7)


def test_success_counts_a_charge_that_the_gateway_lost(healthy):
    assert success(more(healthy, "card", "create", "ghost_1", "approved", moved=1000)) == (5, 8)


def test_success_counts_an_approval_that_was_reversed_as_missed(healthy):
    undone = row("payments", {"paymentID": "pay_upi"}, status="failed")(
        more(healthy, "upi", "reverse", "upi_1", "reversed", moved=-1000)
    )
    assert success(undone) == (4, 7)


def test_success_misses_what_the_gateway_fails_without_asking_anyone(healthy):
    nobody = journal(healthy, lambda rows: [entry for entry in rows if entry.provider == "merchant"])
    assert success(nobody) == (0, 8)
    assert success(msgspec.structs.replace(nobody, gateway=GatewayRecords())) == (0, healthy.sent.sent)


@pytest.mark.parametrize(
    "plant",
    [
        row("payments", {"paymentID": "pay_bank"}, status="failed"),
        row("attempts", {"reference": "bank_1"}, state="declined"),
        lambda e: more(e, "bank", "decide", "bank_1", "approved", moved=1000),
        entry({"reference": "bank_1"}, status=None),
    ],
)
def test_success_waits_only_for_customers_who_have_not_decided_on_both_sides(healthy, plant):
    assert success(plant(healthy)) == (5, 8)


def test_a_secret_in_the_answer_of_a_foreign_gateway_is_found(healthy):
    foreign = msgspec.structs.replace(healthy, gateway=None, journal=None, haystacks=())
    assert number(foreign, 12).ok is None
    assert broken(ack({"key": "key_upi"}, leaked="card security code")(foreign)).keys() == {12}


def test_success_is_unknown_without_the_providers(healthy):
    assert success(msgspec.structs.replace(healthy, journal=None)) is None
    assert success(msgspec.structs.replace(healthy, gateway=None)) is None
