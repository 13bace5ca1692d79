"""How this command was reached, so that the commands it prints work when they are pasted in the same place."""

import importlib.util
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

DEFAULT_DATA_DIR = Path(".tollgate")
DATA_DIR_VARIABLE = "TOLLGATE_DATA_DIR"
"""Names another directory in its place, for every command of a shell."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """The beginnings of command lines."""

    tollgate: tuple[str, ...]
    """This program."""
    python: str
    """The Python that runs it."""
    has_sdk: bool
    """Whether that Python has the package `openai`."""
    data_dir: Path | None = None
    """None when it is the one that is meant without saying so."""

    @classmethod
    def of_this_process(cls, data_dir: Path) -> "Invocation":
        """As this process was started; what lies below the working directory is named from there.

        Args:
            data_dir: absolute.
        """
        script = Path(sys.executable).with_name("tollgate")
        found = shutil.which(script.name)
        python = _from_here(Path(sys.executable))
        if found is not None and Path(found) == script:
            tollgate: tuple[str, ...] = (script.name,)
        else:
            tollgate = (_from_here(script),) if script.exists() else (python, "-m", "tollgate")
        is_default = data_dir == DEFAULT_DATA_DIR.resolve()
        has_sdk = importlib.util.find_spec("openai") is not None
        return cls(tollgate, python, has_sdk, None if is_default else data_dir)

    def line(self, command: str, *arguments: str) -> str:
        """A command of this program on the same stack, as one line for a shell."""
        data_dir = () if self.data_dir is None else ("--data-dir", str(self.data_dir))
        return shlex.join([*self.tollgate, command, *data_dir, *arguments])


def _from_here(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
