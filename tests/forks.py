"""A program run many times for the price of importing it once: each run is a fork of a process that has imported it.

A fork has a pid, exit code, output and end of its own, as if it had been started from a shell. What is not seen here is the start
itself, so each program is also started for real somewhere.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 20  # for a run; one that takes longer ends with the code of SIGALRM, -14
FORKING = f"""
for line in sys.stdin:
    *sys.argv[1:], out = json.loads(line)
    if not (child := os.fork()):
        signal.alarm({PATIENCE_S})
        for number in (1, 2):
            os.dup2(os.open(out + str(number), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.exit(main())
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
Run = Callable[..., tuple[int, str, str]]


@contextmanager
def forking(imports: str, directory: Path) -> Iterator[Run]:
    """`run(*arguments)` gives exit code, stdout and stderr of the `main` that the statements of `imports` import."""
    command = [sys.executable, "-c", f"import json, os, signal, sys\n{imports}\n{FORKING}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        to, ends = process.stdin, process.stdout

        def run(*arguments: object) -> tuple[int, str, str]:
            out = directory / "out"
            print(json.dumps([*map(str, arguments), str(out)]), file=to, flush=True)
            code = int(ends.readline())
            return code, *((directory / f"out{number}").read_text() for number in (1, 2))

        yield run
