"""JSON as it goes over the wire: compact text, and server-sent events. Pure.

A stream repeats one envelope around every token, so `Template` serialises it once.
"""

import json
from typing import Final

from simulator.chat import JsonObject

SLOT: Final = "\ue000"
"""Stands where a template is filled; of Unicode's private use area, so nobody says it."""


def compact(value: object) -> str:
    """JSON text in ASCII without spaces."""
    return json.dumps(value, separators=(",", ":"))


def sse(data: JsonObject, *, event: str | None = None, end: str = "\n") -> bytes:
    """One server-sent event. Google ends lines with CR LF, the others with LF."""
    name = "" if event is None else f"event: {event}{end}"
    return f"{name}data: {compact(data)}{end}{end}".encode()


class Template:
    """An event that is sent many times with another text in it, at the place of `SLOT`."""

    def __init__(self, frame: bytes) -> None:
        # From the right: what a client chose, such as the model's name, stands before it.
        self._before, _, self._after = frame.rpartition(compact(SLOT).encode())

    def fill(self, text: str) -> bytes:
        """The event with this text."""
        return self._before + compact(text).encode() + self._after
