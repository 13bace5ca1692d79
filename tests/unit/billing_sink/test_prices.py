import random

import pytest

from billing_sink.prices import DeploymentKey, PriceBook, UnknownPriceError
from gateway_core.ids import ModelName, PriceVersion, ProviderName
from gateway_core.pricing import PriceRow, Rate
from gateway_core.usage import Meter

KEY: DeploymentKey = (ModelName("m"), ProviderName("p"))
OTHER: DeploymentKey = (ModelName("m"), ProviderName("q"))


def row(version: int) -> PriceRow:
    return PriceRow(PriceVersion(version), {Meter.INPUT: Rate(version, version)})


def book(*versions: int) -> PriceBook:
    return PriceBook.of(PriceVersion(99), [(KEY, row(version)) for version in versions])


@pytest.mark.parametrize(("asked", "found"), [(3, 3), (4, 3), (6, 3), (7, 7), (8, 7), (10, 10), (1000, 10)])
def test_the_price_in_force_is_the_newest_that_is_not_newer(asked: int, found: int) -> None:
    assert book(3, 7, 10).find(*KEY, PriceVersion(asked)) == row(found)


def test_before_the_first_price_there_is_none() -> None:
    with pytest.raises(UnknownPriceError, match="version 2"):
        book(3, 7).find(*KEY, PriceVersion(2))


@pytest.mark.parametrize("key", [OTHER, (ModelName("x"), ProviderName("p"))])
def test_another_deployments_price_is_not_used(key: DeploymentKey) -> None:
    with pytest.raises(UnknownPriceError):
        book(1).find(*key, PriceVersion(5))


def test_rows_may_come_in_any_order() -> None:
    rows = [(key, row(version)) for key in (KEY, OTHER) for version in range(1, 20)]
    shuffled = random.Random(1).sample(rows, len(rows))
    assert PriceBook.of(PriceVersion(99), shuffled) == PriceBook.of(PriceVersion(99), rows)


def test_an_empty_book_knows_no_price() -> None:
    with pytest.raises(UnknownPriceError):
        PriceBook.of(PriceVersion(0), []).find(*KEY, PriceVersion(0))
