"""The load, as a Locust file: `locust -f loadtests/locustfile.py --host http://127.0.0.1:8080`, with Locust's own UI or with
`--headless`.

Locust's users wait for their answers, so a slow server is asked less. Here one user owns an absolute, seeded schedule: it
sleeps until each request is due and hands it to a pool, however slow the answers are. What does not fit into the pool is
dropped and counted, never sent late. Times count from the moment a request was due, in Locust's UI too.

The number of users and the spawn rate of Locust mean nothing here; the scenario says what is offered. One process sends it all
(some thousand requests a second), so `--master`, `--worker` and `--processes` are refused. The exit code is the verdict's
(verdict.py) on what the clients saw, and 1 for a run that was cut short.
"""

import gc
import logging
import math
import os
import secrets
import sys
import time
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NoReturn

import gevent
import msgspec
from gevent.pool import Group, Pool
from locust import User, events, task
from locust.argument_parser import LocustArgumentParser
from locust.contrib.fasthttp import FastHttpSession, FastResponse
from locust.env import Environment
from locust.exception import CatchResponseError, StopUser
from locust.runners import LocalRunner, Runner

from loadtests import arguments, arrivals, payments, scenario, verdict
from loadtests.payments import Payments
from loadtests.recorder import Recorder, Report, Started
from loadtests.samples import METHODS, Outcome
from loadtests.scenario import Scenario, ScenarioError
from loadtests.walking import FORM, Heard, Walking

EXIT_ERROR, EXIT_USAGE = 1, 2
CLIENT_TIMEOUT_S = 10.0  # well above every latency target: a missed one must be seen as late, not as unanswered
DRAIN_S = 2 * CLIENT_TIMEOUT_S + 1  # connecting and reading may take one timeout each; after that nothing is in flight
WALKS_S_MAX = 30.0  # what journeys may still take when the last payment was answered: most take five seconds
POOL_SPARE = 1.5  # more than rate x timeout cannot be in flight, but for the randomness of arrivals and slow connects
POOL_MAX = 8_000  # below the 10 000 open files that Locust asks the system for
PROGRESS_S = 0.5
LEAD_S = 0.25  # from saying when the schedule starts to its start, so that others can set their clocks by it
PATH = "/api/payments/process"
ONE_PROCESS = "one process sends this load: leave out --master, --worker and --processes"
STATUSES = frozenset(range(100, 600))  # each is an answer; what it means is for the recorder to say

log = logging.getLogger("paydrome")


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]  # locust is untyped here
def add_options(parser: LocustArgumentParser) -> None:
    parser.add_argument("--scenario", default="baseline", help="shipped scenario or path to a file (default: baseline)")
    parser.add_argument("--seed", default="", help="instead of the scenario's own")
    parser.add_argument("--merchant", default="merchant_123", help="merchantID to pay (default: merchant_123)")
    parser.add_argument(
        "--key",
        default="sk_test_merchant_123",
        env_var="PAYDROME_KEY",
        is_secret=True,
        help="the merchant's API key (default: the sandbox key)",
    )
    # Refused while the command line is read: later Locust has forked, and its forks would look for a master for minutes.
    parser._option_string_actions["--processes"].type = _one_process
    hidden = {"include_in_web_ui": False}
    parser.add_argument("--out", default=None, help="folder for samples.npz, acks.ndjson, generator.json", **hidden)
    parser.add_argument("--progress", action="store_true", help="a JSON line every 0.5 s on stdout", **hidden)


@events.init.add_listener  # type: ignore[untyped-decorator]
def refuse_what_cannot_work(environment: Environment, runner: Runner, **_: object) -> None:
    options = environment.parsed_options
    if not isinstance(runner, LocalRunner):
        _refuse(ONE_PROCESS)
    if options.headless and not environment.host:
        _refuse("say where the gateway is, such as --host http://127.0.0.1:8080")
    try:
        _chosen(options)
        if environment.host:
            arguments.base_url(environment.host)
    except (ScenarioError, ValueError) as error:
        _refuse(str(error))
    try:
        if options.out:
            Path(options.out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _refuse(f"--out {options.out}: {error.strerror or error}; choose another folder")


def _chosen(options: Namespace) -> tuple[Scenario, int]:
    """Scenario and seed, which may also come from the web form. Raises ScenarioError."""
    chosen = scenario.load(options.scenario)
    if not options.seed:
        return chosen, chosen.seed
    try:
        return chosen, arguments.seed(options.seed)
    except ValueError as error:
        raise ScenarioError("--seed", "", str(error)) from None


def _one_process(_: str) -> NoReturn:
    raise ArgumentTypeError(ONE_PROCESS)


def _refuse(reason: str) -> NoReturn:
    sys.stderr.write(f"error: {reason}\n")
    sys.exit(EXIT_USAGE)


class Customers(User):  # type: ignore[misc]
    """All customers of a scenario. There is one such user, whatever number Locust is asked for."""

    fixed_count = 1

    @task  # type: ignore[untyped-decorator]
    def pay(self) -> NoReturn:
        runner, options = self.environment.runner, self.environment.parsed_options
        self.environment.process_exit_code = EXIT_ERROR  # until the run is judged: it may be cut short
        try:
            self.environment.process_exit_code = Run(self.environment, self.host, options).to_the_end()
        except ScenarioError as error:  # from the web form
            log.error("%s", error)  # noqa: TRY400 - the message says it all
            runner.log_exception("local", str(error), "")  # shows it in the web UI
        except Exception:
            log.exception("the run failed")  # Locust would log it too, and then start the schedule again
        (runner.quit if options.headless else runner.stop)()
        raise StopUser


class Run:
    """One walk through the schedule; the web UI can start several in one process."""

    def __init__(self, environment: Environment, host: str, options: Namespace) -> None:
        self._environment, self._options = environment, options
        self._scenario, self._seed = _chosen(options)
        self._run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"  # unique: see payments.py
        self._out = Path(options.out) if options.out else None
        self._schedule()
        size = min(POOL_MAX, math.ceil(self._scenario.traffic.rate_per_s * CLIENT_TIMEOUT_S * POOL_SPARE) + 50)
        self._pool, self._walks = Pool(size), Group()  # of requests; of journeys, which send through the pool
        self._session = self._open_session(host.rstrip("/"), size)
        self._headers = {
            "Authorization": f"Bearer {options.key}",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",  # the hash in the acks is of the bytes as sent
        }

    def to_the_end(self) -> int:
        """Send everything that is due, wait for the answers, judge and save. Returns the exit code."""
        with open(self._out / "acks.ndjson" if self._out else os.devnull, "wb") as acks:  # noqa: PTH123 - devnull too
            self._recorder = self._new_recorder(acks)
            self._walking = Walking(
                self,
                self._recorder,
                run_id=self._run_id,
                headers=self._headers,
                duplicates=self._scenario.traffic.duplicates,
            )
            gc.collect()
            gc.freeze()  # what lives until the end need not be looked at again
            self._started_at = time.time() + LEAD_S
            self._zero_ns = time.monotonic_ns() + round(LEAD_S * 1e9)
            telling = gevent.spawn(self._tell, acks)
            cpu_share = 0.0  # a run that is cut short has none
            try:
                cpu_share = self._send_all()
                self._pool.join(timeout=DRAIN_S)
                if self._walks:
                    self._walks.join(timeout=WALKS_S_MAX)
                    self._pool.join(timeout=DRAIN_S)
            finally:  # also when Locust's Stop button or Ctrl-C kills this greenlet
                telling.kill()
                self._walks.kill()
                self._pool.kill()
                self._recorder.give_up(self.now_ns())
                code = self._judge(cpu_share)
        return code

    def _schedule(self) -> None:
        traffic = self._scenario.traffic
        due_ns = arrivals.schedule(
            seed=self._seed, rate_per_s=traffic.rate_per_s, duration_s=traffic.total_s, arrivals=traffic.arrivals
        )
        self._plan = arrivals.plan(due_ns, seed=self._seed, duplicates=traffic.duplicates)
        self._payments = Payments(
            seed=self._seed, n=len(due_ns), mix=traffic.mix, year=datetime.now(UTC).year, journeys=traffic.journeys
        )

    def _new_recorder(self, acks: BinaryIO) -> Recorder:
        traffic = self._scenario.traffic
        return Recorder(
            self._plan,
            run_id=self._run_id,
            merchant_id=self._options.merchant,
            judged_from_ns=round(traffic.warm_up_s * 1e9),
            judged_until_ns=round(traffic.total_s * 1e9),
            acks=acks,
        )

    def _open_session(self, host: str, size: int) -> FastHttpSession:
        """One pool of connections for all customers. `request_event` is where the session reports each answer: to us."""
        session = FastHttpSession(
            base_url=host,
            request_event=self,
            user=None,
            concurrency=size,
            network_timeout=CLIENT_TIMEOUT_S,
            connection_timeout=CLIENT_TIMEOUT_S,
            max_redirects=0,
            max_retries=0,  # a lost answer is what we are here to see
        )
        session.client.valid_response_codes = STATUSES
        session.client.cookiejar = None  # customers share nothing
        return session

    def _send_all(self) -> float:
        """Hand every request to the pool when it is due. Returns the CPU share of this process in the judged period."""
        traffic, plan = self._scenario.traffic, self._plan
        first_judged = int(plan.due_ns.searchsorted(round(traffic.warm_up_s * 1e9)))
        wall, cpu = time.monotonic(), time.process_time()
        for row, (index, due_ns) in enumerate(zip(plan.index.tolist(), plan.due_ns.tolist(), strict=True)):
            if row == first_judged:
                self.sleep_until(round(traffic.warm_up_s * 1e9))
                wall, cpu = time.monotonic(), time.process_time()
            payment = self._payments[index]
            body = payments.body(payment, i=index, run_id=self._run_id, merchant_id=self._options.merchant)
            self.sleep_until(due_ns)
            if self._pool.free_count():
                self._pool.spawn(self._send, row, index, payment, body)
            else:
                self._recorder.dropped(row, payment)
        self.sleep_until(round(traffic.total_s * 1e9))
        return (time.process_time() - cpu) / (time.monotonic() - wall)

    def sleep_until(self, due_ns: int) -> None:
        """Sleeps at least one turn of the event loop, so that what was spawned can start even when all of it is late."""
        while True:
            gevent.sleep(max(0, due_ns - self.now_ns()) / 1e9)
            if self.now_ns() >= due_ns:
                return

    def _send(self, row: int, index: int, payment: payments.Payment, body: bytes) -> None:
        if payment.journey is not None:
            self._walking.expect([row])
        headers = {**self._headers, "Idempotency-Key": payments.key(self._run_id, index)}
        self._recorder.sent(row, payment, self.now_ns())
        self.request("POST", PATH, f"{PATH} {METHODS[payment.method]}", body, headers, row)
        self._walking.begin(row, index, payment)

    def request(self, method: str, path: str, name: str, body: bytes | None, headers: dict[str, str], row: int) -> None:
        context = {"row": row}
        try:
            self._session.request(method, path, name=name, data=body, headers=headers, context=context)
        except Exception as error:  # an answer that the HTTP client cannot make sense of
            self.fire(request_type=method, name=name, context=context, response=None, exception=error, response_length=0)

    def start(self, walk: Callable[[], None]) -> None:
        self._walks.spawn(walk)

    def send_together(self, sends: Sequence[Callable[[], None]]) -> bool:
        if self._pool.free_count() < len(sends):
            return False
        gevent.joinall([self._pool.spawn(send) for send in sends])
        return True

    def browse(self, method: str, url: str, form: bytes | None) -> tuple[int, bytes]:
        try:
            page = self._session.request(method, url, data=form, headers=FORM, context={})
        except Exception:  # an answer that the HTTP client cannot make sense of
            log.exception("the page %s", url)
            return 0, b""
        return page.status_code, page.content or b""

    def fire(self, *, context: dict[str, int], response: FastResponse, exception: Exception | None, **meta: object) -> None:
        """The session reports an answer, or that none came. Record it, and pass it on to Locust with its true latency."""
        if "row" not in context:  # at the issuer's page
            return
        row, now_ns = context["row"], self.now_ns()
        due_ns = self._recorder.due_ns(row)
        if exception is None:
            content = response.content or b""
            error = self._recorder.answered(row, now_ns, response.status_code, content)
            exception = CatchResponseError(error) if error else None
            self._walking.hears(row, Heard(now_ns, not error and response.status_code < 400, content))
        else:
            timed_out = isinstance(getattr(exception, "original", exception), TimeoutError)  # wrapped by the HTTP client
            self._recorder.unanswered(row, now_ns, Outcome.TIMEOUT if timed_out else Outcome.TRANSPORT_ERROR)
        meta["response_time"] = (now_ns - due_ns) / 1e6
        self._environment.events.request.fire(context=context, response=response, exception=exception, **meta)

    def _tell(self, acks: BinaryIO) -> None:
        """Progress for whoever started us; if nobody listens any more, there is nobody to load for."""
        try:
            self._say(Started(at=self._started_at))
            while True:
                gevent.sleep(PROGRESS_S)
                acks.flush()
                self._say(self._recorder.progress(self.now_ns()))
        except BrokenPipeError:
            log.warning("nobody reads the progress any more: stopping")
            gevent.spawn(self._environment.runner.quit)  # not from here: quitting waits for a greenlet that waits for this one

    def _say(self, what: msgspec.Struct) -> None:
        if self._options.progress:
            sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
            sys.stdout.buffer.flush()

    def _judge(self, cpu_share: float) -> int:
        samples, stats = self._recorder.samples(), self._recorder.stats(cpu_share)
        if self._out:
            samples.save(self._out / "samples.npz")
            report = Report(
                run_id=self._run_id,
                started_at=self._started_at,
                seed=self._seed,
                generator=stats,
                journeys=self._recorder.journeys(),
            )
            (self._out / "generator.json").write_bytes(msgspec.json.encode(report))
        judged: verdict.Verdict = verdict.judge(samples, stats, self._scenario.targets, success=None, invariants=())
        for check in judged.checks:
            result = {True: "ok", False: "MISSED", None: "not judged"}[check.ok]
            log.info("%-18s %-14s target %-12s %-10s %s", check.name, check.measured, check.target, result, check.note)
        log.info("%s (of what the clients saw; the money is not audited here)", judged.result)
        return judged.exit_code

    def now_ns(self) -> int:
        """Since the zero of the schedule; negative before it."""
        return time.monotonic_ns() - self._zero_ns
