"""Walks journeys (journeys.py) for the clients of a run: when each step is due, with which key, and how it ended. Knows no sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, Protocol
from urllib.parse import urlencode

import msgspec

from loadtests import payments
from loadtests.journeys import ENDED, JOURNEYS, Answer, LostWayError, Step, Walk
from loadtests.payments import Payment
from loadtests.recorder import Recorder

FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept-Encoding": "identity"}  # as a browser sends one


class Heard(NamedTuple):
    """An answer that a journey goes on from."""

    at_ns: int
    ok: bool
    content: bytes


class Clients(Protocol):
    """What carries a journey. Times are ns since the zero of the schedule."""

    def start(self, walk: Callable[[], None]) -> None:
        """Runs it beside everything else."""

    def send_together(self, sends: Sequence[Callable[[], None]]) -> bool:
        """Runs them at the same time, in the places for requests, until all are done. False: there was no room, and nothing was run."""

    def now_ns(self) -> int: ...
    def sleep_until(self, due_ns: int) -> None: ...
    def request(self, method: str, path: str, name: str, body: bytes | None, headers: dict[str, str], row: int) -> None:
        """Sends a measured request; what came of it is told to `Walking.hears`."""

    def browse(self, method: str, url: str, form: bytes | None) -> tuple[int, bytes]:
        """A customer's browser, not measured: HTTP status (0: no answer) and page."""


class Walking:
    """All journeys of one run. There is at most one for a payment, so the payments in the schedule bound them."""

    def __init__(
        self, clients: Clients, recorder: Recorder, *, run_id: str, headers: dict[str, str], duplicates: float
    ) -> None:
        """`headers`: of each request to the API. `duplicates`: share of the journeys whose changes are sent two times."""
        self._clients, self._recorder = clients, recorder
        self._run_id, self._headers, self._duplicates = run_id, headers, duplicates
        self._walkers: set[int] = set()  # payments whose journey has begun: of two equal sends both may be answered
        self._heard: dict[int, Heard | None] = {}  # by row, of those that somebody waits for

    def expect(self, rows: Iterable[int]) -> None:
        """The answers to these rows are to be kept."""
        self._heard |= dict.fromkeys(rows)

    def hears(self, row: int, heard: Heard) -> None:
        """An answer came."""
        if row in self._heard:
            self._heard[row] = heard

    def begin(self, row: int, index: int, payment: Payment) -> None:
        """Sends the payment of this row on its journey, if the answer to it came and is not the end of it."""
        heard = self._heard.pop(row, None)
        if payment.journey is None or heard is None or not heard.ok or index in self._walkers:
            return
        paid = msgspec.json.decode(heard.content)["data"]
        if paid["status"] not in ENDED:  # declined: that is all there is to it
            self._walkers.add(index)
            walk = JOURNEYS[payment.journey].walk(paid)
            self._clients.start(partial(self._walk, index, payment, walk, heard.at_ns, paid["paymentID"]))

    def _walk(self, index: int, payment: Payment, walk: Walk, at_ns: int, payment_id: str) -> None:
        """One journey, from the answer to its payment, which came at `at_ns`."""
        assert payment.journey is not None
        self._recorder.walked(payment.journey, "begun")
        number, ended = 0, "cut off by the end of the run"
        try:
            step = next(walk)
            while True:
                due_ns = at_ns + round(step.after_s * 1e9)
                self._clients.sleep_until(due_ns)
                if step.at_issuer:
                    at_ns, answer = self._meet_issuer(step)
                else:
                    number += 1
                    at_ns, answer = self._take(step, index, number, payment, payment_id, due_ns)
                step = walk.send(answer)
        except StopIteration:
            ended = "finished"
        except LostWayError as error:
            ended = str(error)
        except (LookupError, TypeError) as error:  # of a gateway that is not ours
            ended = f"an answer without what is needed: {error}"
        finally:
            self._recorder.walked(payment.journey, ended)

    def _take(self, step: Step, index: int, number: int, payment: Payment, payment_id: str, due_ns: int) -> tuple[int, Answer]:
        """One request of a journey, which a client may send two times at once; when it was answered, and how."""
        twice = step.changes and payment.twice < self._duplicates
        about = {"index": index, "number": number, "due_ns": due_ns}
        rows = [
            self._recorder.add(step, **about, payment_id=payment_id, twice=twice, duplicate=again > 0)
            for again in range(1 + twice)
        ]
        self.expect(rows)
        if not self._clients.send_together([partial(self._send, row, step, index, number, payment) for row in rows]):
            for row in rows:
                self._recorder.dropped(row, payment)
                del self._heard[row]
            raise LostWayError(f"{step.name}: dropped")
        heard = [answer for row in rows if (answer := self._heard.pop(row, None)) is not None and answer.ok]
        if not heard:
            raise LostWayError(f"{step.name}: not answered as hoped")
        first = heard[0]
        if step.form is not None:
            return first.at_ns, Answer({}, first.content.decode(errors="replace"))
        return first.at_ns, Answer(msgspec.json.decode(first.content)["data"])

    def _send(self, row: int, step: Step, index: int, number: int, payment: Payment) -> None:
        self._recorder.sent(row, payment, self._clients.now_ns())
        if step.form is not None:
            self._clients.request(step.method, step.path, step.name, urlencode(step.form).encode(), FORM, row)
            return
        key = {"Idempotency-Key": payments.key(self._run_id, index, number)} if step.changes else {}
        body = None if step.body is None else msgspec.json.encode(step.body)
        self._clients.request(step.method, step.path, step.name, body, {**self._headers, **key}, row)

    def _meet_issuer(self, step: Step) -> tuple[int, Answer]:
        form = None if step.form is None else urlencode(step.form).encode()
        status, page = self._clients.browse(step.method, step.path, form)
        if not 200 <= status < 400:
            raise LostWayError("the issuer's page cannot be had")
        return self._clients.now_ns(), Answer({}, page.decode(errors="replace"))
