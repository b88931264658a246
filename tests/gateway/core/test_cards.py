import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import cards

# DOMAIN.md, "Test values": what people already type.
GOOD = {
    "4111111111111111": "visa",
    "4242424242424242": "visa",
    "5555555555554444": "mastercard",
    "5267318187975449": "mastercard",
    "378282246310005": "amex",
    "6011111111111117": "discover",
    "6521111111111110": "rupay",
    "4000000000000002": "visa",
    "4000000000009995": "visa",
    "4000000000009987": "visa",
    "4000000000009979": "visa",
    "4000000000000069": "visa",
    "4000000000000127": "visa",
    "4000000000000119": "visa",
    "4000000000006975": "visa",
    "4000000000003220": "visa",
    "4000008400001629": "visa",
    "4000000000000259": "visa",
    "4000000000002685": "visa",
    "4000000000001976": "visa",
    "4000000000007726": "visa",
    "4000000000005126": "visa",
    "4100000000000019": "visa",
    "4000000000009235": "visa",
}
LUHN_FAILURE = "4242424242424241"

# First digits at the edges of the published ranges.
EDGES = {
    "34": "amex",
    "37": "amex",
    "35": "unknown",
    "51": "mastercard",
    "55": "mastercard",
    "50": "unknown",
    "56": "unknown",
    "2220": "unknown",
    "2221": "mastercard",
    "2720": "mastercard",
    "2721": "unknown",
    "508499": "unknown",
    "508500": "rupay",
    "508999": "rupay",
    "606984": "unknown",
    "606985": "rupay",
    "608499": "rupay",
    "608500": "unknown",
    "6520": "discover",
    "6521": "rupay",
    "6522": "rupay",
    "6523": "discover",
    "6011": "discover",
    "6012": "unknown",
    "643": "unknown",
    "644": "discover",
    "649": "discover",
    "817199": "unknown",
    "817200": "rupay",
    "820199": "rupay",
    "4": "visa",
    "9": "unknown",
}


def luhn_by_the_book(number: str) -> bool:
    """ISO/IEC 7812-1 annex B, step by step, from the right."""
    total = 0
    for position, character in enumerate(reversed(number)):
        digit = int(character)
        if position % 2:
            digit *= 2
            digit = digit // 10 + digit % 10
        total += digit
    return total % 10 == 0


@given(st.text("0123456789", min_size=1, max_size=24))
def test_luhn_is_that_of_the_standard(number: str):
    assert cards.passes_luhn(number) == luhn_by_the_book(number)


@given(st.text("0123456789", min_size=11, max_size=18))
def test_exactly_one_check_digit_fits(number: str):
    assert sum(cards.passes_luhn(number + digit) for digit in "0123456789") == 1


@given(st.text("0123456789", min_size=12, max_size=19), st.data())
def test_one_mistyped_digit_is_noticed(number: str, data: st.DataObject):
    position = data.draw(st.integers(0, len(number) - 1))
    other = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != number[position]]))
    mistyped = number[:position] + other + number[position + 1 :]
    assert not (cards.passes_luhn(number) and cards.passes_luhn(mistyped))


@pytest.mark.parametrize(("number", "brand"), GOOD.items())
def test_the_documented_numbers_are_valid_and_have_their_brand(number: str, brand: str):
    assert cards.passes_luhn(number)
    assert cards.summary(number) == (brand, number[:6], number[-4:])


def test_the_documented_luhn_failure_fails():
    assert not cards.passes_luhn(LUHN_FAILURE)


@pytest.mark.parametrize(("prefix", "brand"), EDGES.items())
@pytest.mark.parametrize("rest", ["0", "9"])
def test_brands_end_where_their_ranges_end(prefix: str, rest: str, brand: str):
    assert cards.brand(prefix.ljust(16, rest)) == brand


@pytest.mark.parametrize(
    ("month", "year", "expired"),
    [
        (3, 2030, False),
        (4, 2030, False),
        (2, 2030, True),
        (12, 2029, True),
        (1, 2031, False),
        (3, 2029, True),
        (3, 2031, False),
    ],
)
def test_a_card_is_good_through_its_expiry_month(month: int, year: int, expired: bool):
    assert cards.has_expired(month=month, year=year, now_year=2030, now_month=3) is expired
