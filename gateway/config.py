"""Everything that can be set, in one frozen struct. Unknown keys are errors."""

import json
import tomllib
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from gateway.core import signature
from gateway.core.errors import ConfigError

Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$(?!\n)")]
Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]


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


class Providers(Section, frozen=True, kw_only=True):
    card: ProviderConfig
    upi: ProviderConfig
    netbanking: ProviderConfig


class Merchant(Section, frozen=True, kw_only=True):
    id: Id
    key: Annotated[str, Meta(min_length=8, max_length=128)]


class Endpoint(Section, frozen=True, kw_only=True):
    """Where a merchant wants its webhooks."""

    id: Id
    merchant_id: Id = msgspec.field(name="merchantID")
    url: str
    secret: str


class Webhooks(Section, frozen=True, kw_only=True):
    timeout_ms: Count = 5_000
    concurrency_max: Count = 32
    """Per endpoint, so that a slow receiver holds up nobody else."""
    tries_max: Count = 8
    """With a base of 2 s: the last try comes about four minutes after the first. Then it is a dead letter."""
    backoff_base_ms: Count = 2_000


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
    for name in ("card", "upi", "netbanking"):
        provider: ProviderConfig = getattr(config.providers, name)
        urls[f"providers.{name}.url"] = provider.url
        if provider.callback_secret is not None:
            _check_secret(f"providers.{name}.callback_secret", provider.callback_secret)
    merchants = {merchant.id for merchant in config.merchants}
    if len(merchants) != len(config.merchants) or len({m.key for m in config.merchants}) != len(config.merchants):
        raise ValueError("merchants: ids and keys must be unique")
    if len({endpoint.id for endpoint in config.webhook_endpoints}) != len(config.webhook_endpoints):
        raise ValueError("webhook_endpoints: ids must be unique")
    for endpoint in config.webhook_endpoints:
        urls[f"webhook_endpoints.{endpoint.id}.url"] = endpoint.url
        _check_secret(f"webhook_endpoints.{endpoint.id}.secret", endpoint.secret)
        if endpoint.merchant_id not in merchants:
            raise ValueError(f"webhook_endpoints.{endpoint.id}.merchantID: no merchant {endpoint.merchant_id!r} is configured")
    upi_secret = config.providers.upi.callback_secret
    if upi_secret is not None and upi_secret == config.providers.netbanking.callback_secret:
        raise ValueError(
            "providers.netbanking.callback_secret: must differ from that of upi, or callbacks cannot be told apart"
        )
    for key, url in urls.items():
        if not _is_http_url(url):
            raise ValueError(f"{key}: expected an http:// or https:// URL with a host name that can exist, got {url!r}")


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        host.encode("idna")  # labels of 1 to 63 characters: others fail only when somebody connects
        return parts.scheme in ("http", "https") and bool(host) and parts.port != 0
    except ValueError:
        return False


def _check_secret(key: str, secret: str) -> None:
    try:
        signature.secret_key(secret)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
