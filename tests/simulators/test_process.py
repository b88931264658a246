"""`python -m simulators` as its users start it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from simulators import sandbox
from simulators.config import encode
from tests.forks import Run, forking

PROGRAM = [sys.executable, "-m", "simulators"]
PATIENCE_S = 20
NOTHING_CHARGED = {"stopped": "simulators", "digest": "0" * 32, "charges": 0, "undecided": 0}


@pytest.fixture
def config_file(tmp_path, configure) -> Path:
    file = tmp_path / "simulators.json"
    file.write_bytes(encode(configure()))
    return file


@contextmanager
def running(*arguments: Any, **options: Any) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The process and its ready line."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*PROGRAM, *map(str, arguments)], **pipes, **options) as process:
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield process, json.loads(line)
        finally:
            process.kill()


def healthy(url: str) -> bool:
    with urlopen(f"{url}/health/ready", timeout=PATIENCE_S) as answer:
        return answer.status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_when_it_is_ready_and_stops_on_a_signal_with_exit_code_0(config_file, number):
    with running("--config", config_file) as (process, ready):
        assert ready == {"ready": "simulators", "url": ready["url"], "pid": process.pid}
        assert healthy(ready["url"])
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 0
        assert process.stdout.read() == ""
        assert json.loads(process.stderr.read()) == NOTHING_CHARGED


def test_it_serves_on_an_inherited_socket_and_stops_when_its_parent_is_gone(config_file):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd, port = listener.fileno(), listener.getsockname()[1]
        with running("--config", config_file, "--fd", fd, "--supervised", pass_fds=[fd]) as (process, ready):
            assert ready["url"] == f"http://127.0.0.1:{port}"
            assert healthy(ready["url"])
            process.stdin.close()
            assert process.wait(PATIENCE_S) == 0
            assert json.loads(process.stderr.read()) == NOTHING_CHARGED


def test_a_caller_in_the_middle_of_a_lost_answer_does_not_delay_the_end(tmp_path, configure):
    file = tmp_path / "simulators.json"
    lost = {"kind": "response_lost", "probability": 1, "operation": "status"}
    file.write_bytes(encode(configure(card={"port": 0, "faults": [lost]})))
    with running("--config", file) as (process, ready):
        assert list(ready["ports"]) == ["card"]
        port = int(ready["ports"]["card"].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as caller:
            caller.sendall(b"GET /card/charges/ref HTTP/1.1\r\nHost: x\r\n\r\n")
            while b'"fault":"response_lost"' not in urlopen(f"{ready['url']}/journal", timeout=PATIENCE_S).read():
                os.sched_yield()
            process.terminate()
            assert process.wait(PATIENCE_S) == 0
        assert json.loads(process.stderr.read()) == NOTHING_CHARGED


@pytest.fixture(scope="module")
def simulators(tmp_path_factory) -> Iterator[Run]:
    with forking("from simulators.__main__ import main", tmp_path_factory.mktemp("simulators")) as run:
        yield run


@pytest.fixture
def refused(simulators) -> Callable[..., tuple[int, str]]:
    """As `failed`, for what needs no start of its own."""

    def run(*arguments: Any) -> tuple[int, str]:
        code, said, errors = simulators(*arguments)
        assert said == ""
        assert "Traceback" not in errors
        return code, errors

    return run


def failed(*arguments: Any, **options: Any) -> tuple[int, str]:
    command = [*PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, **options)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_a_faulty_configuration_is_one_clear_line(tmp_path):
    file = tmp_path / "simulators.json"
    file.write_text('{"secrts": {}}')
    assert failed("--config", file) == (
        1,
        f"simulators: {file}: Object contains unknown field `secrts`; did you mean 'secrets'?\n",
    )


def test_a_port_that_is_taken_is_one_clear_line(config_file, refused):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, message = refused("--config", config_file, "--port", port)
    assert code == 1
    assert message.startswith(f"simulators: cannot listen on 127.0.0.1 port {port}: ")


def test_so_is_a_port_of_a_provider_that_is_taken(tmp_path, configure, refused):
    file = tmp_path / "simulators.json"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file.write_bytes(encode(configure(upi={"port": port})))
        reason = f"upi.port: cannot listen on 127.0.0.1 port {port}: Address already in use; another port may be free, and 0 takes any"
        assert refused("--config", file) == (1, f"simulators: {file}: {reason}\n")


def test_a_wrong_command_line_is_explained(config_file, refused):
    assert refused("--config")[0] == 2
    assert refused("--config", config_file, "--port", "x")[0] == 2
    assert refused("--config", config_file, "--fd", "99") == (
        1,
        "simulators: --fd 99: not an open socket ([Errno 9] Bad file descriptor)\n",
    )


@pytest.mark.parametrize("port", ["65536", "99999", "9" * 5000])
def test_a_port_that_is_none_is_one_clear_line(config_file, refused, port):
    code, message = refused("--config", config_file, "--port", port)
    assert (code, message.splitlines()[-1]) == (
        2,
        f"python -m simulators: error: argument --port: '{port}' is not a port (0 to 65535)",
    )


@pytest.mark.parametrize(
    ("family", "kind"), [("AF_UNIX", "SOCK_STREAM"), ("AF_INET", "SOCK_DGRAM"), ("AF_INET", "SOCK_STREAM")]
)
def test_a_socket_that_nobody_can_connect_to_is_one_clear_line(config_file, family, kind):
    with socket.socket(getattr(socket, family), getattr(socket, kind)) as useless:
        code, message = failed("--config", config_file, "--fd", useless.fileno(), pass_fds=[useless.fileno()])
        sentence = f"simulators: --fd {useless.fileno()}: not a listening TCP socket; bind it and call listen() in the parent\n"
    assert (code, message) == (1, sentence)


def test_a_descriptor_beyond_all_numbers_is_one_clear_line(config_file, refused):
    code, message = refused("--config", config_file, "--fd", 10**30)
    assert (code, message.count("\n"), "not an open socket" in message) == (1, 1, True)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", "a" * 300])
def test_a_host_that_is_not_ours_is_one_clear_line_with_the_right_advice(config_file, refused, host):
    code, message = refused("--config", config_file, "--host", host)
    assert (code, message.count("\n")) == (1, 1)
    assert message.startswith(f"simulators: cannot listen on {host} port 0: ")
    assert message.endswith("; is --host an address of this machine?\n")


@pytest.mark.parametrize(("name", "content"), [("deep.json", "[" * 100_000), ("deep.toml", "a = " + "[" * 100_000)])
def test_a_deeply_nested_configuration_is_one_clear_line(tmp_path, refused, name, content):
    file = tmp_path / name
    file.write_text(content)
    code, message = refused("--config", file)
    assert (code, message.count("\n")) == (1, 1)
    assert message.startswith(f"simulators: {file}: not valid ")


def test_without_a_configuration_it_is_a_sandbox():
    with running() as (process, ready):
        with urlopen(f"{ready['url']}/admin/config", timeout=PATIENCE_S) as answer:
            assert json.load(answer)["card"]["outcomes"] == {"00": 1}
        process.terminate()
        assert process.wait(PATIENCE_S) == 0


def test_a_person_at_a_terminal_reads_what_to_do_first():
    terminal, theirs = os.openpty()
    with (
        os.fdopen(terminal, encoding="utf-8") as lines,
        subprocess.Popen(
            [sys.executable, "-m", "loadtests", "simulators", "--port", "0"], stdout=theirs, stderr=theirs
        ) as process,
    ):
        os.close(theirs)
        try:
            text = "".join(iter(lines.readline, "Ctrl-C stops.\n"))
            url = re.search(r"http://127.0.0.1:[0-9]+", text)[0]
            command = next(line for line in text.splitlines() if line.startswith("  curl"))
            paid = subprocess.run(command, shell=True, capture_output=True, timeout=PATIENCE_S, check=True)
            assert json.loads(paid.stdout)["status"] == "approved"
            assert f"paydrome admin --url {url} fault start" in text
        finally:
            process.terminate()
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("secret", sandbox.SECRETS.values())
def test_help_shows_the_secrets_of_the_sandbox(simulators, secret):
    code, shown, _ = simulators("--help")
    assert (code, secret in shown) == (0, True)


def test_help_shows_an_example():
    done = subprocess.run([*PROGRAM, "--help"], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert "python -m simulators --config simulators.json" in done.stdout
