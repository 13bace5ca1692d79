"""Fields of the API as options of a command, and what was given for them as JSON.

What a value must be beyond its type is left to the server: it says so in its own words, for every field at once.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from inspect import Parameter
from pathlib import Path
from typing import Any, Final, assert_never

import typer

from tollgate.api.document import Field, Kind

RESERVED: Final = frozenset({
    *("all", "body", "data-dir", "help", "idempotency-key", "if-match", "json", "no-wait", "org", "out", "server"),
})  # fmt: skip
"""Options that every command may have. A field of such a name is an option with `field-` before it."""

_METAVAR: Final[Mapping[Kind, str]] = {
    Kind.TEXT: "TEXT",
    Kind.SECRET: "FILE",
    Kind.INTEGER: "N",
    Kind.NUMBER: "NUMBER",
    Kind.MOMENT: "TIME",
    Kind.JSON: "JSON",
}


_CHOICES_SHOWN_MAX: Final = 6
"""More than these do not stand beside the option, but in its help."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a command line said about fields.

    Attributes:
        values: as JSON, by the names of the fields.
        secret_files: where secrets are to be read from; `-` is standard input.
    """

    values: dict[str, object]
    secret_files: dict[str, Path]


def flag(field: Field) -> str:
    """The option of a field."""
    name = field.name.replace("_", "-")
    if field.kind is Kind.SECRET:
        name += "-file"
    return f"--{'field-' if name in RESERVED else ''}{name}"


def parameters(fields: Iterable[Field], *, changes: bool) -> list[Parameter]:
    """The options of fields, as typer reads them from a function.

    Args:
        fields: of a body or a query.
        changes: whether what is not given stays as it is, and null therefore says something of its own.
    """
    found = []
    for field in fields:
        found.append(_parameter(field, changes=changes))
        if _can_be_removed(field, changes=changes):
            what = "Empty it." if field.is_list else "Send null: none."
            found.append(option(_remover(field), bool, False, _remover_flag(field), help=what))
    return found


def option(name: str, annotation: object, default: object, *flags: str, **settings: Any) -> Parameter:
    """One option; a default is shown only if the help names it."""
    info = typer.Option(default, *flags, **{"show_default": False, **settings})
    return Parameter(name, Parameter.KEYWORD_ONLY, default=info, annotation=annotation)


def read(fields: Iterable[Field], given: Mapping[str, Any]) -> Given:
    """What was given for the fields.

    Raises:
        typer.BadParameter: a value is not what its option takes, or an option stands beside the one that removes it.
    """
    values: dict[str, object] = {}
    files: dict[str, Path] = {}
    for field in fields:
        value = given[_variable(field)]
        is_removed = given.get(_remover(field), False)
        is_given = value is not None and value != []
        if is_removed and is_given:
            raise typer.BadParameter(f"not together with {_remover_flag(field)}", param_hint=f"'{flag(field)}'")
        if is_removed:
            values[field.name] = [] if field.is_list else None
        elif is_given and field.kind is Kind.SECRET:
            files[field.name] = value
        elif is_given:
            values[field.name] = [_json(field, item) for item in value] if field.is_list else _json(field, value)
    return Given(values, files)


def _parameter(field: Field, *, changes: bool) -> Parameter:
    annotation = list.__class_getitem__(_annotation(field)) if field.is_list else _annotation(field)
    settings: dict[str, Any] = {"help": _help(field, changes=changes), "metavar": _METAVAR.get(field.kind)}
    if len(field.choices) > _CHOICES_SHOWN_MAX:
        settings["metavar"] = field.name.upper()
    if field.kind is Kind.INTEGER:
        settings |= {"min": field.minimum, "max": field.maximum}
    if field.kind is Kind.BOOLEAN and not field.is_list:
        yes = flag(field)
        both = yes if field.default is False and not changes else f"{yes}/--no-{yes[2:]}"
        return option(_variable(field), bool, None, both, **settings)
    return option(_variable(field), annotation, None, flag(field), **settings)


def _annotation(field: Field) -> Any:
    match field.kind:
        case Kind.INTEGER:
            return int
        case Kind.BOOLEAN:
            return bool
        case Kind.CHOICE:
            values = {value: value for value in field.choices}
            return Enum(field.name, values)
        case Kind.SECRET:
            return Path
        case Kind.TEXT | Kind.NUMBER | Kind.MOMENT | Kind.JSON:
            return str
        case _:
            assert_never(field.kind)


def _help(field: Field, *, changes: bool) -> str:
    notes = []
    if len(field.choices) > _CHOICES_SHOWN_MAX:
        notes.append(f"one of {', '.join(field.choices)}")
    if field.is_list:
        notes.append("may be repeated")
    if field.kind is Kind.SECRET:
        notes.append("- reads standard input")
    if field.is_required:
        notes.append("required")
    if field.default not in (None, "", [], {}, False):
        notes.append(f"default: {flag(field) if field.default is True else field.default}")
    if _can_be_removed(field, changes=changes):
        notes.append(f"{'none' if field.is_list else 'null'}: {_remover_flag(field)}")
    elif field.is_nullable and "null" in field.description:
        notes.append("null: leave it out")
    if field.kind is Kind.JSON and field.example is not None:
        notes.append(f"such as '{json.dumps(field.example)}'")
    noted = f"[{'; '.join(notes)}]" if notes else ""
    return " ".join(part for part in (field.description, noted) if part)


def _can_be_removed(field: Field, *, changes: bool) -> bool:
    if field.kind is Kind.SECRET:
        return field.is_nullable  # left out, a secret stays: it cannot be read and sent back
    if field.kind is Kind.BOOLEAN and not field.is_list:
        return False
    return (field.is_nullable or field.is_list) and (changes or field.default not in (None, []))


def _remover_flag(field: Field) -> str:
    return f"--no-{flag(field)[2:].removesuffix('-file' if field.kind is Kind.SECRET else '')}"


def _variable(field: Field) -> str:
    return f"field_{field.name}"


def _remover(field: Field) -> str:
    return f"no_field_{field.name}"


def _json(field: Field, value: Any) -> object:
    match field.kind:
        case Kind.CHOICE:
            return str(value.value)
        case Kind.MOMENT:
            return _moment(field, value)
        case Kind.NUMBER:
            return _parsed(field, value, (int, float))
        case Kind.JSON:
            return _parsed(field, value, (dict, list, str, int, float, bool, type(None)))
        case _:
            return value


def _parsed(field: Field, text: str, kinds: tuple[type, ...]) -> object:
    try:
        value = json.loads(text)
    except ValueError:
        value = ...
    if not isinstance(value, kinds):
        expected = "a number" if field.kind is Kind.NUMBER else "JSON; use --body for what is long"
        raise typer.BadParameter(f"{text!r} is not {expected}", param_hint=f"'{flag(field)}'")
    return value


def _moment(field: Field, text: str) -> str:
    """In RFC 3339. A day is its first moment; a time without a zone is in UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a time such as 2027-01-31 or 2027-01-31T18:00:00+01:00", param_hint=f"'{flag(field)}'"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat().replace("+00:00", "Z")


def missing(fields: Sequence[Field], body: Mapping[str, object]) -> list[Field]:
    """Required fields that a body does not have."""
    return [field for field in fields if field.is_required and field.name not in body]
