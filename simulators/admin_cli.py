"""`paydrome admin`: controls simulators that run. It only calls the admin API of docs/control.md."""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeAlias
from urllib.parse import quote

from simulators.client import Admin, AdminError

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # argparse has no public name for it

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
    _add_options(parser, url=os.environ.get("PAYDROME_URL", DEFAULT_URL), tenant=os.environ.get("PAYDROME_TENANT"), json=False)
    commands = parser.add_subparsers(dest="admin", required=True, metavar="ACTION")
    _action(commands, "config", "show the settings in force")
    change = _action(commands, "set", "change one setting")
    change.add_argument("key", help="such as card.outcomes")
    change.add_argument("value", help="JSON, or plain text; null is the default")
    _action(commands, "faults", "list the faults")
    fault = _actions(commands, "fault", "start", "stop")
    start = _action(fault, "start", "start a fault")
    start.add_argument("name")
    _add_fields(start, "+", "provider and kind, at least; see docs/faults.md")
    _action(fault, "stop", "stop a fault").add_argument("name")
    _action(commands, "clock", "show the time and what waits for it")
    _action(commands, "advance", "move the clock forward (back: reset, or restore)").add_argument(
        "by", help="such as 90s or 7d"
    )
    _action(commands, "timeline", "begin the timetable now: the windows of phases and faults count from here")
    reset = _action(commands, "reset", "empty journal, no charges, the system's time")
    reset.add_argument("--seed", type=int)
    reset.add_argument("--config", action="store_true", help="the settings of the start, too")
    _action(commands, "snapshot", "keep the world as it is").add_argument("name")
    _action(commands, "snapshots", "list what was kept")
    _action(commands, "restore", "make the world what it was").add_argument("name")
    _add_fields(_action(commands, "journal", "what happened"), "*", "such as reference=r1 or fault=late")
    _add_fields(_action(commands, "verify", "did this happen, so many times?"), "+", "such as order=o1 moved=1000 count=1")
    _action(commands, "explain", "why a reference met what it met").add_argument("reference")
    _action(commands, "digest", "one number for the fates of all charges")
    _action(commands, "tenants", "list the tenants")
    tenant = _actions(commands, "tenant", "create", "delete")
    create = _action(tenant, "create", "make a tenant; its first call makes it, too")
    create.add_argument("name")
    create.add_argument("--seed", type=int, help="default: a hash of the process's seed and the name")
    _action(tenant, "delete", "end a tenant").add_argument("name")


def _add_options(parser: argparse.ArgumentParser, **defaults: object) -> None:
    """Adds the options of all actions. They may come before and after an action: after it, they have no default to undo the others."""
    parser.set_defaults(**defaults)
    only_if_given: dict[str, Any] = {"default": argparse.SUPPRESS}
    parser.add_argument("--url", **only_if_given, help=f"where the simulators are (default: {DEFAULT_URL})")
    parser.add_argument("--tenant", **only_if_given, metavar="T", help="whose world (default: the main one)")
    parser.add_argument("--json", action="store_true", **only_if_given, help="print the answer as it came, in one line")


def _action(commands: Commands, name: str, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:])
    _add_options(parser)
    return parser


def _actions(commands: Commands, noun: str, *verbs: str) -> Commands:
    parser = commands.add_parser(noun, help=f"{' or '.join(verbs)} a {noun}")
    return parser.add_subparsers(dest=f"{noun}_action", required=True, metavar="|".join(verbs))


def _add_fields(parser: argparse.ArgumentParser, count: str, text: str) -> None:
    parser.add_argument("fields", nargs=count, metavar="FIELD=VALUE", type=_field, action=_Fields, default={}, help=text)


class _Fields(argparse.Action):
    """Gathers `FIELD=VALUE` in a dict, and refuses a field that stands there twice."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: object) -> None:  # noqa: ANN401 - as argparse has it
        fields = dict(values)
        if len(fields) < len(values):
            twice = next(name for name, count in Counter(name for name, _ in values).items() if count > 1)
            parser.error(f"{twice} stands there twice")
        setattr(namespace, self.dest, fields)


def run(options: argparse.Namespace) -> int:
    """Does it; the exit code."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # \u20b9 where there is no ₹: JSON, too
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


def _field(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=VALUE, such as provider=card")
    return name, value


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
    if options.fault_action == "stop":
        return admin.call("DELETE", f"/admin/faults/{_part(options.name)}")
    texts = ("bin", "merchant", "vpa")  # a BIN is digits, and yet no number
    fields = {name: text if name in texts else _value(text) for name, text in options.fields.items()}
    return admin.call("POST", "/admin/faults", fields | {"name": options.name})


def _verify(admin: Admin, options: argparse.Namespace) -> Any:  # noqa: ANN401 - any JSON
    numbers = ("amount", "moved", "count")
    wanted = {name: _value(text) if name in numbers else text for name, text in options.fields.items()}
    return admin.call("POST", "/admin/verify", {"expect": [wanted]})


def _reset(admin: Admin, options: argparse.Namespace) -> Any:  # noqa: ANN401 - any JSON
    seed = {} if options.seed is None else {"seed": options.seed}
    return admin.call("POST", "/admin/reset", seed | {"config": options.config})


def _tenant(_: Admin, options: argparse.Namespace) -> Any:  # noqa: ANN401 - any JSON
    main = Admin(options.url)  # even where the environment names a tenant: that one knows no other
    if options.tenant_action == "delete":
        return main.call("DELETE", f"/admin/tenants/{_part(options.name)}")
    seed = {} if options.seed is None else {"seed": options.seed}
    return main.call("POST", "/admin/tenants", {"name": options.name} | seed)


def _part(name: str) -> str:
    return quote(name, safe="")


_ACTIONS: dict[str, Callable[[Admin, argparse.Namespace], Any]] = {
    "config": lambda admin, _: admin.call("GET", "/admin/config"),
    "set": _set,
    "faults": lambda admin, _: admin.call("GET", "/admin/faults"),
    "fault": _fault,
    "clock": lambda admin, _: admin.call("GET", "/admin/clock"),
    "advance": lambda admin, options: admin.call("POST", "/admin/clock/advance", {"by": options.by}),
    "timeline": lambda admin, _: admin.call(
        "POST", "/admin/timeline", {"startAtMs": admin.call("GET", "/admin/clock")["nowMs"]}
    ),
    "reset": _reset,
    "snapshot": lambda admin, options: admin.call("POST", "/admin/snapshots", {"name": options.name}),
    "snapshots": lambda admin, _: admin.call("GET", "/admin/snapshots"),
    "restore": lambda admin, options: admin.call("POST", f"/admin/snapshots/{_part(options.name)}/restore"),
    "journal": lambda admin, options: admin.journal(**options.fields),
    "verify": _verify,
    "explain": lambda admin, options: admin.explain(options.reference),
    "digest": lambda admin, _: admin.call("GET", "/admin/digest"),
    "tenants": lambda _, options: Admin(options.url).call("GET", "/admin/tenants"),
    "tenant": _tenant,
}
