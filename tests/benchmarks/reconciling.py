"""Reconciles a file with a database, in a process of its own, so that its memory is its own.

    python -m tests.benchmarks.reconciling DATABASE FILE FORMAT DATE

Prints one line of JSON: {"seconds", "cpu_seconds", "rows", "matched", "breaks", "rss_mb", "delay_ms"}; `delay_ms` is the longest that
the event loop was held up meanwhile.
"""

import asyncio
import gc
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from gateway.__main__ import GC_THRESHOLD
from gateway.core.reconciliation import KINDS, Run
from gateway.flows.reconciliation import Ask, Reconciliation, Source
from gateway.observe import configure_logging
from gateway.ports import Response
from gateway.runtime import RandomIds, SystemClock
from gateway.storage.sqlite import SqliteStore

TICK_S = 0.005


async def main(database: str, file: str, file_format: Any, date: str) -> None:
    configure_logging("error")
    gc.set_threshold(GC_THRESHOLD)  # as the gateway does
    store = SqliteStore.open(Path(database), vault_key_id="0" * 16)
    by = Reconciliation(
        store=store,
        sources={"card": Source(None, ["INR"], 200)},
        merchants=frozenset({"m"}),
        clock=SystemClock(),
        ids=RandomIds(),
    )
    found: list[Run] = []

    def keep(run: Run) -> Response:
        found.append(run)
        return Response(201, b"")

    began_s = time.perf_counter()
    watch = asyncio.get_running_loop().create_task(delays())
    await by.run(Ask(provider="card", date=date, format=file_format), None, keep, Path(file).open("rb"))  # noqa: ASYNC230, SIM115 - the flow closes it
    while (run := await by.found(found[0].id)).state == "running":  # noqa: ASYNC110 - as a caller would
        await asyncio.sleep(TICK_S)
    seconds = time.perf_counter() - began_s
    watch.cancel()
    assert run.state == "completed", run.error
    told = {"seconds": seconds, "rows": run.rows, "matched": run.matched, "breaks": sum(getattr(run, kind) for kind in KINDS)}
    used = resource.getrusage(resource.RUSAGE_SELF)
    told["cpu_seconds"] = used.ru_utime + used.ru_stime
    told["rss_mb"] = used.ru_maxrss / 1024
    told["delay_ms"] = longest_s[0] * 1000
    print(json.dumps(told), flush=True)
    await by.close()
    await store.close()


longest_s = [0.0]


async def delays() -> None:
    while True:
        began_s = time.perf_counter()
        await asyncio.sleep(TICK_S)
        longest_s[0] = max(longest_s[0], time.perf_counter() - began_s - TICK_S)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:5]))
