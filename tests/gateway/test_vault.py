import os
import stat
from pathlib import Path

import msgspec
import pytest

from gateway.core.errors import VaultError
from gateway.vault import ENVIRONMENT_KEY, Vault, load_key
from tests.gateway.doubles import NOW_MS, NUMBER

KEY = bytes(range(32))


@pytest.fixture(autouse=True)
def no_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_KEY, raising=False)


def test_a_sealed_number_is_unreadable_and_opens_again():
    vault = Vault(KEY)
    card = vault.seal(merchant_id="m", number=NUMBER, now_ms=NOW_MS)
    assert NUMBER.encode() not in card.sealed
    assert NUMBER not in card.token
    assert vault.open(card) == NUMBER


def test_a_card_has_one_token_per_merchant_and_never_the_same_ciphertext():
    vault = Vault(KEY)
    first, again = (vault.seal(merchant_id="m", number=NUMBER, now_ms=NOW_MS) for _ in range(2))
    elsewhere = vault.seal(merchant_id="n", number=NUMBER, now_ms=NOW_MS)
    assert first.token == again.token != elsewhere.token
    assert first.sealed != again.sealed


def test_a_secret_opens_for_its_owner_and_under_its_key_only():
    vault = Vault(KEY)
    sealed = vault.seal_secret(b"whsec_x", owner="ep_1")
    assert b"whsec_x" not in sealed
    assert vault.open_secret(sealed, owner="ep_1") == b"whsec_x"
    assert vault.seal_secret(b"whsec_x", owner="ep_1") != sealed
    for opener, owner, given in ((vault, "ep_2", sealed), (Vault(bytes(32)), "ep_1", sealed), (vault, "ep_1", b"")):
        with pytest.raises(VaultError, match=owner):
            opener.open_secret(given, owner=owner)


def test_another_key_opens_nothing_and_makes_other_tokens_and_fingerprints():
    mine, other = Vault(KEY), Vault(bytes(32))
    card = mine.seal(merchant_id="m", number=NUMBER, now_ms=NOW_MS)
    with pytest.raises(VaultError, match=card.token):
        other.open(card)
    assert other.seal(merchant_id="m", number=NUMBER, now_ms=NOW_MS).token != card.token
    assert mine.fingerprint(b"body") != other.fingerprint(b"body")
    assert mine.key_id != other.key_id


@pytest.mark.parametrize("position", [0, 12, -1])
def test_a_record_that_was_tampered_with_does_not_open(position: int):
    vault = Vault(KEY)
    card = vault.seal(merchant_id="m", number=NUMBER, now_ms=NOW_MS)
    sealed = bytearray(card.sealed)
    sealed[position] ^= 1
    with pytest.raises(VaultError):
        vault.open(msgspec.structs.replace(card, sealed=bytes(sealed)))
    with pytest.raises(VaultError):  # a ciphertext moved to another token's record
        vault.open(msgspec.structs.replace(card, token="card_" + "0" * 32))


def test_the_key_file_is_made_once_for_its_owner_alone(tmp_path: Path):
    path = tmp_path / "state" / "vault.key"
    umask = os.umask(0)
    try:
        key = load_key(path, may_make=True)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(key) == 32
    assert load_key(path, may_make=True) == key
    assert load_key(tmp_path / "another.key", may_make=True) != key


def test_the_environments_key_goes_first_and_makes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(ENVIRONMENT_KEY, KEY.hex())
    assert load_key(tmp_path / "vault.key", may_make=True) == KEY
    assert not (tmp_path / "vault.key").exists()


@pytest.mark.parametrize(
    ("text", "why"), [("", "not 0"), ("zz" * 32, "64 hex digits"), ("ab" * 31, "not 62"), ("ab" * 33, "not 66")]
)
def test_a_key_that_is_none_is_refused_by_file_without_printing_it(tmp_path: Path, text: str, why: str):
    path = tmp_path / "vault.key"
    path.write_text(text)
    with pytest.raises(VaultError, match=rf"vault\.key: .*{why}") as caught:
        load_key(path, may_make=True)
    assert not text or text not in str(caught.value)


def test_a_key_file_that_cannot_be_read_is_a_clear_error(tmp_path: Path):
    with pytest.raises(VaultError, match="cannot be read or made: Is a directory"):
        load_key(tmp_path, may_make=True)


def test_a_key_that_is_missing_is_not_replaced_where_a_database_needs_it(tmp_path: Path):
    with pytest.raises(VaultError, match="missing, and the database was made with a vault key"):
        load_key(tmp_path / "vault.key", may_make=False)
    assert list(tmp_path.iterdir()) == []


def test_a_key_file_of_other_bytes_is_refused_in_a_sentence(tmp_path: Path):
    (tmp_path / "vault.key").write_bytes(bytes(range(256)))
    with pytest.raises(VaultError, match="must be 64 hex digits"):
        load_key(tmp_path / "vault.key", may_make=True)
