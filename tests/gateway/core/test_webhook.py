import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import webhook
from gateway.core.webhook import Policy

POLICY = Policy(tries_max=4, backoff_base_ms=2_000)


def test_2xx_is_success_and_410_is_gone_and_all_else_is_tried_again():
    expected = {
        status: "delivered" if status // 100 == 2 else "gone" if status == 410 else "retry" for status in range(100, 600)
    }
    assert {status: webhook.fate(status=status, tries=1, policy=POLICY) for status in expected} == expected


@pytest.mark.parametrize("status", [None, 301, 308, 400, 404, 429, 500, 503])
def test_the_last_try_that_fails_makes_a_dead_letter(status: int | None):
    fates = [webhook.fate(status=status, tries=tries, policy=POLICY) for tries in range(1, 6)]
    assert fates == ["retry", "retry", "retry", "dead", "dead"]


def test_the_last_try_may_succeed():
    assert webhook.fate(status=204, tries=4, policy=POLICY) == "delivered"


def delay_ms(tries: int, *, status: int | None = 500, retry_after_s: int | None = None, draw: float = 0.5) -> int:
    return webhook.delay_ms(status=status, tries=tries, retry_after_s=retry_after_s, draw=draw, policy=POLICY)


@given(st.integers(1, 12), st.floats(0, 1, exclude_max=True))
def test_the_wait_doubles_and_is_spread_over_its_upper_half(tries: int, draw: float):
    full_ms = 2_000 * 2 ** (tries - 1)
    assert full_ms / 2 <= delay_ms(tries, draw=draw) <= full_ms


def test_the_spread_is_used():
    assert delay_ms(1, draw=0.0) == 1_000
    assert delay_ms(1, draw=0.5) == 1_500
    assert delay_ms(3, draw=0.0) == 4_000


@pytest.mark.parametrize(
    ("status", "retry_after_s", "expected_ms"),
    [
        (429, 30, 30_000),
        (503, 30, 30_000),
        (503, 0, 1_500),  # it may ask for longer, not for sooner
        (429, None, 1_500),
        (500, 30, 1_500),
        (None, 30, 1_500),
        (503, 10**9, 3_600_000),
    ],
)
def test_only_429_and_503_may_ask_for_more_time_and_not_for_too_much(
    status: int | None, retry_after_s: int | None, expected_ms: int
):
    assert delay_ms(1, status=status, retry_after_s=retry_after_s) == expected_ms
