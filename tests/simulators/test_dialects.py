"""What becomes of a new reference: pure, one dialect after the other."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from msgspec import UNSET

from simulators.behaviour import Draws, Mix
from simulators.durations import Duration
from simulators.latency import Constant, LatencyTable
from simulators.magic import CARD_CODES, CARD_STORIES, ORDINARY_CARDS, VPAS
from simulators.providers import Conduct, Opening, card, netbanking, upi

NOW_MS = int(datetime(2026, 6, 15, tzinfo=UTC).timestamp() * 1000)
DRAW = Draws(1).draw("any", "create", "ref", 1)
DELAY_MS = 1234
COMMON = {"reference": "ref", "amount": 123456, "currency": "INR", "merchantID": "merchant_123"}
CALLBACK = "http://gateway/callback"


def opened(dialect: Any, fields: dict[str, Any], *, mix: str = "00", acts: bool = True) -> Opening:
    conduct = Conduct(Mix({mix: 1}), LatencyTable(Constant(Duration(f"{DELAY_MS}ms"))), acts)
    request = msgspec.convert(COMMON | fields, dialect.create)
    return dialect.open_charge(request, conduct, DRAW, NOW_MS, "bank.test:9000")


def pay_by_card(number: str, *, month: str = "12", year: str = "2030", mix: str = "00") -> Opening:
    data = {"number": number, "expiryMonth": month, "expiryYear": year, "cvv": "123"}
    return opened(card.DIALECT, {"card": data}, mix=mix)


def pay_by_upi(vpa: str | None = None, *, flow: str = "collect", mix: str = "00", acts: bool = True) -> Opening:
    return opened(upi.DIALECT, {"flow": flow, "vpa": vpa, "callbackURL": CALLBACK}, mix=mix, acts=acts)


def pay_by_bank(bank: str, *, mix: str = "00", acts: bool = True) -> Opening:
    return opened(netbanking.DIALECT, {"bankCode": bank, "callbackURL": CALLBACK}, mix=mix, acts=acts)


CARD = "4111111111111111"
DOCUMENTED_CARDS = {
    "4000000000000002": "05",
    "4000000000009995": "51",
    "4000000000009987": "41",
    "4000000000009979": "43",
    "4000000000000069": "54",
    "4000000000000127": "N7",
    "4000000000000119": "96",
    "4000000000006975": "65",
    "4242424242424241": "14",
    "4000000000003220": "1A",
    "4000008400001629": "1A",
}


def test_the_documented_ordinary_cards_are_all_there():
    assert {
        *("4111111111111111", "4242424242424242", "5555555555554444", "5267318187975449"),
        *("378282246310005", "6011111111111117", "6521111111111110"),
    } == ORDINARY_CARDS


@pytest.mark.parametrize("number", [*sorted(ORDINARY_CARDS), "4012888888881881"])
def test_an_ordinary_card_follows_the_mix(number):
    approved, declined = pay_by_card(number), pay_by_card(number, mix="51")
    assert (approved.charge.status, approved.charge.responseCode, approved.moved) == ("approved", "00", 123456)
    assert (declined.charge.status, declined.charge.responseCode, declined.moved) == ("declined", "51", 0)


@pytest.mark.parametrize(("number", "code"), DOCUMENTED_CARDS.items())
def test_a_test_card_is_declined_whatever_the_mix_says(number, code):
    opening = pay_by_card(number)
    assert (opening.charge.status, opening.charge.responseCode, opening.moved, opening.waiting) == ("declined", code, 0, None)


@pytest.mark.parametrize("number", sorted(CARD_STORIES))
def test_a_card_with_a_later_fate_is_approved_whatever_the_mix_says(number):
    assert pay_by_card(number, mix="51").charge.responseCode == "00"


@pytest.mark.parametrize("number", sorted(ORDINARY_CARDS | CARD_CODES.keys() | CARD_STORIES.keys()))
def test_each_test_card_has_a_valid_number(number):
    assert card.luhn_valid(number)


@pytest.mark.parametrize("number", sorted(ORDINARY_CARDS))
def test_any_wrong_digit_makes_a_number_invalid(number):
    for index, digit in enumerate(number):
        wrong = number[:index] + str((int(digit) + 1) % 10) + number[index + 1 :]
        assert pay_by_card(wrong).charge.responseCode == "14"


@pytest.mark.parametrize(
    ("month", "year", "code"),
    [
        ("6", "2026", "00"),
        ("06", "26", "00"),
        ("05", "2026", "54"),
        ("12", "25", "54"),
        ("12", "1930", "54"),
        ("1", "2027", "00"),
    ],
)
def test_a_card_is_good_until_the_end_of_its_month(month, year, code):
    assert pay_by_card(CARD, month=month, year=year).charge.responseCode == code


def test_only_an_approved_card_charge_has_numbers_to_show():
    approved, declined = pay_by_card(CARD).charge, pay_by_card(CARD, mix="05").charge
    assert approved.rrn.isdigit()
    assert approved.authorizationCode.isdigit()
    assert (len(approved.rrn), len(approved.authorizationCode)) == (12, 6)
    assert (declined.rrn, declined.authorizationCode) == (UNSET, UNSET)


def test_card_data_is_not_in_a_repr():
    assert "4111" not in repr(
        msgspec.convert(
            COMMON | {"card": {"number": "4111111111111111", "expiryMonth": "1", "expiryYear": "30", "cvv": "123"}},
            card.CreateCharge,
        )
    )


@pytest.mark.parametrize(("flow", "field"), [("collect", None), ("intent", "intentURL"), ("qr", "qrPayload")])
def test_each_upi_flow_gives_the_customer_what_it_needs(flow, field):
    charge = pay_by_upi("someone@upi", flow=flow).charge
    links = {name: getattr(charge, name) for name in ("intentURL", "qrPayload") if getattr(charge, name) is not UNSET}
    assert (charge.status, charge.responseCode, list(links)) == ("pending", None, [field] if field else [])
    for link in links.values():
        url = urlsplit(link)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        assert (url.scheme, url.netloc, query["am"], query["cu"], query["tr"]) == ("upi", "pay", "1234.56", "INR", "ref")


def test_an_ordinary_upi_customer_decides_by_the_mix_after_the_drawn_delay():
    waiting = pay_by_upi("someone@upi", mix="Z9").waiting
    assert (waiting.decision, waiting.decides_in_ms, waiting.expires_in_ms, waiting.callback_url) == (
        "Z9",
        DELAY_MS,
        300_000,
        CALLBACK,
    )


def test_a_upi_customer_who_does_not_act_decides_nothing():
    assert pay_by_upi("success@upi", acts=False).waiting.decision is None


def test_the_documented_vpas_are_all_there():
    names = [
        "success",
        "failure",
        "declined",
        "expired",
        "insufficientfunds",
        "timeout",
        "invalidpin",
        "invalid",
        "pending",
        "deemed",
    ]
    assert set(VPAS) == {f"{name}@upi" for name in names} | {"success@razorpay", "failure@razorpay"}


@pytest.mark.parametrize(
    ("vpa", "code", "mix"),
    [
        ("success@upi", "00", "Z9"),
        ("success@razorpay", "00", "Z9"),
        ("SUCCESS@UPI", "00", "Z9"),
        ("failure@upi", "U30", "00"),
        ("failure@razorpay", "U30", "00"),
        ("declined@upi", "ZA", "00"),
        ("expired@upi", "U69", "00"),
        ("insufficientfunds@upi", "Z9", "00"),
        ("invalidpin@upi", "ZM", "00"),
        ("deemed@upi", "RB", "00"),
    ],
)
@pytest.mark.parametrize("flow", ["collect", "intent", "qr"])
def test_a_test_vpa_decides_as_documented_whatever_the_mix_says(vpa, code, mix, flow):
    opening = pay_by_upi(vpa, mix=mix, flow=flow)
    assert (opening.charge.status, opening.waiting.decision, opening.waiting.decides_in_ms) == ("pending", code, DELAY_MS)
    assert not opening.answer_lost


def test_an_invalid_vpa_is_declined_at_once():
    opening = pay_by_upi("invalid@upi")
    assert (opening.charge.status, opening.charge.responseCode, opening.waiting) == ("declined", "ZH", None)


def test_a_timing_out_vpa_loses_the_answer_and_approves_later():
    opening = pay_by_upi("timeout@upi", mix="Z9")
    assert (opening.charge.status, opening.waiting.decision, opening.answer_lost) == ("pending", "00", True)


def test_a_pending_vpa_takes_ten_seconds():
    opening = pay_by_upi("pending@upi", mix="Z9")
    assert (opening.waiting.decision, opening.waiting.decides_in_ms) == ("00", 10_000)


def test_a_bank_payment_has_a_page():
    charge = pay_by_bank("HDFC0000001").charge
    assert (charge.status, charge.redirectURL) == ("pending", f"http://bank.test:9000/bank/pages/{charge.providerID}")


@pytest.mark.parametrize(
    ("bank", "mix", "acts", "decision"),
    [
        ("HDFC0000001", "00", True, "00"),
        ("HDFC", "otp_failed", True, "otp_failed"),
        ("HDFC", "00", False, None),
        ("TESTS", "otp_failed", True, "00"),
        ("TESTS", "00", False, None),
        ("TESTF", "00", True, "insufficient_funds"),
        ("TESTP", "00", True, None),
    ],
)
def test_what_the_simulated_bank_customer_will_decide(bank, mix, acts, decision):
    waiting = pay_by_bank(bank, mix=mix, acts=acts).waiting
    assert (waiting.decision, waiting.decides_in_ms, waiting.expires_in_ms) == (decision, DELAY_MS, 900_000)


@pytest.mark.parametrize(
    ("action", "otp", "bank", "code"),
    [
        ("pay", "111000", "HDFC", "00"),
        ("pay", "111000", "TESTS", "00"),
        ("pay", "111000", "TESTP", "00"),
        ("pay", "111000", "TESTF", "insufficient_funds"),
        ("pay", "000111", "HDFC", "otp_failed"),
        ("pay", "", "TESTS", "otp_failed"),
        ("cancel", "111000", "TESTS", "customer_cancelled"),
        ("cancel", "", "HDFC", "customer_cancelled"),
    ],
)
def test_what_a_click_on_the_page_means(action, otp, bank, code):
    assert netbanking.clicked(action, otp=otp, bank_code=bank) == code
