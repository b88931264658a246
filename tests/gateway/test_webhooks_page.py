"""docs/webhooks.md tells the truth: its code verifies, and its tables are those of the code."""

import re
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Webhooks
from gateway.core import signature, webhook
from gateway.core.event import PUBLISHED
from tests.gateway.doubles import secret

PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
SECRET, BODY = secret("page"), b'{"event":"payment.completed"}'


def headers(at_s: int, body: bytes = BODY) -> dict[str, str]:
    key, old = signature.secret_key(SECRET), signature.secret_key(secret("old"))
    signatures = f"{signature.sign(old, 'evt_1', at_s, body)} {signature.sign(key, 'evt_1', at_s, body)}"
    return {"webhook-id": "evt_1", "webhook-timestamp": str(at_s), "webhook-signature": signatures}


@pytest.fixture(scope="module")
def snippets() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(code.replace('"whsec_..."', repr(SECRET)), names)
    return names


@pytest.mark.parametrize(
    ("off_s", "body", "good"), [(0, BODY, True), (-299, BODY, True), (-302, BODY, False), (0, b"{}", False)]
)
def test_both_ways_to_verify_work_as_they_stand_on_the_page(snippets: dict[str, Any], off_s: int, body: bytes, good: bool):
    given = headers(int(time.time()) + off_s)
    assert snippets["verifies"](SECRET, given, body) is good
    assert snippets["handle"](given, body) == (200 if good else 400)


def test_every_event_is_on_the_page():
    table = PAGE.split("| of | names |")[1].split("\n\n")[0]
    assert set(re.findall(r"`([a-z_]+\.[a-z_]+)`", table)) == set(PUBLISHED)


def test_the_waits_on_the_page_are_those_of_the_default_configuration():
    row = next(line for line in PAGE.splitlines() if line.startswith("| next in |"))
    told = [(int(least), int(most)) for least, most in re.findall(r"(\d+)-(\d+) s", row)]
    default = Webhooks()
    policy = webhook.Policy(default.tries_max, default.backoff_base_ms)
    waits = [
        [webhook.delay_ms(status=500, tries=tries, retry_after_s=None, draw=draw, policy=policy) // 1000 for draw in (0.0, 1.0)]
        for tries in range(1, default.tries_max)
    ]
    assert told == [tuple(wait) for wait in waits]
