"""Endpoints whose answer is no conversation: vectors, scores, verdicts, pictures, sound, a count. Pure.

Sources: the API references of OpenAI (embeddings, moderations, images, speech), Cohere and Jina (rerank), Anthropic (count tokens).
"""

import base64
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import Field

from simulator.chat import JsonObject, Stamp
from simulator.dialect import Body, Dialect, ModelName, parse_body
from simulator.frames import compact, sse
from simulator.words import MESSAGE_TOKENS, count_tokens, fingerprint

VECTOR_LENGTH: Final = 8
BYTES_PER_CHARACTER: Final = 32
"""Of sound."""
PICTURE_TOKENS: Final = 272
_PIXEL: Final = base64.b64encode(b"\x89PNG\r\n\x1a\n simulated").decode()


@dataclass(frozen=True, slots=True)
class Plain:
    """An answer.

    Attributes:
        text: what was said to the model, in which knobs may stand.
        body: as JSON, or as bytes of `content_type`.
        usage: goes into the body unless a knob takes it out.
        frames: in place of a body: events.
    """

    text: str
    body: JsonObject | bytes = b""
    usage: JsonObject = field(default_factory=dict)
    frames: tuple[bytes, ...] = ()
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class PlainEndpoint:
    """How an endpoint is answered; headers and errors are those of a dialect."""

    dialect: Dialect
    answer: Callable[[bytes, Stamp], Plain]


_Input = str | list[str] | list[int] | list[list[int]] | list[JsonObject]


class _Embeddings(Body):
    model: ModelName
    input: _Input
    dimensions: Annotated[int, Field(ge=1, le=4096)] = VECTOR_LENGTH
    encoding_format: Literal["float", "base64"] = "float"


class _Moderation(Body):
    model: ModelName = "simulator-moderation"
    input: str | list[str] | list[JsonObject]


class _Rerank(Body):
    model: ModelName
    query: str
    documents: Annotated[list[str | JsonObject], Field(min_length=1)]
    top_n: Annotated[int, Field(ge=1)] | None = None


class _Images(Body):
    model: ModelName
    prompt: str
    n: Annotated[int, Field(ge=1, le=10)] | None = None


class _Speech(Body):
    model: ModelName
    input: Annotated[str, Field(min_length=1)]
    stream_format: Literal["audio", "sse"] = "audio"


class _CountTokens(Body):
    model: ModelName
    messages: Annotated[list[JsonObject], Field(min_length=1)]
    system: str | list[JsonObject] | None = None
    tools: list[JsonObject] | None = None


def embeddings(body: bytes, _stamp: Stamp) -> Plain:
    """A vector for each input, always the same for the same text."""
    request = parse_body(_Embeddings, body)
    inputs = _inputs(request.input)
    tokens = sum(each.count(" ") + 1 if _is_tokens(request.input) else count_tokens(each) for each in inputs)
    return Plain(
        text="\n".join(inputs),
        body={
            "object": "list",
            "model": request.model,
            "data": [
                {"object": "embedding", "index": index, "embedding": _vector(each, request)}
                for index, each in enumerate(inputs)
            ],
        },
        usage={"prompt_tokens": tokens, "total_tokens": tokens},
    )


def moderation(body: bytes, stamp: Stamp) -> Plain:
    """Nothing is ever flagged."""
    request = parse_body(_Moderation, body)
    inputs = _inputs(request.input)
    verdict: JsonObject = {
        "flagged": False,
        "categories": {"violence": False, "harassment": False},
        "category_scores": {"violence": 0.0, "harassment": 0.0},
    }
    return Plain(
        text="\n".join(inputs),
        body={"id": stamp.id("modr-", 24), "model": request.model, "results": [verdict for _ in inputs]},
    )


def rerank(body: bytes, stamp: Stamp) -> Plain:
    """Documents in an order that hangs on nothing but their text; counted in search units, as Cohere does."""
    request = parse_body(_Rerank, body)
    scored = sorted(
        ((_score(request.query, document), index) for index, document in enumerate(request.documents)), reverse=True
    )
    return Plain(
        text=request.query,
        body={
            "id": stamp.id("rr-", 24),
            "results": [{"index": index, "relevance_score": score} for score, index in scored[: request.top_n]],
            "meta": {
                "api_version": {"version": "2"},
                "billed_units": {"search_units": -(-len(request.documents) // 100)},
            },
        },
    )


def images(body: bytes, stamp: Stamp) -> Plain:
    """As many pictures as are asked for, all the same."""
    request = parse_body(_Images, body)
    count, read = request.n or 1, count_tokens(request.prompt)
    return Plain(
        text=request.prompt,
        body={"created": int(stamp.at.timestamp()), "data": [{"b64_json": _PIXEL} for _ in range(count)]},
        usage={
            "input_tokens": read,
            "input_tokens_details": {"text_tokens": read, "image_tokens": 0},
            "output_tokens": PICTURE_TOKENS * count,
            "total_tokens": read + PICTURE_TOKENS * count,
        },
    )


def speech(body: bytes, _stamp: Stamp) -> Plain:
    """Bytes that nobody would listen to; as events, with a usage at the end."""
    request = parse_body(_Speech, body)
    sound = (fingerprint((request.input,)).encode() * (1 + len(request.input) * BYTES_PER_CHARACTER // 64))[
        : len(request.input) * BYTES_PER_CHARACTER
    ]
    if request.stream_format == "audio":
        return Plain(text=request.input, body=sound, content_type="audio/mpeg")
    read, written = count_tokens(request.input), max(1, len(request.input) // 2)
    usage = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
    return Plain(
        text=request.input,
        frames=(
            sse({"type": "speech.audio.delta", "audio": base64.b64encode(sound).decode()}),
            sse({"type": "speech.audio.done", "usage": usage}),
        ),
        content_type="text/event-stream",
    )


def token_count(body: bytes, _stamp: Stamp) -> Plain:
    """What a message of this body would read, by the rules of `words`, roughly."""
    request = parse_body(_CountTokens, body)
    said = compact([request.messages, request.system, request.tools])
    return Plain(
        text=json.dumps(request.messages[-1]),
        body={"input_tokens": count_tokens(said) + MESSAGE_TOKENS * len(request.messages)},
    )


def _is_tokens(given: _Input) -> bool:
    return isinstance(given, list) and bool(given) and isinstance(given[0], int | list)


def _inputs(given: _Input) -> list[str]:
    if isinstance(given, str):
        return [given]
    if given and isinstance(given[0], int):
        return [" ".join(map(str, given))]
    return [
        each if isinstance(each, str) else " ".join(map(str, each)) if isinstance(each, list) else compact(each)
        for each in given
    ]


def _vector(text: str, request: _Embeddings) -> list[float] | str:
    digest = bytes.fromhex(fingerprint((text,)))
    numbers = [digest[index % len(digest)] / 255 for index in range(request.dimensions)]
    if request.encoding_format == "float":
        return numbers
    return base64.b64encode(b"".join(_float32(number) for number in numbers)).decode()


def _float32(number: float) -> bytes:
    return struct.pack("<f", number)


def _score(query: str, document: str | JsonObject) -> float:
    return int(fingerprint((query, compact(document)))[:4], 16) / 0xFFFF
