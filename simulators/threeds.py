"""EMV 3-D Secure 2.2, as the issuer's access control server (ACS) decides it: pure.

    (AReq) --> Y A N U R I          frictionless: the ARes is the result
       |-----> C --one-time password--> Y | N     a challenge on the ACS's page
       '-----> D --customer's device--> Y | N     decoupled: out of band, the merchant waits

Nothing else ever changes: whatever is neither C nor D is final. The codes are those of the EMV 3-D Secure Protocol and Core
Functions Specification 2.2.0, annex A: transStatus, transStatusReason, challengeCancel. The ECI belongs to the card schemes.
"""

from typing import Literal, NamedTuple
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from simulators.behaviour import Draw
from simulators.magic import APPROVED, AUTHENTICATIONS, CHALLENGED_CARDS, TransStatus

MESSAGE_VERSION = "2.2.0"
# The specification gives the first CReq 30 s and each step of the challenge 10 min; here the challenge has 10 min in all, because a
# person who tries things out copies the address by hand.
CHALLENGE_MS = 600_000
TRIES_MAX = 3  # wrong one-time passwords
RESENDS_MAX = 3

CARD_AUTHENTICATION_FAILED, EXPIRED_CARD, INVALID_CARD_NUMBER, SUSPECTED_FRAUD = "01", "05", "06", "11"
TIMED_OUT_AT_ACS, EXCEEDS_ACS_CHALLENGES, ACS_TECHNICAL_ISSUE = "14", "19", "22"
DECOUPLED_NOT_REQUESTED, DECOUPLED_TIME_EXCEEDED = "23", "24"

DATA_SHARE_ONLY = "06"
CHALLENGE_WANTED = ("03", "04")  # by the merchant's preference, by mandate

AUTHENTICATION_REQUIRED = "1A"  # Visa's soft decline; Mastercard's 65 would say two things here
_UNUSABLE = {"14": INVALID_CARD_NUMBER, "54": EXPIRED_CARD}  # what the acquirer would decline the card with

Network = Literal["mastercard", "other"]
Event = Literal["pass", "refuse", "exhaust", "cancel", "no_creq", "time"]
Channel = Literal["browser", "app"]


class Ending(NamedTuple):
    """How an authentication ends: transStatus, transStatusReason, challengeCancel."""

    status: TransStatus
    reason: str | None = None
    cancel: str | None = None


# What is not in here changes nothing.
ENDINGS: dict[tuple[TransStatus, Event], Ending] = {
    ("C", "pass"): Ending("Y"),
    ("C", "exhaust"): Ending("N", EXCEEDS_ACS_CHALLENGES),
    ("C", "cancel"): Ending("N", CARD_AUTHENTICATION_FAILED, "01"),
    ("C", "no_creq"): Ending("N", TIMED_OUT_AT_ACS, "05"),
    ("C", "time"): Ending("N", TIMED_OUT_AT_ACS, "04"),
    ("D", "pass"): Ending("Y"),
    ("D", "refuse"): Ending("N", CARD_AUTHENTICATION_FAILED),
    ("D", "time"): Ending("N", DECOUPLED_TIME_EXCEEDED, "03"),
}
_REASONS: dict[TransStatus, str] = {"N": CARD_AUTHENTICATION_FAILED, "U": ACS_TECHNICAL_ISSUE, "R": SUSPECTED_FRAUD}

# Authenticated, attempted, neither, data only. All schemes but Mastercard use Visa's numbers: RuPay, American Express, Discover, JCB.
_ECIS: dict[Network, tuple[str, str, str, str]] = {"mastercard": ("02", "01", "00", "04"), "other": ("05", "06", "07", "07")}


class Authentication(msgspec.Struct, frozen=True, gc=False):
    """An authentication as it goes over the wire: the ARes, and later the RReq's content. Amounts in minor units, times in ms."""

    reference: str
    threeDSServerTransID: str
    dsTransID: str
    acsTransID: str
    transStatus: TransStatus
    amount: int
    currency: str
    createdAt: int
    updatedAt: int
    messageVersion: str = MESSAGE_VERSION
    transStatusReason: str | UnsetType = UNSET
    eci: str | UnsetType = UNSET  # once it is final
    authenticationValue: str | UnsetType = UNSET  # CAVV (Visa) or AAV (Mastercard), once authenticated or attempted
    acsURL: str | UnsetType = UNSET  # while the challenge waits
    acsDecConInd: Literal["Y"] | UnsetType = UNSET  # decoupled: confirmed
    challengeCancel: str | UnsetType = UNSET
    interactionCounter: str | UnsetType = UNSET  # one-time passwords that were tried, two digits

    @property
    def status(self) -> str:
        """What the journal shows."""
        return self.transStatus

    @property
    def responseCode(self) -> str | None:  # noqa: N802 - the journal's field
        """What the journal shows: why it is not authenticated."""
        return self.transStatusReason or None

    @property
    def providerID(self) -> str:  # noqa: N802 - the journal's field
        """What the journal shows."""
        return self.threeDSServerTransID


class Proof(NamedTuple):
    """What a charge has to show for its authentication. `refused`: the issuer has said no, or these are not its words."""

    eci: str
    verdict: Literal["authenticated", "unauthenticated", "refused"]


def network_of(number: str) -> Network:
    """By whose ECI values a card goes. Mastercard's numbers begin with 51 to 55 or 2221 to 2720."""
    head = int(number[:4])
    return "mastercard" if 5100 <= head <= 5599 or 2221 <= head <= 2720 else "other"


def eci(status: TransStatus, network: Network) -> str | UnsetType:
    """The electronic commerce indicator; UNSET while it is open."""
    if status in ("C", "D"):
        return UNSET
    return _ECIS[network][{"Y": 0, "A": 1, "I": 3}.get(status, 2)]


def assess(number: str, *, card_code: str | None, drawn: str, indicator: str, decoupled: bool) -> Ending:
    """What the ACS answers to an AReq. `drawn` is the mix's word, `card_code` what the acquirer declines the card with, if it does.

    `indicator` is the challenge indicator, `decoupled` whether the merchant would wait for a decoupled authentication.
    """
    if card_code in _UNUSABLE:
        return Ending("N", _UNUSABLE[card_code])
    status: TransStatus = AUTHENTICATIONS.get(number, drawn)  # type: ignore[arg-type]  # config.py lets nothing else into the mix
    if indicator == DATA_SHARE_ONLY and status in ("Y", "A", "C", "D"):
        return Ending("I")
    if indicator in CHALLENGE_WANTED and status == "Y":
        return Ending("C")
    if status == "D" and not decoupled:
        return Ending("U", DECOUPLED_NOT_REQUESTED)
    return Ending(status, _REASONS.get(status))


def concluded(authentication: Authentication, ending: Ending, *, network: Network, value: str, now_ms: int) -> Authentication:
    """The authentication with this transStatus and what goes with it. `value` is its CAVV, should it earn one."""
    return replace(
        authentication,
        transStatus=ending.status,
        transStatusReason=ending.reason or UNSET,
        challengeCancel=ending.cancel or UNSET,
        eci=eci(ending.status, network),
        authenticationValue=value if ending.status in ("Y", "A") else UNSET,
        acsURL=authentication.acsURL if ending.status == "C" else UNSET,
        acsDecConInd="Y" if ending.status == "D" else UNSET,
        updatedAt=now_ms,
    )


def proof(found: Authentication | None, network: Network) -> Proof:
    """What `found` proves about a charge; `None`: nothing that the charge refers to belongs to it."""
    status = found.transStatus if found else "N"
    shown = eci(status, network) or _ECIS[network][2]
    match status:
        case "Y" | "A":
            return Proof(shown, "authenticated")
        case "U" | "I":
            return Proof(shown, "unauthenticated")
        case _:
            return Proof(shown, "refused")


def response_code(number: str, forced: str | None, proved: Proof) -> str | None:
    """The response code that a charge with this proof is forced to, `None` where the mix decides; `forced`: without the proof."""
    if forced in _UNUSABLE:
        return forced
    if proved.verdict == "refused":
        return AUTHENTICATION_REQUIRED
    if proved.verdict == "authenticated" and number in CHALLENGED_CARDS:
        code = CHALLENGED_CARDS[number]
        return None if code == APPROVED else code
    return forced


def trans_ids(draw: Draw) -> tuple[str, str, str]:
    """threeDSServerTransID, dsTransID and acsTransID: UUIDs (version 4) made of a draw of their own."""
    halves = ((draw.latency, draw.fault), (draw.outcome, draw.customer_delay), (draw.identity, draw.numbers))
    server, directory, acs = (str(UUID(int=high << 64 | low, version=4)) for high, low in halves)
    return server, directory, acs
