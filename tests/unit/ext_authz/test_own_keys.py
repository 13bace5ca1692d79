"""Whose own keys count for a request: those of the change that its Envoy has come to."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from ext_authz.decision import Admitted, Refused, decide
from ext_authz.own_keys import FORMER_MAX, NONE, OVERLAP, OwnKeyBook, OwnKeys
from gateway_core.endpoints import Endpoint
from gateway_core.errors import MODEL_CHANGING, OWN_KEY_NOT_OFFERED
from gateway_core.ids import OrgId, ProviderName
from gateway_core.mode import Mode
from tests.support.admission import KEY, PROVIDER, offers, price
from tests.unit.ext_authz.test_decision import ASKED

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ORG, OTHER = OrgId("org_1"), OrgId("org_2")
KEYS = OwnKeys({ProviderName("p"): False})


def book(as_of: int, *orgs: OrgId) -> OwnKeyBook:
    return OwnKeyBook(as_of, dict.fromkeys(orgs, KEYS))


def test_an_envoy_that_says_nothing_has_none() -> None:
    assert book(3, ORG).find(ORG, None, NOW) == NONE


def test_an_envoy_behind_is_answered_by_what_it_has_for_a_while() -> None:
    given = book(5, ORG).after(book(3), NOW)
    assert (given.find(ORG, 3, NOW), given.find(ORG, 5, NOW)) == (NONE, KEYS)
    assert given.find(ORG, 3, NOW + OVERLAP) is None
    taken = book(7).after(given, NOW)
    assert (taken.find(ORG, 5, NOW), taken.find(ORG, 7, NOW)) == (KEYS, NONE)
    assert taken.find(ORG, 5, NOW + OVERLAP) == NONE


def test_an_envoy_ahead_is_waited_for_only_by_who_has_keys() -> None:
    found = book(3, ORG)
    assert found.find(ORG, 4, NOW) is None
    assert found.find(OTHER, 4, NOW) == NONE


def test_another_reading_of_the_same_change_is_remembered_once_and_there_are_few_in_all() -> None:
    found = book(0)
    for as_of in range(1, FORMER_MAX * 2):
        found = book(as_of, ORG).after(found, NOW)
        found = book(as_of, ORG).after(found, NOW)
    assert len(found.former) == FORMER_MAX
    assert len({each.as_of for each in found.former}) == FORMER_MAX


@pytest.mark.parametrize(
    ("falls_back", "fee_ppm", "share"), [(False, 0, 0), (False, 250_000, 4), (True, 250_000, 1), (True, 0, 1)]
)
def test_what_is_held_is_the_fee_or_where_ours_may_be_tried_the_usual_price(
    falls_back: bool, fee_ppm: int, share: int
) -> None:
    """`share`: of the usual hold, as its divisor; 0 for nothing."""
    offered = offers(chat=(price(input_=4_000_000, output=4_000_000),))
    usual = decide(ASKED, KEY, offered, now=NOW)
    own = OwnKeyBook(3, {KEY.org_id: OwnKeys({PROVIDER: falls_back})})
    with_own = replace(offered, own_keys=own, own_key_fees_ppm={PROVIDER: fee_ppm})
    found = decide(replace(ASKED, own_keys_as_of=3), KEY, with_own, now=NOW)
    assert isinstance(usual, Admitted)
    assert isinstance(found, Admitted)
    assert found.hold_nano_usd == (usual.hold_nano_usd or 0) // share if share else found.hold_nano_usd == 0
    assert found.own_keys == {PROVIDER: falls_back}


def test_a_request_that_may_be_sent_either_way_waits() -> None:
    offered = replace(offers(chat=(price(input_=1),)), own_keys=OwnKeyBook(3, {KEY.org_id: KEYS}))
    found = decide(replace(ASKED, own_keys_as_of=4), KEY, offered, now=NOW)
    assert isinstance(found, Refused)
    assert found.error is MODEL_CHANGING


def test_test_keys_go_to_the_simulator_as_ever() -> None:
    own = OwnKeyBook(3, {KEY.org_id: OwnKeys({PROVIDER: False})})
    offered = replace(offers(chat=(price(input_=1),)), own_keys=own)
    asked = replace(ASKED, mode=Mode.TEST, own_keys_as_of=3)
    found = decide(asked, replace(KEY, mode=Mode.TEST), offered, now=NOW)
    assert isinstance(found, Admitted)
    assert not found.own_keys


def test_no_session_is_sent_with_an_own_key_and_none_with_another_in_its_place() -> None:
    own = OwnKeyBook(3, {KEY.org_id: OwnKeys({PROVIDER: True})})
    offered = replace(offers(realtime=(price(input_=1, output=1),)), own_keys=own)
    asked = replace(ASKED, endpoint=Endpoint.REALTIME, own_keys_as_of=3)
    found = decide(asked, KEY, offered, now=NOW)
    assert isinstance(found, Refused)
    assert found.error is OWN_KEY_NOT_OFFERED
    stranger = decide(asked, replace(KEY, org_id=OTHER), offered, now=NOW)
    assert isinstance(stranger, Admitted) or stranger.error is not OWN_KEY_NOT_OFFERED


def test_what_is_to_be_kept_or_names_what_is_kept_is_sent_with_no_key_in_the_place_of_an_own_one() -> None:
    own = OwnKeyBook(3, {KEY.org_id: OwnKeys({PROVIDER: True})})
    offered = replace(offers(stored_responses=(price(input_=1, output=1),)), own_keys=own)
    asked = replace(ASKED, endpoint=Endpoint.STORED_RESPONSES, own_keys_as_of=3)
    found = decide(asked, KEY, offered, now=NOW)
    assert isinstance(found, Refused)
    assert found.error is OWN_KEY_NOT_OFFERED
