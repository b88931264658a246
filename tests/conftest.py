"""Spares the processes that the tests start, well over a hundred of them, what costs each a fifth of its start and none of them uses."""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # no test does linear algebra; NumPy would start a thread per core for it
os.environ["SSL_CERT_FILE"] = os.devnull  # no test speaks TLS to the world; aiohttp would read the system's certificates
