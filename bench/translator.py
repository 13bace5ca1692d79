"""`python -m bench.translator`: CPU that a translation costs, per whole request and answer and per event of a stream.

Against a copy that reads the JSON and writes it again, which is the least that any translator in Python does.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Final

from gateway_core.endpoints import Dialect
from translator.translation import Request, translate_request

EVENTS: Final = 200
PAIRS: Final = (
    (Dialect.OPENAI, Dialect.ANTHROPIC),
    (Dialect.OPENAI, Dialect.GEMINI),
    (Dialect.ANTHROPIC, Dialect.OPENAI),
    (Dialect.RESPONSES, Dialect.OPENAI),
    (Dialect.RESPONSES, Dialect.ANTHROPIC),
)
WORDS: Final = "Which of these is the largest, and by how much? " * 20
SCHEMA: Final = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

REQUESTS: Final[dict[Dialect, dict[str, object]]] = {
    Dialect.OPENAI: {
        "model": "m",
        "messages": [{"role": "system", "content": WORDS}, {"role": "user", "content": WORDS}],
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}],
        "stream_options": {"include_usage": True},
    },
    Dialect.ANTHROPIC: {
        "model": "m",
        "max_tokens": 1000,
        "system": WORDS,
        "messages": [{"role": "user", "content": WORDS}],
        "tools": [{"name": "weather", "input_schema": SCHEMA}],
    },
    Dialect.RESPONSES: {
        "model": "m",
        "instructions": WORDS,
        "input": [{"role": "user", "content": [{"type": "input_text", "text": WORDS}]}],
        "tools": [{"type": "function", "name": "weather", "parameters": SCHEMA}],
    },
}
ANSWERS: Final[dict[Dialect, dict[str, object]]] = {
    Dialect.OPENAI: {
        "id": "1",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": WORDS}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18},
    },
    Dialect.ANTHROPIC: {
        "id": "1",
        "model": "m",
        "content": [{"type": "text", "text": WORDS}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 9, "output_tokens": 9, "cache_read_input_tokens": 3},
    },
    Dialect.GEMINI: {
        "responseId": "1",
        "modelVersion": "m",
        "candidates": [{"content": {"parts": [{"text": WORDS}], "role": "model"}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 9, "totalTokenCount": 18},
    },
}


def stream_of(provider: Dialect) -> list[bytes]:
    """A stream of `EVENTS` pieces of text and what stands around them, one event a piece."""
    piece: dict[str, object]
    match provider:
        case Dialect.ANTHROPIC:
            start = {"type": "message_start", "message": {"id": "1", "model": "m", "usage": {"input_tokens": 9}}}
            piece = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " largest"}}
            end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}
            events = [start, *[piece] * EVENTS, end, {"type": "message_stop"}]
        case Dialect.GEMINI:
            piece = {"candidates": [{"content": {"parts": [{"text": " largest"}], "role": "model"}}]}
            events = [*[piece] * EVENTS, ANSWERS[provider]]
        case _:
            piece = {"id": "1", "model": "m", "choices": [{"index": 0, "delta": {"content": " largest"}}]}
            finish = {"id": "1", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
            events = [*[piece] * EVENTS, finish]
    return [f"data: {json.dumps(event)}\n\n".encode() for event in events]


def translated(body: bytes, client: Dialect, provider: Dialect) -> Request:
    """A request as the servicer has it translated."""
    return translate_request(body, "/v1", client, provider, now_s=1, new_call_id=lambda: "call_1")


def cpu_us(work: Callable[[], object], repeats: int) -> float:
    """CPU of one call, the best of five rounds."""
    best = float("inf")
    for _ in range(5):
        began = time.process_time()
        for _ in range(repeats):
            work()
        best = min(best, (time.process_time() - began) / repeats)
    return best * 1e6


def copied(text: bytes) -> bytes:
    """Read and written again."""
    return json.dumps(json.loads(text), separators=(",", ":")).encode()


def copied_stream(pieces: list[bytes]) -> list[bytes]:
    """The same of each event."""
    return [b"data: " + copied(piece[6:]) + b"\n\n" for piece in pieces]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    repeats: int = parser.parse_args().repeats
    print(f"{'pair':<24}{'request+answer':>16}{'copy':>8}{'per event':>12}{'copy':>8}   microseconds of CPU")
    for client, provider in PAIRS:
        body = json.dumps(REQUESTS[client]).encode()
        answer = json.dumps(ANSWERS[provider]).encode()
        made = translated(body, client, provider)
        pieces = stream_of(provider)

        def whole(
            body: bytes = body, answer: bytes = answer, client: Dialect = client, provider: Dialect = provider
        ) -> bytes:
            return translated(body, client, provider).answer.whole(answer)

        def streamed(made: Request = made, pieces: list[bytes] = pieces) -> list[bytes]:
            stream = made.answer.stream()
            return [*map(stream.feed, pieces), stream.end()]

        def copy(body: bytes = body, answer: bytes = answer) -> tuple[bytes, bytes]:
            return copied(body), copied(answer)

        def copy_stream(pieces: list[bytes] = pieces) -> list[bytes]:
            return copied_stream(pieces)

        few = max(1, repeats // 20)
        figures = (cpu_us(whole, repeats), cpu_us(copy, repeats))
        events = (cpu_us(streamed, few) / len(pieces), cpu_us(copy_stream, few) / len(pieces))
        print(
            f"{f'{client} -> {provider}':<24}{figures[0]:>16.0f}{figures[1]:>8.0f}{events[0]:>12.1f}{events[1]:>8.1f}"
        )


if __name__ == "__main__":
    main()
