"""The commands of the catalogue as a file, in the place of those that its operations would have.

What they do is in `catalog.operations`, imported when one of them runs.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from tollgate.account_commands import DataDir, Server
from tollgate.errors import CommandError, ExitCode, NotComparedError

NOUN: Final = "catalog"
OPERATIONS: Final = frozenset(
    {"get_catalog", "diff_catalog", "apply_catalog", "check_catalog", "preview_import", "preview_starter"}
)
"""What they call: all that there is under this noun."""

app = typer.Typer(
    name=NOUN,
    help="export, diff, apply, check, import, starter",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="[default: standard output]", show_default=False),
]
Document = Annotated[
    Path, typer.Argument(metavar="FILE", help="A catalogue as YAML; - for standard input.", show_default=False)
]
Prune = Annotated[
    bool, typer.Option("--prune", help="Remove what the file does not name, but for prices; else that stays.")
]
AsJson = Annotated[bool, typer.Option("--json", help="The answer as it comes, for programs.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file.")]


class ListFormat(StrEnum):
    """Whose list it is."""

    LITELLM = "litellm"
    OPENROUTER = "openrouter"


@app.command()
def export(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="[default: standard output]", show_default=False)
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
    server: Server = None,
    data_dir: DataDir = None,
) -> None:
    """Write the whole catalogue as YAML, for version control. It has no credentials in it.

    The same catalogue is always the same text: sorted, without what is at its default.
    """
    from tollgate.catalog import operations
    from tollgate.client import Client

    operations.export(Client.find(server, data_dir), file, force=force, as_json=as_json)


@app.command()
def diff(
    file: Document,
    prune: Prune = False,
    as_json: AsJson = False,
    server: Server = None,
    data_dir: DataDir = None,
) -> None:
    """Show what applying a file would change; changes nothing.

    Exit code 0: nothing, 1: something, 2 or more: it could not be compared. As `git diff --exit-code`.
    """
    from tollgate.catalog import operations
    from tollgate.client import Client

    try:
        operations.diff(Client.find(server, data_dir), file, prune=prune, as_json=as_json)
    except CommandError as error:
        if error.exit_code is not ExitCode.FAILED:
            raise
        raise NotComparedError(str(error)) from None


@app.command()
def apply(
    file: Document,
    prune: Prune = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. Needed where no terminal is.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until the change is live.")] = False,
    as_json: AsJson = False,
    server: Server = None,
    data_dir: DataDir = None,
) -> None:
    """Show what a file would change, ask, and make it so: all of it in one operation, or nothing.

    If somebody else changes the catalogue in between, nothing is applied.
    """
    from tollgate.catalog import operations
    from tollgate.client import Client

    client = Client.find(server, data_dir)
    operations.apply(client, file, prune=prune, yes=yes, wait=not no_wait, as_json=as_json)


@app.command()
def check(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="A catalogue as YAML; - for standard input. [default: the catalogue as it is]",
            show_default=False,
        ),
    ] = None,
    prune: Prune = False,
    as_json: AsJson = False,
    server: Server = None,
    data_dir: DataDir = None,
) -> None:
    """Ask Envoy whether it would accept the catalogue with a file applied; changes nothing. Exit code 1: it would not."""
    from tollgate.catalog import operations
    from tollgate.client import Client

    operations.check(Client.find(server, data_dir), file, prune=prune, as_json=as_json)


@app.command("import")
def import_list(
    list_format: Annotated[ListFormat, typer.Argument(metavar="litellm|openrouter", help="Whose list it is.")],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="model_prices_and_context_window.json, or OpenRouter's answer to GET /api/v1/models; "
            "- for standard input.",
            show_default=False,
        ),
    ],
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="PATTERN",
            help="Shell-style, of the providers' own names; may be repeated. [default: all]",
            show_default=False,
        ),
    ] = None,
    providers: Annotated[
        list[str] | None,
        typer.Option(
            "--provider",
            metavar="NAME",
            help="As the list calls it; may be repeated. [default: all]",
            show_default=False,
        ),
    ] = None,
    provider_base_urls: Annotated[
        list[str] | None,
        typer.Option(
            "--provider-base-url",
            metavar="NAME=URL",
            help="Where a provider is that neither the list nor the catalogue tells; may be repeated.",
            show_default=False,
        ),
    ] = None,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
    server: Server = None,
    data_dir: DataDir = None,
) -> None:
    """Make a public list of models and prices into a file to look at, edit and apply; changes nothing.

    What it would change, and what was skipped and why, is on standard error.
    """
    from tollgate.catalog import operations
    from tollgate.client import Client

    operations.import_list(
        Client.find(server, data_dir),
        list_format.value,
        file,
        models=models or [],
        providers=providers or [],
        base_urls=dict(map(_named_url, provider_base_urls or [])),
        out=out,
        force=force,
        as_json=as_json,
    )


@app.command("starter")
def starter(
    providers: Annotated[
        list[str] | None,
        typer.Option("--provider", metavar="NAME", help="May be repeated. [default: all]", show_default=False),
    ] = None,
    out: Out = None,
    force: Force = False,
    as_json: AsJson = False,
    server: Server = None,
    data_dir: DataDir = None,
) -> None:
    """Current models and their list prices as a file to look at, edit and apply; changes nothing.

    Only what the catalogue does not have yet. With --json the source and date of each price are beside it.
    """
    from tollgate.catalog import operations
    from tollgate.client import Client

    operations.starter(Client.find(server, data_dir), providers=providers or [], out=out, force=force, as_json=as_json)


def _named_url(text: str) -> tuple[str, str]:
    name, sign, url = text.partition("=")
    if not (name and sign and url):
        raise typer.BadParameter(f"{text!r} is not NAME=URL", param_hint="'--provider-base-url'")
    return name, url
