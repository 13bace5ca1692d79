"""What kinds of providers serve, by themselves and through the translator."""

import pytest

from gateway_core.endpoints import DIALECT_BY_ENDPOINT
from gateway_core.providers import PATHS_BY_KIND, TRANSLATIONS_BY_KIND, ProviderKind, endpoints_of
from translator.translation import CLIENT_SIDES, PROVIDER_SIDES


@pytest.mark.parametrize("kind", ProviderKind)
def test_what_a_kind_serves_by_itself_is_never_translated(kind: ProviderKind) -> None:
    assert not PATHS_BY_KIND[kind].keys() & TRANSLATIONS_BY_KIND[kind].keys()
    assert set(endpoints_of(kind, translated=False)) == PATHS_BY_KIND[kind].keys()


@pytest.mark.parametrize("kind", ProviderKind)
def test_what_is_said_to_be_translated_the_translator_translates(kind: ProviderKind) -> None:
    for endpoint, translation in TRANSLATIONS_BY_KIND[kind].items():
        assert translation.client is DIALECT_BY_ENDPOINT[endpoint]
        assert translation.client in CLIENT_SIDES
        assert translation.provider in PROVIDER_SIDES
        assert translation.client is not translation.provider
