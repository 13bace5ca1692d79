from typing import cast

import jsonschema
import pytest

from simulator.refusal import RefusalError
from simulator.schema_example import JsonSchema, example
from simulator.words import fingerprint

SEED = fingerprint(["seed"])
NODE: JsonSchema = {
    "type": "object",
    "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
    "required": ["value", "children"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        {"type": "object", "properties": {"unit": {"enum": ["celsius", "fahrenheit"]}}},
        {"type": "object", "required": ["undescribed"]},
        {"type": ["null", "integer"], "minimum": 3, "maximum": 5},
        {"type": "integer", "exclusiveMinimum": 100, "multipleOf": 7},
        {"type": "integer", "maximum": -4},
        {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 5},
        {"type": "number"},
        {"type": "number", "minimum": 0.5, "maximum": 0.75},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "number", "exclusiveMinimum": 9},
        {"type": "number", "maximum": -2},
        {"type": "number", "minimum": -(10.0**300), "multipleOf": 1e-300},
        {"type": "array", "items": {"type": "boolean"}, "minItems": 3},
        {"type": "array", "items": {"type": "null"}, "maxItems": 0},
        {"type": "string", "minLength": 30, "maxLength": 30},
        {"type": "string", "format": "date-time"},
        {"anyOf": [{"const": 5}, {"type": "string"}]},
        {"$defs": {"node": NODE}, "$ref": "#/$defs/node"},
        {},
    ],
)
def test_example_fits_its_schema(schema: JsonSchema) -> None:
    jsonschema.validate(example(schema, SEED), schema)


def test_same_seed_gives_the_same_example() -> None:
    schema: JsonSchema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}

    assert example(schema, SEED) == example(schema, SEED)


def test_types_in_capitals_as_gemini_writes_them_are_understood() -> None:
    schema: JsonSchema = {"type": "OBJECT", "properties": {"days": {"type": "ARRAY", "minItems": "2"}}}

    assert len(cast("dict[str, list[str]]", example(schema, SEED))["days"]) == 2


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/$defs/missing"},
        {"type": "object", "properties": {"me": {"$ref": "#"}}, "required": ["me"]},
        {"type": "array", "minItems": 9_000, "items": {"type": "array", "minItems": 9_000}},
        {"type": "array", "minItems": -1},
        {"type": "array", "minItems": 1_000, "items": {"const": "x" * 1_000}},
        {"type": "colour"},
        {"type": "object", "properties": {"a": 5}},
    ],
)
def test_schema_that_is_endless_huge_or_wrong_is_refused(schema: JsonSchema) -> None:
    with pytest.raises(RefusalError) as refused:
        example(schema, SEED)

    assert refused.value.status == 400
