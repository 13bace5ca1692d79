"""What a command cannot do, and the exit code that tells a script why. The table of them is in the README."""

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What a command ends with."""

    FAILED = 1
    DIFFERENT = 1
    """Of what compares. As `git diff --exit-code` does; what could not be compared ends with 2 or more."""
    USAGE = 2
    """As typer's own."""
    NOT_RUNNING = 3
    """As `systemctl status` does."""
    NOT_LOGGED_IN = 4
    NOT_APPLIED = 5


class CommandError(RuntimeError):
    """The command cannot do what was asked of it; the text is for people and may have several lines."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED


class RefusedError(CommandError):
    """The server understood, and said no."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class UsageError(CommandError):
    """What was asked for is not enough, or too much."""

    exit_code = ExitCode.USAGE


class NotComparedError(CommandError):
    """What would end with 1 where that means a difference."""

    exit_code = ExitCode.USAGE


class UnreachableError(CommandError):
    """There is no server, or it does not answer, or it cannot answer now."""

    exit_code = ExitCode.NOT_RUNNING


class BrokenConnectionError(UnreachableError):
    """The connection was lost on the way: whether the server did what it was asked is not known."""


class NotLoggedInError(CommandError):
    """No credential, or none that the server accepts."""

    exit_code = ExitCode.NOT_LOGGED_IN


class NotAppliedError(CommandError):
    """A change was kept at first, but the gateway did not take it, or not in time."""

    exit_code = ExitCode.NOT_APPLIED
