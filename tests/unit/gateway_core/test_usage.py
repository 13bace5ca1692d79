"""The words of providers and clients for a service tier."""

import pytest

from gateway_core.usage import STANDARD, InvalidTierError, asked_service_tier, service_tier


@pytest.mark.parametrize("word", [None, "", "auto", "default", "standard", "standard_only", "ON_DEMAND", "unspecified"])
def test_what_names_no_tier_of_its_own_was_served_at_the_standard_one(word: str | None) -> None:
    assert service_tier(word) == STANDARD


@pytest.mark.parametrize(
    ("word", "tier"),
    [
        ("flex", "flex"),
        ("priority", "priority"),
        ("scale", "scale"),
        ("batch", "batch"),
        ("FLEX", "flex"),
        ("ON_DEMAND_PRIORITY", "priority"),
        ("PROVISIONED_THROUGHPUT", "provisioned_throughput"),
    ],
)
def test_any_other_word_is_a_tier_whether_it_was_heard_of_or_not(word: str, tier: str) -> None:
    assert service_tier(word) == tier


@pytest.mark.parametrize("word", [None, "", "auto"])
def test_who_asks_for_no_tier_leaves_the_choice_to_the_provider(word: str | None) -> None:
    assert asked_service_tier(word) is None


@pytest.mark.parametrize(
    ("word", "tier"),
    [("default", STANDARD), ("standard_only", STANDARD), ("flex", "flex"), ("fast", "priority")],
)
def test_a_tier_that_is_asked_for_is_the_one_it_is_priced_as(word: str, tier: str) -> None:
    assert asked_service_tier(word) == tier


@pytest.mark.parametrize("word", ["two words", "-", "1st", "x" * 41, "fl\u00e9x", "flex\n"])
def test_what_is_no_word_is_no_tier(word: str) -> None:
    with pytest.raises(InvalidTierError):
        service_tier(word)
    with pytest.raises(InvalidTierError):
        asked_service_tier(word)
