"""`tollgate demo traffic`, from the stack's addresses to the table at the end. Slow to import; `demo_commands` declares it."""

import asyncio
import secrets
from functools import partial
from pathlib import Path
from typing import Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gateway_core.clock import monotonic, utc_now
from local_stack import endpoints
from local_stack.data_directory import DataDirectory
from local_stack.endpoints import Endpoints
from tollgate import output
from tollgate.api.changes import spinner
from tollgate.client import Client, FixedToken
from tollgate.errors import UnreachableError
from tollgate.sessions import Sessions
from tollgate.settings import Settings
from tollgate.traffic import accounts, catalogue
from tollgate.traffic.plan import plan, written
from tollgate.traffic.sending import Sender
from tollgate.traffic.tally import Ended, Tally
from tollgate.traffic.tenants import TENANTS

_SEEDS: Final = 1_000_000
_COLUMNS: Final = ("what", "requests", "answers", "median_ms")


def traffic(data_dir: Path, *, seconds: float, rate: float, seed: int | None) -> None:
    """Have organisations of the demo use a running stack, and tell what came of it.

    Args:
        data_dir: of the stack.
        seconds: how long it takes.
        rate: requests in a second on average.
        seed: the same sends the same requests; None for one that is drawn.

    Raises:
        NotRunningError: no stack runs there.
        CommandError: it could not be prepared, or its gateway does not answer.
    """
    found = endpoints.of_running(DataDirectory.at(data_dir))
    operator = _operator(found)
    with spinner("Preparing organisations, keys and a model ..."):
        catalogue.prepare(operator, found.simulator_url)
        keys = accounts.prepare(operator, found.operator_token)
    chosen = secrets.randbelow(_SEEDS) if seed is None else seed
    slots = plan(chosen, seconds, rate)
    tally = Tally()
    with _progress() as progress:
        bar = progress.add_task("Requests", total=len(slots))

        def told(ended: Ended) -> None:
            tally.add(ended)
            progress.advance(bar)

        sender = Sender(found.anthropic_base_url, keys, monotonic, told)
        asyncio.run(sender.send(slots, partial(written, chosen)))
    if not tally.answered:
        raise UnreachableError(f"the gateway at {found.anthropic_base_url} has answered none of {len(slots)} requests")
    output.print_table(_COLUMNS, tally.rows())
    names = ", ".join(tenant.name for tenant in TENANTS)
    typer.echo(f"\n{len(slots)} requests of {names}; --seed {chosen} sends the same again.")
    typer.echo(f"They are in the charts within seconds: {found.control_plane_url}/console")


def _operator(found: Endpoints) -> Client:
    server, *replicas = found.control_plane_urls
    sessions = Sessions(Settings.load().state_directory, utc_now)
    return Client(server, FixedToken(found.operator_token, "token of the operator"), sessions, replicas=tuple(replicas))


def _progress() -> Progress:
    """On standard error, if somebody looks."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
