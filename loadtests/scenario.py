"""A scenario: what traffic is offered, how the outside world behaves, and what must be reached. Read from TOML (or JSON).

`load("baseline")` reads a shipped scenario, `load("my/own.toml")` a file. What cannot be meant is refused with file, key and
reason before anything is started. A struct mirrors a table of the file; rates and durations are written with their unit and are
read through properties that carry it in their names. The timeline, on which fault windows lie, starts with the warm-up.
"""

import math
import re
from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated

import msgspec

from loadtests.arrivals import Arrivals
from loadtests.journeys import JOURNEYS
from simulators import config, hints, samples
from simulators.config import Phase, Simulators
from simulators.durations import Duration
from simulators.faults import Fault

RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)/(s|min)")
NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,64}")  # it becomes part of a folder's name
RATE_PER_S_MAX = 5_000  # what one Locust process sends when it has a core of its own
REQUESTS_MAX = 5_000_000  # some 40 bytes of samples each: more than this is a slip of the unit, or wants several machines
TOLERANCE = 1e-9  # sums of decimal fractions are off by less

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
BasisPoints = Annotated[int, msgspec.Meta(ge=0, le=10_000)]


class ScenarioError(config.ConfigError):
    """A scenario that cannot be used: `file`, `key` (dotted path, may be empty) and `reason`, and all three in its `str`."""


class Rate(str):
    """A rate as written, such as `"10500/min"` or `"175/s"`. Raises ValueError for anything else."""

    __slots__ = ("per_min",)
    per_min: float

    def __new__(cls, text: str) -> "Rate":
        match = RATE.fullmatch(text)
        if match is None:
            raise ValueError(f'{text!r} is not a rate; write "10500/min" or "175/s"')
        per_min = float(match[1]) * (60 if match[2] == "s" else 1)
        if not 0 < per_min <= RATE_PER_S_MAX * 60:
            raise ValueError(f"{text!r} must be above 0 and at most {RATE_PER_S_MAX}/s")
        self = super().__new__(cls, text)
        self.per_min = per_min
        return self

    @property
    def per_s(self) -> float:
        return self.per_min / 60


class Mix(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Share of each payment method; what is left out is 0, and all add up to 1."""

    card: Share = 0.0
    upi: Share = 0.0
    netbanking: Share = 0.0

    def __post_init__(self) -> None:
        total = math.fsum((self.card, self.upi, self.netbanking))
        if abs(total - 1) > TOLERANCE:
            raise ValueError(f"the shares must add up to 1, not {total:.12g}")


def _named(shares: Mapping[str, float]) -> None:
    """Raises ValueError for what is no journey, and for more than there can be."""
    for name in shares:
        if name not in JOURNEYS:
            near = hints.suggestion(name, JOURNEYS)
            raise ValueError(f"unknown journey `{name}`{near}; there are {', '.join(JOURNEYS)}")
    total = math.fsum(shares.values())
    if total > 1 + TOLERANCE:
        raise ValueError(f"the shares of all journeys must not exceed 1, and are {total:.12g}")


class Fees(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the gateway keeps of captures, in basis points (200 are 2%), by payment method."""

    card: BasisPoints = 0
    upi: BasisPoints = 0
    netbanking: BasisPoints = 0


class Traffic(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is offered, in an open loop: requests are sent when they are due, however slow the answers are."""

    rate: Rate
    duration: Duration  # the judged period, after the warm-up
    mix: Mix
    warm_up: Duration = Duration("0s")  # at the same rate, recorded but not judged
    arrivals: Arrivals = "poisson"
    duplicates: Share = 0.0  # share of requests that the client sends twice, with the same key and body
    journeys: dict[str, Share] = {}  # share of all payments that go on after they were paid, by the name of the journey

    def __post_init__(self) -> None:
        _named(self.journeys)
        if self.duration_s <= 0:
            raise ValueError("duration must be longer than 0")
        if self.warm_up_s > self.duration_s:
            raise ValueError(f"warm_up ({self.warm_up}) is longer than the judged duration ({self.duration})")
        requests = self.rate_per_s * self.total_s
        if not 1 <= requests <= REQUESTS_MAX:
            raise ValueError(f"{self.rate} for {self.total_s:g} s is {requests:.3g} requests; it must be 1 to {REQUESTS_MAX}")

    @property
    def rate_per_s(self) -> float:
        return self.rate.per_s

    @property
    def duration_s(self) -> float:
        return self.duration.s

    @property
    def warm_up_s(self) -> float:
        return self.warm_up.s

    @property
    def total_s(self) -> float:
        """Warm-up and judged period together."""
        return self.warm_up_s + self.duration_s


class Targets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What must be reached; a target that is left out is measured and not judged."""

    throughput: Rate | None = None  # successful answers in every sliding 60 s window; a shorter run cannot judge it
    latency_p99: Duration | None = None  # intended send to answer
    availability: Share | None = None
    success: Share | None = None  # payments that reach the outcome the issuer or bank decided

    @property
    def throughput_per_min(self) -> float | None:
        return self.throughput.per_min if self.throughput else None

    @property
    def latency_p99_ms(self) -> float | None:
        return self.latency_p99.ms if self.latency_p99 else None


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str  # left out in a file: the file's name
    description: str
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 1
    traffic: Traffic
    targets: Targets = Targets()
    fees: Fees = Fees()
    simulators: Simulators = Simulators()


def load(name_or_path: str) -> Scenario:
    """A shipped scenario by its name, or the file at a path (anything with a `/` or a suffix). Raises ScenarioError."""
    path = Path(name_or_path)
    if path.suffix or len(path.parts) != 1:
        return _read(path)
    files = _shipped_files()
    if name_or_path not in files:
        near = hints.suggestion(name_or_path, files)
        raise ScenarioError(
            name_or_path, "", f"not a shipped scenario{near}; shipped: {', '.join(files)}; or give a path to a file"
        )
    return _read(files[name_or_path])


def shipped() -> list[Scenario]:
    """All scenarios that come with the package, by name."""
    return [_read(file) for file in _shipped_files().values()]


def encode(scenario: Scenario) -> bytes:
    """JSON that `load` reads back into an equal scenario."""
    return msgspec.json.encode(scenario, enc_hook=str)  # Rate and Duration are text


def _shipped_files() -> dict[str, Traversable]:
    files = sorted(resources.files("scenarios").iterdir(), key=lambda file: file.name)
    return {Path(file.name).stem: file for file in files if file.name.endswith(".toml")}


def _read(file: Traversable) -> Scenario:
    where = str(file)
    suffix = Path(file.name).suffix
    if suffix not in (".toml", ".json"):
        raise ScenarioError(where, "", "the name must end in .toml or .json")
    decode = msgspec.toml.decode if suffix == ".toml" else msgspec.json.decode
    try:
        document = samples.embed(decode(file.read_bytes()), Path(where).parent)
    except OSError as error:
        raise ScenarioError(where, "", error.strerror or str(error)) from None
    except samples.SamplesError as error:
        raise ScenarioError(where, error.key, error.reason) from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ScenarioError(where, "", f"not valid {suffix[1:].upper()}: {error}") from None
    if isinstance(document, dict):
        document = {"name": Path(file.name).stem, **document}
    return _convert(document, where)


def _convert(document: object, file: str) -> Scenario:
    try:
        scenario = msgspec.convert(document, Scenario, dec_hook=_dec_hook)
    except msgspec.ValidationError as error:
        raise ScenarioError(file, *config.locate(error, Scenario)) from None
    _check_whole(scenario, file)
    return scenario


def _dec_hook(kind: type, value: object) -> object:
    if kind is not Rate:
        return config.dec_hook(kind, value)
    if not isinstance(value, str):
        raise ValueError('a rate is text with a unit, such as "10500/min"')  # noqa: TRY004 - msgspec adds the key to ValueErrors only
    return Rate(value)


def _check_whole(scenario: Scenario, file: str) -> None:
    """What no table can see alone, and the name, which may be the file's."""
    if not NAME.fullmatch(scenario.name):
        allowed = "1 to 64 of A-Z a-z 0-9 . _ - without a dot in front"
        raise ScenarioError(file, "name", f"{scenario.name!r} is not a name; use {allowed} (left out, it is the file's)")
    traffic, wanted = scenario.traffic, scenario.targets.throughput
    if wanted and wanted.per_min > traffic.rate.per_min:
        raise ScenarioError(file, "targets.throughput", f"{wanted} cannot be reached: traffic.rate offers only {traffic.rate}")
    world = scenario.simulators
    for provider, faults in {"card": world.card.faults, "upi": world.upi.faults, "bank": world.bank.faults}.items():
        for i, fault in enumerate(faults):
            _check_window(fault, traffic.total_s, file, f"simulators.{provider}.faults[{i}]")
    for i, phase in enumerate(world.phases):
        _check_window(phase, traffic.total_s, file, f"simulators.phases[{i}]")


def _check_window(what: Fault | Phase, total_s: float, file: str, key: str) -> None:
    run_end = f"the end of the run, which is {total_s:g}s (warm_up + duration) after its start"
    if what.start and what.start.s >= total_s:
        raise ScenarioError(file, f"{key}.from", f"{what.start} is not before {run_end}")
    if what.end and what.end.s > total_s:
        advice = "; leave it out for a fault that stays" if isinstance(what, Fault) else ""
        raise ScenarioError(file, f"{key}.until", f"{what.end} is after {run_end}{advice}")
