"""`endpoints.json`: how programs reach a running stack. It holds secrets, is private, and is there while the stack serves."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from local_stack.data_directory import DataDirectory
from local_stack.instances import instance, instances
from local_stack.ports import replicas_of
from local_stack.secret_files import write_private
from local_stack.tollgate_services import HOST, REPLICATED, Keys, Servers, stripe_url


class NotRunningError(RuntimeError):
    """There is no stack to ask in the directory, or it does not serve yet or any more."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The content of the file; the names are its keys."""

    openai_base_url: str
    anthropic_base_url: str
    api_key: str
    control_plane_url: str
    control_plane_urls: Sequence[str]
    """Of every instance; the one above is the first."""
    operator_token: str
    postgres_dsn: str
    redis_url: str
    clickhouse_url: str
    envoy_admin_url: str
    simulator_url: str
    """Where requests to it begin, for the base URL of a provider."""
    stripe_url: str
    """Of the simulator's stand-in for Stripe, where its API and its checkout pages begin."""
    spool_dir: str
    metrics_urls: Mapping[str, str] = field(default_factory=dict)
    """Of every instance of our services, by its name."""
    pids: Mapping[str, int] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Replace the file in one step."""
        write_private(path, json.dumps(dataclasses.asdict(self), indent=2) + "\n")


def of_running(directory: DataDirectory) -> Endpoints:
    """How to reach the stack that runs in a directory.

    Raises:
        NotRunningError: there is none, or it does not serve at this moment.
        UnusableDirectoryError: the directory cannot be read.
    """
    if directory.holder() is None:
        raise NotRunningError(
            f"no stack is running in {directory.path}; start one with `tollgate up`, or say with --data-dir where it is"
        )
    try:
        text = directory.endpoints.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotRunningError(
            f"the stack in {directory.path} is starting or stopping; `tollgate status` shows how far it is"
        ) from None
    return Endpoints(**json.loads(text))


def endpoints(directory: DataDirectory, ports: Mapping[str, int], keys: Keys, stores: Servers) -> Endpoints:
    """Everything there is to know about a stack before it has processes."""
    gateway_url = f"http://{HOST}:{ports['gateway']}"
    control_planes = [f"http://{HOST}:{ports[name]}" for name in instances("control_plane", replicas_of(ports))]
    return Endpoints(
        openai_base_url=f"{gateway_url}/v1",
        anthropic_base_url=gateway_url,
        api_key=keys.api_key,
        control_plane_url=control_planes[0],
        control_plane_urls=control_planes,
        operator_token=keys.operator_token,
        postgres_dsn=stores.postgres.dsn,
        redis_url=stores.valkey.url,
        clickhouse_url=stores.clickhouse.url,
        envoy_admin_url=f"http://{HOST}:{ports['envoy_admin']}",
        simulator_url=f"http://{HOST}:{ports['simulator']}/v1",
        stripe_url=stripe_url(ports),
        spool_dir=str(directory.spool),
        metrics_urls={
            instance(service, number): f"http://{HOST}:{ports[instance(f'{service}_metrics', number)]}/metrics"
            for service in REPLICATED
            for number in range(1, replicas_of(ports) + 1)
        },
    )
