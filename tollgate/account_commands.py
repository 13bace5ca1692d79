"""Who one is, where, and for which organisation; and the completion of all commands.

What these need is imported when one of them runs.
"""

import contextlib
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from tollgate.errors import CommandError, NotLoggedInError, UsageError

app = typer.Typer(add_completion=False, rich_markup_mode=None)

PROGRAM: Final = "tollgate"
COMPLETE_VARIABLE: Final = "_TOLLGATE_COMPLETE"

Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="The control plane. [default: TOLLGATE_SERVER, the stack here, the last log-in]",
        show_default=False,
    ),
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", metavar="DIR", help="The local stack to ask.", show_default=False)
]


class Shell(StrEnum):
    """Those that completion is made for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command()
def login(
    email: Annotated[
        str | None, typer.Option(metavar="EMAIL", help="Asked for if not given.", show_default=False)
    ] = None,
    server: Server = None,
    data_dir: DataDir = None,
) -> None:
    """Log in with e-mail address and password. Where no terminal asks for it, the password is read from standard input."""
    from tollgate.client import PREFIX, Client
    from tollgate.connection import Request
    from tollgate.sessions import Session

    client = Client.find(server, data_dir)
    is_asked = sys.stdin.isatty()
    if email is None and not is_asked:
        raise UsageError("missing option --email")
    address = email or typer.prompt("E-mail", err=True)
    password = typer.prompt("Password", hide_input=True, err=True) if is_asked else sys.stdin.readline().rstrip("\r\n")
    body = json.dumps({"email": address, "password": password}).encode()
    reply = client.send(Request("POST", f"{PREFIX}/auth/login", body=body), public=True)
    session = Session.of(address, reply.document(), client.now())
    client.sessions.update(lambda state: state.with_session(client.server, session).at(client.server))
    typer.echo(f"Logged in to {client.server} as {address}.", err=True)
    if client.as_logged_in().hides_operator:
        typer.echo("Commands here are yours now, and not the local operator's until `tollgate logout`.", err=True)


@app.command()
def logout(server: Server = None, data_dir: DataDir = None) -> None:
    """End the session, on the server and here."""
    from tollgate.client import PREFIX, Client
    from tollgate.connection import Request

    client = Client.find(server, data_dir).as_logged_in()
    try:
        client.send(Request("POST", f"{PREFIX}/auth/logout"))
    except NotLoggedInError:
        pass  # it was over before
    except CommandError as error:
        typer.echo(f"The server was not told: {error}", err=True)
    client.sessions.update(lambda state: state.with_session(client.server, None))
    typer.echo(f"Logged out of {client.server}.", err=True)


@app.command()
def whoami(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    server: Server = None,
    data_dir: DataDir = None,
) -> None:
    """Show which server is meant, who one is there, and for which organisation."""
    from tollgate import output
    from tollgate.client import Client
    from tollgate.errors import RefusedError

    client = Client.find(server, data_dir)
    found: dict[str, object] = {
        "server": client.server,
        "credential": client.credential and client.credential.description,
        "user": None,
        "org_id": None,
    }
    with contextlib.suppress(RefusedError):  # a machine token is no user
        found["user"] = client.get("/me")
    with contextlib.suppress(RefusedError, UsageError):  # none, or several
        found["org_id"] = client.org_id()
    if as_json:
        output.print_json(json.dumps(found).encode())
    else:
        output.print_one(found)


@app.command("use-org")
def use_org(
    org_id: Annotated[str, typer.Argument(metavar="ORG_ID", help="As `tollgate orgs list` shows it.")],
    server: Server = None,
    data_dir: DataDir = None,
) -> None:
    """Remember the organisation that is meant when --org is not given."""
    from tollgate.client import Client, quoted

    client = Client.find(server, data_dir)
    org = client.get(quoted("/orgs/{org_id}", {"org_id": org_id}))
    client.sessions.update(lambda state: state.with_org(client.server, org["id"]))
    typer.echo(f"From now on {org['name']} ({org['id']}) is meant on {client.server}.", err=True)


@app.command()
def completion(ctx: typer.Context, shell: Shell) -> None:
    """Print the script that completes commands and options in a shell.

    For bash: eval "$(tollgate completion bash)" in ~/.bashrc; for zsh the same in ~/.zshrc, after compinit; for fish:
    tollgate completion fish > ~/.config/fish/completions/tollgate.fish
    """
    from typer.completion import shell_complete

    raise typer.Exit(shell_complete(ctx.find_root().command, {}, PROGRAM, COMPLETE_VARIABLE, f"source_{shell}"))
