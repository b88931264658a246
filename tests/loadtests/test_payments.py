import json
from collections import Counter
from typing import Any

import pytest

from loadtests import payments
from loadtests.payments import AMOUNT_MINOR_MAX, AMOUNT_MINOR_MIN, CARDS, Payments
from loadtests.samples import METHODS
from loadtests.scenario import Mix
from simulators import magic

MIX = Mix(card=0.5, upi=0.35, netbanking=0.15)


def bodies(seed: int = 1, n: int = 3000, run_id: str = "run", mix: Mix = MIX) -> list[dict[str, Any]]:
    wanted = Payments(seed=seed, n=n, mix=mix, year=2026)
    return [json.loads(payments.body(wanted[i], i=i, run_id=run_id, merchant_id="m_1")) for i in range(n)]


def test_payment_i_of_a_seed_is_always_the_same() -> None:
    assert bodies(seed=1) == bodies(seed=1)
    assert bodies(seed=1, n=3000)[:100] == bodies(seed=1, n=100)
    assert bodies(seed=1) != bodies(seed=2)


def test_two_runs_of_a_seed_differ_in_nothing_but_what_must_be_unique() -> None:
    one, two = bodies(run_id="one"), bodies(run_id="two")
    assert [b.pop("orderID") for b in one] == [f"order_one_{i}" for i in range(3000)]
    assert [b.pop("orderID") for b in two] == [f"order_two_{i}" for i in range(3000)]
    assert one == two
    assert payments.key("one", 5) != payments.key("two", 5)
    assert len({payments.key("one", i) for i in range(100)}) == 100


def test_the_mix_is_kept_and_a_method_without_a_share_never_comes() -> None:
    counts = Counter(b["paymentMethod"] for b in bodies())
    assert counts["card"] / 3000 == pytest.approx(0.5, abs=0.05)  # one sigma is 0.9%
    assert counts["upi"] / 3000 == pytest.approx(0.35, abs=0.05)
    assert {b["paymentMethod"] for b in bodies(mix=Mix(card=0.6, upi=0.4))} == {"card", "upi"}
    assert {b["paymentMethod"] for b in bodies(mix=Mix(netbanking=1))} == {"netbanking"}


def test_each_method_carries_its_own_instrument_and_no_other() -> None:
    keys = {"card": "cardDetails", "upi": "upiDetails", "netbanking": "netbankingDetails"}
    for body in bodies():
        assert {key for key in body if key.endswith("Details")} == {keys[body["paymentMethod"]]}
        assert body["merchantID"] == "m_1"
        assert METHODS[Payments(seed=1, n=1, mix=MIX, year=2026)[0].method] in keys


def test_amounts_are_whole_minor_units_over_the_whole_range() -> None:
    amounts = [b["amount"] for b in bodies()]
    assert all(isinstance(amount, int) and AMOUNT_MINOR_MIN <= amount <= AMOUNT_MINOR_MAX for amount in amounts)
    assert min(amounts) < 2 * AMOUNT_MINOR_MIN
    assert max(amounts) > AMOUNT_MINOR_MAX / 2


def test_cards_are_ordinary_valid_and_not_expired() -> None:
    cards = [b["cardDetails"] for b in bodies() if "cardDetails" in b]
    assert {card["number"] for card in cards} == set(CARDS)
    assert not set(CARDS) & magic.CARD_CODES.keys()
    for card in cards:
        assert luhn(card["number"])
        assert 1 <= int(card["expiryMonth"]) <= 12
        assert 2027 <= int(card["expiryYear"]) <= 2034
        assert len(card["cvv"]) == (4 if card["number"].startswith("3") else 3)
        assert card["cvv"].isdigit()


def test_upi_flows_are_mixed_and_only_a_collect_names_a_vpa() -> None:
    details = [b["upiDetails"] for b in bodies() if "upiDetails" in b]
    assert {d["flow"] for d in details} == {"collect", "intent", "qr"}
    assert all(("vpa" in d) == (d["flow"] == "collect") for d in details)
    assert not {d.get("vpa") for d in details} & magic.VPAS.keys()


def test_banks_are_ifsc_codes_that_force_no_outcome() -> None:
    codes = {b["netbankingDetails"]["bankCode"] for b in bodies() if "netbankingDetails" in b}
    assert codes == set(payments.BANK_CODES)
    for code in codes:
        assert (len(code), code[:4].isalpha(), code[4]) == (11, True, "0")


def luhn(number: str) -> bool:
    digits = [int(d) for d in reversed(number)]
    return sum(d if i % 2 == 0 else d * 2 - 9 * (d > 4) for i, d in enumerate(digits)) % 10 == 0


SHARES = {"capture": 0.1, "three_ds": 0.1, "refund": 0.1}


def test_journeys_get_their_shares_and_what_they_need_and_leave_other_payments_as_they_were() -> None:
    plain, walked = (Payments(seed=1, n=3000, mix=MIX, year=2026, journeys=shares) for shares in ({}, SHARES))
    counts = Counter(walked[i].journey for i in range(3000))
    assert counts.keys() == {None, *SHARES}
    assert all(counts[name] / 3000 == pytest.approx(0.1, abs=0.03) for name in SHARES)  # one sigma is 0.5%
    for i in range(3000):
        asked = json.loads(payments.body(walked[i], i=i, run_id="run", merchant_id="m_1"))
        match walked[i].journey:
            case None:
                assert walked[i] == plain[i]
            case "capture":
                assert (asked["paymentMethod"], asked["captureMethod"]) == ("card", "manual")
            case "three_ds":
                assert (asked["cardDetails"]["number"], "captureMethod" in asked) == ("4000000000003220", False)
            case "refund":
                assert walked[i]._replace(journey=None, twice=1.0) == plain[i]  # by any method


def test_the_key_of_a_later_step_is_its_own() -> None:
    assert payments.key("run", 5) == "run-5"
    assert payments.key("run", 5, 2) == "run-5-2"
