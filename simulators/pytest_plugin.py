"""A pytest plugin: a payment world of its own for each test. See docs/pytest.md.

One process of simulators serves a whole session (with pytest-xdist: one for each worker). Each test that asks for `paydrome` is a
tenant there, whose seed is a hash of the test's node id: it meets the same fates in every run, alone or among others, and no two
tests see each other.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

import pytest

from simulators.client import Admin

STOP_S_MAX = 10  # it holds nothing that it must finish
LOG_TAIL_BYTES = 2_000
SEED_MASK = 2**63 - 1


class Fault:
    """A fault that was started. As a context manager it stops at the end of the block."""

    def __init__(self, admin: Admin, name: str) -> None:
        self._admin, self.name = admin, name

    def stop(self) -> None:
        """Ends it. Raises AdminError if it was stopped before."""
        self._admin.call("DELETE", f"/admin/faults/{self.name}")

    def __enter__(self) -> "Fault":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Paydrome:
    """The world of one test. `url` is where its providers are: append `/card/charges` and so on. Whatever the simulators refuse is
    an AdminError that says why."""

    def __init__(self, url: str, tenant: str, seed: int) -> None:
        self.admin = Admin(url, tenant)
        self.url, self.tenant, self.seed = self.admin.url, tenant, seed
        self._started = 0

    def fault(self, provider: str, kind: str, **fields: Any) -> Fault:  # noqa: ANN401 - any JSON
        """Starts a fault, such as `fault("card", "response_lost", operation="create", first=1)`; see docs/faults.md."""
        self._started += 1
        fault = {"name": f"fault_{self._started}", "provider": provider, "kind": kind, **fields}
        self.admin.call("POST", "/admin/faults", fault)
        return Fault(self.admin, fault["name"])

    def configure(self, **sections: dict[str, Any]) -> None:
        """Changes settings, such as `configure(card={"latency": {"kind": "constant", "value": "2s"}})`: a JSON merge patch."""
        self.admin.call("PATCH", "/admin/config", sections)

    def advance(self, by: str) -> None:
        """Moves the clock forward, such as `"7d"`. What is due until then has happened afterwards; callbacks of it leave soon."""
        self.admin.call("POST", "/admin/clock/advance", {"by": by})

    def journal(self, **criteria: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any JSON
        """What really happened, such as `journal(operation="create", order="order_1")`."""
        return self.admin.journal(**criteria)

    def verify(self, *expectations: dict[str, Any], in_order: bool = False, **criteria: Any) -> None:  # noqa: ANN401 - any JSON
        """Asserts that the journal has what is expected, such as `verify(operation="create", order="order_1", moved=1000)`, which
        is one entry, or `count=2`, or `count={"min": 1}`. Several expectations are dicts."""
        __tracebackhide__ = True
        wanted = [*expectations, *([criteria] if criteria else [])]
        verdict = self.admin.call("POST", "/admin/verify", {"expect": wanted, "inOrder": in_order})
        if not verdict["ok"]:
            raise AssertionError("\n".join(_told(failure, wanted) for failure in verdict["failures"]))

    def explain(self, reference: str) -> str:
        """Why a reference met what it met, in words."""
        return self.admin.explain(reference)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Part of pytest's protocol, like all names here that begin with `pytest_`."""
    parser.addini(
        "paydrome_config", "configuration file of the simulators (default: a calm sandbox)", type="string", default=""
    )


@pytest.fixture(scope="session")
def paydrome_simulators(pytestconfig: pytest.Config) -> Iterator[str]:
    """The URL of simulators that run until the end of the session."""
    config = pytestconfig.getini("paydrome_config")
    arguments = ["--config", str(pytestconfig.rootpath / config)] if config else []
    with _running(arguments) as url:
        yield url


@pytest.fixture
def paydrome(paydrome_simulators: str, request: pytest.FixtureRequest) -> Iterator[Paydrome]:
    """A world of its own for this test."""
    digest = blake2b(request.node.nodeid.encode(), digest_size=8).digest()
    world = Paydrome(paydrome_simulators, f"test_{digest.hex()}", int.from_bytes(digest, "little") & SEED_MASK)
    main = Admin(paydrome_simulators)
    main.call("POST", "/admin/tenants", {"name": world.tenant, "seed": world.seed})
    yield world
    main.call("DELETE", f"/admin/tenants/{world.tenant}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Says below a failure how to meet it again."""
    report = yield
    world = getattr(item, "funcargs", {}).get("paydrome")
    if report.when == "call" and report.failed and isinstance(world, Paydrome):
        told = f"seed {world.seed} (of the test's name: the same in every run)\nrepeat it with: pytest {item.nodeid!r}"
        report.sections.append(("paydrome", told))
    return report


@contextmanager
def _running(arguments: list[str]) -> Iterator[str]:
    # -P: no module of the suite's directory stands in for one of ours. A session of its own: Ctrl-C ends the tests, which need it.
    command = [sys.executable, "-P", "-m", "simulators", "--supervised", *arguments]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, start_new_session=True) as process,  # noqa: S603 - our own
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                log.seek(0)
                raise RuntimeError(f"the simulators did not start: {log.read(LOG_TAIL_BYTES).decode(errors='replace').strip()}")
            yield json.loads(line)["url"]
        finally:
            process.stdin.close()  # which ends it, as our own death would
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()


def _told(failure: dict[str, Any], wanted: list[dict[str, Any]]) -> str:
    expectation = wanted[failure["expectation"]]
    if failure.get("after") is not None:
        first = f"expected {_short(expectation)} after {_short(wanted[failure['after']])}"
    else:
        first = f"expected {_short({'count': 1} | expectation)}, found {failure['found']}"
    nearest = [f"  {_short(row)}" for row in failure["nearest"]]
    return "\n".join([first, *(["nearest entries:", *nearest] if nearest else ["nothing in the journal comes near"])])


def _short(fields: dict[str, Any]) -> str:
    """What is set, in one line."""
    return " ".join(
        f"{name}={value}" for name, value in fields.items() if value not in (None, "") and name not in ("at", "body")
    )
