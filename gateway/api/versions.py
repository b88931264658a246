"""The `Paydrome-Version` header: which version of this API a caller was written for. Answers say which one they follow.

A change that would break callers gets a new date here, as the last of VERSIONS, and the code that it changes asks `of(request)`; who
names an older date keeps the older behaviour. There was no such change so far.
"""

from aiohttp import web

from gateway.core.errors import invalid

HEADER = "Paydrome-Version"
VERSIONS = ("2026-11-23",)
NEWEST = VERSIONS[-1]


def of(request: web.Request) -> str:
    """The version that the caller names, or the newest. Raises CallerError 400."""
    named = request.headers.get(HEADER)
    if named is None:
        return NEWEST
    if named not in VERSIONS or len(request.headers.getall(HEADER)) > 1:
        raise invalid(HEADER, f"no such version; send one of {', '.join(VERSIONS)}, or leave it out", "unknown_version")
    return named
