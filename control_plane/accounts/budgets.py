"""Budgets of keys and projects, between columns in nano-USD and the fields of the API. Pure, of a row that was read."""

from typing import Final

import asyncpg

from gateway_core.money import NanoUsd, format_usd, parse_usd

PERIODS: Final = ("day", "month")

PER_DAY: Final = "What its requests may cost in a day of the organisation's time zone; null: no limit but the balance."
PER_MONTH: Final = "The same in a calendar month."


def budgets_shown(row: asyncpg.Record) -> dict[str, str | None]:
    """The fields of a key or a project, from its columns."""
    return {f"budget_per_{period}_usd": _usd(row[f"budget_per_{period}_nano_usd"]) for period in PERIODS}


def limit_nano_usd(amount: str | None) -> NanoUsd | None:
    """The column of a field."""
    return None if amount is None else parse_usd(amount)


def _usd(limit: NanoUsd | None) -> str | None:
    return None if limit is None else format_usd(limit)
