"""Clusters with organisations' own keys are written from one, and are what they would be if each were encoded."""

from dataclasses import replace

from pydantic import SecretStr

from control_plane.catalog.model import Catalog, OwnKey, Provider
from control_plane.xds.own_key_clusters import OwnKeyClusters
from control_plane.xds.protobuf import CLUSTER_TYPE, SECRET_TYPE, encode
from control_plane.xds.translate import Translator, resources
from gateway_core.clusters import own_key_cluster
from gateway_core.ids import OrgId
from gateway_core.providers import ProviderKind
from tests.support.catalogs import catalog, deployment, provider, settings

OURS = replace(provider("a", credential="ours"), own_keys_allowed=True)
SIGNED = Provider(
    provider("b").name,
    ProviderKind.BEDROCK,
    "https://bedrock-runtime.eu-central-1.amazonaws.com",
    SecretStr("A" * 20 + ":" + "s" * 40),
    region="eu-central-1",
    own_keys_allowed=True,
)
SETTINGS = settings()


def with_keys(*keys: tuple[str, Provider, str]) -> Catalog:
    """A catalogue in which organisations have keys."""
    found = catalog([OURS, SIGNED], [deployment("m", "a")])
    own = tuple(OwnKey(OrgId(org), replace(at, credential=SecretStr(secret))) for org, at, secret in keys)
    return replace(found, own_keys=own, own_keys_as_of=len(own))


KEYS = with_keys(
    ("org_1", OURS, "one"),
    ("org_2", OURS, "two"),
    ("org_longer", OURS, "three"),
    ("org_1", SIGNED, "B" * 20 + ":" + "t" * 40),
    ("org_2", SIGNED, "a-bedrock-api-key"),
)


def test_each_cluster_is_the_one_that_would_be_encoded() -> None:
    built = {resource["name"]: resource for kind, resource in resources(KEYS, SETTINGS) if kind == CLUSTER_TYPE}
    found = OwnKeyClusters(private_allowed=SETTINGS.private_providers_allowed).encode(KEYS)
    assert found.keys() == {own_key_cluster(key.provider.name, key.org_id) for key in KEYS.own_keys}
    assert found == {name: encode(CLUSTER_TYPE, built[name]) for name in found}


def test_one_more_organisation_changes_nothing_of_the_others() -> None:
    translator = Translator(SETTINGS)
    before = translator.translate(with_keys(("org_1", OURS, "one")))
    after = translator.translate(with_keys(("org_1", OURS, "one"), ("org_2", OURS, "two")))
    for kind, name in ((CLUSTER_TYPE, "provider/a/org_2"), (SECRET_TYPE, "credential/a/org_2")):
        others = {key: value for key, value in after.by_type[kind].resources.items() if key != name}
        assert others == before.by_type[kind].resources


def test_a_rotated_key_changes_its_secret_and_no_cluster() -> None:
    translator = Translator(SETTINGS)
    before = translator.translate(with_keys(("org_1", OURS, "one")))
    after = translator.translate(with_keys(("org_1", OURS, "other")))
    assert before.by_type[CLUSTER_TYPE] == after.by_type[CLUSTER_TYPE]
    assert before.by_type[SECRET_TYPE] != after.by_type[SECRET_TYPE]


def test_what_signs_with_an_own_key_has_that_in_its_cluster_and_no_other_has() -> None:
    found = OwnKeyClusters(private_allowed=False).encode(KEYS)
    assert [name for name, content in found.items() if b"t" * 40 in content] == ["provider/b/org_1"]
    assert not any(b"s" * 40 in content for content in found.values())
