from collections.abc import Iterator
from hashlib import blake2b
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from simulators.charges import Charge
from simulators.digest import CHARGES_PER_STEP, Fates, at_once, survey

CHARGE = Charge("ref_1", "card_1", "approved", "00", 1000, "INR", 1, 2, "000000000001", "000001")
NEVER = {"kind": "constant", "value": "60min"}


def provider(*charges: Charge, name: str = "card") -> Any:
    def all_charges() -> Iterator[Charge]:
        return iter(charges)

    return SimpleNamespace(name=name, charges=all_charges)


def digest(*providers: Any) -> str:
    return at_once(survey(providers)).digest


def test_the_digest_is_the_sum_of_a_hash_of_each_charge():
    """As the page says, so that it can be worked out from a journal."""
    first = blake2b(b"card\0ref_1\0card_1\x0000\x001000\0INR\x00000000000001\x00000001", digest_size=16).hexdigest()
    second = blake2b(b"upi\0ref_2\0upi_2\0\x005\0INR\0\0", digest_size=16).hexdigest()
    charges = provider(CHARGE), provider(Charge("ref_2", "upi_2", "pending", None, 5, "INR", 1, 1), name="upi")
    expected = (int(first, 16) + int(second, 16)) % 2**128
    assert at_once(survey(charges)) == Fates(f"{expected:032x}", charges=2, undecided=1)


def test_the_digest_does_not_depend_on_the_order():
    charges = [replace(CHARGE, reference=f"ref_{index}") for index in range(50)]
    assert digest(provider(*charges)) == digest(provider(*reversed(charges)))


@pytest.mark.parametrize(
    "change",
    [
        {"reference": "ref_2"},
        {"providerID": "card_2"},
        {"responseCode": "05"},
        {"responseCode": None},
        {"amount": 1001},
        {"currency": "USD"},
        {"rrn": "000000000002"},
        {"authorizationCode": "000002"},
    ],
)
def test_each_part_of_a_fate_changes_the_digest(change):
    assert digest(provider(CHARGE)) != digest(provider(replace(CHARGE, **change)))


def test_the_provider_is_part_of_a_fate():
    assert digest(provider(CHARGE)) != digest(provider(CHARGE, name="bank"))


def test_what_callers_did_with_a_charge_is_no_part_of_its_fate():
    later = replace(CHARGE, status="reversed", createdAt=7, updatedAt=9, refundedAmount=5)
    assert digest(provider(CHARGE)) == digest(provider(later))


def test_a_survey_lets_others_have_their_turn():
    assert len(list(survey([provider(*[CHARGE] * (3 * CHARGES_PER_STEP))]))) == 3


async def asked(client) -> dict[str, Any]:
    status, body, _ = await client.call("GET", "/admin/digest")
    assert status == 200
    return body


async def test_the_admin_answers_the_digest_of_all_providers(start, ear):
    client = await start(upi={"customer": {"delay": NEVER}})
    assert await asked(client) == {"digest": "0" * 32, "charges": 0, "undecided": 0}
    charges = [("card", await client.card("ref_1")), ("upi", await client.upi("ref_1", ear.url))]
    as_charges = [provider(Charge(**charge), name=name) for name, charge in charges]
    assert await asked(client) == {"digest": digest(*as_charges), "charges": 2, "undecided": 1}


async def test_retries_and_reversals_leave_the_digest_as_it_was(start):
    client = await start()
    await client.card("ref_1")
    before = await asked(client)
    await client.card("ref_1")
    await client.call("GET", "/card/charges/ref_1")
    await client.reverse("/card/charges/ref_1")
    assert await asked(client) == before
    assert before["charges"] == 1


async def test_another_seed_gives_other_fates(start):
    outcomes = {"00": 0.5, "05": 0.5}
    first, second = [await start(seed=seed, card={"outcomes": outcomes}) for seed in (11, 12)]
    references = [f"ref_{index}" for index in range(100)]
    codes = [[(await client.card(reference))["responseCode"] for reference in references] for client in (first, second)]
    assert 30 < sum(one != other for one, other in zip(*codes, strict=True)) < 70
    assert (await asked(first))["digest"] != (await asked(second))["digest"]
