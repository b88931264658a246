"""The `paydrome` command as people and scripts use it: refusals in this process, whole runs as child processes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

from loadtests.cli import main

PAYDROME = (sys.executable, "-m", "loadtests")
ENDS_S_MAX = 60  # for a command to end; far more than it takes

TINY = """
description = "a handful of payments"
[traffic]
rate = "40/s"
duration = "1s"
mix = { card = 0.5, upi = 0.3, netbanking = 0.2 }
duplicates = 0.1
[targets]
latency_p99 = "2s"
[simulators.card]
latency = { kind = "constant", value = "5ms" }
[simulators.upi]
customer = { delay = { kind = "constant", value = "100ms" } }
[simulators.bank]
customer = { delay = { kind = "constant", value = "100ms" } }
"""


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Up:
    """A running `paydrome up --json`."""

    def __init__(self, db: Path) -> None:
        command = (*PAYDROME, "up", "--json", "--port", "0", "--db", str(db))
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()

    def end(self, number: int) -> tuple[int, str, str]:
        """Exit code, the rest of its output, and its errors, after a signal."""
        self.process.send_signal(number)
        return self.result()

    def result(self) -> tuple[int, str, str]:
        out, errors = self.process.communicate(timeout=ENDS_S_MAX)
        return self.process.returncode, out, errors


@pytest.fixture
def up(tmp_path) -> Iterator[Up]:
    """For one test, which may end it."""
    yield from running_up(tmp_path)


@pytest.fixture(scope="module")
def lasting_up(tmp_path_factory) -> Iterator[Up]:
    """For the tests that leave it as it is."""
    yield from running_up(tmp_path_factory.mktemp("up"))


def running_up(directory: Path) -> Iterator[Up]:
    running = Up(directory / "up.db")
    yield running
    if running.process.poll() is None:
        running.end(signal.SIGTERM)


def refused(capsys, *arguments: str) -> str:
    """What the command says when it refuses `arguments` as a wrong command line."""
    with pytest.raises(SystemExit) as ending:
        main(list(arguments))
    assert ending.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("fly",), "invalid choice: 'fly'"),
        (("run",), "the following arguments are required: SCENARIO"),
        (("run", "basline"), "did you mean"),
        (("run", "no/such/file.toml"), "no/such/file.toml: No such file or directory"),
        (("run", "smoke", "--seed", "-1"), "'-1' is not a seed"),
        (("run", "smoke", "--target", "localhost:8080"), "'localhost:8080' is not a URL such as"),
        (("run", "smoke", "--seed", "9" * 5000), "is not a seed (0 to 9223372036854775807)"),
        (("run", "smoke", "--target", "http://127.0.0.1:99999"), "'http://127.0.0.1:99999' is not a URL such as"),
        (("run", "smoke", "--target", "http://127.0.0.1:abc"), "'http://127.0.0.1:abc' is not a URL such as"),
        (("run", "smoke", "--target", "http://127.0.0.1:0"), "'http://127.0.0.1:0' is not a URL such as"),
        (("run", "smoke", "--target", "http://[::1"), "'http://[::1' is not a URL such as"),
        (("run", "smoke", "--target", "http://a b"), "'http://a b' is not a URL such as"),
        (("run", "smoke", "--target", "http://me:pw@a"), "is not a base URL: leave out user"),
        (("run", "smoke", "--target", "http://a/?b"), "is not a base URL: leave out user"),
        (("run", "smoke", "--out", "o" * 300), "File name too long; choose another folder"),
        (("run", "smoke", "--key", "sk_test_x"), "give its --target too"),
        (("up", "--port", "70000"), "'70000' is not a port"),
        (("up", "--port", "9" * 5000), "is not a port (0 to 65535)"),
        (("up", "--scenario", "sandbx"), "did you mean"),
        (("check", "no/such/file.toml"), "No such file or directory"),
    ],
)
def test_a_wrong_command_line_is_refused_with_the_reason(capsys, arguments, reason):
    assert reason in refused(capsys, *arguments)


def test_a_scenario_with_a_mistake_is_refused_with_file_key_and_reason(capsys, tiny):
    tiny.write_text(TINY.replace('rate = "40/s"', 'rate = "40"'))
    said = refused(capsys, "check", str(tiny))
    assert f"{tiny}: traffic.rate: '40' is not a rate" in said


def test_results_are_never_overwritten(capsys, tmp_path, tiny):
    assert "is not an empty folder" in refused(capsys, "run", str(tiny), "--out", str(tmp_path))


def test_a_good_scenario_is_described(capsys, tiny):
    assert main(["check", str(tiny)]) == 0
    assert "40/s for 1s after 0s of warm-up, poisson arrivals, 50% card, 30% upi, 20% netbanking" in capsys.readouterr().out


def test_shipped_scenarios_are_listed(capsys):
    assert main(["scenarios"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line]
    assert {"baseline", "smoke", "lost-answers", "sandbox"} <= set(names)


def test_a_target_that_cannot_be_reached_is_an_error_in_a_sentence(capsys, tiny, tmp_path, free_port):
    url = f"http://127.0.0.1:{free_port}"
    assert main(["run", str(tiny), "--target", url, "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == (
        f"paydrome: {url} cannot be reached: Connection refused; is the gateway running, and is the port right?\n"
    )
    assert not (tmp_path / "out").exists()


def test_an_unreadable_out_is_refused_in_a_sentence(tmp_path, tiny):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0)
    program = (
        "import os, sys\nfrom loadtests import cli\n"
        "cli.main(['check', 'smoke'])\n"  # imports what it needs
        "if os.geteuid() == 0: os.setuid(65534)\n"  # root may read everything
        "sys.exit(cli.main(['run', 'smoke', '--out', sys.argv[1]]))"
    )
    command = (sys.executable, "-c", program, str(locked))
    ended = subprocess.run(command, capture_output=True, text=True, timeout=ENDS_S_MAX, check=False)
    assert (ended.returncode, ended.stderr) == (
        2,
        f"paydrome: --out {locked}: Permission denied; choose another folder\n",
    )


@pytest.mark.parametrize("arguments", [("scenarios",), ("check", "smoke")])
def test_a_reader_who_has_enough_is_no_error(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run((*PAYDROME, *arguments), stdout=writing, stderr=subprocess.PIPE, timeout=ENDS_S_MAX, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize(
    ("arguments", "module"),
    [
        (("up",), "loadtests.scenario"),
        (("up",), "loadtests.up"),
        (("run", "smoke"), "loadtests.run"),
        (("run", "smoke"), "numpy"),
        (("scenarios",), "loadtests.scenario"),
    ],
)
def test_ctrl_c_while_it_starts_ends_it_in_a_word(tmp_path, arguments, module):
    program = (
        "import os, signal, sys\n"
        "class Impatient:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == sys.argv[1]: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Impatient())\n"
        "from loadtests.cli import main\n"
        "sys.exit(main(sys.argv[2:]))"
    )
    command = (sys.executable, "-c", program, module, *arguments)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=ENDS_S_MAX, check=False, cwd=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "\ninterrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_help_is_there_without_importing_the_machinery():
    program = "import sys; from loadtests.cli import _parser; _parser(); print([m for m in ('aiohttp','numpy','rich') if m in sys.modules])"
    said = subprocess.run((sys.executable, "-c", program), capture_output=True, text=True, timeout=ENDS_S_MAX, check=True)
    assert said.stdout == "[]\n"


JOURNEYS = """
[traffic.journeys]
capture = 0.2
partial_captures = 0.2
void = 0.3
three_ds = 0.2
three_ds_failed = 0.1
[fees]
card = 250
"""


def test_a_run_judges_speed_and_money_and_keeps_everything(tiny, tmp_path):
    tiny.write_text(TINY + JOURNEYS)
    out = tmp_path / "out"
    command = (*PAYDROME, "run", str(tiny), "--out", str(out), "--seed", "7")
    ended = subprocess.run(command, capture_output=True, text=True, timeout=ENDS_S_MAX, check=False)
    summary = json.loads((out / "summary.json").read_text())
    assert ended.returncode in (0, 97), ended.stderr  # 97: this machine was too busy to send on time
    assert ended.returncode == summary["verdict"]["exit_code"]
    assert summary["verdict"]["result"] in ended.stdout
    assert {found["number"]: found["ok"] for found in summary["invariants"]} == dict.fromkeys(
        (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14), True
    )
    assert all(found["checked"] for found in summary["invariants"])
    assert summary["seed"] == 7
    assert summary["repeat"] == f"paydrome run {tiny} --seed 7"
    assert summary["cpu"]["payments"] > 0
    assert {name: walked["finished"] for name, walked in summary["journeys"].items() if not walked["stopped"]} == {
        name: walked["begun"] for name, walked in summary["journeys"].items()
    }
    assert {"capture", "void"} <= summary["latency"].keys()
    assert summary["settled"]["still_open"] == {}
    assert summary["stopped"] == ["the gateway ended with exit code 0", "the simulators ended with exit code 0"]
    kept = {"samples.npz", "acks.ndjson", "gateway.ndjson", "journal.ndjson", "metrics.txt", "gateway.log", "simulators.log"}
    assert kept <= {path.name for path in out.iterdir()}


def test_a_run_against_a_foreign_gateway_checks_what_its_clients_saw(lasting_up, tiny, tmp_path):
    out, target = tmp_path / "out", json.loads(lasting_up.line)["gateway"]
    command = (*PAYDROME, "run", str(tiny), "--target", target, "--out", str(out))
    ended = subprocess.run(command, capture_output=True, text=True, timeout=ENDS_S_MAX, check=False)
    assert ended.returncode in (0, 97), ended.stderr
    summary = json.loads((out / "summary.json").read_text())
    checked = {found["number"]: found["ok"] for found in summary["invariants"] if found["ok"] is not None}
    assert checked == {8: True, 14: True}
    assert summary["target"] == target
    assert "not checked: 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12" in ended.stdout or ended.returncode == 97


def test_an_interrupted_run_ends_everything_and_says_where_its_results_are(tiny, tmp_path):
    tiny.write_text(TINY.replace('duration = "1s"', 'duration = "60s"'))
    out = tmp_path / "out"
    command = (*PAYDROME, "run", str(tiny), "--out", str(out))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        urls = re.findall(r"http://127\.0\.0\.1:(\d+)", next(line for line in running.stdout if "stack ready" in line))
        next(line for line in running.stdout if "steady" in line)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=ENDS_S_MAX)
    assert running.returncode == 130
    assert f"what there is of this run is in {out}" in errors
    assert "Traceback" not in errors
    assert len(urls) == 2
    for port in urls:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(port)), timeout=1)


def test_up_prints_one_line_for_scripts_and_stops_on_sigterm(up, tmp_path):
    ready = json.loads(up.line)
    assert ready.keys() == {"gateway", "simulators", "key", "merchantID", "operatorKey", "db", "pids"}
    assert (ready["key"], ready["merchantID"]) == ("sk_test_merchant_123", "merchant_123")
    assert ready["db"] == str(tmp_path / "up.db")
    for pid in ready["pids"].values():
        os.kill(pid, 0)
    assert up.end(signal.SIGTERM) == (0, "", "")
    for pid in ready["pids"].values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_second_up_on_the_same_database_is_refused_and_leaves_the_first_alone(lasting_up, capsys):
    first = json.loads(lasting_up.line)
    config = Path(first["db"] + ".up") / "gateway.json"
    before = config.read_bytes()
    assert main(["up", "--port", "0", "--db", first["db"]]) == 1
    assert f"{first['db']}.up is in use by another paydrome" in capsys.readouterr().err
    assert config.read_bytes() == before


def test_up_says_which_child_died(up):
    os.kill(json.loads(up.line)["pids"]["gateway"], signal.SIGKILL)
    code, _, errors = up.result()
    assert code == 1
    assert "paydrome: the gateway ended by itself with exit code -9" in errors


def test_the_curl_line_of_up_works_as_pasted_and_ctrl_c_stops(tmp_path):
    command = (*PAYDROME, "up", "--port", "0", "--db", str(tmp_path / "up.db"))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        said = list(takewhile(lambda line: line != "Ctrl-C stops.\n", running.stdout))
        curl = next(line for line in said if line.startswith("curl "))
        paid = subprocess.run(curl, shell=True, capture_output=True, text=True, timeout=ENDS_S_MAX, check=True)
        running.send_signal(signal.SIGINT)
        out, errors = running.communicate(timeout=ENDS_S_MAX)
    assert json.loads(paid.stdout)["data"]["status"] == "completed"
    assert running.returncode == 0
    assert errors == ""
    assert out.endswith("stopped\n")
    welcome = "".join(said)
    simulators = re.search(r"simulators +(\S+)", welcome)
    assert simulators is not None
    assert f"PAYDROME_URL={simulators[1]} paydrome admin" in welcome, "not where paydrome admin looks by itself"
    assert "docs/walk-through.md" in welcome


def test_up_on_a_port_that_is_taken_says_so(capsys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["up", "--port", str(port), "--db", str(tmp_path / "up.db")]) == 1
    said = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1 port {port}" in said
    assert "choose another --port" in said
