"""What a run of the simulators is told: one frozen struct, read from JSON or TOML.

`load(path)` gives a `Config` or a `ConfigError` that names file, key and reason. `Simulators` is the part that a
scenario file contains; `Config` adds the seed and the secrets of one run. `encode` writes either back as JSON.
Durations are text with a unit (`"50ms"`, `"1.5s"`, `"2min"`), so that a number without a unit can never be read as the
wrong one.
"""

import base64
import binascii
import math
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar

import msgspec

from simulators import hints, samples
from simulators.capacity import Capacity
from simulators.durations import Duration
from simulators.faults import OPERATIONS, CallOperation, Fault, Name, Operation, Probability
from simulators.latency import Constant, Latency, Lognormal
from simulators.payouts import PAYOUT_CODES

# ISO 8583 field 39 (N7: CVC mismatch, as Visa returns it), the NPCI codes of UPI, and our own words for banks.
CARD_CODES = frozenset(
    "00 04 05 07 12 13 14 15 1A 41 43 51 54 55 57 59 61 62 65 68 75 91 92 94 96 N7".split()  # noqa: SIM905 - one line, not thirty
)
UPI_CODES = frozenset({"00", "RB", "U16", "U30", "U48", "U67", "U68", "U69", "XH", "Z6", "Z7", "Z8", "Z9", "ZA", "ZH", "ZM"})
AUTHENTICATION_STATUSES = frozenset("YNUACDR")  # transStatus, but for I: the merchant asks for that
BANK_CODES = frozenset({"00", "customer_cancelled", "insufficient_funds", "otp_failed"})
OUTCOME_TOLERANCE = 1e-9  # sums of decimal fractions are off by less

SECRET_PREFIX = "whsec_"  # noqa: S105 - the public prefix of the Standard Webhooks specification
SECRET_BYTES = range(24, 65)  # the same specification: 24 to 64 bytes

PROVIDERS = ("card", "upi", "bank")
Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]

T = TypeVar("T")


class ConfigError(Exception):
    """A configuration that cannot be used; says which file, which key, and why."""

    def __init__(self, file: str, key: str, reason: str) -> None:
        self.file, self.key, self.reason = file, key, reason
        super().__init__(f"{file}: {key}: {reason}" if key else f"{file}: {reason}")


class Customer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The simulated customer. With `acts = false` only a person decides, or time does."""

    acts: bool = True
    delay: Latency = Lognormal(Duration("1.5s"), Duration("6s"))  # from the provider's answer to the decision


class Nature(NamedTuple):
    """What is so of a provider whatever its settings: its outcome codes, its operations, and the match that only it can tell."""

    codes: frozenset[str]
    operations: tuple[Operation, ...]
    match: str = ""


PENDING_OPERATIONS: tuple[Operation, ...] = ("create", "reverse", "refund", "refund_status", "status", "callback", "connect")
CARD = Nature(CARD_CODES, tuple(operation for operation in OPERATIONS if operation not in ("mandate", "payout")), match="bin")
UPI = Nature(UPI_CODES, (*PENDING_OPERATIONS, "mandate"), match="vpa")
BANK = Nature(BANK_CODES, (*PENDING_OPERATIONS, "payout"))


def _check(settings: "Card | Upi | Bank | Changes", nature: Nature) -> None:
    if settings.outcomes is not None:
        _check_mix("outcomes", settings.outcomes, nature.codes)
    for table in ("latencies", "capacity"):
        for operation in getattr(settings, table) or ():
            _check_operation(operation, nature, table)
    names = set()
    for index, fault in enumerate(settings.faults or ()):
        _check_operation(fault.operation, nature, f"faults[{index}]")
        for match in ("bin", "vpa"):
            if getattr(fault, match) is not None and match != nature.match:
                raise ValueError(f"faults[{index}]: {match}: no call of this provider carries one")
        if fault.name and (fault.operation, fault.name) in names:
            raise ValueError(f"faults[{index}]: another fault of {fault.operation} is called {fault.name!r}")
        names.add((fault.operation, fault.name))


def _check_operation(operation: str, nature: Nature, where: str) -> None:
    if operation not in nature.operations:
        raise ValueError(f"{where}: this provider has no {operation}; it has {', '.join(nature.operations)}")


def _check_mix(name: str, mix: dict[str, float], codes: frozenset[str]) -> None:
    unknown = sorted(mix.keys() - codes)
    if unknown:
        raise ValueError(f"{name}: unknown code {unknown[0]!r}; known are {', '.join(sorted(codes))}")
    total = math.fsum(mix.values())
    if abs(total - 1) > OUTCOME_TOLERANCE:
        raise ValueError(f"{name} must add up to 1, not {total:.12g}")


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The card acquirer. `outcomes` maps response codes (ISO 8583 field 39) to probabilities."""

    latency: Latency = Lognormal(Duration("180ms"), Duration("800ms"))
    latencies: dict[CallOperation, Latency] = {}  # of single operations, instead of `latency`
    outcomes: dict[str, Probability] = msgspec.field(default_factory=lambda: {"00": 0.95, "05": 0.03, "51": 0.02})
    port: Port | None = None  # of its own, beside the one that all share; 0: any free one
    faults: tuple[Fault, ...] = ()
    capacity: dict[CallOperation, Capacity] = {}  # what is left out has no bound
    refund_delay: Latency | None = None  # None: a refund is complete when it is answered
    authorization_lifetime: Duration = Duration("7d")
    dispute_delay: Duration = Duration("2s")  # from the capture to the dispute, and from the evidence to the issuer's decision
    authentication: dict[str, Probability] = msgspec.field(default_factory=lambda: {"Y": 1.0})  # 3-D Secure: by transStatus
    customer: Customer = Customer()  # of challenges that are to be simulated, and of decoupled authentications
    challenge: Literal["person", "simulated"] = "person"  # who meets those that do not say so themselves

    def __post_init__(self) -> None:
        _check(self, CARD)
        _check_mix("authentication", self.authentication, AUTHENTICATION_STATUSES)


class Upi(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The UPI switch. `outcomes` is the mix of the customers' decisions (NPCI codes; U69: lets the request expire)."""

    latency: Latency = Lognormal(Duration("60ms"), Duration("250ms"))
    latencies: dict[CallOperation, Latency] = {}
    outcomes: dict[str, Probability] = msgspec.field(default_factory=lambda: {"00": 0.98, "ZA": 0.01, "Z9": 0.01})
    port: Port | None = None  # of its own, beside the one that all share; 0: any free one
    faults: tuple[Fault, ...] = ()
    capacity: dict[CallOperation, Capacity] = {}
    refund_delay: Latency | None = None
    customer: Customer = Customer()
    # Inquiries of one reference; beyond it 429. Who asks once a second for a minute is in a loop. None: no bound.
    inquiries_per_min: Annotated[int, msgspec.Meta(ge=1)] | None = 60

    def __post_init__(self) -> None:
        _check(self, UPI)


class Bank(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The banks of net banking. `outcomes` is the mix of the customers' decisions."""

    latency: Latency = Lognormal(Duration("60ms"), Duration("250ms"))
    latencies: dict[CallOperation, Latency] = {}
    outcomes: dict[str, Probability] = msgspec.field(
        default_factory=lambda: {"00": 0.97, "customer_cancelled": 0.02, "insufficient_funds": 0.01}
    )
    port: Port | None = None  # of its own, beside the one that all share; 0: any free one
    faults: tuple[Fault, ...] = ()
    capacity: dict[CallOperation, Capacity] = {}
    refund_delay: Latency | None = None
    customer: Customer = Customer()
    payouts: dict[str, Probability] = msgspec.field(default_factory=lambda: {"00": 1.0})  # what becomes of them, by code

    def __post_init__(self) -> None:
        _check(self, BANK)
        _check_mix("payouts", self.payouts, PAYOUT_CODES)


class Changes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """What a phase puts in the place of a provider's settings; what is left out stays as it is."""

    latency: Latency | None = None
    latencies: dict[CallOperation, Latency] | None = None
    outcomes: dict[str, Probability] | None = None
    faults: tuple[Fault, ...] | None = None
    capacity: dict[CallOperation, Capacity] | None = None


class CardChanges(Changes, frozen=True, forbid_unknown_fields=True):
    authentication: dict[str, Probability] | None = None

    def __post_init__(self) -> None:
        _check(self, CARD)
        if self.authentication is not None:
            _check_mix("authentication", self.authentication, AUTHENTICATION_STATUSES)


class UpiChanges(Changes, frozen=True, forbid_unknown_fields=True):
    def __post_init__(self) -> None:
        _check(self, UPI)


class BankChanges(Changes, frozen=True, forbid_unknown_fields=True):
    payouts: dict[str, Probability] | None = None

    def __post_init__(self) -> None:
        _check(self, BANK)
        if self.payouts is not None:
            _check_mix("payouts", self.payouts, PAYOUT_CODES)


class Phase(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A stretch of the timeline, from `from` until just before `until`, in which providers behave differently."""

    name: Name
    start: Duration = msgspec.field(name="from")
    end: Duration = msgspec.field(name="until")
    card: CardChanges = CardChanges()
    upi: UpiChanges = UpiChanges()
    bank: BankChanges = BankChanges()

    def __post_init__(self) -> None:
        if self.end.ms <= self.start.ms:
            raise ValueError(f"until ({self.end}) must come after from ({self.start})")
        for provider in PROVIDERS:
            for index, fault in enumerate(getattr(self, provider).faults or ()):
                if fault.windowed:
                    raise ValueError(
                        f"{provider}.faults[{index}]: a phase's fault has the phase's window; leave out from and until"
                    )


class Merchant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The merchant that receives webhooks; `latency` is how long it takes to answer one."""

    latency: Latency = Constant(Duration("0ms"))


class Simulators(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the outside world behaves: the part that a scenario contains."""

    card: Card = Card()
    upi: Upi = Upi()
    bank: Bank = Bank()
    merchant: Merchant = Merchant()
    phases: tuple[Phase, ...] = ()  # in any order; they may not overlap

    def __post_init__(self) -> None:
        names = [phase.name for phase in self.phases]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"phases: two are called {min(twice)!r}")
        for before, after in pairwise(sorted(self.phases, key=lambda phase: phase.start.ms)):
            if after.start.ms < before.end.ms:
                raise ValueError(f"phases: {after.name!r} starts ({after.start}) before {before.name!r} ends ({before.end})")
        _check_ports(self)


def ports_of(settings: Simulators) -> dict[str, int]:
    """The ports that providers have of their own, as configured."""
    return {provider: port for provider in PROVIDERS if (port := getattr(settings, provider).port) is not None}


def _check_ports(settings: Simulators) -> None:
    ports = ports_of(settings)
    for provider, port in ports.items():
        twins = [other for other, theirs in ports.items() if theirs == port]
        if port and len(twins) > 1:
            raise ValueError(f"{provider}.port: {' and '.join(twins)} cannot all have port {port}")
    sections: list[tuple[str, Simulators | Phase]] = [("", settings)]
    sections += [(f"phases[{index}].", phase) for index, phase in enumerate(settings.phases)]
    for where, section in sections:
        for provider in PROVIDERS:
            for index, fault in enumerate(getattr(section, provider).faults or ()):
                if fault.operation == "connect" and provider not in ports:
                    raise ValueError(
                        f"{where}{provider}.faults[{index}]: {fault.kind} closes the provider's own listening socket; "
                        f"give {provider} a port of its own: port = 9001 (a tenant can have none)"
                    )


class Secrets(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Signing secrets (`whsec_...`): of the UPI switch's and the banks' callbacks, and of the webhooks to the merchant.

    The acquirer's callbacks (refunds, disputes) are signed with `card`, and with `bank` where there is no `card`.
    """

    upi: str
    bank: str
    merchant: str
    card: str | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            secret = getattr(self, name)
            try:
                secret_key(secret if secret is not None else self.bank)
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
        document = samples.embed(decode(path.read_bytes()), path.parent)
    except OSError as error:
        raise ConfigError(file, "", error.strerror or str(error)) from None
    except samples.SamplesError as error:
        raise ConfigError(file, error.key, error.reason) from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ConfigError(file, "", f"not valid {path.suffix[1:].upper()}: {error}") from None
    return convert(document, Config, file=file)


def convert(document: object, kind: type[T], *, file: str) -> T:
    """A decoded document as a `kind`, strictly. `file` is only for the message of the ConfigError."""
    try:
        return msgspec.convert(document, kind, dec_hook=dec_hook)
    except msgspec.ValidationError as error:
        raise ConfigError(file, *locate(error, kind)) from None


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


def locate(error: msgspec.ValidationError, schema: type) -> tuple[str, str]:
    """Key path (`card.latency.p50`, empty for the top) and reason of a msgspec error about what should have been a `schema`."""
    reason, _, where = str(error).replace(" - at `key` in `$", " as a key - at `$").partition(" - at `$")
    key = where.rstrip("`").lstrip(".")
    return key, hints.helped(schema, key, reason)
