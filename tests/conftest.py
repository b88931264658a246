"""Spares the processes that the tests start, well over a hundred of them, what costs each a fifth of its start and none of them uses;
and the tests themselves the garbage collector's looks at what stays to the end."""

import gc
import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # no test does linear algebra; NumPy would start a thread per core for it
os.environ["SSL_CERT_FILE"] = os.devnull  # no test speaks TLS to the world; aiohttp would read the system's certificates


def pytest_collection_finish() -> None:
    gc.freeze()  # thousands of tests and all modules: a twentieth of the suite's time goes into finding them alive again and again
