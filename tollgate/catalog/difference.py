"""What a document would change, for people: a line for each thing that comes, changes or goes. Pure."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import typer

Change = Mapping[str, Any]
"""As the API has it."""

_CREATE, _REPLACE, _DELETE = "create", "replace", "delete"
_SIGNS: Final = {_CREATE: "+", _REPLACE: "~", _DELETE: "-"}
_COLOURS: Final = {_CREATE: typer.colors.GREEN, _REPLACE: typer.colors.YELLOW, _DELETE: typer.colors.RED}


def lines(changes: Sequence[Change]) -> Iterator[str]:
    """Every change, in colours that `typer.echo` takes out where no terminal is; and a summary."""
    for change in changes:
        for line in _lines(change):
            yield typer.style(line, fg=_COLOURS[change["change"]])
    yield summary(changes)


def summary(changes: Sequence[Change]) -> str:
    """How much changes."""
    if not changes:
        return "No changes."
    count = Counter(change["change"] for change in changes)
    return f"{count[_CREATE]} to create, {count[_REPLACE]} to change, {count[_DELETE]} to remove."


def _lines(change: Change) -> Iterator[str]:
    head = f"{_SIGNS[change['change']]} {change['kind']} {text_of(change['key'])}"
    if change["change"] == _REPLACE:
        for each in change["fields"]:
            # A credential that changes is hidden before and after: then there is no part that differs.
            whole = each["field"], each["before"], each["after"]
            for path, before, after in list(_leaves(*whole)) or [whole]:
                yield f"{head}: {path}: {text_of(before)} -> {text_of(after)}"
        return
    yield head
    if change["change"] == _CREATE:
        for each in change["fields"]:
            yield f"    {each['field']}: {text_of(each['after'])}"


def _leaves(path: str, before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    """The parts that differ. Lists of another length are compared as a whole: which item is which, nobody knows."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in {**before, **after}:
            yield from _leaves(f"{path}.{name}", before.get(name), after.get(name))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _leaves(f"{path}[{number}]", old, new)
    elif before != after:
        yield path, before, after


def text_of(value: object) -> str:
    """A value on one line, without what moves a terminal's cursor."""
    if value is None:
        return "none"
    if isinstance(value, str) and value and value.isprintable():
        return value
    return json.dumps(value)
