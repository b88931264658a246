"""Opens the database file: one owner, one schema version, one vault key."""

import fcntl
import os
from pathlib import Path

import apsw

from gateway.core.errors import DatabaseLocked, SchemaTooNew, StoreError, VaultError

APPLICATION_ID = 0x50415944  # "PAYD": tells our files from other people's SQLite databases
BUSY_MS = 5_000  # for another program that holds a lock while we open the file
MIGRATIONS = (
    "0001.sql",
    "0002.sql",
    "0003_endpoints.sql",
    "0004_settlements.sql",
    "0005_reconciliation.sql",
    "0006_listing.sql",
    "0007_authentications.sql",
    "0008_disputes.sql",
)  # applied in order; PRAGMA user_version counts them


def lock(path: Path) -> int:
    """Takes the database for this process; returns the lock's descriptor. The kernel frees it when the process dies, however it dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock_path = path.with_name(path.name + ".lock")
    descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(descriptor, 20).decode(errors="replace").strip()
        os.close(descriptor)
        raise DatabaseLocked(
            f"{path}: another gateway (process {owner or 'unknown'}) uses this database; stop it, or choose another file with --db"
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def connect(path: Path, *, read_only: bool) -> apsw.Connection:
    """An autocommit connection. WAL: readers never wait for the writer. FULL: a commit has been fsynced when it returns."""
    uri = path.absolute().as_uri()
    flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    # No mutex: a connection is used by one thread at a time, which apsw checks.
    connection = apsw.Connection(uri, flags=flags | apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_NOMUTEX)
    connection.set_busy_timeout(BUSY_MS)
    if not read_only:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_autocheckpoint=4000")  # 16 MiB of log a checkpoint: a hot page is copied back less often
    connection.execute("PRAGMA cache_size=-32000")  # 32 MB: recent payments are read again within seconds
    return connection


def migrate(connection: apsw.Connection, path: Path) -> None:
    """Brings the schema up to date. Raises SchemaTooNew for a file of a newer gateway, StoreError for a file that is not ours."""
    version: int = connection.execute("PRAGMA user_version").get
    application_id: int = connection.execute("PRAGMA application_id").get
    tables: int = connection.execute("SELECT count(*) FROM sqlite_schema").get
    if application_id != APPLICATION_ID and tables:
        raise StoreError(f"{path}: this SQLite database is not paydrome's; choose another file with --db")
    if version > len(MIGRATIONS):
        raise SchemaTooNew(
            f"{path}: written by a newer paydrome (schema {version}, this one knows up to {len(MIGRATIONS)});"
            " upgrade paydrome, or choose another file with --db"
        )
    for number in range(version, len(MIGRATIONS)):
        sql = (Path(__file__).parent / MIGRATIONS[number]).read_text()
        connection.execute(
            f"BEGIN IMMEDIATE; {sql}; PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={number + 1}; COMMIT;"
        ).fetchall()  # to the end of the script, also where a statement of it has rows


def bind_vault_key(connection: apsw.Connection, key_id: str, path: Path) -> None:
    """The first key that opens a database is its key. Raises VaultError for another one: its card numbers could not be read back."""
    connection.execute("INSERT INTO meta VALUES ('vault_key_id', ?) ON CONFLICT DO NOTHING", (key_id,))
    stored = connection.execute("SELECT value FROM meta WHERE key='vault_key_id'").get
    if stored != key_id:
        raise VaultError(
            f"{path}: its card numbers are sealed under vault key {stored}, but the key given is {key_id};"
            " give the right key file, or choose another file with --db"
        )
