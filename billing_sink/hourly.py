"""What requests came to by the hour in which they began, for comparing one store with another. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple


class Sums(NamedTuple):
    """Of the requests of an hour in one ledger; amounts in nano-USD."""

    requests: int
    cost: int
    price: int
    absorbed: int


Hours = Mapping[tuple[datetime, str], Sums]
"""By the hour, in UTC, and the mode."""
