"""What the fields of a message mean, and which response answers it: pure.

A message is identified by its acquirer (32), terminal (41), STAN (11) and transmission time (7), never by the connection it came over.
From these the `reference` is made under which the acquirer knows the charge, capture or refund, so a repeat (MTI ending in 1) and
a repetition by mistake meet the same one. An original is named by data element 90, whose forwarder is not needed: the terminal is the
same as in the message that names it.
"""

import re
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from simulators.iso8583.codec import Fields, FormatError
from simulators.iso8583.currencies import ALPHABETIC

APPROVED = "00"
IN_PROGRESS = "09"
INVALID_TRANSACTION = "12"
INVALID_AMOUNT = "13"
NO_ACTION = "21"
NO_SUCH_RECORD = "25"
FORMAT_ERROR = "30"
NOT_SUPPORTED = "40"
INOPERATIVE = "91"
DUPLICATE = "94"
MALFUNCTION = "96"

SIGN_ON, SIGN_OFF, ECHO = "001", "002", "301"
PURCHASE, REFUND = "00", "20"  # the first two digits of the processing code

# Sent back as they came, so that the sender finds its message again. The card number is not sent back.
ECHOED = ("3", "4", "7", "11", "12", "13", "25", "32", "33", "37", "41", "42", "49", "70", "90")
ORIGINALS = ("0100", "0101", "0200", "0201")  # what data element 90 may name
RRN_LENGTH, CODE_LENGTH = 12, 6
# Version 1987; function 0 request or 2 advice; origin acquirer, issuer or other, first or repeat. All else wants no answer.
_ANSWERABLE = re.compile(r"0[1-8][02][0-5]")

_NAMED = re.compile(r"`(?:\$\.)?([0-9]+)`")  # the field in a message of msgspec

T = TypeVar("T")
Numeric6 = Annotated[str, Meta(pattern=r"^[0-9]{6}\Z")]


class Network(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """0800: network management."""

    transmitted: Annotated[str, Meta(pattern=r"^[0-9]{10}\Z")] = msgspec.field(name="7")  # MMDDhhmmss, UTC
    stan: Numeric6 = msgspec.field(name="11")
    code: Annotated[str, Meta(pattern=r"^[0-9]{3}\Z")] = msgspec.field(name="70")


class Financial(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What every message about money carries."""

    amount_text: Annotated[str, Meta(pattern=r"^[0-9]{12}\Z")] = msgspec.field(name="4")
    transmitted: Annotated[str, Meta(pattern=r"^[0-9]{10}\Z")] = msgspec.field(name="7")  # MMDDhhmmss, UTC
    stan: Numeric6 = msgspec.field(name="11")
    acquirer: Annotated[str, Meta(pattern=r"^[0-9]{1,11}\Z")] = msgspec.field(name="32")
    terminal: Annotated[str, Meta(pattern=r"^[ -~]{8}\Z")] = msgspec.field(name="41")
    currency_number: Annotated[str, Meta(pattern=r"^[0-9]{3}\Z")] = msgspec.field(name="49")

    @property
    def amount(self) -> int:
        """In minor units."""
        return int(self.amount_text)

    @property
    def currency(self) -> str:
        """Alphabetic ISO 4217. `read` has made sure that there is one."""
        return ALPHABETIC[self.currency_number]

    @property
    def reference(self) -> str:
        """What the acquirer knows this message's charge, capture or refund by."""
        return reference_of(self.acquirer, self.terminal, self.stan, self.transmitted)


class Purchase(Financial, frozen=True, gc=False, kw_only=True):
    """0100 and 0200 with processing code 00."""

    processing_code: Numeric6 = msgspec.field(name="3")
    pan: Annotated[str, Meta(pattern=r"^[0-9]{12,19}\Z")] = msgspec.field(name="2")
    expiry: Annotated[str, Meta(pattern=r"^[0-9]{2}(0[1-9]|1[0-2])\Z")] = msgspec.field(name="14")  # YYMM
    merchant: Annotated[str, Meta(pattern=r"^(?=.*[!-~])[ -~]{15}\Z")] = msgspec.field(name="42")

    def __repr__(self) -> str:
        return "Purchase(...)"  # card data must not reach a log by way of a repr


class Following(Financial, frozen=True, gc=False, kw_only=True):
    """0200 with processing code 20, 0220, 0400, 0420: what follows an original, named by 90 or else by 37 and 38."""

    original: Annotated[str, Meta(pattern=r"^[0-9]{42}\Z")] | None = msgspec.field(name="90", default=None)
    rrn: Annotated[str, Meta(pattern=r"^[ -~]{12}\Z")] | None = msgspec.field(name="37", default=None)
    authorization_code: Annotated[str, Meta(pattern=r"^[ -~]{6}\Z")] | None = msgspec.field(name="38", default=None)

    @property
    def approval(self) -> str:
        """RRN and authorization code, which name an approved original together."""
        return (self.rrn or "") + (self.authorization_code or "")

    @property
    def original_reference(self) -> str | None:
        """The reference of the original, where 90 names it."""
        if self.original is None:
            return None
        return reference_of(self.original[20:31], self.terminal, self.original[4:10], self.original[10:20])


class Declined(Exception):
    """The answer to a message is this response code, and the acquirer is not asked."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(f"declined with {code}")


class ChargeAnswer(msgspec.Struct, frozen=True, gc=False):
    """What a response needs of the body that the acquirer answers: a charge, a refund, or a refusal with its `code`."""

    code: str = ""
    status: str = ""
    responseCode: str | None = None
    amount: int | None = None
    authorizedAmount: int | None = None  # only of what a 0100 opened
    rrn: str | None = None
    authorizationCode: str | None = None


def reference_of(acquirer: str, terminal: str, stan: str, transmitted: str) -> str:
    """The reference `iso-{acquirer}-{terminal}-{stan}-{transmitted}`, at most 58 characters, different for different messages.

    The acquirer has no leading zeros (element 90 pads it with them), the terminal no trailing spaces; a character of the terminal
    that a reference cannot have stands as `_` and two hexadecimal digits.
    """
    name = "".join(sign if sign.isalnum() else f"_{ord(sign):02x}" for sign in terminal.rstrip(" "))
    return f"iso-{acquirer.lstrip('0') or '0'}-{name}-{stan}-{transmitted}"


def read(fields: Fields, kind: type[T]) -> T:
    """The fields as a `kind`. Raises FormatError with the field that is missing or has another form, and Declined."""
    try:
        message = msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise FormatError(fields, _NAMED.findall(str(error))[-1]) from None
    if isinstance(message, Financial):
        _check(fields, message)
    return message


def _check(fields: Fields, message: Financial) -> None:
    if message.currency_number not in ALPHABETIC:
        raise FormatError(fields, "49")
    if message.amount == 0:
        raise Declined(INVALID_AMOUNT)
    if isinstance(message, Purchase) and message.processing_code[:2] != PURCHASE:
        raise Declined(NOT_SUPPORTED)
    if isinstance(message, Following):
        if message.original is None and len(message.approval) != RRN_LENGTH + CODE_LENGTH:
            raise FormatError(fields, "90")
        if message.original is not None and message.original[:4] not in ORIGINALS:
            raise Declined(NOT_SUPPORTED)


def answerable(mti: str) -> bool:
    """Whether a message of this type wants a response, in the version of 1987."""
    return _ANSWERABLE.fullmatch(mti) is not None


def response(fields: Fields, code: str) -> Fields:
    """The response to a message: its type, what is echoed, and the response code."""
    echoed = {name: fields[name] for name in ECHOED if name in fields}
    return {**echoed, "t": response_type(fields["t"]), "39": code}


def response_type(mti: str) -> str:
    """0100 and 0101 are answered by 0110, 0420 and 0421 by 0430, and so on."""
    origin = int(mti[3])
    return f"{mti[:2]}{int(mti[2]) + 1}{origin - origin % 2}"


def format_error(fields: Fields, field: str) -> Fields:
    """The response to a message that cannot be understood; 44 says which field is to blame."""
    return {**response(fields, FORMAT_ERROR), "44": f"field {field}"}


def purchase_code(answer: ChargeAnswer, *, manual: bool) -> str:
    """Field 39 of a 0110 (`manual`) or 0210: the issuer's answer, but never an approval of what has been undone since, nor of a
    charge where an authorization was asked for, or the other way round."""
    match answer.status:
        case "approved" | "authorized" | "partially_captured":
            return APPROVED if manual == (answer.authorizedAmount is not None) else DUPLICATE
        case "declined":
            return answer.responseCode or INVALID_TRANSACTION
        case "pending":
            return IN_PROGRESS
        case "":
            return _refusal_code(answer.code)
        case _:  # reversed, expired
            return INVALID_TRANSACTION


def completion_code(answer: ChargeAnswer) -> str:
    """Field 39 of a 0230."""
    return APPROVED if answer.status else _refusal_code(answer.code)


def refund_code(answer: ChargeAnswer) -> str:
    """Field 39 of the 0210 to a refund; one that completes later is accepted now."""
    if not answer.status:
        return _refusal_code(answer.code)
    return APPROVED if answer.status != "failed" else answer.responseCode or INVALID_TRANSACTION


def reversal_code(answer: ChargeAnswer) -> str:
    """Field 39 of a 0410 or 0430."""
    if not answer.status:
        return INVALID_AMOUNT if answer.code == "reference_conflict" else NO_ACTION
    if answer.status != "reversed":
        return NO_ACTION  # declined or expired: nothing to undo
    # Reversed before anything was decided: the original never arrived. From now on it is blocked.
    return NO_SUCH_RECORD if answer.responseCode is None else APPROVED


def failure_code(http_status: int) -> str:
    """Field 39 for an acquirer that fails before it acts, the way its HTTP API would."""
    return MALFUNCTION if http_status == 500 else INOPERATIVE


def _refusal_code(code: str) -> str:
    """Field 39 for what the acquirer refuses by name; see docs/providers.md."""
    match code:
        case "not_found":
            return NO_SUCH_RECORD
        case "reference_conflict":
            return DUPLICATE
        case "refund_exceeds_captured" | "capture_exceeds_authorized":
            return INVALID_AMOUNT
        case _:
            return INVALID_TRANSACTION
