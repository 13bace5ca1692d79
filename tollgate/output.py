"""What people read: a table for many things, lines of name and value for one. `--json` goes past this."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway_core.money import NanoUsd, format_usd
from tollgate.errors import UsageError

COLUMNS: Final[Mapping[str, Sequence[str]]] = {
    "AuditEntry": ("at", "action", "target_id", "actor_kind", "actor", "actor_id"),
    "BudgetState": ("kind", "id", "name", "period", "limit", "spent", "held", "left", "renews_at"),
    "Deployment": ("model", "provider", "upstream_model"),
    "Invitation": ("id", "email", "role", "expires_at"),
    "Key": ("id", "name", "mode", "hint", "project_id", "disabled", "last_used_at", "expires_at"),
    "MachineToken": ("id", "name", "scopes", "expires_at", "disabled_at"),
    "Member": ("user_id", "email", "name", "role"),
    "Model": ("name", "owned_by", "context_tokens", "max_output_tokens", "aliases", "deprecated_at"),
    "Node": ("id", "control_plane", "connected_at", "accepted_revision", "refused_revision", "refusal", "silent"),
    "Operation": ("id", "state", "action", "target", "created_at", "finished_at", "error"),
    "OrganizationOfUser": ("id", "name", "role", "disabled_at", "created_at"),
    "Price": ("model", "provider", "version", "effective_from", "free", "prices"),
    "Project": ("id", "name", "budget_per_day_usd", "budget_per_month_usd", "archived_at", "created_at"),
    "ListedProvider": ("name", "kind", "state", "base_url", "has_credential"),
    "QuarantinedLine": ("id", "quarantined_at", "reason", "request_id", "org_id", "model", "held", "decision"),
    "ReconciliationSummary": (
        *("id", "provider", "first_day", "last_day", "drift_percent", "threshold_percent", "beyond", "made_at"),
    ),
    "RequestSummary": (
        *("request_id", "started_at", "endpoint", "model", "provider", "status", "outcome", "duration_ms", "price"),
    ),
    "Route": ("name", "match", "groups", "published", "orgs_allowed"),
    "ScheduledPrice": ("id", "state", "model", "provider", "effective_from", "free", "prices"),
    "Transaction": ("id", "created_at", "kind", "amount", "currency", "reason", "reference", "actor_kind", "actor_id"),
}
"""Of lists, by the schema of what is in them. Other things show their first columns that fit in a line. Columns that none of them has
anything in are left out."""

_COLUMNS_MAX: Final = 7
_FIRST: Final = ("id", "name")
_UNINTERESTING: Final = frozenset({"revision", "org_id", "updated_at", "created_by"})
_WIDE: Final = 10_000
_NOTHING: Final = "-"
_EMPTY: Final[Sequence[object]] = (None, "", [], {})


def print_list(schema: str, things: Sequence[Mapping[str, Any]]) -> None:
    """A table of things of one kind."""
    if not things:
        typer.echo("Nothing there.", err=True)
        return
    print_table(columns(schema, things), things)


def print_table(names: Sequence[str], things: Sequence[Mapping[str, Any]]) -> None:
    """A table with these columns."""
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(Text(_heading(name, things)))
    for thing in things:
        table.add_row(*(Text(readable(name, thing.get(name), short=True)) for name in names))
    _print(table)


def print_one(thing: Mapping[str, Any]) -> None:
    """A line for each field."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in _flat(thing):
        table.add_row(Text(name, "bold"), Text(readable(name.rpartition(".")[2], value, short=False)))
    _print(table)


def print_json(document: bytes) -> None:
    """An answer as it came."""
    sys.stdout.buffer.write(document if document.endswith(b"\n") else document + b"\n")
    sys.stdout.buffer.flush()


def require_readable(media_type: str) -> None:
    """Keep what is no text from a terminal.

    Raises:
        UsageError: it would go there.
    """
    if sys.stdout.isatty() and not media_type.startswith("text/"):
        raise UsageError(f"{media_type} is not for a terminal; name a file with --out")


def write_file(content: bytes, file: Path | None) -> None:
    """A file as it came, to its place or to standard output.

    Raises:
        UsageError: it cannot be written there.
    """
    if file is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    try:
        file.write_bytes(content)
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}") from None


def columns(schema: str, things: Sequence[Mapping[str, Any]]) -> Sequence[str]:
    """The columns of a table: those that somebody has something in."""
    if schema in COLUMNS:
        return _used(COLUMNS[schema], things)
    simple = [name for name, value in things[0].items() if not isinstance(value, dict) and name not in _UNINTERESTING]
    simple.sort(key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    return _used(simple, things)[:_COLUMNS_MAX] or list(things[0])[:_COLUMNS_MAX]


def _used(names: Sequence[str], things: Sequence[Mapping[str, Any]]) -> Sequence[str]:
    return [name for name in names if any(thing.get(name) not in _EMPTY for thing in things)]


def readable(name: str, value: Any, *, short: bool) -> str:
    """A value as people write it.

    Args:
        name: of the field; its end tells the unit.
        value: as in the answer.
        short: whether it stands in a table.
    """
    match value:
        case _ if value in _EMPTY:
            return _NOTHING
        case bool():
            return "yes" if value else "no"
        case int() if name.endswith("_nano_usd"):
            return f"${format_usd(NanoUsd(value))}"
        case str() if name.endswith("_usd"):
            return f"${value}"
        case str() if _is_moment(name):
            return _moment(value, short=short)
        case str() | int() | float():
            return printable(str(value))
        case list() if all(isinstance(item, str | int) for item in value):
            return printable(", ".join(map(str, value)))
        case [{"meter": _}, *_] if short:
            return ", ".join(map(_price, value))
        case {"decision": str() as decision} if short:
            return printable(decision)
        case list() if all(isinstance(item, dict) for item in value):
            return ("; " if short else "\n").join(map(_line, value))
        case dict():
            return _line(value)
        case _:
            return printable(json.dumps(value, ensure_ascii=False, indent=None if short else 2))


def printable(text: str) -> str:
    """Text without what would move a terminal's cursor or colour its letters."""
    return "".join(
        character if character.isprintable() or character == "\n" else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def _line(thing: Mapping[str, Any]) -> str:
    """Something with parts, within a line; what it has nothing in is left out."""
    parts = ((name, readable(name, value, short=True)) for name, value in thing.items())
    return ", ".join(f"{printable(name)} {said}" for name, said in parts if said != _NOTHING) or _NOTHING


def _price(price: Mapping[str, Any]) -> str:
    """What a tenant pays for a meter."""
    said = printable(f"{price['meter']} ${price['price'] or price['cost']} per {price['unit']}")
    return f"{said} ({_line(price['condition'])})" if price["condition"] else said


def _heading(name: str, things: Iterable[Mapping[str, Any]]) -> str:
    """The name of a column; of times, with the zones that they are shown in, which in summer and winter may be two."""
    words = name.removesuffix("_nano_usd").replace("_", " ")
    if not _is_moment(name):
        return words
    moments = (_local(thing[name]) for thing in things if isinstance(thing.get(name), str))
    zones = sorted({f"{moment:%Z}" for moment in moments if moment is not None})
    return f"{words} ({'/'.join(zones)})" if zones else words


def _is_moment(name: str) -> bool:
    return name.endswith(("_at", "_until", "_from")) or name == "at"


def _local(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        return None


def _moment(text: str, *, short: bool) -> str:
    moment = _local(text)
    if moment is None:
        return printable(text)
    return f"{moment:%Y-%m-%d %H:%M}" if short else f"{moment:%Y-%m-%d %H:%M:%S %Z}"


def _flat(thing: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in thing.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _print(table: Table) -> None:
    if sys.stdout.isatty():
        Console().print(table)
        return
    # A pipe has no width: what reads it wants a thing a line, and no blanks behind it.
    console = Console(width=_WIDE)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        typer.echo(line.rstrip())
