"""What a route stands for, as text and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_core.ids import ModelName, ProviderName
from gateway_core.offering import InvalidOfferingError, Offering

names = st.text(min_size=1, max_size=30)


@given(model=names, deployments=st.dictionaries(names, names, min_size=1, max_size=4))
def test_whatever_things_are_called_the_text_is_plain_and_says_the_same(
    model: str, deployments: dict[str, str]
) -> None:
    offering = Offering(ModelName(model), {ProviderName(name): upstream for name, upstream in deployments.items()})
    text = str(offering)
    assert text.isascii()
    assert text.isprintable()
    assert Offering.parse(text) == offering


def test_the_order_in_which_providers_are_tried_makes_no_other_offering() -> None:
    one, two = ProviderName("one"), ProviderName("two")
    first, second = Offering(ModelName("m"), {one: "a", two: "b"}), Offering(ModelName("m"), {two: "b", one: "a"})
    assert str(first) == str(second) == "m one=a two=b"


@pytest.mark.parametrize("text", ["", "m", "m ", "m one", "m one=", "m =a", " one=a", "m one=a "])
def test_text_that_no_route_has_is_refused(text: str) -> None:
    with pytest.raises(InvalidOfferingError):
        Offering.parse(text)
