"""In what state a provider is, or one of its models: whether it gets requests, and if not, why and until when. Pure values."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from gateway_core.ids import ProviderName


class Condition(StrEnum):
    """What a provider can be."""

    HEALTHY = "healthy"
    COOLING = "cooling"
    """Over its limits, by its own word."""
    DOWN = "down"
    """It has failed again and again."""
    PAUSED = "paused"
    """An operator wants it to get nothing."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a state is of: a provider, or one of its models under its own name for it."""

    provider: ProviderName
    upstream_model: str | None = None

    @property
    def whole(self) -> "Subject":
        """The provider of it."""
        return Subject(self.provider)


@dataclass(frozen=True, slots=True)
class ProviderState:
    """A state.

    Attributes:
        until: when it ends by itself; None: it does not.
        why: in words; None of who is healthy.
        times: how often it has been out, each time soon after the last, this time included.
        by_probe: of who is down: whether a probe that is answered shows that it is well.
    """

    condition: Condition
    since: datetime
    until: datetime | None = None
    why: str | None = None
    times: int = 0
    by_probe: bool = False

    @property
    def is_out(self) -> bool:
        """Whether it gets no requests, as long as somebody else can."""
        return self.condition is not Condition.HEALTHY

    def __str__(self) -> str:
        """In words, for operators."""
        until = "" if self.until is None else f" until {self.until:%Y-%m-%d %H:%M:%S} UTC"
        return f"{self.condition}{until}" + ("" if self.why is None else f": {self.why}")
