from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core import money


@given(st.integers(0, money.AMOUNT_MINOR_MAX), st.integers(0, 10_000))
@example(5_000, 1)  # 0.5 -> 0
@example(15_000, 1)  # 1.5 -> 2
@example(25_000, 1)  # 2.5 -> 2
@example(25_001, 1)
@example(24_999, 1)
def test_a_fee_is_rounded_half_to_even(amount: int, basis_points: int):
    with localcontext() as context:
        context.prec = 40
        exact = Decimal(amount) * basis_points / 10_000
        assert money.fee_minor(amount, basis_points=basis_points) == int(exact.quantize(Decimal(1), ROUND_HALF_EVEN))


@given(st.integers(0, money.AMOUNT_MINOR_MAX), st.integers(0, 10_000))
def test_a_fee_is_never_more_than_the_amount(amount: int, basis_points: int):
    assert 0 <= money.fee_minor(amount, basis_points=basis_points) <= amount


@pytest.mark.parametrize(("currency", "exponent"), [("INR", 2), ("USD", 2), ("EUR", 2), ("JPY", 0), ("KWD", 3)])
def test_minor_units_are_those_of_iso_4217(currency: str, exponent: int):
    assert money.CURRENCY_EXPONENTS[currency] == exponent
