"""A change that goes on after its answer: wait for the end of the operation that the answer names.

Which answers that are, and where one asks, is in the document: an answer with the schema `Operation`, and the operation
that reads one.
"""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final
from urllib.parse import quote

from gateway_core.clock import Monotonic
from tollgate.api.document import Operation
from tollgate.connection import Reply, Request
from tollgate.errors import NotAppliedError

PENDING: Final = "pending"
APPLIED: Final = "applied"
SCHEDULED: Final = "scheduled"
"""For a later moment: there is nothing to wait for yet."""
_DEADLINE_S: Final = 300.0
_WAIT_MS: Final = 20_000
_PAUSE_S: Final = 0.25
"""Between two looks where the server does not wait for us."""

Send = Callable[[Request], Reply]


def final(
    reply: Reply, watcher: Operation, send: Send, *, monotonic: Monotonic, sleep: Callable[[float], None]
) -> Reply:
    """The answer that tells how a change ended.

    Raises:
        NotAppliedError: it has not ended in time.
    """
    operation_id = str(reply.document()["id"])
    [parameter] = watcher.path_parameters
    path = watcher.outline.path.replace(f"{{{parameter}}}", quote(operation_id, safe=""))
    query = {}
    for field in watcher.query:
        if field.name == "wait_ms":
            query["wait_ms"] = str(min(_WAIT_MS, field.maximum or _WAIT_MS))
    ends_s = monotonic() + _DEADLINE_S
    while reply.document()["state"] == PENDING:
        if monotonic() > ends_s:
            raise NotAppliedError(
                f"not applied within {_DEADLINE_S:g} s; `tollgate operations get {operation_id}` tells how it goes on"
            )
        asked_s = monotonic()
        reply = send(Request("GET", path, query))
        if monotonic() - asked_s < _PAUSE_S:
            sleep(_PAUSE_S)
    return reply


def require_applied(document: Any) -> None:
    """Pass only if a change was applied.

    Raises:
        NotAppliedError: it was rejected or rolled back, and why.
    """
    if document["state"] not in {APPLIED, PENDING, SCHEDULED}:
        state = str(document["state"]).replace("_", " ")
        raise NotAppliedError(f"the change was {state}{_because(document.get('error'))}")


def _because(error: object) -> str:
    match error:
        case None | "":
            return ""
        case str():
            return f": {error}"
        case {"message": str(message)} | {"detail": str(message)}:
            return f": {message}"
        case _:
            return f": {json.dumps(error)}"


def spinner(text: str) -> AbstractContextManager[object]:
    """Shows on standard error what is waited for, if somebody looks."""
    from rich.console import Console  # noqa: PLC0415 - only who waits needs it

    console = Console(stderr=True)
    if not console.is_terminal:
        return nullcontext()
    return console.status(text)
