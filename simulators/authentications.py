"""3-D Secure at the card acquirer: 3DS server, directory and issuer in one. Takes the AReq, remembers what became of it, and tells a
charge what its authentication is worth (`threeds.py` has the rules, `acs.py` the cardholder's page).

Draws are of the operation `authenticate`, and an authentication's reference is one of its own: it may be the charge's, too.
"""

import base64
import struct
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from simulators import threeds
from simulators.behaviour import Draw
from simulators.charges import Conflict
from simulators.clock import Timer
from simulators.intake import Answer, Call, keyed
from simulators.journal import Entry
from simulators.magic import DECOUPLED_REFUSED
from simulators.provider import Provider
from simulators.providers import Conduct, Create, Opening, Url, card
from simulators.refunds import Announce
from simulators.threeds import Authentication, Channel, Event, Network, Proof
from simulators.world import Record

DECOUPLED_MIN_MAX = 10_080  # a week, as the specification has it
Indicator = Literal["01", "02", "03", "04", "05", "06", "07", "08", "09"]
What = Literal["request", "result"]
_CAVV = struct.Struct(">QQI")  # 20 bytes


class Account(card.Card, frozen=True, forbid_unknown_fields=True, gc=False):
    """Card data of an authentication. An AReq carries no CVV; one that is sent is ignored."""

    cvv: Annotated[str, Meta(min_length=3, max_length=4)] = "000"


class AuthenticationRequest(Create, frozen=True, forbid_unknown_fields=True, kw_only=True, gc=False):
    """`POST /card/3ds/authentications`: the AReq, as far as it matters here."""

    card: Account
    returnURL: Url  # EMV's notificationURL
    deviceChannel: Channel = "browser"
    challengeIndicator: Indicator = "01"
    callbackURL: Url | None = None
    threeDSRequestorDecMaxTime: (
        Annotated[str, Meta(pattern=r"^[0-9]{5}\Z", description=f"00001 to {DECOUPLED_MIN_MAX} (minutes), in five digits")]
        | None
    ) = None
    challenge: Literal["person", "simulated"] | None = None  # None: as the acquirer's settings have it

    def instrument(self) -> tuple[str | None, str | None]:
        return self.card.number, None

    def __post_init__(self) -> None:
        Create.__post_init__(self)
        if self.threeDSRequestorDecMaxTime is not None and not 1 <= int(self.threeDSRequestorDecMaxTime) <= DECOUPLED_MIN_MAX:
            raise ValueError(f"threeDSRequestorDecMaxTime: must be 00001 to {DECOUPLED_MIN_MAX} (minutes)")


class Standing(msgspec.Struct):
    """What is remembered about the reference of an authentication. Of the card number, the last four digits and a hash."""

    record: Record  # whose it is, for faults and the journal
    authentication: Authentication | None = None
    asked: tuple[int, str, int, str] | None = None  # card, merchant, amount, currency
    calls: dict[What, int] = {}
    network: Network = "other"
    last_four: str = ""
    return_url: str = ""
    callback_url: str | None = None
    session_data: str = ""  # threeDSSessionData: goes back to the merchant as it came
    opened: bool = False  # the cardholder's page was asked for
    tries: int = 0
    resends: int = 0
    timer: Timer | None = None


class Authentications:
    """All authentications of the acquirer. They grow with the run, like charges.

    `announce(provider, authentication, url, type, record=...)` is called when one ends after its ARes.
    """

    def __init__(self, acquirer: Provider[Any], announce: Announce) -> None:
        self._intake = acquirer.intake
        self._world = acquirer.intake.world
        self._announce = announce
        self._standings: dict[str, Standing] = {}
        self._references: dict[str, str] = {}  # by threeDSServerTransID, dsTransID and acsTransID
        self._world.remember(self, "_standings", "_references")

    def authenticate(self, request: AuthenticationRequest, host: str) -> Answer:
        """The ARes for this reference: a new one, or what there is by now. `host`: where the caller reached the simulators."""
        standing, call = self._begin("request", request.reference, request)
        if call.barred:
            return self._intake.unserved(call, standing.record, standing.authentication)
        asked = (self._fingerprint(request.card.number), request.merchantID, request.amount, request.currency)
        if standing.authentication is None:
            standing.asked = asked
            standing.authentication = self._open(standing, request, call, host)
        elif standing.asked != asked:
            sentence = f"reference {request.reference!r} already stands for another card, merchant, amount or currency"
            conflict = Conflict("reference_conflict", sentence)
            return self._intake.refuse(call, standing.record, conflict, standing.authentication)
        return self._intake.done(call, standing.record, standing.authentication)

    def result(self, reference_or_id: str) -> Answer:
        """The authentication with this reference or threeDSServerTransID, as it is now: the content of the RReq."""
        standing, call = self._begin("result", self._references.get(reference_or_id, reference_or_id))
        if call.barred:
            return self._intake.unserved(call, standing.record, standing.authentication)
        if standing.authentication is None:
            return self._intake.missing(call, f"no authentication {reference_or_id!r} has arrived at card", standing.record)
        return self._intake.done(call, standing.record, standing.authentication)

    def challenged(self, acs_trans_id: str) -> tuple[Standing, Authentication] | None:
        """The authentication with this acsTransID, if there is or was a challenge for a cardholder to meet."""
        found = self._by_id(acs_trans_id)
        if found is None or not found[0].return_url or found[1].acsTransID != acs_trans_id:
            return None
        return found

    def happen(self, standing: Standing, event: Event) -> None:
        """Ends an authentication. Changes nothing unless it waits for this."""
        authentication, now_ms = standing.authentication, self._world.now_ms()
        assert authentication is not None
        ending = threeds.ENDINGS.get((authentication.transStatus, event))
        if ending is None:
            return
        value = self._value(authentication.reference)
        ended = threeds.concluded(authentication, ending, network=standing.network, value=value, now_ms=now_ms)
        standing.authentication = ended
        if standing.timer is not None:
            standing.timer.cancel()
            standing.timer = None
        merchant, order = standing.record.merchant_id, standing.record.order_id
        self._world.journal.append(
            Entry(now_ms, "card", "authenticate", ended.reference, 1, ended, merchant=merchant, order=order)
        )
        if standing.callback_url is not None:
            self._announce("card", ended, standing.callback_url, "authentication", record=standing.record)

    def tried(self, standing: Standing) -> None:
        """The cardholder sent a wrong one-time password; after TRIES_MAX of them it is over."""
        authentication = standing.authentication
        assert authentication is not None
        if authentication.transStatus != "C":
            return
        self._count(standing)
        if standing.tries >= threeds.TRIES_MAX:
            self.happen(standing, "exhaust")

    def passed(self, standing: Standing) -> None:
        """The cardholder sent the right one."""
        if standing.authentication is not None and standing.authentication.transStatus == "C":
            self._count(standing)
            self.happen(standing, "pass")

    def open_charge(self, request: card.CreateCharge, conduct: Conduct, draw: Draw, now_ms: int, host: str) -> Opening:
        """`card.open_charge`, with the proof that the charge's `threeDS` gives it."""
        proof = None if request.threeDS is None else self._proof(request, request.threeDS)
        return card.open_charge(request, conduct, draw, now_ms, host, proof)

    def _proof(self, request: card.CreateCharge, claim: card.ThreeDS) -> Proof:
        """What a charge shows counts only for the card, merchant and amount that were meant."""
        found = self._by_id(claim.threeDSServerTransID or claim.dsTransID or "")
        if found is not None and not self._belongs(*found, request, claim):
            found = None
        return threeds.proof(found[1] if found else None, threeds.network_of(request.card.number))

    def _belongs(
        self, standing: Standing, authentication: Authentication, request: card.CreateCharge, claim: card.ThreeDS
    ) -> bool:
        assert standing.asked is not None
        fingerprint, merchant_id, amount, currency = standing.asked
        if claim.threeDSServerTransID is not None:
            shown = claim.threeDSServerTransID == authentication.threeDSServerTransID
        else:
            values = (claim.dsTransID, claim.eci, claim.authenticationValue)
            shown = values == (authentication.dsTransID, authentication.eci, authentication.authenticationValue)
        meant = (merchant_id, currency) == (request.merchantID, request.currency) and request.amount <= amount
        return shown and meant and fingerprint == self._fingerprint(request.card.number)

    def _open(self, standing: Standing, request: AuthenticationRequest, call: Call, host: str) -> Authentication:
        reference, now_ms, conduct = request.reference, call.now_ms, call.conduct
        fate = self._intake.fate(call, keyed("request", reference))
        server, directory, acs = threeds.trans_ids(self._world.draws.draw("card", "authenticate", keyed("ids", reference), 1))
        assert conduct.authentication is not None
        ending = threeds.assess(
            request.card.number,
            card_code=card.forced_code(request.card, now_ms),
            drawn=conduct.authentication.pick(fate.outcome),
            indicator=request.challengeIndicator,
            decoupled=request.threeDSRequestorDecMaxTime is not None,
        )
        opened = Authentication(reference, server, directory, acs, "C", request.amount, request.currency, now_ms, now_ms)
        opened = msgspec.structs.replace(opened, acsURL=f"http://{host}/card/acs/{acs}")
        standing.network, standing.callback_url = threeds.network_of(request.card.number), request.callbackURL
        value = self._value(reference)
        opened = threeds.concluded(opened, ending, network=standing.network, value=value, now_ms=now_ms)
        self._references |= dict.fromkeys((server, directory, acs), reference)
        if ending.status in ("C", "D"):
            assert conduct.customer_delay is not None
            self._await(standing, request, call, conduct.customer_delay.pick(fate.customer_delay), ending.status)
        return opened

    def _await(
        self, standing: Standing, request: AuthenticationRequest, call: Call, customer_ms: int, status: Literal["C", "D"]
    ) -> None:
        """Sets what ends it: the simulated customer, unless time or a person does before."""
        acts, end, limit_ms = call.conduct.customer_acts, partial(self.passed, standing), threeds.CHALLENGE_MS
        if status == "C":
            standing.return_url, standing.last_four = request.returnURL, request.card.number[-4:]
            acts = acts and (request.challenge or call.conduct.challenge) == "simulated"
        else:
            limit_ms = int(request.threeDSRequestorDecMaxTime or 0) * 60_000
            end = partial(self.happen, standing, "refuse" if request.card.number == DECOUPLED_REFUSED else "pass")
        in_ms = call.delay_ms + customer_ms
        call_at = self._world.clock.call_at
        if acts and in_ms < limit_ms:
            standing.timer = call_at(call.now_ms + in_ms, end)
        else:
            standing.timer = call_at(call.now_ms + limit_ms, self._run_out, standing)

    def _run_out(self, standing: Standing) -> None:
        waits_for_creq = standing.authentication is not None and standing.authentication.transStatus == "C"
        self.happen(standing, "no_creq" if waits_for_creq and not standing.opened else "time")

    def _count(self, standing: Standing) -> None:
        assert standing.authentication is not None
        standing.tries += 1
        counter = f"{standing.tries:02d}"
        standing.authentication = msgspec.structs.replace(standing.authentication, interactionCounter=counter)

    def _by_id(self, trans_id: str) -> tuple[Standing, Authentication] | None:
        standing = self._standings.get(self._references.get(trans_id, ""))
        return None if standing is None or standing.authentication is None else (standing, standing.authentication)

    def _begin(self, what: What, reference: str, request: AuthenticationRequest | None = None) -> tuple[Standing, Call]:
        standing = self._standings.get(reference)
        if standing is None:
            standing = self._standings[reference] = Standing(Record())
        if request is not None and standing.authentication is None:
            standing.record.merchant_id, standing.record.order_id = request.merchantID, request.orderID
        attempt = standing.calls[what] = standing.calls.get(what, 0) + 1
        call = self._intake.begin(
            "authenticate",
            reference,
            attempt,
            key=keyed(what, reference),
            record=standing.record,
            amount=request.amount if request else standing.authentication.amount if standing.authentication else None,
            request=request,
        )
        return standing, call

    def _fingerprint(self, number: str) -> int:
        """Tells one card from another without keeping its number: 64 bits of a hash under the run's seed."""
        return self._world.draws.draw("card", "fingerprint", number, 1).identity

    def _value(self, reference: str) -> str:
        """The CAVV that an authentication has or would have had: 20 bytes in base64."""
        draw = self._world.draws.draw("card", "authenticate", keyed("value", reference), 1)
        return base64.b64encode(_CAVV.pack(draw.identity, draw.numbers, draw.outcome >> 32)).decode()
