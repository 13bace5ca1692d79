"""A value that fits a JSON schema: the arguments of tool calls, and answers in JSON. Pure; the same seed, the same value.

It follows types (in Gemini's capitals too), enum, const, required, local `$ref`, the first of anyOf, oneOf or allOf, and
bounds of numbers, strings and arrays. It does not follow `pattern`, `not` or conditions between fields.
"""

import math
from typing import Final

from simulator.frames import compact
from simulator.refusal import RefusalError
from simulator.words import fingerprint, prose

JsonSchema = dict[str, object]

_DEPTH_MAX: Final = 32
_VALUES_MAX: Final = 10_000
_CHARACTERS_MAX: Final = 20_000
_BOUND_MAX: Final = 10_000
"""Of the lengths of strings and arrays that a schema may demand."""

_NUMBER_MAX: Final = 10**15
_STEP_MIN: Final = 1e-9
_PLAIN_NUMBER: Final = 7
# Down to here optional properties and array items are given too, because an empty object is a dull answer. Below it only
# what must be, so that a schema which contains itself comes to an end.
_GENEROUS_DEPTH: Final = 4

_TEXT_BY_FORMAT: Final = {
    "date": "2025-01-15",
    "date-time": "2025-01-15T09:30:00Z",
    "time": "09:30:00Z",
    "duration": "PT15M",
    "email": "ada@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def example(schema: JsonSchema, seed: str) -> object:
    """A value that fits the schema.

    Raises:
        RefusalError: a schema that is malformed, too large or without an end.
    """
    return _Example(schema, seed).value(schema, depth=0)


class _Example:
    """One walk through one schema, with a budget of values and characters."""

    def __init__(self, root: JsonSchema, seed: str) -> None:
        self._root = root
        self._seed = seed
        self._values = 0
        self._characters = 0

    def value(self, schema: object, depth: int) -> object:
        self._values += 1
        if depth > _DEPTH_MAX or self._values > _VALUES_MAX or self._characters > _CHARACTERS_MAX:
            raise RefusalError(400, "The JSON schema is too large or has no end.")
        if schema is True:
            return {}
        if not isinstance(schema, dict):
            raise RefusalError(400, "The JSON schema holds something that is no schema.")
        if isinstance(reference := schema.get("$ref"), str):
            return self.value(self._resolve(reference), depth + 1)
        if "const" in schema:
            return self._leaf(schema["const"])
        if isinstance(options := schema.get("enum"), list) and options:
            return self._leaf(options[int(self._seed[:8], 16) % len(options)])
        for union in ("anyOf", "oneOf", "allOf"):
            if isinstance(members := schema.get(union), list) and members:
                return self.value(members[0], depth + 1)
        match _type(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "string":
                return self._leaf(self._string(schema))
            case "integer":
                return _integer(schema)
            case "number":
                return _fraction(schema)
            case "boolean":
                return True
            case "null":
                return None
            case other:
                raise RefusalError(400, f"The JSON schema has the unknown type '{other}'.")

    def _leaf(self, value: object) -> object:
        self._characters += len(compact(value))
        return value

    def _object(self, schema: JsonSchema, depth: int) -> JsonSchema:
        properties = schema.get("properties")
        if not isinstance(properties, dict):
            properties = {}
        required = schema.get("required")
        names = [str(name) for name in required] if isinstance(required, list) else []
        if not names and depth < _GENEROUS_DEPTH:
            names = list(properties)
        self._characters += sum(map(len, names))
        # A required property need not be described; any string will do for it.
        return {name: self.value(properties.get(name, {"type": "string"}), depth + 1) for name in names}

    def _array(self, schema: JsonSchema, depth: int) -> list[object]:
        count = _bound(schema, "minItems", 0)
        if depth < _GENEROUS_DEPTH and "items" in schema:
            count = max(count, min(1, _bound(schema, "maxItems", 1)))
        return [self.value(schema.get("items", {"type": "string"}), depth + 1) for _ in range(count)]

    def _string(self, schema: JsonSchema) -> str:
        if (text := _TEXT_BY_FORMAT.get(str(schema.get("format")))) is not None:
            return text
        text = prose(fingerprint((self._seed, str(self._values))), 3)[2].strip(" .")
        return text.ljust(_bound(schema, "minLength", 0), "a")[: _bound(schema, "maxLength", _BOUND_MAX)]

    def _resolve(self, reference: str) -> object:
        here: object = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            here = here.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(here, dict) else None
        return here


def _type(schema: JsonSchema) -> str:
    match schema.get("type"):
        case str(name):
            return name.lower()
        case [*names] if names:
            return next((str(name).lower() for name in names if name != "null"), "null")
        case _:
            return "object"


def _bound(schema: JsonSchema, name: str, default: int) -> int:
    value = schema.get(name, default)
    # Gemini's schemas write these as decimal strings, as protobuf's JSON does with 64-bit integers.
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(_BOUND_MAX)):
        value = int(value)
    if not isinstance(value, int) or not 0 <= value <= _BOUND_MAX:
        raise RefusalError(400, f"{name} in the JSON schema is not a whole number from 0 to {_BOUND_MAX}.")
    return value


def _integer(schema: JsonSchema) -> int:
    low = [math.ceil(value) for value in _numbers(schema, "minimum")]
    low += [math.floor(value) + 1 for value in _numbers(schema, "exclusiveMinimum")]
    high = [math.floor(value) for value in _numbers(schema, "maximum")]
    high += [math.ceil(value) - 1 for value in _numbers(schema, "exclusiveMaximum")]
    value = max([*low, min([_PLAIN_NUMBER, *high])])
    return math.ceil(_to_multiple(schema, value))


def _fraction(schema: JsonSchema) -> float:
    low = [*_numbers(schema, "minimum"), *_numbers(schema, "exclusiveMinimum")]
    high = [*_numbers(schema, "maximum"), *_numbers(schema, "exclusiveMaximum")]
    # Beside a bound or between two, so that it does not matter whether the bound itself is allowed.
    if low and high:
        value = (max(low) + min(high)) / 2
    elif low:
        value = max(low) + 1
    elif high:
        value = min(high) - 1
    else:
        value = _PLAIN_NUMBER
    return _to_multiple(schema, value)


def _to_multiple(schema: JsonSchema, value: float) -> float:
    step = next((step for step in _numbers(schema, "multipleOf") if step >= _STEP_MIN), None)
    return value if step is None else math.ceil(value / step) * step


def _numbers(schema: JsonSchema, name: str) -> list[float]:
    """The number of that name, if there is one and it is within reason."""
    value = schema.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return []
    return [value] if abs(value) <= _NUMBER_MAX else []
