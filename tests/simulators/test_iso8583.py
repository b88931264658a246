"""ISO 8583 over TCP as docs/iso8583.md tells it, seen from a client that is built on pyiso8583."""

import asyncio
import json
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import aiohttp
import iso8583
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from simulators.app import serving
from simulators.clock import Clock
from simulators.config import Config, encode
from simulators.iso8583.host import Host
from simulators.iso8583.server import CONNECTIONS_MAX, IN_FLIGHT_MAX, TURN_MESSAGES, serving_iso8583
from simulators.phases import Conducts
from simulators.provider import Provider, World
from simulators.providers import Terms, card
from simulators.providers.card import CreateCharge
from tests.simulators.iso8583_client import PATIENCE_S, TRANSMITTED, Terminal, framed, packed, unpacked

DOCS = Path(__file__).parents[2] / "docs" / "iso8583.md"
LATE = {"kind": "constant", "value": "200ms"}
REPEATS = {"0100": "0101", "0200": "0201", "0220": "0221", "0400": "0401", "0420": "0421"}


class Acquirer:
    """The simulators with both of their ports."""

    def __init__(self, session: aiohttp.ClientSession, url: str, port: int) -> None:
        self.session, self.url, self.port = session, url, port
        self.terminals: list[Terminal] = []

    async def connect(self, first_stan: int = 1) -> Terminal:
        """A terminal that is closed at the end of the test."""
        self.terminals.append(await Terminal.connect(self.port, first_stan))
        return self.terminals[-1]

    def disconnect(self) -> None:
        for terminal in self.terminals:
            terminal.writer.close()

    async def charge(self, message: dict[str, str]) -> dict[str, Any]:
        """What the HTTP API knows of a message."""
        reference = f"iso-{message['32']}-{message['41']}-{message['11']}-{message['7']}"
        async with self.session.get(f"{self.url}/card/charges/{reference}") as answer:
            return await answer.json()

    async def journal(self, *operations: str) -> list[dict[str, Any]]:
        """The journal's entries of these operations."""
        async with self.session.get(f"{self.url}/journal") as answer:
            entries = [json.loads(line) for line in (await answer.text()).splitlines()]
        return [entry for entry in entries if entry["operation"] in operations]

    async def moved(self) -> list[int]:
        """Every movement of money so far."""
        return [entry["moved"] for entry in await self.journal("create", "capture", "reverse", "refund") if entry["moved"]]


@pytest.fixture
async def start(configure) -> AsyncIterator[Any]:
    """`await start(**sections_of_the_config)` serves both ports until the end of the test; no error may reach the event loop."""
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    async with AsyncExitStack() as stack:

        async def serve(**section: Any) -> Acquirer:
            ports = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
            ports[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # so that a client that does not read is soon felt
            await stack.enter_async_context(serving(configure(card=section), ports[0], iso8583=ports[1]))
            session = await stack.enter_async_context(aiohttp.ClientSession())
            http, iso = (port.getsockname()[1] for port in ports)
            acquirer = Acquirer(session, f"http://127.0.0.1:{http}", iso)
            stack.callback(acquirer.disconnect)
            return acquirer

        yield serve
    assert errors == []


@pytest.fixture
async def acquirer(start) -> Acquirer:
    return await start()


@pytest.fixture
async def terminal(acquirer) -> Terminal:
    return await acquirer.connect()


def acquirer_of(config: Config) -> Provider[CreateCharge]:
    conducts, world = Conducts("card", config.card, ()), World(seed=1, clock=Clock())
    return Provider(card.DIALECT, world=world, conducts=conducts, terms=Terms(), announce=lambda *_: None)


@asynccontextmanager
async def listening(config: Config, *, frame_s: float = PATIENCE_S) -> AsyncIterator[Terminal]:
    """A terminal of a card acquirer without the rest of the simulators."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with serving_iso8583(acquirer_of(config), listener, frame_s=frame_s):
            terminal = await Terminal.connect(listener.getsockname()[1])
            yield terminal
    try:
        assert await terminal.ended()  # the end of the server is the end of its connections
    finally:
        terminal.writer.close()


def fault(kind: str, operation: str = "create", **parameters: Any) -> dict[str, Any]:
    return {"faults": [{"kind": kind, "operation": operation, **parameters}]}


async def test_a_financial_request_is_a_charge_that_http_and_the_journal_know(acquirer, terminal):
    purchase = terminal.purchase("0200")
    answer = await terminal.call(purchase)
    charge = await acquirer.charge(purchase)
    assert (answer["t"], answer["39"]) == ("0210", "00")
    assert (charge["status"], charge["amount"], charge["currency"]) == ("approved", 1000, "INR")
    assert (answer["37"], answer["38"]) == (charge["rrn"], charge["authorizationCode"])
    [entry] = await acquirer.journal("create")
    assert (entry["reference"], entry["moved"], entry["merchantID"]) == (charge["reference"], 1000, "MERCHANT-1")


async def test_a_response_echoes_what_names_its_request_but_no_card_number(terminal):
    purchase = terminal.purchase("0200")
    answer = await terminal.call(purchase)
    echoed = ("3", "4", "7", "11", "12", "13", "25", "32", "41", "42", "49")
    assert {name: answer.pop(name) for name in echoed} == {name: purchase[name] for name in echoed}
    assert answer.keys() == {"t", "37", "38", "39"}


async def test_an_authorization_moves_no_money_until_its_completion(acquirer, terminal):
    authorization = terminal.purchase("0100")
    assert (await terminal.call(authorization))["39"] == "00"
    assert (await acquirer.charge(authorization))["status"] == "authorized"
    assert await acquirer.moved() == []
    answer = await terminal.call(terminal.following("0220", authorization))
    assert (answer["t"], answer["39"]) == ("0230", "00")
    assert (await acquirer.charge(authorization))["status"] == "approved"
    assert await acquirer.moved() == [1000]


async def test_a_completion_may_take_less_and_releases_the_rest(acquirer, terminal):
    authorization = terminal.purchase("0100")
    await terminal.call(authorization)
    assert (await terminal.call(terminal.following("0220", authorization, 600)))["39"] == "00"
    charge = await acquirer.charge(authorization)
    assert (charge["status"], charge["authorizedAmount"], charge["capturedAmount"]) == ("approved", 1000, 600)
    assert (await terminal.call(terminal.following("0220", authorization, 400)))["39"] == "12"
    assert await acquirer.moved() == [600]


async def test_a_completion_cannot_take_more_than_was_authorized(acquirer, terminal):
    authorization = terminal.purchase("0100")
    await terminal.call(authorization)
    assert (await terminal.call(terminal.following("0220", authorization, 1001)))["39"] == "13"
    assert await acquirer.moved() == []


async def test_rrn_and_authorization_code_name_an_original_from_another_connection_and_terminal(acquirer, terminal):
    authorized = await terminal.call(terminal.purchase("0100"))
    other = await acquirer.connect()
    named = {"de90": None, "de37": authorized["37"], "de38": authorized["38"], "de41": "TERM0002"}
    assert (await other.call(other.following("0220", authorized, **named)))["39"] == "00"
    assert (await other.call(other.following("0200", authorized, 300, **named)))["39"] == "00"
    assert await acquirer.moved() == [1000, -300]


@pytest.mark.parametrize(("mti", "response"), [("0400", "0410"), ("0420", "0430")])
@pytest.mark.parametrize(("original", "moved"), [("0100", []), ("0200", [1000, -1000])])
async def test_a_reversal_undoes_its_original(acquirer, terminal, mti, response, original, moved):
    purchase = terminal.purchase(original)
    await terminal.call(purchase)
    answer = await terminal.call(terminal.following(mti, purchase))
    assert (answer["t"], answer["39"]) == (response, "00")
    assert (await acquirer.charge(purchase))["status"] == "reversed"
    assert await acquirer.moved() == moved


async def test_a_reversal_of_an_unknown_original_blocks_it(acquirer, terminal):
    late = terminal.purchase("0200")
    assert (await terminal.call(terminal.following("0400", late)))["39"] == "25"
    assert (await terminal.call(terminal.following("0420", late)))["39"] == "25"
    assert (await terminal.call(late))["39"] == "12"
    assert await acquirer.moved() == []


async def test_a_reversal_of_what_cannot_be_undone_takes_no_action(acquirer, terminal):
    declined = terminal.purchase("0200", card="4000000000000002")
    await terminal.call(declined)
    assert (await terminal.call(terminal.following("0400", declined)))["39"] == "21"
    captured = terminal.purchase("0100")
    await terminal.call(captured)
    await terminal.call(terminal.following("0220", captured))
    assert (await terminal.call(terminal.following("0400", captured)))["39"] == "21"
    assert await acquirer.moved() == [1000]


async def test_a_reversal_of_another_amount_is_refused(acquirer, terminal):
    purchase = terminal.purchase("0200")
    await terminal.call(purchase)
    assert (await terminal.call(terminal.following("0400", purchase, 999)))["39"] == "13"
    assert (await acquirer.charge(purchase))["status"] == "approved"


async def test_a_refund_gives_back_no_more_than_was_taken(acquirer, terminal):
    purchase = terminal.purchase("0200")
    await terminal.call(purchase)
    answer = await terminal.call(terminal.following("0200", purchase, 600))
    assert (answer["t"], answer["39"], answer["3"]) == ("0210", "00", "200000")
    assert (await terminal.call(terminal.following("0200", purchase, 401)))["39"] == "13"
    assert (await acquirer.charge(purchase))["refundedAmount"] == 600
    assert await acquirer.moved() == [1000, -600]


@pytest.mark.parametrize("mti", ["0220", "0200"])
async def test_what_follows_an_unknown_original_cannot_be_located(acquirer, terminal, mti):
    unknown = terminal.purchase("0200")
    assert (await terminal.call(terminal.following(mti, unknown)))["39"] == "25"
    by_rrn = terminal.following(mti, unknown, de90=None, de37="000000000000", de38="000000")
    assert (await terminal.call(by_rrn))["39"] == "25"
    assert await acquirer.moved() == []


@pytest.mark.parametrize("mti", REPEATS)
async def test_a_repeat_is_answered_the_same_and_moves_nothing_again(acquirer, terminal, mti):
    original = terminal.purchase("0100" if mti == "0220" else "0200")
    if mti in ("0100", "0200"):
        message = terminal.purchase(mti)
    else:
        await terminal.call(original)
        message = terminal.following(mti, original)
    first, moved = await terminal.call(message), await acquirer.moved()
    other = await acquirer.connect()
    again = await other.call({**message, "t": REPEATS[mti]})
    assert (again, first["39"]) == (first, "00")
    assert await acquirer.moved() == moved


async def test_a_repeated_refund_pays_once(acquirer, terminal):
    purchase = terminal.purchase("0200")
    await terminal.call(purchase)
    refund = terminal.following("0200", purchase, 400)
    assert await terminal.call({**refund, "t": "0201"}) == await terminal.call(refund)
    assert await acquirer.moved() == [1000, -400]


async def test_another_amount_under_the_same_trace_is_a_duplicate(acquirer, terminal):
    purchase = terminal.purchase("0200")
    await terminal.call(purchase)
    assert (await terminal.call({**purchase, "4": "000000002000"}))["39"] == "94"
    assert await acquirer.moved() == [1000]


@pytest.mark.parametrize(("first", "second", "moved"), [("0100", "0200", []), ("0200", "0100", [1000])])
async def test_a_charge_and_an_authorization_under_the_same_trace_are_duplicates(acquirer, terminal, first, second, moved):
    purchase = terminal.purchase(first)
    await terminal.call(purchase)
    assert (await terminal.call({**purchase, "t": second}))["39"] == "94"
    assert await acquirer.moved() == moved


async def test_terminal_stan_time_and_acquirer_tell_purchases_apart(acquirer, terminal):
    purchase = terminal.purchase("0200")
    for change in ({}, {"11": "000099"}, {"7": "1123101501"}, {"32": "400124"}, {"41": "TERM 001"}, {"41": "TERM_001"}):
        terminal.send({**purchase, **change})
        assert (await terminal.receive())["39"] == "00"
    assert len(await acquirer.moved()) == 6


async def test_an_acquirer_id_means_the_same_with_and_without_leading_zeros(acquirer, terminal):
    purchase = terminal.purchase("0200")
    await terminal.call(purchase)
    assert (await terminal.call({**purchase, "32": "00400123"}))["39"] == "00"
    assert await acquirer.moved() == [1000]


@pytest.mark.parametrize(
    ("card", "code"),
    [
        ("4000000000000002", "05"),
        ("4000000000009995", "51"),
        ("4000000000000127", "N7"),
        ("4242424242424241", "14"),
        ("4000000000000119", "96"),
    ],
)
async def test_a_test_card_meets_its_decline(acquirer, terminal, card, code):
    answer = await terminal.call(terminal.purchase("0200", card=card))
    assert answer["39"] == code
    assert not answer.keys() & {"37", "38"}
    assert await acquirer.moved() == []


async def test_a_card_of_the_past_is_declined(terminal):
    assert (await terminal.call(terminal.purchase("0200", de14="2001")))["39"] == "54"


@pytest.mark.parametrize("code", ["001", "002", "301"])
async def test_network_management_is_acknowledged(terminal, code):
    answer = await terminal.call(terminal.network(code))
    assert (answer["t"], answer["39"], answer["70"]) == ("0810", "00", code)


async def test_what_the_acquirer_does_not_do_is_not_supported(acquirer, terminal):
    purchase = terminal.purchase("0200")
    await terminal.call(purchase)
    completion = {**terminal.following("0220", purchase)}
    for message in (
        terminal.network("161"),
        terminal.purchase("0200", de3="010000"),  # cash
        terminal.purchase("0100", de3="200000"),
        terminal.following("0400", completion),  # a completion cannot be reversed
    ):
        assert (await terminal.call(message))["39"] == "40"
    assert await acquirer.moved() == [1000]


@pytest.mark.parametrize("field", ["2", "3", "4", "7", "14", "32", "41", "42", "49"])
async def test_a_missing_field_is_a_format_error_that_names_it(acquirer, terminal, field):
    answer = await terminal.call(terminal.purchase("0200", **{f"de{field}": None}))
    assert (answer["t"], answer["39"], answer["44"]) == ("0210", "30", f"field {field}")
    assert await acquirer.journal("create") == []


@pytest.mark.parametrize(
    ("field", "text"),
    [
        *(("2", "41111111111"), ("3", "0000x0"), ("4", "00000000-100"), ("7", "1123 10150"), ("14", "9913"), ("32", "x")),
        *(("32", ""), ("41", "TERM\t001"), ("42", " " * 15), ("49", "999"), ("49", "INR")),
    ],
)
async def test_a_malformed_field_is_a_format_error_that_names_it(acquirer, terminal, field, text):
    answer = await terminal.call(terminal.purchase("0200", **{f"de{field}": text}))
    assert (answer["39"], answer["44"]) == ("30", f"field {field}")
    assert await acquirer.journal("create") == []


async def test_an_amount_of_zero_is_invalid(terminal):
    assert (await terminal.call(terminal.purchase("0200", 0)))["39"] == "13"


async def test_what_follows_must_name_an_original(terminal):
    purchase = terminal.purchase("0200")
    for lacking in ({"de90": None}, {"de90": None, "de37": "0" * 12}, {"de90": "0200"}):
        message = terminal.following("0220", purchase, **lacking)
        terminal.send({**message, "90": "x" * 42} if lacking.get("de90") else message)
        answer = await terminal.receive()
        assert (answer["39"], answer["44"]) == ("30", "field 90")


WHOLE = packed(Terminal().purchase("0200"))[2:]
THIRD_BITMAP = b"0200" + b"8000000000000000" * 3  # field 129, which no specification of 1987 has


@pytest.mark.parametrize(
    ("broken", "stan"),
    [
        *((WHOLE[:-1], "000001"), (WHOLE[:40] + b"\xff" + WHOLE[41:], None), (WHOLE + b"x", "000001")),
        *((WHOLE[:4], None), (b"0200" + b"F" * 48, None), (b"0200" + b"zz" * 8, None), (THIRD_BITMAP, None)),
    ],
)
async def test_what_cannot_be_decoded_is_a_format_error_on_a_connection_that_goes_on(terminal, broken, stan):
    terminal.writer.write(framed(broken))
    answer = await terminal.receive()
    assert (answer["t"], answer["39"], answer.get("11")) == ("0210", "30", stan)  # the STAN if it came before the damage
    assert (await terminal.call(terminal.network()))["39"] == "00"


@pytest.mark.parametrize(("mti", "response"), [("0300", "0310"), ("0120", "0130"), ("0203", "0212"), ("0501", "0510")])
async def test_an_unknown_request_is_answered_with_a_format_error(terminal, mti, response):
    answer = await terminal.call({**terminal.network(), "t": mti})
    assert (answer["t"], answer["39"], answer["44"]) == (response, "30", "field t")


@pytest.mark.parametrize(
    "frame",
    [
        *(framed(mti + b"0" * 16) for mti in (b"0210", b"0230", b"1200", b"0240", b"0900", b"02x0", b"\xf0\xf2\xf0\xf0")),
        framed(b""),
        framed(b"020"),
        framed(b"0200" + b"0" * 4093),
        b"\xff\xff",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_what_cannot_be_answered_ends_the_connection_with_a_reason_in_the_log(acquirer, terminal, frame):
    with capture_logs() as logs:
        terminal.writer.write(frame)
        assert await terminal.ended()
    [line] = logs
    assert line["event"] == "ISO 8583 connection closed"
    assert line["reason"]
    other = await acquirer.connect()
    assert (await other.call(other.network()))["39"] == "00"


async def test_no_log_line_contains_what_was_sent(terminal):
    with capture_logs() as logs:
        purchase = terminal.purchase("0200")
        terminal.send({**purchase, "14": "xxxx"}, {**purchase, "t": "0210"})
        assert (await terminal.receive())["39"] == "30"
        assert await terminal.ended()
    assert logs
    assert purchase["2"] not in repr(logs)


async def test_a_frame_may_come_a_byte_at_a_time(terminal):
    for byte in packed(terminal.network()):
        terminal.writer.write(bytes([byte]))
        await terminal.writer.drain()
        await asyncio.sleep(0)
    assert (await terminal.receive())["39"] == "00"


async def test_the_rest_of_a_half_frame_is_not_awaited_for_ever(configure):
    with capture_logs() as logs:
        async with listening(configure(), frame_s=0.02) as terminal:
            terminal.writer.write(packed(terminal.network()) + packed(terminal.network())[:-1])
            assert (await terminal.receive())["39"] == "00"
            assert await terminal.ended()
    assert [line["reason"] for line in logs] == ["the rest of a frame did not come within 0.02 s"]


async def test_a_delayed_answer_does_not_keep_the_server_from_ending(configure):
    async with listening(configure(card={"latency": {"kind": "constant", "value": "60min"}})) as terminal:
        terminal.send(terminal.purchase("0200"), terminal.network())
        assert (await terminal.receive())["t"] == "0810"


async def test_a_connection_too_many_is_closed_and_the_others_go_on(acquirer):
    terminals = [await acquirer.connect() for _ in range(CONNECTIONS_MAX)]
    assert (await terminals[-1].call(terminals[-1].network()))["39"] == "00"
    with capture_logs() as logs:
        assert await (await acquirer.connect()).ended()
    assert len(logs) == 1
    assert (await terminals[0].call(terminals[0].network()))["39"] == "00"


async def test_only_the_latest_originals_are_known_by_rrn_and_authorization_code(configure):
    host, terminal = Host(acquirer_of(configure()), originals_max=2), Terminal()
    answers = [unpacked(host.answer(packed(terminal.purchase("0200"))[2:]).frame[2:]) for _ in range(3)]
    named = [{"de90": None, "de37": answer["37"], "de38": answer["38"]} for answer in answers]
    refunds = [terminal.following("0200", answers[0], 1, **names) for names in named]
    assert [unpacked(host.answer(packed(refund)[2:]).frame[2:])["39"] for refund in refunds] == ["25", "00", "00"]


async def test_answers_come_as_they_finish(start):
    terminal = await (await start(latency=LATE)).connect()
    purchase, echo = terminal.purchase("0200"), terminal.network()
    terminal.send(purchase, echo)
    assert [(await terminal.receive())["11"] for _ in range(2)] == [echo["11"], purchase["11"]]


@pytest.mark.parametrize("latency", ["0ms", "50ms"])  # in turns; in the air at most so many
async def test_a_flood_on_one_connection_is_answered_whole(start, latency):
    acquirer = await start(latency={"kind": "constant", "value": latency})
    terminal = await acquirer.connect()
    purchases = [terminal.purchase("0200") for _ in range(IN_FLIGHT_MAX + 5 * TURN_MESSAGES)]
    terminal.send(*purchases)
    stans = {(await terminal.receive())["11"] for _ in purchases}
    assert stans == {purchase["11"] for purchase in purchases}
    assert len(await acquirer.moved()) == len(purchases)


async def test_a_client_that_does_not_read_is_not_read_from(acquirer):
    loop, terminal, other = asyncio.get_running_loop(), Terminal(), await acquirer.connect(first_stan=5000)
    frames = [packed(terminal.purchase("0200")) for _ in range(1500)]
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.setblocking(False)
        await loop.sock_connect(silent, ("127.0.0.1", acquirer.port))
        sending = asyncio.create_task(loop.sock_sendall(silent, b"".join(frames)))
        done, before = 0, -1
        while done != before:
            for _ in range(20):  # turns of the event loop
                await other.call(other.network())
            before, done = done, len(await acquirer.moved())
        assert 0 < done < len(frames)
        answers = 0
        async with asyncio.timeout(PATIENCE_S):
            while answers < len(frames) * 122:
                answers += len(await loop.sock_recv(silent, 65_536))
            await sending
    assert len(await acquirer.moved()) == len(frames)


async def test_no_more_than_the_bound_is_in_the_air_of_one_connection(start):
    acquirer = await start(latency={"kind": "constant", "value": "60min"})
    terminal = await acquirer.connect()
    terminal.send(*(terminal.purchase("0200") for _ in range(2 * IN_FLIGHT_MAX)))
    other = await acquirer.connect(first_stan=5000)
    while len(await acquirer.moved()) < IN_FLIGHT_MAX:
        assert (await other.call(other.network()))["39"] == "00"
    for _ in range(10):  # turns of the event loop in which more would be taken
        assert (await other.call(other.network()))["39"] == "00"
    assert len(await acquirer.moved()) == IN_FLIGHT_MAX


@pytest.mark.parametrize(("operation", "moved"), [("create", [1000]), ("reverse", [1000, -1000])])
async def test_a_lost_answer_has_acted_and_the_connection_goes_on(start, operation, moved):
    acquirer = await start(**fault("response_lost", operation, first=1))
    terminal = await acquirer.connect()
    purchase = terminal.purchase("0200")
    messages = [purchase, terminal.following("0400", purchase)][: len(moved)]
    terminal.send(*messages)
    if operation == "reverse":
        assert (await terminal.receive())["t"] == "0210"
    echo = terminal.network()
    assert (await terminal.call(echo))["39"] == "00"  # so nothing came before it
    assert await acquirer.moved() == moved
    lost = messages[-1]
    assert (await terminal.call({**lost, "t": lost["t"][:3] + "1"}))["39"] == "00"
    assert await acquirer.moved() == moved


@pytest.mark.parametrize(("kind", "moved"), [("reset_before", []), ("reset_after", [1000])])
async def test_a_reset_ends_the_connection(start, kind, moved):
    acquirer = await start(**fault(kind))
    terminal = await acquirer.connect()
    terminal.send(terminal.purchase("0200"))
    with pytest.raises(ConnectionResetError):
        await terminal.receive()
    assert await acquirer.moved() == moved


async def test_a_truncated_answer_is_half_a_frame_and_the_end(start):
    acquirer = await start(**fault("truncated"))
    terminal = await acquirer.connect()
    terminal.send(terminal.purchase("0200"))
    with pytest.raises(asyncio.IncompleteReadError) as cut:
        await terminal.receive()
    assert 0 < len(cut.value.partial) < cut.value.expected
    assert await acquirer.moved() == [1000]


@pytest.mark.parametrize("kind", ["garbage", "wrong_content_type"])
async def test_a_garbled_answer_cannot_be_decoded(start, kind):
    acquirer = await start(**fault(kind))
    terminal = await acquirer.connect()
    terminal.send(terminal.purchase("0200"))
    message = await terminal.receive_bytes()
    with pytest.raises(iso8583.DecodeError):
        unpacked(message)
    if kind == "wrong_content_type":
        assert unpacked(message.decode("cp500").encode())["39"] == "00"
    assert (await terminal.call(terminal.network()))["39"] == "00"
    assert await acquirer.moved() == [1000]


async def test_a_dripped_answer_comes_in_pieces_and_others_wait_for_its_end(start):
    acquirer = await start(**fault("drip", over="100ms"))
    terminal = await acquirer.connect()
    purchase, echo = terminal.purchase("0200"), terminal.network()
    terminal.send(purchase, echo)
    pieces = []
    while not b"".join(pieces).endswith(b"301"):  # what an echo ends with
        pieces.append(await terminal.reader.read(4096))
    assert len(pieces) > 10
    data = b"".join(pieces)
    end = 2 + int.from_bytes(data[:2], "big")
    assert unpacked(data[2:end])["11"] == purchase["11"]
    assert unpacked(data[end + 2 :])["11"] == echo["11"]


async def test_a_wrong_amount_is_only_in_the_answer(start):
    acquirer = await start(**fault("wrong_amount"))
    terminal = await acquirer.connect()
    purchase = terminal.purchase("0200")
    answer = await terminal.call(purchase)
    assert (answer["39"], answer["4"]) == ("00", "000000001001")
    assert (await acquirer.charge(purchase))["amount"] == 1000


@pytest.mark.parametrize(
    ("kind", "code"),
    [("unavailable", "91"), ("rate_limited", "91"), ("http_500", "96"), ("http_504", "91"), ("http_503", "91")],
)
async def test_an_acquirer_that_fails_before_it_acts_says_so(start, kind, code):
    acquirer = await start(**fault(kind))
    terminal = await acquirer.connect()
    assert (await terminal.call(terminal.purchase("0200")))["39"] == code
    assert await acquirer.moved() == []


async def test_an_acquirer_that_fails_after_it_acted_says_nothing(start):
    acquirer = await start(**fault("http_500", acts=True))
    terminal = await acquirer.connect()
    terminal.send(terminal.purchase("0200"))
    assert (await terminal.call(terminal.network()))["39"] == "00"
    assert await acquirer.moved() == [1000]


async def test_a_full_queue_is_inoperative(start):
    acquirer = await start(latency=LATE, capacity={"create": {"servers": 1, "queue_max": 0}})
    terminal = await acquirer.connect()
    terminal.send(terminal.purchase("0200"), terminal.purchase("0200"))
    assert [(await terminal.receive())["39"] for _ in range(2)] == ["91", "00"]


def talk(port: int, frame: bytes) -> dict[str, str] | None:
    """The answer to a frame, `None` where the connection ends instead."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(frame)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    return unpacked(answer[2:]) if answer else None


VALID = packed(
    {"t": "0200", "2": "4111111111111111", "3": "000000", "4": "000000001000", "7": TRANSMITTED, "11": "000001"}
    | {"14": "9912", "32": "400123", "41": "TERM0001", "42": "MERCHANT-1     ", "49": "356"}
)[2:]
mutated = st.builds(
    lambda index, junk, cut: VALID[:index] + junk + VALID[index + cut :],
    st.integers(0, len(VALID)),
    st.binary(max_size=8),
    st.integers(0, 8),
)


async def test_no_bytes_break_the_server(acquirer):
    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda junk: b"0200" + junk) | mutated)
    def check(message: bytes) -> None:
        answer = talk(acquirer.port, framed(message))
        if answer is not None:
            assert re.fullmatch("0[1-8][13][024]", answer["t"])
            assert re.fullmatch("[0-9A-Z]{2}", answer["39"])
            assert "2" not in answer

    with capture_logs():
        await asyncio.to_thread(check)
    terminal = await acquirer.connect()
    assert (await terminal.call(terminal.network()))["39"] == "00"


async def test_the_examples_of_the_documentation_are_what_the_server_says(start):
    """With seed 1 and every card approved, even RRN and authorization code are those of the document."""
    lines = re.findall(r"^([<>]) ((?:[0-9a-f]{2} )+) *\|", DOCS.read_text(), re.MULTILINE)
    messages = [(way, bytes.fromhex("".join(text for _, text in block))) for way, block in groupby(lines, itemgetter(0))]
    assert [way for way, _ in messages] == [">", "<"] * 4
    terminal = await (await start()).connect()
    for (_, sent), (_, answered) in zip(messages[::2], messages[1::2], strict=True):
        terminal.writer.write(sent)
        assert framed(await terminal.receive_bytes()) == answered


def test_the_command_line_serves_it_and_says_where(tmp_path, configure):
    file = tmp_path / "simulators.json"
    file.write_bytes(encode(configure()))
    program = [sys.executable, "-m", "simulators", "--config", str(file), "--iso8583-port", "0"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            host, _, port = json.loads(process.stdout.readline())["iso8583"].rpartition(":")
            answer = talk(int(port), packed({"t": "0800", "7": TRANSMITTED, "11": "000001", "70": "301"}))
        finally:
            process.terminate()
        assert (host, answer["39"], process.wait(PATIENCE_S)) == ("127.0.0.1", "00", 0)
        assert "Traceback" not in process.stderr.read()
