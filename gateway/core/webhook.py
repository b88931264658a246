"""What becomes of a delivery after a try: pure.

2xx is success. 410 means that the endpoint is gone. Anything else, redirects included, is tried again after `2^n * base`, spread evenly
over its upper half so that failures do not come back together; 429 and 503 may ask for longer. After the last try it is a dead letter.
"""

from typing import Literal

import msgspec

RETRY_AFTER_S_MAX = 3600  # what a receiver may ask for; more would be a way to keep an outbox full

Fate = Literal["delivered", "retry", "dead", "gone"]


class Policy(msgspec.Struct, frozen=True):
    tries_max: int
    backoff_base_ms: int


def fate(*, status: int | None, tries: int, policy: Policy) -> Fate:
    """`tries` counts this one."""
    if status is not None and 200 <= status < 300:
        return "delivered"
    if status == 410:
        return "gone"
    return "retry" if tries < policy.tries_max else "dead"


def delay_ms(*, status: int | None, tries: int, retry_after_s: int | None, draw: float, policy: Policy) -> int:
    """How long to wait after the failed try number `tries`. `draw` is uniform in [0, 1)."""
    backoff: int = policy.backoff_base_ms * (1 << (tries - 1))
    spread = round(backoff * (0.5 + draw / 2))
    if status in (429, 503) and retry_after_s is not None:
        return max(spread, min(retry_after_s, RETRY_AFTER_S_MAX) * 1000)
    return spread
