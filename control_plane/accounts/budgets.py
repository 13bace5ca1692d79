"""Budgets of keys and projects, between columns in nano-USD and the fields of the API. Pure."""

from collections.abc import Mapping
from typing import Final

from gateway_core.money import NanoUsd, format_usd, parse_usd

PERIODS: Final = ("day", "month")

PER_DAY: Final = "What its requests may cost in a day of the organisation's time zone; null: no limit but the balance."
PER_MONTH: Final = "The same in a calendar month."


def budgets_shown(columns: Mapping[str, NanoUsd | None]) -> dict[str, str | None]:
    """The fields of a key or a project, from its row."""
    return {f"budget_per_{period}_usd": _usd(columns[f"budget_per_{period}_nano_usd"]) for period in PERIODS}


def limit_nano_usd(amount: str | None) -> NanoUsd | None:
    """The column of a field."""
    return None if amount is None else parse_usd(amount)


def _usd(limit: NanoUsd | None) -> str | None:
    return None if limit is None else format_usd(limit)
