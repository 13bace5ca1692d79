"""A provider's file, added up and compared with the books by the API. Slow to import; `books_commands` declares the command."""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import typer

from gateway_core.export_layouts import ExportFormat, UnreadableExportError
from gateway_core.usage_exports import read_export
from tollgate import output
from tollgate.catalog.document_file import STANDARD_STREAM, name_of
from tollgate.client import PREFIX, Client
from tollgate.connection import Request
from tollgate.errors import ExitCode, UsageError
from tollgate.refusals import of_options

BODY_BYTES_MAX: Final = 1024 * 1024
"""As the API has it."""

_PATH: Final = f"{PREFIX}/billing/reconciliation"
_COLUMNS: Final = ("since", "model", "measure", "theirs", "ours", "difference", "percent", "verdict")
_PLACES: Final = of_options(
    {
        "provider": "--provider",
        "content": "the file",
        "by": "--by",
        "threshold_percent": "--threshold",
        "model_names": "--model",
    }.get
)


@dataclass(frozen=True, slots=True)
class Show:
    """What is wanted of the answer."""

    everything: bool
    as_csv: bool
    as_json: bool


def reconcile(
    client: Client,
    file: Path,
    provider: str,
    *,
    file_format: str | None,
    by: str,
    threshold: str,
    names: Mapping[str, str],
    show: Show,
) -> None:
    """Compare, and show what was found.

    Raises:
        UsageError: the file cannot be read, or comes to too much.
        Exit: something is not within.
    """
    body = json.dumps(
        {
            "provider": provider,
            "by": by,
            "threshold_percent": threshold,
            "model_names": names,
            **_added_up(file, file_format, by_hour=by == "hour"),
        }
    ).encode()
    if len(body) > BODY_BYTES_MAX:
        raise UsageError(f"{name_of(file)} names too many models and times for one comparison; export fewer days")
    reply = client.send(Request("POST", _PATH, body=body), place=_PLACES)
    made = reply.document()
    if show.as_json:
        output.print_json(reply.body)
    elif show.as_csv:
        csv = client.send(Request("GET", f"{_PATH}/{made['id']}/csv"), repeat=True)
        sys.stdout.buffer.write(csv.body)
        sys.stdout.buffer.flush()
    else:
        _print(made, everything=show.everything)
    if made["beyond"]:
        raise typer.Exit(ExitCode.DIFFERENT)


def _added_up(file: Path, file_format: str | None, *, by_hour: bool) -> Mapping[str, Any]:
    digest = hashlib.sha256()
    try:
        with nullcontext(sys.stdin.buffer) if file == STANDARD_STREAM else file.open("rb") as stream:
            export = read_export(_lines(stream, digest), None if file_format is None else ExportFormat(file_format))
    except OSError as error:
        raise UsageError(f"{name_of(file)} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{name_of(file)} is not UTF-8") from None
    except UnreadableExportError as error:
        raise UsageError(f"{name_of(file)}: {error}") from None
    if by_hour and not export.is_hourly:
        raise UsageError(f"{name_of(file)} tells days only, so --by hour cannot be")
    summed = export if by_hour else export.by_day()
    return {
        "content": summed.as_plain(),
        "format": ExportFormat.PLAIN,
        "file": {"format": export.format, "sha256": digest.hexdigest()},
    }


def _lines(stream: IO[bytes], digest: Any) -> Iterator[str]:
    for line in stream:
        digest.update(line)
        yield line.decode()


def _print(made: Mapping[str, Any], *, everything: bool) -> None:
    report = made["report"]
    rows = [
        {"since": _slot(each["since"], report["by"]), "model": each["model"], **line}
        for each in report["comparisons"]
        for line in each["lines"]
        if everything or line["verdict"] != "within"
    ]
    rows += [{"since": "all", "model": "all", **line} for line in report["totals"]]
    output.print_table(_COLUMNS, rows)
    for text in _remarks(made):
        typer.echo(output.printable(text), err=True)


def _remarks(made: Mapping[str, Any]) -> Iterator[str]:
    """What names were matched, what explains a difference, and what was found."""
    report = made["report"]
    matched = sorted(
        {
            (", ".join(each["their_names"]), ", ".join(each["our_names"]))
            for each in report["comparisons"]
            if each["their_names"] and each["our_names"] and each["their_names"] != each["our_names"]
        }
    )
    for theirs, ours in matched:
        yield f"Compared as one model: theirs {theirs}; ours {ours}."
    for each in report["comparisons"]:
        known = _nonzero(each["explanation"])
        if known and any(line["verdict"] != "within" for line in each["lines"]):
            yield f"{_slot(each['since'], report['by'])} {each['model']}: {known}."
    unaccounted = {**report["unaccounted"]}
    slices = unaccounted.pop("unknown_slices_usd")
    if known := _nonzero(unaccounted):
        yield f"On no line: {known}."
    if slices != "0.00":
        yield f"Set aside for requests that nobody accounted for: ${slices}."
    yield (
        f"Reconciliation {made['id']}: {made['beyond']} lines are not within {made['threshold_percent']} %; "
        f"the totals differ by {made['drift_percent']} % at most."
    )


def _nonzero(counts: Mapping[str, int]) -> str:
    found: Sequence[str] = [f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count]
    return ", ".join(found)


def _slot(since: str, by: str) -> str:
    day, _, time = since.partition("T")
    return day if by == "day" else f"{day} {time[:5]}Z"
