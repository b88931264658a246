import io
import sys
from collections.abc import Iterator

import pytest
import structlog

from gateway.core.event import Event
from gateway.observe import Metrics, configure_logging
from tests.gateway.doubles import NUMBER


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def defaults() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def log_to_terminal(monkeypatch: pytest.MonkeyPatch, level: str) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    configure_logging(level)
    return terminal


def test_a_traceback_on_a_terminal_does_not_print_variables(defaults: None, monkeypatch: pytest.MonkeyPatch):
    terminal = log_to_terminal(monkeypatch, "info")
    card_data = {"number": NUMBER}  # a variable of the frame that is printed
    try:
        int("many")
    except ValueError:
        structlog.get_logger("test").exception("request.crashed", fields=len(card_data))
    assert "ValueError: invalid literal" in terminal.getvalue()
    assert NUMBER not in terminal.getvalue()


def test_what_is_below_the_level_is_not_logged(defaults: None, monkeypatch: pytest.MonkeyPatch):
    terminal = log_to_terminal(monkeypatch, "warning")
    log = structlog.get_logger("test")
    log.info("quiet")
    log.warning("loud")
    assert "loud" in terminal.getvalue()
    assert "quiet" not in terminal.getvalue()


def test_metrics_count_steps_and_answers():
    metrics = Metrics()
    told = Event("evt_1_1", "pay_1", "m", 1, "payment.completed", b"{}", 1)
    metrics.stepped([told, told], "card")
    metrics.stepped([Event("evt_2_1", "set_2", "m", 1, "settlement.created", b"{}", 1)], None)
    metrics.answered("/health", 200, 0.2)
    metrics.answered("/health", 200, 3.0)
    metrics.limited("address")
    metrics.shed("create", "store")
    text = metrics.render().decode()
    assert 'paydrome_limited_requests_total{by="address"} 1.0' in text
    assert 'paydrome_shed_requests_total{bound="store",priority="create"} 1.0' in text
    assert 'paydrome_payment_events_total{event="payment.completed",method="card"} 2.0' in text
    assert 'paydrome_payment_events_total{event="settlement.created",method="none"} 1.0' in text
    assert 'paydrome_request_seconds_count{route="/health",status="200"} 2.0' in text
    assert 'paydrome_request_seconds_bucket{le="2.0",route="/health",status="200"} 1.0' in text
