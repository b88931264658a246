"""How payments are wired to their providers, and how long things there take."""

import msgspec

from gateway.core.limits import Calls
from gateway.core.payment import Method
from gateway.ports import Provider

INTENT_GRACE_MS = 1_000  # beyond the call's own deadline, before recovery asks about an intent
OVERDUE_GRACE_MS = 30_000  # beyond the provider's own expiry, before we cancel the charge ourselves

# How long customers get. NPCI lets a collect request live 5 minutes by default; bank sessions end after a quarter of an hour.
LIFETIME_MS: dict[Method, int] = {"card": 60_000, "upi": 300_000, "netbanking": 900_000}

PROVIDER_NAMES: dict[str, Method] = {"card": "card", "upi": "upi", "bank": "netbanking"}  # as callbacks have them


class Channel(msgspec.Struct, frozen=True):
    """A payment method as it is wired: its provider, and what using it costs."""

    provider: Provider
    timeout_ms: int
    fee_basis_points: int
    calls: Calls
