"""`python -m simulators`: the outside world in one process."""

import argparse
import asyncio
import errno
import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import msgspec
import structlog
import uvloop

from simulators import sandbox
from simulators.app import serving
from simulators.config import Config, ConfigError, load
from simulators.digest import at_once
from simulators.server import BACKLOG

GC_THRESHOLD = 20_000  # requests make many objects and few cycles

EPILOG = f"""\
Without --config it is a calm sandbox: ordinary payments are approved, test values do what they are for, the bank's page waits for a
person, and callbacks are signed with secrets that everybody knows:

  card      {sandbox.SECRETS["card"]}
  upi       {sandbox.SECRETS["upi"]}
  bank      {sandbox.SECRETS["bank"]}
  merchant  {sandbox.SECRETS["merchant"]}

A configuration of your own needs no more than three secrets (24 to 64 bytes in base64 after whsec_; without one for card, the acquirer
signs with the bank's):

  {{"secrets": {{"upi": "whsec_...", "bank": "whsec_...", "merchant": "whsec_..."}}}}

  %(prog)s --config simulators.json --port 9000
  curl http://127.0.0.1:9000/journal

What it speaks is written down in docs/providers.md, how it is controlled while it runs in docs/control.md.
"""


def main(argv: list[str] | None = None, *, prog: str = "python -m simulators", port: int = 0) -> int:
    """Serves until SIGTERM or SIGINT; the exit code is 0 then, 1 if it cannot serve, 2 for a wrong command line. `port` is the
    default."""
    options = _parser(prog, port).parse_args(argv)
    _log_to_stderr()
    try:
        config = load(options.config) if options.config else sandbox.config()
        listener = _inherited(options.fd) if options.fd is not None else _bound(options.host, options.port, "--port")
        iso8583 = None
        if options.iso8583_port is not None:
            iso8583 = _bound(options.host, options.iso8583_port, "--iso8583-port")
    except (ConfigError, OSError) as error:
        print(f"simulators: {error}", file=sys.stderr)
        return 1
    try:
        with listener, iso8583 or nullcontext():
            uvloop.run(_serve(config, listener, iso8583, supervised=options.supervised))
    except ConfigError as error:  # a provider's own port
        print(f"simulators: {ConfigError(str(options.config), error.key, error.reason)}", file=sys.stderr)
        return 1
    return 0


def _parser(prog: str, port: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Simulated payment providers (cards, UPI, net banking) and a merchant that receives webhooks.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="JSON or TOML, by its suffix (default: a calm sandbox)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    where = parser.add_mutually_exclusive_group()
    default = f"{port}; 0: any free one" if port else "any free one; see the ready line"
    where.add_argument("--port", type=_port, default=port, help=f"port to listen on (default: {default})")
    where.add_argument("--fd", type=int, metavar="N", help="serve on this inherited, listening socket instead")
    iso8583 = "answer ISO 8583 for the card acquirer on this port too (0: any free one; default: off)"
    parser.add_argument("--iso8583-port", type=_port, metavar="PORT", help=iso8583)
    parser.add_argument("--supervised", action="store_true", help="stop when stdin ends, that is, when the parent is gone")
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return int(text)


def _inherited(fd: int) -> socket.socket:
    try:
        listener = socket.socket(fileno=fd)
    except (OSError, ValueError, OverflowError) as error:
        raise OSError(f"--fd {fd}: not an open socket ({error})") from None
    inet = listener.family in (socket.AF_INET, socket.AF_INET6) and listener.type == socket.SOCK_STREAM
    if not inet or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        raise OSError(f"--fd {fd}: not a listening TCP socket; bind it and call listen() in the parent")
    return listener


def _bound(host: str, port: int, option: str) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        advice = f"another {option} may be free" if _is_about_port(error) else "is --host an address of this machine?"
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"cannot listen on {host} port {port}: {reason}; {advice}") from None


def _is_about_port(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES)


async def _serve(config: Config, listener: socket.socket, iso8583: socket.socket | None, *, supervised: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(config, listener, iso8583=iso8583) as outside:
        if supervised:
            _watch_stdin(lambda: loop.call_soon_threadsafe(stop.set))
        # The tables of charges and the journal exist by now, and are left alone from here on: a collection that walked through
        # them would cost more with every charge.
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        ready: dict[str, Any] = {"ready": "simulators", "url": outside.url, "pid": os.getpid()}
        if iso8583 is not None:
            ready["iso8583"] = _address(iso8583)
        if outside.ports:
            ready["ports"] = outside.ports
        print(welcome(ready) if sys.stdout.isatty() else json.dumps(ready), flush=True)
        await stop.wait()
    print(json.dumps({"stopped": "simulators", **msgspec.to_builtins(at_once(outside.fates()))}), file=sys.stderr, flush=True)


def welcome(ready: dict[str, Any]) -> str:
    """What a person needs to make the first payment and to break the second."""
    url = ready["url"]
    charge = {"reference": "first", "amount": 1000, "currency": "INR", "merchantID": "m"}
    charge |= {"card": {"number": "4111111111111111", "expiryMonth": "12", "expiryYear": "2099", "cvv": "123"}}
    more = f"\n  ISO 8583   {ready['iso8583']}" if "iso8583" in ready else ""
    for provider, own in ready.get("ports", {}).items():
        more += f"\n  {provider:10} {own}/{provider}   (a port of its own, which can refuse connections)"
    return f"""The simulators are up.

  card       {url}/card/charges
  UPI        {url}/upi/payments
  bank       {url}/bank/payments
  merchant   {url}/merchant/webhooks/NAME   (receives your gateway's webhooks)
  journal    {url}/journal   (what really happened){more}

Pay ten rupees by card:

  curl -sS {url}/card/charges -d '{json.dumps(charge)}'

Test values: cards 4111111111111111 (approved), 4000000000000002 (declined), 4000000000009995 (no funds); VPAs success@upi,
failure@upi; banks TESTS, TESTF, or any other, whose page wants OTP 111000.

Make it hostile, and look at what it did:

  paydrome admin --url {url} fault start outage provider=card kind=response_lost operation=create
  paydrome admin --url {url} advance 7d
  paydrome admin --url {url} journal reference=first

A world of its own for each test or job: {url}/t/NAME/... or the header X-Paydrome-Tenant.
Ctrl-C stops."""


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"{host}:{port}"


def _watch_stdin(ended: Callable[[], object]) -> None:
    """Calls `ended` once stdin is at its end. In a thread, since an event loop cannot watch every kind of stdin."""

    def watch() -> None:
        with suppress(OSError):  # a stdin that cannot be read has ended too
            while os.read(sys.stdin.fileno(), 4096):
                pass
        with suppress(RuntimeError):  # the loop is closed: we are stopping already
            ended()

    threading.Thread(target=watch, daemon=True).start()


def _log_to_stderr() -> None:
    """Readable lines for a terminal, JSON lines for everything else; aiohttp's own messages included."""
    readable = sys.stderr.isatty()
    common: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    render: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    render += (
        [structlog.dev.ConsoleRenderer()]
        if readable
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=common, processors=render))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    structlog.configure(
        processors=[*common, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


if __name__ == "__main__":
    sys.exit(main())
