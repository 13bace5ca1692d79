"""The tree of commands: those of a local stack, those about oneself, and those of the API."""

from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.completion import get_completion_inspect_parameters
from typer.core import TyperGroup

from tollgate import account_commands, books_commands, catalog_commands, demo_commands, stack_commands
from tollgate.api.commands import groups
from tollgate.api.document import Document

API = "The API"
LOCAL_STACK = "Local stack"
SECTIONS = {LOCAL_STACK: stack_commands.app, "You": account_commands.app}

LOCAL_NOUNS = {demo_commands.NOUN: demo_commands.app}
"""Nouns of the local stack. The API has none of these names."""

OWN = {catalog_commands.NOUN: catalog_commands.app}
"""Nouns whose commands are not made from the document."""

OWN_VERBS = {books_commands.NOUN: books_commands.app}
"""Nouns some of whose commands are not: each stands in the place of the one that would have its name."""


class Root(TyperGroup):
    """Shows the commands in sections. Without rich, whose import would take longer than all the rest."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - typer's signature
        """One list for each section."""
        width = max(map(len, self.commands))
        for title, names in self.sections().items():
            with formatter.section(title):
                rows = [(name, self.commands[name].get_short_help_str(formatter.width - width - 6)) for name in names]
                formatter.write_dl(rows)

    def sections(self) -> dict[str, list[str]]:
        """Names of commands, by the section they are in."""
        named = {title: [_name(each) for each in app.registered_commands] for title, app in SECTIONS.items()}
        named[LOCAL_STACK] += LOCAL_NOUNS
        local = {name for names in named.values() for name in names}
        return {**named, API: [name for name in self.commands if name not in local]}


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"tollgate {version('tollgate')}")
        raise typer.Exit


def tollgate(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Tollgate: a gateway in front of AI model providers."""


def root(document: Document) -> TyperGroup:
    """All commands, those of the API as the document has them."""
    app = typer.Typer(
        cls=Root, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None
    )
    app.callback()(tollgate)
    for section in SECTIONS.values():
        app.registered_commands.extend(section.registered_commands)
    made = typer.main.get_group(app)
    for noun in LOCAL_NOUNS.values():
        made.add_command(typer.main.get_group(noun))
    for group in groups(document):
        # In their place among the others, and only if the API has them.
        made.add_command(typer.main.get_group(OWN[group.name]) if group.name in OWN else group)
        if group.name in OWN_VERBS:
            for command in typer.main.get_group(OWN_VERBS[group.name]).commands.values():
                group.add_command(command)
    # Makes the shells known that typer can complete in; it does so by itself only if it may add options of its own.
    get_completion_inspect_parameters()
    return made


def _name(command: Any) -> str:
    return str(command.name or command.callback.__name__)
