"""The load generator as a whole: Locust in its own process against a server in another."""

import asyncio
import json
import os
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from loadtests import generator, scenario, verdict
from loadtests.generator import Generated, GeneratorError, generate
from loadtests.journeys import THINK_S
from loadtests.recorder import Progress
from loadtests.samples import NEVER, NO_ANSWER_NS, STEPS, Outcome, latencies_ns, percentile, refused
from loadtests.scenario import Scenario, Targets
from simulators.durations import Duration
from tests.forks import Run, forking

SERVER = Path(__file__).with_name("stand_in_gateway.py")
CLOCK_NS = 5_000_000  # the two processes read one clock, but not at one moment
Serve = Callable[..., str]


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    with subprocess.Popen([sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as servers:
        assert servers.stdin is not None
        assert servers.stdout is not None
        options_to, ports = servers.stdin, servers.stdout

        def start(*options: str) -> str:
            print(*options, file=options_to, flush=True)
            return f"http://127.0.0.1:{int(ports.readline())}"

        yield start
        servers.kill()


@pytest.fixture(scope="module")
def locust(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    imports = (
        "from locust.main import main\nfrom loadtests import recorder, scenario, verdict"  # and what the locustfile imports
    )
    with forking(imports, tmp_path_factory.mktemp("locust")) as run:
        yield run


@pytest.fixture
def altered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Runs the locustfile with other constants, or with something that happens on the way."""

    def use(code: str) -> None:
        path = tmp_path / "altered.py"
        path.write_text(
            f"import os, gevent, locust\nfrom loadtests import locustfile\nfrom loadtests.locustfile import Customers\n{code}\n"
        )
        monkeypatch.setattr(generator, "LOCUSTFILE", path)

    return use


def traffic(**changes: Any) -> Scenario:
    """A second of warm-up-free traffic, evenly spaced, with what differs in `changes`."""
    smoke = scenario.load("smoke")
    fields = {"rate": scenario.Rate("50/s"), "duration": Duration("1s"), "warm_up": Duration("0s"), "arrivals": "uniform"}
    changed = msgspec.structs.replace(smoke.traffic, **{**fields, "duplicates": 0.0, **changes})
    return msgspec.structs.replace(smoke, traffic=changed, targets=Targets())


async def offer(target: str, what: Scenario, out: Path, on_progress: Callable[[Progress], None] = lambda _: None) -> Generated:
    return await generate(
        target=target, scenario=what, out=out, key="sk_mine", merchant_id="m_1", seed=7, on_progress=on_progress
    )


def seen(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/seen") as answer:
        return json.load(answer)


def acks(generated: Generated) -> list[dict[str, Any]]:
    return [json.loads(line) for line in generated.acks_path.read_text().splitlines()]


async def test_a_stall_of_the_server_shows_in_the_latency_of_all_who_had_to_wait(serve: Serve, tmp_path: Path) -> None:
    url = serve("--stall-at", "25", "--stall-s", "1.5")
    run = await offer(url, traffic(duration=Duration("3s")), tmp_path)

    from_ns, until_ns = ((at - run.started_at) * 1e9 for at in seen(url)["stall"])
    due_ns = np.arange(150) * 20_000_000 + 10_000_000  # 50 a second, each in the middle of its slot
    truth_ns = np.where((due_ns > from_ns) & (due_ns < until_ns), until_ns - due_ns, 0) - CLOCK_NS
    assert due_ns.tolist() == run.samples.due_ns.tolist()
    assert (latencies_ns(run.samples) >= truth_ns).all()
    assert percentile(latencies_ns(run.samples), 0.95) >= percentile(truth_ns.astype(np.int64), 0.95) > 10**9
    assert (run.samples.sent_ns[(due_ns > from_ns) & (due_ns < until_ns - 10**9)] < until_ns).all()  # sent, not held back


async def test_what_each_client_saw_is_in_samples_and_acks(
    serve: Serve, tmp_path: Path, altered: Callable[[str], None]
) -> None:
    altered("locustfile.CLIENT_TIMEOUT_S = 0.5")
    url = serve("--misbehave")
    run = await offer(url, traffic(rate=scenario.Rate("80/s")), tmp_path)

    expected = [
        (201, Outcome.OK, "completed", None),
        (201, Outcome.OK, "failed", None),
        (401, Outcome.REJECTED, None, "unauthorized"),
        (503, Outcome.SERVER_ERROR, None, "unreadable_body"),
        (201, Outcome.SERVER_ERROR, None, "unreadable_body"),
        (200, Outcome.SERVER_ERROR, None, None),
        (0, Outcome.TRANSPORT_ERROR, None, None),
        (0, Outcome.TIMEOUT, None, None),
    ] * 10
    columns, by_index = run.samples, sorted(acks(run), key=lambda ack: ack["index"])
    assert list(zip(columns.http_status.tolist(), columns.outcome.tolist(), strict=True)) == [(e[0], e[1]) for e in expected]
    assert [(a["httpStatus"], a["status"], a["code"]) for a in by_index] == [(e[0], e[2], e[3]) for e in expected]
    for ack, outcome in zip(by_index, columns.outcome, strict=True):
        assert ack["paymentID"] == (f"pay_order_{run.run_id}_{ack['index']}" if outcome == Outcome.OK else None)
        assert (ack["bodySha256"] is None) == (ack["httpStatus"] == 0)
    for ack, request in zip(
        by_index, sorted(seen(url)["requests"], key=lambda r: int(r["key"].rpartition("-")[2])), strict=True
    ):
        assert (ack["key"], ack["amount"], ack["method"]) == (
            request["key"],
            request["body"]["amount"],
            request["body"]["paymentMethod"],
        )
        assert (request["authorization"], request["body"]["merchantID"]) == ("Bearer sk_mine", "m_1")
    assert (latencies_ns(columns)[columns.http_status == 0] == NO_ANSWER_NS).all()
    assert run.generator.sent == run.generator.scheduled == len(columns) == 80


async def test_a_payment_sent_twice_has_one_key_and_body_and_a_conflict_is_no_failure(serve: Serve, tmp_path: Path) -> None:
    url = serve()
    last: list[Progress] = []
    run = await offer(url, traffic(duplicates=1.0), tmp_path, last.append)

    assert (len(run.samples), run.samples.duplicate.sum()) == (100, 50)
    requests: dict[str, list[Any]] = {}
    for request in seen(url)["requests"]:
        requests.setdefault(request["key"], []).append(request["body"])
    assert all(len(bodies) == 2 and bodies[0] == bodies[1] for bodies in requests.values())
    assert set(run.samples.http_status.tolist()) == {201, 409}  # some came while the first was running, some after it
    assert not refused(run.samples).any()
    answered: dict[int, set[str]] = {}
    for ack in acks(run):
        if ack["httpStatus"] == 201:
            answered.setdefault(ack["index"], set()).add(ack["bodySha256"])
    assert len(answered) == 50
    assert all(len(bodies) == 1 for bodies in answered.values())


async def test_journeys_go_on_after_the_answer_with_keys_of_their_own(serve: Serve, tmp_path: Path) -> None:
    url = serve()
    run = await offer(url, traffic(journeys={"void": 0.5, "refund": 0.5}, duplicates=0.3), tmp_path)

    assert {name: (walked.begun, walked.finished) for name, walked in run.journeys.items()} == {
        name: (count, count) for name, count in Counter(walked_to(run)).items()
    }
    assert sum(walked.finished for walked in run.journeys.values()) == 50
    later = run.samples.where(run.samples.number == 1)
    firsts = run.samples.where((run.samples.number == 0) & (run.samples.outcome == Outcome.OK))
    answered = {i: min(firsts.done_ns[firsts.index == i]) for i in firsts.index.tolist()}
    due_after_ns = [due - answered[i] for i, due in zip(later.index.tolist(), later.due_ns.tolist(), strict=True)]
    assert all(after >= THINK_S * 1e9 for after in due_after_ns)
    assert 0 < later.duplicate.sum() < 50
    assert not refused(run.samples).any()  # the 409 of one of two equal sends is right

    requests: dict[str, list[Any]] = {}
    for request in seen(url)["requests"]:
        requests.setdefault(request["key"], []).append(request["body"])
    told = [ack for ack in acks(run) if ack.get("step") and ack["httpStatus"] == 201]
    assert {ack["key"] for ack in told} == {f"{run.run_id}-{i}-1" for i in range(50)}
    assert all(bodies == [bodies[0]] * len(bodies) for bodies in requests.values())
    assert all(ack["subjectID"] == f"ref_{ack['paymentID']}" for ack in told if ack["step"] == "refund")


def walked_to(run: Generated) -> list[str]:
    """The journey of each payment, by the step it took."""
    later = run.samples.where((run.samples.number == 1) & ~run.samples.duplicate)
    return [STEPS[step] for step in later.step.tolist()]


async def test_progress_counts_up_and_the_start_is_told_before_it_comes(serve: Serve, tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []

    async def on_start(at: float) -> None:
        told.append(("start", at))

    run = await generate(
        target=serve(),
        scenario=traffic(warm_up=Duration("1s"), duration=Duration("1s")),
        out=tmp_path,
        key="k",
        merchant_id="m",
        seed=7,
        on_progress=lambda progress: told.append((progress.phase, progress.sent)),
        on_start=on_start,
    )
    assert told[0] == ("start", run.started_at)
    assert [sent for _, sent in told[1:]] == sorted(sent for _, sent in told[1:])
    assert {phase for phase, _ in told[1:]} >= {"warm-up", "steady"}
    assert run.samples.warm_up.tolist() == [True] * 50 + [False] * 50
    assert scenario.load(str(tmp_path / "scenario.json")).traffic.duration_s == 1


async def test_what_does_not_fit_into_the_pool_is_dropped_and_counted(
    serve: Serve, tmp_path: Path, altered: Callable[[str], None]
) -> None:
    altered("locustfile.POOL_MAX = 3")
    run = await offer(serve("--stall-at", "10", "--stall-s", "0.5"), traffic(), tmp_path)

    dropped = run.samples.outcome == Outcome.DROPPED
    assert 0 < dropped.sum() == run.generator.dropped == run.generator.scheduled - run.generator.sent
    assert (run.samples.sent_ns[dropped] == NEVER).all()
    assert (run.samples.sent_ns[~dropped] >= run.samples.due_ns[~dropped]).all()
    assert len(acks(run)) == run.generator.sent
    judged = verdict.judge(run.samples, run.generator, Targets(), success=None, invariants=())
    assert (judged.result, judged.exit_code) == ("INVALID", verdict.EXIT_INVALID)


async def test_a_lagging_loop_shows_in_lag_and_in_latency(serve: Serve, tmp_path: Path, altered: Callable[[str], None]) -> None:
    altered(
        "from gevent.monkey import get_original\n"
        "stand_still = get_original('time', 'sleep')\n"
        "locust.events.test_start.add_listener(lambda **_: gevent.spawn_later(0.8, stand_still, 0.5))"
    )
    run = await offer(serve(), traffic(duration=Duration("1.5s")), tmp_path)
    lags_ns = run.samples.sent_ns - run.samples.due_ns
    assert lags_ns.max() > 100_000_000
    assert run.generator.lag_p99_ms == percentile(lags_ns, 0.99) / 1e6
    assert (latencies_ns(run.samples) >= lags_ns).all()
    assert run.generator.sent == run.generator.scheduled  # late, and said to be so


async def test_a_locust_that_cannot_start_is_an_error_with_the_end_of_its_log(
    tmp_path: Path, altered: Callable[[str], None]
) -> None:
    altered("raise RuntimeError('no such luck')")
    with pytest.raises(GeneratorError, match=r"(?s)exit code 1 .*locust\.log:.*RuntimeError: no such luck"):
        await offer("http://127.0.0.1:9", traffic(), tmp_path)


@pytest.mark.parametrize(("death", "exit_code"), [("os._exit, 0", 0), ("os.kill, os.getpid(), 15", 1)])
async def test_a_run_that_is_cut_short_is_an_error(
    serve: Serve, tmp_path: Path, altered: Callable[[str], None], death: str, exit_code: int
) -> None:
    altered(f"locust.events.test_start.add_listener(lambda **_: gevent.spawn_later(0.6, {death}))")
    with pytest.raises(GeneratorError, match=f"exit code {exit_code} before the schedule was done"):
        await offer(serve(), traffic(duration=Duration("20s")), tmp_path)


async def test_cancelling_ends_the_process(serve: Serve, tmp_path: Path, altered: Callable[[str], None]) -> None:
    altered("open('pid', 'w').write(str(os.getpid()))")
    under_way = asyncio.Event()
    run = asyncio.create_task(offer(serve(), traffic(duration=Duration("60s")), tmp_path, lambda _: under_way.set()))
    async with asyncio.timeout(20):
        await under_way.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_locust_ends_by_itself_when_nobody_reads_its_progress(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "long.json").write_bytes(scenario.encode(traffic(duration=Duration("60s"))))
    command = [sys.executable, "-m", "locust", "-f", str(generator.LOCUSTFILE), "--headless", "--progress", "--host", serve()]
    command += ["--scenario", str(tmp_path / "long.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path) as locust:
        assert locust.stdout is not None
        locust.stdout.readline()
        locust.stdout.close()  # as if our own process had been killed
        try:
            assert locust.wait(timeout=20) == 1
        finally:
            locust.kill()


@pytest.mark.parametrize("answers", [["--redirect"], ["--refuse"], None])
def test_a_gateway_that_makes_no_payment_fails_without_any_target(
    serve: Serve, locust: Run, tmp_path: Path, answers: list[str] | None
) -> None:
    (tmp_path / "short.json").write_bytes(scenario.encode(traffic()))
    host = serve(*answers) if answers else "http://127.0.0.1:9"
    given = ["--host", host, "--scenario", tmp_path / "short.json", "--out", tmp_path / "new" / "out"]
    code, _, errors = locust("-f", generator.LOCUSTFILE, "--headless", *given)
    assert code in (verdict.EXIT_TARGETS, verdict.EXIT_INVALID), errors  # 97: this machine was too busy
    assert "none of 50 requests was answered with a payment" in errors
    assert (tmp_path / "new" / "out" / "generator.json").exists()
    if answers == ["--redirect"]:
        assert len(seen(host)["requests"]) == 50  # nothing was followed


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--host", "http://127.0.0.1:9", "--processes", "2"], "one process sends this load"),
        (["--host", "http://127.0.0.1:9", "--scenario", "basline"], "did you mean 'baseline'"),
        (["--host", "http://127.0.0.1:9", "--seed", "-1"], "'-1' is not a seed (0 to 9223372036854775807)"),
        (["--host", "http://127.0.0.1:9", "--seed", str(10**23)], "is not a seed (0 to 9223372036854775807)"),
        (["--host", "http://127.0.0.1:9", "--out", f"{SERVER}/x"], "stand_in_gateway.py/x: Not a directory; choose another"),
        (["--host", "foo"], "'foo' is not a URL such as http://127.0.0.1:8080"),
        ([], "say where the gateway is"),
    ],
)
def test_the_locustfile_refuses_what_cannot_work(locust: Run, arguments: list[str], reason: str) -> None:
    code, _, errors = locust("-f", generator.LOCUSTFILE, "--headless", *arguments)
    assert (code, reason in errors, "Traceback" in errors) == (2, True, False), errors
