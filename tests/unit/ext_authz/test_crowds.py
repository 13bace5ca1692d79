"""One organisation leaves half of the places to the others."""

from contextlib import ExitStack

from ext_authz.crowds import Crowds
from gateway_core.ids import OrgId

ADA, EVE = OrgId("org_ada"), OrgId("org_eve")


def test_an_organisation_has_half_of_the_places_and_gets_them_back() -> None:
    crowds = Crowds(7)
    with ExitStack() as present:
        assert [present.enter_context(crowds.of(EVE)) for _ in range(5)] == [True, True, True, False, False]
        assert present.enter_context(crowds.of(ADA))
    with crowds.of(EVE) as has_place:
        assert has_place
