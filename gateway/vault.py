"""Where card numbers and secrets are. AES-256-GCM under a key that is not in the database.

The key comes from the environment (PAYDROME_VAULT_KEY, 64 hex digits) or from a key file, made with mode 0600 at first start. One
key per purpose is derived from it (HKDF-SHA256): sealing cards, sealing other secrets, tokens, fingerprints of request bodies.
"""

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.core.errors import VaultError
from gateway.ports import Card

KEY_SIZE = 32
NONCE_SIZE = 12  # NIST SP 800-38D: 96 bits; random, so at most 2**32 cards under one key
ENVIRONMENT_KEY = "PAYDROME_VAULT_KEY"


class Vault:
    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(_derive(key, b"seal"))
        self._secrets = AESGCM(_derive(key, b"secret"))
        self._token_key = _derive(key, b"token")
        self._fingerprint_key = _derive(key, b"fingerprint")
        self.key_id = hashlib.sha256(_derive(key, b"id")).hexdigest()[:16]
        """Tells keys apart without telling anything about them."""

    def seal(self, *, merchant_id: str, number: str, now_ms: int) -> Card:
        """The card as it may be stored. Its token is a keyed hash, so that a merchant's same card is stored once."""
        digest = hashlib.blake2b(f"{merchant_id}\0{number}".encode(), key=self._token_key, digest_size=16)
        token = "card_" + digest.hexdigest()
        nonce = os.urandom(NONCE_SIZE)
        sealed = nonce + self._aead.encrypt(nonce, number.encode(), token.encode())
        return Card(token, merchant_id, sealed, now_ms)

    def open(self, card: Card) -> str:
        """The number. Raises VaultError if the record was sealed under another key, or tampered with."""
        nonce, ciphertext = card.sealed[:NONCE_SIZE], card.sealed[NONCE_SIZE:]
        try:
            return self._aead.decrypt(nonce, ciphertext, card.token.encode()).decode()
        except InvalidTag as error:
            raise VaultError(f"{card.token} was not sealed under this key") from error

    def seal_secret(self, secret: bytes, *, owner: str) -> bytes:
        """What may be stored: nonce and ciphertext, which open only together with their owner's id."""
        nonce = os.urandom(NONCE_SIZE)
        return nonce + self._secrets.encrypt(nonce, secret, owner.encode())

    def open_secret(self, sealed: bytes, *, owner: str) -> bytes:
        """Raises VaultError if it was sealed under another key, for another owner, or tampered with."""
        try:
            return self._secrets.decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], owner.encode())
        except (InvalidTag, ValueError) as error:  # the second where there is not even a nonce
            raise VaultError(f"a secret of {owner} was not sealed under this key") from error

    def fingerprint(self, body: bytes) -> bytes:
        """A keyed hash: bodies hold card numbers, and a plain hash of those could be searched."""
        return hashlib.blake2b(body, key=self._fingerprint_key, digest_size=16).digest()


def load_key(key_file: Path, *, may_make: bool) -> bytes:
    """The vault's key: from the environment, else from the file, which is made if it is missing and `may_make`. Raises VaultError."""
    text = os.environ.get(ENVIRONMENT_KEY)
    source = ENVIRONMENT_KEY
    if text is None:
        source = str(key_file)
        try:
            text = _read_or_make(key_file, may_make)
        except FileNotFoundError as error:
            raise VaultError(f"{key_file}: missing, and the database was made with a vault key; put the key back") from error
        except OSError as error:
            raise VaultError(f"{key_file}: the vault's key cannot be read or made: {error.strerror}") from error
    try:
        key = bytes.fromhex(text.strip())
    except ValueError as error:
        raise VaultError(f"{source}: the vault's key must be {2 * KEY_SIZE} hex digits") from error
    if len(key) != KEY_SIZE:
        raise VaultError(f"{source}: the vault's key must be {2 * KEY_SIZE} hex digits, not {2 * len(key)}")
    return key


def _read_or_make(path: Path, may_make: bool) -> str:
    try:
        return path.read_bytes().decode("ascii", "replace")
    except FileNotFoundError:
        if not may_make:
            raise
    path.parent.mkdir(parents=True, exist_ok=True)
    text = os.urandom(KEY_SIZE).hex()
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")  # under its own name a key file is always whole
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(unfinished, path)  # fails if somebody else made one meanwhile
    finally:
        unfinished.unlink()
    return text


def _derive(key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_SIZE, salt=None, info=b"paydrome vault " + purpose).derive(key)
