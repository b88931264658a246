"""What can go wrong, by whose fault it is.

    GatewayError
    |-- CallerError          the request cannot be carried out as it stands; has an HTTP status, a code, and maybe a field
    |-- StoreError           ours: the database
    |   |-- DatabaseLocked   another gateway has this file open
    |   |-- SchemaTooNew     a newer gateway wrote this file
    |   `-- StoreFull        too many commits are waiting: shed the request
    |-- FileRefused          the provider's: its settlement file cannot be had, or contradicts itself
    |-- Overloaded           ours: too much is under way; the request was shed, and nothing has been done
    |-- VaultError           ours: the key file is missing, unreadable, or not the one that encrypted this database
    `-- ConfigError          ours: the configuration

A declined payment is a value (`outcome.Declined`), and so is an unknown outcome: neither is an exception.
"""

from typing import Literal

import msgspec

# What a msgspec decoder raises for bytes that cannot be read: bad text and bottomless nesting are not among its own errors.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class GatewayError(Exception):
    """Root of everything that the gateway raises on purpose."""


class CallerError(GatewayError):
    """The caller's fault. `status` is the HTTP status, `code` is for machines, `param` names the faulty field."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param


class StoreError(GatewayError):
    pass


class DatabaseLocked(StoreError):
    pass


class SchemaTooNew(StoreError):
    pass


class StoreFull(StoreError):
    pass


class FileRefused(GatewayError):
    pass


class Overloaded(GatewayError):
    """`bound` says which was reached: of the requests in flight, or of the calls to a provider."""

    def __init__(self, bound: Literal["in_flight", "provider"]) -> None:
        super().__init__(bound)
        self.bound = bound


class VaultError(GatewayError):
    pass


class ConfigError(GatewayError):
    pass


def invalid(param: str, message: str, code: str = "invalid_request") -> CallerError:
    return CallerError(400, code, f"{param}: {message}", param)


def not_found(what: str) -> CallerError:
    return CallerError(404, "not_found", f"no such {what}")
