"""How fast and how widely a key may use the gateway. Pure."""

from dataclasses import dataclass
from typing import Final

WINDOW_S: Final = 61
"""What requests and tokens are counted over, in whole seconds with the one that has begun: no minute, wherever it begins, has more."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a key may do; None is no limit, and one at least is there.

    Attributes:
        requests_per_minute: begun in any minute.
        tokens_per_minute: read and written by the requests begun in any minute.
        concurrency: requests at once.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
