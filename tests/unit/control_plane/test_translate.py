"""From a catalogue to Envoy's resources: what holds for every catalogue."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import betterproto2
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from pydantic import SecretStr

from control_plane.catalog.model import Catalog, Model
from control_plane.xds import route_table, translate
from control_plane.xds.protobuf import (
    CLUSTER_TYPE,
    LISTENER_TYPE,
    ROUTE_TYPE,
    SECRET_TYPE,
    Json,
    JsonObject,
    encode,
)
from control_plane.xds.route_encoding import encode_on_match
from control_plane.xds.routes import ROUTE_CONFIG, catalog_routes
from control_plane.xds.snapshot import TYPES, Snapshot
from control_plane.xds.translate import Translator, resources
from gateway_core.clusters import provider_cluster
from gateway_core.contract import Metadata
from gateway_core.ids import ModelName
from tests.support.catalogs import catalog, catalogs, deployment, provider, settings

SETTINGS = settings()
ACCESS_LOG_FIELD = "%UPSTREAM_CLUSTER%"
"""Stands under the key `cluster` too, but names none."""
CATALOG = catalog(
    [provider("a", credential="secret-a"), provider("b", base_url="https://b.example.com/v1", credential="secret-b")],
    [deployment("m", "a"), deployment("m", "b", priority=1)],
)


def values_of(value: Json, *keys: str) -> Iterator[Json]:
    """Every value under one of the keys, at any depth."""
    match value:
        case str():
            return
        case Mapping():
            for key, item in value.items():
                if key in keys:
                    yield item
                yield from values_of(item, *keys)
        case Sequence():
            for item in value:
                yield from values_of(item, *keys)
        case _:
            return


def by_type(found: Catalog) -> dict[str, list[JsonObject]]:
    sorted_out: dict[str, list[JsonObject]] = {type_url: [] for type_url in TYPES}
    for type_url, resource in resources(found, SETTINGS):
        sorted_out[type_url].append(resource)
    return sorted_out


def versions(snapshot: Snapshot) -> dict[str, str]:
    return {type_url: typed.version for type_url, typed in snapshot.by_type.items()}


@given(catalogs())
def test_no_listener_or_route_names_a_cluster_that_is_missing(found: Catalog) -> None:
    built = by_type(found)
    clusters = {resource["name"] for resource in built[CLUSTER_TYPE]}
    named = set(values_of([*built[LISTENER_TYPE], *built[ROUTE_TYPE]], "cluster", "cluster_name"))
    assert named - {ACCESS_LOG_FIELD} <= clusters
    assert named >= {provider_cluster(d.provider) for each in found.chains() for group in each.groups for d in group}


@given(catalogs())
def test_no_cluster_names_a_secret_that_is_missing_and_no_secret_is_left_over(found: Catalog) -> None:
    built = by_type(found)
    secrets = {resource["name"] for resource in built[SECRET_TYPE]}
    named = {
        credential["name"]
        for credential in values_of([*built[CLUSTER_TYPE]], "credential")
        if isinstance(credential, Mapping) and "sds_config" in credential
    }
    assert named == secrets


@given(catalogs())
def test_the_listener_names_the_route_configuration_there_is(found: Catalog) -> None:
    built = by_type(found)
    assert {*values_of([*built[LISTENER_TYPE]], "route_config_name")} == {r["name"] for r in built[ROUTE_TYPE]}


@given(catalogs())
def test_credentials_stand_in_secrets_and_nowhere_else(found: Catalog) -> None:
    credentials = {p.credential.get_secret_value() for p in found.providers.values() if p.credential is not None}
    built = by_type(found)
    assert {*values_of([*built[SECRET_TYPE]], "inline_string")} == credentials
    elsewhere = json.dumps([built[type_url] for type_url in TYPES if type_url != SECRET_TYPE])
    assert "CREDENTIAL-" not in elsewhere


@given(catalogs())
@hypothesis_settings(max_examples=20)
def test_credentials_stand_in_the_bytes_of_secrets_and_nowhere_else(found: Catalog) -> None:
    snapshot = Translator(SETTINGS).translate(found)
    for type_url, typed in snapshot.by_type.items():
        if type_url != SECRET_TYPE:
            assert not any(b"CREDENTIAL-" in content for content in typed.resources.values())


@given(catalogs())
def test_no_two_resources_of_a_type_share_a_name(found: Catalog) -> None:
    for built in by_type(found).values():
        names = [resource["name"] for resource in built]
        assert len(names) == len(set(names))


@given(catalogs())
@hypothesis_settings(max_examples=20)
def test_the_same_catalogue_gives_the_same_versions_in_any_order_and_on_any_replica(found: Catalog) -> None:
    reordered = replace(
        found,
        revision=found.revision + 1,
        providers=dict(reversed(list(found.providers.items()))),
        deployments=tuple(reversed(found.deployments)),
    )
    assert versions(Translator(SETTINGS).translate(found)) == versions(Translator(SETTINGS).translate(reordered))


def test_a_snapshot_has_every_type_and_the_revision_of_its_catalogue() -> None:
    snapshot = Translator(SETTINGS).translate(replace(CATALOG, revision=42))
    assert snapshot.revision == 42
    assert set(snapshot.by_type) == set(TYPES)


def test_a_new_credential_changes_the_secrets_and_nothing_else() -> None:
    rotated = replace(CATALOG.providers[provider("a").name], credential=SecretStr("other"))
    translator = Translator(SETTINGS)
    before = versions(translator.translate(CATALOG))
    after = versions(translator.translate(replace(CATALOG, providers={**CATALOG.providers, rotated.name: rotated})))
    assert {type_url for type_url in TYPES if before[type_url] != after[type_url]} == {SECRET_TYPE}


def test_another_upstream_model_changes_the_routes_and_nothing_else() -> None:
    renamed = replace(CATALOG.deployments[0], upstream_model="other")
    translator = Translator(SETTINGS)
    before = versions(translator.translate(CATALOG))
    after = versions(translator.translate(replace(CATALOG, deployments=(renamed, *CATALOG.deployments[1:]))))
    assert {type_url for type_url in TYPES if before[type_url] != after[type_url]} == {ROUTE_TYPE}


def test_only_what_changed_is_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []

    def counting(type_url: str, resource: JsonObject) -> bytes:
        encoded.append(str(resource["name"]))
        return encode(type_url, resource)

    def counting_routes(on_match: JsonObject) -> bytes:
        encoded.append("route")
        return encode_on_match(on_match)

    monkeypatch.setattr(translate, "encode", counting)
    monkeypatch.setattr(route_table, "encode_on_match", counting_routes)
    translator = Translator(SETTINGS)
    translator.translate(CATALOG)
    all_but_routes = [
        each for name, each in resources(CATALOG, SETTINGS) if (name, each["name"]) != (ROUTE_TYPE, ROUTE_CONFIG)
    ]
    assert len(encoded) == len(all_but_routes) + len(list(catalog_routes(CATALOG, translated=False)))

    encoded.clear()
    translator.translate(replace(CATALOG, revision=2))
    assert encoded == []

    models = {**CATALOG.models, ModelName("another"): Model(ModelName("another"), "test", 0)}
    deployments = (*CATALOG.deployments, deployment("another", "a"))
    translator.translate(replace(CATALOG, models=models, deployments=deployments))
    assert encoded == ["route"]


def test_bytes_of_an_older_catalogue_are_not_kept() -> None:
    translator = Translator(SETTINGS)
    many = catalog([provider(f"p{n}") for n in range(20)])
    translator.translate(many)
    translator.translate(CATALOG)
    assert not any(provider_cluster("p1") in key for _, key in translator._encoded)


@pytest.mark.parametrize(
    "resource", [{"name": "c", "conect_timeout": "5s"}, {"name": "c", "load_assignment": {"x": 1}}]
)
def test_a_field_that_envoy_does_not_have_is_an_error_and_not_left_out(resource: JsonObject) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        encode(CLUSTER_TYPE, resource)


@given(catalogs())
@hypothesis_settings(max_examples=10)
def test_a_resource_keeps_its_name_in_its_bytes(found: Catalog) -> None:
    snapshot = Translator(SETTINGS).translate(found)
    for typed in snapshot.by_type.values():
        for name, content in typed.resources.items():
            # Every one of the four messages has its name in field 1.
            fields = dict(_fields(content))
            assert fields[1] == name.encode()


def _fields(content: bytes) -> Iterator[tuple[int, object]]:
    for field in betterproto2.parse_fields(content):
        yield field.number, field.value


def test_nothing_but_a_lease_keeps_a_request_from_admission() -> None:
    found = [
        each
        for listener in by_type(CATALOG)[LISTENER_TYPE]
        for chain in values_of(listener, "http_filters", "filters")
        if isinstance(chain, list)
        for each in chain
        if each.get("name") == Metadata.GRANT_NAMESPACE
    ]
    # Of requests and of sessions.
    assert len(found) == 2
    for admission in found:
        matcher = admission["typed_config"]["xds_matcher"]
        [skipped] = matcher["matcher_list"]["matchers"]
        asked = skipped["predicate"]["single_predicate"]
        where = asked["input"]["typed_config"]
        assert (where["filter"], where["path"]) == (Metadata.NAMESPACE, [{"key": Metadata.LEASE}])
        assert asked["custom_match"]["typed_config"]["value"] == {"present_match": True}
        made = matcher["on_no_match"]["action"]["typed_config"]["typed_config"]
        assert made["name"] == Metadata.GRANT_NAMESPACE
        assert made["typed_config"]["failure_mode_allow"] is False
