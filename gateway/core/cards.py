"""What a card number tells by itself."""

from typing import NamedTuple

# Issuer identification ranges as the networks publish them; the longest prefix wins.
BRAND_PREFIXES = (
    ("rupay", (("508500", "508999"), ("606985", "608499"), ("6521", "6522"), ("817200", "820199"))),
    ("amex", (("34", "34"), ("37", "37"))),
    ("mastercard", (("51", "55"), ("2221", "2720"))),
    ("discover", (("6011", "6011"), ("644", "649"), ("65", "65"))),
    ("visa", (("4", "4"),)),
)

_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)  # a doubled digit with its own digits added up


class CardSummary(NamedTuple):
    """What may be kept in clear (PCI DSS 3.4 allows the first six and the last four digits)."""

    brand: str
    bin: str
    last4: str


def passes_luhn(number: str) -> bool:
    """ISO/IEC 7812-1 annex B check digit. `number` has digits only."""
    digits = [ord(c) - 48 for c in reversed(number)]
    return (sum(digits[::2]) + sum(_DOUBLED[d] for d in digits[1::2])) % 10 == 0


def brand(number: str) -> str:
    """The network, or `unknown`."""
    for name, ranges in BRAND_PREFIXES:
        for low, high in ranges:
            if low <= number[: len(low)] <= high:
                return name
    return "unknown"


def summary(number: str) -> CardSummary:
    return CardSummary(brand(number), number[:6], number[-4:])


def has_expired(*, month: int, year: int, now_year: int, now_month: int) -> bool:
    """A card is good through the last day of its expiry month."""
    return (year, month) < (now_year, now_month)
