"""JSON schemas (2020-12, as OpenAPI 3.1 has them) of the structs that decode requests and encode answers."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from gateway.api.glossary import GLOSSARY, INSTANT, MOMENT_NAME

Schema = dict[str, Any]

REF = "#/components/schemas/{name}"
NO_NUL = r"^[^\u0000]*$"  # what `wire.decode` refuses in every text


class Schemas:
    """`of` are schemas of the structs asked for, `components` what those refer to, and `queries` the parameters of structs that are read
    from a query string."""

    def __init__(
        self,
        *,
        taken: Sequence[type[msgspec.Struct]],
        queries: Sequence[type[msgspec.Struct]],
        given: Sequence[type[msgspec.Struct]],
    ) -> None:
        asked = list(dict.fromkeys((*taken, *queries, *given)))
        schemas, components = msgspec.json.schema_components(asked, ref_template=REF)
        self.of: dict[type, Schema] = dict(zip(asked, schemas, strict=True))
        inbound = _reachable([self.of[kind] for kind in (*taken, *queries)], components)
        self.components: dict[str, Schema] = {}
        for name, schema in components.items():
            portable = _portable(schema)
            self.components[name] = _explained(_without_nul(portable) if name in inbound else _left_out(portable))
        self.queries = {kind: _parameters(self.components.pop(_name(self.of[kind]))) for kind in dict.fromkeys(queries)}


def _name(schema: Schema) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def references(value: Any) -> set[str]:  # noqa: ANN401 - any JSON
    """The names of all components that it refers to directly."""
    if isinstance(value, dict):
        own = {value["$ref"].rpartition("/")[2]} if "$ref" in value else set()
        return own.union(*(references(one) for one in value.values()))
    return set().union(*(references(one) for one in value)) if isinstance(value, list) else set()


def _reachable(roots: Iterable[Schema], components: dict[str, Schema]) -> set[str]:
    found: set[str] = set()
    left = references(list(roots))
    while left:
        found |= left
        left = references([components[name] for name in left]) - found
    return found


def _portable(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """In JSON Schema, `$` is the end of the text; Python has to be told so. Docstrings are wrapped for the eye; here they are not."""
    if isinstance(value, list):
        return [_portable(one) for one in value]
    if not isinstance(value, dict):
        return value
    made = {name: _portable(one) for name, one in value.items()}
    if isinstance(pattern := made.get("pattern"), str):
        made["pattern"] = pattern.replace(r"(?!\n)", "").replace(r"\Z", "$")
    if isinstance(text := made.get("description"), str):
        made["description"] = re.sub(r"\s+", " ", text).strip()
    return made


def _without_nul(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Of requests: texts may hold anything but NUL, unless they say more."""
    if isinstance(value, list):
        return [_without_nul(one) for one in value]
    if not isinstance(value, dict):
        return value
    made = {name: _without_nul(one) for name, one in value.items()}
    if isinstance(names := made.get("propertyNames"), dict):
        names["pattern"] = NO_NUL
    if made.get("type") == "string" and not made.keys() & {"pattern", "format", "enum"}:
        made["pattern"] = NO_NUL
    return made


def _left_out(schema: Schema) -> Schema:
    """Of answers: a field whose default is null is left out, never null."""
    made = dict(schema)
    made["properties"] = {name: _never_null(one) for name, one in schema.get("properties", {}).items()}
    return made


def _never_null(schema: Schema) -> Schema:
    if schema.get("default", ...) is not None:
        return schema
    return _alone({name: one for name, one in schema.items() if name != "default"})


def _alone(schema: Schema) -> Schema:
    """The schema without the choice of null."""
    choices: list[Schema] = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(choices) != 1:
        return schema
    rest: Schema = {name: one for name, one in schema.items() if name != "anyOf"}
    return rest | choices[0]


def _explained(schema: Schema) -> Schema:
    """With what the glossary says of its fields, where they do not say it themselves."""
    if "properties" not in schema:
        return schema
    return schema | {"properties": {name: explained(name, one) for name, one in schema["properties"].items()}}


_KINDS: dict[object, type] = {"string": str, "integer": int, "array": list, None: str}  # None: a text or null


def explained(name: str, schema: Schema) -> Schema:
    """A field's schema with description, example and format from the glossary."""
    made = dict(schema)
    word = GLOSSARY.get(name)
    if word is not None:
        made.setdefault("description", word.means)
        if isinstance(word.example, _KINDS.get(made.get("type"), ())) and word.example in made.get("enum", [word.example]):
            made.setdefault("examples", [word.example])
        if word.pattern is not None and made.get("type") == "string" and not made.keys() & {"pattern", "enum"}:
            made["pattern"] = word.pattern
    if made.get("type") == "string" and "pattern" not in made and MOMENT_NAME.fullmatch(name):
        made.setdefault("format", "date-time")
        made.setdefault("examples", [INSTANT])
    return made


def _parameters(schema: Schema) -> list[Schema]:
    """The fields of a query's struct, each a parameter. What is left out is not null: null is no text."""
    required = schema.get("required", ())
    return [_parameter(name, one, required=name in required) for name, one in schema["properties"].items()]


def _parameter(name: str, schema: Schema, *, required: bool) -> Schema:
    inner = _never_null(schema)
    made = {"name": name, "in": "query", "required": required, "description": inner.pop("description", "")}
    if examples := inner.pop("examples", None):
        made["example"] = examples[0]
    return made | {"schema": inner}
