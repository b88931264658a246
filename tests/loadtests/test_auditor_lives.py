"""What goes wrong with captures, refunds, disputes, voids and 3-D Secure is found: planted one at a time, as in test_auditor.py."""

import msgspec
import pytest

from loadtests.auditor import audit, success
from loadtests.evidence import Evidence
from loadtests.records import Idempotency, Refund
from tests.loadtests import lives
from tests.loadtests.planting import (
    Plant,
    ack,
    both,
    broken,
    copied,
    entry,
    gateway,
    journal,
    more,
    no_row,
    number,
    posting,
    row,
    without,
)

NOW, LATE, LOST, WON = "ref_now", "ref_late", "dsp_lost", "dsp_won"


@pytest.fixture(scope="module")
def lived() -> Evidence:
    return lives.lived()


def booked(entry_id: str, *accounts: tuple[str, int]) -> Plant:
    """Another entry in place of this one; debits are positive."""
    lines = tuple(posting(account, debit=max(0, net), credit=max(0, -net)) for account, net in accounts)
    return row("entries", {"entryID": entry_id}, postings=lines)


def body(event_id: str, **changes: object) -> Plant:
    """The webhook of an event tells something else."""

    def plant(evidence: Evidence) -> Evidence:
        assert evidence.journal is not None
        sent = next(entry for entry in evidence.journal if entry.webhookID == event_id)
        told = msgspec.json.decode(sent.body)
        told["data"] |= changes
        return entry({"webhookID": event_id}, body=msgspec.Raw(msgspec.json.encode(told)))(evidence)

    return plant


def one_more_refund(name: str, amount: int, *, here: bool = True) -> Plant:
    """A refund of 'back' that was made and moved; `here`: the gateway has its record."""

    def plant(evidence: Evidence) -> Evidence:
        moved = more(evidence, "card", "refund", "back_1", "completed", subject=f"ref_{name}", amount=amount, moved=-amount)
        made = Refund(f"ref_{name}", f"txn_{name}", "pay_back", "card", "back_1", amount, "INR", "completed")
        return gateway(moved, "refunds", lambda rows: [*rows, made]) if here else moved

    return plant


PLANTED: dict[str, tuple[Plant, dict[int, str]]] = {
    "one key, two refunds": (
        lambda e: gateway(e, "idempotency", lambda rows: [*rows, Idempotency("merchant_123", "key_ref_now", None, 201, LATE)]),
        {2: "key key_ref_now of merchant_123: 2 captures or refunds: ref_late, ref_now"},
    ),
    "a refund that moved twice": (
        lambda e: more(e, "card", "refund", "back_1", "completed", subject=NOW, amount=400, moved=-400),
        {2: "ref_now of charge back_1 moved money 2 times", 3: "refunded 400 INR in the gateway, 800 moved"},
    ),
    "a capture that moved twice": (
        lambda e: more(e, "card", "capture", "taken_1", "approved", subject="cap_one", amount=300, moved=300),
        {2: "taken_1 x 2", 3: "captured 600 INR in the gateway, 900 moved at the provider"},
    ),
    "a refund repeated under a new reference": (
        one_more_refund("again", 400, here=False),
        {
            3: "pay_back (completed): refunded 400 INR in the gateway, 800 moved at the provider",
            5: "refund ref_again of charge back_1 at card (completed, 400 INR, -400 moved) is unknown to the gateway",
            14: "8 capture and refund calls for 7 captures and refunds",
        },
    ),
    "refunded, and not booked": (
        no_row("entries", entryID="ent_ref_now"),
        {
            3: "captured 1000 INR less 400 refunded and 0 disputed, but the books say 1000",
            10: "are 3468, but 0 are settled and 3868 unsettled",
        },
    ),
    "a refund debited to the fees": (
        booked("ent_ref_now", ("fees", 400), ("receivable:card", -400)),
        {3: "980 credited to merchant_123 and -380 to fees", 11: "pay_back (completed): -380 INR kept as fees"},
    ),
    "a capture booked wholly to fees": (
        booked("ent_back", ("receivable:card", 1000), ("fees", -1000)),
        {11: "1000 INR kept as fees, but 200 basis points of 1000 are 20"},
    ),
    "a fee of another rate": (
        booked("ent_won", ("receivable:card", 1000), ("payable:merchant_123", -970), ("fees", -30)),
        {11: "pay_won (completed): 30 INR kept as fees, but 200 basis points of 1000 are 20"},
    ),
    "a failed refund whose money was not booked back": (
        no_row("entries", entryID="ent_ref_undone_failed"),
        {3: "but the books say 300", 10: "unsettled"},
    ),
    "a chargeback that is not booked": (
        no_row("entries", entryID="ent_dsp_lost_opened"),
        {3: "captured 1000 INR less 0 refunded and 1000 disputed, but the books say 1000", 10: "unsettled"},
    ),
    "a dispute that was won, and whose money stays away": (
        row("payments", {"paymentID": "pay_won"}, disputedAmount=1000),
        {3: "disputed 1000 INR in the gateway, 0 moved", 10: "unsettled", 11: "disputes come to 0 INR, the payment says 1000"},
    ),
    "more refunded than captured": (
        both(one_more_refund("more", 700), row("payments", {"paymentID": "pay_back"}, refundedAmount=1100)),
        {
            3: "less 1100 refunded",
            4: "refunds of 1100 INR are open or completed, but 1000 were captured",
            7: "3 events refund.created, not 4",
            10: "unsettled",
        },
    ),
    "refunds that are open beyond what was captured": (
        lambda e: gateway(
            e, "refunds", lambda rows: copied(rows, where={"refundID": LATE}, refundID="ref_x", status="pending")
        ),
        {
            4: "pay_late (completed): refunds of 2000 INR are open or completed, but 1000 were captured",
            6: "refund ref_x of payment pay_late is still pending after 0 inquiries; at the provider it is unknown there",
            7: "1 events refund.created, not 2",
        },
    ),
    "refunded, and lost in a dispute": (
        lambda e: gateway(
            e, "refunds", lambda rows: copied(rows, where={"refundID": LATE}, refundID="ref_x", paymentID="pay_lost")
        ),
        {
            4: "1000 INR refunded and 1000 lost in disputes, but 1000 were captured",
            5: "refund ref_x of payment pay_lost is completed in the gateway, but the provider knows nothing of it",
            7: "pay_lost: 0 events refund.created, not 1",
            11: "refunds come to 1000 INR, the payment says 0",
        },
    ),
    "completed here, and pending there": (
        entry({"subject": LATE, "status": "completed"}, status="pending"),
        {5: "refund ref_late of payment pay_late is completed in the gateway, pending at the provider"},
    ),
    "a refund of another amount at the provider": (
        entry({"subject": NOW}, amount=399),
        {5: "refund ref_now of payment pay_back is over 400 INR of back_1, at the provider over 399 INR of back_1"},
    ),
    "a capture that the provider never saw": (
        lambda e: journal(e, lambda rows: without(rows, subject="cap_two")),
        {
            3: "captured 600 INR in the gateway, 300 moved",
            4: "600 refunded and 0 charged back at the provider, but 300 INR were captured there",
            5: "capture cap_two of payment pay_taken is completed in the gateway, but the provider knows nothing of it",
        },
    ),
    "a dispute that the gateway does not know": (
        both(
            no_row("disputes", disputeID=LOST),
            lambda e: gateway(e, "idempotency", lambda rows: without(rows, subjectID=LOST)),
        ),
        {
            5: "dispute dp_lost of charge lost_1 at card (lost, 1000 INR, -1000 moved) is unknown to the gateway",
            7: "1 events dispute.lost, not 0",
            8: "dsp_lost of payment pay_lost (key key_dsp_lost, acknowledged needs_response) does not exist",
            9: "which is None",
            11: "disputes come to 0 INR, the payment says 1000",
        },
    ),
    "lost here, and won there": (
        row("disputes", {"disputeID": WON}, status="lost"),
        {
            5: "dispute dsp_won of payment pay_won is lost in the gateway, won at the provider",
            7: "1 events dispute.won, not 0",
            11: "disputes come to 1000 INR, the payment says 0",
        },
    ),
    "authenticated, though the issuer said no": (
        entry({"reference": "aut_secure", "status": "Y"}, status="N"),
        {5: "authentication aut_secure of payment pay_secure is authenticated in the gateway, N at the issuer"},
    ),
    "charged again without an authentication": (
        row("authentications", {"authenticationID": "aut_secure"}, status="failed"),
        {5: "authentication aut_secure of payment pay_secure is failed, but the card was charged 2 times"},
    ),
    "authenticated, and never charged": (
        row("authentications", {"authenticationID": "aut_wrong"}, status="authenticated"),
        {5: "aut_wrong"},
    ),
    "authenticated at the issuer, and never charged": (
        both(
            row("authentications", {"authenticationID": "aut_wrong"}, status="authenticated"),
            entry({"reference": "aut_wrong", "status": "N"}, status="Y"),
        ),
        {5: "authentication aut_wrong of payment pay_wrong is authenticated, but the card was not charged again"},
    ),
    "a dispute that the provider never opened": (
        lambda e: journal(e, lambda rows: without(rows, subject="dp_asked")),
        {5: "dispute dsp_asked of payment pay_asked is unknown to the provider"},
    ),
    "a dispute over another amount": (
        entry({"subject": "dp_asked"}, amount=999),
        {5: "dispute dsp_asked of payment pay_asked is over 1000 INR, at the provider over 999 INR"},
    ),
    "a refund of no payment": (
        row("refunds", {"refundID": "ref_refused"}, paymentID="pay_ghost"),
        {
            5: "refund ref_refused of payment pay_ghost belongs to a payment",
            7: "pay_back",
            8: "belongs to payment pay_ghost",
            9: "of ref_refused of payment pay_back, which is None",
        },
    ),
    "a challenge that is over, and that the gateway still waits for": (
        lambda e: more(e, "card", "authenticate", "aut_thinking", "N"),
        {6: "payment pay_thinking is stuck in requires_action"},
    ),
    "an authentication that is still open": (
        row("authentications", {"authenticationID": "aut_wrong"}, status="intent"),
        {6: "authentication aut_wrong of payment pay_wrong is still intent"},
    ),
    "a capture that no event tells of": (
        both(
            row("payments", {"paymentID": "pay_taken"}, captureMethod="manual"),
            lambda e: gateway(
                e, "captures", lambda rows: copied(rows, where={"captureID": "cap_two"}, captureID="cap_x", amount=0)
            ),
        ),
        {5: "capture cap_x", 7: "payment pay_taken: 2 events tell of 3 captures"},
    ),
    "a void that the provider does not know": (
        lambda e: journal(e, lambda rows: without(rows, reference="void_1", status="reversed")),
        {5: "attempt void_1 of payment pay_void is reversed in the gateway, authorized at the provider"},
    ),
    "captured in full, and still authorized": (
        both(row("attempts", {"reference": "taken_1"}, state="authorized"), entry({"subject": "cap_two"}, moved=700)),
        {
            3: "1000 moved",
            5: "attempt taken_1 of payment pay_taken is authorized in the gateway, authorized with 1000 captured",
        },
    ),
    **{
        f"a refund that is still {state}": (
            both(
                row("refunds", {"refundID": "ref_refused"}, status=state),
                no_row("events", eventID="evt_back_9"),
                no_row("deliveries", eventID="evt_back_9"),
                lambda e: journal(e, lambda rows: without(rows, webhookID="evt_back_9")),
            ),
            {6: f"refund ref_refused of payment pay_back is still {state} after 0 inquiries"},
        )
        for state in ("pending", "unknown")
    },
    "evidence that never reached the issuer": (
        row("disputes", {"disputeID": WON}, responding="evidence"),
        {6: "dispute dsp_won of payment pay_won: the merchant's response (evidence) has not reached the provider"},
    ),
    "an authentication that nobody works on": (
        row("authentications", {"authenticationID": "aut_thinking"}, status="intent"),
        {6: "payment pay_thinking is stuck in requires_action"},
    ),
    "an event that is missing": (
        no_row("events", eventID="evt_held_1"),
        {7: "payment pay_held: event evt_held_2 is number 2, not 1"},
    ),
    "a step that is not in the table": (
        row("events", {"eventID": "evt_held_1"}, type="payment.partially_captured"),
        {7: "payment pay_held: event evt_held_1 says partially_captured, which cannot follow pending"},
    ),
    "a refund acknowledged, and lost": (
        ack({"key": "key_ref_late"}, subjectID="ref_ghost"),
        {2: "key_ref_late", 8: "ref_ghost of payment pay_late (key key_ref_late, acknowledged pending) does not exist"},
    ),
    "a refund acknowledged with another amount": (
        ack({"key": "key_ref_late"}, amount=999),
        {8: "ref_late of payment pay_late (key key_ref_late, acknowledged pending): asked for 999 INR, the gateway has 1000"},
    ),
    "a refund acknowledged for another payment": (
        ack({"key": "key_ref_late"}, paymentID="pay_won"),
        {8: "belongs to payment pay_late"},
    ),
    "a capture acknowledged as failed": (
        ack({"key": "key_cap_one"}, subjectStatus="failed"),
        {8: "cap_one of payment pay_taken (key key_cap_one, acknowledged failed) is completed now"},
    ),
    "a dispute acknowledged as lost, and won": (
        ack({"key": "key_dsp_won"}, subjectStatus="lost"),
        {8: "dsp_won of payment pay_won (key key_dsp_won, acknowledged lost) is won now"},
    ),
    "a webhook of a refund with another amount": (
        body("evt_late_4", amount=999),
        {9: "tells completed, 999, INR, txn_late of ref_late of payment pay_late, which is completed, 1000, INR, txn_late"},
    ),
    "a webhook of a refund with another status": (
        body("evt_late_4", status="failed"),
        {9: "tells failed, 1000, INR, txn_late of ref_late"},
    ),
    "a webhook of a dispute of another payment": (
        body("evt_lost_3", disputeID=WON),
        {9: "of dsp_won of payment pay_lost, which is None"},
    ),
    "a void that is told to nobody": (
        both(
            row("events", {"eventID": "evt_void_3"}, published=False),
            no_row("deliveries", eventID="evt_void_3"),
            lambda e: journal(e, lambda rows: without(rows, webhookID="evt_void_3")),
        ),
        {9: "payment pay_void (voided): 0 events tell the merchant how it ended, not 1"},
    ),
    "captures that do not add up": (
        row("captures", {"captureID": "cap_one"}, amount=200),
        {
            5: "capture cap_one",
            8: "cap_one of payment pay_taken (key key_cap_one, acknowledged completed): asked for 300 INR, the gateway has 200",
            11: "captures come to 500 INR, the payment says 600",
        },
    ),
    "refunds called again and again": (
        both(*[lambda e, n=n: more(e, "card", "refund", "late_1", "completed", subject=LATE, attempt=n) for n in range(2, 10)]),
        {14: "15 capture and refund calls for 7 captures and refunds: more than the 7 allowed"},
    ),
}


def test_what_comes_after_the_payment_breaks_nothing_if_it_is_right(lived):
    assert {found.number: found.violations for found in audit(lived) if found.ok is not True} == {}
    assert number(lived, 6).note == "1 waiting for the customer"


def test_a_void_and_what_the_customer_or_issuer_refused_are_outcomes(lived):
    assert success(lived) == (10, 10)  # not the customer who is still being challenged


@pytest.mark.parametrize("name", PLANTED)
def test_the_auditor_finds(name, lived):
    plant, expected = PLANTED[name]
    found = broken(plant(lived))
    assert expected.keys() == found.keys()
    for invariant, part in expected.items():
        assert part in found[invariant]


def test_a_dispute_that_opened_as_the_gateway_was_stopped_it_need_not_know(lived):
    at = lived.closed_at_ms - 1_000
    opened = more(lived, "card", "dispute", "won_1", "needs_response", subject="dp_new", moved=-1000, at=at)
    assert broken(opened) == {}
    assert "1 disputes opened as the gateway was stopped" in number(opened, 5).note
