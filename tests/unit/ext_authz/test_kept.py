"""Where a request goes that is about something kept: to the provider that keeps it for this organisation, or nowhere."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from ext_authz.asked import Asked
from ext_authz.decision import Admitted, Refused, decide
from ext_authz.kept import Owned, Place
from ext_authz.offers import Offers
from gateway_core.endpoints import Endpoint
from gateway_core.ids import OrgId, ProviderName
from gateway_core.kept import KeptKind, KeptName, ObjectId
from gateway_core.mode import Mode
from gateway_core.offering import Offering
from gateway_core.pricing import PriceRow, Rates
from gateway_core.providers import ProviderKind
from gateway_core.usage import BATCH
from tests.support.admission import KEY, MODEL, REQUEST_ID, offers, price

NOW = datetime(2026, 1, 1, tzinfo=UTC)
P0, P1, P2 = ProviderName("p0"), ProviderName("p1"), ProviderName("p2")
FILE = KeptName(KeptKind.FILE, ObjectId("file-1"))
RESPONSE = KeptName(KeptKind.RESPONSE, ObjectId("resp_1"))
KINDS = {P0: ProviderKind.OPENAI, P1: ProviderKind.ANTHROPIC, P2: ProviderKind.OPENAI}


def offered(kinds: dict[ProviderName, ProviderKind] = KINDS) -> Offers:
    """The model at p0, for a nano-USD a token, at p1 for ten times and at p2 for a hundred times as much."""
    cheap, dear = price(input_=1, output=1), price(input_=10, output=10)
    dearest = price(input_=100, output=100)
    return replace(offers(chat=(cheap, dear, dearest), stored_responses=(cheap, dear, dearest)), kinds=kinds)


def asking(endpoint: Endpoint, *named: KeptName, mode: Mode = Mode.LIVE, provider: str | None = None) -> Asked:
    return Asked(
        request_id=REQUEST_ID,
        address="192.0.2.1",
        credential="sk",
        mode=mode,
        endpoint=endpoint,
        model=MODEL if endpoint is Endpoint.STORED_RESPONSES else None,
        body_bytes=100,
        has_references=bool(named),
        max_output_tokens=10,
        choices=1,
        named=named,
        provider=None if provider is None else ProviderName(provider),
    )


def decided(asked: Asked, offers: Offers | None = None, **owned: str | None) -> Admitted | Refused:
    """What is decided where the file, or the response, is kept at a provider (None: the simulator)."""
    names = {"file": FILE, "response": RESPONSE}
    places: Owned = {
        names[name]: Place(None if where is None else ProviderName(where)) for name, where in owned.items()
    }
    return decide(asked, replace(KEY, mode=asked.mode), offers or offered(), places, now=NOW)


def error(decision: Admitted | Refused) -> tuple[int, str]:
    assert isinstance(decision, Refused)
    return decision.error.status, decision.error.code


def test_what_is_kept_is_asked_for_where_it_is() -> None:
    decision = decided(asking(Endpoint.FILE, FILE), file="p2")
    assert isinstance(decision, Admitted)
    assert (decision.keeper, decision.output) == ("p2", None)


@pytest.mark.parametrize("endpoint", [Endpoint.FILE, Endpoint.FILE_CONTENT, Endpoint.FILE_DELETE])
def test_what_nobody_of_the_organisation_has_is_not_found(endpoint: Endpoint) -> None:
    assert error(decided(asking(endpoint, FILE), response="p0")) == (404, "not_found")


def test_who_keeps_it_may_not_do_everything_with_it_and_may_be_gone() -> None:
    assert error(decided(asking(Endpoint.FILE, FILE), file="p1")) == (400, "endpoint_not_supported")
    assert error(decided(asking(Endpoint.FILE, FILE), file="gone")) == (400, "endpoint_not_supported")


def test_a_test_key_goes_to_the_simulator_and_names_no_provider() -> None:
    for asked in (asking(Endpoint.FILE, FILE, mode=Mode.TEST), asking(Endpoint.FILE_UPLOAD, mode=Mode.TEST)):
        decision = decided(asked, file=None)
        assert isinstance(decision, Admitted)
        assert decision.keeper is None


def test_a_file_goes_to_the_only_provider_that_could_keep_it_or_to_the_one_that_is_said() -> None:
    one = offered({P0: ProviderKind.OPENAI, P1: ProviderKind.ANTHROPIC, P2: ProviderKind.GROQ})
    decision = decided(asking(Endpoint.FILE_UPLOAD), one)
    assert isinstance(decision, Admitted)
    assert decision.keeper == "p0"
    decision = decided(asking(Endpoint.FILE_UPLOAD, provider="p2"))
    assert isinstance(decision, Admitted)
    assert decision.keeper == "p2"


def sold_at(*, p0: PriceRow, p2: PriceRow, stored_at_p2: bool) -> Offers:
    """The model for chats at p0 and p2, both of which could keep files."""
    found = offers(chat=(p0, p2), **({"stored_responses": (p2,)} if stored_at_p2 else {}))
    offer = found.by_model[MODEL]
    at_p2 = {
        endpoint: tuple(each if each.price is p0 else replace(each, provider=P2) for each in deployments)
        for endpoint, deployments in offer.prices.items()
    }
    return replace(found, by_model={MODEL: replace(offer, prices=at_p2)}, kinds=KINDS)


@pytest.mark.parametrize(
    ("at_p2", "stored_at_p2"),
    [
        (price(input_=1), True),
        (replace(price(input_=1), service_tiers={BATCH: Rates({})}), False),
        (replace(price(), is_free=True), False),
    ],
    ids=["stored responses", "a price of batches", "free of charge"],
)
def test_a_provider_where_no_file_can_be_used_is_chosen_only_by_its_name(
    at_p2: PriceRow, *, stored_at_p2: bool
) -> None:
    found = sold_at(p0=price(input_=1), p2=at_p2, stored_at_p2=stored_at_p2)
    for asked, keeper in ((None, "p2"), ("p0", "p0")):
        decision = decided(asking(Endpoint.FILE_UPLOAD, provider=asked), found)
        assert isinstance(decision, Admitted)
        assert decision.keeper == keeper


def test_where_files_can_be_used_nowhere_all_that_could_keep_them_are_named() -> None:
    found = sold_at(p0=price(input_=1), p2=price(input_=2), stored_at_p2=False)
    decision = decided(asking(Endpoint.FILE_UPLOAD), found)
    assert error(decision) == (400, "provider_not_offered")
    assert isinstance(decision, Refused)
    assert "p0, p2" in decision.error.message


@pytest.mark.parametrize("provider", [None, "p1", "p3"])
def test_where_a_file_could_go_is_said_where_that_is_not_clear(provider: str | None) -> None:
    decision = decided(asking(Endpoint.FILE_UPLOAD, provider=provider))
    assert error(decision) == (400, "provider_not_offered")
    assert isinstance(decision, Refused)
    assert "p0, p2" in decision.error.message


def test_no_file_goes_to_a_provider_of_models_that_the_key_may_not_use() -> None:
    hidden = offered()
    hidden = replace(
        hidden, by_model={MODEL: replace(hidden.by_model[MODEL], orgs_allowed=frozenset({OrgId("org_other")}))}
    )
    assert error(decided(asking(Endpoint.FILE_UPLOAD, provider="p0"), hidden)) == (400, "provider_not_offered")
    narrow = replace(KEY, models_allowed=("other-*",))
    assert error(decide(asking(Endpoint.FILE_UPLOAD, provider="p0"), narrow, offered(), now=NOW)) == (
        400,
        "provider_not_offered",
    )


def test_what_continues_a_response_is_held_for_at_the_provider_that_keeps_it_with_the_whole_context() -> None:
    dear = decided(asking(Endpoint.STORED_RESPONSES, RESPONSE), response="p2")
    cheap = decided(asking(Endpoint.STORED_RESPONSES, RESPONSE), response="p0")
    assert isinstance(dear, Admitted)
    assert isinstance(cheap, Admitted)
    assert (dear.keeper, dear.hold_nano_usd) == ("p2", 100 * (128_000 + 10))
    assert (cheap.keeper, cheap.hold_nano_usd) == ("p0", 128_000 + 10)


def test_what_is_kept_at_two_providers_or_at_none_of_the_models_is_not_put_together() -> None:
    both = asking(Endpoint.STORED_RESPONSES, RESPONSE, FILE)
    assert error(decided(both, response="p0", file="p2")) == (400, "kept_elsewhere")
    assert error(decided(both, response="p3", file="p3")) == (400, "kept_elsewhere")
    assert error(decided(both, response="p0")) == (404, "not_found")
    assert isinstance(decided(both, response="p0", file="p0"), Admitted)


def test_a_model_that_is_sold_without_anything_kept_says_so() -> None:
    unsold = offers(responses=(price(input_=1, output=1),))
    assert error(decided(asking(Endpoint.STORED_RESPONSES), unsold)) == (400, "stored_state_not_offered")


def test_what_envoy_chose_the_route_for_still_has_to_stand() -> None:
    moved = replace(asking(Endpoint.STORED_RESPONSES, RESPONSE), offering=Offering(MODEL, {P0: "other"}))
    assert error(decided(moved, response="p0")) == (503, "model_changing")
