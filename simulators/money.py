"""Amounts in minor units, and what others write instead: pure."""

# ISO 4217 minor unit exponents, list one: all that are not 2.
_CURRENCIES = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
_EXPONENTS = {currency: exponent for exponent, currencies in _CURRENCIES.items() for currency in currencies.split()}
BPS = 10_000  # basis points in one


def decimal(amount_minor: int, currency: str) -> str:
    """The amount in the major unit, with as many decimals as ISO 4217 gives the currency; `-0.50` for -50 INR."""
    exponent = _EXPONENTS.get(currency, 2)
    whole, minor = divmod(abs(amount_minor), 10**exponent)
    sign = "-" if amount_minor < 0 else ""
    return f"{sign}{whole}.{minor:0{exponent}d}" if exponent else f"{sign}{whole}"


def share_half_even(amount_minor: int, bps: int) -> int:
    """So many basis points of the amount, in minor units, halves to the even neighbour; of -x it is minus that of x."""
    quotient, rest = divmod(abs(amount_minor) * bps, BPS)
    rounded = quotient + (2 * rest > BPS or (2 * rest == BPS and quotient % 2))
    return -rounded if amount_minor < 0 else rounded
