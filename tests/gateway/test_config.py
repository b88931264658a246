import json
from pathlib import Path
from typing import Any

import pytest

from gateway import config
from gateway.core.errors import ConfigError
from tests.gateway.doubles import secret

GOOD: dict[str, Any] = {
    "public_url": "http://127.0.0.1:1",
    "providers": {
        "card": {"url": "http://127.0.0.1:2/card"},
        "upi": {"url": "http://127.0.0.1:2/upi", "callback_secret": secret("upi")},
        "netbanking": {"url": "https://bank.example", "callback_secret": secret("bank")},
    },
    "merchants": [{"id": "m1", "key": "sk_test_m1"}, {"id": "m2", "key": "sk_test_m2"}],
    "webhook_endpoints": [{"id": "ep1", "merchantID": "m1", "url": "http://127.0.0.1:2/w", "secret": secret("m1")}],
}
SAME_SECRET = {"url": "http://x", "callback_secret": secret("same")}
ENDPOINT = GOOD["webhook_endpoints"][0]
MERCHANT = GOOD["merchants"][0]
ACCOUNT = {"account_number": "000123456789", "ifsc": "HDFC0000001", "name": "A. Payee"}


def load(tmp_path: Path, **changed: Any) -> config.Config:
    path = tmp_path / "gateway.json"
    path.write_text(json.dumps(GOOD | changed))
    return config.load(path)


def test_a_good_file_loads_with_the_documented_defaults(tmp_path: Path):
    loaded = load(tmp_path)
    assert loaded.providers.upi.callback_secret == secret("upi")
    assert loaded.providers.card.timeout_ms == 1_500
    assert (loaded.webhooks.tries_max, loaded.recovery.unknown_after_ms) == (8, 500)
    assert (loaded.merchants[0].timezone, loaded.merchants[0].payout_account, loaded.settlement.automatic) == (
        "UTC",
        None,
        True,
    )


def test_a_merchant_has_a_time_zone_and_an_account(tmp_path: Path):
    [made] = load(
        tmp_path, webhook_endpoints=[], merchants=[MERCHANT | {"timezone": "Asia/Kolkata", "payout_account": ACCOUNT}]
    ).merchants
    assert (made.timezone, str(config.time_zone(made.timezone))) == ("Asia/Kolkata", "Asia/Kolkata")
    assert made.payout_account == config.PayoutAccount(**ACCOUNT)


def test_without_merchants_there_is_the_sandbox_merchant(tmp_path: Path):
    path = tmp_path / "gateway.json"
    path.write_text(json.dumps({key: GOOD[key] for key in ("public_url", "providers")}))
    assert [(m.id, m.key) for m in config.load(path).merchants] == [("merchant_123", "sk_test_merchant_123")]


def test_toml_says_the_same(tmp_path: Path):
    path = tmp_path / "gateway.toml"
    lines = ['public_url = "http://127.0.0.1:1"']
    lines += [f'[providers.{name}]\nurl = "http://127.0.0.1:2/{name}"' for name in ("card", "upi", "netbanking")]
    path.write_text("\n".join(lines))
    assert config.load(path).providers.upi.url == "http://127.0.0.1:2/upi"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"colour": "blue"}, "unknown field `colour`"),
        ({"public_url": 5}, r"Expected `str`, got `int` - at `\$.public_url`"),
        (
            {"public_url": "ftp://x"},
            "public_url: expected an http:// or https:// URL with a host name that can exist, got 'ftp://x'",
        ),
        ({"providers": {}}, "missing required field `card`"),
        ({"providers": GOOD["providers"] | {"card": {"url": "card"}}}, "providers.card.url: expected an http"),
        ({"providers": GOOD["providers"] | {"upi": {"url": "http://x", "timeout_ms": 0}}}, r"\$.providers.upi.timeout_ms"),
        (
            {"providers": GOOD["providers"] | {"upi": {"url": "http://x", "callback_secret": "s"}}},
            "upi.callback_secret: .*whsec_",
        ),
        (
            {"providers": GOOD["providers"] | {"upi": SAME_SECRET, "netbanking": SAME_SECRET}},
            "netbanking.callback_secret: must differ from that of upi",
        ),
        (
            {"providers": GOOD["providers"] | {"card": SAME_SECRET, "netbanking": SAME_SECRET}},
            "netbanking.callback_secret: must differ from that of card",
        ),
        ({"limits": {"requests_per_min_per_key": 0}}, r"Expected `int` >= 1 - at `\$.limits.requests_per_min_per_key`"),
        ({"limits": {"trusted_proxies": ["10.0.0.1/8"]}}, "limits.trusted_proxies: .*expected networks such as 10.0.0.0/8"),
        ({"merchants": [MERCHANT | {"requests_per_min": "all"}]}, r"\$.merchants\[0\].requests_per_min"),
        ({"cors_allowed_origins": ["*"]}, "cors_allowed_origins: expected an origin as browsers send it, .*got '\\*'"),
        ({"cors_allowed_origins": ["https://shop.example/"]}, "got 'https://shop.example/'"),
        ({"public_url": "http://a..b/"}, "public_url: .*host name that can exist"),
        ({"public_url": "http://" + "a" * 64 + ".example"}, "public_url: .*host name that can exist"),
        ({"public_url": "http://a:0"}, "public_url: expected"),
        ({"public_url": "http://a:eighty"}, "public_url: expected"),
        ({"public_url": "http://[::1"}, "public_url: expected"),
        ({"merchants": [GOOD["merchants"][0]] * 2}, "merchants: ids and keys must be unique"),
        ({"merchants": [MERCHANT | {"id": "system"}]}, "merchants: the id system is taken"),
        ({"merchants": [MERCHANT | {"id": "operator"}]}, "merchants: the id operator is taken"),
        ({"operator_key": "sk_test_m1"}, "operator_key: must differ from the merchants' keys"),
        (
            {"providers": GOOD["providers"] | {"card": {"url": "http://x", "settlement_url": "ftp://x"}}},
            "providers.card.settlement_url: expected",
        ),
        ({"merchants": [{"id": "m 1", "key": "sk_test_m1"}]}, r"\$.merchants\[0\].id"),
        (
            {"merchants": [MERCHANT | {"timezone": "Mars/Olympus"}]},
            "merchants.m1.timezone: no time zone 'Mars/Olympus' is known here",
        ),
        ({"merchants": [MERCHANT | {"timezone": "../../etc/passwd"}]}, "merchants.m1.timezone: no time zone"),
        ({"merchants": [MERCHANT | {"timezone": "America"}]}, "merchants.m1.timezone: no time zone"),
        ({"merchants": [MERCHANT | {"payout_account": ACCOUNT | {"account_number": "12"}}]}, r"payout_account.account_number"),
        ({"merchants": [MERCHANT | {"payout_account": ACCOUNT | {"ifsc": "HDFC1"}}]}, r"payout_account.ifsc"),
        ({"settlement": {"delay_ms": -1}}, r"\$.settlement.delay_ms"),
        ({"webhook_endpoints": [ENDPOINT | {"merchantID": "nobody"}]}, "ep1.merchantID: no merchant 'nobody' is configured"),
        ({"webhook_endpoints": [ENDPOINT, ENDPOINT]}, "webhook_endpoints: ids must be unique"),
        ({"webhook_endpoints": [ENDPOINT | {"secret": "whsec_eA=="}]}, "ep1.secret: .*16 bytes"),
        ({"webhook_endpoints": [ENDPOINT | {"url": "http://"}]}, "ep1.url: expected an http"),
        ({"webhooks": {"allowed_networks": ["10.0.0.1/8"]}}, "webhooks.allowed_networks: 10.0.0.1/8 has host bits set"),
        ({"webhooks": {"allowed_networks": ["all"]}}, "webhooks.allowed_networks: 'all' .*expected networks such as 10"),
    ],
)
def test_a_bad_value_is_refused_with_file_key_and_reason(tmp_path: Path, changed: dict[str, Any], says: str):
    with pytest.raises(ConfigError, match=rf"gateway\.json: .*{says}"):
        load(tmp_path, **changed)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'"text"', b"[" * 100_000])
@pytest.mark.parametrize("suffix", ["json", "toml"])
def test_a_file_that_is_no_configuration_is_refused_by_name(tmp_path: Path, content: bytes, suffix: str):
    path = tmp_path / f"gateway.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"gateway\.{suffix}: "):
        config.load(path)


def test_a_missing_file_is_refused_by_name(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read: No such file"):
        config.load(tmp_path / "nowhere.toml")
