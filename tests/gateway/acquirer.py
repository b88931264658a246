"""A provider with books of its own, written from docs/providers.md: the other witness of the stateful test.

It always keeps to its protocol. What goes wrong is the network: a call may not be sent, get lost on the way there (`unreached`), on the
way back (`lost`), arrive after the caller has given up (`late`), or hang before or after it is carried out (`held_before`, `held_after`).
"""

import asyncio
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from gateway.core.operation import Operation
from gateway.core.outcome import (
    Approved,
    Authorized,
    Declined,
    Expired,
    Irreversible,
    NextAction,
    NotFound,
    NotSent,
    Outcome,
    Pending,
    Reversed,
    Unknown,
)
from gateway.core.payment import Attempt, Method, Payment
from gateway.ports import DisputeResponse, DisputeTold, Instrument
from tests.gateway.doubles import ManualClock

AUTHORIZATION_LIFETIME_MS = 7 * 24 * 3600 * 1000

Mode = Literal["answer", "lost", "unreached", "not_sent", "late", "held_before", "held_after"]


class Charge(msgspec.Struct):
    reference: str
    order_id: str
    amount: int
    status: str
    created_at_ms: int
    captured: int = 0
    by_capture: bool = False


class Refund(msgspec.Struct):
    reference: str
    charge: Charge
    amount: int
    status: str


class Disputed(msgspec.Struct):
    id: str
    charge: Charge
    amount: int
    status: str


class Acquirer:
    def __init__(self, method: Method, clock: ManualClock) -> None:
        self._name = "bank" if method == "netbanking" else method
        self._waits = method != "card"
        self._clock = clock
        self.charges: dict[str, Charge] = {}
        self.captures: dict[str, int] = {}
        self.refunds: dict[str, Refund] = {}
        self.disputes: dict[str, Disputed] = {}
        self.mail: list[tuple[str, bytes]] = []
        """Callbacks that have not been delivered: what they are about, and their bodies."""
        self.mode: Mode = "answer"
        self.fate = "approve"
        self.held: list[asyncio.Event] = []
        self.under_way: list[Callable[[], Any]] = []
        self.reached = asyncio.Event()
        self._told: list[Any] = []

    # The network

    async def _call(self, act: Callable[[], Any]) -> Any:
        mode = self.mode
        if mode == "not_sent":
            return NotSent("ClientConnectorError")
        if mode == "unreached":
            return Unknown("TimeoutError")
        if mode == "late":
            self.under_way.append(act)
            return Unknown("TimeoutError")
        if mode == "held_before":
            await self._hold()
        answer = act()
        if mode == "held_after":
            await self._hold()
        return Unknown("TimeoutError") if mode == "lost" else answer

    async def _hold(self) -> None:
        go = asyncio.Event()
        self.held.append(go)
        self.reached.set()
        await go.wait()

    # Charges

    async def create(self, payment: Payment, attempt: Attempt, instrument: Instrument, *, deadline_s: float) -> Outcome:
        fate = self.fate
        return await self._call(lambda: self._create(payment, attempt, fate))

    def _create(self, payment: Payment, attempt: Attempt, fate: str) -> Outcome:
        if attempt.reference not in self.charges:
            charge = Charge(attempt.reference, payment.order_id, attempt.amount_minor, "pending", self._clock.now_ms())
            self.charges[attempt.reference] = charge
            if fate == "decline":
                charge.status = "declined"
            elif not self._waits and payment.capture_method == "manual":
                charge.status = "authorized"
            elif not self._waits:
                charge.status, charge.captured = "approved", charge.amount
        return self._as_is(attempt.reference)

    async def inquire(self, attempt: Attempt, *, deadline_s: float) -> Outcome:
        return await self._call(lambda: self._as_is(attempt.reference) if attempt.reference in self.charges else NotFound())

    async def reverse(self, attempt: Attempt, *, deadline_s: float) -> Outcome:
        return await self._call(lambda: self._reverse(attempt))

    def _reverse(self, attempt: Attempt) -> Outcome:
        charge = self._charge(attempt.reference)
        if charge is None:
            self.charges[attempt.reference] = Charge(
                attempt.reference, "", attempt.amount_minor, "reversed", self._clock.now_ms()
            )
        elif charge.by_capture or self._given_back(charge):
            told = self._as_is(attempt.reference)
            return Irreversible(attempt.reference, "00") if isinstance(told, Approved) else told
        elif charge.status in ("pending", "authorized", "approved"):
            charge.status, charge.captured = "reversed", 0
        return self._as_is(attempt.reference)

    def _charge(self, reference: str) -> Charge | None:
        charge = self.charges.get(reference)
        if charge is not None and self._clock.now_ms() >= charge.created_at_ms + AUTHORIZATION_LIFETIME_MS:
            charge.status = {"authorized": "expired", "partially_captured": "approved"}.get(charge.status, charge.status)
        return charge

    def _as_is(self, reference: str) -> Outcome:
        charge = self._charge(reference)
        assert charge is not None
        match charge.status:
            case "pending":
                return Pending(reference, NextAction("upi_collect"))
            case "authorized" | "partially_captured":
                return Authorized(reference, "00")
            case "approved":
                return Approved(reference, "00")
            case "declined":
                return Declined("51", "insufficient_funds", reference)
            case "expired":
                return Expired("U69", reference)
            case _:
                return Reversed()

    def decide(self, charge: Charge, status: str) -> None:
        """The customer decides, or their time is up."""
        if charge.status == "pending":
            charge.status, charge.captured = status, charge.amount if status == "approved" else 0
            self._post("charge", self._as_is(charge.reference), reference=charge.reference)

    # Captures and refunds

    async def capture(self, operation: Operation, *, deadline_s: float) -> Outcome:
        return await self._call(lambda: self._capture(operation))

    def _capture(self, operation: Operation) -> Outcome:
        charge = self._charge(operation.charge_reference)
        if operation.id in self.captures:
            return Approved(operation.charge_reference, "00")
        if charge is None or charge.status not in ("authorized", "partially_captured"):
            return Declined("not_capturable", "not_capturable")
        if operation.amount_minor > charge.amount - charge.captured:
            return Declined("capture_exceeds_authorized", "capture_exceeds_authorized")
        charge.captured += operation.amount_minor
        charge.by_capture = True
        charge.status = "approved" if operation.final or charge.captured == charge.amount else "partially_captured"
        self.captures[operation.id] = operation.amount_minor
        return Approved(charge.reference, "00")

    async def refund(self, operation: Operation, *, deadline_s: float) -> Outcome:
        fate = self.fate
        return await self._call(lambda: self._refund(operation, fate))

    def _refund(self, operation: Operation, fate: str) -> Outcome:
        if operation.id not in self.refunds:
            charge = self._charge(operation.charge_reference)
            if charge is None or operation.amount_minor > charge.captured - self._given_back(charge):
                return Declined("refund_exceeds_captured", "refund_exceeds_captured")
            status = "pending" if fate == "later" else "completed"
            self.refunds[operation.id] = Refund(operation.id, charge, operation.amount_minor, status)
        return self._refund_as_is(self.refunds[operation.id])

    def _given_back(self, charge: Charge) -> int:
        refunded = sum(r.amount for r in self.refunds.values() if r.charge is charge and r.status != "failed")
        return refunded + sum(
            d.amount for d in self.disputes.values() if d.charge is charge and d.status not in ("won", "warning_closed")
        )

    @staticmethod
    def _refund_as_is(refund: Refund) -> Outcome:
        match refund.status:
            case "pending":
                return Pending(refund.reference, None)
            case "completed":
                return Approved(refund.reference, "00")
            case _:
                return Declined("05", "do_not_honor", refund.reference)

    def end_refund(self, refund: Refund, status: str) -> None:
        """A pending one ends, or one that was completed fails after all."""
        if (refund.status, status) in (("pending", "completed"), ("pending", "failed"), ("completed", "failed")):
            refund.status = status
            self._post("refund", self._refund_as_is(refund), reference=refund.reference)

    # Disputes

    def open_dispute(self, charge: Charge, amount: int, status: str) -> None:
        """Of cards, as the protocol has them, and of the others, too: there money can be disputed that a void is about to undo."""
        if 0 < amount <= charge.captured - self._given_back(charge):
            dispute = Disputed(f"dp_{len(self.disputes) + 1}", charge, amount, status)
            self.disputes[dispute.id] = dispute
            self._post("dispute", self._dispute_as_is(dispute))

    def move_dispute(self, dispute: Disputed, status: str) -> None:
        allowed = {
            "warning_needs_response": ("warning_under_review", "warning_closed", "needs_response"),
            "warning_under_review": ("warning_closed", "needs_response"),
            "needs_response": ("under_review", "lost"),
            "under_review": ("won", "lost"),
        }
        if status in allowed.get(dispute.status, ()):
            dispute.status = status
            self._post("dispute", self._dispute_as_is(dispute))

    async def dispute(self, provider_id: str, response: DisputeResponse | None, *, deadline_s: float) -> Any:
        assert response is None, "nobody responds here"
        return await self._call(lambda: self._dispute_as_is(self.disputes[provider_id]))

    @staticmethod
    def _dispute_as_is(dispute: Disputed) -> DisputeTold:
        return DisputeTold(
            provider_id=dispute.id,
            reference=dispute.charge.reference,
            reason="fraudulent",
            status=dispute.status,  # type: ignore[arg-type]
            amount_minor=dispute.amount,
            currency="INR",
            respond_by_ms=0,
        )

    # Callbacks

    def _post(self, about: str, told: Any, **fields: str) -> None:
        self._told.append(told)
        body: dict[str, Any] = {"provider": self._name, "says": len(self._told) - 1} | fields
        if about != "charge":
            body["type"] = about
        self.mail.append((about, msgspec.json.encode(body)))

    def read_callback(self, body: bytes, attempt: Attempt) -> Any:
        return self._told[msgspec.json.decode(body)["says"]]

    def read_refund(self, body: bytes, operation: Operation) -> Any:
        return self._told[msgspec.json.decode(body)["says"]]

    def read_dispute(self, body: bytes) -> Any:
        return self._told[msgspec.json.decode(body)["says"]]
