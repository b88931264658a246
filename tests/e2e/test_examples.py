"""The document's examples of payments do at the providers what they say."""

import pytest

from gateway.api.examples import EXAMPLES
from tests.e2e.conftest import Shop

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROCESS = ("POST", "/api/payments/process")
ENDS = {
    "card": "completed",
    "authorize": "authorized",
    "challenge": "requires_action",
    "declined": "failed",
    "upi": "requires_action",
    "qr": "requires_action",
    "netbanking": "requires_action",
}


@pytest.mark.parametrize("name", EXAMPLES[PROCESS])
async def test_an_example_of_a_payment_does_what_it_says(shop: Shop, name: str):
    answer = await shop.post(PROCESS[1], EXAMPLES[PROCESS][name].body)
    assert (answer.status, answer.data["status"]) == (201, ENDS[name])
    assert ("nextAction" in answer.data) is (ENDS[name] == "requires_action")
    assert answer.data.get("failureReason") == ("insufficient_funds" if name == "declined" else None)
