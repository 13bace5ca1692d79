"""Operations as commands: one group for each noun, built when somebody asks for it."""

from collections.abc import Iterator, Mapping
from functools import partial
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from tollgate.api import options
from tollgate.api.document import Document, Operation, Outline
from tollgate.api.names import ORG_PARAMETER, commands

_IF_MATCH: Final = "If-Match"
_IDEMPOTENCY_KEY: Final = "Idempotency-Key"


class OperationsGroup(TyperGroup):
    """The commands of one noun."""

    def __init__(self, document: Document, noun: str, outlines: Mapping[str, Outline]) -> None:
        super().__init__(name=noun, help=f"{', '.join(outlines)}", no_args_is_help=True, rich_markup_mode=None)
        self._document = document
        self._outlines = outlines

    def list_commands(self, ctx: object) -> list[str]:  # noqa: ARG002 - typer's signature
        """The verbs."""
        return list(self._outlines)

    def get_command(self, ctx: object, cmd_name: str) -> TyperCommand | None:
        """The command of a verb."""
        if cmd_name not in self._outlines:
            for verb in self._outlines:  # so that typer can suggest one of them
                self.get_command(ctx, verb)
            return None
        if cmd_name not in self.commands:
            operation = self._document.operation(self._outlines[cmd_name])
            self.commands[cmd_name] = command(self._document, cmd_name, operation)
        found = self.commands[cmd_name]
        assert isinstance(found, TyperCommand)  # noqa: S101 - nothing else was put there
        return found


def groups(document: Document) -> Iterator[OperationsGroup]:
    """Every operation of a document."""
    for noun, outlines in commands(document.outlines).items():
        yield OperationsGroup(document, noun, outlines)


def command(document: Document, name: str, operation: Operation) -> TyperCommand:
    """The command of one operation."""
    run = partial(_run, document, operation)

    def function(**given: Any) -> None:
        run(given)

    parameters = list(_parameters(operation))
    function.__annotations__ = {}
    function.__signature__ = Signature(parameters)  # type: ignore[attr-defined] # functions have it; their stub does not
    # A Typer of its own, because its command is the only one and so becomes the whole.
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name, help=_help(operation))(function)
    made = typer.main.get_command(app)
    assert isinstance(made, TyperCommand)  # noqa: S101 - it is one command
    return made


def _help(operation: Operation) -> str:
    outline = operation.outline
    called = f"{outline.method} {outline.path}"
    return "\n\n".join(part for part in (outline.summary, operation.description, f"Calls {called}.") if part)


def _parameters(operation: Operation) -> Iterator[Parameter]:
    names = list(operation.path_parameters)
    if ORG_PARAMETER in names:
        names.remove(ORG_PARAMETER)
        if not names and operation.outline.path.endswith(f"{{{ORG_PARAMETER}}}"):
            yield _argument("org_argument", "ORG_ID", default=None)
    for name in names:
        yield _argument(_variable(name), name.upper())
    body = operation.body
    if body is not None:
        yield from options.parameters(body, changes=operation.changes_part)
        yield options.option(
            "body",
            Path,
            None,
            "--body",
            metavar="FILE",
            help="The body as JSON or YAML, - for standard input; options win.",
        )
    yield from options.parameters(operation.query, changes=False)
    if _has_pages(operation):
        yield options.option("everything", bool, False, "--all", help="Every page, not only the first.")
    if ORG_PARAMETER in operation.path_parameters:
        text = "The organisation, by its id. [default: that of `tollgate use-org`, or the only one]"
        yield options.option("org", str, None, "--org", metavar="ORG_ID", help=text)
    if _IF_MATCH in operation.headers:
        text = "Only if its ETag is this one, or * for whatever is there. [default: as it is now]"
        yield options.option("if_match", str, None, "--if-match", metavar="ETAG", help=text)
    if _IDEMPOTENCY_KEY in operation.headers:
        text = "The same key does the same thing once. [default: a new one]"
        yield options.option("idempotency_key", str, None, "--idempotency-key", metavar="KEY", help=text)
    if operation.goes_on:
        text = "Do not wait until the change is live."
        yield options.option("no_wait", bool, False, "--no-wait", help=text)
    if operation.file_type is None:
        yield options.option("as_json", bool, False, "--json", help="The answer as it comes, for programs.")
    else:
        text = "Where the answer goes; what is there is replaced. [default: standard output]"
        yield options.option("out", Path, None, "--out", metavar="FILE", help=text)
    yield from server_options()


def server_options() -> Iterator[Parameter]:
    """Which server every command that calls the API asks."""
    yield options.option(
        "server",
        str,
        None,
        "--server",
        metavar="URL",
        help="The control plane. [default: TOLLGATE_SERVER, the stack here, the last log-in]",
    )
    yield options.option("data_dir", Path, None, "--data-dir", metavar="DIR", help="The local stack to ask.")


def _argument(name: str, metavar: str, default: object = ...) -> Parameter:
    info = typer.Argument(default, metavar=metavar, show_default=False)
    return Parameter(name, Parameter.KEYWORD_ONLY, default=info, annotation=str)


def _run(document: Document, operation: Operation, given: Mapping[str, Any]) -> None:
    from tollgate.api import bodies, calls  # noqa: PLC0415 - help and completion do without
    from tollgate.client import Client  # noqa: PLC0415 - the same

    query = options.read(operation.query, given)
    body = None
    if operation.body is not None:
        fields = options.read(operation.body, given)
        body = bodies.assemble(operation.body, fields, given["body"], changes=operation.changes_part)
    client = Client.find(given["server"], given["data_dir"])
    values = {name: given[_variable(name)] for name in operation.path_parameters if name != ORG_PARAMETER}
    if ORG_PARAMETER in operation.path_parameters:
        values[ORG_PARAMETER] = given.get("org_argument") or given["org"] or client.org_id()
    call = calls.Call(
        path_values=values,
        query={name: _query_text(value) for name, value in query.values.items()},
        body=body,
        if_match=given.get("if_match"),
        idempotency_key=given.get("idempotency_key"),
        everything=given.get("everything", False),
        as_json=given.get("as_json", False),
        out=given.get("out"),
        wait=not given.get("no_wait", False),
    )
    calls.run(document, operation, call, client)


def _query_text(value: object) -> str | list[str]:
    if isinstance(value, list):
        return [str(item) for item in value]
    return str(value).lower() if isinstance(value, bool) else str(value)


def _has_pages(operation: Operation) -> bool:
    return operation.answer is not None and operation.answer.has_pages


def _variable(name: str) -> str:
    return f"path_{name}"
