"""Secrets as files: one per name, readable by their owner only, handed to services with TOLLGATE_SECRETS_DIR.

Files and not environment or arguments, because those two are shown by `ps` and inherited by everything started later.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600


def write_private(path: Path, text: str) -> None:
    """Put `text` in place of a file's content in one step; only the owner may read it, from the first moment on."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    unfinished.replace(path)


@dataclass(frozen=True, slots=True)
class SecretFiles:
    """A directory of secrets. A file's name is the secret's name in lower case, as pydantic-settings reads it."""

    directory: Path

    def kept(self, name: str, make: Callable[[], str]) -> str:
        """The secret of that name; made on the first call ever and the same from then on."""
        try:
            return (self.directory / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return self.put(name, make())

    def read(self, names: Iterable[str]) -> Mapping[str, str]:
        """Those of some secrets that are there."""
        paths = {name: self.directory / name for name in names}
        return {name: path.read_text(encoding="utf-8") for name, path in paths.items() if path.exists()}

    def put(self, name: str, value: str) -> str:
        """Write a secret that follows from others, such as a URL with a password in it, and return it."""
        self.directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        write_private(self.directory / name, value)
        return value
