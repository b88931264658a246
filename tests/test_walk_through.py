"""docs/walk-through.md, executed: pasted into a shell beside `paydrome up`, it prints what the page shows.

Ids, times, secrets and the simulators' clock differ each time; they are compared by their shape, and ids also by where the same one
comes again. Everything else is compared to the letter. `python tests/test_walk_through.py` writes into the page what its commands print
now.
"""

import difflib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "walk-through.md"
BIN = Path(sys.executable).parent
UP = ".venv/bin/paydrome up --db runs/walk-through/gateway.db"
GATEWAY, SIMULATORS, RECEIVER = (f"http://127.0.0.1:{port}" for port in (8080, 9000, 3000))

COMMANDS = re.compile(r"^```sh\n(.*?)^```\n(?:\n^```text\n.*?^```\n)?", re.MULTILINE | re.DOTALL)  # with what is shown below
DONE = "-- done, exit code "
ENDS_S_MAX = 60  # it takes 8 s; a shell that waits for more is stuck
DAY_ENDS_S = 120  # the page takes it for granted that it is the same day from its top to its end

ID = re.compile(
    r"(?<=_)[0-9a-f]{32}\b|(?<=_)[0-9a-f]{32}(?=_)|(?<=_)[0-9a-f]{16}\b|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
)
VARYING = {
    r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z": "TIME",
    r"\b\d{4}-\d\d-\d\d\b": "DAY",
    r"\bwhsec_[A-Za-z0-9+/=]+": "SECRET",
    r'("(?:nowMs|timelineMs|timersWaiting|callbacksUnderWay)": )\d+': r"\1NUMBER",
}


@contextmanager
def stack(folder: Path) -> Iterator[dict[str, str]]:
    """`paydrome up` as the page starts it, on free ports. Yields its addresses."""
    command = [str(BIN / "paydrome"), *shlex.split(UP)[1:-1], str(folder / "gateway.db"), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        try:
            yield json.loads(up.stdout.readline())
        finally:
            up.send_signal(signal.SIGTERM)


@contextmanager
def held_port() -> Iterator[int]:
    """A free port, kept from others: who means it, and sets SO_REUSEADDR, may listen on it."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def paste(commands: list[str], folder: Path) -> list[tuple[str, str]]:
    """What each block prints, in one shell beside a stack, and its last exit code."""
    with stack(folder) as up, held_port() as port:
        places = [(GATEWAY, up["gateway"]), (SIMULATORS, up["simulators"]), (RECEIVER, f"http://127.0.0.1:{port}")]
        places.append(('("127.0.0.1", 3000)', f'("127.0.0.1", {port})'))
        script = "".join(f'{block}echo "{DONE}$?"\n' for block in commands)
        for there, here in places:
            script = script.replace(there, here)
        environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "PAYDROME_URL": up["simulators"]}
        printed = _bash(script, folder, environment)
        for there, here in places:
            printed = printed.replace(here, there)
    parts = re.split(rf"^{DONE}(\d+)\n", printed, flags=re.MULTILINE)
    assert len(parts) == 2 * len(commands) + 1, printed
    return list(zip(parts[:-1:2], parts[1::2], strict=True))


def _bash(script: str, folder: Path, environment: dict[str, str]) -> str:
    """In a session of its own, of which nothing is left in the end."""
    with subprocess.Popen(
        ["bash", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=environment,
        start_new_session=True,
    ) as shell:
        try:
            return shell.communicate(timeout=ENDS_S_MAX)[0]
        finally:
            if shell.returncode is None:
                os.killpg(shell.pid, signal.SIGKILL)


def written(page: str, folder: Path) -> str:
    """The page, with what its commands print now. Every block must succeed."""
    blocks = list(COMMANDS.finditer(page))
    results = iter(paste([block[1] for block in blocks], folder))

    def fresh(block: re.Match[str]) -> str:
        printed, code = next(results)
        assert code == "0", f"{block[1]}ended with exit code {code} after printing\n{printed}"
        return f"```sh\n{block[1]}```\n" + (f"\n```text\n{printed}```\n" if printed else "")

    return COMMANDS.sub(fresh, page)


def comparable(page: str) -> list[str]:
    """The lines of a page, without what differs each time. Ids are numbered in the order in which they come."""
    numbers: dict[str, int] = {}
    page = ID.sub(lambda found: f"ID{numbers.setdefault(found[0], len(numbers))}", page)
    for pattern, name in VARYING.items():
        page = re.sub(pattern, name, page)
    return page.splitlines()


def difference(shown: str, printed: str) -> str:
    return "\n".join(difflib.unified_diff(comparable(shown), comparable(printed), "shown", "printed", lineterm="", n=1))


def test_pasted_line_by_line_the_walk_through_prints_what_it_shows(tmp_path):
    now = datetime.now(UTC)
    if now.hour == 23 and (59 - now.minute) * 60 + 60 - now.second < DAY_ENDS_S:
        pytest.skip("the day would end in the middle of the page")
    page = PAGE.read_text()
    assert f"\n{UP}\n" in page
    assert difference(page, written(page, tmp_path)) == ""


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ('{"amount":1000}', '{"amount":1001}'),
        ("pay_" + "0" * 32 + " pay_" + "0" * 32, "pay_" + "1" * 32 + " pay_" + "2" * 32),
        ('{"updatedAt":"2026-01-31T00:00:00.000Z"}', '{"updatedAt":null}'),
        ("one line", "one line\nanother"),
    ],
)
def test_what_a_page_shows_is_compared(shown, printed):
    assert difference(shown, printed)


def test_what_differs_each_time_is_compared_by_its_shape():
    one = 'pay_{0} txn_{0} out_{1}_01 card_{2} "nowMs": {3} 2026-01-3{3}T10:00:00.00{3}Z whsec_{3}+/='
    assert difference(*(one.format(f"{n}" * 32, f"{n + 4}" * 32, f"{n}" * 16, n) for n in (0, 1))) == ""


@pytest.mark.parametrize("page", ["walk-through.md", "api.md"])
def test_links_lead_somewhere(page):
    for file, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", (DOCS / page).read_text()):
        target = (DOCS / page).parent / (file or page)
        assert target.exists(), file
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in anchors, f"{file}#{anchor}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as here:
        PAGE.write_text(written(PAGE.read_text(), Path(here)))
