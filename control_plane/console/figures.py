"""Figures as people read them. Pure."""

from datetime import datetime
from decimal import Decimal
from typing import Final

NONE: Final = "—"
"""What stands where there is nothing."""

_WHOLE_CENTS: Final = 2


def usd(amount: str | Decimal | None) -> str:
    """An amount of the API with its sign; cents at least, and every decimal that it has."""
    if amount is None:
        return NONE
    value = Decimal(amount)
    decimals = max(_WHOLE_CENTS, -int(value.normalize().as_tuple().exponent))
    return f"{'-' if value < 0 else ''}${abs(value):,.{decimals}f}"


def count(number: float | Decimal | None) -> str:
    """A number with its thousands apart."""
    return NONE if number is None else f"{number:,.0f}"


def moment(text: str | None) -> str:
    """A moment of the API, in UTC and to the second."""
    return NONE if text is None else f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S}"


def words(name: str) -> str:
    """A name of the API as words: `rolled_back` as `rolled back`."""
    return name.replace("_", " ")
