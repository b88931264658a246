"""The pages of docs/stories, executed: commands print what the page shows, snippets run, configurations are accepted.

In the console, `...` stands for anything. `paydrome simulators` is running already, as sandbox, on a port of its own.
"""

import asyncio
import re
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from loadtests.cli import main as paydrome
from simulators import sandbox
from simulators.app import serving
from simulators.client import Admin
from simulators.config import Config, convert

STORIES = Path(__file__).parents[2] / "docs" / "stories"
PAGES = sorted(path.name for path in STORIES.glob("*.md"))
URL = "http://127.0.0.1:9000"
OVERVIEWS = ("simulators.md", "api.md")
NOT_IN_OVERVIEWS = {"performance.md", "journeys.md"}  # the README leads there
START = "paydrome simulators"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ANYTHING = "..."


@pytest.fixture(scope="module")
def sandbox_url() -> Iterator[str]:
    """A sandbox in a thread of its own."""
    loop, stop, ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        async def serve() -> None:
            async with serving(sandbox.config(), listener):
                ready.set()
                await stop.wait()

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
        thread.start()
        assert ready.wait(10)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


@pytest.fixture
def url(sandbox_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same, as it was at its start; `paydrome admin` finds it."""
    Admin(sandbox_url).call("POST", "/admin/reset", {"seed": 1, "config": True})
    monkeypatch.setenv("PAYDROME_URL", sandbox_url)
    return sandbox_url


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of the fenced blocks."""
    return BLOCK.findall((STORIES / page).read_text())


def commands(console: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block, and what is shown below it."""
    for text in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        lines = text.splitlines()
        end = next(end for end in range(1, len(lines) + 1) if is_whole("\n".join(lines[:end])))
        yield "\n".join(lines[:end]), "\n".join(lines[end:]).strip()


def is_whole(command: str) -> bool:
    """Whether a shell would wait for no further line."""
    try:
        shlex.split(command)
    except ValueError:  # an open quotation
        return False
    return not command.endswith("\\")


def matches(shown: str, printed: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in shown.split(ANYTHING))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


def run(command: str, capfd: pytest.CaptureFixture[str]) -> str:
    """What a command prints. It must succeed, but curl may say that it waited for too long."""
    words = shlex.split(command)
    if words[0] == "paydrome":
        assert paydrome(words[1:]) == 0, capfd.readouterr().err
        return capfd.readouterr().out
    assert words[0] == "curl", command
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=30, check=False)  # as it is typed
    assert done.returncode in (0, 28), done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("page", [page for page in PAGES if page != "pytest.md"])
def test_a_page_does_what_it_says(page, url, capfd):
    for language, text in blocks(page):
        match language:
            case "console":
                for command, shown in commands(text):
                    if command != START:
                        printed = run(command.replace(URL, url), capfd).replace(url, URL)
                        assert matches(shown, printed), f"{command}\nprinted\n{printed}\nand not\n{shown}"
            case "python":
                exec(compile(text.replace(URL, url), page, "exec"), {})
            case "toml":
                convert(msgspec.toml.decode(text), Config, file=page)
            case _:
                pytest.fail(f"{page}: who executes a block of {language}?")


def test_the_page_about_pytest_is_a_suite_that_passes(tmp_path):
    ((language, text),) = blocks("pytest.md")
    assert language == "python"
    (tmp_path / "test_orders.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    plugins = ["-p", "no:locust", "-p", "no:cacheprovider"]
    if "simulators.pytest_plugin" not in installed_plugins():
        plugins += ["-p", "simulators.pytest_plugin"]
    suite = [sys.executable, "-m", "pytest", "-q", *plugins, str(tmp_path)]
    root = Path(__file__).parents[2]
    done = subprocess.run(suite, capture_output=True, text=True, timeout=60, check=False, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


def installed_plugins() -> set[str]:
    from importlib.metadata import entry_points

    return {point.value for point in entry_points(group="pytest11")}


@pytest.mark.parametrize("page", [*PAGES, "../simulators.md", "../../README.md"])
def test_a_page_links_only_to_pages_that_exist(page):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (STORIES / page).read_text())
    here = (STORIES / page).parent
    assert [link for link in links if not link.startswith("http") and not (here / link).exists()] == []


def test_the_overviews_of_simulators_and_api_lead_to_every_page():
    docs = STORIES.parent
    pages = {str(path.relative_to(docs)) for path in docs.rglob("*.md")} - {*OVERVIEWS} - NOT_IN_OVERVIEWS
    linked = {link for overview in OVERVIEWS for link in re.findall(r"\]\(([^)#]+)", (docs / overview).read_text())}
    assert pages - linked == set()


def test_what_a_page_shows_is_compared():
    assert matches('{"a":...}', '{"a": 1}\n')
    assert not matches('{"a":...}', '{"b": 1}\n')
    assert not matches("", "something\n")
