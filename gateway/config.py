"""Everything that can be set, in one frozen struct. Unknown keys are errors."""

import json
import re
import tomllib
from datetime import UTC, tzinfo
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta

from gateway.core import signature
from gateway.core.errors import ConfigError
from gateway.outbound import http_url_fault

Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$(?!\n)")]
RESERVED_IDS = frozenset({"system", "operator"})
Positive = Annotated[float, Meta(gt=0)]
# Scheme, host in lower case, and a port that is not the scheme's own: nothing after that, and no wildcards.
_ORIGIN = re.compile(r"https?://[a-z0-9.\[\]:-]{1,255}")

Count = Annotated[int, Meta(ge=1)]
Rate = Annotated[int, Meta(ge=1, le=60_000_000)]
Currency = Literal["AED", "EUR", "GBP", "INR", "JPY", "KWD", "SGD", "USD"]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ProviderConfig(Section, frozen=True, kw_only=True):
    """`url` is the provider's base, such as http://127.0.0.1:9000/card. `callback_secret` verifies its callbacks, if it sends any."""

    url: str
    callback_secret: str | None = None
    timeout_ms: Count = 1_500
    """The caller has 2 s (DOMAIN, targets). What is left pays for two commits and the way back."""
    connections_max: Count = 512
    """Bound of concurrent calls: 175 payments/s at 1.5 s each would need 263."""
    fee_basis_points: Annotated[int, Meta(ge=0, le=10_000)] = 0
    settlement_url: str | None = None
    """Where its settlement files are, such as http://127.0.0.1:9000/settlements/card; the day is added to the path."""
    settlement_currencies: list[Currency] = msgspec.field(default_factory=lambda: ["INR"])
    """The accounts that there is a camt.053 statement of; a CSV file has all currencies."""
    settlement_fee_basis_points: Annotated[int, Meta(ge=0, le=10_000)] | None = None
    """What the provider may keep of a charge. None: whatever its file says."""


class Providers(Section, frozen=True, kw_only=True):
    card: ProviderConfig
    upi: ProviderConfig
    netbanking: ProviderConfig


class PayoutAccount(Section, frozen=True, kw_only=True):
    """A merchant's bank account in India, by the rules of the bank that pays into it: 9 to 18 digits, and an IFSC."""

    account_number: Annotated[str, Meta(pattern=r"^[0-9]{9,18}$(?!\n)")]
    ifsc: Annotated[str, Meta(pattern=r"^[A-Z]{4}0[A-Z0-9]{6}$(?!\n)")]
    name: Annotated[str, Meta(min_length=1, max_length=100)]


class Merchant(Section, frozen=True, kw_only=True):
    """`timezone` is an IANA name: settlements are of the merchant's own days. Without a `payout_account` they are computed, not paid."""

    id: Id
    key: Annotated[str, Meta(min_length=8, max_length=128)]
    timezone: str = "UTC"
    payout_account: PayoutAccount | None = None
    requests_per_min: Rate | None = None
    """None: what `limits` has for every key."""


class Endpoint(Section, frozen=True, kw_only=True):
    """Where a merchant wants its webhooks."""

    id: Id
    merchant_id: Id = msgspec.field(name="merchantID")
    url: str
    secret: str


class Webhooks(Section, frozen=True, kw_only=True):
    timeout_ms: Count = 5_000
    concurrency_max: Count = 32
    """Per endpoint, and twice as many per merchant, so that slow receivers hold up nobody else."""
    tries_max: Count = 8
    """With a base of 2 s: the last try comes about four minutes after the first. Then it is a dead letter."""
    backoff_base_ms: Count = 2_000
    allowed_networks: list[str] = msgspec.field(default_factory=lambda: ["127.0.0.0/8", "::1/128"])
    """Where webhooks may go besides the public internet, in CIDR notation. The default suits a sandbox; in production, `[]`."""


class Recovery(Section, frozen=True, kw_only=True):
    """When providers are asked about what is not known. Bounded: inquiry storms have taken payment systems down."""

    interval_ms: Count = 250
    inquiries_per_tick_max: Count = 25
    """100 a second with the default interval, for each provider."""
    unknown_after_ms: Count = 500
    """First inquiry after an unknown outcome; each further one waits twice as long, up to `backoff_max_ms`."""
    pending_after_ms: Count = 15_000
    """First inquiry about a customer who has not acted and a provider that has not called back."""
    backoff_max_ms: Count = 60_000
    give_up_after_ms: Count = 24 * 3600 * 1000
    """An attempt of this age that also went unanswered `give_up_inquiries` times has to be looked at by a person: `manual_review`."""
    give_up_inquiries: Count = 10
    authentication_lifetime_ms: Count = 630_000
    """So long a customer may take to authenticate (3-D Secure); then the payment is `expired`. Issuers give them ten minutes, and should
    be the ones to end it."""
    authorization_lifetime_ms: Count = 6 * 24 * 3600 * 1000
    """After this an authorization is released: a day before acquirers let it go by themselves (7 days, as card networks have it)."""


class Settlement(Section, frozen=True, kw_only=True):
    """When merchants' days are settled."""

    automatic: bool = True
    """Each merchant's days, once they are over, those that were missed included. By hand it works in either case."""
    delay_ms: Annotated[int, Meta(ge=0)] = 10 * 60_000
    """After local midnight, so that what was under way then is booked. What comes later is in the next day's settlement."""
    early: bool = False
    """Whether today, too, may be settled by hand: up to that moment. For sandboxes, where nobody waits for midnight."""


class Limits(Section, frozen=True, kw_only=True):
    """What is answered 429 or 503 instead of being done: docs/limits.md."""

    requests_per_min_per_key: Rate = 60_000
    """Of each API key; `merchants` may set it for one. Far above what one process does: it is there for who has a loop that ran away."""
    requests_per_min_per_address: Rate = 100
    """Of requests without a valid key, such as those of who tries keys. Callbacks and health checks do not count."""
    in_flight_max: Count = 1_024
    """Requests under way. At 400 a second, which is what a busy machine does, one more would be answered after the callers' 2 s."""
    trusted_proxies: list[str] = []
    """Networks, in CIDR notation, of the proxies whose X-Forwarded-For is believed."""


SANDBOX_MERCHANT = Merchant(id="merchant_123", key="sk_test_merchant_123")
"""A fixed and documented test key, for sandboxes. Naming `merchants` in the configuration replaces it."""


class Config(Section, frozen=True, kw_only=True):
    public_url: str
    """Where providers reach this gateway with their callbacks."""
    db: str | None = None
    key_file: str | None = None
    providers: Providers
    merchants: list[Merchant] = msgspec.field(default_factory=lambda: [SANDBOX_MERCHANT])
    webhook_endpoints: list[Endpoint] = []
    webhooks: Webhooks = msgspec.field(default_factory=Webhooks)
    recovery: Recovery = msgspec.field(default_factory=Recovery)
    operator_key: Annotated[str, Meta(min_length=8, max_length=128)] | None = None
    """The operator's own API key: reconciliation runs, and breaks of all merchants. None: nobody may."""
    settlement: Settlement = msgspec.field(default_factory=Settlement)
    limits: Limits = msgspec.field(default_factory=Limits)
    cors_allowed_origins: list[str] = []
    """Origins, such as https://shop.example, whose pages may call this API from a browser."""


def load(path: Path) -> Config:
    """The configuration in a JSON or TOML file. Raises ConfigError that names the file, the key and the reason."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        raw = tomllib.loads(data.decode()) if path.suffix == ".toml" else json.loads(data)
        config = msgspec.convert(raw, Config)
        _check(config)
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return config


def _check(config: Config) -> None:
    urls = {"public_url": config.public_url}
    signers: dict[bytes, str] = {}
    for name in ("card", "upi", "netbanking"):
        provider: ProviderConfig = getattr(config.providers, name)
        urls[f"providers.{name}.url"] = provider.url
        if provider.settlement_url is not None:
            urls[f"providers.{name}.settlement_url"] = provider.settlement_url
        if provider.callback_secret is not None:
            key = f"providers.{name}.callback_secret"
            other = signers.setdefault(_check_secret(key, provider.callback_secret), name)
            if other != name:
                raise ValueError(f"{key}: must differ from that of {other}, or callbacks cannot be told apart")
    merchants = {merchant.id for merchant in config.merchants}
    if len(merchants) != len(config.merchants) or len({m.key for m in config.merchants}) != len(config.merchants):
        raise ValueError("merchants: ids and keys must be unique")
    if reserved := merchants & RESERVED_IDS:
        raise ValueError(f"merchants: the id {min(reserved)} is taken: breaks of reconciliation are resolved in that name")
    if config.operator_key in {merchant.key for merchant in config.merchants}:
        raise ValueError("operator_key: must differ from the merchants' keys")
    if len({endpoint.id for endpoint in config.webhook_endpoints}) != len(config.webhook_endpoints):
        raise ValueError("webhook_endpoints: ids must be unique")
    for merchant in config.merchants:
        try:
            time_zone(merchant.timezone)
        except ValueError as error:
            raise ValueError(f"merchants.{merchant.id}.timezone: {error}") from error
    for endpoint in config.webhook_endpoints:
        urls[f"webhook_endpoints.{endpoint.id}.url"] = endpoint.url
        _check_secret(f"webhook_endpoints.{endpoint.id}.secret", endpoint.secret)
        if endpoint.merchant_id not in merchants:
            raise ValueError(f"webhook_endpoints.{endpoint.id}.merchantID: no merchant {endpoint.merchant_id!r} is configured")
    for key, url in urls.items():
        if (fault := http_url_fault(url)) is not None:
            raise ValueError(f"{key}: {fault}, got {url!r}")
    networks = {"webhooks.allowed_networks": config.webhooks.allowed_networks}
    networks["limits.trusted_proxies"] = config.limits.trusted_proxies
    for key, named in networks.items():
        for network in named:
            try:
                ip_network(network)
            except ValueError as error:
                raise ValueError(f"{key}: {error}; expected networks such as 10.0.0.0/8") from error
    for origin in config.cors_allowed_origins:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"cors_allowed_origins: expected an origin as browsers send it, https://shop.example, got {origin!r}"
            )


def time_zone(name: str) -> tzinfo:
    """Raises ValueError that says what was expected."""
    if name == "UTC":  # known everywhere
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"no time zone {name!r} is known here; expected an IANA name such as Asia/Kolkata") from error


def _check_secret(key: str, secret: str) -> bytes:
    try:
        return signature.secret_key(secret)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
