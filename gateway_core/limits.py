"""How fast and how widely the gateway may be used: by a key, a project or an organisation, and for a model. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

WINDOW_S: Final = 61
"""What requests and tokens are counted over, in whole seconds with the one that has begun: no minute, wherever it begins, has more."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most there may be; None is no limit.

    Attributes:
        requests_per_minute: begun in any minute.
        tokens_per_minute: read and written by the requests begun in any minute.
        concurrency: requests at once.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


NO_LIMITS: Final = Limits()


class Scope(StrEnum):
    """Whose requests are counted together."""

    KEY = "key"
    PROJECT = "project"
    ORGANIZATION = "organization"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class Tally:
    """What is counted together: the requests of one key, project or organisation, or those for one model.

    Attributes:
        name: an id, or the name of a model.
    """

    scope: Scope
    name: str

    def __str__(self) -> str:
        return f"{self.scope}:{self.name}"


@dataclass(frozen=True, slots=True)
class ScopedLimits:
    """The limits of a tally; one of them at least is there."""

    tally: Tally
    limits: Limits


def scoped(scope: Scope, name: str, limits: Limits) -> tuple[ScopedLimits, ...]:
    """Limits as those of a tally, or nothing where none of them is there."""
    return () if limits == NO_LIMITS else (ScopedLimits(Tally(scope, name), limits),)


def tallies_as_text(tallies: Iterable[Tally]) -> str:
    """For a place that takes plain text only."""
    return " ".join(map(str, tallies))


def tokens_per_minute_as_text(limits: Iterable[ScopedLimits]) -> str:
    """The same of how many tokens per minute they may use, in the same order."""
    return " ".join("-" if (most := each.limits.tokens_per_minute) is None else str(most) for each in limits)


def parse_tokens_per_minute(tallies: str, limits: str) -> tuple[ScopedLimits, ...]:
    """What both have written, with no other limits than those.

    Raises:
        ValueError: somebody else has.
    """
    return tuple(
        ScopedLimits(tally, Limits(tokens_per_minute=None if most == "-" else int(most)))
        for tally, most in zip(parse_tallies(tallies), limits.split(), strict=True)
    )


def parse_tallies(text: str) -> tuple[Tally, ...]:
    """What `tallies_as_text` has written.

    Raises:
        ValueError: somebody else has.
    """
    parts = [part.partition(":") for part in text.split()]
    if not all(name for _, _, name in parts):
        raise ValueError("a tally without a name")
    return tuple(Tally(Scope(scope), name) for scope, _, name in parts)
