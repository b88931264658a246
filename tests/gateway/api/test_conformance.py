"""The gateway against its own description: schemathesis makes up requests, valid and invalid, and holds the answers against the document.

Valid requests at the boundaries of what is valid, always the same ones. PAYDROME_EXAMPLES=100 looks at invalid ones, too, at others each
time, and at one after the other: that takes minutes.
"""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.gateway.api.stories import telling

ROOT = Path(__file__).parents[3]
CONFIG = Path(__file__).with_name("conformance.toml")
EXAMPLES = os.environ.get("PAYDROME_EXAMPLES")
LONGER = ("--phases=examples,coverage,fuzzing,stateful", f"--max-examples={EXAMPLES}")
SHORT = ("--phases=coverage", "--mode=positive", "--generation-deterministic")


async def test_whatever_is_asked_the_answer_is_as_the_document_says_and_no_5xx(tmp_path: Path):
    async with telling(tmp_path) as stories:
        for name in ("refundID", "disputeID", "endpointID", "settlementID", "breakID"):
            await stories.new(name)
        arguments = ["--config-file", str(CONFIG), "run", stories.site.url + "/openapi.json", "--no-color"]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", *arguments, *(LONGER if EXAMPLES else SHORT)),
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
    if process.returncode:
        pytest.fail(said.decode(), pytrace=False)
    assert f"Tested: {len(stories.routes) - 1}\n" in said.decode(), "not all were looked at, the document itself apart"
