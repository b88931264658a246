"""Answers messages by the card acquirer: the same charges, faults and latencies that its HTTP API has."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

from simulators.intake import Answer
from simulators.iso8583 import messages
from simulators.iso8583.codec import BadFrame, Fields, FormatError, decode, encode, frame_of
from simulators.iso8583.messages import ChargeAnswer, Declined, Following, Network, Purchase
from simulators.provider import Provider
from simulators.providers.card import Card, CreateCharge

Damage = Literal["none", "drip", "truncated", "reset"]

# A completion by 37 and 38 follows within days, not after this many other approvals; 90 names any original. 15 MB.
ORIGINALS_MAX = 50_000
CVV_UNKNOWN = "000"  # the version of 1987 has no field for it; the acquirer decides without
OTHER_CHARACTERS = "cp500"  # EBCDIC, which hosts on mainframes speak


class Reply(NamedTuple):
    """What is sent back, and how. `frame` is `None` where nothing comes back."""

    frame: bytes | None
    delay_ms: int = 0
    damage: Damage = "none"
    over_ms: int = 0  # of a drip: from the first byte to the last


class Host:
    """The acquirer's side of ISO 8583. `originals_max`: see `ORIGINALS_MAX`."""

    def __init__(self, acquirer: Provider[CreateCharge], *, originals_max: int = ORIGINALS_MAX) -> None:
        self._acquirer = acquirer
        self._originals_max = originals_max
        self._originals: dict[str, str] = {}  # references by RRN and authorization code
        acquirer.intake.world.remember(self, "_originals")
        self._read = msgspec.json.Decoder(ChargeAnswer).decode

    def answer(self, frame: bytes) -> Reply:
        """The reply to one message. Raises BadFrame where there is none to give."""
        try:
            return self._handle(_answerable(decode(frame)))
        except FormatError as error:
            return Reply(encode(messages.format_error(_answerable(error.fields), error.field)))

    def _handle(self, fields: Fields) -> Reply:
        try:
            match fields["t"]:
                case "0100" | "0101":
                    return self._purchase(fields, "manual")
                case "0200" | "0201" if fields.get("3", "").startswith(messages.REFUND):
                    return self._refund(fields)
                case "0200" | "0201":
                    return self._purchase(fields, "automatic")
                case "0220" | "0221":
                    return self._complete(fields)
                case "0400" | "0401" | "0420" | "0421":
                    return self._reverse(fields)
                case "0800" | "0801":
                    return _manage(fields)
                case _:
                    raise FormatError(fields, "t")
        except Declined as declined:
            return Reply(encode(messages.response(fields, declined.code)))

    def _purchase(self, fields: Fields, capture: Literal["automatic", "manual"]) -> Reply:
        purchase = messages.read(fields, Purchase)
        request = CreateCharge(
            reference=purchase.reference,
            amount=purchase.amount,
            currency=purchase.currency,
            merchantID=purchase.merchant.strip(),
            card=Card(purchase.pan, purchase.expiry[2:], purchase.expiry[:2], CVV_UNKNOWN),
            capture=capture,
        )

        def code_of(charge: ChargeAnswer) -> str:
            self._remember(purchase.reference, charge)
            return messages.purchase_code(charge, manual=capture == "manual")

        return self._reply(fields, self._acquirer.create(request, ""), code_of)

    def _refund(self, fields: Fields) -> Reply:
        refund = messages.read(fields, Following)
        answer = self._acquirer.refunds.create(self._original(refund), refund.reference, refund.amount, refund.currency)
        return self._reply(fields, answer, messages.refund_code)

    def _complete(self, fields: Fields) -> Reply:
        completion = messages.read(fields, Following)
        original = self._original(completion)
        # An authorization of 1987 has one completion: what it does not take is released.
        answer = self._acquirer.capture(original, completion.reference, completion.amount, completion.currency, final=True)
        return self._reply(fields, answer, messages.completion_code)

    def _reverse(self, fields: Fields) -> Reply:
        reversal = messages.read(fields, Following)
        answer = self._acquirer.reverse(self._original(reversal), reversal.amount, reversal.currency)
        return self._reply(fields, answer, messages.reversal_code)

    def _remember(self, reference: str, charge: ChargeAnswer) -> None:
        if charge.rrn is None or charge.authorizationCode is None:
            return
        self._originals[charge.rrn + charge.authorizationCode] = reference
        if len(self._originals) > self._originals_max:
            del self._originals[next(iter(self._originals))]

    def _original(self, message: Following) -> str:
        """The reference of the original. Raises Declined if there is none."""
        reference = message.original_reference or self._originals.get(message.approval)
        if reference is None:
            raise Declined(messages.NO_SUCH_RECORD)
        return reference

    def _reply(self, fields: Fields, answer: Answer, code_of: Callable[[ChargeAnswer], str]) -> Reply:
        """The response with this answer in it, or whatever the injected fault makes of it."""
        fault = answer.fault
        if fault is not None and fault.kind in ("reset_before", "reset_after"):
            return Reply(None, answer.delay_ms, "reset")
        if fault is not None and (fault.kind == "response_lost" or (fault.acts and fault.http_status)):
            return Reply(None)  # a code would tell that nothing was done
        if fault is not None and fault.http_status:
            code = messages.failure_code(fault.http_status)
            return Reply(encode(messages.response(fields, code)), answer.delay_ms)
        state = self._read(answer.body)
        sent = messages.response(fields, code_of(state))
        if state.rrn is not None and state.authorizationCode is not None:
            sent |= {"37": state.rrn, "38": state.authorizationCode}
        return _sent(sent, answer)


def _answerable(fields: Fields) -> Fields:
    if not messages.answerable(fields["t"]):
        raise BadFrame(f"a message of type {fields['t']} cannot be answered")
    return fields


def _manage(fields: Fields) -> Reply:
    """Signs on or off, or echoes. Nobody needs to be signed on, and every connection may ask."""
    network = messages.read(fields, Network)
    known = network.code in (messages.SIGN_ON, messages.SIGN_OFF, messages.ECHO)
    return Reply(encode(messages.response(fields, messages.APPROVED if known else messages.NOT_SUPPORTED)))


def _sent(fields: Fields, answer: Answer) -> Reply:
    fault = answer.fault
    kind = fault.kind if fault is not None else None
    if kind == "wrong_amount" and "4" in fields:
        fields = {**fields, "4": f"{(int(fields['4']) + 1) % 10**12:012d}"}
    frame = encode(fields)
    if kind == "garbage":
        frame = frame_of(frame[2:6] + b"\xff" * (len(frame) - 6))
    elif kind == "wrong_content_type":
        frame = frame_of(frame[2:].decode("ascii").encode(OTHER_CHARACTERS))
    elif kind == "truncated":
        return Reply(frame, answer.delay_ms, "truncated")
    elif fault is not None and kind == "drip":
        return Reply(frame, answer.delay_ms, "drip", fault.over_ms)
    return Reply(frame, answer.delay_ms)
