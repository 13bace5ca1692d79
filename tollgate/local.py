"""What the commands around a local stack do. Slow to import; `stack_commands` declares them."""

import asyncio
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import typer
from rich.console import Console
from rich.table import Table

from gateway_core.clock import monotonic
from local_stack import clickhouse_client, endpoints, postgres, stack
from local_stack.clickhouse_client import ClickHouseError
from local_stack.data_directory import AlreadyRunningError, DataDirectory, UnusableDirectoryError
from local_stack.endpoints import NotRunningError
from local_stack.instances import REPLICAS_MAX
from local_stack.ports import PortTakenError
from local_stack.process import StartError, tail
from local_stack.settings import Environment
from local_stack.state import ServiceStatus, State
from local_stack.tollgate_services import SERVICES, TASKS, service_names
from local_stack.wheels import NotInstalledError
from tollgate.errors import CommandError, ExitCode
from tollgate.invocation import DATA_DIR_VARIABLE, Invocation
from tollgate.log_tail import follow
from tollgate.progress import Lines

DOWN_DEADLINE_S = 10.0

EXIT_CODE_BY_ERROR: Final[Mapping[type[Exception], ExitCode]] = {
    NotRunningError: ExitCode.NOT_RUNNING,
    UnusableDirectoryError: ExitCode.FAILED,  # another directory
    AlreadyRunningError: ExitCode.FAILED,  # another directory, or `tollgate down` first
    PortTakenError: ExitCode.FAILED,  # another port
    StartError: ExitCode.FAILED,  # the log says why
    NotInstalledError: ExitCode.FAILED,  # install it
    ClickHouseError: ExitCode.FAILED,  # another query
    OSError: ExitCode.FAILED,  # the disk is full and the like
}
"""What is the caller's to mend is one line on standard error. Anything else is ours, and a traceback."""

_POLL_S = 0.05
_ELSEWHERE: Final = f"--data-dir or {DATA_DIR_VARIABLE} says where a stack is"


def exit_code_of(error: Exception) -> ExitCode | None:
    """The exit code of an error that is the caller's to mend; None for one that is ours."""
    return next((code for kind, code in EXIT_CODE_BY_ERROR.items() if isinstance(error, kind)), None)


def up(data_dir: Path, port: int | None, replicas: int) -> None:
    """Start a stack and keep it running until Ctrl-C."""
    directory = DataDirectory.at(data_dir)
    asyncio.run(stack.up(directory, port, replicas, Lines(monotonic, Invocation.of_this_process(directory.path))))


def status(data_dir: Path, *, as_json: bool) -> None:
    """Show what each service is doing."""
    directory = DataDirectory.at(data_dir)
    pid = directory.holder()
    services = asyncio.run(stack.observe(directory)) if pid is not None else []
    if as_json:
        found = {"running": pid is not None, "pid": pid, "data_dir": str(directory.path)}
        typer.echo(json.dumps({**found, "services": [_public(service) for service in services]}, indent=2))
    elif pid is None:
        typer.echo(_nothing_in(directory))
    else:
        Console().print(_table(services))
    if pid is None:
        raise typer.Exit(ExitCode.NOT_RUNNING)
    if not services or any(service.state is not State.UP for service in services):
        raise typer.Exit(ExitCode.FAILED)


def env(data_dir: Path) -> None:
    """Print what the examples in the README need, as exports of a shell."""
    directory = DataDirectory.at(data_dir)
    found = endpoints.of_running(directory)
    variables = {
        DATA_DIR_VARIABLE: str(directory.path),
        "TOLLGATE_SERVER": found.control_plane_url,
        "TOLLGATE_GATEWAY": found.anthropic_base_url,
        "TOLLGATE_KEY": found.api_key,
        "TOLLGATE_OPERATOR": found.operator_token,
        "TOLLGATE_SIMULATOR": found.simulator_url,
        "TOLLGATE_STRIPE": found.stripe_url,
        "TOLLGATE_METRICS": found.metrics_urls["control_plane"],
    }
    for name, value in variables.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def down(data_dir: Path) -> None:
    """Stop a stack and wait until it has stopped."""
    directory = DataDirectory.at(data_dir)
    pid = directory.holder()
    if pid is None:
        typer.echo(_nothing_in(directory))
        return
    os.kill(pid, signal.SIGTERM)
    deadline_s = monotonic() + DOWN_DEADLINE_S
    while directory.holder() == pid:
        if monotonic() > deadline_s:
            raise CommandError(f"the stack (pid {pid}) has not stopped within {DOWN_DEADLINE_S:g} s")
        time.sleep(_POLL_S)
    typer.echo(f"Stopped the stack in {directory.path}.")


def logs(data_dir: Path, service: str, lines: int, *, is_followed: bool) -> None:
    """Print the log of one service."""
    directory = DataDirectory.at(data_dir)
    log = directory.log(service)
    if service not in (*service_names(REPLICAS_MAX), *TASKS):
        raise CommandError(f"no service is named {service!r}; there are {', '.join((*SERVICES, *TASKS))}")
    if not log.exists():
        raise CommandError(f"{service} has not run in {directory.path}; {_ELSEWHERE}")
    if log.stat().st_size == 0:
        elsewhere = f"; requests are in {directory.spool / 'access.jsonl'}" if service == "envoy" else ""
        typer.echo(f"the log of {service} is empty{elsewhere}", err=True)
    if not is_followed:
        for line in tail(log, lines):
            typer.echo(line)
        return
    try:
        for text in follow(log, lines):
            typer.echo(text, nl=False)
    except KeyboardInterrupt:
        pass


def psql(data_dir: Path, arguments: list[str]) -> None:
    """Become psql on the ledger of a stack."""
    dsn = endpoints.of_running(DataDirectory.at(data_dir)).postgres_dsn
    command = postgres.psql(dsn, arguments, Environment.load(secret_names=()).general)
    os.execve(command.argv[0], command.argv, dict(command.environment))  # noqa: S606 - no shell is the point


def clickhouse(data_dir: Path, query: str, answer_format: str) -> None:
    """Send one query to the ClickHouse of a stack."""
    url = endpoints.of_running(DataDirectory.at(data_dir)).clickhouse_url
    sys.stdout.buffer.write(clickhouse_client.ask(url, query, answer_format))


def _nothing_in(directory: DataDirectory) -> str:
    return f"No stack is running in {directory.path}; {_ELSEWHERE}."


def _public(service: ServiceStatus) -> dict[str, object]:
    return {
        "name": service.name,
        "pid": service.pid,
        "state": service.state,
        "restarts": service.restarts,
        "ports": dict(service.ports),
    }


def _table(services: list[ServiceStatus]) -> Table:
    table = Table("service", "pid", "state", "restarts", "ports", box=None, pad_edge=False)
    for service in services:
        ports = ", ".join(
            f"{port}" if name == service.name else f"{port} {name}" for name, port in service.ports.items()
        )
        colour = "green" if service.state is State.UP else "yellow"
        state = f"[{colour}]{service.state}[/{colour}]"
        table.add_row(service.name, str(service.pid or "-"), state, str(service.restarts), ports)
    return table
