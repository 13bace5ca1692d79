"""When requests come: the shape of a working day, in whatever time there is. Pure."""

import random
from bisect import bisect_right
from itertools import accumulate
from typing import Final

_BY_HOUR: Final = (2, 1, 1, 1, 1, 2, 4, 8, 14, 19, 21, 20, 15, 18, 21, 20, 18, 14, 9, 7, 6, 5, 4, 3)
"""How busy each hour of the day is, beside the others."""
_SUMS: Final = tuple(accumulate(_BY_HOUR, initial=0))


def moments(rng: random.Random, count: int, seconds: float) -> list[float]:
    """When each of `count` requests begins, in order.

    Args:
        rng: moves each a little from where it would be.
        count: how many.
        seconds: how long the day takes here.

    Returns:
        Seconds from the beginning, from 0 to less than `seconds`.
    """
    return [_moment((number + rng.random()) / count) * seconds for number in range(count)]


def _moment(share: float) -> float:
    """The part of the day that has passed when this share of its requests has begun."""
    begun = share * _SUMS[-1]
    hour = bisect_right(_SUMS, begun) - 1
    return (hour + (begun - _SUMS[hour]) / _BY_HOUR[hour]) / len(_BY_HOUR)
