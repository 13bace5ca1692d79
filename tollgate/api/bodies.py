"""The body of a call: what a file says, over it what options say, and the secrets that neither may hold."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import typer

from tollgate.api.document import Field, Kind
from tollgate.api.options import Given, flag, missing
from tollgate.errors import UsageError
from tollgate.yaml_text import YamlTextError, parse

STANDARD_INPUT: Final = Path("-")


def assemble(fields: Sequence[Field], given: Given, file: Path | None, *, changes: bool) -> dict[str, Any]:
    """The whole body.

    Args:
        fields: those of the schema.
        given: by options, which win over the file.
        file: JSON or YAML; `-` is standard input.
        changes: whether an empty body would change nothing.

    Raises:
        UsageError: something required is missing, nothing is to be changed, or a file cannot be read.
    """
    from_input = [flag(field) for field in fields if given.secret_files.get(field.name) == STANDARD_INPUT]
    if len(from_input) + (file == STANDARD_INPUT) > 1:
        raise UsageError("standard input can be read once; give a file for the others")
    body = {} if file is None else read_file(file)
    body |= given.values
    for name, path in given.secret_files.items():
        body[name] = _text(path).rstrip("\r\n")
    for field in missing(fields, body):
        if field.kind is Kind.SECRET and sys.stdin.isatty():
            body[field.name] = typer.prompt(field.name.replace("_", " ").capitalize(), hide_input=True, err=True)
    if absent := missing(fields, body):
        raise UsageError("\n".join(f"missing option {flag(field)}" for field in absent))
    if changes and not body and fields:
        raise UsageError(f"nothing to change; give {', '.join(flag(field) for field in fields)} or --body")
    return body


def read_file(path: Path) -> dict[str, Any]:
    """A file with a JSON or YAML object.

    Raises:
        UsageError: it cannot be read, or holds something else.
    """
    text = _text(path)
    try:
        document = _parsed(text)
    except (YamlTextError, RecursionError) as error:
        raise UsageError(f"--body: {path} is neither JSON nor YAML ({error})") from None
    if not isinstance(document, Mapping):
        raise UsageError(f"--body: {path} does not hold an object with named fields")
    return dict(document)


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return parse(text).value


def _text(path: Path) -> str:
    try:
        return sys.stdin.read() if path == STANDARD_INPUT else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"{path} cannot be read: {reason}") from None
