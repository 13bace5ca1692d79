import base64
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway_core import certificates
from gateway_core.api_keys import is_well_formed
from local_stack.data_directory import DataDirectory
from local_stack.endpoints import endpoints
from local_stack.groundwork import Groundwork
from local_stack.ports import DEFAULTS, port_names
from local_stack.service import Service, Task
from local_stack.settings import Environment
from local_stack.tollgate_services import (
    REPLICATED,
    SERVICES,
    TASKS,
    Secret,
    keys,
    servers,
    service_environment,
    service_names,
    services,
    tasks,
    write_secrets,
)

PORTS = {name: 20000 + number for number, name in enumerate(DEFAULTS)}
PORTS_OF_THREE = {name: 20000 + number for number, name in enumerate(port_names(3))}
NOW = datetime(2026, 1, 1, tzinfo=UTC)
CALLER = {
    "PATH": "/bin",
    "OPENAI_API_KEY": "sk-real-openai",
    "GEMINI_API_KEY": "",
    "TOLLGATE_POSTGRES_DSN": "postgresql://elsewhere",
    "TOLLGATE_LOG_LEVEL": "DEBUG",
}
ENVIRONMENT = Environment.sorted(CALLER, Secret)


@pytest.fixture
def directory(tmp_path: Path) -> DataDirectory:
    directory = DataDirectory.at(tmp_path / "stack")
    directory.create()
    write_secrets(directory, servers(directory, PORTS, ENVIRONMENT), NOW)
    return directory


def table(directory: DataDirectory, ports: Mapping[str, int] = PORTS) -> list[Service]:
    stores = servers(directory, ports, ENVIRONMENT)
    return services(directory, ports, ENVIRONMENT, stores)


def test_no_secret_is_in_a_command_line_or_an_environment(directory: DataDirectory) -> None:
    nodes: list[Service | Task] = [*table(directory), *tasks(directory, PORTS, ENVIRONMENT)]
    visible = "\n".join(f"{node.command.argv} {dict(node.command.environment)}" for node in nodes)
    for path in directory.secrets.iterdir():
        assert path.read_text() not in visible, path.name


def test_a_providers_key_reaches_the_seed_and_nothing_else(directory: DataDirectory) -> None:
    nodes: list[Service | Task] = [*table(directory), *tasks(directory, PORTS, ENVIRONMENT)]
    with_key = [node.name for node in nodes if "sk-real-openai" in node.command.environment.values()]
    assert with_key == ["seed_demo"]
    assert ENVIRONMENT.provider_keys == {"OPENAI_API_KEY": "sk-real-openai"}


def test_a_left_over_variable_does_not_replace_a_secret_of_the_stack(directory: DataDirectory) -> None:
    for service in table(directory):
        assert "TOLLGATE_POSTGRES_DSN" not in service.command.environment


def test_settings_of_the_caller_reach_the_services(directory: DataDirectory) -> None:
    (sink,) = (service for service in table(directory) if service.name == "billing_sink")
    assert sink.command.environment["TOLLGATE_LOG_LEVEL"] == "DEBUG"


def test_every_need_is_in_the_table(directory: DataDirectory) -> None:
    nodes: list[Service | Task] = [*table(directory), *tasks(directory, PORTS, ENVIRONMENT)]
    assert {need for node in nodes for need in node.needs} <= {node.name for node in nodes}


def test_the_names_that_are_known_without_a_stack_are_those_of_the_tables(directory: DataDirectory) -> None:
    assert [service.name for service in table(directory)] == list(SERVICES)
    assert [task.name for task in tasks(directory, PORTS, ENVIRONMENT)] == list(TASKS)


def test_every_port_belongs_to_one_service(directory: DataDirectory) -> None:
    owned = [name for service in table(directory) for name in service.ports]
    assert sorted(owned) == sorted(PORTS)


def test_three_of_each_service_of_ours_and_one_of_each_server(directory: DataDirectory) -> None:
    found = {service.name: service for service in table(directory, PORTS_OF_THREE)}
    assert sorted(found) == sorted(service_names(3))
    assert len(found) == len(SERVICES) + 2 * len(REPLICATED)
    assert sorted(name for service in found.values() for name in service.ports) == sorted(PORTS_OF_THREE)
    for name in REPLICATED:
        first = found[name]
        for further in (found[f"{name}-2"], found[f"{name}-3"]):
            assert (further.command.argv, further.needs) == (first.command.argv, first.needs)
            assert (further.stop_stage, further.stop_grace_s) == (first.stop_stage, first.stop_grace_s)
    assert set(found["envoy"].needs) == {"control_plane", "control_plane-2", "control_plane-3", "simulator"}


def test_instances_listen_on_ports_of_their_own_and_tell_envoy_the_same(directory: DataDirectory) -> None:
    variables = [service_environment(directory, PORTS_OF_THREE, number) for number in (1, 2, 3)]
    own = {
        *("TOLLGATE_CONTROL_PLANE_PORT", "TOLLGATE_CONTROL_PLANE_METRICS_PORT", "TOLLGATE_XDS_PORT"),
        "TOLLGATE_EXT_AUTHZ_PORT",
        *("TOLLGATE_TRANSLATOR_PORT", "TOLLGATE_TRANSLATOR_METRICS_PORT"),
        *("TOLLGATE_RESPONSE_CACHE_PORT", "TOLLGATE_RESPONSE_CACHE_METRICS_PORT"),
        *("TOLLGATE_EXT_AUTHZ_METRICS_PORT", "TOLLGATE_BILLING_SINK_PORT", "TOLLGATE_BILLING_SINK_METRICS_PORT"),
    }
    for name in variables[0]:
        assert len({each[name] for each in variables}) == (3 if name in own else 1), name
    for kind in ("CONTROL_PLANE", "EXT_AUTHZ", "TRANSLATOR", "RESPONSE_CACHE"):
        listening = [f"127.0.0.1:{each[f'TOLLGATE_{kind}_PORT']}" for each in variables]
        assert variables[0][f"TOLLGATE_{kind}_ENDPOINTS"] == ",".join(listening)


def test_endpoints_name_every_control_plane(directory: DataDirectory) -> None:
    stores = servers(directory, PORTS_OF_THREE, ENVIRONMENT)
    known = endpoints(directory, PORTS_OF_THREE, keys(directory), stores)
    names = ("control_plane", "control_plane-2", "control_plane-3")
    assert list(known.control_plane_urls) == [f"http://127.0.0.1:{PORTS_OF_THREE[name]}" for name in names]
    assert known.control_plane_url == known.control_plane_urls[0]


def test_endpoints_name_the_metrics_of_every_instance_and_none_are_where_clients_are_served(
    directory: DataDirectory,
) -> None:
    stores = servers(directory, PORTS_OF_THREE, ENVIRONMENT)
    known = endpoints(directory, PORTS_OF_THREE, keys(directory), stores)
    of_ours = {name for name in service_names(3) if name.partition("-")[0] in REPLICATED}
    assert known.metrics_urls.keys() == of_ours
    assert len(set(known.metrics_urls.values())) == len(of_ours)
    assert (
        known.metrics_urls["control_plane-2"] == f"http://127.0.0.1:{PORTS_OF_THREE['control_plane_metrics-2']}/metrics"
    )
    assert not any(
        url.startswith(base + "/") for url in known.metrics_urls.values() for base in known.control_plane_urls
    )


def test_services_stop_from_the_edge_to_the_stores(directory: DataDirectory) -> None:
    by_stage = {service.name: service.stop_stage for service in table(directory)}
    assert by_stage["envoy"] < by_stage["billing_sink"] < by_stage["ext_authz"] <= by_stage["control_plane"]
    assert by_stage["control_plane"] <= by_stage["simulator"] < by_stage["clickhouse"] <= by_stage["valkey"]
    assert by_stage["valkey"] < by_stage["postgres"]


def test_secrets_are_private_and_survive(directory: DataDirectory) -> None:
    before = keys(directory)
    assert is_well_formed(before.api_key)
    assert is_well_formed(before.operator_token)
    assert keys(directory) == before
    assert directory.path.stat().st_mode & 0o777 == 0o700
    assert directory.secrets.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.secrets.iterdir()} == {0o600}
    assert len(bytes.fromhex((directory.secrets / Secret.TOLLGATE_API_KEY_PEPPER).read_text())) == 32
    assert len(base64.urlsafe_b64decode((directory.secrets / Secret.TOLLGATE_CREDENTIAL_KEY).read_text())) == 32


@pytest.mark.parametrize(("days", "is_renewed"), [(0, False), (200, False), (300, True)])
def test_certificates_are_kept_until_they_end_soon(directory: DataDirectory, days: int, is_renewed: bool) -> None:
    def found() -> dict[str, bytes]:
        return {name: (directory.secrets / name).read_bytes() for name in certificates.FILES}

    before = found()
    write_secrets(directory, servers(directory, PORTS, ENVIRONMENT), NOW + timedelta(days=days))
    assert [found()[name] != before[name] for name in before] == [is_renewed] * len(before)
    assert {(directory.secrets / name).stat().st_mode & 0o777 for name in certificates.FILES} == {0o600}


def test_endpoints_name_the_gateway_for_both_dialects(directory: DataDirectory) -> None:
    known = endpoints(directory, PORTS, keys(directory), servers(directory, PORTS, ENVIRONMENT))
    gateway = f"http://127.0.0.1:{PORTS['gateway']}"
    assert (known.openai_base_url, known.anthropic_base_url) == (f"{gateway}/v1", gateway)
    assert known.clickhouse_url.endswith(f"@127.0.0.1:{PORTS['clickhouse']}/tollgate")
    assert known.spool_dir == str(directory.spool)
    known.write(directory.endpoints)
    assert directory.endpoints.stat().st_mode & 0o777 == 0o600


def test_tasks_that_succeeded_under_the_same_circumstances_are_not_repeated(directory: DataDirectory) -> None:
    groundwork = Groundwork(directory, tasks(directory, PORTS, ENVIRONMENT))
    assert not groundwork.take()
    groundwork.record()
    assert groundwork.take()


def test_tasks_are_repeated_after_a_start_that_trusted_the_record_and_failed(directory: DataDirectory) -> None:
    groundwork = Groundwork(directory, tasks(directory, PORTS, ENVIRONMENT))
    groundwork.record()
    assert groundwork.take()
    assert not groundwork.take()


def test_tasks_are_repeated_when_a_setting_has_changed(directory: DataDirectory) -> None:
    Groundwork(directory, tasks(directory, PORTS, ENVIRONMENT)).record()
    with_key = Environment.sorted({**CALLER, "GEMINI_API_KEY": "real"}, Secret)
    assert not Groundwork(directory, tasks(directory, PORTS, with_key)).take()


def test_tasks_are_repeated_when_a_port_has_changed(directory: DataDirectory) -> None:
    Groundwork(directory, tasks(directory, PORTS, ENVIRONMENT)).record()
    assert not Groundwork(directory, tasks(directory, {**PORTS, "simulator": 1}, ENVIRONMENT)).take()


def test_tasks_are_repeated_when_a_secret_has_changed(directory: DataDirectory) -> None:
    groundwork = Groundwork(directory, tasks(directory, PORTS, ENVIRONMENT))
    groundwork.record()
    keys(directory)
    assert not groundwork.take()


@pytest.mark.parametrize("path", ["postgres/data", "clickhouse/metadata/tollgate/requests.sql"])
def test_tasks_are_repeated_when_a_store_has_changed(directory: DataDirectory, path: str) -> None:
    groundwork = Groundwork(directory, tasks(directory, PORTS, ENVIRONMENT))
    groundwork.record()
    (directory.path / path).mkdir(parents=True)
    assert not groundwork.take()
