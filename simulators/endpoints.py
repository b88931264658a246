"""The providers' side of HTTP: decodes a call, has the provider perform it, sends the answer."""

from typing import Annotated, Any

import msgspec
from aiohttp import web

from simulators.admin import read_query
from simulators.answering import perform
from simulators.disputes import Status
from simulators.provider import Provider
from simulators.providers import Amount, Currency, Reference, Url
from simulators.routes import Routes
from simulators.wire import check_ascii, check_reference, decode

EVIDENCE_MAX = 10_000  # characters; what a dispute form takes

# Ids of disputes are ours, but what arrives in a path may be anything; a reference's alphabet has them all.
check_id = check_reference


class Reversal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a reverse call."""

    amount: Amount
    currency: Currency


class Increment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of an increment call; `reference` is its own."""

    reference: Reference
    amount: Amount
    currency: Currency


class Capture(Increment, frozen=True, forbid_unknown_fields=True):
    """Body of a capture call."""

    final: bool = False


class RefundRequest(Increment, frozen=True, forbid_unknown_fields=True):
    """Body of a refund call."""

    callbackURL: Url | None = None


class DisputeQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Query of `GET /card/disputes`."""

    status: Status | None = None


class Evidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of an evidence call."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=EVIDENCE_MAX)]


def add(routes: Routes, provider: Provider[Any], *, hold_s: float) -> None:
    """Adds what every provider answers. `hold_s`: see `answering.perform`."""
    create_decoder = msgspec.json.Decoder(provider.dialect.create)
    reversal_decoder = msgspec.json.Decoder(Reversal)
    refund_decoder = msgspec.json.Decoder(RefundRequest)

    async def create(request: web.BaseRequest, _: str) -> web.StreamResponse:
        check_ascii("the Host", request.host)  # it becomes part of the redirectURL
        body = await decode(request, create_decoder)
        return await perform(request, provider.create(body, request.host), hold_s)

    async def status(request: web.BaseRequest, reference: str) -> web.StreamResponse:
        return await perform(request, provider.status(check_reference(reference)), hold_s)

    async def reverse(request: web.BaseRequest, reference: str) -> web.StreamResponse:
        check_reference(reference)
        body = await decode(request, reversal_decoder)
        return await perform(request, provider.reverse(reference, body.amount, body.currency), hold_s)

    async def refund(request: web.BaseRequest, reference: str) -> web.StreamResponse:
        check_reference(reference)
        body = await decode(request, refund_decoder)
        answer = provider.refunds.create(reference, body.reference, body.amount, body.currency, body.callbackURL)
        return await perform(request, answer, hold_s)

    async def refund_status(request: web.BaseRequest, reference: str) -> web.StreamResponse:
        return await perform(request, provider.refunds.status(check_reference(reference)), hold_s)

    path = f"/{provider.name}/{provider.dialect.collection}"
    routes.add(path, POST=create)
    routes.add(f"{path}/*", GET=status)
    routes.add(f"{path}/*/reverse", POST=reverse)
    routes.add(f"{path}/*/refunds", POST=refund)
    routes.add(f"/{provider.name}/refunds/*", GET=refund_status)


def add_card(routes: Routes, provider: Provider[Any], *, hold_s: float) -> None:
    """Adds what only the card acquirer answers: increments, captures and disputes."""
    increment_decoder = msgspec.json.Decoder(Increment)
    capture_decoder = msgspec.json.Decoder(Capture)
    evidence_decoder = msgspec.json.Decoder(Evidence)

    async def increment(request: web.BaseRequest, reference: str) -> web.StreamResponse:
        check_reference(reference)
        body = await decode(request, increment_decoder)
        return await perform(request, provider.increment(reference, body.reference, body.amount, body.currency), hold_s)

    async def capture(request: web.BaseRequest, reference: str) -> web.StreamResponse:
        check_reference(reference)
        body = await decode(request, capture_decoder)
        answer = provider.capture(reference, body.reference, body.amount, body.currency, final=body.final)
        return await perform(request, answer, hold_s)

    async def disputes(request: web.BaseRequest, _: str) -> web.StreamResponse:
        return await perform(request, provider.disputes.list(read_query(request, DisputeQuery).status), hold_s)

    async def dispute(request: web.BaseRequest, dispute_id: str) -> web.StreamResponse:
        return await perform(request, provider.disputes.show(check_id(dispute_id)), hold_s)

    async def accept(request: web.BaseRequest, dispute_id: str) -> web.StreamResponse:
        return await perform(request, provider.disputes.accept(check_id(dispute_id)), hold_s)

    async def evidence(request: web.BaseRequest, dispute_id: str) -> web.StreamResponse:
        check_id(dispute_id)
        body = await decode(request, evidence_decoder)
        return await perform(request, provider.disputes.submit(dispute_id, body.text), hold_s)

    routes.add("/card/charges/*/increment", POST=increment)
    routes.add("/card/charges/*/capture", POST=capture)
    routes.add("/card/disputes", GET=disputes)
    routes.add("/card/disputes/*", GET=dispute)
    routes.add("/card/disputes/*/accept", POST=accept)
    routes.add("/card/disputes/*/evidence", POST=evidence)
