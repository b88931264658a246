"""Journeys are walked here with answers of our own; no sockets, no clock."""

from collections.abc import Mapping
from typing import Any

import pytest

from loadtests.journeys import ASKED_MAX, JOURNEYS, OTP_RIGHT, OTP_WRONG, Answer, LostWayError, Step
from loadtests.samples import STEPS
from simulators import magic

PAGE = "http://issuer/acs/1"
RETURN = '<form method="post" action="http://gateway/back?a=1&amp;b=2"><input type="hidden" name="cres" value="eyJ9">'


class Gateway:
    """Answers each step as a gateway would that does everything at once; `later` says how often it is not there yet."""

    def __init__(self, ends: str, *, later: int = 0, **answers: Any) -> None:
        self.status, self.later, self.answers = ends, later, answers
        self.steps: list[Step] = []

    def answer(self, step: Step) -> Answer:
        self.steps.append(step)
        if step.at_issuer or step.form is not None:
            return Answer({}, RETURN)
        if step.method == "GET" and self.later:
            self.later -= 1
            return Answer({"status": "processing"})
        return Answer(self.answers.get(step.name, {"status": self.status}))

    def walk(self, name: str, paid: Mapping[str, Any]) -> list[str]:
        """The names of the steps, in turn."""
        walk = JOURNEYS[name].walk({"paymentID": "pay_1", "amount": 1000, **paid})
        try:
            step = next(walk)
            while True:
                step = walk.send(self.answer(step))
        except StopIteration:
            return [step.name for step in self.steps]


CAPTURED = {"status": "completed", "capture": {"captureID": "cap_1", "status": "completed"}}
DISPUTED = {"status": "completed", "disputes": [{"disputeID": "dsp_1"}]}
REFUND = {"status": "pending", "refundID": "ref_1"}
CHALLENGED = {"status": "requires_action", "nextAction": {"type": "redirect", "url": PAGE}}


@pytest.mark.parametrize(
    ("name", "status", "steps", "ends"),
    [
        ("capture", "authorized", ["capture"], "completed"),
        ("partial_captures", "authorized", ["capture", "capture", "refund"], "completed"),
        ("void", "authorized", ["void"], "voided"),
        ("refund", "completed", ["refund"], "completed"),
        ("partial_refunds", "completed", ["refund"] * 3, "completed"),
        ("late_refund", "completed", ["refund", "refund status"], "completed"),
        ("failing_refund", "completed", ["refund", "refund status"], "failed"),
        ("three_ds", "requires_action", ["issuer", "issuer", "return", "status"], "completed"),
        ("three_ds_failed", "requires_action", ["issuer"] * 4 + ["return", "status"], "failed"),
        ("dispute_accepted", "completed", ["payment", "accept", "dispute"], "lost"),
        ("dispute_won", "completed", ["payment", "evidence", "dispute"], "won"),
        ("dispute_lost", "completed", ["payment", "evidence", "dispute"], "lost"),
        ("inquiry", "completed", ["payment", "evidence", "dispute"], "warning_closed"),
    ],
)
def test_each_journey_takes_its_steps_and_ends(name: str, status: str, steps: list[str], ends: str) -> None:
    gateway = Gateway(ends, payment=DISPUTED, refund=REFUND, capture=CAPTURED)
    assert gateway.walk(name, {**CHALLENGED, "status": status}) == steps
    assert all(step.name in STEPS for step in gateway.steps if not step.at_issuer)


def test_every_journey_is_walked_above() -> None:
    (marker,) = test_each_journey_takes_its_steps_and_ends.pytestmark
    assert [case[0] for case in marker.args[1]] == list(JOURNEYS)


def test_partial_refunds_name_an_amount_but_for_the_last_which_takes_what_is_left() -> None:
    gateway = Gateway("completed")
    gateway.walk("partial_refunds", {"status": "completed"})
    assert [step.amount for step in gateway.steps] == [333, 333, 0]
    assert all(step.changes and step.path == "/api/refunds/process" for step in gateway.steps)


def test_two_thirds_are_captured_and_the_rest_is_released_by_the_second_capture() -> None:
    gateway = Gateway("completed", capture=CAPTURED)
    gateway.walk("partial_captures", {"status": "authorized"})
    assert [(step.amount, (step.body or {}).get("final")) for step in gateway.steps] == [(333, None), (333, True), (0, None)]


@pytest.mark.parametrize(("name", "passwords"), [("three_ds", [OTP_RIGHT]), ("three_ds_failed", [OTP_WRONG] * 3)])
def test_the_customer_types_at_the_issuers_page_and_is_sent_back_by_it(name: str, passwords: list[str]) -> None:
    gateway = Gateway("failed")
    gateway.walk(name, CHALLENGED)
    *typed, shown, back, _ = gateway.steps
    assert [step.form for step in typed] == [{"action": "submit", "otp": password} for password in passwords]
    assert {step.path for step in (*typed, shown)} == {PAGE}
    assert (back.path, back.form, back.at_issuer) == ("http://gateway/back?a=1&b=2", {"cres": "eyJ9"}, False)
    assert not any(step.changes for step in gateway.steps)  # no idempotency key: a browser has none
    assert OTP_RIGHT == magic.OTP_THAT_PASSES != OTP_WRONG


def test_a_part_is_captured_only_once_the_part_before_it_is_known_to_be() -> None:
    doubtful = {"status": "authorized", "capture": {"captureID": "cap_1", "status": "unknown"}}
    gateway = Gateway("completed", later=1, capture=doubtful, status={"status": "partially_captured", "capturedAmount": 666})
    steps = gateway.walk("partial_captures", {"status": "authorized"})
    assert steps == ["capture", "status", "status", "capture", "status", "refund"]


def test_what_is_not_decided_yet_is_asked_for_again() -> None:
    gateway = Gateway("completed", later=3)
    assert gateway.walk("refund", {"status": "requires_action"}) == ["status"] * 4 + ["refund"]


@pytest.mark.parametrize(
    ("gateway", "reason"),
    [
        (Gateway("failed"), "status: ended as failed"),
        (Gateway("completed", later=ASKED_MAX), f"status: asked {ASKED_MAX} times in vain"),
    ],
)
def test_a_journey_that_waits_in_vain_is_given_up(gateway: Gateway, reason: str) -> None:
    with pytest.raises(LostWayError, match=reason):
        gateway.walk("refund", {"status": "requires_action"})


def test_the_cards_of_journeys_are_test_cards_with_that_fate() -> None:
    for name, journey in JOURNEYS.items():
        for card in journey.cards or ():
            story = magic.CARD_STORIES.get(card, magic.CardStory())
            assert (story.dispute is not None) == ("dispute" in name or name == "inquiry")
            assert (story.refund is not None) == name.endswith("_refund")
            assert (card in magic.CHALLENGED_CARDS) == name.startswith("three_ds")
