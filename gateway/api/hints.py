"""What a caller should have sent, where a struct refuses a value: msgspec's reasons, said for who does not know msgspec. Pure."""

import difflib
import re
from collections.abc import Callable
from functools import cache

from msgspec import inspect

from gateway.api.glossary import GLOSSARY

WORD_LENGTH_MAX = 100  # of a name that is compared with the known ones; no slip is longer

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
}


def helped(kind: type, path: str, reason: str) -> str:
    """msgspec's `reason` for refusing what stands at the dotted `path` of a struct, in words."""
    for pattern, say in _REASONS:
        if found := pattern.fullmatch(reason):
            return say(found, kind, path)
    return reason


def _wrong_type(found: re.Match[str], _kind: type, _path: str) -> str:
    expected, got = ([_TYPES.get(name, name) for name in names.split(" | ")] for names in found.groups())
    return f"expected {' or '.join(expected)}, got {' or '.join(got)}"


def _missing(_found: re.Match[str], _kind: type, _path: str) -> str:
    return "required"


def _unknown_field(found: re.Match[str], kind: type, path: str) -> str:
    structs = [one for one in _types_at(kind, path.split(".")[:-1]) if isinstance(one, inspect.StructType)]
    known = [field.encode_name for struct in structs for field in struct.fields]
    near = difflib.get_close_matches(found[1], known, n=1) if len(found[1]) <= WORD_LENGTH_MAX else []
    return f"there is no such field; did you mean {near[0]}?" if near else "there is no such field"


def _unknown_value(found: re.Match[str], kind: type, path: str) -> str:
    known = [value for one in _types_at(kind, path.split(".")) if isinstance(one, inspect.LiteralType) for value in one.values]
    return f"{found[0]}; known are {', '.join(map(str, known))}" if known else found[0]


def _wrong_form(_found: re.Match[str], _kind: type, path: str) -> str:
    word = GLOSSARY.get(path.rpartition(".")[2])
    return "not of the right form" + (f", such as {word.example} is" if word is not None and word.example else "")


def _wrong_date(_found: re.Match[str], _kind: type, _path: str) -> str:
    return "expected a day, such as 2026-01-31"


_REASONS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], type, str], str]], ...] = (
    (re.compile(r"Expected `([a-z |]+)`, got `([a-z |]+)`"), _wrong_type),
    (re.compile(r"Object missing required field `.*`", re.DOTALL), _missing),
    (re.compile(r"Object contains unknown field `(.*)`", re.DOTALL), _unknown_field),
    (re.compile(r"Invalid enum value .*", re.DOTALL), _unknown_value),
    (re.compile(r"Expected `str` matching regex .*", re.DOTALL), _wrong_form),
    (re.compile(r"Invalid RFC3339 encoded date"), _wrong_date),
)


def _types_at(kind: type, path: list[str]) -> list[inspect.Type]:
    """The types that a struct allows at a path of fields."""
    types = _choices(_type_info(kind))
    for name in path:
        structs = [one for one in types if isinstance(one, inspect.StructType)]
        types = [
            one for struct in structs for field in struct.fields if field.encode_name == name for one in _choices(field.type)
        ]
    return types


def _choices(kind: inspect.Type) -> list[inspect.Type]:
    match kind:
        case inspect.Metadata():
            return _choices(kind.type)
        case inspect.UnionType():
            return [choice for one in kind.types for choice in _choices(one)]
        case _:
            return [kind]


_type_info = cache(inspect.type_info)  # of each request that there is
