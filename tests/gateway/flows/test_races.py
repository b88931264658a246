"""The provider's answer, a callback and an inquiry over one payment: every order, and all at once."""

import asyncio
from itertools import permutations, product

import pytest

from tests.gateway.doubles import OUTCOMES, Held
from tests.gateway.flows.conftest import Shop

# What the three may say together, when the charge's truth is the last of them; and how the payment has to end.
# An answer may be lost (Unknown) or be older than the truth (Pending).
STORIES = [
    ({"create": "Pending", "callback": "Approved", "inquiry": "Approved"}, "completed"),
    ({"create": "Pending", "callback": "Approved", "inquiry": "Pending"}, "completed"),
    ({"create": "Unknown", "callback": "Approved", "inquiry": "Approved"}, "completed"),
    ({"create": "Unknown", "callback": "Approved", "inquiry": "Unknown"}, "completed"),
    ({"create": "NotSent", "callback": "Declined", "inquiry": "Unknown"}, "failed"),
    ({"create": "Pending", "callback": "Declined", "inquiry": "Declined"}, "failed"),
    ({"create": "Unknown", "callback": "Declined", "inquiry": "Pending"}, "failed"),
    ({"create": "Approved", "callback": "Approved", "inquiry": "Approved"}, "completed"),
]


class Race:
    """The three writers, each held where it is about to learn something."""

    def __init__(self, shop: Shop, says: dict[str, str]) -> None:
        self._shop = shop
        self._says = says
        self._create, self._inquiry = Held(OUTCOMES[says["create"]]), Held(OUTCOMES[says["inquiry"]])

    async def begin(self) -> str:
        provider = self._shop.providers["upi"]
        provider.will("create", self._create)
        provider.will("inquire", self._inquiry)
        self.paying = asyncio.create_task(self._shop.post("upi", key="k"))
        await self._create.reached.wait()
        [self._reference] = provider.references
        payment_id = self._shop.records("payment")[0]["paymentID"]
        self._asking = asyncio.create_task(self._shop.resolve(payment_id))
        await self._inquiry.reached.wait()
        return payment_id

    async def let(self, name: str) -> None:
        """Lets one of them learn what it learns, and store it."""
        if name == "callback":
            await self._shop.callback(self._says["callback"], self._reference)
        elif name == "create":
            self._create.let_go.set()
            await self.paying
        else:
            self._inquiry.let_go.set()
            await self._asking


@pytest.mark.parametrize("order", list(permutations(["create", "callback", "inquiry"])), ids="-".join)
@pytest.mark.parametrize(("says", "status"), STORIES, ids=str)
async def test_whoever_comes_first_the_payment_ends_the_same(
    shop: Shop, order: tuple[str, ...], says: dict[str, str], status: str
):
    race = Race(shop, says)
    payment_id = await race.begin()
    for name in order:
        await race.let(name)
    assert shop.payment(payment_id).status == status
    assert await shop.post("upi", key="k") == race.paying.result()


@pytest.mark.parametrize(("says", "status"), STORIES, ids=str)
async def test_all_at_once_the_payment_ends_the_same(shop: Shop, says: dict[str, str], status: str):
    race = Race(shop, says)
    payment_id = await race.begin()
    await asyncio.gather(race.let("callback"), race.let("create"), race.let("inquiry"), race.let("callback"))
    assert shop.payment(payment_id).status == status
    assert await shop.post("upi", key="k") == race.paying.result()


@pytest.mark.parametrize(("first", "second"), list(product(["Approved", "Declined"], repeat=2)))
async def test_even_a_provider_that_contradicts_itself_moves_money_once_at_most(shop: Shop, first: str, second: str):
    race = Race(shop, {"create": first, "callback": second, "inquiry": first})
    shop.providers["upi"].will("reverse", OUTCOMES["Unknown"])
    payment_id = await race.begin()
    await asyncio.gather(race.let("callback"), race.let("inquiry"), race.let("create"))
    payment, attempt = shop.payment(payment_id), shop.attempt(payment_id)
    if first == second:
        assert attempt.state == {"Approved": "succeeded", "Declined": "declined"}[first]
    else:
        assert attempt.state in ("manual_review", "reversing")  # a person, or the provider, has to put it right
    assert payment.captured_minor == (1000 if payment.status == "completed" else 0)


async def test_many_writers_in_a_row_all_get_their_turn(shop: Shop):
    """Ten inquiries that learn nothing postpone each other; the one that learns something is not lost among them."""
    shop.providers["upi"].will("create", OUTCOMES["Pending"])
    payment_id = (await shop.pay("upi"))["paymentID"]
    shop.providers["upi"].will("inquire", *[OUTCOMES["Pending"]] * 10)
    await asyncio.gather(
        *(shop.resolve(payment_id) for _ in range(10)), shop.callback("Approved", shop.attempt(payment_id).reference)
    )
    assert shop.payment(payment_id).status == "completed"
