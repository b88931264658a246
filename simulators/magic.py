"""Test cards, VPAs and banks that force an outcome, as tables. Everything that is not in here follows the outcome mix."""

from typing import NamedTuple

APPROVED = "00"

# The test cards that everybody knows. They follow the mix like any other valid number; to know them saves checking them.
ORDINARY_CARDS = frozenset(
    {
        "4111111111111111",
        "4242424242424242",
        "5555555555554444",
        "5267318187975449",
        "378282246310005",
        "6011111111111117",
        "6521111111111110",  # RuPay
    }
)

CARD_CODES = {
    "4000000000000002": "05",  # generic decline
    "4000000000009995": "51",  # insufficient funds
    "4000000000009987": "41",  # lost card
    "4000000000009979": "43",  # stolen card
    "4000000000000069": "54",  # expired card
    "4000000000000127": "N7",  # incorrect CVC
    "4000000000000119": "96",  # processing error
    "4000000000006975": "65",  # velocity exceeded
    # These want 3-D Secure, which this acquirer does not speak: it declines with "additional authentication required".
    "4000000000003220": "1A",
    "4000008400001629": "1A",
    # What is special about these comes after the approval (disputes, refunds) or before it (risk).
    "4000000000000259": APPROVED,
    "4000000000002685": APPROVED,
    "4000000000001976": APPROVED,
    "4000000000007726": APPROVED,
    "4000000000005126": APPROVED,
    "4100000000000019": APPROVED,
    "4000000000009235": APPROVED,
}


class Script(NamedTuple):
    """What the customer behind a VPA or at a bank does, instead of what the mix says."""

    code: str  # the decision; UPI_EXPIRED: lets the request expire
    at_once: bool = False  # declined in the answer itself: no customer is ever asked
    delay_ms: int | None = None  # None: as long as any customer
    answer_lost: bool = False  # the answer to the create call never comes


UPI_EXPIRED = "U69"
UPI_PENDING_MS = 10_000  # long enough to be seen pending, short enough to wait for

VPAS = {
    "success@upi": Script(APPROVED),
    "success@razorpay": Script(APPROVED),
    "failure@upi": Script("U30"),  # debit failed
    "failure@razorpay": Script("U30"),
    "declined@upi": Script("ZA"),
    "expired@upi": Script(UPI_EXPIRED),
    "insufficientfunds@upi": Script("Z9"),
    "invalidpin@upi": Script("ZM"),
    "invalid@upi": Script("ZH", at_once=True),
    "timeout@upi": Script(APPROVED, answer_lost=True),
    "pending@upi": Script(APPROVED, delay_ms=UPI_PENDING_MS),
}

BANK_SUCCEEDS, BANK_FAILS, BANK_STAYS_PENDING = "TESTS", "TESTF", "TESTP"
BANK_FAILURE = "insufficient_funds"
BANK_EXPIRED = "expired"
BANK_SCRIPTS = {BANK_SUCCEEDS: Script(APPROVED), BANK_FAILS: Script(BANK_FAILURE)}

OTP_THAT_PASSES = "111000"
