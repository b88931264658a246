"""What a whole run makes of a gateway that misbehaves as a process."""

import json
import os
import subprocess
import sys
from pathlib import Path

ENDS_S_MAX = 60  # for a command to end; far more than it takes
EXIT_MONEY = 96

SCENARIO = """
description = "a handful of payments"
[traffic]
rate = "20/s"
duration = "1s"
mix = { card = 1.0, upi = 0.0, netbanking = 0.0 }
"""

# Python imports this module in every process that is started with its folder on PYTHONPATH.
LEAVES_WITH_3 = """
import atexit, os, sys
if "gateway" in sys.orig_argv and "--supervised" in sys.orig_argv:
    atexit.register(os._exit, 3)
"""


def test_a_gateway_that_does_not_end_well_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "scenario.toml").write_text(SCENARIO)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(LEAVES_WITH_3)
    command = (sys.executable, "-m", "loadtests", "run", "scenario.toml", "--out", "out")
    path = os.pathsep.join((str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")))
    environment = os.environ | {"PYTHONPATH": path}
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=ENDS_S_MAX, check=False
    )
    assert ended.returncode == EXIT_MONEY, ended.stdout + ended.stderr
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert {found["number"]: found["violations"] for found in summary["invariants"] if found["ok"] is False} == {
        6: ["the gateway did not drain when it was told to stop: the gateway ended with exit code 3"]
    }
