"""The HTTP side of every provider: what is asked, and what the answers mean. How calls fail is in calls.py.

An answer that is well formed and about our reference and amount means what it says; any other is Unknown. The dialects (card.py, upi.py,
netbanking.py) say how a request is encoded and what an answer means.
"""

from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta
from yarl import URL

from gateway.config import ProviderConfig
from gateway.core.authentication import Authentication, Told
from gateway.core.dispute import Status as DisputeStatus
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
from gateway.core.payment import Attempt, Payment
from gateway.outbound import open_session
from gateway.ports import CardSecret, DisputeResponse, DisputeTold, Instrument
from gateway.providers import threeds
from gateway.providers.calls import ABOUT_SOMETHING_ELSE, Answer, Code, ProviderId, call, done, error_code, no_answer, read

WebUrl = Annotated[str, Meta(pattern=r"^https?://[!-~]{1,2000}\Z")]
UpiUrl = Annotated[str, Meta(pattern=r"^upi://[!-~]{1,2000}\Z")]
Millis = Annotated[int, Meta(ge=0, le=253_402_300_799_999)]  # 1970 to the end of 9999: what can be shown as RFC 3339


class Charge(msgspec.Struct, frozen=True, rename="camel"):
    """A provider's answer (docs/providers.md). Unknown fields are ignored: providers add some without asking."""

    reference: str
    provider_id: ProviderId = msgspec.field(name="providerID")
    status: Literal["pending", "authorized", "partially_captured", "approved", "declined", "expired", "reversed"]
    amount: int
    currency: str
    response_code: Code | None = None
    intent_url: UpiUrl | None = msgspec.field(name="intentURL", default=None)
    qr_payload: UpiUrl | None = None
    redirect_url: WebUrl | None = msgspec.field(name="redirectURL", default=None)


class Refund(msgspec.Struct, frozen=True, rename="camel"):
    """A refund as a provider answers it, or calls back about it."""

    reference: str
    provider_id: ProviderId = msgspec.field(name="providerID")
    status: Literal["pending", "completed", "failed"]
    amount: int
    currency: str
    response_code: Code | None = None


class Capture(msgspec.Struct, frozen=True, rename="camel"):
    """A capture as the acquirer answers it."""

    reference: str
    status: Literal["approved", "declined"]
    response_code: Code
    amount: int
    currency: str
    charge: Charge


class Dispute(msgspec.Struct, frozen=True, rename="camel"):
    """A dispute as the acquirer answers it, or calls back about it."""

    dispute_id: ProviderId = msgspec.field(name="disputeID")
    charge_reference: str
    reason: Annotated[str, Meta(pattern=r"^[a-z_]{1,64}\Z")]
    status: DisputeStatus
    amount: Annotated[int, Meta(ge=1)]
    currency: str
    respond_by: Millis


class Dialect(Protocol):
    collection: str
    """Path of the charges below the provider's base URL."""

    def encode(self, payment: Payment, attempt: Attempt, instrument: Instrument, callback_url: str) -> bytes: ...

    def reason(self, response_code: str) -> str:
        """A decline code in words (snake_case)."""
        ...

    def next_action(self, charge: Charge) -> NextAction | None: ...


_charges = msgspec.json.Decoder(Charge)
_refunds = msgspec.json.Decoder(Refund)
_captures = msgspec.json.Decoder(Capture)
_disputes = msgspec.json.Decoder(Dispute)


def read_charge(body: bytes, attempt: Attempt, dialect: Dialect) -> Outcome:
    """What a charge in a provider's answer or callback says about the attempt. Unknown if it says nothing definite about it."""
    charge = read(_charges, body)
    if isinstance(charge, Unknown):
        return charge
    if (charge.reference, charge.amount, charge.currency) != (attempt.reference, attempt.amount_minor, attempt.currency):
        return ABOUT_SOMETHING_ELSE
    match charge.status:
        case "approved":
            return Approved(charge.provider_id, charge.response_code or "")
        case "authorized" | "partially_captured":
            return Authorized(charge.provider_id, charge.response_code or "")
        case "declined":
            code = charge.response_code or ""
            return Declined(code, dialect.reason(code), charge.provider_id)
        case "expired":
            return Expired(charge.response_code or "", charge.provider_id)
        case "reversed":
            return Reversed()
        case "pending":
            return Pending(charge.provider_id, dialect.next_action(charge))


def read_refund(body: bytes, operation: Operation, dialect: Dialect) -> Outcome:
    """What a refund in a provider's answer or callback says about ours."""
    refund = read(_refunds, body)
    if isinstance(refund, Unknown):
        return refund
    if (refund.reference, refund.amount, refund.currency) != (operation.id, operation.amount_minor, operation.currency):
        return ABOUT_SOMETHING_ELSE
    code = refund.response_code or ""
    match refund.status:
        case "completed":
            return Approved(refund.provider_id, code)
        case "failed":
            return Declined(code, dialect.reason(code), refund.provider_id)
        case "pending":
            return Pending(refund.provider_id, None)


def read_capture(body: bytes, operation: Operation, dialect: Dialect) -> Outcome:
    capture = read(_captures, body)
    if isinstance(capture, Unknown):
        return capture
    if (capture.reference, capture.amount, capture.currency) != (operation.id, operation.amount_minor, operation.currency):
        return ABOUT_SOMETHING_ELSE
    if capture.status == "approved":
        return Approved(capture.charge.provider_id, capture.response_code)
    return Declined(capture.response_code, dialect.reason(capture.response_code))


def read_dispute(body: bytes) -> DisputeTold | Unknown:
    dispute = read(_disputes, body)
    if isinstance(dispute, Unknown):
        return dispute
    return DisputeTold(
        provider_id=dispute.dispute_id,
        reference=dispute.charge_reference,
        reason=dispute.reason,
        status=dispute.status,
        amount_minor=dispute.amount,
        currency=dispute.currency,
        respond_by_ms=dispute.respond_by,
    )


class HttpProvider:
    """A `Provider` over HTTP. `close` it."""

    def __init__(
        self, config: ProviderConfig, dialect: Dialect, *, callback_url: str, refund_callback_url: str, return_url: str
    ) -> None:
        """`return_url` is where customers' browsers come back to, with `{paymentID}` in it."""
        self._dialect = dialect
        self._return_url = return_url
        self._callback_url = callback_url
        self._refund_callback_url = refund_callback_url
        base = config.url.rstrip("/")
        self._charges = URL(base + dialect.collection)
        self._disputes = URL(base + "/disputes")
        self._authentications = URL(base + threeds.COLLECTION)
        self._session = open_session(connections_max=config.connections_max)

    async def create(self, payment: Payment, attempt: Attempt, instrument: Instrument, *, deadline_s: float) -> Outcome:
        if instrument.bank_code is not None:  # its page leads to us first, who ask the bank how it went
            instrument = msgspec.structs.replace(instrument, return_url=self._return_to(payment))
        body = self._dialect.encode(payment, attempt, instrument, self._callback_url)
        return self._charge(await self._call("POST", self._charges, body, deadline_s), attempt)

    async def inquire(self, attempt: Attempt, *, deadline_s: float) -> Outcome:
        answer = await self._call("GET", self._charges / attempt.reference, None, deadline_s)
        if isinstance(answer, Answer) and answer.status == 404 and error_code(answer) == "not_found":
            return NotFound()
        return self._charge(answer, attempt)

    async def reverse(self, attempt: Attempt, *, deadline_s: float) -> Outcome:
        body = msgspec.json.encode({"amount": attempt.amount_minor, "currency": attempt.currency})
        answer = await self._call("POST", self._charges / attempt.reference / "reverse", body, deadline_s)
        if not (isinstance(answer, Answer) and answer.status == 409 and error_code(answer) == "not_reversible"):
            return self._charge(answer, attempt)
        stands = await self.inquire(attempt, deadline_s=deadline_s)  # a refusal names neither amount nor currency
        return Irreversible(stands.provider_id, stands.response_code) if isinstance(stands, Approved) else stands

    async def authenticate(
        self, payment: Payment, authentication: Authentication, card: CardSecret, *, deadline_s: float
    ) -> Told | Declined | NotSent | Unknown:
        urls = {"return_url": self._return_to(payment), "callback_url": self._callback_url}
        body = threeds.request(payment, authentication, card, **urls)
        said = done(await self._call("POST", self._authentications, body, deadline_s))
        return threeds.read_authentication(said, authentication) if isinstance(said, bytes) else said

    async def inquire_authentication(
        self, authentication: Authentication, *, deadline_s: float
    ) -> Told | Declined | NotSent | Unknown:
        said = done(await self._call("GET", self._authentications / authentication.id, None, deadline_s))
        return threeds.read_authentication(said, authentication) if isinstance(said, bytes) else said

    async def capture(self, operation: Operation, *, deadline_s: float) -> Outcome:
        body = self._operation_body(operation, final=operation.final)
        answer = await self._call("POST", self._charges / operation.charge_reference / "capture", body, deadline_s)
        said = done(answer)
        return read_capture(said, operation, self._dialect) if isinstance(said, bytes) else said

    async def refund(self, operation: Operation, *, deadline_s: float) -> Outcome:
        body = self._operation_body(operation, callbackURL=self._refund_callback_url)
        answer = await self._call("POST", self._charges / operation.charge_reference / "refunds", body, deadline_s)
        said = done(answer)
        return read_refund(said, operation, self._dialect) if isinstance(said, bytes) else said

    async def dispute(
        self, provider_id: str, response: DisputeResponse | None, *, deadline_s: float
    ) -> DisputeTold | Declined | NotSent | Unknown:
        url = self._disputes / provider_id
        if response is None:
            answer = await self._call("GET", url, None, deadline_s)
        elif response.evidence is None:
            answer = await self._call("POST", url / "accept", b"{}", deadline_s)
        else:
            answer = await self._call("POST", url / "evidence", msgspec.json.encode({"text": response.evidence}), deadline_s)
        said = done(answer)
        if not isinstance(said, bytes):
            return said
        told = read_dispute(said)
        return told if isinstance(told, Unknown) or told.provider_id == provider_id else ABOUT_SOMETHING_ELSE

    def read_callback(self, body: bytes, attempt: Attempt) -> Outcome:
        return read_charge(body, attempt, self._dialect)

    def read_authentication(self, body: bytes, authentication: Authentication) -> Told | Unknown:
        return threeds.read_authentication(body, authentication)

    def read_refund(self, body: bytes, operation: Operation) -> Outcome:
        return read_refund(body, operation, self._dialect)

    def read_dispute(self, body: bytes) -> DisputeTold | Unknown:
        return read_dispute(body)

    async def close(self) -> None:
        await self._session.close()

    def _return_to(self, payment: Payment) -> str:
        return self._return_url.replace("{paymentID}", payment.id)

    @staticmethod
    def _operation_body(operation: Operation, **more: str | bool) -> bytes:
        told = {"reference": operation.id, "amount": operation.amount_minor, "currency": operation.currency}
        return msgspec.json.encode(told | more)

    def _charge(self, answer: Answer | NotSent | Unknown, attempt: Attempt) -> Outcome:
        if not isinstance(answer, Answer):
            return answer
        if answer.status == 200 and answer.body is not None:
            return read_charge(answer.body, attempt, self._dialect)
        return no_answer(answer)

    async def _call(self, method: str, url: URL, body: bytes | None, deadline_s: float) -> Answer | NotSent | Unknown:
        return await call(self._session, method, url, body, deadline_s)
