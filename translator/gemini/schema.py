"""Google's schema of a value as JSON schema. Pure.

Source: Google's API reference (`Schema`, a part of OpenAPI 3.0 with types in capitals).
"""

from typing import Final

from translator.json_values import Json, JsonObject

_ONLY_GOOGLES: Final = frozenset({"nullable", "propertyOrdering", "property_ordering", "example"})
_NAMES: Final = {"any_of": "anyOf", "defs": "$defs", "ref": "$ref", "additional_properties": "additionalProperties"}
_COUNTS: Final = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
"""64-bit numbers, which the JSON of protocol buffers writes as texts."""


def json_schema(schema: JsonObject) -> JsonObject:
    """What a schema of Google's says, in the words of JSON schema; words that both have stay."""
    found: JsonObject = {}
    for name, value in schema.items():
        if name in _ONLY_GOOGLES:
            continue
        known = _NAMES.get(name, name)
        found[known] = _value(known, value)
    kind = found.get("type")
    if schema.get("nullable") is True and isinstance(kind, str):
        found["type"] = [kind, "null"]
    return found


def _value(name: str, value: Json) -> Json:
    match name, value:
        case "type", str():
            return value.lower()
        case (("properties" | "$defs"), dict()):
            return {each: json_schema(inner) if isinstance(inner, dict) else inner for each, inner in value.items()}
        case (("items" | "additionalProperties"), dict()):
            return json_schema(value)
        case "anyOf", list():
            return [json_schema(each) if isinstance(each, dict) else each for each in value]
        case _, str() if name in _COUNTS and value.isdecimal():
            return int(value)
        case _:
            return value
