"""The commands that start, look at, ask and stop a local stack.

What they do is in `local`, imported when one of them runs: help and completion of everything else need none of it.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from tollgate.invocation import DATA_DIR_VARIABLE, DEFAULT_DATA_DIR

app = typer.Typer(add_completion=False, rich_markup_mode=None)

DataDir = Annotated[
    Path,
    typer.Option("--data-dir", help="Where the stack keeps its data.", metavar="DIR", envvar=DATA_DIR_VARIABLE),
]


def _names_of_logs() -> list[str]:
    from local_stack.tollgate_services import SERVICES, TASKS

    return [*SERVICES, *TASKS]


class LogsCommand(TyperCommand):
    """Looks the names up when its help is shown."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - typer's signature
        """What has a log."""
        with formatter.section("Logs there are"):
            formatter.write_text(", ".join(_names_of_logs()))


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
        int,
        typer.Option(
            min=1, max=4, help="How many of each of control_plane, ext_authz, billing_sink, translator, response_cache."
        ),
    ] = 1,
) -> None:
    """Start the whole gateway on this machine and keep it running until Ctrl-C."""
    from tollgate import local

    local.up(data_dir, port, replicas)


@app.command()
def status(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show what each service is doing. Exit code 0: all up, 1: something is not, 3: nothing runs."""
    from tollgate import local

    local.status(data_dir, as_json=as_json)


@app.command()
def env(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Print addresses and secrets of a running stack for a shell: eval "$(tollgate env)"."""
    from tollgate import local

    local.env(data_dir)


@app.command()
def down(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Stop a stack that runs somewhere else, in order, and wait until it has stopped."""
    from tollgate import local

    local.down(data_dir)


@app.command(cls=LogsCommand)
def logs(
    service: Annotated[
        str,
        typer.Argument(
            help="As `tollgate status` names it, or what runs once in a start.", autocompletion=_names_of_logs
        ),
    ],
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many of the last lines.")] = 50,
    is_followed: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Print the log of one service."""
    from tollgate import local

    local.logs(data_dir, service, lines, is_followed=is_followed)


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
    from tollgate import local

    local.psql(data_dir, arguments or [])


@app.command()
def clickhouse(
    query: Annotated[str, typer.Argument(help="One statement.", show_default=False)],
    answer_format: Annotated[
        str, typer.Option("--format", help="Of the answer, unless the query names one: any of ClickHouse's.")
    ] = "PrettyCompact",
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Send one query to the ClickHouse of a running stack and print the answer."""
    from tollgate import local

    local.clickhouse(data_dir, query, answer_format)
