"""The fate digest: one number that two runs share when each of their charges met the same fate.

It is the sum, modulo 2**128, of a blake2b hash of each charge, so it does not depend on the order in which they came. What is
hashed is what belongs to the charge and was drawn for it: provider, reference, providerID, response code, amount, currency,
RRN and authorization code, joined by NULs (what a charge does not have is empty). What its callers did with it afterwards, how
often they asked, what went wrong on the way and how long it took are not in it.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from hashlib import blake2b
from typing import Protocol

import msgspec

from simulators.charges import Charge

DIGEST_BYTES = 16
CHARGES_PER_STEP = 500  # 1 to 1.5 ms: others on the event loop have their turn after each


class Charging(Protocol):
    """What has charges: a provider."""

    @property
    def name(self) -> str: ...
    def charges(self) -> Iterator[Charge]: ...


class Fates(msgspec.Struct, frozen=True):
    """The digest of `charges` charges, in hex. `undecided` of them have no outcome yet; a later digest differs for them."""

    digest: str
    charges: int
    undecided: int


Steps = Generator[None, None, Fates]
Survey = Callable[[], Steps]


def survey(providers: Iterable[Charging]) -> Steps:
    """The fates of all charges there are, in steps."""
    total = count = undecided = 0
    for provider in providers:
        for charge in provider.charges():
            total += _hash(provider.name, charge)
            undecided += charge.status == "pending"
            count += 1
            if count % CHARGES_PER_STEP == 0:
                yield
    return Fates((total % 2 ** (8 * DIGEST_BYTES)).to_bytes(DIGEST_BYTES, "big").hex(), count, undecided)


def at_once(steps: Steps) -> Fates:
    """The end of a survey, for when nobody else wants a turn."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # typeshed does not say what it carries


def _hash(provider: str, charge: Charge) -> int:
    rrn, code = charge.rrn or "", charge.authorizationCode or ""
    drawn = f"{provider}\0{charge.reference}\0{charge.providerID}\0{charge.responseCode or ''}"
    fate = f"{drawn}\0{charge.amount}\0{charge.currency}\0{rrn}\0{code}"
    return int.from_bytes(blake2b(fate.encode(), digest_size=DIGEST_BYTES).digest(), "big")
