"""Budgets: what the requests of a key, or of all keys of a project, may cost in a day and in a month. Pure.

What is spent of them and when they renew is the ledger's to say (`billing.place_hold_within_budgets`).
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from gateway_core.money import NanoUsd


class Budget(StrEnum):
    """Whose, and for how long; as the ledger names the one that is in the way."""

    KEY_PER_DAY = "key_per_day"
    KEY_PER_MONTH = "key_per_month"
    PROJECT_PER_DAY = "project_per_day"
    PROJECT_PER_MONTH = "project_per_month"


@dataclass(frozen=True, slots=True)
class Budgets:
    """The limits that a key is under, its own and its project's; None is no limit, and one at least is there.

    Attributes:
        time_zone: of its organisation; by its clock days and months begin.
    """

    time_zone: str
    key_per_day_nano_usd: NanoUsd | None = None
    key_per_month_nano_usd: NanoUsd | None = None
    project_per_day_nano_usd: NanoUsd | None = None
    project_per_month_nano_usd: NanoUsd | None = None


@dataclass(frozen=True, slots=True)
class Exhausted:
    """What was charged leaves less of a budget than a request needs."""

    budget: Budget
    renews_at: datetime

    @property
    def renewal(self) -> str:
        """When it renews, as people and programs read it."""
        return f"{self.renews_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True, slots=True)
class AllHeld:
    """What was charged leaves enough of a budget, but running requests hold it: when one ends, there may be room."""

    budget: Budget
