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
from contextlib import suppress
from pathlib import Path

import structlog
import uvloop

from simulators.app import BACKLOG, serving
from simulators.config import Config, ConfigError, load

GC_THRESHOLD = 20_000  # requests make many objects and few cycles

EPILOG = """\
A configuration needs no more than the three secrets (24 to 64 bytes in base64 after whsec_):

  {"secrets": {"upi": "whsec_...", "bank": "whsec_...", "merchant": "whsec_..."}}

  python -m simulators --config simulators.json --port 9000
  curl http://127.0.0.1:9000/journal

What it speaks is written down in docs/providers.md.
"""


def main(argv: list[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT; the exit code is 0 then, 1 if it cannot serve, 2 for a wrong command line."""
    options = _parser().parse_args(argv)
    _log_to_stderr()
    try:
        config = load(options.config)
        listener = _inherited(options.fd) if options.fd is not None else _bound(options.host, options.port)
    except (ConfigError, OSError) as error:
        print(f"simulators: {error}", file=sys.stderr)
        return 1
    with listener:
        uvloop.run(_serve(config, listener, supervised=options.supervised))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m simulators",
        description="Simulated payment providers (cards, UPI, net banking) and a merchant that receives webhooks.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="JSON or TOML, by its suffix")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--port", type=_port, default=0, help="port to listen on (default: any free one; see the ready line)")
    where.add_argument("--fd", type=int, metavar="N", help="serve on this inherited, listening socket instead")
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


def _bound(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        advice = "another --port may be free" if _is_about_port(error) else "is --host an address of this machine?"
        reason = getattr(error, "strerror", None) or error
        raise OSError(f"cannot listen on {host} port {port}: {reason}; {advice}") from None


def _is_about_port(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES)


async def _serve(config: Config, listener: socket.socket, *, supervised: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(config, listener):
        if supervised:
            _watch_stdin(lambda: loop.call_soon_threadsafe(stop.set))
        # The tables of charges and the journal exist by now, and are left alone from here on: a collection that walked through
        # them would cost more with every charge.
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        host, port = listener.getsockname()[:2]
        print(json.dumps({"ready": "simulators", "url": f"http://{host}:{port}", "pid": os.getpid()}), flush=True)
        await stop.wait()


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
