"""`tollgate`: start, look at and stop a local stack."""

import asyncio
import json
import os
import signal
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from gateway_core.clock import monotonic
from local_stack import stack
from local_stack.data_directory import AlreadyRunningError, DataDirectory
from local_stack.ports import PortTakenError
from local_stack.process import StartError, tail
from local_stack.state import ServiceStatus, State
from local_stack.wheels import NotInstalledError
from tollgate.log_tail import follow
from tollgate.progress import Lines

DOWN_DEADLINE_S = 10.0

EXIT_UNHEALTHY = 1
EXIT_NOT_RUNNING = 3
"""As `systemctl status` does."""

_POLL_S = 0.05

app = typer.Typer(
    help="Tollgate: a gateway in front of AI model providers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DataDir = Annotated[Path, typer.Option("--data-dir", help="Where the stack keeps its data.", metavar="DIR")]
DEFAULT_DATA_DIR = Path(".tollgate")


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
) -> None:
    """Start the whole gateway on this machine and keep it running until Ctrl-C."""
    try:
        asyncio.run(stack.up(DataDirectory.at(data_dir), port, Lines(monotonic)))
    except (AlreadyRunningError, PortTakenError, StartError, NotInstalledError, OSError) as error:
        _fail(str(error))


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
        raise typer.Exit(EXIT_UNHEALTHY)


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
            _fail(f"the stack (pid {pid}) has not stopped within {DOWN_DEADLINE_S:g} s")
        time.sleep(_POLL_S)
    typer.echo(f"Stopped the stack in {directory.path}.")


@app.command()
def logs(
    service: Annotated[str, typer.Argument(help="As `tollgate status` names it.")],
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many of the last lines.")] = 50,
    is_followed: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Print the log of one service."""
    directory = DataDirectory.at(data_dir)
    names = sorted(path.stem for path in directory.logs.glob("*.log"))
    if not names:
        _fail(f"no stack has run in {directory.path}")
    if service not in names:
        _fail(f"no service is named {service!r}; there are {', '.join(names)}")
    if not is_followed:
        typer.echo("\n".join(tail(directory.log(service), lines)))
        return
    try:
        for text in follow(directory.log(service), lines):
            typer.echo(text, nl=False)
    except KeyboardInterrupt:
        pass


def main() -> None:
    """The entry point of the command `tollgate`."""
    app()


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


def _fail(message: str) -> NoReturn:
    typer.echo(f"Error: {message}", err=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    main()
