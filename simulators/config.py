"""What a run of the simulators is told: one frozen struct, read from JSON or TOML.

`load(path)` gives a `Config` or a `ConfigError` that names file, key and reason. `Simulators` is the part that a
scenario file contains; `Config` adds the seed and the secrets of one run. `encode` writes either back as JSON.
Durations are text with a unit (`"50ms"`, `"1.5s"`, `"2min"`), so that a number without a unit can never be read as the
wrong one.
"""

import base64
import binascii
import math
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from simulators.durations import Duration
from simulators.faults import Fault, Probability
from simulators.latency import Constant, Latency, Lognormal

# ISO 8583 field 39 (N7: CVC mismatch, as Visa returns it), the NPCI codes of UPI, and our own words for banks.
CARD_CODES = frozenset(
    {
        "00",
        "04",
        "05",
        "07",
        "12",
        "13",
        "14",
        "15",
        "1A",
        "41",
        "43",
        "51",
        "54",
        "55",
        "57",
        "59",
        "61",
        "62",
        "65",
        "68",
        "75",
    }
    | {"91", "92", "94", "96", "N7"}
)
UPI_CODES = frozenset({"00", "U16", "U30", "U48", "U67", "U68", "U69", "XH", "Z6", "Z7", "Z8", "Z9", "ZA", "ZH", "ZM"})
BANK_CODES = frozenset({"00", "customer_cancelled", "insufficient_funds", "otp_failed"})
OUTCOME_TOLERANCE = 1e-9  # sums of decimal fractions are off by less

SECRET_PREFIX = "whsec_"  # noqa: S105 - the public prefix of the Standard Webhooks specification
SECRET_BYTES = range(24, 65)  # the same specification: 24 to 64 bytes

T = TypeVar("T")


class ConfigError(Exception):
    """A configuration that cannot be used; says which file, which key, and why."""

    def __init__(self, file: str, key: str, reason: str) -> None:
        self.file, self.key, self.reason = file, key, reason
        super().__init__(f"{file}: {key}: {reason}" if key else f"{file}: {reason}")


class Customer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The simulated customer of UPI and net banking. With `acts = false` only a person decides, or time does."""

    acts: bool = True
    delay: Latency = Lognormal(Duration("1.5s"), Duration("6s"))  # from the provider's answer to the decision


def _check_outcomes(outcomes: dict[str, float], codes: frozenset[str]) -> None:
    unknown = sorted(outcomes.keys() - codes)
    if unknown:
        raise ValueError(f"outcomes: unknown code {unknown[0]!r}; known are {', '.join(sorted(codes))}")
    total = math.fsum(outcomes.values())
    if abs(total - 1) > OUTCOME_TOLERANCE:
        raise ValueError(f"outcomes must add up to 1, not {total:.12g}")


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The card acquirer. `outcomes` maps response codes (ISO 8583 field 39) to probabilities."""

    latency: Latency = Lognormal(Duration("180ms"), Duration("800ms"))
    outcomes: dict[str, Probability] = msgspec.field(default_factory=lambda: {"00": 0.95, "05": 0.03, "51": 0.02})
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        _check_outcomes(self.outcomes, CARD_CODES)


class Upi(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The UPI switch. `outcomes` is the mix of the customers' decisions (NPCI codes; U69: lets the request expire)."""

    latency: Latency = Lognormal(Duration("60ms"), Duration("250ms"))
    outcomes: dict[str, Probability] = msgspec.field(default_factory=lambda: {"00": 0.98, "ZA": 0.01, "Z9": 0.01})
    faults: tuple[Fault, ...] = ()
    customer: Customer = Customer()

    def __post_init__(self) -> None:
        _check_outcomes(self.outcomes, UPI_CODES)


class Bank(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The banks of net banking. `outcomes` is the mix of the customers' decisions."""

    latency: Latency = Lognormal(Duration("60ms"), Duration("250ms"))
    outcomes: dict[str, Probability] = msgspec.field(
        default_factory=lambda: {"00": 0.97, "customer_cancelled": 0.02, "insufficient_funds": 0.01}
    )
    faults: tuple[Fault, ...] = ()
    customer: Customer = Customer()

    def __post_init__(self) -> None:
        _check_outcomes(self.outcomes, BANK_CODES)


class Merchant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The merchant that receives webhooks; `latency` is how long it takes to answer one."""

    latency: Latency = Constant(Duration("0ms"))


class Simulators(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the outside world behaves: the part that a scenario contains."""

    card: Card = Card()
    upi: Upi = Upi()
    bank: Bank = Bank()
    merchant: Merchant = Merchant()


class Secrets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Signing secrets (`whsec_...`): of the UPI switch's and the banks' callbacks, and of the webhooks to the merchant."""

    upi: str
    bank: str
    merchant: str

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            try:
                secret_key(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None

    def __repr__(self) -> str:
        return "Secrets(...)"  # a secret must not reach a log by way of a repr


class Config(Simulators, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run of the simulators."""

    secrets: Secrets
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 1


def secret_key(secret: str) -> bytes:
    """The HMAC key of a `whsec_...` secret: the bytes of its base64 part. The ValueErrors do not show the secret."""
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError(f"a secret starts with {SECRET_PREFIX!r}")
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"what follows {SECRET_PREFIX!r} must be base64") from None
    if len(key) not in SECRET_BYTES:
        raise ValueError(f"a secret has 24 to 64 bytes, this one has {len(key)}")
    return key


def load(path: Path) -> Config:
    """The configuration in a `.json` or `.toml` file. Raises ConfigError."""
    file = str(path)
    decode = {".json": msgspec.json.decode, ".toml": msgspec.toml.decode}.get(path.suffix)
    if decode is None:
        raise ConfigError(file, "", "the name must end in .json or .toml")
    try:
        document = decode(path.read_bytes())
    except OSError as error:
        raise ConfigError(file, "", error.strerror or str(error)) from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ConfigError(file, "", f"not valid {path.suffix[1:].upper()}: {error}") from None
    return convert(document, Config, file=file)


def convert(document: object, kind: type[T], *, file: str) -> T:
    """A decoded document as a `kind`, strictly. `file` is only for the message of the ConfigError."""
    try:
        return msgspec.convert(document, kind, dec_hook=dec_hook)
    except msgspec.ValidationError as error:
        raise ConfigError(file, *locate(error)) from None


def encode(config: Simulators) -> bytes:
    """JSON that `load` reads back into an equal value."""
    return msgspec.json.encode(config, enc_hook=str)  # the only type that JSON does not know is Duration


def dec_hook(kind: type, value: object) -> object:
    """Teaches msgspec to read a Duration; pass it as `dec_hook` to decode a struct that contains one."""
    if kind is not Duration:
        raise NotImplementedError(f"no decoder for {kind}")
    if not isinstance(value, str):
        raise ValueError('a duration is text with a unit, such as "250ms"')  # noqa: TRY004 - msgspec adds the key to ValueErrors only
    return Duration(value)


def locate(error: msgspec.ValidationError) -> tuple[str, str]:
    """Key path (`card.latency.p50`, empty for the top) and reason of a msgspec error."""
    reason, _, where = str(error).partition(" - at `$")
    return where.rstrip("`").lstrip("."), reason
