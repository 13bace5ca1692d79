"""What Envoy is told for a catalogue, word for word, and Envoy's own verdict on it.

A case is a folder: `in.yaml` and one file per resource type. `--update-golden` writes those files anew; read the diff.
"""

import json
from pathlib import Path

import pytest
import yaml

from control_plane.catalog.model import Catalog
from control_plane.xds.configuration_check import Verdict, installed_envoy, validate
from control_plane.xds.lua import script
from control_plane.xds.protobuf import CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE, SECRET_TYPE, JsonObject
from control_plane.xds.static_bootstrap import static_bootstrap
from control_plane.xds.translate import resources
from gateway_core.networks import parse_networks
from gateway_core.settings import HostPort
from tests.support.catalogs import read_catalog, settings
from tests.support.planes import Certificates

FOLDER = Path(__file__).parent / "xds"
BOOTSTRAP = Path(__file__).parents[2] / "envoy" / "bootstrap.yaml"
INPUT = "in.yaml"
FILE_BY_TYPE = {
    CLUSTER_TYPE: "clusters.yaml",
    LISTENER_TYPE: "listeners.yaml",
    ROUTE_TYPE: "routes.yaml",
    SECRET_TYPE: "secrets.yaml",
}
CASES = sorted(path.name for path in FOLDER.iterdir())
EXPECTED_CASES = {
    *("browsers", "failover_chain", "cached_answers", "kinds", "no_credential", "own_keys", "sessions"),
    *("single_provider", "strategies", "tls_provider", "translated", "weighted_group"),
}
SCRIPTS = ("front", "upstream")


class _Dumper(yaml.SafeDumper):
    """Writes a value that occurs twice twice: an anchor would make a golden file hard to read."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True


def read_case(case: str) -> Catalog:
    return read_catalog(yaml.safe_load((FOLDER / case / INPUT).read_text(encoding="utf-8")))


def translators(case: str) -> tuple[HostPort, ...]:
    """Some cases have a translator."""
    return (HostPort("127.0.0.1", 9005),) if case in {"translated", "own_keys"} else ()


def caches(case: str) -> tuple[HostPort, ...]:
    """One case keeps answers."""
    return (HostPort("127.0.0.1", 9006),) if case == "cached_answers" else ()


def origins(case: str) -> tuple[str, ...]:
    """One case has pages of other origins."""
    return ("https://app.example.com", "http://localhost:3000") if case == "browsers" else ()


def as_yaml(found: list[JsonObject]) -> str:
    """The resources as YAML, with the name of a Lua script in place of its text."""
    text = json.dumps(found)
    for name in SCRIPTS:
        text = text.replace(json.dumps(script(name)), json.dumps(f"<envoy/lua/{name}.lua>"))
    return yaml.dump(json.loads(text), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


@pytest.mark.parametrize("case", CASES)
def test_a_catalogue_becomes_exactly_the_resources_of_its_golden_files(
    case: str, request: pytest.FixtureRequest
) -> None:
    found: dict[str, list[JsonObject]] = {type_url: [] for type_url in FILE_BY_TYPE}
    told = settings(
        translator_endpoints=translators(case), response_cache_endpoints=caches(case), cors_origins=origins(case)
    )
    for type_url, resource in resources(read_case(case), told):
        found[type_url].append(resource)

    for type_url, file in FILE_BY_TYPE.items():
        golden = FOLDER / case / file
        text = as_yaml(found[type_url])
        if request.config.getoption("--update-golden"):
            golden.write_text(text, encoding="utf-8")
        assert text == golden.read_text(encoding="utf-8"), f"{case}/{file}: --update-golden writes it anew"


@pytest.mark.parametrize("case", CASES)
def test_a_case_is_an_input_and_one_file_per_type_and_nothing_else(case: str) -> None:
    assert {path.name for path in (FOLDER / case).iterdir()} == {INPUT, *FILE_BY_TYPE.values()}


def test_no_case_is_lost() -> None:
    assert set(CASES) >= EXPECTED_CASES


@pytest.mark.parametrize("case", CASES)
def test_no_golden_file_holds_a_script_or_a_credential_outside_of_the_secrets(case: str) -> None:
    providers = read_case(case).providers.values()
    credentials = [p.credential.get_secret_value() for p in providers if p.credential and not p.aws_key]
    keys = [p.aws_key.secret_access_key.get_secret_value() for p in providers if p.aws_key]
    for file in FILE_BY_TYPE.values():
        text = (FOLDER / case / file).read_text(encoding="utf-8")
        assert "function" not in text
        for credential in credentials:
            assert (credential in text) is (file == FILE_BY_TYPE[SECRET_TYPE])
        for key in keys:
            # Where Envoy hides it from whoever asks it for its configuration.
            assert text.count(key) == text.count(f"secret_access_key: {key}\n") == (file == FILE_BY_TYPE[CLUSTER_TYPE])


@pytest.mark.parametrize("proxies", ["", "10.0.0.0/8, 2001:db8::/32, 192.0.2.7"], ids=["alone", "behind proxies"])
@pytest.mark.parametrize("case", CASES)
async def test_envoy_accepts_every_case_without_a_warning(case: str, proxies: str, tmp_path: Path) -> None:
    Certificates.issued(tmp_path)
    text = BOOTSTRAP.read_text(encoding="utf-8")
    assert text.count("/run/secrets/") == 3
    base = yaml.safe_load(text.replace("/run/secrets/", f"{tmp_path}/"))
    told = settings(
        spool_dir=str(tmp_path),
        trusted_proxies=parse_networks(proxies),
        translator_endpoints=translators(case),
        response_cache_endpoints=caches(case),
        cors_origins=origins(case),
    )
    bootstrap = static_bootstrap(resources(read_case(case), told), base)
    binary = installed_envoy()
    assert binary

    verdict = await validate(binary, bootstrap, tmp_path)

    assert verdict == Verdict(ok=True, message="configuration 'bootstrap.json' OK")
