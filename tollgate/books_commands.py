"""The commands that look the books through and compare a provider's file, in the place of what would be made of their operations.

What they do is in `books_verification` and `reconciliation`, imported when they run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from gateway_core.clock import monotonic
from tollgate.account_commands import DataDir, Server
from tollgate.errors import CommandError, ExitCode, NotComparedError, UsageError

NOUN: Final = "books"
OPERATIONS: Final = {"verify": "verify_books", "reconcile": "make_reconciliation"}
"""By the commands that stand in their place."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


class FileFormat(StrEnum):
    """Whose file it is."""

    OPENAI_USAGE = "openai-usage"
    OPENAI_COSTS = "openai-costs"
    ANTHROPIC_USAGE = "anthropic-usage"
    ANTHROPIC_COST = "anthropic-cost"
    OPENROUTER_ACTIVITY = "openrouter-activity"
    PLAIN = "plain"


class Period(StrEnum):
    """What is compared as one."""

    DAY = "day"
    HOUR = "hour"


@app.command()
def verify(
    last: Annotated[
        bool, typer.Option("--last", help="Show what the last inspection found; wait for no new one.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as it comes, for programs.")] = False,
    server: Server = None,
    data_dir: DataDir = None,
) -> None:
    """Have everything looked through: sums, holds, slices, seals, that every charge has its request, and that ClickHouse has the same.

    A billing sink does it, as it does every night; it is waited for, for two minutes at most. Exit code 0: the books are right, 1: they are
    not, 2 or more: nobody could look, or not at all of it.
    """
    from tollgate import books_verification
    from tollgate.client import Client

    with _failing_as_not_compared():
        books_verification.verify(Client.find(server, data_dir), last=last, as_json=as_json, monotonic=monotonic)


@app.command()
def reconcile(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="As the provider's console exports it; - for standard input.", show_default=False
        ),
    ],
    provider: Annotated[str, typer.Option(metavar="NAME", help="As the catalogue calls it.", show_default=False)],
    file_format: Annotated[
        FileFormat | None, typer.Option("--format", help="[default: known by the columns]", show_default=False)
    ] = None,
    by: Annotated[Period, typer.Option(help="What is compared as one, in UTC.")] = Period.DAY,
    threshold: Annotated[
        str, typer.Option("--threshold", metavar="PERCENT", help="Up to which difference it is within.")
    ] = "0.5",
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="THEIRS=OURS",
            help="The provider's name of a model in the file, and the one it is asked for; may be repeated.",
            show_default=False,
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every line, not only those that are not within.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Every line as CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as it comes, for programs.")] = False,
    server: Server = None,
    data_dir: DataDir = None,
) -> None:
    """Compare what a provider says was used with the books, and keep what is found.

    The file is added up here, so it may be of any size. Exit code 0: all of it is within the threshold, 1: something is not, 2 or
    more: it could not be compared.
    """
    from tollgate import reconciliation
    from tollgate.client import Client

    if as_csv and as_json:
        raise UsageError("--csv and --json are two answers; ask for one of them")
    with _failing_as_not_compared():
        reconciliation.reconcile(
            Client.find(server, data_dir),
            file,
            provider,
            file_format=None if file_format is None else file_format.value,
            by=by.value,
            threshold=threshold,
            names=dict(map(_renamed, models or [])),
            show=reconciliation.Show(everything=everything, as_csv=as_csv, as_json=as_json),
        )


@contextmanager
def _failing_as_not_compared() -> Iterator[None]:
    """Where 1 means a difference, what fails ends with another code."""
    try:
        yield
    except CommandError as error:
        if error.exit_code is not ExitCode.FAILED:
            raise
        raise NotComparedError(str(error)) from None


def _renamed(text: str) -> tuple[str, str]:
    theirs, sign, ours = text.partition("=")
    if not (theirs and sign and ours):
        raise typer.BadParameter(f"{text!r} is not THEIRS=OURS", param_hint="'--model'")
    return theirs, ours
