"""What is remembered of a charge, in bytes that Python's allocator was asked for: they hardly depend on the machine, so that
`make test` judges them, too."""

import tracemalloc

import msgspec

from simulators.clock import Clock
from simulators.config import Card
from simulators.phases import Conducts
from simulators.provider import Provider
from simulators.providers import Terms, card
from simulators.world import World

CHARGES = 1000  # a multiple of a block of the journal
BYTES_MAX = 450  # a charge. It takes 406, and 732 where the charge is kept as an object


def charge(number: int) -> bytes:
    fields = {"reference": f"att_{number:020d}", "amount": 100_000 + number, "currency": "INR"}
    fields |= {"merchantID": "merchant_123", "orderID": f"order_{number}"}
    plastic = {"number": "4111111111111111", "expiryMonth": "12", "expiryYear": "2099", "cvv": "123"}
    return msgspec.json.encode(fields | {"card": plastic})


async def test_a_charge_by_card_is_remembered_in_few_bytes():
    settings = msgspec.convert({"outcomes": {"00": 0.9, "05": 0.1}}, Card)
    world = World(seed=1, clock=Clock())
    acquirer = Provider(
        card.DIALECT, world=world, conducts=Conducts("card", settings), terms=Terms(), announce=lambda *_, **__: None
    )
    decode = msgspec.json.Decoder(card.CreateCharge).decode

    def charged(first: int) -> int:
        for number in range(first, first + CHARGES):
            acquirer.create(decode(charge(number)), "localhost")
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = charged(0)
        after = charged(CHARGES)
    finally:
        tracemalloc.stop()
        world.clock.close()
    assert len(list(acquirer.charges())) == 2 * CHARGES
    assert (after - before) / CHARGES < BYTES_MAX
