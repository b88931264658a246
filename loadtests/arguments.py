"""Values on command lines, of `paydrome` and of the Locust file. Each raises ValueError with a sentence for the user."""

from urllib.parse import urlsplit

SEED_MAX = 2**63 - 1
PORT_MAX = 65_535


def seed(text: str) -> int:
    """A whole number from 0 to SEED_MAX."""
    return _whole_number(text, "seed", SEED_MAX)


def port(text: str) -> int:
    """A port to listen on; 0 stands for any free one."""
    return _whole_number(text, "port", PORT_MAX)


def base_url(text: str) -> str:
    """Where a gateway is, without a slash at the end; paths of the API are appended to it as they are."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not match, a port that is none
        usable = False
    if not usable or not text.isprintable() or " " in text:
        raise ValueError(f"{text!r} is not a URL such as http://127.0.0.1:8080")
    if "@" in parts.netloc or "?" in text or "#" in text:
        raise ValueError(f"{text!r} is not a base URL: leave out user, query and fragment, as in http://127.0.0.1:8080")
    return text.rstrip("/")


def _whole_number(text: str, what: str, largest: int) -> int:
    # The length comes first: Python refuses to convert thousands of digits.
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(largest)) and int(text) <= largest):
        raise ValueError(f"{text!r} is not a {what} (0 to {largest})")
    return int(text)
