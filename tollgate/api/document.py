"""The OpenAPI document of the control plane, as far as a command line needs it. Pure, but for reading the file.

The file is a copy, because this package imports no service: `tests/golden/test_golden_openapi.py` holds it to the API.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_name("openapi.json")

METHODS: Final = ("get", "post", "put", "patch", "delete")
OPERATION_SCHEMA: Final = "Operation"
"""The component an answer names when what it tells of goes on after the answer."""
SHOWN_ONCE: Final = "x-shown-once"
"""Marks a field that no later answer has."""

Schema = Mapping[str, Any]


class Kind(Enum):
    """How a value is written on a command line."""

    TEXT = auto()
    SECRET = auto()
    INTEGER = auto()
    NUMBER = auto()
    BOOLEAN = auto()
    MOMENT = auto()
    CHOICE = auto()
    JSON = auto()
    """Whatever has parts."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a body, or a parameter of a query.

    Attributes:
        default: None also when there is none.
        kind: of one value; of a list, of its items.
        example: of the whole value; None if the document has none.
    """

    name: str
    kind: Kind
    is_list: bool
    is_required: bool
    is_nullable: bool
    description: str
    default: object
    example: object
    choices: tuple[str, ...]
    minimum: int | None
    maximum: int | None


@dataclass(frozen=True, slots=True)
class Outline:
    """Enough of an operation to name it."""

    operation_id: str
    method: str
    path: str
    summary: str

    @property
    def segments(self) -> list[str]:
        """The path behind `/api/v1`."""
        return self.path.removeprefix("/api/v1").strip("/").split("/")


@dataclass(frozen=True, slots=True)
class Answer:
    """What an operation answers with when all is well.

    Attributes:
        schema: the component's name; of a list, that of its items.
        is_list: whether the things are under `data`.
        has_pages: whether more of them may follow.
        shown_once: fields that must be kept now.
        alternatives: the components' names, where it is one of several.
    """

    schema: str
    is_list: bool
    has_pages: bool
    shown_once: tuple[str, ...]
    alternatives: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation.

    Attributes:
        body: the fields of the body; None if it reads none.
        headers: the names of those it reads.
        is_public: whether it works without a credential.
        file_type: the media type of what it answers with, if that is a file and not JSON.
    """

    outline: Outline
    description: str
    path_parameters: tuple[str, ...]
    query: tuple[Field, ...]
    headers: tuple[str, ...]
    body: tuple[Field, ...] | None
    answer: Answer | None
    is_public: bool
    file_type: str | None

    @property
    def changes_part(self) -> bool:
        """Whether fields that it is not given stay as they are."""
        return self.outline.method == "PATCH"

    @property
    def goes_on(self) -> bool:
        """Whether it may answer before its change is live."""
        answer = self.answer
        if self.outline.method == "GET" or answer is None or answer.is_list:
            return False
        return OPERATION_SCHEMA in {answer.schema, *answer.alternatives}


class Document:
    """The document; of an operation, no more is read than is asked for."""

    def __init__(self, content: Schema) -> None:
        self._content = content

    @classmethod
    def packaged(cls) -> "Document":
        """The one that came with this package."""
        return cls(json.loads(FILE.read_bytes()))

    @cached_property
    def outlines(self) -> tuple[Outline, ...]:
        """Every operation but those that only send a browser elsewhere."""
        return tuple(
            Outline(item[method]["operationId"], method.upper(), path, item[method].get("summary", ""))
            for path, item in self._content["paths"].items()
            for method in METHODS
            if method in item and any(map(_is_success, item[method]["responses"]))
        )

    def operation(self, outline: Outline) -> Operation:
        """All about one operation."""
        item = self._content["paths"][outline.path][outline.method.lower()]
        parameters = item.get("parameters", ())
        return Operation(
            outline=outline,
            description=item.get("description", ""),
            path_parameters=tuple(each["name"] for each in parameters if each["in"] == "path"),
            query=tuple(self._parameter(each) for each in parameters if each["in"] == "query"),
            headers=tuple(each["name"] for each in parameters if each["in"] == "header"),
            body=self._body(item, described=self._answered(item)),
            answer=self._answer(item),
            is_public=not item.get("security", self._content.get("security")),
            file_type=_file_type(item),
        )

    def reader_of(self, outline: Outline) -> Outline | None:
        """The operation that reads what another one changes."""
        return next((each for each in self.outlines if each.method == "GET" and each.path == outline.path), None)

    def watcher(self) -> Operation | None:
        """The operation that tells how a change goes."""
        for outline in self.outlines:
            if outline.method == "GET" and outline.path.endswith("}"):
                operation = self.operation(outline)
                if operation.answer is not None and operation.answer.schema == OPERATION_SCHEMA:
                    return operation
        return None

    def _body(self, item: Schema, described: Schema) -> tuple[Field, ...] | None:
        if "requestBody" not in item:
            return None
        schema = self._resolved(item["requestBody"]["content"]["application/json"]["schema"])
        required = schema.get("required", ())
        return tuple(
            self._field(name, {**self._description(described.get(name), each), **each}, is_required=name in required)
            for name, each in schema.get("properties", {}).items()
        )

    def _parameter(self, parameter: Schema) -> Field:
        schema = {"description": parameter.get("description", ""), **parameter["schema"]}
        return self._field(parameter["name"], schema, is_required=parameter.get("required", False))

    def _answer(self, item: Schema) -> Answer | None:
        schema = _answer_schema(item)
        if schema is None:
            return None
        name, properties = _name(schema), self._answered(item)
        is_list = properties.get("data", {}).get("type") == "array"
        if is_list:
            name = _name(properties["data"]["items"])
        once = tuple(each for each, field in properties.items() if field.get(SHOWN_ONCE))
        alternatives = frozenset(map(_name, self._resolved(schema).get("anyOf", ())))
        return Answer(name, is_list, "next_cursor" in properties, once, alternatives)

    def _answered(self, item: Schema) -> Schema:
        """What is in an answer."""
        properties: Schema = self._resolved(_answer_schema(item) or {}).get("properties", {})
        return properties

    def _description(self, answered: Schema | None, read: Schema) -> Schema:
        """What an answer tells about a field that a body has too, if both may be null or neither."""
        if answered is None or self._without_null(answered)[1] != self._without_null(read)[1]:
            return {}
        return {name: text for name, text in answered.items() if name == "description"}

    def _field(self, name: str, schema: Schema, *, is_required: bool) -> Field:
        inner, is_nullable = self._without_null(schema)
        is_list = inner.get("type") == "array"
        item = self._without_null(inner.get("items", {}))[0] if is_list else inner
        kind = _kind(item)
        return Field(
            name=name,
            kind=kind,
            is_list=is_list and kind is not Kind.JSON,
            is_required=is_required,
            is_nullable=is_nullable,
            description=schema.get("description", ""),
            default=schema.get("default"),
            example=next(iter(schema.get("examples", ())), None),
            choices=_choices(item) if kind is Kind.CHOICE else (),
            minimum=item.get("minimum"),
            maximum=item.get("maximum"),
        )

    def _without_null(self, schema: Schema) -> tuple[Schema, bool]:
        resolved = self._resolved(schema)
        options = [self._resolved(each) for each in (*resolved.get("anyOf", ()), *resolved.get("oneOf", ()))]
        if not options:
            return resolved, False
        others = [each for each in options if each.get("type") != "null"]
        inner = others[0] if len(others) == 1 else {}
        return inner, len(others) < len(options)

    def _resolved(self, schema: Schema) -> Schema:
        while "$ref" in schema:
            schema = self._content["components"]["schemas"][_name(schema)]
        if len(schema.get("allOf", ())) == 1:
            return {**schema, **self._resolved(schema["allOf"][0])}
        return schema


def _name(schema: Schema) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _success(item: Schema) -> Schema:
    found: Schema = next(response for status, response in item["responses"].items() if _is_success(status))
    return found


def _file_type(item: Schema) -> str | None:
    return next((each for each in _success(item).get("content", {}) if each != "application/json"), None)


def _answer_schema(item: Schema) -> Schema | None:
    found: Schema | None = _success(item).get("content", {}).get("application/json", {}).get("schema")
    return found


def _choices(schema: Schema) -> tuple[str, ...]:
    return tuple(map(str, schema.get("enum") or (schema["const"],)))


def _is_success(status: str) -> bool:
    return status.startswith("2")


def _kind(schema: Schema) -> Kind:
    match schema:
        case {"writeOnly": True, "type": "string"}:
            return Kind.SECRET
        case {"enum": [*_], "type": "string"} | {"const": str()}:
            return Kind.CHOICE
        case {"format": "date-time"}:
            return Kind.MOMENT
        case {"type": "string"}:
            return Kind.TEXT
        case {"type": "integer"}:
            return Kind.INTEGER
        case {"type": "number"}:
            return Kind.NUMBER
        case {"type": "boolean"}:
            return Kind.BOOLEAN
        case _:
            return Kind.JSON
