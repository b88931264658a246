"""No JSON whatever makes the gateway fail, and nothing it says or counts has card data in it."""

import asyncio
import copy
import json
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.api.conftest import GOOD, Site
from tests.gateway.doubles import CVV, NUMBER

texts = st.one_of(
    st.text(max_size=20), st.sampled_from(["", "\0", "\ud800", "\n", "INR", "card", NUMBER, "９" * 16, "a" * 300])
)
numbers = st.one_of(st.integers(-(10**30), 10**30), st.floats(), st.sampled_from([0, -0.0, 1e308, 10**400]))
leaves = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(
    leaves, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)), max_leaves=8
)


def paths(document: Any, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(document, dict):
        return [prefix]
    return [prefix, *(path for key, inner in document.items() for path in paths(inner, (*prefix, key)))]


PLACES = [(method, path) for method, document in GOOD.items() for path in paths(document) if path]


def put(method: str, path: tuple[str, ...], value: Any) -> Any:
    document = copy.deepcopy(GOOD[method])
    parent = document
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    return document


requests = st.one_of(values, st.builds(lambda place, value: put(*place, value), st.sampled_from(PLACES), values))


def well_formed(status: int, body: bytes) -> None:
    said = json.loads(body)
    assert said["success"] is (status == 201)
    assert status in (201, 400, 403)


@pytest.mark.asyncio(loop_scope="module")
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(document=requests, ascii_only=st.booleans())
async def test_whatever_json_is_sent_the_answer_is_well_formed_and_no_5xx(shared_site: Site, document: Any, ascii_only: bool):
    body = json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    answer = await shared_site.process(body)
    well_formed(answer.status, answer.body)


@pytest.mark.asyncio(loop_scope="module")
@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 500), junk=st.binary(max_size=6), cut=st.integers(0, 4))
async def test_whatever_bytes_are_spoilt_the_answer_is_well_formed_and_no_5xx(
    shared_site: Site, position: int, junk: bytes, cut: int
):
    body = json.dumps(GOOD["card"]).encode()
    position %= len(body)
    answer = await shared_site.process(body[:position] + junk + body[position + cut :])
    well_formed(answer.status, answer.body)


async def test_neither_logs_nor_metrics_nor_answers_have_card_data_in_them(site: Site, caplog: pytest.LogCaptureFixture):
    caplog.set_level("DEBUG")
    said: list[bytes] = []
    with structlog.testing.capture_logs() as logs:
        for status, code in (("approved", "00"), ("declined", "05"), ("expired", ""), ("weird", "00"), (NUMBER, "00")):
            site.provider.status, site.provider.code = status, code
            said.append((await site.process(GOOD["card"], headers={"Idempotency-Key": status})).body)
        spoilt = [put(*place, value) for place in PLACES for value in (None, [NUMBER], {NUMBER: CVV})]
        said += [(await site.process(document)).body for document in spoilt]
        said.append((await site.request("GET", f"/api/payments/{NUMBER}/status")).body)
        said.append((await site.request("GET", f"/{NUMBER}")).body)
        await asyncio.gather(*(site.pay("upi") for _ in range(3)))
    metrics = (await site.request("GET", "/metrics", key=None)).body
    assert b"paydrome_payment_events" in metrics
    assert b'route="/api/payments/process",status="400"' in metrics
    assert any(line["event"] == "provider.no_answer" for line in logs)
    for text in (str(logs), caplog.text, metrics.decode(), b"".join(said).decode()):
        assert NUMBER not in text
        assert f'"{CVV}"' not in text
