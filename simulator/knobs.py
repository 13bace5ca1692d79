"""Knobs: how a request asks for latency, token counts and faults. Pure.

One syntax in three places, the later one winning knob by knob: the setting `simulator_knobs`, the header `x-simulator`,
and a directive `[[sim ...]]` in the last user message. The directive is for requests that pass a gateway, which may drop
a header but leaves the conversation alone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

HEADER: Final = "x-simulator"


class Fault(StrEnum):
    """What can go wrong, as it is written in a knob."""

    BAD_REQUEST = "400"
    UNAUTHORIZED = "401"
    RATE_LIMITED = "429"
    INTERNAL = "500"
    UNAVAILABLE = "503"
    OVERLOADED = "529"
    TIMEOUT = "timeout"
    """Never answers: until the client leaves, or for ten minutes."""
    RESET = "reset"
    """A TCP reset in place of a response."""
    CUT = "cut"
    """The connection ends after half of the events, or half of the body."""
    MALFORMED = "malformed"
    """200 with broken JSON: the body, or the event in the middle of a stream."""
    NO_USAGE = "no_usage"
    """A good answer that does not say what was used."""

    @property
    def status(self) -> int | None:
        """The HTTP status of a fault that is one."""
        return int(self) if self.isdigit() else None


@dataclass(frozen=True, slots=True)
class Knobs:
    """Where every knob stands. The defaults give a plain, quick and good answer."""

    latency_ms: int = 0
    """Before the first byte, of errors as well."""
    token_delay_ms: int = 0
    """Between two events of a stream."""
    output_tokens: int | None = None
    """Length of each reply in prose; None lets the prompt decide. A tool call or JSON has the length it needs."""
    cached_tokens: int = 0
    """Part of the prompt that is reported as read from a cache; at most the prompt."""
    cache_write_tokens: int = 0
    """Part of the prompt that is reported as written to a cache; only Anthropic reports it."""
    reasoning_tokens: int = 0
    """Counted per reply, before its visible text, and inside the client's limit."""
    error: Fault | None = None
    error_rate: int = 100
    """Percent of requests that `error` strikes; which ones depends on nothing but the request."""

    def fault(self, digest: str) -> Fault | None:
        """What goes wrong with the request of this digest (hex), if anything."""
        return self.error if int(digest[:8], 16) % 100 < self.error_rate else None


class InvalidKnobsError(ValueError):
    """Settings of knobs that cannot be; the message tells every one of them and why."""


_MAX: Final[Mapping[str, int]] = {
    "latency_ms": 600_000,
    "token_delay_ms": 60_000,
    "output_tokens": 100_000,
    "cached_tokens": 100_000_000,
    "cache_write_tokens": 100_000_000,
    "reasoning_tokens": 1_000_000,
    "error_rate": 100,
}
_NO_ERROR: Final = "none"
_ERRORS: Final = (*Fault, _NO_ERROR)
_SEPARATORS = re.compile(r"[\s,;]+")
# The length is bounded so that an opening without an end costs little, however often it is repeated.
_DIRECTIVE = re.compile(r"\s?\[\[sim\b([^\[\]]{0,500})\]\]")


def turn(knobs: Knobs, text: str) -> Knobs:
    """Turn the knobs named in a text such as `latency_ms=200 error=429`, and leave the others.

    `error=none` takes an error back. A new error strikes every request unless the same text gives an `error_rate`.

    Raises:
        InvalidKnobsError: an unknown knob, a number out of bounds, an unknown error.
    """
    numbers: dict[str, int] = {}
    error = knobs.error
    problems = []
    for item in filter(None, _SEPARATORS.split(text)):
        name, _, value = item.partition("=")
        if name == "error":
            if value in _ERRORS:
                error = None if value == _NO_ERROR else Fault(value)
                numbers.setdefault("error_rate", 100)
            else:
                problems.append(f"error: {value[:40]!r} is none of {', '.join(_ERRORS)}")
        elif name not in _MAX:
            problems.append(f"{name[:40]!r} is no knob; there are {', '.join(_MAX)}, error")
        elif value.isascii() and value.isdigit() and len(value) <= len(str(_MAX[name])) and int(value) <= _MAX[name]:
            numbers[name] = int(value)
        else:
            problems.append(f"{name}: {value[:40]!r} is not a whole number from 0 to {_MAX[name]}")
    if numbers.get("error_rate", 100) < 100 and error is None:  # noqa: PLR2004 - percent
        problems.append("error_rate: says nothing without an error")
    if problems:
        raise InvalidKnobsError("; ".join(problems))
    return replace(knobs, error=error, **numbers)


def take_directives(text: str) -> tuple[str, str]:
    """Split a message into what is said, and the knobs set in its `[[sim ...]]` directives."""
    if "[[sim" not in text:
        return text, ""
    return _DIRECTIVE.sub("", text), " ".join(_DIRECTIVE.findall(text))
