"""The contract with a child, on small programs that keep it or break it in one way each."""

import os
import signal
import socket
import sys

import pytest

from loadtests.child import Child, ChildError

READY = """
import json, os, sys
print(json.dumps({"ready": "gateway", "url": "http://127.0.0.1:1", "pid": os.getpid()}), flush=True)
print("a line in the log", file=sys.stderr, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def child(tmp_path):
    """Makes a child that runs a program; its socket is closed at the end."""
    listener = socket.create_server(("127.0.0.1", 0))

    def make(program: str) -> Child:
        return Child("gateway", (sys.executable, "-c", program), listener=listener, log=tmp_path / "gateway.log")

    yield make
    listener.close()


async def test_a_child_is_started_when_it_says_so(child):
    started = child(READY)
    ready = await started.start()
    assert ready.pid == started.pid
    await started.kill()


async def test_a_child_gets_the_socket_and_is_supervised(child):
    # The program serves one connection on the descriptor that it was given, and ends with its stdin.
    serving = child(READY.replace("sys.stdin.read()", "") + (
        "import socket\nassert '--supervised' in sys.argv\n"
        "server = socket.socket(fileno=int(sys.argv[sys.argv.index('--fd') + 1]))\n"
        "server.accept()[0].sendall(b'hello')\nsys.stdin.read()\n"
    ))  # fmt: skip
    await serving.start()
    with socket.create_connection(serving._listener.getsockname(), timeout=5) as client:
        assert client.recv(5) == b"hello"
    await serving.kill()


async def test_a_child_that_ends_before_it_is_ready_is_told_with_its_log(child):
    with pytest.raises(
        ChildError, match=r"the gateway ended with exit code 3 before it was ready; the end of .*\nno such file: x"
    ):
        await child("import sys; print('no such file: x', file=sys.stderr); sys.exit(3)").start()


async def test_the_log_of_an_earlier_start_is_not_shown(child, tmp_path):
    (tmp_path / "gateway.log").write_text("an old error\n")
    with pytest.raises(ChildError, match=r"the end of .*:\nno such file: x$") as failed:
        await child("import sys; print('no such file: x', file=sys.stderr); sys.exit(3)").start()
    assert "an old error" not in str(failed.value)
    with pytest.raises(ChildError, match=r"it wrote nothing to .*gateway\.log$"):
        await child("import sys; sys.exit(3)").start()


async def test_a_silent_child_is_told_with_its_log_and_ended(child):
    silent = child("import sys; print('thinking', file=sys.stderr, flush=True); sys.stdin.read()")
    with pytest.raises(ChildError, match=r"the gateway was not ready within 0\.5 s; the end of .*\nthinking"):
        await silent.start(timeout_s=0.5)
    assert await silent.ended() == -signal.SIGKILL


async def test_a_child_that_says_something_else_is_refused(child):
    with pytest.raises(ChildError, match="printed b'hello\\\\n' instead of a ready line"):
        await child("print('hello', flush=True); import sys; sys.stdin.read()").start()


async def test_a_child_that_drains_on_sigterm_was_stopped_cleanly(child):
    started = child("import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n" + READY)
    await started.start()
    stopped = await started.stop()
    assert (stopped.exit_code, stopped.killed, stopped.clean) == (0, False, True)


async def test_a_child_that_ignores_sigterm_is_killed_and_that_is_said(child):
    stubborn = child("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY)
    await stubborn.start()
    stopped = await stubborn.stop(timeout_s=0.2)
    assert stopped.killed
    assert not stopped.clean
    assert "did not stop within" in str(stopped)
    with pytest.raises(ProcessLookupError):
        os.kill(stubborn.pid, 0)


async def test_a_child_can_be_started_again_after_it_was_killed(child):
    started = child(READY)
    first = await started.start()
    await started.kill()
    second = await started.start()
    assert first.pid != second.pid
    await started.kill()


async def test_a_child_that_ended_by_itself_is_stopped_without_an_error(child):
    ended = child(READY.replace("sys.stdin.read()", "sys.exit(4)"))
    await ended.start()
    assert await ended.ended() == 4
    assert str(await ended.stop()) == "the gateway ended with exit code 4"
