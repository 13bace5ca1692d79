"""Durations by the bucket they fall into, so that what was counted apart can be added up, and how long most took is known of the sum. Pure.

A bucket ends 2 % behind where the one before it does, so what is told of it is within 1 %. Counts of buckets add up to the same numbers in
whatever order, which no sketch of percentiles promises.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

GROWTH: Final = 1.02

_MIDDLE: Final = 2 / (1 + 1 / GROWTH)
"""Between the ends of a bucket, as a share of its lower end, less the same of its upper end."""


def bucket_sql(duration: str) -> str:
    """The bucket of a duration, zero or more, as an expression of ClickHouse: the first one whose end is not before it."""
    return f"toUInt16(ceil(log({duration} + 1) / log({GROWTH})))"


def counted_sql(duration: str) -> str:
    """A column that may be null, as an aggregate of ClickHouse: Map(UInt16, UInt64) of how many fell into each bucket."""
    return f"sumMapIf(map({bucket_sql(f'assumeNotNull({duration})')}, toUInt64(1)), isNotNull({duration}))"


def duration_of(bucket: int) -> float:
    """What stands for everything in a bucket, in the unit of what was counted."""
    return GROWTH ** (bucket - 1) * _MIDDLE - 1 if bucket else 0.0


def percentile_sql(counts: str, share: float) -> str:
    """What `percentiles` tells of one share, as an expression of ClickHouse; NULL where nothing was counted.

    Args:
        counts: an expression whose value is Map(UInt16, UInt64), ascending by bucket as sumMap makes it.
        share: between 0 and 1.
    """
    reached = f"arrayFirstIndex(seen -> seen >= ceil({share} * arraySum(mapValues({counts}))), arrayCumSum(mapValues({counts})))"
    bucket = f"mapKeys({counts})[{reached}]"
    return f"multiIf(length({counts}) = 0, NULL, {bucket} = 0, 0, pow({GROWTH}, toFloat64({bucket}) - 1) * {_MIDDLE!r} - 1)"


def percentiles(counts: Mapping[int, int], wanted: Sequence[float]) -> list[float] | None:
    """How long so large a share took at the most; None where nothing was counted.

    Args:
        counts: how many fell into each bucket.
        wanted: shares between 0 and 1, ascending.
    """
    total = sum(counts.values())
    if not total:
        return None
    found: list[float] = []
    seen = 0
    for bucket, count in sorted(counts.items()):
        seen += count
        while len(found) < len(wanted) and seen >= math.ceil(wanted[len(found)] * total):
            found.append(duration_of(bucket))
    return found
