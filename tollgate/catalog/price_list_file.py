"""A public list of models and prices in a file, and what of it becomes a document.

The list is sent as it stands in the file: read and written again, its numbers would not be the same.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tollgate.catalog.document_file import name_of, path, read_text, steps_of
from tollgate.errors import UsageError
from tollgate.refusals import Place, of_options

_CONTENT: Final = "content"
_OPTIONS: Final = {"models": "--model", "providers": "--provider", "provider_base_urls": "--provider-base-url"}


@dataclass(frozen=True, slots=True)
class PriceListFile:
    """A list and where it stands."""

    name: str
    text: str = field(repr=False)
    content: Mapping[str, Any] = field(repr=False)

    def place(self, pointer: str) -> str:
        """Where a JSON pointer into the body leads to: into the list, or to an option."""
        prefix = f"/{_CONTENT}"
        if pointer == prefix or pointer.startswith(f"{prefix}/"):
            return f"{self.name}: {self.entry(pointer.removeprefix(prefix))}".removesuffix(": ")
        return _OPTION_PLACE(pointer)

    def entry(self, pointer: str) -> str:
        """What a JSON pointer into the list names; an item of an array by its id, if it has one."""
        steps = steps_of(pointer)
        value: Any = self.content
        for number, step in enumerate(steps, 1):
            if isinstance(value, list) and step.isdecimal() and int(step) < len(value):
                value = value[int(step)]
                if isinstance(value, dict) and isinstance(value.get("id"), str):
                    return path(value, (value["id"], *steps[number:]))
            else:
                value = value.get(step) if isinstance(value, dict) else None
        return path(self.content, steps)

    def body(self, kind: str, models: Sequence[str], providers: Sequence[str], base_urls: Mapping[str, str]) -> bytes:
        """What is sent."""
        choice = {"format": kind, "models": models, "providers": providers, "provider_base_urls": base_urls}
        return f'{json.dumps(choice).removesuffix("}")}, "{_CONTENT}": {self.text}}}'.encode()


_OPTION_PLACE: Final[Place] = of_options(_OPTIONS.get)


def read(file: Path) -> PriceListFile:
    """The list in a file.

    Raises:
        UsageError: it cannot be read, or is no JSON object.
    """
    text = read_text(file)
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"{name_of(file)}:{error.lineno}: not JSON") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{name_of(file)} is not JSON") from None
    if not isinstance(content, dict):
        raise UsageError(f"{name_of(file)} does not hold a JSON object")
    return PriceListFile(name_of(file), text, content)


def in_words_of_options(reason: str) -> str:
    """Why something was skipped; where the API says which field helps, the option that it is."""
    return re.sub(r"\bprovider_base_urls\b", _OPTIONS["provider_base_urls"], reason)
