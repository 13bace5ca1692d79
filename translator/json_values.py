"""JSON as typed values, and reading an object field by field. Pure.

A reader asks for the fields it knows; what nobody has asked for by then is told by `Fields.unread`, so no field is lost
without a word.
"""

import json
from collections.abc import Callable, Iterable
from typing import Final, NoReturn, TypeAlias, TypeVar

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
JsonObject: TypeAlias = dict[str, Json]


class ShapeError(ValueError):
    """A field that is missing or of another kind than the dialect has there. The message never quotes a value.

    Attributes:
        field: its path, such as `messages[0].content`; empty for the whole.
    """

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field or 'the body'}: {expected}")
        self.field = field


def parse(text: bytes | str) -> Json:
    """Read a JSON text.

    Raises:
        ShapeError: it is none, or nested too deeply to be read.
    """
    try:
        value: Json = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ShapeError("", "not valid JSON") from error
    return value


def parse_object(text: bytes | str) -> JsonObject:
    """Read a JSON text that is an object.

    Raises:
        ShapeError: it is none.
    """
    value = parse(text)
    if not isinstance(value, dict):
        raise ShapeError("", "not a JSON object")
    return value


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("not a number of JSON")


_compact: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def compact(value: Json) -> str:
    """JSON text without spaces.

    Raises:
        ShapeError: a number that is too large for JSON's readers, or a text that is not Unicode.
    """
    try:
        text = _compact.encode(value)
        return text if text.isascii() else _encodable(text, value)
    except (ValueError, RecursionError) as error:
        raise ShapeError("", "not expressible as JSON") from error


def _encodable(text: str, value: Json) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair, as a stream cut between the halves has it: only an escape can say that.
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text


_T = TypeVar("_T")


class Fields:
    """One object of JSON, and the path to it. A null is as good as a field that is not there."""

    __slots__ = ("_asked", "path", "value")

    def __init__(self, value: JsonObject, path: str = "") -> None:
        self.value = value
        self.path = path
        self._asked: set[str] = set()

    def at(self, name: str) -> str:
        """The path of a field."""
        return f"{self.path}.{name}" if self.path else name

    def raw(self, name: str) -> Json:
        """The value as it is."""
        self._asked.add(name)
        return self.value.get(name)

    def text(self, name: str) -> str:
        """A text that must be there."""
        return self._required(name, self.text_or_none(name))

    def text_or_none(self, name: str) -> str | None:
        """A text."""
        value = self.raw(name)
        if value is not None and not isinstance(value, str):
            raise ShapeError(self.at(name), "not a text")
        return value

    def whole(self, name: str) -> int | None:
        """A whole number."""
        value = self.raw(name)
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise ShapeError(self.at(name), "not a whole number")
        return value

    def number(self, name: str) -> float | None:
        """A number; a whole one stays whole."""
        value = self.raw(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ShapeError(self.at(name), "not a number")
        return value

    def flag(self, name: str) -> bool | None:
        """A truth value."""
        value = self.raw(name)
        if value is not None and not isinstance(value, bool):
            raise ShapeError(self.at(name), "neither true nor false")
        return value

    def object(self, name: str) -> "Fields":
        """An object that must be there."""
        return self._required(name, self.object_or_none(name))

    def object_or_none(self, name: str) -> "Fields | None":
        """An object."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise ShapeError(self.at(name), "not an object")
        return Fields(value, self.at(name))

    def objects(self, name: str) -> "list[Fields]":
        """A list of objects; empty if it is not there."""
        return self._list(name, lambda each, path: Fields(each, path) if isinstance(each, dict) else None)

    def texts(self, name: str) -> list[str]:
        """A list of texts; empty if it is not there."""
        return self._list(name, lambda each, _: each if isinstance(each, str) else None)

    def unread(self) -> Iterable[str]:
        """Paths of the fields that nobody has asked for, but for those that say nothing."""
        return [self.at(name) for name, value in self.value.items() if name not in self._asked and value is not None]

    def _list(self, name: str, read: Callable[[Json, str], _T | None]) -> list[_T]:
        value = self.raw(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise ShapeError(self.at(name), "not a list")
        found = []
        for number, each in enumerate(value):
            path = f"{self.at(name)}[{number}]"
            item = read(each, path)
            if item is None:
                raise ShapeError(path, "of another kind than expected")
            found.append(item)
        return found

    def _required(self, name: str, value: _T | None) -> _T:
        if value is None:
            raise ShapeError(self.at(name), "missing")
        return value
