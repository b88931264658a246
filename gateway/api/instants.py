"""Moments in query strings: RFC 3339."""

import re
from datetime import UTC, datetime
from typing import Annotated

from msgspec import Meta

from gateway.core.errors import invalid

Instant = Annotated[
    str,
    Meta(
        max_length=40,
        description="RFC 3339 with an offset: 2026-01-31T00:00:00Z, or 2026-01-31T00:00:00%2B05:30 (a bare + in a URL means a space)",
        extra_json_schema={"format": "date-time"},
    ),
]

_RFC3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})")
_LOST_PLUS = re.compile(r" (?=[0-9]{2}:[0-9]{2}\Z)")  # what a bare + in a URL arrives as


def instant_ms(param: str, text: str) -> int:
    """Milliseconds since 1970; what is below a millisecond is dropped. Raises CallerError 400 that names `param`."""
    text = _LOST_PLUS.sub("+", text)
    if _RFC3339.fullmatch(text) is None:
        raise invalid(param, "not an RFC 3339 date and time with an offset, like 2026-01-31T00:00:00Z")
    try:
        moment = datetime.fromisoformat(text.upper()).astimezone(UTC)
        return int(moment.replace(microsecond=0).timestamp()) * 1000 + moment.microsecond // 1000
    except (ValueError, OverflowError) as error:
        raise invalid(param, f"no such date and time: {error}") from error
