"""Money is an integer in the currency's minor unit, always."""

# ISO 4217: minor unit exponents of the currencies that the gateway accepts.
CURRENCY_EXPONENTS = {"AED": 2, "EUR": 2, "GBP": 2, "INR": 2, "JPY": 0, "KWD": 3, "SGD": 2, "USD": 2}

# ISO 8583 field 4 (amount, transaction) has twelve digits: no acquirer could be asked for more.
AMOUNT_MINOR_MAX = 999_999_999_999

BASIS_POINTS_WHOLE = 10_000


def fee_minor(amount_minor: int, *, basis_points: int) -> int:
    """The fee on an amount, in minor units, rounded half to even."""
    whole, rest = divmod(amount_minor * basis_points, BASIS_POINTS_WHOLE)
    twice = 2 * rest
    round_up = twice > BASIS_POINTS_WHOLE or (twice == BASIS_POINTS_WHOLE and whole % 2 == 1)
    return whole + round_up
