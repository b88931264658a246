"""Evidence of what comes after the payment: captures, a void, refunds, 3-D Secure, disputes; all as it should be. The fee is 2%."""

import json
from typing import Any

import msgspec

from loadtests.evidence import Evidence
from loadtests.records import Authentication, Capture, Delivery, Dispute, Entry, Event, Idempotency, Payment, Posting, Refund
from tests.loadtests.conftest import ENDPOINT, MERCHANT, Scene

FEE_BASIS_POINTS = 200
RECEIVABLE, PAYABLE, FEES = "receivable:card", f"payable:{MERCHANT}", "fees"


class Lives(Scene):
    """By card, 1000 each."""

    def begin(self, name: str, *states: str, manual: bool = False, numbers: int = 1, **fields: Any) -> None:
        """The payment with its events; the last of `states` is where it stands."""
        given = {"capturedAmount": 0, "refundedAmount": 0, "disputedAmount": 0, **fields}
        self.rows["payments"].append(
            Payment(
                paymentID=f"pay_{name}",
                merchantID=MERCHANT,
                status=states[-1],
                amount=1000,
                currency="INR",
                method="card",
                createdAt=1000,
                updatedAt=2000,
                transactionID=f"txn_{name}",
                captureMethod="manual" if manual else "automatic",
                **given,
            )
        )
        self.rows["idempotency"].append(Idempotency(MERCHANT, f"key_{name}", f"pay_{name}", 201, f"pay_{name}"))
        self.sequences = {**getattr(self, "sequences", {}), name: 0}
        self.tell(name, "payment.processing", published=False)
        for state in states:
            unpublished = state in {"processing", "requires_action"}
            self.tell(
                name, f"payment.{state}", published=not unpublished, status=state, amount=1000, transactionID=f"txn_{name}"
            )
        self.ack(name, "card", states[0], 1000)

    def tell(self, name: str, kind: str, *, published: bool = True, **data: Any) -> None:
        self.sequences[name] += 1
        sequence, payment_id = self.sequences[name], f"pay_{name}"
        event_id = f"evt_{name}_{sequence}"
        self.rows["events"].append(Event(event_id, payment_id, sequence, kind, published, 2000))
        if not published:
            return
        self.rows["deliveries"].append(Delivery(event_id, ENDPOINT, payment_id, sequence, "delivered", 1))
        told = {"paymentID": payment_id, "currency": "INR", **data}
        body = json.dumps({"event": kind, "data": told, "id": event_id, "sequence": sequence}).encode()
        seen = {"webhookID": event_id, "signatureValid": True, "duplicate": False, "body": msgspec.Raw(body)}
        self.happened("merchant", "webhook", MERCHANT, None, **seen)

    def post(self, name: str, entry: str, *postings: tuple[str, int]) -> None:
        """Debits are positive."""
        lines = tuple(Posting(account, "INR", max(0, net), max(0, -net)) for account, net in postings)
        self.rows["entries"].append(Entry(f"ent_{entry}", 2000, lines, f"pay_{name}"))

    def charged(self, name: str, entry: str, amount: int, fee: int) -> None:
        self.post(name, entry, (RECEIVABLE, amount), (PAYABLE, fee - amount), (FEES, -fee))

    def given_back(self, name: str, entry: str, amount: int) -> None:
        self.post(name, entry, (PAYABLE, amount), (RECEIVABLE, -amount))

    def asked(self, name: str, step: str, subject_id: str, became: str, amount: int, status: str | None = None) -> None:
        """What the merchant's system asked for after the payment, and was told of that, and of the payment (`status`)."""
        key = f"key_{subject_id}"
        self.rows["idempotency"].append(Idempotency(MERCHANT, key, None, 201, subject_id))
        self.ack(name, "card", "told", amount, key=key, step=step, subjectID=subject_id, subjectStatus=became)
        self.acks[-1] = msgspec.structs.replace(self.acks[-1], status=status)

    def capture(self, name: str, part: str, amount: int, fee: int, *, final: bool = False) -> None:
        capture_id, charge = f"cap_{part}", f"{name}_1"
        self.happened("card", "capture", charge, "approved", subject=capture_id, amount=amount, moved=amount)
        self.rows["captures"].append(Capture(capture_id, f"pay_{name}", "card", charge, amount, "INR", "completed", final))
        self.charged(name, capture_id, amount, fee)
        self.asked(name, "capture", capture_id, "completed", amount, status="partially_captured")

    def refund(self, name: str, part: str, amount: int, *states: str) -> None:
        """`states` at the provider, in turn; none: it refused."""
        refund_id, charge, txn = f"ref_{part}", f"{name}_1", f"txn_{part}"
        about = {"refundID": refund_id, "amount": amount, "transactionID": txn}
        self.tell(name, "refund.created", published=False)
        for state in states:
            moved = {"completed": -amount, "failed": amount if "completed" in states else 0}.get(state, 0)
            self.happened("card", "refund", charge, state, subject=refund_id, amount=amount, moved=moved)
            if state != "pending":
                self.tell(name, f"refund.{state}", status=state, **about)
        if not states:
            self.happened("card", "refund", charge, "approved", subject=refund_id)  # refused: the charge's own status
            self.tell(name, "refund.failed", status="failed", **about)
        if "completed" in states:
            self.given_back(name, refund_id, amount)
        if "failed" in states and "completed" in states:
            self.post(name, f"{refund_id}_failed", (RECEIVABLE, amount), (PAYABLE, -amount))
        ended = states[-1] if states else "failed"
        self.rows["refunds"].append(Refund(refund_id, txn, f"pay_{name}", "card", charge, amount, "INR", ended))
        self.asked(name, "refund", refund_id, states[0] if states and states[0] != "pending" else "pending", amount)

    def dispute(self, name: str, *statuses: str) -> None:
        dispute_id, at_provider = f"dsp_{name}", f"dp_{name}"
        kinds = {"needs_response": "opened", "warning_needs_response": "opened", "warning_closed": "closed"}
        for status in statuses:
            moved = {"needs_response": -1000, "won": 1000}.get(status, 0)
            self.happened("card", "dispute", f"{name}_1", status, subject=at_provider, moved=moved)
            about = {"disputeID": dispute_id, "status": status, "amount": 1000, "transactionID": f"txn_dsp_{name}"}
            self.tell(name, f"dispute.{kinds.get(status, status)}", **about)
        if "needs_response" in statuses:
            self.given_back(name, f"{dispute_id}_opened", 1000)
        if "won" in statuses:
            self.post(name, f"{dispute_id}_won", (RECEIVABLE, 1000), (PAYABLE, -1000))
        self.rows["disputes"].append(
            Dispute(dispute_id, f"txn_dsp_{name}", at_provider, f"pay_{name}", "card", statuses[-1], 1000, "INR")
        )
        self.asked(name, "evidence", dispute_id, statuses[-2], 0)

    def authenticate(self, name: str, status: str, *told: str) -> None:
        for trans_status in told:
            self.happened("card", "authenticate", f"aut_{name}", trans_status)
        self.rows["authentications"].append(Authentication(f"aut_{name}", f"pay_{name}", "card", status, told[-1]))

    def paid(self, name: str, **fields: Any) -> None:
        """Charged at once."""
        self.happened("card", "create", f"{name}_1", "approved", moved=1000)
        self.attempt(name, "card", "succeeded")
        self.begin(name, "completed", **{"capturedAmount": 1000, **fields})
        self.charged(name, name, 1000, 20)

    def authorized(self, name: str, state: str, *states: str, **fields: Any) -> None:
        self.happened("card", "create", f"{name}_1", "authorized")
        self.attempt(name, "card", state)
        self.begin(name, "authorized", *states, manual=True, **fields)


def lived() -> Evidence:
    """Every life a payment can have after it was asked for."""
    scene = Lives()
    scene.authorized("held", "authorized")
    scene.authorized("taken", "succeeded", "partially_captured", "completed", capturedAmount=600, refundedAmount=600)
    scene.capture("taken", "one", 300, 6)
    scene.capture("taken", "two", 300, 6, final=True)
    scene.refund("taken", "taken", 600, "completed")
    scene.authorized("void", "reversed", "voided")
    scene.happened("card", "reverse", "void_1", "reversed")

    scene.paid("back", refundedAmount=400)
    scene.refund("back", "now", 400, "completed")
    scene.refund("back", "undone", 300, "completed", "failed")
    scene.refund("back", "refused", 200)
    scene.paid("late", refundedAmount=1000)
    scene.refund("late", "late", 1000, "pending", "completed")

    scene.paid("lost", disputedAmount=1000)
    scene.dispute("lost", "needs_response", "lost")
    scene.paid("won")
    scene.dispute("won", "needs_response", "under_review", "won")
    scene.paid("asked")
    scene.dispute("asked", "warning_needs_response", "warning_closed")

    scene.happened("card", "create", "secure_1", "declined", responseCode="1A")
    scene.attempt("secure", "card", "declined")
    scene.authenticate("secure", "authenticated", "C", "Y")
    scene.happened("card", "create", "secure_2", "approved", moved=1000)
    scene.attempt("secure", "card", "succeeded", number=2)
    scene.begin("secure", "requires_action", "processing", "completed", capturedAmount=1000)
    scene.charged("secure", "secure", 1000, 20)
    scene.happened("card", "create", "wrong_1", "declined", responseCode="1A")
    scene.attempt("wrong", "card", "declined")
    scene.authenticate("wrong", "failed", "C", "N")
    scene.begin("wrong", "requires_action", "failed")
    scene.happened("card", "create", "thinking_1", "declined", responseCode="1A")
    scene.attempt("thinking", "card", "declined")
    scene.authenticate("thinking", "challenge", "C")
    scene.begin("thinking", "requires_action")
    return msgspec.structs.replace(scene.evidence(), fees={"card": FEE_BASIS_POINTS})
