"""The books looked through by a billing sink, for people and for `cron`. Slow to import; `books_commands` declares the command."""

from collections.abc import Mapping
from typing import Any, Final

import typer

from gateway_core.clock import Monotonic
from gateway_core.contract import InspectionFailure
from tollgate import output
from tollgate.api.changes import spinner
from tollgate.client import PREFIX, Client
from tollgate.connection import Request
from tollgate.errors import ExitCode, NotComparedError, UnreachableError

DEADLINE_S: Final = 120.0
_PAUSE_S: Final = 0.5
_PATH: Final = f"{PREFIX}/billing/books"
_ORDERS: Final = f"{_PATH}/inspections"

_WHY: Final[Mapping[str, str]] = {
    InspectionFailure.CLICKHOUSE_UNREACHABLE: "the billing sink cannot reach ClickHouse, so nobody knows whether it has what Postgres has",
}
_RELEASED: Final[Mapping[str, str]] = {
    "held_is_in_open_holds_and_slices": "More or less is held of some balances than for open requests. `python -m billing_sink mend`, with the "
    "sink's database, sets it right and says of which",
    "recorded_requests_hold_nothing": "Some holds are of requests that are over. A billing sink that has read its spool to the end releases "
    "them within seconds; if they stay, none does",
}
"""How what is held for nobody comes free, by the check that finds it."""
_LAST: Final = "`tollgate books verify --last` looks at Postgres alone, and shows the last inspection"


def verify(client: Client, *, last: bool, as_json: bool, monotonic: Monotonic) -> None:
    """Have the books looked through, unless the last time will do, and show what was found.

    Raises:
        Exit: they are not right.
        NotComparedError: ClickHouse has not been compared, or not in time.
        UnreachableError: no sink has answered.
    """
    if not last:
        _inspected(client, monotonic)
    # What has just been read is not read again.
    reply = client.send(Request("GET", _PATH, {} if last else {"anew": "false"}), repeat=True)
    books = reply.document()
    if as_json:
        output.print_json(reply.body)
    else:
        _print(books)
    if any(check["wrong"] for check in books["checks"]):
        raise typer.Exit(ExitCode.DIFFERENT)
    if books["last_inspection"] is None:
        raise NotComparedError("nobody has compared ClickHouse yet; `tollgate books verify` without --last has it done")
    if not books["ok"]:
        raise typer.Exit(ExitCode.DIFFERENT)


def _inspected(client: Client, monotonic: Monotonic) -> None:
    ends_s = monotonic() + DEADLINE_S
    order = client.send(Request("POST", _ORDERS)).document()
    with spinner(f"Waiting until a billing sink has looked through the books ({order['id']}) ..."):
        while order["state"] not in {"done", "failed"}:
            if monotonic() > ends_s:
                raise _late(order)
            client.sleep(_PAUSE_S)
            order = client.send(Request("GET", f"{_ORDERS}/{order['id']}"), repeat=True).document()
    if order["state"] == "failed":
        raise NotComparedError(f"{_WHY.get(order['failure'], order['failure'])}; {_LAST}")


def _late(order: Mapping[str, Any]) -> NotComparedError | UnreachableError:
    if order["state"] == "asked":
        return UnreachableError(f"no billing sink has answered within {DEADLINE_S:g} s: is one running? {_LAST}")
    return NotComparedError(
        f"a billing sink has begun to look, and is not done after {DEADLINE_S:g} s; "
        f"`tollgate books inspection {order['id']}` tells how it goes on"
    )


def _print(books: Mapping[str, Any]) -> None:
    inspection, seal = books["last_inspection"], books["seal"]
    output.print_list("Check", books["checks"])
    output.print_one(
        {
            "books": _verdict(books),
            "sealed_at": seal and seal["sealed_at"],
            "seal": seal and f"{seal['seal_id']}, up to transaction {seal['last_transaction_id']}: {seal['digest']}",
            "inspected_at": inspection and inspection["inspected_at"],
            "inspection": inspection and _told(inspection),
        }
    )

    for check in books["checks"]:
        if check["wrong"] and check["name"] in _RELEASED:
            typer.echo(f"{_RELEASED[check['name']]}.", err=True)


def _verdict(books: Mapping[str, Any]) -> str:
    if books["ok"]:
        return "right"
    if books["last_inspection"] is None and not any(check["wrong"] for check in books["checks"]):
        return "right in Postgres, not compared with ClickHouse"
    return "WRONG"


def _told(inspection: Mapping[str, Any]) -> str:
    wrong = [
        f"{check['name']} ({check['wrong']}, one is {check['example']})"
        for check in inspection["checks"]
        if check["wrong"]
    ]
    return f"WRONG: {', '.join(wrong)}" if wrong else "right, and ClickHouse has the same"
