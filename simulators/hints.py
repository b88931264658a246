"""What a user probably meant who wrote something that a struct does not know: pure."""

import difflib
import re
from collections.abc import Iterable

from msgspec import inspect

LISTED_MAX = 8  # so many choices are all named; of more only the nearest

_UNKNOWN_FIELD = re.compile(r"unknown field `(.*)`")
_UNKNOWN_VALUE = re.compile(r"Invalid (?:enum )?value '(.*)'")


def hint(schema: type, key: str, reason: str) -> str:
    """A half sentence to put behind msgspec's `reason` for refusing what stands at the dotted `key`; empty if it knows none."""
    types = _types_at(schema, key)
    if unknown := _UNKNOWN_FIELD.search(reason):
        fields = [field.encode_name for kind in types if isinstance(kind, inspect.StructType) for field in kind.fields]
        return suggestion(unknown[1], fields)
    choices = [str(value) for kind in types if isinstance(kind, inspect.LiteralType) for value in kind.values]
    if not choices:
        return ""
    if len(choices) <= LISTED_MAX:
        return f"; use {' or '.join(choices)}"
    unknown = _UNKNOWN_VALUE.search(reason)
    near = suggestion(unknown[1], choices) if unknown else ""
    return near or f"; known are {', '.join(choices)}"


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the x among `known` that is nearest to `word`, if any is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _types_at(schema: type, key: str) -> list[inspect.Type]:
    """The types that the schema allows at a dotted key path."""
    types: list[inspect.Type] = [inspect.type_info(schema)]
    for part in re.findall(r"[^.\[\]]+", key):
        structs = [kind for kind in types if isinstance(kind, inspect.StructType)]
        below = [field.type for kind in structs for field in kind.fields if field.encode_name == part]
        below += [inspect.LiteralType(tuple(kind.tag for kind in structs if kind.tag_field == part))] if not below else []
        below += [kind.item_type for kind in types if isinstance(kind, inspect.VarTupleType)]
        below += [kind.value_type for kind in types if isinstance(kind, inspect.DictType)]
        types = [one for kind in below for one in (kind.types if isinstance(kind, inspect.UnionType) else (kind,))]
    return types
