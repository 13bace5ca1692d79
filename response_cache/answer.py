"""Answers of providers, and which of them are whole: only those may be told again. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway_core.endpoints import Endpoint

_STREAM: Final = "text/event-stream"
_JSON: Final = "application/json"
_LAST_WORDS: Final[Mapping[Endpoint, bytes]] = {
    Endpoint.CHAT: b"\ndata: [DONE]",
    Endpoint.COMPLETIONS: b"\ndata: [DONE]",
    Endpoint.MESSAGES: b"\nevent: message_stop",
    Endpoint.RESPONSES: b"\nevent: response.completed",
    Endpoint.STREAM_GENERATE: b'"finishReason"',
}
"""What the last event of a stream that went well has in it. A model's own words have no new line and no bare quotation mark."""
_FAILURES: Final = (b"\nevent: error", b'\ndata: {"error"')
"""How a stream says that it did not go well."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client is told with status 200.

    Attributes:
        dropped: the header that names what of the request the provider was not told; empty if there was none.
    """

    content_type: str
    dropped: str
    body: bytes


def may_be_cached(status: str, content_type: str) -> bool:
    """Whether it is worth looking at the body."""
    return status == "200" and _kind(content_type) in {_STREAM, _JSON}


def is_whole(endpoint: Endpoint, answer: Answer) -> bool:
    """Whether the answer has come to its end and is none that tells of a failure."""
    if _kind(answer.content_type) == _STREAM:
        return _is_whole_stream(endpoint, answer.body)
    try:
        said = json.loads(answer.body)
    except (ValueError, RecursionError):
        return False
    # A response says `"error": null` when all is well.
    return isinstance(said, dict) and not said.get("error") and said.get("status", "completed") == "completed"


def _is_whole_stream(endpoint: Endpoint, body: bytes) -> bool:
    last_words = _LAST_WORDS.get(endpoint)
    lines = b"\n" + body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if last_words is None or any(failure in lines for failure in _FAILURES):
        return False
    events = [event for event in lines.split(b"\n\n") if event.strip() and not event.lstrip().startswith(b":")]
    return bool(events) and last_words in b"\n" + events[-1]


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
