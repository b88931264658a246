"""What a user should have written, or probably meant, where a struct refuses a value: pure."""

import difflib
import re
from collections.abc import Iterable
from functools import cache

from msgspec import inspect

LISTED_MAX = 8  # so many choices are all named; of more only the nearest
WORD_LENGTH_MAX = 100  # of a word that is compared with the known ones: a name of 256 kB takes 40 ms, and is no slip

_UNKNOWN_FIELD = re.compile(r"unknown field `(.*)`")
_UNKNOWN_VALUE = re.compile(r"Invalid (?:enum )?value '(.*)'")
_PATTERN = "Expected `str` matching regex "


def helped(schema: type, key: str, reason: str) -> str:
    """msgspec's `reason` for refusing what stands at the dotted `key`, with what helps. A pattern is said in words: those of its
    `Meta(description=...)`."""
    described = _types_at(schema, key)
    types = [_plain(kind) for kind in described]
    if reason.startswith(_PATTERN):
        words = (kind.extra_json_schema or {} for kind in described if isinstance(kind, inspect.Metadata))
        return next((f"must be {some['description']}" for some in words if "description" in some), reason)
    return reason + _hint(types, reason)


def _hint(types: list[inspect.Type], reason: str) -> str:
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
    near = difflib.get_close_matches(word, list(known), n=1) if len(word) <= WORD_LENGTH_MAX else []
    return f"; did you mean {near[0]!r}?" if near else ""


def _types_at(schema: type, key: str) -> list[inspect.Type]:
    """The types that the schema allows at a dotted key path; those with a description still in its `Metadata`."""
    types = [_type_info(schema)]
    for part in re.findall(r"\.\.\.|[^.\[\]]+", key):
        types = [_plain(kind) for kind in types]
        structs = [kind for kind in types if isinstance(kind, inspect.StructType)]
        below = [field.type for kind in structs for field in kind.fields if field.encode_name == part]
        below += [inspect.LiteralType(tuple(kind.tag for kind in structs if kind.tag_field == part))] if not below else []
        below += [kind.item_type for kind in types if isinstance(kind, (inspect.VarTupleType, inspect.ListType))]
        below += [kind.value_type for kind in types if isinstance(kind, inspect.DictType)]
        types = [one for kind in below for one in (kind.types if isinstance(kind, inspect.UnionType) else (kind,))]
    return types


_type_info = cache(inspect.type_info)  # of each schema that there is; 0.3 ms for that of a charge


def _plain(kind: inspect.Type) -> inspect.Type:
    return kind.type if isinstance(kind, inspect.Metadata) else kind
