"""Test cards, VPAs and banks that force an outcome, as tables. Everything that is not in here follows the outcome mix."""

from typing import Literal, NamedTuple

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
    # CHALLENGED_CARDS, as long as nobody was authenticated: "additional authentication required".
    "4000000000003220": "1A",
    "4000008400001629": "1A",
}

TransStatus = Literal["Y", "N", "U", "A", "C", "D", "R", "I"]  # of EMV 3-D Secure

# What becomes of a charge once 3-D Secure authenticated its customer; the code 00 leaves it to the mix.
CHALLENGED_CARDS = {"4000000000003220": APPROVED, "4000008400001629": "05"}
DECOUPLED_REFUSED = "4000000000001166"

# What the issuer answers to an authentication request: CardinalCommerce's test cards for EMV 3-D Secure, which are widely known, and
# two of our own for decoupled authentication. As to charges they follow the mix.
AUTHENTICATIONS: dict[str, TransStatus] = {
    **dict.fromkeys(CHALLENGED_CARDS, "C"),
    "4000000000001000": "Y",
    "4000000000001018": "N",
    "4000000000001026": "A",
    "4000000000001034": "U",
    "4000000000001042": "R",
    "4000000000001091": "C",
    "5200000000001005": "Y",
    "5200000000001013": "N",
    "5200000000001021": "A",
    "5200000000001039": "U",
    "5200000000001047": "R",
    "5200000000001096": "C",
    "4000000000001158": "D",  # the customer agrees
    DECOUPLED_REFUSED: "D",
}


class CardStory(NamedTuple):
    """What comes after the approval of a card that is approved whatever the mix says."""

    dispute: Literal["fraudulent", "product_not_received", "inquiry"] | None = None
    refund: Literal["completes_late", "fails_late"] | None = None


CARD_STORIES = {
    "4000000000000259": CardStory(dispute="fraudulent"),
    "4000000000002685": CardStory(dispute="product_not_received"),
    "4000000000001976": CardStory(dispute="inquiry"),
    "4000000000007726": CardStory(refund="completes_late"),
    "4000000000005126": CardStory(refund="fails_late"),
    "4100000000000019": CardStory(),  # highest risk score: what is special comes before the approval, at the gateway
    "4000000000009235": CardStory(),  # elevated risk score
}
REFUND_LATE_MS = 2_000  # long enough to be seen on the way, short enough to wait for
REFUND_FAILURE = "05"


class Script(NamedTuple):
    """What the customer behind a VPA or at a bank does, instead of what the mix says."""

    code: str  # the decision; UPI_EXPIRED: lets the request expire
    at_once: bool = False  # declined in the answer itself: no customer is ever asked
    delay_ms: int | None = None  # None: as long as any customer
    answer_lost: bool = False  # the answer to the create call never comes


UPI_EXPIRED = "U69"
DEEMED = "RB"  # NPCI's credit timeout: the customer paid, the payee's bank has not confirmed
DEEMED_CONFIRMED_MS = 10_000  # as long as UPI_PENDING_MS and for the same reason; real banks take until the next day
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
    "deemed@upi": Script(DEEMED),
}

BANK_SUCCEEDS, BANK_FAILS, BANK_STAYS_PENDING = "TESTS", "TESTF", "TESTP"
BANK_FAILURE = "insufficient_funds"
BANK_EXPIRED = "expired"
BANK_SCRIPTS = {BANK_SUCCEEDS: Script(APPROVED), BANK_FAILS: Script(BANK_FAILURE)}

OTP_THAT_PASSES = "111000"
