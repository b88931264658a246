"""Everything that merchants, customers, issuers, the network and crashes can do to payments, in any order.

The witnesses are the gateway's file and the provider's own books (acquirer.py). PAYDROME_EXAMPLES=2000 looks longer.
"""

import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from gateway.core.errors import CallerError
from gateway.core.operation import Operation, capturable_minor, refundable_minor
from gateway.core.payment import VOIDABLE, Method, Payment
from gateway.flows.idempotency import CLAIM_LIFETIME_MS, IdempotencyKey
from gateway.flows.operations import Ask
from gateway.flows.payments import Order
from gateway.ports import Response
from gateway.storage import schema
from gateway.storage.sqlite import SqliteStore
from gateway.workers import Recoverer
from tests.gateway.acquirer import Acquirer, Mode
from tests.gateway.doubles import INSTRUMENTS, KEY_ID, PATIENCE_S, ManualClock
from tests.gateway.flows.audited import MERCHANT, Audited
from tests.gateway.flows.conftest import Shop

MODES: list[Mode] = ["answer", "answer", "answer", "lost", "unreached", "not_sent", "held_before", "held_after"]
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # what a disk does is tested elsewhere
ROUNDS_MAX = 40  # of recovery, until nothing is open any more

FAILURES: list[str] = []  # of recovery, since the last look

which = st.integers(0, 1_000)
amounts = st.integers(1, 1_000)
shares = st.integers(0, 3)
modes = st.sampled_from(MODES)


@pytest.fixture(autouse=True)
def failures() -> Iterator[None]:
    """Recovery outlives what fails, and logs it; here it must not go unseen. Formatting the rest would take long."""
    structlog.configure(processors=[_see], wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.reset_defaults()


def _see(_logger: object, _name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    error = sys.exc_info()[1]
    if not isinstance(error, CallerError):
        FAILURES.append(f"{event['event']}: {error!r}")
    raise structlog.DropEvent


class Request:
    """What a merchant sends, as often as it likes, under one key, as long as keys last."""

    def __init__(self, key: str, send: Callable[[IdempotencyKey], Awaitable[Response]], *, now_ms: int) -> None:
        self.until_ms = now_ms + CLAIM_LIFETIME_MS
        self.key = IdempotencyKey(MERCHANT, key, b"fingerprint of " + key.encode())
        self.send = send
        self.response: Response | None = None


class Payments(Audited):
    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._folder = tempfile.TemporaryDirectory(dir=MEMORY)
        self._path = Path(self._folder.name) / "gateway.db"
        self._runner.run(self._open())
        self.reader = schema.connect(self._path, read_only=True)
        self.requests: list[Request] = []
        self.running: dict[asyncio.Task[Response], Request] = {}

    async def _open(self) -> None:
        self.clock = ManualClock()
        self.store = SqliteStore.open(self._path, vault_key_id=KEY_ID)
        self.shop = Shop(self.store, self.clock, self._path)
        self.acquirers = {method: Acquirer(method, self.clock) for method in self.shop.providers}
        self.shop.providers.update(self.acquirers)  # type: ignore[arg-type]
        self.shop.restart()

    # Merchants

    def _send(self, request: Request, mode: Mode) -> None:
        if self.clock.now_ms() > request.until_ms:
            return
        for acquirer in self.acquirers.values():
            acquirer.mode = mode
            acquirer.reached.clear()
        self._runner.run(self._until_held(request))

    async def _until_held(self, request: Request) -> None:
        task = asyncio.ensure_future(request.send(request.key))
        self.running[task] = request
        await self._until_something_happens()

    async def _until_something_happens(self) -> None:
        """A request is answered, or its call of the provider hangs."""
        hangs = [asyncio.ensure_future(acquirer.reached.wait()) for acquirer in self.acquirers.values()]
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([*self.running, *hangs], return_when=asyncio.FIRST_COMPLETED)
        for hang in hangs:
            hang.cancel()
        await self._answered()

    async def _answered(self) -> None:
        for task in [task for task in self.running if task.done()]:
            request = self.running.pop(task)
            try:
                response = task.result()
            except CallerError as error:
                if error.status != 409:
                    raise
                continue
            assert request.response in (None, response), "one key, two answers"
            request.response = response

    def _new(self, send: Callable[[IdempotencyKey], Awaitable[Response]], mode: Mode) -> None:
        request = Request(f"key-{len(self.requests)}", send, now_ms=self.clock.now_ms())
        self.requests.append(request)
        self._send(request, mode)

    @initialize(manual=st.booleans(), amount=amounts)
    def begin(self, manual: bool, amount: int) -> None:
        self.pay("card", manual, amount, "approve", "answer")
        self.pay("upi", False, amount, "approve", "answer")

    @rule(
        method=st.sampled_from(["card", "card", "upi"]),
        manual=st.booleans(),
        amount=amounts,
        fate=st.sampled_from(["approve", "approve", "approve", "decline"]),
        mode=st.sampled_from([*MODES, "late"]),
    )
    def pay(self, method: Method, manual: bool, amount: int, fate: str, mode: Mode) -> None:
        order = Order(
            merchant_id=MERCHANT,
            order_id=f"key-{len(self.requests)}",
            method=method,
            amount_minor=amount,
            currency="INR",
            instrument=INSTRUMENTS[method],
            customer=msgspec.defstruct("Customer", [])(),
            metadata=None,
            capture_method="manual" if manual and method == "card" else "automatic",
        )
        self.acquirers[method].fate = fate
        self._new(lambda key: self.shop.payments.process(order, key, payment_answer), mode)

    def _operate(self, ask: Ask, mode: Mode) -> None:
        self._new(lambda key: self.shop.operations.perform(ask, key, operation_answer), mode)

    @precondition(lambda self: self.payments())
    @rule(n=which, share=shares, final=st.booleans(), mode=modes)
    def capture(self, n: int, share: int, final: bool, mode: Mode) -> None:
        payment = self.pick(n, capturable_minor)
        amount = part(capturable_minor(payment), share)
        ask = Ask(kind="capture", merchant_id=MERCHANT, payment_id=payment.id, amount_minor=amount, final=final)
        self._operate(ask, mode)

    @precondition(lambda self: self.payments())
    @rule(n=which, share=shares, fate=st.sampled_from(["now", "later"]), mode=modes)
    def refund(self, n: int, share: int, fate: str, mode: Mode) -> None:
        for acquirer in self.acquirers.values():
            acquirer.fate = fate
        payment = self.pick(n, refundable_minor)
        amount = part(refundable_minor(payment), share)
        self._operate(Ask(kind="refund", merchant_id=MERCHANT, payment_id=payment.id, amount_minor=amount), mode)

    @precondition(lambda self: self.payments())
    @rule(n=which, mode=modes)
    def void(self, n: int, mode: Mode) -> None:
        payment_id = self.pick(n, lambda payment: payment.status in VOIDABLE).id
        self._new(lambda key: self.shop.payments.void(MERCHANT, payment_id, key, payment_answer), mode)

    @precondition(lambda self: self.requests)
    @rule(n=which, mode=modes)
    def retry(self, n: int, mode: Mode) -> None:
        """Mostly of what was not answered."""
        silent = [request for request in self.requests if request.response is None] if n % 5 else []
        self._send((silent or self.requests)[n % len(silent or self.requests)], mode)

    # The outside world

    @precondition(lambda self: any(acquirer.charges for acquirer in self.acquirers.values()))
    @rule(n=which, status=st.sampled_from(["approved", "approved", "declined", "expired"]))
    def the_customer_decides(self, n: int, status: str) -> None:
        acquirer, charge = self.pick_of("charges", n)
        acquirer.decide(charge, status)

    @precondition(lambda self: any(payment.status == "requires_action" for payment in self.payments()))
    @rule(n=which, disputed=st.booleans())
    def the_customer_pays_during_a_void(self, n: int, disputed: bool) -> None:
        """And may dispute it before the void gets there, which then comes too late."""
        waiting = [payment for payment in self.payments() if payment.status == "requires_action"]
        payment = waiting[n % len(waiting)]
        self._new(lambda key: self.shop.payments.void(MERCHANT, payment.id, key, payment_answer), "held_before")
        acquirer = self.acquirers[payment.method]
        charge = acquirer.charges[self.shop.attempt(payment.id).reference]
        acquirer.decide(charge, "approved")
        if disputed:
            acquirer.open_dispute(charge, charge.captured, "needs_response")
        for about, body in list(acquirer.mail):
            self._deliver(payment.method, about, body, again=True)

    @precondition(lambda self: any(acquirer.refunds for acquirer in self.acquirers.values()))
    @rule(n=which, status=st.sampled_from(["completed", "failed"]))
    def a_refund_ends(self, n: int, status: str) -> None:
        acquirer, refund = self.pick_of("refunds", n)
        acquirer.end_refund(refund, status)

    @precondition(lambda self: any(acquirer.charges for acquirer in self.acquirers.values()))
    @rule(n=which, share=st.integers(1, 4), status=st.sampled_from(["needs_response", "warning_needs_response"]))
    def the_cardholder_disputes(self, n: int, share: int, status: str) -> None:
        acquirer, charge = self.pick_of("charges", n)
        acquirer.open_dispute(charge, charge.captured // share, status)

    @precondition(lambda self: any(acquirer.disputes for acquirer in self.acquirers.values()))
    @rule(n=which, status=st.sampled_from(["under_review", "warning_closed", "needs_response", "won", "lost"]))
    def the_issuer_decides(self, n: int, status: str) -> None:
        acquirer, dispute = self.pick_of("disputes", n)
        acquirer.move_dispute(dispute, status)

    @precondition(lambda self: any(acquirer.mail for acquirer in self.acquirers.values()))
    @rule(n=which, again=st.booleans())
    def a_callback_arrives(self, n: int, again: bool) -> None:
        """Any of them: late, out of order, and maybe once more later."""
        mail = [(method, *letter) for method, acquirer in self.acquirers.items() for letter in acquirer.mail]
        self._deliver(*mail[n % len(mail)], again=again)

    def _deliver(self, method: Method, about: str, body: bytes, *, again: bool) -> None:
        flow: Any = {"charge": self.shop.payments.attempts, "refund": self.shop.operations, "dispute": self.shop.disputes}[
            about
        ]
        try:
            self._runner.run(flow.callback(method, body))
        except CallerError as error:
            if error.code != "dispute_exceeds_captured":  # what it rests on has not been told of yet: the provider tells again
                raise
        else:
            if not again:
                self.acquirers[method].mail.remove((about, body))

    @precondition(lambda self: any(acquirer.under_way for acquirer in self.acquirers.values()))
    @rule()
    def a_late_call_arrives(self) -> None:
        next(acquirer for acquirer in self.acquirers.values() if acquirer.under_way).under_way.pop(0)()

    @precondition(lambda self: self.running)
    @rule(n=which)
    def a_held_call_goes_on(self, n: int) -> None:
        held = [(acquirer, go) for acquirer in self.acquirers.values() for go in acquirer.held]
        acquirer, go = held[n % len(held)]
        acquirer.held.remove(go)
        self._runner.run(self._go_on(go))

    async def _go_on(self, go: asyncio.Event) -> None:
        for acquirer in self.acquirers.values():
            acquirer.reached.clear()
        go.set()
        await self._until_something_happens()

    # The gateway

    @rule(ms=st.sampled_from([1_000, 60_000, 600_000, 2 * 24 * 3_600_000, 7 * 24 * 3_600_000]))
    def time_passes(self, ms: int) -> None:
        self.clock.advance(ms)

    @rule(mode=st.sampled_from(["answer", "answer", "lost", "unreached", "not_sent"]))
    def recovery_looks(self, mode: Mode) -> None:
        for acquirer in self.acquirers.values():
            acquirer.mode = mode
        self._runner.run(self._recover())

    async def _recover(self) -> int:
        shop, found = self.shop, 0
        flows = {"payments": shop.payments, "operations": shop.operations, "disputes": shop.disputes}
        for method in self.acquirers:
            worker = Recoverer(method, store=self.store, clock=self.clock, config=shop.recovery, **flows)  # type: ignore[arg-type]
            found += await worker.run_once()
        return found

    @precondition(lambda self: self.running)
    @rule()
    def the_gateway_crashes_and_starts_again(self) -> None:
        self._runner.run(self._crash())

    @rule(
        what=st.sampled_from(["pay", "capture", "refund", "void"]),
        n=which,
        share=shares,
        mode=st.sampled_from(["held_before", "held_after"]),
        retried=st.sampled_from([None, "answer", "lost", "not_sent"]),
    )
    def the_gateway_dies_in_the_middle(self, what: str, n: int, share: int, mode: Mode, retried: Mode | None) -> None:
        match what:
            case "pay":
                self.pay("card" if n % 2 else "upi", n % 4 == 1, 100 + n, "approve", mode)
            case "capture":
                self.capture(n, share, n % 2 == 0, mode)
            case "refund":
                self.refund(n, share, "later" if n % 3 else "now", mode)
            case _:
                self.void(n, mode)
        self._runner.run(self._crash())
        if retried is not None:
            self._send(self.requests[-1], retried)

    async def _crash(self) -> None:
        for task in self.running:
            task.cancel()
        if self.running:
            await asyncio.wait(self.running)
        self.running.clear()
        for acquirer in self.acquirers.values():
            acquirer.held.clear()
        self.shop.restart()
        await self.store.wake_intents(self.clock.now_ms())

    # What must hold: audited.py, and

    @invariant()
    def nothing_failed_unseen(self) -> None:
        seen, FAILURES[:] = FAILURES[:], []
        assert seen == []

    def teardown(self) -> None:
        try:
            self._settle()
            self.agree()
            for check in (
                self.the_books_balance,
                self.no_payment_gives_back_more_than_it_took,
                self.events_replay,
                self.nothing_failed_unseen,
            ):
                check()
        finally:
            self.reader.close()
            self._runner.run(self.store.close())
            self._runner.close()
            self._folder.cleanup()

    def _settle(self) -> None:
        """The network is good again, customers and issuers have decided, and every request is repeated until it is answered."""
        for acquirer in self.acquirers.values():
            acquirer.mode, acquirer.fate = "answer", "approve"
        self._everybody_decides()
        for acquirer in self.acquirers.values():
            while acquirer.under_way:
                acquirer.under_way.pop(0)()
        while any(acquirer.held for acquirer in self.acquirers.values()):
            self.a_held_call_goes_on(0)
        for _ in range(ROUNDS_MAX):
            self._everybody_decides()
            self.clock.advance(60_000)  # as long as recovery ever waits
            self._runner.run(self._recover())
            if not any(acquirer.mail for acquirer in self.acquirers.values()) and not self.open_things():
                break
        for request in self.requests:
            self._send(request, "answer")

    def _everybody_decides(self) -> None:
        """And all callbacks arrive, twice."""
        for method, acquirer in self.acquirers.items():
            for charge in list(acquirer.charges.values()):
                acquirer.decide(charge, "approved")
            for refund in list(acquirer.refunds.values()):
                acquirer.end_refund(refund, "completed" if refund.status == "pending" else refund.status)
            for again in (True, False):
                for about, body in list(acquirer.mail):
                    self._deliver(method, about, body, again=again)


def part(left: int, share: int) -> int | None:
    """All, a share of it, or a little too much."""
    return [None, max(1, left // 2), max(1, left // 3), left + 1][share]


def payment_answer(payment: Payment) -> Response:
    return Response(201, f"{payment.id} {payment.status} {payment.captured_minor}".encode())


def operation_answer(payment: Payment, operation: Operation) -> Response:
    return Response(201, f"{payment.id} {payment.status} {operation.id} {operation.state}".encode())


TestPayments = Payments.TestCase
TestPayments.settings = settings(
    max_examples=int(os.environ.get("PAYDROME_EXAMPLES", "20")),
    stateful_step_count=30,
    derandomize=True,
    phases=[Phase.generate, Phase.shrink] if "PAYDROME_EXAMPLES" in os.environ else [Phase.generate],
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
