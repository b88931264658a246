"""The bank's payouts (docs/bank.md): how merchants get their money."""

import msgspec
from yarl import URL

from gateway.config import ProviderConfig
from gateway.core.outcome import Declined, NotFound, NotSent, Unknown
from gateway.core.settlement import Payout, PayoutStatus, PayoutTold
from gateway.outbound import open_session
from gateway.providers.calls import ABOUT_SOMETHING_ELSE, Answer, Code, ProviderId, call, done, error_code, read

# Up to this amount a payout goes by IMPS, which takes seconds: 500 000 rupees (RBI, Statement on Developmental and Regulatory Policies,
# 8 October 2021). More goes by RTGS, which starts at 200 000 and has no limit.
IMPS_MINOR_MAX = 500_000_00

CONNECTIONS_MAX = 8  # a payout for each merchant, once a day


class _Payout(msgspec.Struct, frozen=True, rename="camel"):
    """A payout as the bank answers it, or calls back about it."""

    reference: str
    provider_id: ProviderId = msgspec.field(name="providerID")
    status: PayoutStatus
    amount: int
    currency: str
    response_code: Code | None = None
    utr: ProviderId | None = None


_payouts = msgspec.json.Decoder(_Payout)
_encode = msgspec.json.Encoder().encode


def read_payout(body: bytes, payout: Payout) -> PayoutTold | Unknown:
    """What a payout in the bank's answer or callback says about ours."""
    told = read(_payouts, body)
    if isinstance(told, Unknown):
        return told
    if (told.reference, told.amount, told.currency) != (payout.reference, payout.amount_minor, payout.currency):
        return ABOUT_SOMETHING_ELSE
    return PayoutTold(status=told.status, provider_id=told.provider_id, response_code=told.response_code, utr=told.utr)


class HttpPayouts:
    """`Payouts` over HTTP. `close` it."""

    def __init__(self, bank: ProviderConfig, *, callback_url: str) -> None:
        self._payouts = URL(bank.url.rstrip("/") + "/payouts")
        self._callback_url = callback_url
        self._session = open_session(connections_max=CONNECTIONS_MAX)

    async def order(self, payout: Payout, *, deadline_s: float) -> PayoutTold | Declined | NotSent | Unknown:
        beneficiary = {
            "type": "account",
            "accountNumber": payout.payee.account_number,
            "ifsc": payout.payee.ifsc,
            "name": payout.payee.name,
        }
        body = _encode(
            {
                "reference": payout.reference,
                "amount": payout.amount_minor,
                "currency": payout.currency,
                "merchantID": payout.merchant_id,
                "mode": "IMPS" if payout.amount_minor <= IMPS_MINOR_MAX else "RTGS",
                "purpose": "settlement",
                "callbackURL": self._callback_url,
                "beneficiary": beneficiary,
            }
        )
        said = done(await call(self._session, "POST", self._payouts, body, deadline_s))
        return read_payout(said, payout) if isinstance(said, bytes) else said

    async def inquire(self, payout: Payout, *, deadline_s: float) -> PayoutTold | NotFound | NotSent | Unknown:
        answer = await call(self._session, "GET", self._payouts / payout.reference, None, deadline_s)
        if isinstance(answer, Answer) and answer.status == 404 and error_code(answer) == "not_found":
            return NotFound()
        said = done(answer)
        if isinstance(said, Declined):  # an inquiry that is refused says nothing about the payout
            return Unknown(f"the bank refused the inquiry: {said.reason}")
        return read_payout(said, payout) if isinstance(said, bytes) else said

    def read_callback(self, body: bytes, payout: Payout) -> PayoutTold | Unknown:
        return read_payout(body, payout)

    async def close(self) -> None:
        await self._session.close()
