"""What every provider's calls about authentications keep to, and where customers come back to."""

import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.core.authentication import Told
from gateway.core.outcome import Declined, NotSent, Unknown
from tests.contract.raw_server import Behaviour, RawServer, answering, http, raw_server, resetting
from tests.contract.test_provider import Caller, calling
from tests.gateway.doubles import INSTRUMENTS, PATIENCE_S, make_authentication, make_payment

AUTHENTICATION = make_authentication(make_payment())
ANSWER = {"reference": AUTHENTICATION.id, "amount": 1000, "currency": "INR", "threeDSServerTransID": "t_1", "transStatus": "Y"}
TOLD = Told(trans_id="t_1", trans_status="Y")


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with raw_server() as made:
        yield made


async def ask(caller: Caller, operation: str) -> Any:
    if operation == "authenticate":
        card = INSTRUMENTS["card"].card
        assert card is not None
        return await caller.provider.authenticate(caller.payment, AUTHENTICATION, card, deadline_s=PATIENCE_S)
    return await caller.provider.inquire_authentication(AUTHENTICATION, deadline_s=PATIENCE_S)


@pytest.mark.parametrize("operation", ["authenticate", "inquire_authentication"])
@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (answering(ANSWER), TOLD),
        (answering({"error": "...", "code": "invalid_request"}, 400), Declined("invalid_request", "invalid_request")),
        (answering({"error": "...", "code": "not_found"}, 404), Declined("not_found", "not_found")),
        (answering({"error": "...", "code": "reference_conflict"}, 409), Unknown("the provider answered HTTP 409")),
        (http(404, b"<html>"), Unknown("the provider answered HTTP 404")),
        (answering(ANSWER, 500), Unknown("the provider answered HTTP 500")),
        (answering(ANSWER, 302), Unknown("the provider answered HTTP 302")),
    ],
)
async def test_an_answer_means_what_it_says(server: RawServer, operation: str, behaviour: Behaviour, expected: Any):
    server.behaviour = behaviour
    async with calling(server.url) as caller:
        assert await ask(caller, operation) == expected


async def test_a_connection_that_fails_is_not_sent_and_one_that_breaks_is_unknown(server: RawServer):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with calling(f"http://127.0.0.1:{port}") as caller:
        assert isinstance(await ask(caller, "authenticate"), NotSent)
    server.behaviour = resetting
    async with calling(server.url) as caller:
        assert isinstance(await ask(caller, "authenticate"), Unknown)


async def test_requests_go_where_the_protocol_has_them_and_customers_come_back_to_us(server: RawServer):
    server.behaviour = answering(ANSWER)
    async with calling(server.url) as caller:
        await ask(caller, "authenticate")
        await ask(caller, "inquire_authentication")
        bank = replace(INSTRUMENTS["netbanking"], return_url=None)
        async with calling(server.url, "netbanking") as other:
            for instrument in (bank, INSTRUMENTS["netbanking"]):
                await other.provider.create(other.payment, other.attempt, instrument, deadline_s=PATIENCE_S)
    lines = [request.split(b" HTTP/1.1")[0].decode() for request in server.requests]
    assert lines[:2] == ["POST /3ds/authentications", f"GET /3ds/authentications/{AUTHENTICATION.id}"]
    bodies = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in (server.requests[0], *server.requests[2:])]
    assert {body["returnURL"] for body in bodies} == {f"http://gateway.example/payments/{caller.payment.id}/return"}
