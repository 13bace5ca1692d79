"""The starter catalogue: what holds for every entry of it, and what of it is handed out."""

from datetime import date

import pytest

from control_plane.catalog.document import CatalogDocument, canonical, flat
from control_plane.catalog.document_faults import faults
from control_plane.catalog.kinds import TEMPLATES
from control_plane.catalog.price_specs import PriceSpec
from control_plane.catalog.specs import ModelSpec
from control_plane.catalog.starter import starter, starter_file
from gateway_core.endpoints import FACTS, SOLD_UNLESS_TOLD, Dialect
from gateway_core.providers import PATHS_BY_KIND
from gateway_core.usage import Meter

FILE = starter_file()
ALL = FILE.document.providers.keys()
DEPLOYMENTS = sorted(flat(FILE.document.deployments))
EVERY_ANSWER_COUNTS = {
    Dialect.OPENAI: {Meter.INPUT, Meter.CACHED_INPUT, Meter.OUTPUT, Meter.REASONING},
    Dialect.ANTHROPIC: {
        Meter.INPUT,
        Meter.CACHED_INPUT,
        Meter.CACHE_WRITE_5M,
        Meter.CACHE_WRITE_1H,
        Meter.OUTPUT,
    },
}
"""Of text and images, whatever the client asks for."""


def without_conditions(spec: PriceSpec) -> set[Meter]:
    return {each.meter for each in spec.prices if each.condition.is_without_bound}


def test_there_are_models_enough_of_providers_enough() -> None:
    assert len(FILE.document.models) >= 60
    assert len(ALL) >= 10


@pytest.mark.parametrize(("model", "provider"), DEPLOYMENTS)
def test_an_entry_is_whole_priced_on_every_meter_of_its_dialect_and_says_where_and_when_that_was_read(
    model: str, provider: str
) -> None:
    assert model in FILE.document.models
    kind = FILE.document.providers[provider].kind
    price = flat(FILE.document.prices)[model, provider]
    for endpoint in PATHS_BY_KIND[kind].keys() & set(SOLD_UNLESS_TOLD):
        if (dialect := FACTS[endpoint].dialect) in EVERY_ANSWER_COUNTS:
            assert without_conditions(price) >= EVERY_ANSWER_COUNTS[dialect]
    assert not price.free
    assert price.faults() == []
    source = FILE.sources[model][provider]
    assert date(2026, 1, 1) <= source.as_of


def test_a_model_says_what_it_reads_and_writes_and_what_it_can() -> None:
    for spec in FILE.document.models.values():
        assert spec.max_output_tokens <= spec.context_tokens


def test_a_provider_is_where_its_kind_is_and_brings_no_credential() -> None:
    for spec in FILE.document.providers.values():
        assert spec.base_url == TEMPLATES[spec.kind].base_url.replace("{region}", spec.region or "")
        assert spec.credential is None


def test_there_is_nothing_beside_the_deployments() -> None:
    assert set(flat(FILE.document.prices)) == set(flat(FILE.sources)) == set(DEPLOYMENTS)
    assert set(FILE.document.models) == {model for model, _ in DEPLOYMENTS}
    assert set(ALL) == {provider for _, provider in DEPLOYMENTS}
    assert not FILE.document.routes


def test_all_of_it_can_be_applied_to_an_empty_catalogue_as_drafts() -> None:
    found = starter(CatalogDocument(), ALL, ())
    assert faults(CatalogDocument(), found.document, priced={}, orgs=set(), with_credential=(), prune=False) == []
    assert len(found.document.routes) == len(FILE.document.models)
    assert not any(route.published for route in found.document.routes.values())


def test_a_route_goes_to_those_that_have_a_credential_and_is_published_then() -> None:
    found = starter(CatalogDocument(), ALL, {"bedrock-anthropic", "openai"}).document
    assert found.routes["claude-opus-5"].published
    assert [[m.provider for m in group] for group in found.routes["claude-opus-5"].groups] == [["bedrock-anthropic"]]
    assert found.routes["gpt-6-sol"].published
    assert not found.routes["grok-4.7"].published


def test_nothing_that_is_there_is_in_it() -> None:
    everything = canonical(starter(CatalogDocument(), ALL, ALL).document)
    again = starter(everything, ALL, ALL)
    assert again.document == CatalogDocument.model_construct(
        providers={}, models={}, deployments={}, prices={}, routes={}
    )
    assert not again.sources
    own = ModelSpec(owned_by="us", context_tokens=1000, max_output_tokens=100, aliases=["gpt-6-sol"])
    beside = starter(CatalogDocument(models={"own": own, "gpt-4o": own.model_copy(update={"aliases": []})}), ALL, ())
    assert "gpt-6-sol" not in beside.document.deployments
    assert "gpt-4o" not in beside.document.models
    assert "gpt-4o" in beside.document.deployments


def test_of_one_provider_only_its_own_is_handed_out() -> None:
    found = starter(CatalogDocument(), ["anthropic"], ()).document
    assert list(found.providers) == ["anthropic"]
    assert {provider for _, provider in flat(found.deployments)} == {"anthropic"}
