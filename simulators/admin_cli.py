"""`paydrome admin`: controls simulators that run. It only calls the admin API of docs/control.md."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from simulators.client import Admin, AdminError

DEFAULT_URL = "http://127.0.0.1:9000"
DESCRIPTION = "Control simulators that run: settings, faults, the clock, snapshots, and what their journal says."
EPILOG = """\
examples:
  paydrome admin set card.outcomes '{"00": 0.9, "51": 0.1}'
  paydrome admin set upi.latency '{"kind": "constant", "value": "2s"}'
  paydrome admin fault start outage provider=card kind=unavailable operation=create
  paydrome admin fault start slow provider=upi kind=late delay=3s probability=0.2
  paydrome admin fault stop outage
  paydrome admin advance 7d                              authorizations expire, disputes lapse
  paydrome admin snapshot clean; paydrome admin restore clean
  paydrome admin journal order=order_1 operation=create
  paydrome admin verify operation=create order=order_1 moved=1000 count=1
  paydrome admin explain REFERENCE

URL and tenant also come from PAYDROME_URL and PAYDROME_TENANT.
exit codes: 0 done   1 refused, not reachable, or what was verified is not so   2 wrong command line
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what comes after `paydrome admin`."""
    parser.add_argument(
        "--url", default=os.environ.get("PAYDROME_URL", DEFAULT_URL), help=f"where the simulators are (default: {DEFAULT_URL})"
    )
    parser.add_argument(
        "--tenant", default=os.environ.get("PAYDROME_TENANT"), metavar="T", help="whose world (default: the main one)"
    )
    parser.add_argument("--json", action="store_true", help="print the answer as it came, in one line")
    commands = parser.add_subparsers(dest="admin", required=True, metavar="ACTION")
    commands.add_parser("config", help="show the settings in force")
    change = commands.add_parser("set", help="change one setting")
    change.add_argument("key", help="such as card.outcomes")
    change.add_argument("value", help="JSON, or plain text; null is the default")
    commands.add_parser("faults", help="list the faults")
    fault = commands.add_parser("fault", help="start or stop a fault").add_subparsers(
        dest="fault", required=True, metavar="start|stop"
    )
    start = fault.add_parser("start")
    start.add_argument("name")
    start.add_argument(
        "fields", nargs="+", metavar="FIELD=VALUE", type=_field, help="provider and kind, at least; see docs/faults.md"
    )
    fault.add_parser("stop").add_argument("name")
    commands.add_parser("clock", help="show the time and what waits for it")
    commands.add_parser("advance", help="move the clock forward").add_argument("by", help="such as 90s, 1h or 7d")
    reset = commands.add_parser("reset", help="empty journal, no charges, the system's time")
    reset.add_argument("--seed", type=int)
    reset.add_argument("--config", action="store_true", help="the settings of the start, too")
    commands.add_parser("snapshot", help="keep the world as it is").add_argument("name")
    commands.add_parser("snapshots", help="list what was kept")
    commands.add_parser("restore", help="make the world what it was").add_argument("name")
    journal = commands.add_parser("journal", help="what happened")
    journal.add_argument("fields", nargs="*", metavar="FIELD=VALUE", type=_field, help="such as reference=r1 or fault=late")
    verify = commands.add_parser("verify", help="did this happen, so many times?")
    verify.add_argument(
        "fields", nargs="+", metavar="FIELD=VALUE", type=_field, help="such as order=o1 operation=create count=1"
    )
    commands.add_parser("explain", help="why a reference met what it met").add_argument("reference")
    commands.add_parser("digest", help="one number for the fates of all charges")


def run(options: argparse.Namespace) -> int:
    """Does it; the exit code."""
    admin = Admin(options.url, options.tenant)
    try:
        answer = _ACTIONS[options.admin](admin, options)
    except AdminError as error:
        print(f"paydrome admin: {error}", file=sys.stderr)
        return 1
    if isinstance(answer, str):
        print(answer, end="" if answer.endswith("\n") else "\n")
    elif isinstance(answer, list):
        for entry in answer:
            print(json.dumps(entry, ensure_ascii=False))
    else:
        print(json.dumps(answer, ensure_ascii=False, indent=None if options.json else 2))
    return 1 if isinstance(answer, dict) and answer.get("ok") is False else 0


def _field(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=VALUE, such as provider=card")
    return name, _value(value)


def _value(text: str) -> Any:  # noqa: ANN401 - any JSON
    """JSON where it is JSON, otherwise the text itself, so that durations and names need no quotes."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _set(admin: Admin, options: argparse.Namespace) -> Any:  # noqa: ANN401 - any JSON
    patch = _value(options.value)
    keys = options.key.split(".")
    for key in reversed(keys):
        patch = {key: patch}
    return admin.call("PATCH", "/admin/config", patch)[keys[0]]


def _fault(admin: Admin, options: argparse.Namespace) -> Any:  # noqa: ANN401 - any JSON
    if options.fault == "stop":
        return admin.call("DELETE", f"/admin/faults/{_part(options.name)}")
    fields = {name: _text_where_text(name, value) for name, value in options.fields}
    return admin.call("POST", "/admin/faults", fields | {"name": options.name})


def _text_where_text(name: str, value: Any) -> Any:  # noqa: ANN401 - any JSON
    return str(value) if name in ("bin", "merchant", "vpa") else value  # a BIN is digits, and yet no number


def _verify(admin: Admin, options: argparse.Namespace) -> Any:  # noqa: ANN401 - any JSON
    numbers = ("amount", "moved", "count")
    wanted = {name: value if name in numbers or isinstance(value, str) else str(value) for name, value in options.fields}
    return admin.call("POST", "/admin/verify", {"expect": [wanted]})


def _reset(admin: Admin, options: argparse.Namespace) -> Any:  # noqa: ANN401 - any JSON
    seed = {} if options.seed is None else {"seed": options.seed}
    return admin.call("POST", "/admin/reset", seed | {"config": options.config})


def _part(name: str) -> str:
    return quote(name, safe="")


_ACTIONS: dict[str, Callable[[Admin, argparse.Namespace], Any]] = {
    "config": lambda admin, _: admin.call("GET", "/admin/config"),
    "set": _set,
    "faults": lambda admin, _: admin.call("GET", "/admin/faults"),
    "fault": _fault,
    "clock": lambda admin, _: admin.call("GET", "/admin/clock"),
    "advance": lambda admin, options: admin.call("POST", "/admin/clock/advance", {"by": options.by}),
    "reset": _reset,
    "snapshot": lambda admin, options: admin.call("POST", "/admin/snapshots", {"name": options.name}),
    "snapshots": lambda admin, _: admin.call("GET", "/admin/snapshots"),
    "restore": lambda admin, options: admin.call("POST", f"/admin/snapshots/{_part(options.name)}/restore"),
    "journal": lambda admin, options: admin.journal(**dict(options.fields)),
    "verify": _verify,
    "explain": lambda admin, options: admin.explain(options.reference),
    "digest": lambda admin, _: admin.call("GET", "/admin/digest"),
}
