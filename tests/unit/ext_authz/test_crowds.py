"""Who floods a process leaves places to the others."""

from contextlib import ExitStack

from hypothesis import given
from hypothesis import strategies as st

from ext_authz.crowds import STRANGERS, Crowds
from gateway_core.ids import OrgId

ADA, EVE = OrgId("org_ada"), OrgId("org_eve")


def test_an_organisation_has_half_of_the_places_and_gets_them_back() -> None:
    crowds = Crowds(7)
    with ExitStack() as present:
        assert [present.enter_context(crowds.of(EVE)) for _ in range(5)] == [True, True, True, False, False]
        assert present.enter_context(crowds.of(ADA))
    with crowds.of(EVE) as has_place:
        assert has_place


def test_while_there_is_room_nobody_is_held_to_a_share() -> None:
    crowds = Crowds(1000)
    with ExitStack() as present:
        assert all(present.enter_context(crowds.of(number)) for number in range(400) for _ in range(1))
        assert all(present.enter_context(crowds.of(number)) for number in range(50))


@given(st.lists(st.sampled_from(["a", "b", "c", STRANGERS]), max_size=200))
def test_whatever_crowds_are_there_who_comes_next_finds_a_place(arrivals: list[str]) -> None:
    crowds = Crowds(30)
    with ExitStack() as present:
        taken = sum(present.enter_context(crowds.of(who)) for who in arrivals)
        assert taken <= 30
        assert present.enter_context(crowds.of("who was not there before"))
