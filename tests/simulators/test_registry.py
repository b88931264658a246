"""The table of all that a client can meet, executed row by row: what a real client saw is put into words, and these are compared."""

import asyncio
import base64
import errno
import socket
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from aiohttp import web

from simulators import registry
from simulators.app import serving
from simulators.clock import Clock
from simulators.config import Config, convert
from simulators.faults import TRAITS
from simulators.registry import BY_MIX, NATURES, READING, TRUE, Row, states
from simulators.signatures import sign
from simulators.threeds import TRIES_MAX

PAGE = Path(__file__).parents[2] / "docs" / "reference-table.md"
ROWS = list(registry.rows())
FAULTS = [(index, row) for index, row in enumerate(ROWS) if row.fault and row.operation not in ("callback", "connect")]
CONNECTIONS = [(index, row) for index, row in enumerate(ROWS) if row.operation == "connect"]
CALLBACKS = [(index, row) for index, row in enumerate(ROWS) if row.operation == "callback"]
VALUES = [(index, row) for index, row in enumerate(ROWS) if not row.fault]
KEY = b"callbacks are signed by this key"
SECRETS = dict.fromkeys(("card", "upi", "bank", "merchant"), "whsec_" + base64.b64encode(KEY).decode())
AT_ONCE = {"kind": "constant", "value": "0ms"}
# Outcomes that no test value has, so that a row which says "as the mix says" can be told from all others.
PAYEE = {"type": "account", "accountNumber": "000123456789", "ifsc": "PAYD0000001", "name": "A"}
MIX = {"card": "91", "upi": "Z8", "bank": "otp_failed"}
DISPUTED, CHALLENGED = "4000000000000259", "4000000000003220"
PART = 700  # of the 1000 that all charges have
STEPS_MS = (60_000, 10_000, 900_000)  # the customer's delay, the banks', any expiry
PATIENCE = aiohttp.ClientTimeout(total=10)

pytestmark = pytest.mark.asyncio(loop_scope="module")


def ident(row: tuple[int, Row]) -> str:
    index, (provider, operation, _, fault, value, _) = row
    return f"{provider}-{operation}-{fault.get('kind') or value}-{index}"


class Ear:
    """Receives callbacks, by path. With `together` a path's first callback is answered only when there is another, or 0.1 s later."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.heard: dict[str, list[tuple[dict[str, str], bytes, int]]] = defaultdict(list)
        self.overlaps: set[str] = set()
        self.together: set[str] = set()
        self._open: dict[str, int] = defaultdict(int)
        self._news = asyncio.Condition()

    async def answer(self, request: web.BaseRequest) -> web.Response:
        path = request.path
        body = await request.read()
        self._open[path] += 1
        if self._open[path] > 1:
            self.overlaps.add(path)
        async with self._news:
            self.heard[path].append((dict(request.headers), body, self.clock.now_ms()))
            self._news.notify_all()
        if path in self.together:
            await self._wait(path, 2, timeout_s=0.1)
        self._open[path] -= 1
        return web.Response()

    async def wait(self, path: str, count: int) -> list[tuple[dict[str, str], bytes, int]]:
        """The callbacks to this path, once there are so many."""
        assert await self._wait(path, count, timeout_s=10), f"{count} callbacks did not come to {path}: {self.heard[path]}"
        return self.heard[path]

    async def _wait(self, path: str, count: int, *, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s), self._news:
                await self._news.wait_for(lambda: len(self.heard[path]) >= count)
        except TimeoutError:
            return False
        return True


class Simulators:
    """The simulators on a port of their own, and an ear."""

    def __init__(self, session: aiohttp.ClientSession, url: str, clock: Clock, ear: Ear, ear_url: str) -> None:
        self.session, self.url, self.clock, self.ear, self.ear_url = session, url, clock, ear, ear_url
        self._seen = 0

    async def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        async with self.session.request(method, self.url + path, json=body, timeout=PATIENCE) as answer:
            fields = msgspec.json.decode(await answer.read())
            assert answer.status == 200, fields
            return fields

    async def post_form(self, url: str, **fields: str) -> None:
        async with self.session.post(url, data=fields, allow_redirects=False) as answer:
            assert answer.status == 303

    async def journal(self) -> list[dict[str, Any]]:
        """What is new in it."""
        async with self.session.get(f"{self.url}/journal", params={"since": self._seen}) as answer:
            entries = [msgspec.json.decode(line) for line in (await answer.read()).splitlines()]
        self._seen = max([self._seen, *(entry["seq"] for entry in entries)])
        return entries


async def served(stack: AsyncExitStack, **sections: Any) -> Simulators:
    config = convert({"secrets": SECRETS, **sections}, Config, file="test")
    clock, listeners = Clock(), [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
    urls = [f"http://127.0.0.1:{listener.getsockname()[1]}" for listener in listeners]
    await stack.enter_async_context(serving(config, listeners[0], clock=clock, hold_s=0.01))
    ear = Ear(clock)
    runner = web.ServerRunner(web.Server(ear.answer), shutdown_timeout=0.1)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.SockSite(runner, listeners[1]).start()
    session = await stack.enter_async_context(aiohttp.ClientSession())
    return Simulators(session, urls[0], clock, ear, urls[1])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def faulty() -> AsyncIterator[Simulators]:
    """Everything is approved at once, and each row with a fault has a merchant whose calls meet it at the first try."""
    sections: dict[str, dict[str, Any]] = {
        "card": {"outcomes": {"00": 1}, "dispute_delay": "0ms"},
        "upi": {"outcomes": {"00": 1}, "customer": {"delay": AT_ONCE}, "refund_delay": {"kind": "constant", "value": "30s"}},
        "bank": {"outcomes": {"00": 1}, "customer": {"delay": AT_ONCE}, "refund_delay": {"kind": "constant", "value": "30s"}},
    }
    for provider, section in sections.items():
        section["latency"] = AT_ONCE
        section["faults"] = [
            row.fault | {"operation": row.operation, "merchant": f"m_{index}", "first": tries(row)}
            for index, row in [*FAULTS, *CALLBACKS]
            if row.provider == provider
        ]
    async with AsyncExitStack() as stack:
        yield await served(stack, **sections)


def tries(row: Row) -> int:
    """How many tries a fault spoils: one, but where aiohttp by itself makes a second one, as it does for a GET without an answer."""
    return 2 if row.operation in READING and row.sees in ("no answer", "the connection is reset") else 1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def healthy() -> AsyncIterator[Simulators]:
    """No faults, a mix of outcomes that no test value has, and customers who take a minute."""
    sections: dict[str, dict[str, Any]] = {name: {"latency": AT_ONCE, "outcomes": {code: 1}} for name, code in MIX.items()}
    slow = {"delay": {"kind": "constant", "value": "60s"}}
    sections["card"] |= {"authentication": {"U": 1}, "customer": slow}
    sections["upi"] |= {"customer": slow}
    sections["bank"] |= {"customer": slow}
    async with AsyncExitStack() as stack:
        yield await served(stack, **sections)


def create(provider: str, index: int, ear_url: str, **fields: Any) -> tuple[str, str, dict[str, Any]]:
    body = {"reference": f"r_{index}", "amount": 1000, "currency": "INR", "merchantID": f"m_{index}"}
    own = {
        "card": {"card": card("4111111111111111")},
        "upi": {"flow": "collect", "vpa": "a@upi", "callbackURL": f"{ear_url}/{index}"},
        "bank": {"bankCode": "HDFC0000001", "callbackURL": f"{ear_url}/{index}"},
    }
    return "POST", f"/{provider}/{'charges' if provider == 'card' else 'payments'}", body | own[provider] | fields


def card(number: str, year: str = "2099") -> dict[str, str]:
    return {"number": number, "expiryMonth": "12", "expiryYear": year, "cvv": "123"}


def authentication(index: int, number: str) -> tuple[str, str, dict[str, Any]]:
    _, _, body = create("card", index, "", card=card(number))
    more = {"returnURL": "http://127.0.0.1:9/", "threeDSRequestorDecMaxTime": "00060"}
    return "POST", "/card/3ds/authentications", body | more


def mandate(index: int, vpa: str, ear_url: str, now_ms: int) -> tuple[str, str, dict[str, Any]]:
    _, _, body = create("upi", index, ear_url, vpa=vpa)
    del body["amount"], body["flow"]
    more = {"amountMax": 1000, "frequency": "as_presented", "startAt": now_ms - 1, "endAt": now_ms + 366 * 86_400_000}
    return "POST", "/upi/mandates", body | more


def payout(index: int, beneficiary: dict[str, str], ear_url: str) -> tuple[str, str, dict[str, Any]]:
    _, _, body = create("bank", index, ear_url)
    del body["bankCode"]
    return "POST", "/bank/payouts", body | {"mode": "IMPS", "purpose": "salary", "beneficiary": beneficiary}


async def dispute_of(world: Simulators, reference: str) -> dict[str, Any]:
    """The dispute of this charge, as soon as it is there."""
    async with asyncio.timeout(10):
        while True:
            found = (await world.call("GET", "/card/disputes"))["disputes"]
            if mine := [one for one in found if one["chargeReference"] == reference]:
                return mine[0]


async def prepare(world: Simulators, index: int, row: Row) -> tuple[str, str, dict[str, Any] | None]:
    """Makes what the row's operation needs; the call to be made."""
    provider, operation = row.provider, row.operation
    manual = {"capture": "manual"} if operation in ("increment", "capture") else {}
    disputed = {"card": card(DISPUTED)} if operation == "dispute" else {}
    charge = create(provider, index, world.ear_url, **manual, **disputed)
    path = f"{charge[1]}/r_{index}"
    own = {"reference": f"own_{index}", "amount": PART, "currency": "INR"}
    match operation:
        case "create":
            return charge
        case "authenticate":
            return authentication(index, "4111111111111111")
        case "mandate":
            return mandate(index, "a@upi", world.ear_url, world.clock.now_ms())
        case "payout":
            return payout(index, PAYEE, world.ear_url)
    await world.call(*charge)
    if provider != "card" and operation in ("refund", "refund_status"):
        await world.ear.wait(f"/{index}", 1)  # the customer has paid
    match operation:
        case "increment" | "capture":
            return "POST", f"{path}/{operation}", own
        case "reverse":
            return "POST", f"{path}/reverse", {"amount": 1000, "currency": "INR"}
        case "refund":
            return "POST", f"{path}/refunds", own
        case "refund_status":
            await world.call("POST", f"{path}/refunds", own)
            return "GET", f"/{provider}/refunds/own_{index}", None
        case "status":
            if row.fault["kind"] == "stale_status":
                await world.call("POST", f"{path}/reverse", {"amount": 1000, "currency": "INR"})
            return "GET", path, None
        case "dispute":
            return "POST", f"/card/disputes/{(await dispute_of(world, f'r_{index}'))['disputeID']}/accept", None
    raise AssertionError(f"no row of {operation} can be executed yet; teach this test how")


async def observe(world: Simulators, method: str, path: str, body: Any) -> tuple[str, dict[str, Any], bytes]:
    """What an HTTP client sees, in the words of the table; the headers, and the body."""
    headers: dict[str, Any] = {}
    pieces: list[bytes] = []
    try:
        async with world.session.request(method, world.url + path, json=body, timeout=PATIENCE) as answer:
            headers = dict(answer.headers)
            pieces = [piece async for piece in answer.content.iter_any()]
            return said(answer.status, headers, pieces), headers, b"".join(pieces)
    except aiohttp.ServerDisconnectedError:
        return "no answer", headers, b""
    except aiohttp.ClientOSError as error:
        ends = {errno.ECONNRESET: "reset", errno.ECONNREFUSED: "refused"}
        how = ends.get(error.errno, f"broken ({error!r})")
        return f"the connection is {how}", headers, b""
    except aiohttp.ClientPayloadError:
        return f"half of {TRUE}", headers, b"".join(pieces)


def said(status: int, headers: dict[str, Any], pieces: list[bytes]) -> str:
    if headers["Content-Type"].startswith("text/html"):
        return f"{status} with an HTML page"
    try:
        fields = msgspec.json.decode(b"".join(pieces))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return f"{status} with bytes that are no JSON"
    if status != 200:
        wait = f", `Retry-After: {headers['Retry-After']}`" if "Retry-After" in headers else ""
        return f"{status} `{fields['code']}`{wait}"
    if len(pieces) > 3:
        return f"{TRUE}, in pieces"
    return f"{TRUE}, after `delay`" if headers["X-Paydrome-Delay-Ms"] != "0" else TRUE


def compared(seen: str, body: bytes, truth: dict[str, Any]) -> str:
    """The same, with what only a comparison with the truth can tell."""
    if not seen.startswith(TRUE):
        return seen
    fields = msgspec.json.decode(body)
    steady = {name: value for name, value in fields.items() if name not in ("status", "responseCode", "rrn", "updatedAt")}
    if fields == truth or all(truth[name] == value for name, value in steady.items() if name != "amount"):
        if fields["amount"] == truth["amount"] + 1:
            return f"{TRUE}, but one minor unit too much"
        if truth.get("status") == "reversed" != fields["status"]:
            return "the charge as it was before its last change"
        return seen
    return f"not the truth: {fields}, which is {truth}"


@pytest.mark.parametrize(("index", "row"), CONNECTIONS, ids=map(ident, CONNECTIONS))
async def test_who_connects_sees_what_the_table_says(index, row):
    async with AsyncExitStack() as stack:
        world = await served(stack, **{row.provider: {"port": 0, "latency": AT_ONCE}})
        shared, own = world.url, (await world.call("GET", "/admin/ports"))["ports"][row.provider]["url"]
        async with world.session.post(
            f"{shared}/admin/faults", json={"provider": row.provider, "name": "x", **row.fault}
        ) as answer:
            assert answer.status == 201
        world.url = own
        seen, _, _ = await observe(world, *create(row.provider, index, "http://127.0.0.1:9"))
        world.url = shared
        entries = await world.journal()
    assert (seen, "yes" if entries else "no") == (row.sees, row.acts)


async def truth_about(world: Simulators, row: Row, method: str, path: str, body: Any) -> dict[str, Any]:
    """What there really is: the same call again, which no fault befalls."""
    if row.operation == "dispute":
        return await world.call("GET", path.removesuffix("/accept"))
    return await world.call(method, path, body)


def acted(row: Row, entry: dict[str, Any]) -> str:
    """Whether the journal says that the provider did what it was asked to do."""
    if row.operation in READING:
        return ""
    match row.operation:
        case "reverse":
            done = entry["status"] == "reversed"
        case "dispute":
            done = entry["status"] == "lost"
        case "increment" | "capture" | "refund":
            done = entry["amount"] == PART  # otherwise the entry shows the charge
        case _:
            done = entry["status"] is not None
    return "yes" if done else "no"


@pytest.mark.parametrize(("index", "row"), FAULTS, ids=map(ident, FAULTS))
async def test_a_client_sees_of_a_fault_what_the_table_says(faulty, index, row):
    call = await prepare(faulty, index, row)
    await faulty.journal()
    seen, headers, body = await observe(faulty, *call)
    entries = await faulty.journal()
    hit = [entry for entry in entries if entry["fault"] == row.fault["kind"]]
    truth = await truth_about(faulty, row, *call)
    words = compared(seen, body, truth) if "amount" in truth else seen
    if row.fault["kind"] == "duplicate_charge":
        await faulty.call("POST", "/admin/clock/advance", {"by": "1s"})  # where the money waits for its customer
        moves = [entry for entry in [*entries, *await faulty.journal()] if entry["moved"]]
        if [(entry["moved"], entry.get("subject")) for entry in moves[-2:]] == [
            (truth["amount"], hit[0].get("subject")),
            (truth["amount"], "duplicate"),
        ]:
            words += "; the money moves twice"
    assert words == row.sees
    assert acted(row, hit[0]) == row.acts
    if headers:
        assert headers["X-Paydrome-Fault"] == row.fault["kind"]


@pytest.mark.parametrize(("index", "row"), CALLBACKS, ids=map(ident, CALLBACKS))
async def test_a_receiver_sees_of_a_callback_what_the_table_says(faulty, index, row):
    ear, path, kind = faulty.ear, f"/{index}", row.fault["kind"]
    if kind.startswith("twice"):
        ear.together.add(path)
    charge = create(row.provider, index, faulty.ear_url)
    if row.provider == "card":  # tells of disputes
        charge[2].update(card=card(DISPUTED), disputeURL=f"{faulty.ear_url}{path}")
    await faulty.journal()
    await faulty.call(*charge)
    if kind == "lost":
        assert await tried(faulty, row) == [None]
        assert ear.heard[path] == []
        assert row.sees == "nothing"
        return
    await move_on(faulty, index, row)
    heard = await ear.wait(path, 1 if kind in ("late", "bad_signature", "old_timestamp") else 2)
    assert told(ear, path, heard, f"r_{index}") == row.sees


async def tried(world: Simulators, row: Row) -> list[int | None]:
    """How the receiver answered the first try, once it was made."""
    async with asyncio.timeout(10):
        while True:
            found = [entry["callbackStatus"] for entry in await world.journal() if entry["fault"] == row.fault["kind"]]
            if found:
                return found


async def move_on(world: Simulators, index: int, row: Row) -> None:
    """Makes what the fault waits for: time, or the next callback about the same charge."""
    if row.fault["kind"] not in ("late", "out_of_order"):
        return
    if row.provider == "card":
        dispute = await dispute_of(world, f"r_{index}")
    else:
        await until(world, f"/{row.provider}/payments/r_{index}", "approved")
    await postponed(world, f"{world.ear_url}/{index}")
    if row.fault["kind"] == "late":
        assert world.ear.heard[f"/{index}"] == []
        world.clock.advance(30_000)
    elif row.provider == "card":
        world.clock.advance(1_000)  # so that its callback has a later time
        await world.call("POST", f"/card/disputes/{dispute['disputeID']}/accept")
    else:
        own = {"reference": f"own_{index}", "amount": PART, "currency": "INR", "callbackURL": f"{world.ear_url}/{index}"}
        await world.call("POST", f"/{row.provider}/payments/r_{index}/refunds", own)
        world.clock.advance(30_000)


async def until(world: Simulators, path: str, status: str) -> None:
    async with asyncio.timeout(10):
        while (await world.call("GET", path))["status"] != status:
            pass


async def postponed(world: Simulators, url: str) -> None:
    """Returns once a try of the callback to this URL waits on the clock."""
    async with asyncio.timeout(10):
        while url not in {  # noqa: ASYNC110 - a clock tells nobody
            one.callback.url for timer in world.clock.due() for one in timer.parts()[2] if hasattr(one, "callback")
        }:
            await asyncio.sleep(0)


def told(ear: Ear, path: str, heard: list[tuple[dict[str, str], bytes, int]], reference: str) -> str:
    """What the receiver saw, in the words of the table."""
    headers, body, at = heard[0]
    bodies = [msgspec.json.decode(body) for _, body, _ in heard]
    stamp = int(headers["webhook-timestamp"])
    if headers["webhook-signature"] != sign(KEY, headers["webhook-id"], stamp, body):
        return "the callback with a signature that does not verify"
    if round((at - ear.clock.offset_ms) / 1000 - stamp, -2) == 600:
        return "the callback with a timestamp 600 s old"
    if len(heard) == 1:
        return "the callback, after `delay`" if at - bodies[0]["updatedAt"] >= 30_000 else "the callback"
    if bodies[0] == bodies[1]:
        return f"the callback{' twice at the same time' if path in ear.overlaps else ', and again once it was answered'}"
    references = [body.get("chargeReference", body.get("reference")) for body in bodies]
    if references[0] == reference != references[1]:
        return "the callback, and one for a reference that does not exist"
    assert references == [reference, reference]
    late = bodies[0]["updatedAt"] > bodies[1]["updatedAt"]
    return f"the callback {'after' if late else 'before'} the next one about the same charge"


@pytest.mark.parametrize(("index", "row"), VALUES, ids=map(ident, VALUES))
async def test_a_test_value_does_what_the_table_says(healthy, index, row):
    assert await EXECUTE[row.provider, row.operation](healthy, index, row.value) == row.sees


async def card_create(world: Simulators, index: int, value: str) -> str:
    number, _, authenticated = value.partition(", ")
    fields: dict[str, Any] = {"card": card("4111111111111111", "2020") if number.startswith("expired") else card(number)}
    if authenticated:
        found = await world.call(*authentication(index, number))
        await world.post_form(found["acsURL"], action="submit", otp="111000")
        fields["threeDS"] = {"threeDSServerTransID": found["threeDSServerTransID"]}
    charge = await world.call(*create("card", index, "", **fields))
    seen = BY_MIX if charge["responseCode"] == MIX["card"] else states(charge["status"], charge["responseCode"])
    world.clock.advance(2_000)
    charge = await world.call("GET", f"/card/charges/r_{index}")
    if "disputedAmount" in charge or number in ("4000000000001976",):
        seen += f"; disputed: `{(await dispute_of(world, f'r_{index}'))['reason']}`"
    return seen


async def card_refund(world: Simulators, index: int, number: str) -> str:
    await world.call(*create("card", index, "", card=card(number)))
    own = {"reference": f"own_{index}", "amount": PART, "currency": "INR"}
    first = await world.call("POST", f"/card/charges/r_{index}/refunds", own)
    world.clock.advance(2_000)
    return f"`{first['status']}`, then `{(await world.call('GET', f'/card/refunds/own_{index}'))['status']}`"


async def card_dispute(world: Simulators, index: int, value: str) -> str:
    await world.call(*create("card", index, "", card=card(DISPUTED)))
    world.clock.advance(2_000)
    path = f"/card/disputes/{(await dispute_of(world, f'r_{index}'))['disputeID']}"
    first = await world.call("POST", f"{path}/evidence", {"text": value.removeprefix("evidence: ")})
    world.clock.advance(2_000)
    return f"`{first['status']}`, then `{(await world.call('GET', path))['status']}`"


async def card_authenticate(world: Simulators, index: int, value: str) -> str:
    number = value if value.isdigit() else CHALLENGED
    first = await world.call(*authentication(index, number))
    if value.startswith("OTP"):
        await world.post_form(first["acsURL"], action="submit", otp=value.removeprefix("OTP "))
    elif number != value:
        for _ in range(TRIES_MAX):
            await world.post_form(first["acsURL"], action="submit", otp="000000")
    else:
        world.clock.advance(60_000)
    last = await world.call("GET", f"/card/3ds/authentications/r_{index}")
    path = [f"`{first['transStatus']}`", f"`{last['transStatus']}`"]
    return ", then ".join(dict.fromkeys(path))


async def followed(world: Simulators, path: str, first: str, steps_ms: tuple[int, ...] = (0, *STEPS_MS)) -> str:
    """All the states that can be seen, from the answer to the end."""
    seen = [first] if first else []
    for ms in steps_ms:
        world.clock.advance(ms)
        one = await world.call("GET", path)
        seen.append(states(one["status"], one["responseCode"]))
    if first == "no answer":
        seen.remove(states("pending", None))
    return ", then ".join(dict.fromkeys(seen))


async def upi_create(world: Simulators, index: int, vpa: str) -> str:
    seen, _, _ = await observe(world, *create("upi", index, world.ear_url, vpa=vpa))
    return await followed(world, f"/upi/payments/r_{index}", "" if seen == TRUE else seen)


async def upi_mandate(world: Simulators, index: int, vpa: str) -> str:
    seen, _, _ = await observe(world, *mandate(index, vpa, world.ear_url, world.clock.now_ms()))
    return await followed(world, f"/upi/mandates/r_{index}", "" if seen == TRUE else seen)


async def bank_create(world: Simulators, index: int, value: str) -> str:
    by_page = value.startswith("page: ")
    charge = await world.call(*create("bank", index, world.ear_url, **({} if by_page else {"bankCode": value})))
    if by_page:
        page = charge["redirectURL"]
        if value == "page: cancel":
            await world.post_form(page, action="cancel")
        else:
            await world.post_form(page, action="login", user="me", password="demo")
            await world.post_form(page, action="confirm")
            await world.post_form(page, action="pay", otp="111000" if "111000" in value else "000000")
        last = await world.call("GET", f"/bank/payments/r_{index}")
        return f"{states(charge['status'], None)}, then {states(last['status'], last['responseCode'])}"
    return await followed(world, f"/bank/payments/r_{index}", "")


async def bank_payout(world: Simulators, index: int, value: str) -> str:
    kind, _, payee = value.partition(": ")
    beneficiary = {
        "account": PAYEE | {"accountNumber": payee},
        "wallet": {"type": "wallet", "provider": "paytm", "phone": payee},
        "vpa": {"type": "vpa", "vpa": payee},
    }[kind]
    order = payout(index, beneficiary, world.ear_url)
    order[2]["mode"] = "UPI" if kind == "vpa" else "IMPS"
    first = await world.call(*order)
    seen = states(first["status"], first["responseCode"])
    return await followed(world, f"/bank/payouts/r_{index}", seen, (3_600_000, 86_400_000))


EXECUTE = {
    ("card", "create"): card_create,
    ("card", "refund"): card_refund,
    ("card", "dispute"): card_dispute,
    ("card", "authenticate"): card_authenticate,
    ("upi", "create"): upi_create,
    ("upi", "mandate"): upi_mandate,
    ("bank", "create"): bank_create,
    ("bank", "payout"): bank_payout,
}


async def test_the_page_in_the_docs_is_up_to_date():
    again = "python -m simulators.registry --write docs/reference-table.md"
    assert PAGE.read_text() == registry.page(), f"docs/reference-table.md is not what the code says; run: {again}"


async def test_each_kind_of_fault_has_a_row_for_each_operation_that_can_have_it():
    listed = {(row.provider, row.operation, row.fault["kind"]) for row in ROWS if row.fault}
    for provider, nature in NATURES.items():
        for kind, trait in TRAITS.items():
            for operation in set(trait.operations) & set(nature.operations):
                assert (provider, operation, kind) in listed


async def test_the_page_is_printed_or_written_and_a_bad_file_is_a_clear_error(tmp_path, capsys):
    assert registry.main([]) == 0
    assert capsys.readouterr().out == registry.page()
    assert registry.main(["--write", str(tmp_path / "page.md")]) == 0
    assert (tmp_path / "page.md").read_text() == registry.page()
    assert registry.main(["--write", str(tmp_path / "none" / "page.md")]) == 1
    assert "cannot write" in capsys.readouterr().err
