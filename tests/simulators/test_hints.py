"""What a refusal says beyond msgspec's own words."""

import json
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from simulators.config import locate
from simulators.faults import Fault
from simulators.hints import WORD_LENGTH_MAX, suggestion

Code = Annotated[str, Meta(pattern=r"^[a-z]{2}\Z", description="two small letters")]


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    code: Code | None = None
    way: Literal["up", "down"] = "up"


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    name: Code = "aa"
    unsaid: Annotated[str, Meta(pattern="^x$")] = "x"
    parts: list[Inner] = []
    by_name: dict[str, Inner] = {}


@pytest.mark.parametrize(
    ("document", "key", "reason"),
    [
        ({"name": "A"}, "name", "must be two small letters"),
        ({"name": 5}, "name", "Expected `str`, got `int`"),
        ({"parts": [{"code": "A"}]}, "parts[0].code", "must be two small letters"),
        ({"by_name": {"k": {"code": "A"}}}, "by_name[...].code", "must be two small letters"),
        ({"by_name": {"k": {"way": "left"}}}, "by_name[...].way", "Invalid enum value 'left'; use down or up"),
        ({"unsaid": "A"}, "unsaid", "Expected `str` matching regex '^x$'"),
        ({"nane": "A"}, "", "Object contains unknown field `nane`; did you mean 'name'?"),
    ],
)
def test_a_refusal_says_what_to_write_instead(document, key, reason):
    with pytest.raises(msgspec.ValidationError) as error:
        msgspec.convert(document, Outer)
    assert locate(error.value, Outer) == (key, reason)


def test_a_word_that_is_too_long_to_be_a_slip_is_not_compared():
    nearest = "a" * WORD_LENGTH_MAX
    assert suggestion("a" * WORD_LENGTH_MAX, [nearest]) == f"; did you mean {nearest!r}?"
    assert suggestion("a" * (WORD_LENGTH_MAX + 1), [nearest]) == ""


def wordless(schema: Any) -> list[str]:
    """The patterns in a JSON schema with no words beside them."""
    if isinstance(schema, list):
        return [found for one in schema for found in wordless(one)]
    if not isinstance(schema, dict):
        return []
    here = [schema["pattern"]] if isinstance(schema.get("pattern"), str) and "description" not in schema else []
    return here + wordless(list(schema.values()))


async def test_every_pattern_of_the_api_and_the_settings_has_words(start):
    _, api, _ = await (await start()).call("GET", "/openapi.json")
    assert '"pattern"' in json.dumps(api)
    _, settings = msgspec.json.schema_components([Fault], schema_hook=lambda _: {"type": "string"})
    assert wordless([api, settings]) == []
