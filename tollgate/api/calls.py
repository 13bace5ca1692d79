"""One call of an operation from the options of its command to the answer on standard output."""

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import typer

from gateway_core.clock import monotonic
from tollgate import output
from tollgate.api import changes
from tollgate.api.document import Document, Operation
from tollgate.api.options import flag
from tollgate.client import Client, quoted, with_headers
from tollgate.connection import Reply, Request
from tollgate.errors import RefusedError, UsageError
from tollgate.refusals import of_options

IF_MATCH: Final = "If-Match"
IDEMPOTENCY_KEY: Final = "Idempotency-Key"
DRY_RUN: Final = "x-tollgate-dry-run"
CURSOR: Final = "cursor"
_LIMIT: Final = "limit"
_NOT_FOUND: Final = 404


@dataclass(frozen=True, slots=True)
class Call:
    """What a command line asks for.

    Attributes:
        if_match: an ETag; None to take that of what is there now.
        idempotency_key: None for a new one.
        everything: whether to read every page.
        as_json: whether to print the answer as it comes.
        out: where a file goes; None for standard output.
        wait: whether to wait for the end of a change.
    """

    path_values: Mapping[str, str]
    query: Mapping[str, str | Sequence[str]]
    body: Mapping[str, Any] | None
    if_match: str | None
    idempotency_key: str | None
    everything: bool
    as_json: bool
    out: Path | None
    wait: bool


def run(document: Document, operation: Operation, call: Call, client: Client) -> None:
    """Make the call and print the answer.

    Raises:
        CommandError: it was refused, could not be made, or its change was not applied.
    """
    if operation.file_type is not None and call.out is None:
        output.require_readable(operation.file_type)
    flags = {field.name: flag(field) for field in (*operation.query, *(operation.body or ()))}.get
    request = _request(document, operation, call, client)
    repeat = operation.outline.method == "GET" or IDEMPOTENCY_KEY in request.headers
    send = partial(client.send, place=of_options(flags), repeat=repeat, public=operation.is_public)
    if call.everything:
        _show_all(operation, call, _pages(send, request, operation))
        return
    reply = send(request)
    if operation.goes_on and call.wait and not _is_dry_run(reply):
        reply = ended(document, reply, client)
    _show(operation, call, reply)
    if operation.goes_on:
        changes.require_applied(reply.document())


def _request(document: Document, operation: Operation, call: Call, client: Client) -> Request:
    outline = operation.outline
    path = quoted(outline.path, call.path_values)
    body = None if call.body is None else json.dumps(call.body).encode()
    request = Request(outline.method, path, call.query, body)
    if IDEMPOTENCY_KEY in operation.headers:
        request = with_headers(request, {IDEMPOTENCY_KEY: call.idempotency_key or secrets.token_urlsafe(16)})
    if IF_MATCH in operation.headers:
        etag = call.if_match or _current_etag(document, operation, path, client)
        if etag is not None:
            request = with_headers(request, {IF_MATCH: etag})
    return request


def _current_etag(document: Document, operation: Operation, path: str, client: Client) -> str | None:
    """The ETag of what is there now; None if a `put` finds nothing to replace."""
    reader = document.reader_of(operation.outline)
    if reader is None:
        raise UsageError("what is there now cannot be read; give its ETag with --if-match, or --if-match '*'")
    try:
        reply = client.send(Request("GET", path), repeat=True)
    except RefusedError as error:
        if operation.outline.method == "PUT" and error.status == _NOT_FOUND:
            return None
        raise
    return reply.headers.get("etag")


def ended(document: Document, reply: Reply, client: Client) -> Reply:
    """The answer that tells how a change ended, once it has.

    Raises:
        NotAppliedError: it has not ended in time.
    """
    watcher = document.watcher()
    found = reply.document()
    if watcher is None or found["state"] != changes.PENDING:
        return reply
    with changes.spinner(f"Waiting until every Envoy has it ({found['id']}) ..."):
        return changes.final(reply, watcher, partial(client.send, repeat=True), monotonic=monotonic, sleep=client.sleep)


def _pages(send: partial[Reply], request: Request, operation: Operation) -> Iterator[Reply]:
    """One page after the other; as large as they come, unless it was said how large."""
    query = dict(request.query)
    for field in operation.query:
        if field.name == _LIMIT and field.maximum is not None:
            query.setdefault(_LIMIT, str(field.maximum))
    while True:
        reply = send(Request(request.method, request.path, dict(query)))
        yield reply
        cursor = reply.document()["next_cursor"]
        if cursor is None or cursor == query.get(CURSOR):
            return
        query[CURSOR] = cursor


def _show_all(operation: Operation, call: Call, pages: Iterator[Reply]) -> None:
    things: list[Mapping[str, Any]] = [thing for page in pages for thing in page.document()["data"]]
    if call.as_json:
        output.print_json(json.dumps({"data": things, "next_cursor": None}, ensure_ascii=False).encode())
    else:
        _table(operation, things)


def _show(operation: Operation, call: Call, reply: Reply) -> None:
    answer = operation.answer
    if not reply.body:
        typer.echo("Done.", err=True)
    elif operation.file_type is not None:
        output.write_file(reply.body, call.out)
    elif call.as_json or answer is None:
        output.print_json(reply.body)
    elif answer.is_list:
        _table(operation, reply.document()["data"])
        if reply.document().get("next_cursor"):
            typer.echo("There are more: --all shows everything.", err=True)
    else:
        output.print_one(reply.document())
    if _is_dry_run(reply):
        typer.echo("Nothing was changed: this was a dry run.", err=True)
    elif answer is not None and answer.shown_once:
        typer.echo(f"Keep the {' and '.join(answer.shown_once)} now: no later answer shows it.", err=True)


def _is_dry_run(reply: Reply) -> bool:
    return reply.headers.get(DRY_RUN) == "true"


def _table(operation: Operation, things: Sequence[Mapping[str, Any]]) -> None:
    assert operation.answer is not None  # noqa: S101 - only what answers with a list gets here
    output.print_list(operation.answer.schema, things)
