"""What goes wrong, with which calls, and when: pure.

A fault applies to the calls of one operation, in a window of the timeline or always, and to those alone that match what it asks
for. The faults of one operation are mutually exclusive: one draw decides between those that apply and health, each with its own
probability; where they add up to more than 1, the first in the list win. What each kind looks like to a client is written down in
docs/faults.md; `answering.py`, `callbacks.py` and `ports.py` do it.
"""

import math
from typing import Annotated, Literal, NamedTuple, cast, get_args

import msgspec

from simulators.behaviour import fraction
from simulators.durations import Duration

CallOperation = Literal[
    "create",
    "increment",
    "capture",
    "reverse",
    "refund",
    "refund_status",
    "status",
    "dispute",
    "authenticate",
    "mandate",
    "payout",
]
Operation = Literal[CallOperation, "callback", "connect"]
CallKind = Literal[
    "reset_before",
    "reset_after",
    "response_lost",
    "late",
    "drip",
    "truncated",
    "garbage",
    "wrong_content_type",
    "rate_limited",
    "unavailable",
    "http_500",
    "http_502",
    "http_503",
    "http_504",
    "wrong_amount",
    "duplicate_charge",
    "stale_status",
]
CallbackKind = Literal[
    "lost", "late", "twice", "twice_at_once", "out_of_order", "bad_signature", "old_timestamp", "unknown_payment"
]
Kind = Literal[CallKind, CallbackKind, "connection_refused"]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z", description="1 to 64 of A-Z a-z 0-9 _ -")]

OPERATIONS: tuple[Operation, ...] = get_args(Operation)
CALLS: tuple[CallOperation, ...] = get_args(CallOperation)
# The operations whose answer has an `amount`.
AMOUNTS: tuple[Operation, ...] = tuple(operation for operation in CALLS if operation not in ("dispute", "mandate"))
CALLBACK: tuple[Operation, ...] = ("callback",)
CONNECT: tuple[Operation, ...] = ("connect",)  # before any call: whatever it is for, and whoever makes it


class Trait(NamedTuple):
    """What is so of every fault of a kind."""

    operations: tuple[Operation, ...]  # that it makes sense for
    acts: bool | None = True  # whether the provider acts before it goes wrong; None: as the fault's `acts` says
    needs: str = ""  # the parameter without which it means nothing
    takes: str = ""  # a parameter that it may have
    http_status: int | None = None


TRAITS: dict[Kind, Trait] = {
    "reset_before": Trait(CALLS, acts=False),
    "reset_after": Trait(CALLS),
    "response_lost": Trait(CALLS),
    "late": Trait(CALLS + CALLBACK, needs="delay"),
    "drip": Trait(CALLS, needs="over"),
    "truncated": Trait(CALLS),
    "garbage": Trait(CALLS),
    "wrong_content_type": Trait(CALLS),
    "rate_limited": Trait(CALLS, acts=False, takes="retry_after", http_status=429),
    "unavailable": Trait(CALLS, acts=False, http_status=503),
    "http_500": Trait(CALLS, acts=None, takes="acts", http_status=500),
    "http_502": Trait(CALLS, acts=None, takes="acts", http_status=502),
    "http_503": Trait(CALLS, acts=None, takes="acts", http_status=503),
    "http_504": Trait(CALLS, acts=None, takes="acts", http_status=504),
    "wrong_amount": Trait(AMOUNTS),
    "duplicate_charge": Trait(("create", "capture")),
    "stale_status": Trait(("status",)),
    "lost": Trait(CALLBACK),
    "twice": Trait(CALLBACK),
    "twice_at_once": Trait(CALLBACK),
    "out_of_order": Trait(CALLBACK),
    "bad_signature": Trait(CALLBACK),
    "old_timestamp": Trait(CALLBACK),
    "unknown_payment": Trait(CALLBACK),
    "connection_refused": Trait(CONNECT, acts=False),
}
PARAMETERS = ("delay", "over", "retry_after", "acts")
MATCHES = ("first", "merchant", "amount", "bin", "vpa")


class AmountRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Amounts from `min` to `max`, both included, in minor units."""

    min: int = 0
    max: int | None = None

    def __post_init__(self) -> None:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"max ({self.max}) is below min ({self.min})")


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Something that goes wrong with some of the calls of an operation.

    `first = 3` means the first three tries of *each reference*. A count over all calls would depend on their order and on how many
    there are at once, and no run could be repeated. A match (`merchant`, `amount`, `bin`, `vpa`) that the call does not carry does
    not apply.
    """

    kind: Kind
    probability: Probability = 1.0
    operation: Operation = cast("Operation", "")  # left out: create, or the one that the kind has if it has but one
    start: Duration | None = msgspec.field(default=None, name="from")  # on the timeline; None: from its zero
    end: Duration | None = msgspec.field(default=None, name="until")  # None: for good
    first: Annotated[int, msgspec.Meta(ge=1)] | None = None
    merchant: str | None = None
    amount: int | AmountRange | None = None
    bin: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,11}\Z", description="1 to 11 digits")] | None = (
        None  # what the card number starts with
    )
    vpa: str | None = None
    delay: Duration | None = None  # of `late`: beyond the latency
    over: Duration | None = None  # of `drip`: from the first byte to the last
    retry_after: Duration | None = None  # of `rate_limited`: sent in whole seconds, rounded up; None: no such header
    acts: bool | None = None  # of `http_5xx`: whether the provider acts before it fails; None: it does not
    name: Name | None = None

    def __post_init__(self) -> None:
        if self.end is not None and self.end.ms <= (self.start.ms if self.start else 0):
            raise ValueError(f"until ({self.end}) must come after from ({self.start or '0s'})")
        trait = TRAITS[self.kind]
        if not self.operation:
            only = trait.operations[0] if len(trait.operations) == 1 else "create"
            msgspec.structs.force_setattr(self, "operation", only)
        if self.operation not in trait.operations:
            raise ValueError(f"{self.kind} is no fault of {self.operation}; its operation can be {', '.join(trait.operations)}")
        if self.operation == "connect":
            self._check_asks_nothing()
        if self.operation not in ("create", "authenticate") and (self.bin is not None or self.vpa is not None):
            raise ValueError(f"only create and authenticate carry a card number or VPA: bin and vpa match no {self.operation}")
        for parameter in PARAMETERS:
            given = getattr(self, parameter) is not None
            if given and parameter not in (trait.needs, trait.takes):
                raise ValueError(f"{parameter} means nothing for {self.kind}; leave it out")
            if not given and parameter == trait.needs:
                raise ValueError(f'{self.kind} needs {parameter}, such as {parameter} = "3s"')

    def _check_asks_nothing(self) -> None:
        for asked in MATCHES:
            if getattr(self, asked) is not None:
                reason = "the connection is refused before any call is read, so only from and until can choose"
                raise ValueError(f"{asked} means nothing for {self.kind}: {reason}; leave it out")
        if self.probability != 1:
            raise ValueError(f"probability: while {self.kind} is active nobody can connect, so it is 1; leave it out")

    @property
    def windowed(self) -> bool:
        """Whether the fault waits for the timeline."""
        return self.start is not None or self.end is not None


class Call(msgspec.Struct, frozen=True, gc=False):
    """What faults may ask about a call; `None` where it does not carry such a thing."""

    operation: Operation
    attempt: int  # of this operation for this reference, from 1
    elapsed_ms: int | None = None  # from the timeline's zero, `None` before it is set
    merchant_id: str | None = None
    amount: int | None = None
    bin: str | None = None  # the card number, or as much of it as is known
    vpa: str | None = None


class Injected(msgspec.Struct, frozen=True, gc=False):
    """What goes wrong with one call.

    With `acts` false the provider must do nothing, and what it answers is not sent. `delay_ms` is for the provider to add to the
    latency. All else is done on the way out by `answering.perform`, except the provider's own bugs `duplicate_charge` and
    `stale_status`.
    """

    id: str  # provider.operation.name, or the index in the configured list where it has no name
    kind: str  # a Kind, or what the simulators do of themselves: "overloaded"
    acts: bool
    delay_ms: int = 0
    over_ms: int = 0
    http_status: int | None = None  # instead of the answer's
    retry_after_s: int | None = None


class Faults:
    """The faults of one provider. `phase` is the one they belong to, if any; it becomes part of their ids."""

    def __init__(self, provider: str, faults: tuple[Fault, ...], *, phase: str = "") -> None:
        self._by_operation: dict[str, list[tuple[Fault, Injected]]] = {}
        for index, fault in enumerate(faults):
            where = f"{provider}.{fault.operation}.{phase}." if phase else f"{provider}.{fault.operation}."
            self._by_operation.setdefault(fault.operation, []).append(
                (fault, injected(fault, where + (fault.name or str(index))))
            )
        self.operations = frozenset(self._by_operation)  # with any fault at all: for the others no Call needs to be made

    def of(self, operation: str) -> list[tuple[Fault, Injected]]:
        """The faults of an operation, in the order in which they are asked, each with what it does."""
        return self._by_operation.get(operation, [])

    def pick(self, call: Call, draw: int) -> Injected | None:
        """What goes wrong with this call. The same call and draw always meet the same."""
        share, threshold = fraction(draw), 0.0
        for fault, outcome in self._by_operation.get(call.operation, ()):
            if applies(fault, call):
                threshold += fault.probability
                if share < threshold:
                    return outcome
        return None


def injected(fault: Fault, fault_id: str) -> Injected:
    """What this fault does to a call that it befalls."""
    trait = TRAITS[fault.kind]
    return Injected(
        fault_id,
        fault.kind,
        acts=bool(fault.acts) if trait.acts is None else trait.acts,
        delay_ms=round(fault.delay.ms) if fault.delay else 0,
        over_ms=round(fault.over.ms) if fault.over else 0,
        http_status=trait.http_status,
        retry_after_s=math.ceil(fault.retry_after.s) if fault.retry_after else None,
    )


def applies(fault: Fault, call: Call) -> bool:
    """Whether the fault's window is open and the call is one that it asks for."""
    return (
        active(fault, call.elapsed_ms)
        and (fault.first is None or call.attempt <= fault.first)
        and (fault.merchant is None or call.merchant_id == fault.merchant)
        and (fault.amount is None or _within(fault.amount, call.amount))
        and (fault.bin is None or (call.bin is not None and call.bin.startswith(fault.bin)))
        and (fault.vpa is None or call.vpa == fault.vpa)
    )


def active(fault: Fault, elapsed_ms: int | None) -> bool:
    """Whether the fault's window (from inclusive, until exclusive) is open."""
    if not fault.windowed:
        return True
    if elapsed_ms is None:
        return False
    after_start = elapsed_ms >= (fault.start.ms if fault.start else 0)
    return after_start and (fault.end is None or elapsed_ms < fault.end.ms)


def _within(wanted: int | AmountRange, amount: int | None) -> bool:
    if amount is None:
        return False
    if isinstance(wanted, int):
        return amount == wanted
    return amount >= wanted.min and (wanted.max is None or amount <= wanted.max)
