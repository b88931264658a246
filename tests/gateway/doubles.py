"""Stand-ins for what the gateway's ports connect it to, and makers of the values that pass through them."""

import asyncio
import base64
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec

from gateway.core.authentication import Authentication, Told, id_for
from gateway.core.dispute import Dispute
from gateway.core.endpoint import Endpoint
from gateway.core.operation import Operation
from gateway.core.outcome import (
    Approved,
    Authorized,
    Declined,
    Expired,
    GaveUp,
    Irreversible,
    Lapsed,
    NextAction,
    NotFound,
    NotSent,
    Outcome,
    Overdue,
    Pending,
    Reversed,
    Unknown,
)
from gateway.core.payment import Attempt, Method, Payment, begin
from gateway.ports import (
    CardSecret,
    Claim,
    Commit,
    Delivery,
    DisputeResponse,
    DisputeTold,
    Instrument,
    Receipt,
    Response,
    StoredResponse,
)
from gateway.runtime import rfc3339

NOW_MS = 1_900_000_000_000  # 2030-03-17T17:46:40Z
PATIENCE_S = 10  # nothing here takes a second; whoever waits longer waits for something that does not come

NUMBER, CVV = "4111111111111111", "737"
KEY_ID = "0123456789abcdef"

# One of each, as a provider or our own recovery would find it.
OUTCOMES: dict[str, Outcome] = {
    "Approved": Approved("prov_1", "00"),
    "Authorized": Authorized("prov_1", "00"),
    "Declined": Declined("51", "insufficient_funds", "prov_1"),
    "Expired": Expired("U69", "prov_1"),
    "Pending": Pending("prov_1", NextAction("upi_collect")),
    "NotSent": NotSent("ClientConnectorError"),
    "Unknown": Unknown("TimeoutError"),
    "Reversed": Reversed(),
    "Irreversible": Irreversible("prov_1", "00"),
    "NotFound": NotFound(),
    "Overdue": Overdue(),
    "Lapsed": Lapsed(),
    "GaveUp": GaveUp(),
}

# DOMAIN.md's table of a payment's statuses. A second partial capture stays where the first one led.
STEPS_ALLOWED: dict[str, set[str]] = {
    "pending": {"requires_action", "processing", "failed", "expired"},
    "requires_action": {"processing", "failed", "expired", "voided"},
    "processing": {"authorized", "completed", "failed", "requires_action"},
    "authorized": {"partially_captured", "completed", "voided", "expired"},
    "partially_captured": {"partially_captured", "completed"},
    "completed": set(),
    "voided": set(),
    "failed": set(),
    "expired": set(),
}
STEP_PAIRS = {(before, after) for before, allowed in STEPS_ALLOWED.items() for after in allowed}


def secret(name: str) -> str:
    return "whsec_" + base64.b64encode(f"{name:*<32}".encode()).decode()


# Values


def make_payment(n: int = 1, **fields: Any) -> Payment:
    """Payment number `n`, as it is before its first step."""
    serial = f"{n:032x}"
    given: dict[str, Any] = {
        "id": f"pay_{serial}",
        "version": 1,
        "merchant_id": "merchant_123",
        "order_id": f"order-{n}",
        "method": "card",
        "amount_minor": 1000,
        "currency": "INR",
        "status": "pending",
        "transaction_id": f"txn_{serial}",
        "details": msgspec.Raw(b'{"customer":{"email":"a@example.com"}}'),
        "created_at_ms": NOW_MS,
        "updated_at_ms": NOW_MS,
    }
    return Payment(**given | fields)


def make_attempt(payment: Payment, **fields: Any) -> Attempt:
    given: dict[str, Any] = {
        "reference": f"att_{payment.id.removeprefix('pay_')}_01",
        "payment_id": payment.id,
        "provider": payment.method,
        "state": "intent",
        "amount_minor": payment.amount_minor,
        "currency": payment.currency,
        "due_at_ms": NOW_MS + 2_500,
        "expires_at_ms": NOW_MS + 60_000,
        "created_at_ms": NOW_MS,
    }
    return Attempt(**given | fields)


def make_operation(payment: Payment, kind: str = "refund", n: int = 1, **fields: Any) -> Operation:
    """Capture or refund number `n` of a payment, for all of its amount."""
    given: dict[str, Any] = {
        "id": f"{'cap' if kind == 'capture' else 'ref'}_{n:032x}",
        "kind": kind,
        "payment_id": payment.id,
        "merchant_id": payment.merchant_id,
        "provider": payment.method,
        "charge_reference": f"att_{payment.id.removeprefix('pay_')}_01",
        "amount_minor": payment.amount_minor,
        "currency": payment.currency,
        "due_at_ms": NOW_MS + 2_500,
        "created_at_ms": NOW_MS,
        "updated_at_ms": NOW_MS,
    }
    return Operation(**given | fields)


def make_authentication(payment: Payment, **fields: Any) -> Authentication:
    given: dict[str, Any] = {
        "id": id_for(payment.id),
        "payment_id": payment.id,
        "provider": payment.method,
        "amount_minor": payment.amount_minor,
        "currency": payment.currency,
        "decline_code": "1A",
        "due_at_ms": NOW_MS + 2_500,
        "expires_at_ms": NOW_MS + 60_000,
        "created_at_ms": NOW_MS,
        "updated_at_ms": NOW_MS,
    }
    return Authentication(**given | fields)


def make_dispute(payment: Payment, n: int = 1, **fields: Any) -> Dispute:
    """Dispute number `n` of a payment, about all of its amount."""
    given: dict[str, Any] = {
        "id": f"dsp_{n:032x}",
        "provider_id": f"dp_{n}",
        "provider": payment.method,
        "payment_id": payment.id,
        "merchant_id": payment.merchant_id,
        "reason": "fraudulent",
        "status": "needs_response",
        "amount_minor": payment.amount_minor,
        "currency": payment.currency,
        "respond_by_ms": NOW_MS + 7 * 24 * 3600 * 1000,
        "due_at_ms": NOW_MS + 3_600_000,
        "created_at_ms": NOW_MS,
        "updated_at_ms": NOW_MS,
    }
    return Dispute(**given | fields)


def intent(n: int = 1, *, claim: Claim | None = None, attempt: dict[str, Any] | None = None, **fields: Any) -> Commit:
    """What commit 1 of payment number `n` writes."""
    payment = make_payment(n, **fields)
    begun = begin(payment, make_attempt(payment, **attempt or {}), timestamp=rfc3339(NOW_MS))
    return Commit(
        claim=claim,
        payment=begun.payment,
        attempt=begun.attempt,
        events=begun.events,
    )


def make_claim(key: str = "key-1", *, payment: int = 1, fingerprint: bytes = b"f" * 16, at_ms: int = NOW_MS) -> Claim:
    return Claim("merchant_123", key, fingerprint, f"pay_{payment:032x}", at_ms, at_ms - 24 * 3600 * 1000)


def answer_to(claim: Claim, body: bytes = b'{"success":true}') -> StoredResponse:
    return StoredResponse(claim.merchant_id, claim.key, Response(201, body))


def make_delivery(payment_id: str, sequence: int = 2, *, endpoint_id: str = "ep_1", **fields: Any) -> Delivery:
    given: dict[str, Any] = {
        "event_id": f"evt_{payment_id.removeprefix('pay_')}_{sequence}",
        "state": "pending",
        "tries": 0,
        "due_at_ms": NOW_MS,
    }
    return Delivery(endpoint_id=endpoint_id, subject_id=payment_id, sequence=sequence, **given | fields)


def make_endpoint(endpoint_id: str = "ep_1", **fields: Any) -> Endpoint:
    given: dict[str, Any] = {
        "merchant_id": "merchant_123",
        "url": f"http://merchant.example/{endpoint_id}",
        "secret": b"sealed",
        "created_at_ms": NOW_MS,
        "updated_at_ms": NOW_MS,
    }
    return Endpoint(id=endpoint_id, **given | fields)


INSTRUMENTS: dict[Method, Instrument] = {
    "card": Instrument(card=CardSecret(NUMBER, "12", "2035", CVV, "A Person")),
    "upi": Instrument(upi_flow="collect", vpa="success@upi"),
    "netbanking": Instrument(bank_code="HDFC0000001", return_url="https://shop.example/back"),
}


# Ports


class ManualClock:
    def __init__(self, at_ms: int = NOW_MS) -> None:
        self.at_ms = at_ms

    def now_ms(self) -> int:
        return self.at_ms

    def advance(self, ms: int) -> None:
        self.at_ms += ms


class CountingIds:
    def __init__(self) -> None:
        self._last = 0

    def new(self, prefix: str) -> str:
        self._last += 1
        return f"{prefix}_{self._last:032x}"


class Held:
    """An answer that is held back: `reached` is set once it is asked for, `let_go` lets it come."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.reached = asyncio.Event()
        self.let_go = asyncio.Event()

    async def __call__(self) -> Any:
        self.reached.set()
        async with asyncio.timeout(PATIENCE_S):
            await self.let_go.wait()
        return self._answer


class ScriptedProvider:
    """A `Provider` that answers what it was told to, in turn, and fails the test when it is asked for more."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.references: set[str] = set()
        self._answers: dict[str, deque[Any]] = defaultdict(deque)

    def will(self, operation: str, *answers: Outcome | DisputeTold | Callable[[], Awaitable[Any]]) -> None:
        """`operation` is create, inquire, reverse, authenticate, inquire_authentication, capture, refund or dispute."""
        self._answers[operation].extend(answers)

    async def create(self, payment: Payment, attempt: Attempt, instrument: Instrument, *, deadline_s: float) -> Outcome:
        return await self._answer("create", attempt.reference)

    async def inquire(self, attempt: Attempt, *, deadline_s: float) -> Outcome:
        return await self._answer("inquire", attempt.reference)

    async def reverse(self, attempt: Attempt, *, deadline_s: float) -> Outcome:
        return await self._answer("reverse", attempt.reference)

    async def authenticate(
        self, payment: Payment, authentication: Authentication, card: CardSecret, *, deadline_s: float
    ) -> Told | Declined | NotSent | Unknown:
        return await self._answer("authenticate", authentication.id)

    async def inquire_authentication(
        self, authentication: Authentication, *, deadline_s: float
    ) -> Told | Declined | NotSent | Unknown:
        return await self._answer("inquire_authentication", authentication.id)

    async def capture(self, operation: Operation, *, deadline_s: float) -> Outcome:
        return await self._answer("capture", operation.id)

    async def refund(self, operation: Operation, *, deadline_s: float) -> Outcome:
        return await self._answer("refund", operation.id)

    async def dispute(
        self, provider_id: str, response: DisputeResponse | None, *, deadline_s: float
    ) -> DisputeTold | Declined | NotSent | Unknown:
        return await self._answer("dispute", provider_id)

    def read_callback(self, body: bytes, attempt: Attempt) -> Outcome:
        """Callbacks carry the name of one of `OUTCOMES`."""
        return OUTCOMES[msgspec.json.decode(body)["says"]]

    def read_authentication(self, body: bytes, authentication: Authentication) -> Told | Unknown:
        """Callbacks about authentications carry what is told, or nothing that can be read."""
        said = msgspec.json.decode(body)["says"]
        return Unknown("nothing") if said is None else msgspec.convert(said, Told)

    def read_refund(self, body: bytes, operation: Operation) -> Outcome:
        return OUTCOMES[msgspec.json.decode(body)["says"]]

    def read_dispute(self, body: bytes) -> DisputeTold | Unknown:
        """Callbacks about disputes carry one."""
        return msgspec.json.decode(msgspec.json.encode(msgspec.json.decode(body)["says"]), type=DisputeTold)

    async def _answer(self, operation: str, reference: str) -> Any:
        self.calls.append(operation)
        self.references.add(reference)
        assert self._answers[operation], f"{operation} was not expected here"
        answer = self._answers[operation].popleft()
        return await answer() if callable(answer) else answer


class Post(NamedTuple):
    url: str
    headers: dict[str, str]
    body: bytes

    @property
    def event_id(self) -> str:
        return self.headers["webhook-id"]


class ScriptedCourier:
    """A `Courier` whose receiver does what `behave` says; by default it takes everything."""

    def __init__(self, behave: Callable[[Post], Awaitable[Receipt] | Receipt] = lambda _: Receipt(200)) -> None:
        self.behave = behave
        self.posts: list[Post] = []
        self._arrival = asyncio.Condition()

    @property
    def event_ids(self) -> list[str]:
        return [post.event_id for post in self.posts]

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Receipt:
        post = Post(url, headers, body)
        self.posts.append(post)
        async with self._arrival:
            self._arrival.notify_all()
        await asyncio.sleep(0)  # a network is never done at once: others get their turn
        receipt = self.behave(post)
        return receipt if isinstance(receipt, Receipt) else await receipt

    async def until(self, count: int) -> None:
        """Waits until `count` posts have arrived."""
        async with asyncio.timeout(PATIENCE_S), self._arrival:
            await self._arrival.wait_for(lambda: len(self.posts) >= count)
