import random

import pytest

from billing_sink.prices import DeploymentKey, PriceBook, UnknownPriceError
from gateway_core.ids import ModelName, OrgId, PriceVersion, ProviderName
from gateway_core.pricing import LIST_TERMS, OrgTerms, OwnKeyFee, PriceRow, Rate
from gateway_core.usage import Meter

KEY: DeploymentKey = (ModelName("m"), ProviderName("p"))
OTHER: DeploymentKey = (ModelName("m"), ProviderName("q"))
ORG = OrgId("org_1")


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


def test_a_book_that_is_continued_is_the_book_that_is_read_at_once() -> None:
    rows = [(key, row(version)) for key in (KEY, OTHER) for version in (3, 7, 10)]
    terms = [(ORG, OrgTerms(PriceVersion(version), version)) for version in (4, 8)]
    fees = [(KEY[1], OwnKeyFee(PriceVersion(version), version)) for version in (5, 9)]
    begun = PriceBook.of(PriceVersion(7), [each for each in rows if each[1].version <= 7], terms[:1], fees[:1])
    newer = [each for each in rows if each[1].version > 7]
    assert begun.with_newer(PriceVersion(99), newer, terms[1:], fees[1:]) == PriceBook.of(
        PriceVersion(99), rows, terms, fees
    )


@pytest.mark.parametrize(("version", "markup"), [(3, 0), (4, 40), (6, 40), (7, 70), (1000, 70)])
def test_terms_are_those_in_force_at_the_version_and_before_the_first_there_are_list_prices(
    version: int, markup: int
) -> None:
    terms = [(ORG, OrgTerms(PriceVersion(each), each * 10)) for each in (7, 4)]
    found = PriceBook.of(PriceVersion(99), [], terms).terms(ORG, *KEY, PriceVersion(version))
    assert found.markup_ppm == markup


def test_another_organisations_terms_are_not_used() -> None:
    found = PriceBook.of(PriceVersion(99), [], [(ORG, OrgTerms(PriceVersion(1), 10))])
    assert found.terms(OrgId("org_2"), *KEY, PriceVersion(5)) == LIST_TERMS
    assert found.terms(None, *KEY, PriceVersion(5)) == LIST_TERMS
