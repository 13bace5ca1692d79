import math
from collections import Counter

import pytest

from gateway_core.histograms import GROWTH, duration_of, percentiles


def bucket(duration: int) -> int:
    return math.ceil(math.log(duration + 1) / math.log(GROWTH))


@pytest.mark.parametrize("duration", [0, 1, 2, 9, 99, 12_345, 86_400_000, 10**12])
def test_what_stands_for_a_bucket_is_within_a_percent_of_what_is_in_it(duration: int) -> None:
    assert duration_of(bucket(duration)) + 1 == pytest.approx(duration + 1, rel=0.0101)


def test_nobody_knows_how_long_nothing_took() -> None:
    assert percentiles({}, (0.5,)) is None


def test_percentiles_are_those_of_everything_that_was_counted() -> None:
    durations = [*range(1, 100), 10_000]
    found = percentiles(Counter(map(bucket, durations)), (0.0, 0.5, 0.99, 1.0))
    assert found == pytest.approx([1, 50, 99, 10_000], rel=0.011, abs=0.02)
