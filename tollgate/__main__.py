"""`tollgate`: start, look at, ask and stop a local stack."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from gateway_core.clock import monotonic
from local_stack import clickhouse_client, endpoints, postgres, stack
from local_stack.clickhouse_client import ClickHouseError
from local_stack.data_directory import AlreadyRunningError, DataDirectory, UnusableDirectoryError
from local_stack.endpoints import NotRunningError
from local_stack.instances import REPLICAS_MAX, instance
from local_stack.ports import PortTakenError
from local_stack.process import StartError, tail
from local_stack.settings import Environment
from local_stack.state import ServiceStatus, State
from local_stack.tollgate_services import REPLICATED, SERVICES, TASKS, service_names
from local_stack.wheels import NotInstalledError
from tollgate.invocation import DEFAULT_DATA_DIR, Invocation
from tollgate.log_tail import follow
from tollgate.progress import Lines

DOWN_DEADLINE_S = 10.0

EXIT_FAILED = 1
EXIT_NOT_RUNNING = 3
"""As `systemctl status` does."""


class CommandError(RuntimeError):
    """The command cannot do what was asked of it."""


EXIT_CODE_BY_ERROR: Final[Mapping[type[Exception], int]] = {
    NotRunningError: EXIT_NOT_RUNNING,
    UnusableDirectoryError: EXIT_FAILED,  # another directory
    AlreadyRunningError: EXIT_FAILED,  # another directory, or `tollgate down` first
    PortTakenError: EXIT_FAILED,  # another port
    StartError: EXIT_FAILED,  # the log says why
    NotInstalledError: EXIT_FAILED,  # install it
    ClickHouseError: EXIT_FAILED,  # another query
    CommandError: EXIT_FAILED,
    OSError: EXIT_FAILED,  # the disk is full and the like
}
"""What is the caller's to mend is one line on standard error. Anything else is ours, and a traceback."""

_LOGS_HELP = (
    f"One of {', '.join(SERVICES)}; of a further instance, such as {instance(REPLICATED[0], 2)}; "
    f"or of what runs once in a start: {', '.join(TASKS)}."
)

_POLL_S = 0.05

app = typer.Typer(
    help="Tollgate: a gateway in front of AI model providers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DataDir = Annotated[Path, typer.Option("--data-dir", help="Where the stack keeps its data.", metavar="DIR")]


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"tollgate {version('tollgate')}")
        raise typer.Exit


@app.callback()
def tollgate(
    *,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Tollgate: a gateway in front of AI model providers."""


@app.command()
def up(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help="Of the gateway. By default 8080 or the next free one.", show_default=False
        ),
    ] = None,
    replicas: Annotated[
        int, typer.Option(min=1, max=REPLICAS_MAX, help=f"How many of each of {', '.join(REPLICATED)}.")
    ] = 1,
) -> None:
    """Start the whole gateway on this machine and keep it running until Ctrl-C."""
    directory = DataDirectory.at(data_dir)
    asyncio.run(stack.up(directory, port, replicas, Lines(monotonic, Invocation.of_this_process(directory.path))))


@app.command()
def status(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show what each service is doing. Exit code 0: all up, 1: something is not, 3: nothing runs."""
    directory = DataDirectory.at(data_dir)
    pid = directory.holder()
    services = asyncio.run(stack.observe(directory)) if pid is not None else []
    if as_json:
        found = {"running": pid is not None, "pid": pid, "data_dir": str(directory.path)}
        typer.echo(json.dumps({**found, "services": [_public(service) for service in services]}, indent=2))
    elif pid is None:
        typer.echo(f"No stack is running in {directory.path}.")
    else:
        Console().print(_table(services))
    if pid is None:
        raise typer.Exit(EXIT_NOT_RUNNING)
    if not services or any(service.state is not State.UP for service in services):
        raise typer.Exit(EXIT_FAILED)


@app.command()
def down(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Stop a stack that runs somewhere else, in order, and wait until it has stopped."""
    directory = DataDirectory.at(data_dir)
    pid = directory.holder()
    if pid is None:
        typer.echo(f"No stack is running in {directory.path}.")
        return
    os.kill(pid, signal.SIGTERM)
    deadline_s = monotonic() + DOWN_DEADLINE_S
    while directory.holder() == pid:
        if monotonic() > deadline_s:
            raise CommandError(f"the stack (pid {pid}) has not stopped within {DOWN_DEADLINE_S:g} s")
        time.sleep(_POLL_S)
    typer.echo(f"Stopped the stack in {directory.path}.")


@app.command()
def logs(
    service: Annotated[str, typer.Argument(help=_LOGS_HELP)],
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many of the last lines.")] = 50,
    is_followed: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Print the log of one service."""
    directory = DataDirectory.at(data_dir)
    log = directory.log(service)
    if service not in (*service_names(REPLICAS_MAX), *TASKS):
        raise CommandError(f"no service is named {service!r}; there are {', '.join((*SERVICES, *TASKS))}")
    if not log.exists():
        raise CommandError(f"{service} has not run in {directory.path}")
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


# Whatever is not an option of ours is psql's, its options included.
@app.command(context_settings={"ignore_unknown_options": True})
def psql(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARGS]...", help="Handed on to psql, such as -c QUERY.", show_default=False),
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Open psql on the ledger of a running stack. Its own options are listed by `tollgate psql -- --help`."""
    dsn = endpoints.of_running(DataDirectory.at(data_dir)).postgres_dsn
    command = postgres.psql(dsn, arguments or [], Environment.load(secret_names=()).general)
    os.execve(command.argv[0], command.argv, dict(command.environment))  # noqa: S606 - no shell is the point


@app.command()
def clickhouse(
    query: Annotated[str, typer.Argument(help="One statement.", show_default=False)],
    answer_format: Annotated[
        str, typer.Option("--format", help="Of the answer, unless the query names one: any of ClickHouse's.")
    ] = "PrettyCompact",
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Send one query to the ClickHouse of a running stack and print the answer."""
    url = endpoints.of_running(DataDirectory.at(data_dir)).clickhouse_url
    sys.stdout.buffer.write(clickhouse_client.ask(url, query, answer_format))


def main() -> None:
    """The entry point of the command `tollgate`."""
    try:
        app()
    except tuple(EXIT_CODE_BY_ERROR) as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(next(code for kind, code in EXIT_CODE_BY_ERROR.items() if isinstance(error, kind)))


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


if __name__ == "__main__":
    main()
