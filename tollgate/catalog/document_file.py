"""A catalogue in a file: read, with the secrets it names in its environment, and written.

A fault that the API points at with a JSON pointer is told with the line and the path in the file.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tollgate import yaml_text
from tollgate.errors import CommandError, UsageError
from tollgate.yaml_text import Steps, YamlTextError

STANDARD_STREAM: Final = Path("-")
"""Standard input to what reads, standard output to what writes."""

BYTES_MAX: Final = 16 * 1024 * 1024
"""As the API has it."""

CREDENTIAL: Final = "credential"
CREDENTIAL_FROM_ENV: Final = "credential_from_env"
_PROVIDERS: Final = "providers"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SIMPLE: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class DocumentFile:
    """A document and where it stands.

    Attributes:
        name: of the file, for people.
        content: what is sent; it may have credentials in it.
        warnings: what is better done in another way.
    """

    name: str
    content: Mapping[str, Any] = field(repr=False)
    lines: Mapping[Steps, int] = field(repr=False)
    warnings: tuple[str, ...] = ()

    def place(self, pointer: str) -> str:
        """Where a JSON pointer leads to, as `catalog.yaml:7: providers.openai.base_url`."""
        if pointer and not pointer.startswith("/"):
            return pointer
        steps = steps_of(pointer)
        known = next(steps[:length] for length in range(len(steps), -1, -1) if steps[:length] in self.lines)
        return ": ".join(part for part in (f"{self.name}:{self.lines[known]}", path(self.content, steps)) if part)


def read(file: Path, environment: Mapping[str, str]) -> DocumentFile:
    """The document in a file, with the credentials that it names.

    Raises:
        UsageError: it cannot be read, is no document, or a variable that it names is not set.
    """
    name = name_of(file)
    try:
        parsed = yaml_text.parse(read_text(file))
    except YamlTextError as error:
        place = name if error.line is None else f"{name}:{error.line}"
        raise UsageError(f"{place}: {error.problem}") from None
    if not isinstance(parsed.value, dict):
        raise UsageError(f"{name} holds no catalogue; one without anything is written {{}}")
    return _with_credentials(DocumentFile(name, parsed.value, parsed.lines), environment)


def name_of(file: Path) -> str:
    """What it is called in a message."""
    return "standard input" if file == STANDARD_STREAM else str(file)


def read_text(file: Path) -> str:
    """All of a file, if it is not too large to be sent.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        if file == STANDARD_STREAM:
            content = sys.stdin.buffer.read(BYTES_MAX + 1)
        else:
            with file.open("rb") as opened:
                content = opened.read(BYTES_MAX + 1)
        if len(content) > BYTES_MAX:
            raise UsageError(f"{name_of(file)} is larger than {BYTES_MAX // 1024**2} MiB")
        return content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UsageError(f"{name_of(file)} cannot be read: {reason}") from None


def as_yaml(document: Mapping[str, Mapping[str, Any]]) -> str:
    """A document for version control: its sections in the order in which they build on each other, all else sorted."""
    return yaml_text.dump({section: _sorted(things) for section, things in document.items()})


def write(text: str, file: Path | None, *, force: bool) -> None:
    """Write a document to a file, or to standard output.

    Raises:
        CommandError: there is such a file already.
    """
    if file is None or file == STANDARD_STREAM:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
        return
    try:
        with file.open("w" if force else "x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise CommandError(f"{file} is there already; --force overwrites it") from None


def steps_of(pointer: str) -> Steps:
    """The steps of a JSON pointer."""
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])


def path(value: object, steps: Steps) -> str:
    """A path as people write it: `prices."gpt-4.1".openai.prices[0].cost`; the value tells what is a list."""
    text = ""
    for step in steps:
        if isinstance(value, list) and step.isdecimal():
            text += f"[{step}]"
            value = value[int(step)] if int(step) < len(value) else None
        else:
            said = step if _SIMPLE.fullmatch(step) else json.dumps(step)
            text += f".{said}" if text else said
            value = value.get(step) if isinstance(value, dict) else None
    return text


def _with_credentials(file: DocumentFile, environment: Mapping[str, str]) -> DocumentFile:
    """The same, with the value of each variable in the place of its name."""
    given = file.content.get(_PROVIDERS)
    if not isinstance(given, dict):
        return file  # the API says what is wrong with it
    providers, lines = dict(given), dict(file.lines)
    faults, warnings = [], []
    for name, steps, spec in _specs(given):
        place = file.place(f"{_pointer(*steps)}/{CREDENTIAL_FROM_ENV}")
        if CREDENTIAL_FROM_ENV not in spec:
            if spec.get(CREDENTIAL) is not None:
                where = file.place(f"{_pointer(*steps)}/{CREDENTIAL}")
                warnings.append(f"{where} is in the clear; {CREDENTIAL_FROM_ENV} takes it from a variable")
            continue
        variable = spec[CREDENTIAL_FROM_ENV]
        if CREDENTIAL in spec:
            faults.append(f"{place}: not together with {CREDENTIAL}")
        elif not isinstance(variable, str) or not _VARIABLE.fullmatch(variable):
            faults.append(f"{place}: not the name of an environment variable")
        elif not environment.get(variable):
            faults.append(f"{place}: the environment variable {variable} of the provider {name} is not set")
        else:
            others = {each: value for each, value in spec.items() if each != CREDENTIAL_FROM_ENV}
            providers[name] = others | {CREDENTIAL: environment[variable]}
            lines[*steps, CREDENTIAL] = lines[*steps, CREDENTIAL_FROM_ENV]
    if faults:
        raise UsageError("\n".join(["not every provider's credential is clear", *(f"  {fault}" for fault in faults)]))
    return DocumentFile(file.name, {**file.content, _PROVIDERS: providers}, lines, tuple(warnings))


def _specs(providers: Mapping[str, Any]) -> Iterator[tuple[str, Steps, Mapping[str, Any]]]:
    for name, spec in providers.items():
        if isinstance(spec, dict):
            yield name, (_PROVIDERS, name), spec


def _pointer(*steps: str) -> str:
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
