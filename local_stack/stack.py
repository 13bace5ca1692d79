"""One Tollgate stack, from the empty directory to the last process gone. The wiring diagram of this package."""

import asyncio
import contextlib
import dataclasses
import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from gateway_core.clock import monotonic, utc_now
from local_stack import predecessors, tollgate_services
from local_stack.data_directory import DataDirectory
from local_stack.endpoints import Endpoints, endpoints
from local_stack.groundwork import Groundwork
from local_stack.ports import PortClaims, choose, displaced, free_port, take_fixed
from local_stack.secret_files import write_private
from local_stack.service import Service
from local_stack.settings import PROVIDER_KEYS, Environment
from local_stack.state import ServiceStatus, State, TaskState, read_state, write_state
from local_stack.supervisor import Supervisor

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ECHO_S = 0.5
"""`timeout` and `make` pass on what the terminal has sent as well: two signals at once are one."""


@dataclass(frozen=True, slots=True)
class Provider:
    """Who answers for a provider."""

    name: str
    is_real: bool
    """Otherwise the simulator stands in."""


class Progress(Protocol):
    """Whoever watches a stack start and stop."""

    def changed(self, status: ServiceStatus) -> None:
        """A service has come into another state."""

    def task_changed(self, name: str, state: TaskState) -> None:
        """A task of the start has begun or ended."""

    def ready(self, endpoints: Endpoints, providers: list[Provider]) -> None:
        """The stack serves. Once."""

    def displaced(self, name: str, taken: int, port: int) -> None:
        """Something of the stack has another port than the one that people expect: that one is taken."""

    def stopping(self) -> None:
        """A signal has asked for the end. Once, and not when a start that failed is undone."""


async def up(directory: DataDirectory, port: int | None, replicas: int, progress: Progress) -> None:
    """Run a stack until a signal says stop.

    Args:
        directory: where it lives; made if it is not there.
        port: of the gateway; None takes the one it had, or the default, or the next free one.
        replicas: how many of each service of ours.
        progress: told what happens.

    Raises:
        UnusableDirectoryError: the directory cannot be made or written to.
        AlreadyRunningError: the directory has a supervisor.
        PortTakenError: `port` is not free.
        StartError: something did not start; nothing is left running.
        NotInstalledError: a server is not installed.
    """
    # First of all, so that no signal finds the usual handlers once there is something to stop.
    stopping, hurry = _listen_for_signals(progress)
    fixed = {} if port is None else {"gateway": port}
    if not directory.is_known:
        # Asked again below, for where a stack has lived before, its own last processes may have the port for a moment.
        _require_free(fixed)
    directory.create()
    with directory.locked(), PortClaims() as claims:
        directory.endpoints.unlink(missing_ok=True)
        await predecessors.outlive(read_state(directory.state))
        directory.state.unlink(missing_ok=True)
        kept = {**_kept_ports(directory), **fixed}
        ports = choose(kept, fixed, replicas=replicas, take=claims.take, any_port=free_port)
        for name, (taken, got) in displaced(ports, kept).items():
            progress.displaced(name, taken, got)
        write_private(directory.ports, json.dumps(ports, indent=2))
        environment = Environment.load(tollgate_services.Secret)
        stores = tollgate_services.servers(directory, ports, environment)
        keys = tollgate_services.keys(directory)
        tollgate_services.write_secrets(directory, stores, utc_now())
        providers = [Provider(name, key in environment.provider_keys) for key, name in PROVIDER_KEYS.items()]
        groundwork = Groundwork(directory, tollgate_services.tasks(directory, ports, environment))
        is_laid = groundwork.take()
        board = _Board(directory, endpoints(directory, ports, keys, stores), providers, progress)
        supervisor = Supervisor(
            tollgate_services.services(directory, ports, environment, stores),
            [dataclasses.replace(task, is_done=is_laid) for task in groundwork.tasks],
            log=directory.log,
            changed=board.changed,
            task_changed=board.task_changed,
            now=monotonic,
        )

        def ready() -> None:
            groundwork.record()
            board.ready()

        try:
            await supervisor.run(stopping, hurry, ready)
        finally:
            directory.endpoints.unlink(missing_ok=True)


async def observe(directory: DataDirectory) -> list[ServiceStatus]:
    """What the supervisor of a running stack says, corrected by asking each service that is up whether it works."""
    recorded = read_state(directory.state)
    probes = {service.name: service.ready for service in _described(directory)} if recorded else {}

    async def ask(status: ServiceStatus) -> ServiceStatus:
        if status.state is not State.UP or status.pid is None or await probes[status.name](status.pid) is None:
            return status
        return dataclasses.replace(status, state=State.UNREADY)

    return list(await asyncio.gather(*(ask(status) for status in recorded)))


def _described(directory: DataDirectory) -> list[Service]:
    environment = Environment.load(tollgate_services.Secret)
    ports = _kept_ports(directory)
    stores = tollgate_services.servers(directory, ports, environment)
    return tollgate_services.services(directory, ports, environment, stores)


class _Board:
    """Keeps the files that tell others about the stack, and passes the news on."""

    def __init__(
        self, directory: DataDirectory, reachable_at: Endpoints, providers: list[Provider], progress: Progress
    ) -> None:
        self._directory = directory
        self._reachable_at = reachable_at
        self._providers = providers
        self._progress = progress
        self._statuses: dict[str, ServiceStatus] = {}
        self._is_ready = False

    def changed(self, status: ServiceStatus) -> None:
        self._statuses[status.name] = status
        # The news is worth less than the stack: a full disk or a closed terminal must not keep it from stopping in order.
        with contextlib.suppress(OSError):
            write_state(self._directory.state, self._statuses.values())
            if self._is_ready and status.state is State.UP:
                self._write_endpoints()
            self._progress.changed(status)

    def task_changed(self, name: str, state: TaskState) -> None:
        with contextlib.suppress(OSError):
            self._progress.task_changed(name, state)

    def ready(self) -> None:
        self._is_ready = True
        self._write_endpoints()
        with contextlib.suppress(OSError):
            self._progress.ready(self._reachable_at, self._providers)

    def _write_endpoints(self) -> None:
        # One that is starting at the same moment is named once it is ready itself.
        up = (status for status in self._statuses.values() if status.state is State.UP)
        pids = {status.name: status.pid for status in up if status.pid is not None}
        self._reachable_at = dataclasses.replace(self._reachable_at, pids={**self._reachable_at.pids, **pids})
        self._reachable_at.write(self._directory.endpoints)


def _listen_for_signals(progress: Progress) -> tuple[asyncio.Event, asyncio.Event]:
    """Events for the first signal, which asks for the end, and the second, which hurries it."""
    stopping, hurry = asyncio.Event(), asyncio.Event()
    patient_until_s = 0.0

    def receive() -> None:
        nonlocal patient_until_s
        if stopping.is_set():
            if monotonic() > patient_until_s:
                hurry.set()
            return
        stopping.set()
        patient_until_s = monotonic() + _ECHO_S
        with contextlib.suppress(OSError):
            progress.stopping()

    loop = asyncio.get_running_loop()
    for number in _STOP_SIGNALS:
        # nohup asks to outlive the terminal by ignoring SIGHUP, and a stack respects that.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            loop.add_signal_handler(number, receive)
    return stopping, hurry


def _require_free(ports: Mapping[str, int]) -> None:
    with PortClaims() as claims:
        take_fixed(ports, take=claims.take)


def _kept_ports(directory: DataDirectory) -> Mapping[str, int]:
    try:
        kept: dict[str, int] = json.loads(directory.ports.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return kept
