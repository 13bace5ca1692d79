"""YAML as strictly as JSON, into what JSON has, with the line of everything. Pure.

What is refused is what a reader may overlook or what grows when it is read: a key twice, aliases, merge keys, tags. Keys are
the text that they are, and so are dates. Parsed by libyaml where PyYAML has it, event by event: nothing recurses on its own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

DEPTH_MAX: Final = 32
"""As the API has it."""

Steps = tuple[str, ...]
"""Keys and numbers that lead to a value."""

_TAG: Final = "tag:yaml.org,2002:"
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# One emitter everywhere: the other one breaks some lines elsewhere, and an export is compared with the one before.
_DUMPER: Final = yaml.SafeDumper
_WIDE: Final = 1_000_000


class YamlTextError(ValueError):
    """Text that is not read.

    Attributes:
        line: from 1; None if it cannot be told.
    """

    def __init__(self, problem: str, line: int | None) -> None:
        super().__init__(problem if line is None else f"line {line}: {problem}")
        self.problem = problem
        self.line = line


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a text holds.

    Attributes:
        lines: where each value stands, by its steps; of what has a key, the key's line.
    """

    value: Any = field(repr=False)
    lines: Mapping[Steps, int]


def parse(text: str) -> Parsed:
    """The one document in a text.

    Raises:
        YamlTextError: it is not YAML, or more than JSON can say.
    """
    loader = None
    try:
        loader = _LOADER(text)
        reading = _Reading(loader)
        return Parsed(reading.document(), reading.lines)
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        raise YamlTextError(error.problem or "not YAML", None if mark is None else mark.line + 1) from None
    except (yaml.YAMLError, UnicodeEncodeError):
        raise YamlTextError("a character that YAML does not know", None) from None
    finally:
        if loader is not None:
            loader.dispose()


def dump(value: object) -> str:
    """JSON as YAML: the same text for the same value, in the order that its keys have."""
    text: str = yaml.dump(value, Dumper=_DUMPER, sort_keys=False, allow_unicode=True, width=_WIDE)
    return text


class _Reading:
    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self.lines: dict[Steps, int] = {}

    def document(self) -> Any:
        self._loader.get_event()  # the stream begins
        if self._loader.check_event(yaml.StreamEndEvent):
            return None
        self._loader.get_event()  # the document begins
        value = self._value(())
        self._loader.get_event()  # and ends
        if not self._loader.check_event(yaml.StreamEndEvent):
            raise _fault(self._loader.get_event(), "a second document; one is read")
        return value

    def _value(self, steps: Steps) -> Any:
        event = self._loader.get_event()
        self.lines.setdefault(steps, _line(event))
        if len(steps) > DEPTH_MAX:
            raise _fault(event, f"nested deeper than {DEPTH_MAX} levels")
        match event:
            case yaml.ScalarEvent():
                return self._scalar(event)
            case yaml.SequenceStartEvent(tag=None):
                return self._sequence(steps)
            case yaml.MappingStartEvent(tag=None):
                return self._mapping(steps)
            case yaml.AliasEvent():
                raise _fault(event, "an alias; write it out")
            case _:
                raise _fault(event, f"the tag {event.tag}, which JSON does not have")

    def _sequence(self, steps: Steps) -> list[Any]:
        items: list[Any] = []
        while not self._loader.check_event(yaml.SequenceEndEvent):
            items.append(self._value((*steps, str(len(items)))))
        self._loader.get_event()
        return items

    def _mapping(self, steps: Steps) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not self._loader.check_event(yaml.MappingEndEvent):
            event = self._loader.get_event()
            if not isinstance(event, yaml.ScalarEvent):
                raise _fault(event, "a key that is not text")
            key = event.value
            if key == "<<" and event.implicit[0]:
                raise _fault(event, "a merge key; write it out")
            if key in found:
                raise _fault(event, f"the key {key!r} a second time")
            self.lines[*steps, key] = _line(event)
            found[key] = self._value((*steps, key))
        self._loader.get_event()
        return found

    def _scalar(self, event: Any) -> str | bool | int | float | None:
        is_tagged = event.tag not in {None, "!"}
        tag = event.tag if is_tagged else self._loader.resolve(yaml.ScalarNode, event.value, event.implicit)
        try:
            return self._constructed(tag.removeprefix(_TAG), event.value, is_tagged=is_tagged)
        except (ValueError, KeyError, IndexError, OverflowError):
            raise _fault(event, "a value that JSON does not have") from None

    def _constructed(self, kind: str, text: str, *, is_tagged: bool) -> str | bool | int | float | None:
        node = yaml.ScalarNode(_TAG + kind, text)
        match kind:
            case "null":
                return None
            case "bool":
                return bool(self._loader.construct_yaml_bool(node))
            case "int":
                return int(self._loader.construct_yaml_int(node))
            case "float":
                number = float(self._loader.construct_yaml_float(node))
                if not math.isfinite(number):
                    raise ValueError(text)
                return number
            case "str":
                return text
            case _ if is_tagged:
                raise ValueError(kind)
            case _:
                return text


def _fault(event: Any, problem: str) -> YamlTextError:
    return YamlTextError(problem, _line(event))


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
