"""What the commands of the catalogue do. Slow to import; `catalog_commands` declares them."""

import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import typer

from tollgate import output
from tollgate.api import calls, changes
from tollgate.api.document import Document
from tollgate.catalog import difference, document_file, price_list_file
from tollgate.catalog.document_file import STANDARD_STREAM, DocumentFile
from tollgate.client import PREFIX, Client
from tollgate.connection import Reply, Request
from tollgate.errors import CommandError, ExitCode, RefusedError, UsageError
from tollgate.refusals import of_options
from tollgate.settings import environment

_PATH: Final = f"{PREFIX}/catalog"
_PRECONDITION_FAILED: Final = 412


def export(client: Client, file: Path | None, *, force: bool, as_json: bool) -> None:
    """Write the catalogue down."""
    reply = client.send(Request("GET", _PATH), repeat=True)
    text = _json_text(reply) if as_json else document_file.as_yaml(reply.document())
    document_file.write(text, file, force=force)


def diff(client: Client, file: Path, *, prune: bool, as_json: bool) -> None:
    """Compare a file with the catalogue."""
    reply = _difference(client, _read(file), prune=prune)
    found = reply.document()["changes"]
    if as_json:
        output.print_json(reply.body)
    else:
        _show(found, err=False)
    if found:
        raise typer.Exit(ExitCode.DIFFERENT)


def apply(client: Client, file: Path, *, prune: bool, yes: bool, wait: bool, as_json: bool) -> None:
    """Make the catalogue what a file says, as it was shown."""
    if not yes and (file == STANDARD_STREAM or not sys.stdin.isatty()):
        raise UsageError("nobody is here to be asked; --yes applies without asking")
    document = _read(file)
    compared = _difference(client, document, prune=prune)
    found = compared.document()["changes"]
    if not found:
        typer.echo("Nothing to do: the catalogue is as the file says.", err=True)
        if as_json:
            output.print_json(b"null")
        return
    _show(found, err=True)
    if not yes and not typer.confirm(f"Apply this to {client.server}?", err=True):
        typer.echo("Nothing was applied.", err=True)
        raise typer.Exit(ExitCode.FAILED)
    reply = _applied(client, document, prune=prune, etag=compared.headers["etag"])
    if wait:
        reply = calls.ended(Document.packaged(), reply, client)
    if as_json:
        output.print_json(reply.body)
    else:
        output.print_one(reply.document())
    changes.require_applied(reply.document())


def check(client: Client, file: Path | None, *, prune: bool, as_json: bool) -> None:
    """Ask Envoy."""
    document = DocumentFile("the catalogue", {}, {(): 1}) if file is None else _read(file)
    reply = _post(client, "check", document, prune=prune)
    verdict = reply.document()
    if as_json:
        output.print_json(reply.body)
    elif verdict["ok"]:
        typer.echo("Envoy accepts it.")
    if not verdict["ok"]:
        raise CommandError(f"Envoy refuses it: {output.printable(verdict['message'])}")


def import_list(
    client: Client,
    kind: str,
    file: Path,
    *,
    models: Sequence[str],
    providers: Sequence[str],
    base_urls: Mapping[str, str],
    out: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Make a document of a public list."""
    listed = price_list_file.read(file)
    body = listed.body(kind, models, providers, base_urls)
    reply = client.send(Request("POST", f"{_PATH}/imports", body=body), place=listed.place, repeat=True)
    found = reply.document()
    _show(found["changes"], err=True)
    for skipped in found["skipped"]:
        reason = price_list_file.in_words_of_options(skipped["reason"])
        typer.echo(output.printable(f"skipped {listed.entry(skipped['pointer'])}: {reason}"), err=True)
    text = _json_text(reply) if as_json else document_file.as_yaml(found["document"])
    document_file.write(text, out, force=force)


def starter(client: Client, *, providers: Sequence[str], out: Path | None, force: bool, as_json: bool) -> None:
    """Make a document of the starter catalogue."""
    body = json.dumps({"providers": providers}).encode()
    place = of_options({"providers": "--provider"}.get)
    reply = client.send(Request("POST", f"{_PATH}/starter", body=body), place=place, repeat=True)
    found = reply.document()
    drafts = [name for name, route in found["document"].get("routes", {}).items() if not route.get("published", True)]
    if drafts:
        typer.echo(f"{len(drafts)} routes are drafts: their providers have no credential here.", err=True)
    text = _json_text(reply) if as_json else document_file.as_yaml(found["document"])
    document_file.write(text, out, force=force)


def _read(file: Path) -> DocumentFile:
    document = document_file.read(file, environment())
    for warning in document.warnings:
        typer.echo(f"Warning: {warning}", err=True)
    return document


def _difference(client: Client, document: DocumentFile, *, prune: bool) -> Reply:
    return _post(client, "diff", document, prune=prune)


def _applied(client: Client, document: DocumentFile, *, prune: bool, etag: str) -> Reply:
    headers = {calls.IF_MATCH: etag, calls.IDEMPOTENCY_KEY: secrets.token_urlsafe(16)}
    try:
        return _post(client, "apply", document, prune=prune, headers=headers)
    except RefusedError as error:
        if error.status != _PRECONDITION_FAILED:
            raise
        raise CommandError(
            "the catalogue was changed after this comparison, so nothing was applied; the same command shows what is new"
        ) from None


def _post(
    client: Client, verb: str, document: DocumentFile, *, prune: bool, headers: Mapping[str, str] | None = None
) -> Reply:
    body = json.dumps(document.content).encode()
    request = Request("POST", f"{_PATH}/{verb}", {"prune": str(prune).lower()}, body, headers or {})
    return client.send(request, place=document.place, repeat=True)


def _show(found: Sequence[Mapping[str, Any]], *, err: bool) -> None:
    for line in difference.lines(found):
        typer.echo(line, err=err)


def _json_text(reply: Reply) -> str:
    return reply.body.decode().rstrip("\n") + "\n"
