"""What the command line takes from its environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tollgate.invocation import DATA_DIR_VARIABLE


@dataclass(frozen=True, slots=True)
class Settings:
    """Read once, when a command needs it.

    Attributes:
        server: TOLLGATE_SERVER; None if it is not set.
        data_dir: TOLLGATE_DATA_DIR; None if it is not set.
        token: TOLLGATE_TOKEN. Only here: arguments are shown by `ps` and kept by shells.
        state_directory: where sessions are kept.
    """

    server: str | None
    data_dir: Path | None
    token: str | None = field(repr=False)
    state_directory: Path

    @classmethod
    def load(cls) -> "Settings":
        """From this process's environment."""
        return cls.of(environment())

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> "Settings":
        """From variables; an empty one counts as not set."""
        # The XDG specification has paths that are not absolute ignored.
        given = Path(variables.get("XDG_STATE_HOME", ""))
        state = given if given.is_absolute() else Path.home() / ".local" / "state"
        data_dir = variables.get(DATA_DIR_VARIABLE)
        return cls(
            server=variables.get("TOLLGATE_SERVER") or None,
            data_dir=Path(data_dir) if data_dir else None,
            token=variables.get("TOLLGATE_TOKEN") or None,
            state_directory=state / "tollgate",
        )


def environment() -> Mapping[str, str]:
    """Every variable there is: a file may name some."""
    return os.environ  # noqa: TID251 - this is where it is read
