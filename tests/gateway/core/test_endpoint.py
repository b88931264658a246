from typing import get_args

import pytest

from gateway.core.endpoint import FAMILIES, unknown_names, wants
from gateway.core.event import PUBLISHED, UNPUBLISHED, EventType
from tests.gateway.doubles import make_endpoint


def wanted(*events: str) -> set[EventType]:
    return {name for name in get_args(EventType) if wants(make_endpoint(events=events), name)}


def test_all_or_a_family_or_one_by_name():
    assert wanted("*") == set(get_args(EventType))
    assert wanted("refund.*") == {"refund.created", "refund.completed", "refund.failed"}
    assert wanted("payment.failed") == {"payment.failed"}
    assert wanted("payment.failed", "dispute.lost", "dispute.*") == {"payment.failed"} | wanted("dispute.*")


@pytest.mark.parametrize(
    "name", ["payment", "payment.", "payment.*.x", "*.completed", "Payment.completed", "", "**", *sorted(UNPUBLISHED)]
)
def test_what_is_never_sent_cannot_be_asked_for(name: str):
    assert unknown_names(["payment.completed", name]) == [name]


def test_every_published_event_can_be_asked_for_by_name_and_by_family():
    assert unknown_names([*PUBLISHED, *FAMILIES, "*"]) == []
    assert {name.partition(".")[0] + ".*" for name in PUBLISHED} == set(FAMILIES)
