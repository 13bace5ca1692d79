from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.catalog.kinds import TEMPLATES
from control_plane.catalog.model import Catalog, Provider
from gateway_core.endpoints import SOLD_UNLESS_TOLD, Endpoint
from gateway_core.ids import ModelName
from gateway_core.providers import PATHS_BY_KIND, ProviderKind
from tests.support.catalogs import catalog, catalogs, deployment, provider

OPENAI, ANTHROPIC, GEMINI = ProviderKind.OPENAI, ProviderKind.ANTHROPIC, ProviderKind.GEMINI


def chains(found: Catalog, *, translated: bool = False) -> list[tuple[str, str, list[list[str]]]]:
    return [
        (chain.endpoint, chain.name, [[d.provider for d in group] for group in chain.groups])
        for chain in found.chains(translated=translated)
    ]


@pytest.mark.parametrize(
    ("base_url", "tls", "host", "port"),
    [
        ("https://api.openai.com/v1", True, "api.openai.com", 443),
        ("http://backend", False, "backend", 80),
        ("http://127.0.0.1:9000/v1", False, "127.0.0.1", 9000),
        ("https://models.example.com:8443", True, "models.example.com", 8443),
        ("http://[::1]:9000/v1", False, "::1", 9000),
    ],
)
def test_host_port_and_tls_are_those_of_the_base_url(base_url: str, tls: bool, host: str, port: int) -> None:
    found = provider("p", base_url=base_url)
    assert (found.tls, found.host, found.port) == (tls, host, port)


@pytest.mark.parametrize(
    ("kind", "base_url", "endpoint", "path"),
    [
        (OPENAI, "https://h/v1", Endpoint.CHAT, "/v1/chat/completions"),
        (OPENAI, "https://h/v1/", Endpoint.CHAT, "/v1/chat/completions"),
        (OPENAI, "https://h", Endpoint.CHAT, "/chat/completions"),
        (OPENAI, "https://h/v1", Endpoint.MESSAGES, None),
        (ANTHROPIC, "https://h/v1", Endpoint.MESSAGES, "/v1/messages"),
        (ANTHROPIC, "https://h/v1", Endpoint.CHAT, None),
        (GEMINI, "https://h/v1beta", Endpoint.CHAT, "/v1beta/openai/chat/completions"),
        (OPENAI, "https://h/v1", Endpoint.MODELS, None),
    ],
)
def test_an_endpoint_stands_behind_the_path_of_the_base_url(
    kind: ProviderKind, base_url: str, endpoint: Endpoint, path: str | None
) -> None:
    assert provider("p", kind, base_url).path(endpoint) == path


def test_every_kind_has_a_template_and_serves_something() -> None:
    assert set(TEMPLATES) == set(PATHS_BY_KIND) == set(ProviderKind)
    assert all(PATHS_BY_KIND.values())


def test_a_credential_does_not_show_in_the_repr_of_its_provider() -> None:
    assert "hunter2" not in repr(provider("p", credential="hunter2"))


def test_deployments_are_tried_by_priority_and_share_within_one() -> None:
    found = catalog(
        [provider(name) for name in "abcd"],
        [
            deployment("m", "d", priority=7),
            deployment("m", "c", priority=0),
            deployment("m", "a", priority=3),
            deployment("m", "b", priority=3),
        ],
    )
    assert chains(found) == [("chat", "m", [["c"], ["a", "b"], ["d"]])]


def test_a_provider_that_does_not_serve_an_endpoint_is_left_out_of_that_chain() -> None:
    found = catalog(
        [provider("a", OPENAI), provider("b", ANTHROPIC), provider("c", GEMINI)],
        [deployment("m", "a"), deployment("m", "b", priority=1), deployment("m", "c", priority=2)],
    )
    assert chains(found) == [("chat", "m", [["a"], ["c"]]), ("messages", "m", [["b"]]), ("count_tokens", "m", [["b"]])]


def test_a_model_without_a_deployment_has_no_chain() -> None:
    assert chains(catalog([provider("a")])) == []


def test_an_alias_has_the_chains_of_its_model() -> None:
    found = catalog([provider("a")], [deployment("m", "a")])
    model = replace(found.models[ModelName("m")], aliases=(ModelName("n"), ModelName("o")))
    aliased = replace(found, models={model.name: model})
    assert chains(aliased) == [("chat", name, [["a"]]) for name in "mno"]


def test_a_model_is_served_where_it_is_sold_and_nowhere_else() -> None:
    found = catalog([provider("a"), provider("c", GEMINI)], [deployment("m", "a"), deployment("m", "c")])
    model = replace(found.models[ModelName("m")], endpoints=(Endpoint.EMBEDDINGS, Endpoint.RERANK))
    sold = replace(found, models={model.name: model})
    for translated in (False, True):
        assert chains(sold, translated=translated) == [("embeddings", "m", [["a", "c"]]), ("rerank", "m", [["a"]])]


@given(catalogs(), st.booleans())
def test_every_deployment_is_in_exactly_the_chains_its_provider_can_serve(found: Catalog, translated: bool) -> None:
    in_chains = {
        (chain.endpoint, d.model, d.provider)
        for chain in found.chains(translated=translated)
        for group in chain.groups
        for d in group
    }

    def serves(provider: Provider, endpoint: Endpoint) -> bool:
        return provider.path(endpoint) is not None or (translated and provider.translation(endpoint) is not None)

    expected = {
        (endpoint, d.model, d.provider)
        for d in found.deployments
        for endpoint in SOLD_UNLESS_TOLD
        if serves(found.providers[d.provider], endpoint)
    }
    assert in_chains == expected


@given(catalogs())
def test_no_chain_or_group_is_empty_and_priorities_rise(found: Catalog) -> None:
    for chain in found.chains():
        priorities = [{d.priority for d in group} for group in chain.groups]
        assert all(len(each) == 1 for each in priorities)
        flat = [each.pop() for each in priorities]
        assert flat == sorted(set(flat))
        [name] = {d.model for group in chain.groups for d in group}
        assert chain.name in {name, *found.models[name].aliases}


@given(catalogs())
def test_each_endpoint_and_model_has_at_most_one_chain(found: Catalog) -> None:
    keys = [(chain.endpoint, chain.name) for chain in found.chains()]
    assert len(keys) == len(set(keys))
