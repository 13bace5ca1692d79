"""What kinds of providers serve, by themselves and through the translator."""

import pytest

from gateway_core.endpoints import FACTS, OF_WHAT_IS_KEPT, SOLD, SOLD_UNLESS_TOLD, Endpoint
from gateway_core.providers import PATHS_BY_KIND, TRANSLATIONS_BY_KIND, ProviderKind, served
from translator.translation import CLIENT_SIDES, PROVIDER_SIDES

CONVERSATIONS = {Endpoint.CHAT, Endpoint.MESSAGES, Endpoint.RESPONSES, Endpoint.GENERATE, Endpoint.STREAM_GENERATE}
ASKED = {Endpoint.CHAT, Endpoint.MESSAGES, Endpoint.GENERATE}
"""Those of them on which the translator asks."""


@pytest.mark.parametrize("kind", ProviderKind)
def test_what_a_kind_serves_by_itself_is_never_translated(kind: ProviderKind) -> None:
    assert not PATHS_BY_KIND[kind].keys() & TRANSLATIONS_BY_KIND[kind].keys()
    assert set(served(kind, SOLD, translated=False)) == PATHS_BY_KIND[kind].keys() - set(OF_WHAT_IS_KEPT)


@pytest.mark.parametrize("kind", ProviderKind)
def test_what_is_said_to_be_translated_the_translator_translates(kind: ProviderKind) -> None:
    for endpoint, translation in TRANSLATIONS_BY_KIND[kind].items():
        assert translation.client is FACTS[endpoint].dialect
        assert translation.client in CLIENT_SIDES
        assert translation.provider in PROVIDER_SIDES
        assert translation.client is not translation.provider
        assert translation.path in PATHS_BY_KIND[kind].values()


@pytest.mark.parametrize("kind", ProviderKind)
def test_with_a_translator_every_kind_serves_conversations_on_each_of_their_endpoints(kind: ProviderKind) -> None:
    own = PATHS_BY_KIND[kind].keys() - set(OF_WHAT_IS_KEPT)
    # Without one of its own that the translator knows, nothing could be asked instead.
    others = CONVERSATIONS if own & ASKED else set()
    assert set(served(kind, SOLD, translated=True)) == own | others


@pytest.mark.parametrize("kind", ProviderKind)
def test_nothing_is_served_on_which_a_model_is_not_sold(kind: ProviderKind) -> None:
    assert set(served(kind, (Endpoint.CHAT,), translated=True)) <= {Endpoint.CHAT}
    assert Endpoint.RESPONSES not in served(kind, SOLD_UNLESS_TOLD, translated=True)


def test_tokens_are_counted_by_who_counts_them_and_never_translated() -> None:
    assert served(ProviderKind.OPENAI, SOLD_UNLESS_TOLD, translated=True) == (Endpoint.CHAT, Endpoint.MESSAGES)
