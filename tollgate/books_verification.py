"""The books looked through by the API, for people and for `cron`. Slow to import; `books_commands` declares the command."""

from collections.abc import Mapping
from typing import Any, Final

import typer

from tollgate import output
from tollgate.client import PREFIX, Client
from tollgate.connection import Request
from tollgate.errors import ExitCode

_PATH: Final = f"{PREFIX}/billing/books"


def verify(client: Client, *, as_json: bool) -> None:
    """Have the books looked through, and show what was found.

    Raises:
        Exit: they are not right, or were not at the last nightly look.
    """
    reply = client.send(Request("GET", _PATH), repeat=True)
    books = reply.document()
    if as_json:
        output.print_json(reply.body)
    else:
        _print(books)
    if not books["ok"]:
        raise typer.Exit(ExitCode.DIFFERENT)


def _print(books: Mapping[str, Any]) -> None:
    inspection, seal = books["last_inspection"], books["seal"]
    output.print_list("Check", books["checks"])
    output.print_one(
        {
            "books": "right" if books["ok"] else "WRONG",
            "sealed_at": seal and seal["sealed_at"],
            "seal": seal and f"{seal['seal_id']}, up to transaction {seal['last_transaction_id']}: {seal['digest']}",
            "inspected_at": inspection and inspection["inspected_at"],
            "inspection": inspection and _told(inspection),
        }
    )


def _told(inspection: Mapping[str, Any]) -> str:
    wrong = [check["name"] for check in inspection["checks"] if check["wrong"]]
    return f"WRONG: {', '.join(wrong)}" if wrong else "right, and ClickHouse has the same"
