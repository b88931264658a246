"""python -m gateway: serves a gateway, or exports what a database file knows."""

import argparse
import asyncio
import gc
import json
import os
import signal
import socket
import sys
from pathlib import Path

import msgspec
import platformdirs
import uvloop
from aiohttp import web

from gateway import config as configuration
from gateway.api.serving import CONNECTIONS_MAX, Runner
from gateway.app import Gateway
from gateway.core.errors import GatewayError
from gateway.observe import configure_logging
from gateway.runtime import open_files_max
from gateway.storage.export import records
from gateway.vault import Vault, load_key

# Requests make many short-lived objects and no cycles: the collector's default of 700 has it run several times a request's life.
GC_THRESHOLD = 20_000
BACKLOG = 1024  # connections that may wait while the loop is busy
DRAIN_S = 10.0  # for requests in flight at SIGTERM; a provider call takes 1.5 s at most

EXAMPLES = """examples:
  python -m gateway --config gateway.toml --db payments.db --port 8080
  python -m gateway export --db payments.db > everything.ndjson

a configuration (TOML or JSON):
  public_url = "http://127.0.0.1:8080"
  [providers.card]
  url = "http://127.0.0.1:9000/card"
  callback_secret = "whsec_..."
  [providers.upi]
  url = "http://127.0.0.1:9000/upi"
  callback_secret = "whsec_..."
  [providers.netbanking]
  url = "http://127.0.0.1:9000/bank"
  callback_secret = "whsec_..."

`paydrome up` writes one for you, and starts simulated providers beside the gateway."""


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        if options.command == "export":
            return _export(options.db)
        return _serve(options)
    except GatewayError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gateway",
        description="A payment gateway.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, help="configuration file, TOML or JSON")
    parser.add_argument("--db", type=Path, help="database file (default: in the platform's state directory)")
    parser.add_argument("--host", default="127.0.0.1")
    listen = parser.add_mutually_exclusive_group()
    listen.add_argument("--port", type=int, default=8080, help="0: any free port (default: 8080)")
    listen.add_argument("--fd", type=int, help="serve on this inherited listening socket")
    parser.add_argument("--supervised", action="store_true", help="stop when standard input ends, that is when the parent died")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    commands = parser.add_subparsers(dest="command", title="commands")
    export = commands.add_parser("export", help="print everything a database file knows, as NDJSON")
    export.add_argument("--db", type=Path, required=True)
    return parser


def _export(db: Path) -> int:
    out = sys.stdout.buffer
    for record in records(db):
        out.write(msgspec.json.encode(record) + b"\n")
    out.flush()
    return 0


def _serve(options: argparse.Namespace) -> int:
    if options.config is None:
        print("gateway: --config FILE is required; see --help for an example, or start with `paydrome up`", file=sys.stderr)
        return 2
    config = configuration.load(options.config)
    configure_logging(options.log_level)
    state = Path(platformdirs.user_state_dir("paydrome", appauthor=False))
    db = options.db or (Path(config.db) if config.db else state / "gateway.db")
    key_file = Path(config.key_file) if config.key_file else state / "vault.key"
    gateway = Gateway(config, vault=Vault(load_key(key_file, may_make=not db.exists())), db=db)
    try:
        listening = _listen(options)
    except OSError as error:
        print(
            f"gateway: cannot listen on {options.host}:{options.port}: {error.strerror}; choose another --port", file=sys.stderr
        )
        return 1
    uvloop.run(_run(gateway, listening, supervised=options.supervised))
    return 0


def _listen(options: argparse.Namespace) -> socket.socket:
    if options.fd is not None:
        return socket.socket(fileno=options.fd)
    return socket.create_server((options.host, options.port), backlog=BACKLOG)


async def _run(gateway: Gateway, listening: socket.socket, *, supervised: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    app = await gateway.start()
    # Half of the open files are for callers: who opens connections must not keep us from providers, receivers and the database.
    runner = Runner(app, shutdown_s=DRAIN_S, connections_max=min(CONNECTIONS_MAX, open_files_max() // 2))
    await runner.setup()
    await web.SockSite(runner, listening, backlog=BACKLOG).start()
    if supervised:
        await _stop_at_end_of_input(stop)
    host, port = listening.getsockname()[:2]
    gc.freeze()  # what is loaded by now stays: a full collection need not walk through it
    gc.set_threshold(GC_THRESHOLD)
    print(json.dumps({"ready": "gateway", "url": f"http://{host}:{port}", "pid": os.getpid()}), flush=True)
    await stop.wait()
    await runner.cleanup()
    await gateway.stop()


async def _stop_at_end_of_input(stop: asyncio.Event) -> None:
    class Watch(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
            stop.set()

    await asyncio.get_running_loop().connect_read_pipe(Watch, sys.stdin)


if __name__ == "__main__":
    sys.exit(main())
