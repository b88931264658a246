"""Rules of the gateway that JSON Schema cannot say, for schemathesis: valid examples are made to keep them."""

from typing import Any

import schemathesis
from schemathesis.generation import GenerationMode

DAY = "2026-01-31"  # one that is over
CARD = {"number": "4111111111111111", "expiryYear": "2035"}  # Luhn, and not expired


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    query, path = case.query or {}, case.operation.path
    if path.startswith("/api/transactions") or path == "/api/webhooks/events":
        query.pop("cursor", None)  # none but our own
    if "from" in query and "to" in query:
        query |= {"from": "2026-11-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"}
    if "date" in query:
        query["date"] = DAY
    if isinstance(case.body, dict):
        case.body = _whole(case.body) | ({"date": DAY} if "date" in case.body else {})
        if isinstance(card := case.body.get("cardDetails"), dict):
            card |= CARD
        if "url" in case.body:
            case.body["url"] = "http://127.0.0.1:9/hooks"  # where webhooks may go


def _whole(value: Any) -> Any:
    """To JSON Schema 5.0 is an integer; to us money is written without a decimal point."""
    if isinstance(value, dict):
        return {name: _whole(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_whole(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
