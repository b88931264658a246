"""Evidence of a small, healthy run: every path that a payment can take, on which all invariants hold."""

import hashlib
import json
from collections import Counter
from typing import Any

import msgspec
import pytest

from loadtests.evidence import Ack, Evidence, Haystack, JournalEntry, Secret, Sent, webhook_bodies
from loadtests.records import Attempt, Delivery, Entry, Event, GatewayRecords, Idempotency, Payment, Posting

MERCHANT, ENDPOINT = "merchant_123", "ep_merchant_123"
CARD_NUMBER, API_KEY = b"4111111111111111", b"sk_test_merchant_123"
CLOSED_AT_MS = 100_000


class Scene:
    """Writes down what each witness would say, payment by payment."""

    def __init__(self) -> None:
        self.acks: list[Ack] = []
        self.rows: dict[str, list[Any]] = {name: [] for name in GatewayRecords.__struct_fields__}
        self.journal: list[JournalEntry] = []

    def payment(self, name: str, method: str, status: str, *, ack: str | None, amount: int = 1000) -> None:
        self.rows["payments"].append(
            Payment(
                paymentID=f"pay_{name}",
                merchantID=MERCHANT,
                status=status,
                amount=amount,
                currency="INR",
                method=method,
                capturedAmount=amount if status == "completed" else 0,
                createdAt=1000,
                updatedAt=2000,
                transactionID=f"txn_{name}",
            )
        )
        self.rows["idempotency"].append(Idempotency(MERCHANT, f"key_{name}", f"pay_{name}", 201))
        self.ack(name, method, ack, amount)
        if status == "completed":
            self.book(name, method, amount)
        if status in {"completed", "failed", "expired"}:
            before = "requires_action" if status == "expired" else "processing"
            self.event(name, 1, f"payment.{before}", published=False)
            self.event(name, 2, f"payment.{status}", published=True, amount=amount)
        elif status == "requires_action":
            self.event(name, 1, "payment.processing", published=False)
            self.event(name, 2, "payment.requires_action", published=False)

    def ack(self, name: str, method: str, status: str | None, amount: int, **changes: Any) -> None:
        """`status` None: the client got no answer."""
        answered = {"paymentID": f"pay_{name}", "status": status, "bodySha256": hashlib.sha256(name.encode()).hexdigest()}
        seen = {"httpStatus": 201, **answered} if status else {"httpStatus": 0}
        fields = {"index": len(self.acks), "key": f"key_{name}", "merchantID": MERCHANT, "amount": amount, "currency": "INR"}
        self.acks.append(Ack(**{**fields, "method": method, **seen, **changes}))

    def attempt(self, name: str, provider: str, state: str, *, number: int = 1, **fields: Any) -> None:
        ids = {"reference": f"{name}_{number}", "paymentID": f"pay_{name}", "provider": provider, "state": state}
        self.rows["attempts"].append(Attempt(**{**ids, "amount": 1000, "currency": "INR", "createdAt": 1000, **fields}))

    def happened(self, provider: str, operation: str, reference: str, status: str | None, **fields: Any) -> None:
        charge = {"amount": 1000, "currency": "INR"} if status else {}
        entry = {"seq": len(self.journal) + 1, "at": 1000 + len(self.journal), "provider": provider, "operation": operation}
        self.journal.append(JournalEntry(**{**entry, "reference": reference, "status": status, **charge, **fields}))

    def book(self, name: str, method: str, amount: int) -> None:
        debit = Posting(account=f"receivable:{method}", currency="INR", debit=amount, credit=0)
        credit = Posting(account=f"payable:{MERCHANT}", currency="INR", debit=0, credit=amount)
        self.rows["entries"].append(Entry(f"ent_{name}", 2000, (debit, credit), f"pay_{name}"))

    def event(self, name: str, sequence: int, kind: str, *, published: bool, amount: int = 1000) -> None:
        event_id, payment_id = f"evt_{name}_{sequence}", f"pay_{name}"
        self.rows["events"].append(Event(event_id, payment_id, sequence, kind, published, 2000))
        if published:
            self.rows["deliveries"].append(Delivery(event_id, ENDPOINT, payment_id, sequence, "delivered", 1))
            told = {
                "status": kind.removeprefix("payment."),
                "amount": amount,
                "currency": "INR",
                "transactionID": f"txn_{name}",
            }
            body = {"event": kind, "data": {"paymentID": payment_id, **told}, "id": event_id, "sequence": sequence}
            raw = msgspec.Raw(json.dumps(body).encode())
            webhook = {"webhookID": event_id, "signatureValid": True, "duplicate": False, "body": raw}
            self.happened("merchant", "webhook", "merchant_123", None, **webhook)

    def evidence(self) -> Evidence:
        journal = tuple(self.journal)
        return Evidence(
            acks=tuple(self.acks),
            sent=sent_for(self.acks),
            gateway=GatewayRecords(**{name: tuple(rows) for name, rows in self.rows.items()}),
            journal=journal,
            endpoints={MERCHANT: (ENDPOINT,)},
            haystacks=(Haystack("database", b"token tok_1 visa 411111 1111"), webhook_bodies(journal)),
            secrets=(Secret("card number 411111...1111", (CARD_NUMBER,)), Secret("the API key", (API_KEY,))),
            closed_at_ms=CLOSED_AT_MS,
        )


def sent_for(acks: list[Ack]) -> Sent:
    statuses = Counter(ack.httpStatus for ack in acks)
    outcomes = Counter("timeout" if status == 0 else "ok" if status < 300 else "rejected" for status in statuses.elements())
    return Sent(scheduled=len(acks) + 1, sent=len(acks), dropped=1, outcomes=outcomes, http_statuses=statuses)


@pytest.fixture
def healthy() -> Evidence:
    scene = Scene()
    scene.happened("card", "create", "card_1", "approved", moved=1000)
    scene.attempt("card", "card", "succeeded", responseCode="00", resolvedAt=2000)
    scene.payment("card", "card", "completed", ack="completed")
    scene.ack("card", "card", "completed", 1000, duplicate=True)

    scene.happened("card", "create", "declined_1", "declined", responseCode="05")
    scene.attempt("declined", "card", "declined", responseCode="05", resolvedAt=2000)
    scene.payment("declined", "card", "failed", ack="failed")
    scene.ack("declined", "card", None, 1000, duplicate=True, httpStatus=409, code="request_in_flight")

    scene.happened("upi", "create", "upi_1", "pending")
    scene.happened("upi", "decide", "upi_1", "approved", moved=1000)
    scene.happened("upi", "callback", "upi_1", "approved", callbackStatus=200)
    scene.attempt("upi", "upi", "succeeded", resolvedAt=3000)
    scene.payment("upi", "upi", "completed", ack="requires_action")

    scene.happened("bank", "create", "bank_1", "pending")  # a customer who is still thinking
    scene.attempt("bank", "netbanking", "pending")
    scene.payment("bank", "netbanking", "requires_action", ack="requires_action")

    scene.happened("card", "create", "lost_1", "approved", moved=1000, fault="response_lost")
    scene.happened("card", "status", "lost_1", "approved")
    scene.attempt("lost", "card", "succeeded", unknownAt=2000, resolvedAt=2500, inquiries=1)
    scene.payment("lost", "card", "completed", ack=None)

    scene.happened("upi", "create", "expired_1", "pending")
    scene.happened("upi", "expire", "expired_1", "expired", responseCode="U69")
    scene.attempt("expired", "upi", "declined", responseCode="U69", resolvedAt=3000)
    scene.payment("expired", "upi", "expired", ack="requires_action")

    scene.happened("card", "create", "unavailable_1", None, fault="unavailable")
    scene.happened("card", "status", "unavailable_1", None)
    scene.happened("card", "reverse", "unavailable_1", "reversed")  # never arrived, and now never will
    scene.attempt("unavailable", "card", "reversed", unknownAt=1500, resolvedAt=2500, inquiries=1)
    scene.payment("unavailable", "card", "failed", ack="processing")

    scene.attempt("unsent", "card", "declined", resolvedAt=1500)  # no byte left the gateway
    scene.payment("unsent", "card", "failed", ack="failed")

    scene.ack("refused", "card", None, 1000, httpStatus=400, code="invalid_request")
    return scene.evidence()
