"""What a reading remembers of those before it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ext_authz.offers import FORMER_MAX, OVERLAP, Offer, Offers, PricedDeployment
from gateway_core.endpoints import Endpoint
from gateway_core.ids import ModelName, OrgId, PriceVersion, ProviderName
from gateway_core.offering import Offering
from gateway_core.pricing import OrgTerms
from tests.support.admission import price

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAME, PROVIDER = ModelName("fast"), ProviderName("p")


def offer(model: str, *upstream_models: str, input_: int = 1) -> Offer:
    """A model at `p`, `p1`, ... under these names."""
    deployments = tuple(
        PricedDeployment(ProviderName(f"p{number or ''}"), upstream, price(input_=input_))
        for number, upstream in enumerate(upstream_models)
    )
    return Offer(ModelName(model), 1000, 100, frozenset(), {Endpoint.CHAT: deployments})


def reading(version: int, offered: Offer | None) -> Offers:
    return Offers(PriceVersion(version), {} if offered is None else {NAME: offered}, {})


def found(offers: Offers, model: str, upstream: str, *, now: datetime = NOW) -> int | None:
    """The version of the reading that a route to this model at `p` is of."""
    standing = offers.standing_for(NAME, Endpoint.CHAT, Offering(ModelName(model), {PROVIDER: upstream}), now)
    return None if standing is None else standing.version


def test_a_name_that_was_moved_is_still_found_as_what_it_was_for_a_while() -> None:
    offers = reading(2, offer("dear", "up/d")).after(reading(1, offer("cheap", "up/c")), NOW)
    assert (found(offers, "dear", "up/d"), found(offers, "cheap", "up/c")) == (2, 1)
    assert found(offers, "cheap", "up/d") is None
    assert found(offers, "cheap", "up/c", now=NOW + OVERLAP) is None
    assert found(offers, "dear", "up/d", now=NOW + OVERLAP) == 2


def test_a_name_that_is_moved_back_is_found_in_the_newest_reading() -> None:
    cheap, dear = offer("cheap", "up/c"), offer("dear", "up/d")
    offers = reading(3, cheap).after(reading(2, dear).after(reading(1, cheap), NOW), NOW)
    assert (found(offers, "cheap", "up/c"), found(offers, "dear", "up/d")) == (3, 2)


def test_a_deployment_under_another_name_of_the_providers_is_another_one() -> None:
    offers = reading(2, offer("m", "up/new")).after(reading(1, offer("m", "up/old")), NOW)
    assert (found(offers, "m", "up/new"), found(offers, "m", "up/old")) == (2, 1)


def test_a_route_that_names_fewer_providers_is_covered_and_one_that_names_more_is_not() -> None:
    offers = reading(1, offer("m", "up", "up1"))
    assert found(offers, "m", "up") == 1
    both = Offering(ModelName("m"), {PROVIDER: "up", ProviderName("p1"): "up1", ProviderName("p2"): "up2"})
    assert offers.standing_for(NAME, Endpoint.CHAT, both, NOW) is None


def test_a_new_price_moves_nothing() -> None:
    offers = reading(2, offer("m", "up", input_=7)).after(reading(1, offer("m", "up")), NOW)
    assert offers.former == ()
    assert found(offers, "m", "up") == 2


def test_what_is_remembered_is_bounded_in_time_and_number() -> None:
    offers = reading(0, offer("m0", "up"))
    for version in range(1, FORMER_MAX + 10):
        offers = reading(version, offer(f"m{version}", "up")).after(offers, NOW)
    assert len(offers.former) == FORMER_MAX
    later = reading(10_000, None).after(offers, NOW + OVERLAP)
    assert [each.version for each in later.former] == [offers.version]


def test_terms_that_have_not_changed_are_kept_once() -> None:
    terms = {OrgId("org"): OrgTerms(PriceVersion(1), 5)}
    before = replace(reading(1, offer("cheap", "up")), org_terms=terms)
    after = replace(reading(2, offer("dear", "up")), org_terms={**terms}).after(before, NOW + timedelta(seconds=1))
    assert after.org_terms is before.org_terms
