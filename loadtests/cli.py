"""The `paydrome` command. What it does is in run.py and up.py; they are imported late, so that --help is there at once."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from loadtests import arguments

if TYPE_CHECKING:
    from loadtests.scenario import Scenario

EXIT_OK, EXIT_ERROR, EXIT_USAGE = 0, 1, 2
EXIT_INTERRUPTED = 128 + signal.SIGINT  # as shells count
EXIT_UNREAD = 128 + signal.SIGPIPE
DEFAULT_PORT = 8080
SIMULATORS_PORT = 9000

T = TypeVar("T")

DESCRIPTION = "A proving ground for payment systems: runs load through a gateway, and judges speed and money."
EPILOG = """\
examples:
  paydrome run baseline                     10 500 payments a minute through the whole stack, and a verdict
  paydrome run smoke --seed 7               the same in five seconds, with other payments
  paydrome run lifecycle                    captures, voids, refunds, 3-D Secure, disputes: does every rupee add up?
  paydrome run my.toml --target http://10.0.0.5:8080 --key sk_test_... --merchant merchant_9
                                            against your own gateway
  paydrome up                               gateway and simulated providers for trying things out
  paydrome check my.toml                    is this scenario file right?
  paydrome simulators                       the simulated providers alone, on port 9000
  paydrome admin fault start outage provider=card kind=unavailable
                                            break them while they run; see paydrome admin --help

exit codes:
  0 passed   1 error   2 wrong command line or scenario   96 a money invariant is broken
  97 invalid: the load generator was the limit   99 targets missed   130 interrupted
"""


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    try:
        try:
            return _command(argv)
        finally:
            print(end="", flush=True)  # here, and not as the interpreter ends, where a closed pipe would be a traceback
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNREAD


def _command(argv: list[str] | None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["simulators"]:  # its options are its own, and it is one process with its children's command line
        from simulators.__main__ import main as simulators

        return simulators(argv[1:], prog="paydrome simulators", port=SIMULATORS_PORT)
    options = _parser().parse_args(argv)
    commands = {"run": _run, "up": _up, "scenarios": _scenarios, "check": _check, "admin": _admin}
    return commands[options.command](options)


def _parser() -> argparse.ArgumentParser:
    from importlib import metadata

    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="paydrome", description=DESCRIPTION, epilog=EPILOG, formatter_class=shape)
    parser.add_argument("--version", action="version", version=f"paydrome {metadata.version('paydrome')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", help="run a scenario and judge it", description="Run a scenario and judge it."))
    _add_up(
        commands.add_parser("up", help="start gateway and simulators for people", description="Start gateway and simulators.")
    )
    commands.add_parser("scenarios", help="list the scenarios that come with paydrome")
    check = commands.add_parser("check", help="check a scenario file")
    check.add_argument("scenario", metavar="FILE", help="path of a file, or the name of a shipped scenario")
    commands.add_parser("simulators", help="start the simulated providers alone")
    from simulators import admin_cli

    admin_cli.add_arguments(
        commands.add_parser(
            "admin",
            help="control simulators that run",
            description=admin_cli.DESCRIPTION,
            epilog=admin_cli.EPILOG,
            formatter_class=shape,
        )
    )
    return parser


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scenario", metavar="SCENARIO", help="name of a shipped scenario, or path of a file")
    parser.add_argument(
        "--target",
        type=_checked(arguments.base_url),
        metavar="URL",
        help="base URL of a gateway that runs already (default: start our own)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where results go (default: runs/SCENARIO-TIME); must be new or empty"
    )
    parser.add_argument("--seed", type=_checked(arguments.seed), metavar="N", help="instead of the scenario's own")
    parser.add_argument("--key", help="API key, with --target (default: the sandbox key)")
    parser.add_argument("--merchant", metavar="ID", help="merchantID to pay, with --target (default: merchant_123)")


def _add_up(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--scenario", default="sandbox", metavar="S", help="how the simulators behave (default: sandbox)")
    parser.add_argument(
        "--port",
        type=_checked(arguments.port),
        default=DEFAULT_PORT,
        metavar="N",
        help="of the gateway; 0: any free one (default: 8080, and the simulators on 9000, which otherwise take any)",
    )
    parser.add_argument("--db", type=Path, metavar="FILE", help="database (default: kept in the platform's state directory)")
    parser.add_argument("--json", action="store_true", help="print one JSON line once ready, and nothing else")


def _run(options: argparse.Namespace) -> int:
    if options.target is None and (options.key or options.merchant):
        _refuse("--key and --merchant are for a foreign gateway: give its --target too")
    scenario = _load(options.scenario)
    out = options.out or Path("runs") / f"{scenario.name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    try:
        taken = out.exists() and (not out.is_dir() or any(out.iterdir()))
    except OSError as error:
        _refuse(f"--out {out}: {error.strerror or error}; choose another folder")
    if taken:
        _refuse(f"--out {out}: is not an empty folder; results are never overwritten")
    import asyncio

    from loadtests import run
    from loadtests.report.terminal import console
    from loadtests.stack import MERCHANT_ID, MERCHANT_KEY

    order = run.Order(
        scenario=scenario,
        named=options.scenario,
        seed=scenario.seed if options.seed is None else options.seed,
        out=out,
        target=options.target,
        key=options.key or MERCHANT_KEY,
        merchant_id=options.merchant or MERCHANT_ID,
    )
    try:
        return asyncio.run(_cancelled_by_sigterm(run.run(order, console())))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("\ninterrupted; everything was stopped", *_left_in(out), sep=", and ", file=sys.stderr)
        return EXIT_INTERRUPTED
    except _errors() as error:
        return _failed(error, *_left_in(out))


def _up(options: argparse.Namespace) -> int:
    scenario = _load(options.scenario)
    import asyncio

    from loadtests import up

    try:
        order = up.Order(
            scenario=scenario,
            port=options.port,
            simulators_port=SIMULATORS_PORT if options.port == DEFAULT_PORT else 0,  # who chose a port may run several
            db=options.db,
            as_json=options.json,
        )
        return asyncio.run(up.up(order))
    except _errors() as error:
        return _failed(error)


def _admin(options: argparse.Namespace) -> int:
    from simulators import admin_cli

    return admin_cli.run(options)


def _scenarios(_: argparse.Namespace) -> int:
    from loadtests.scenario import shipped

    for scenario in shipped():
        print(f"{scenario.name:14} {scenario.description}")
    print("\nRun one with `paydrome run NAME`; `paydrome check NAME` shows its numbers.")
    return EXIT_OK


def _check(options: argparse.Namespace) -> int:
    scenario = _load(options.scenario)
    from loadtests.journeys import JOURNEYS

    traffic = scenario.traffic
    mix = ", ".join(f"{getattr(traffic.mix, method):.0%} {method}" for method in traffic.mix.__struct_fields__)
    print(f"{options.scenario}: ok")
    print(f"  {scenario.name}: {scenario.description}")
    print(f"  {traffic.rate} for {traffic.duration} after {traffic.warm_up} of warm-up, {traffic.arrivals} arrivals, {mix}")
    for name, share in traffic.journeys.items():
        print(f"  {share:6.1%} {name}: {JOURNEYS[name].about}")
    return EXIT_OK


def _load(name_or_path: str) -> Scenario:
    from loadtests import scenario

    try:
        return scenario.load(name_or_path)
    except scenario.ScenarioError as error:
        _refuse(str(error))


async def _cancelled_by_sigterm(work: Coroutine[None, None, int]) -> int:
    """SIGTERM ends a run as Ctrl-C does, so that no child outlives it."""
    import asyncio

    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work


def _errors() -> tuple[type[Exception], ...]:
    """What can go wrong outside of us: each says what, where, and what to do. Anything else is a bug, and shows itself as one."""
    from loadtests.child import ChildError
    from loadtests.collect import TargetError
    from loadtests.evidence import EvidenceError
    from loadtests.generator import GeneratorError
    from loadtests.stack import StackError

    return (ChildError, TargetError, EvidenceError, GeneratorError, StackError, OSError)


def _left_in(out: Path) -> list[str]:
    """Where to look for what a run without an end left behind; nothing if there is nothing."""
    return [f"what there is of this run is in {out}"] if out.is_dir() and any(out.iterdir()) else []


def _failed(error: Exception, *hints: str) -> int:
    print(f"paydrome: {error}", *hints, sep="\n", file=sys.stderr)
    return EXIT_ERROR


def _refuse(reason: str) -> NoReturn:
    print(f"paydrome: {reason}", file=sys.stderr)
    sys.exit(EXIT_USAGE)


def _checked(read: Callable[[str], T]) -> Callable[[str], T]:
    """`read` for argparse, which shows the message of this error only."""

    def checked(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked
