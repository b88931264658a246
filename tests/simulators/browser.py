"""A real browser for tests: headless Chromium, told what to do over its DevTools protocol."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE_MS = 10_000
PAGES_MAX = 10  # one after the other, while something is waited for
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
# What throws is not true yet: a page that is just loading has nothing of what is asked for.
WAITING = """(holds, patience) => new Promise((yes, no) => {
  const end = performance.now() + patience;
  const look = () => { try { return holds(); } catch { return false; } };
  const step = () => look() ? yes() : performance.now() > end ? no(new Error("never came true")) : setTimeout(step, 20);
  step();
})"""

needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no browser here: install chromium to see the live page tested in one"
)


class Interrupted(Exception):
    """The script was running when its page was left."""


class Page:
    """One tab. `complaints` are its errors so far: exceptions, and what its Content-Security-Policy refused."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbered = 0
        self.complaints: list[str] = []

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a DevTools command. Raises Interrupted."""
        self._numbered += 1
        await self._socket.send_json({"id": self._numbered, "method": method, "params": params})
        while True:
            message = await self._socket.receive_json(timeout=2 * PATIENCE_MS / 1000)
            if message.get("method") == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(message["params"]))
            if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                self.complaints.append(message["params"]["entry"]["text"])
            if message.get("id") == self._numbered:
                if "error" in message:
                    raise Interrupted(message["error"])
                return message["result"]

    async def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        options = {"returnByValue": True, "awaitPromise": True}
        result = await self.command("Runtime.evaluate", expression=script, **options)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    async def until(self, condition: str) -> None:
        """Returns once a JavaScript expression is true, on this page or on one that it leads to; fails if it is not within PATIENCE_MS."""
        for _ in range(PAGES_MAX):
            try:
                await self.run(f"({WAITING})(() => {condition}, {PATIENCE_MS})")
            except Interrupted:
                continue
            return
        raise AssertionError(f"not true on any of {PAGES_MAX} pages: {condition}")

    async def open(self, url: str) -> None:
        await self.command("Page.navigate", url=url)


@asynccontextmanager
async def browsing(directory: str) -> AsyncIterator[Page]:
    """A page of a browser of its own, whose profile goes to `directory`."""
    assert CHROMIUM is not None
    command = (CHROMIUM, *FLAGS, "--remote-debugging-port=0", f"--user-data-dir={directory}", "about:blank")
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdout=quiet, stderr=asyncio.subprocess.PIPE)
    try:
        assert process.stderr is not None
        async with asyncio.timeout(2 * PATIENCE_MS / 1000):
            while b"DevTools listening on " not in (line := await process.stderr.readline()):
                assert line, "the browser ended before it listened"
        host = line.split(b"ws://")[1].split(b"/")[0].decode()
        drain = asyncio.create_task(process.stderr.read())
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{host}/json/list") as answer:
                tab = next(one for one in await answer.json() if one["type"] == "page")
            async with session.ws_connect(tab["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                for domain in ("Page", "Runtime", "Log"):
                    await page.command(f"{domain}.enable")
                yield page
        drain.cancel()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
