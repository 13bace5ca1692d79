"""OpenAI's completions of before there was chat. Pure.

Source: the API reference of OpenAI, completions.
"""

from itertools import zip_longest
from typing import Annotated

from pydantic import Field

from simulator.chat import Answer, ChatRequest, Ending, JsonObject, Message
from simulator.dialect import Body, ModelName, OutputTokensMax, parse_body
from simulator.frames import sse
from simulator.openai_chat import OpenAiChat, StreamOptions, usage_of


class _Request(Body):
    model: ModelName
    prompt: str | list[str] | list[int] | list[list[int]] = ""
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    max_tokens: OutputTokensMax | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


class OpenAiCompletions(OpenAiChat):
    """The dialect of `/v1/completions`: headers and errors are those of chat."""

    def parse(self, body: bytes) -> ChatRequest:
        """Read the body of a completion; tokens by number count as the text of their numbers."""
        request = parse_body(_Request, body)
        prompts = request.prompt if isinstance(request.prompt, list) else [request.prompt]
        if prompts and isinstance(prompts[0], int):
            prompts = [" ".join(map(str, prompts))]
        return ChatRequest(
            model=request.model,
            messages=tuple(Message(str(prompt), from_user=True) for prompt in prompts),
            output_tokens_max=request.max_tokens,
            stops=(request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ()),
            choices=(request.n or 1) * max(1, len(prompts)),
            stream=request.stream or False,
            stream_usage=request.stream_options is not None and request.stream_options.include_usage,
        )

    def unary(self, answer: Answer) -> JsonObject:
        """A `text_completion`."""
        body = _envelope(answer)
        body["choices"] = [
            _choice(index, reply.text, _finish_reason(reply.ending)) for index, reply in enumerate(answer.replies)
        ]
        if answer.report_usage:
            body["usage"] = usage_of(answer.usage)
        return body

    def stream(self, answer: Answer) -> list[bytes]:
        """Chunks of the same form, then each choice's end, then perhaps the usage."""
        envelope = _envelope(answer)
        frames = []
        for turn in zip_longest(*(reply.pieces for reply in answer.replies)):
            frames += [
                sse(envelope | {"choices": [_choice(index, piece, None)]})
                for index, piece in enumerate(turn)
                if piece is not None
            ]
        frames += [
            sse(envelope | {"choices": [_choice(index, "", _finish_reason(reply.ending))]})
            for index, reply in enumerate(answer.replies)
        ]
        if answer.report_usage and answer.stream_usage:
            frames.append(sse(envelope | {"choices": [], "usage": usage_of(answer.usage)}))
        return [*frames, b"data: [DONE]\n\n"]


def _envelope(answer: Answer) -> JsonObject:
    return {
        "id": answer.stamp.id("cmpl-", 29),
        "object": "text_completion",
        "created": int(answer.stamp.at.timestamp()),
        "model": answer.model,
    }


def _choice(index: int, text: str, finish_reason: str | None) -> JsonObject:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish_reason}


def _finish_reason(ending: Ending) -> str:
    return "length" if ending is Ending.LENGTH else "stop"
