"""A value such as a JSON schema describes: what its fields give as their example, and of what is required the least. Pure."""

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]


def example(schema: Schema, schemas: Schema) -> object:
    """A value of a schema; `schemas` are the components that its `$ref`s name."""
    match schema:
        case {"examples": [first, *_]}:
            return first
        case {"$ref": str(reference)}:
            return example(schemas[reference.rpartition("/")[2]], schemas)
        case {"anyOf": [first, *_]} | {"oneOf": [first, *_]}:
            return example(first, schemas)
        case {"const": value} | {"enum": [value, *_]}:
            return value
        case {"type": "object"}:
            required = schema.get("required", ())
            return {
                name: example(field, schemas)
                for name, field in schema.get("properties", {}).items()
                if name in required or field.get("examples")
            }
        case {"type": "array", "items": items}:
            return [example(items, schemas)]
        case {"type": "integer" | "number"}:
            return schema.get("minimum", 1)
        case {"type": "boolean"}:
            return True
        case {"type": "string", "format": "date-time"}:
            return "2027-01-31T18:00:00Z"
        case _:
            return "..."
