"""A refusal (`application/problem+json`) as the error of a command: one line, and one for each field, at its place."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from tollgate.connection import Reply
from tollgate.errors import CommandError, NotLoggedInError, RefusedError, UnreachableError

_UNAUTHENTICATED: Final = 401
_SERVER_ERROR: Final = 500
_UNAVAILABLE: Final = frozenset({502, 503, 504})

Flags = Callable[[str], str | None]
"""The option of a field or parameter, by its name; None for what has none."""

Place = Callable[[str], str]
"""Where a fault is, in the words of who made the call, from the JSON pointer to it."""


def of_options(flags: Flags) -> Place:
    """Places on a command line."""

    def place(pointer: str) -> str:
        if parameter := re.fullmatch(r"\{(\w+)\}", pointer):
            return parameter[1].upper()
        match = re.fullmatch(r"(?:\?|/)([^/]+)(/.*)?", pointer)
        flag = match and flags(match[1])
        if not match or not flag:
            return "the body" if pointer in {"", "/"} else pointer
        rest = match[2] or ""
        if index := re.fullmatch(r"/(\d+)", rest):
            return f"{flag} (number {int(index[1]) + 1})"
        return f"{flag} ({rest})" if rest else flag

    return place


NOWHERE: Final[Place] = of_options(lambda _name: None)
"""Where there are no options to speak of."""


def refusal(reply: Reply, place: Place = NOWHERE, *, hint: str | None = None) -> CommandError:
    """The error that a refusal is; a hint stands at its end."""
    if not reply.is_json:
        return UnreachableError(f"the server answered {reply.status}, and not as a Tollgate control plane does")
    problem = reply.document()
    text = problem.get("detail") or problem.get("title") or f"the server answered {reply.status}"
    if retry_after := reply.headers.get("retry-after"):
        text += f" Try again in {retry_after} s."
    if reply.status >= _SERVER_ERROR:
        text += f" (request {problem.get('request_id', 'unknown')})"
    lines = [text, *(_line(fault, place) for fault in problem.get("errors", ()))]
    if left_out := problem.get("errors_left_out"):
        lines.append(f"  and {left_out} more")
    text = "\n".join([*lines, *([hint] if hint else [])])
    if reply.status == _UNAUTHENTICATED:
        return NotLoggedInError(text)
    return UnreachableError(text) if reply.status in _UNAVAILABLE else RefusedError(text, reply.status)


def _line(fault: Mapping[str, Any], place: Place) -> str:
    return f"  {place(fault['pointer'])}: {fault['detail']}"
