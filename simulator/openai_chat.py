"""OpenAI's chat completions, which Gemini offers under another path as well. Pure.

Source: the API reference of OpenAI, chat completions, objects and streaming.
"""

from collections.abc import Mapping
from itertools import zip_longest
from typing import Annotated, Final, Literal

from pydantic import Field

from simulator.chat import (
    Answer,
    ChatRequest,
    Ending,
    JsonObject,
    Message,
    Reply,
    Stamp,
    Tool,
    Usage,
    tool_to_call,
)
from simulator.dialect import Body, ModelName, OutputTokensMax, has_bearer, parse_body
from simulator.frames import SLOT, Template, compact, sse
from simulator.refusal import RETRY_AFTER_S, RefusalError

MODELS: Final = ("simulator-small", "simulator-large")
"""What the list of models shows. Any other name is answered just as well."""

_MODEL_ORIGIN: Final = {"created": 1_735_689_600, "owned_by": "simulator"}
_SYSTEM_FINGERPRINT: Final = "fp_simulator"
_DONE: Final = b"data: [DONE]\n\n"
_FINISH_REASON: Final = {
    Ending.STOP: "stop",
    Ending.STOP_SEQUENCE: "stop",
    Ending.LENGTH: "length",
    Ending.TOOL_CALL: "tool_calls",
}
_ERROR_TYPE_AND_CODE: Final[Mapping[int, tuple[str, str | None]]] = {
    400: ("invalid_request_error", None),
    401: ("invalid_request_error", "invalid_api_key"),
    404: ("invalid_request_error", None),
    413: ("invalid_request_error", "request_too_large"),
    429: ("requests", "rate_limit_exceeded"),
}
_SERVER_ERROR: Final = ("server_error", None)
_ANY_JSON_OBJECT: Final[JsonObject] = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
}


class _Part(Body):
    type: str
    text: str | None = None


class _Message(Body):
    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | list[_Part] | None = None
    tool_calls: list[JsonObject] | None = None

    def message(self) -> Message:
        parts = self.content if isinstance(self.content, list) else []
        texts = [part.text for part in parts if part.text is not None]
        if isinstance(self.content, str):
            texts.append(self.content)
        if self.tool_calls:
            texts.append(compact(self.tool_calls))
        return Message(
            text="".join(texts),
            attachments=sum(part.text is None for part in parts),
            from_user=self.role == "user",
        )


class _Function(Body):
    name: str
    description: str | None = None
    parameters: JsonObject | None = None


class _Tool(Body):
    type: str
    function: _Function | None = None


class _JsonSchema(Body):
    schema_: JsonObject = Field(default_factory=dict, alias="schema")


class _ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _JsonSchema | None = None


class StreamOptions(Body):
    """What a stream tells besides."""

    include_usage: bool = False


class _NamedFunction(Body):
    name: str


class _NamedTool(Body):
    type: str
    function: _NamedFunction | None = None


class _Request(Body):
    model: ModelName
    messages: Annotated[list[_Message], Field(min_length=1)]
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    max_tokens: OutputTokensMax | None = None
    max_completion_tokens: OutputTokensMax | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[_Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | _NamedTool | None = None
    response_format: _ResponseFormat | None = None


class OpenAiChat:
    """The dialect of `/v1/chat/completions`."""

    stream_type: Final = "text/event-stream; charset=utf-8"

    def check_headers(self, headers: Mapping[str, str], _query: Mapping[str, str]) -> None:
        """`Authorization: Bearer`."""
        if not has_bearer(headers):
            raise RefusalError(
                401, "You didn't provide an API key. Send it in an Authorization header: 'Bearer YOUR_KEY'."
            )

    def parse(self, body: bytes) -> ChatRequest:
        """Read the body of a chat completion."""
        request = parse_body(_Request, body)
        tools = _tools(request)
        limits = [limit for limit in (request.max_completion_tokens, request.max_tokens) if limit is not None]
        return ChatRequest(
            model=request.model,
            messages=tuple(message.message() for message in request.messages),
            tools=tools,
            call=_call(request, tools),
            json_schema=_json_schema(request.response_format),
            output_tokens_max=min(limits, default=None),
            stops=(request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ()),
            choices=request.n or 1,
            stream=request.stream or False,
            stream_usage=request.stream_options is not None and request.stream_options.include_usage,
        )

    def unary(self, answer: Answer) -> JsonObject:
        """A `chat.completion`."""
        body: JsonObject = {
            "id": answer.stamp.id("chatcmpl-", 29),
            "object": "chat.completion",
            "created": int(answer.stamp.at.timestamp()),
            "model": answer.model,
            "choices": [_choice(reply, index, answer.stamp) for index, reply in enumerate(answer.replies)],
        }
        if answer.report_usage:
            body["usage"] = usage_of(answer.usage)
        return body | {"service_tier": "default", "system_fingerprint": _SYSTEM_FINGERPRINT}

    def stream(self, answer: Answer) -> list[bytes]:
        """`chat.completion.chunk` events: the choices take turns, then each one's end, then perhaps the usage."""
        envelope: JsonObject = {
            "id": answer.stamp.id("chatcmpl-", 29),
            "object": "chat.completion.chunk",
            "created": int(answer.stamp.at.timestamp()),
            "model": answer.model,
            "service_tier": "default",
            "system_fingerprint": _SYSTEM_FINGERPRINT,
        }
        with_usage = answer.report_usage and answer.stream_usage
        no_usage_yet: JsonObject = {"usage": None} if with_usage else {}

        def chunk(index: int, delta: JsonObject, finish_reason: str | None = None) -> bytes:
            choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
            return sse(envelope | {"choices": [choice]} | no_usage_yet)

        replies = list(enumerate(answer.replies))
        templates = [Template(chunk(index, _piece_delta(reply))) for index, reply in replies]
        frames = [chunk(index, _first_delta(reply, index, answer.stamp)) for index, reply in replies]
        for turn in zip_longest(*(reply.pieces for reply in answer.replies)):
            frames += [
                template.fill(piece) for template, piece in zip(templates, turn, strict=True) if piece is not None
            ]
        frames += [chunk(index, {}, _FINISH_REASON[reply.ending]) for index, reply in replies]
        if with_usage:
            frames.append(sse(envelope | {"choices": [], "usage": usage_of(answer.usage)}))
        return [*frames, _DONE]

    def error(self, refusal: RefusalError, _stamp: Stamp) -> JsonObject:
        """`{"error": {message, type, param, code}}`."""
        kind, code = _ERROR_TYPE_AND_CODE.get(refusal.status, _SERVER_ERROR)
        return {"error": {"message": refusal.message, "type": kind, "param": refusal.param, "code": code}}

    def headers(self, stamp: Stamp, *, status: int, latency_ms: int) -> dict[str, str]:
        """Request id, processing time and what is left of the rate limits."""
        limited = status == 429  # noqa: PLR2004 - Too Many Requests
        headers = {
            "x-request-id": stamp.id("req_", 32),
            "openai-organization": "org-simulator",
            "openai-processing-ms": str(latency_ms),
            "openai-version": "2020-10-01",
            "x-ratelimit-limit-requests": "10000",
            "x-ratelimit-limit-tokens": "2000000",
            "x-ratelimit-remaining-requests": "0" if limited else "9999",
            "x-ratelimit-remaining-tokens": "1999900",
            "x-ratelimit-reset-requests": f"{RETRY_AFTER_S}s" if limited else "6ms",
            "x-ratelimit-reset-tokens": "3ms",
        }
        return headers | {"retry-after": str(RETRY_AFTER_S)} if limited else headers

    def models(self) -> JsonObject:
        """The body of `GET /v1/models`."""
        return {"object": "list", "data": [{"id": name, "object": "model"} | _MODEL_ORIGIN for name in MODELS]}


def _tools(request: _Request) -> tuple[Tool, ...]:
    # A tool without a function is one of the newer kinds; it is accepted and never called.
    functions = [tool.function for tool in request.tools or () if tool.function is not None]
    return tuple(
        Tool(
            name=function.name,
            schema=function.parameters or {},
            text=compact(function.model_dump(exclude_none=True)),
        )
        for function in functions
    )


def _call(request: _Request, tools: tuple[Tool, ...]) -> Tool | None:
    if request.tool_choice == "none" or request.messages[-1].role in {"tool", "function"}:
        return None
    if isinstance(request.tool_choice, _NamedTool) and request.tool_choice.function is not None:
        return tool_to_call(tools, request.tool_choice.function.name)
    return tool_to_call(tools)


def _json_schema(response_format: _ResponseFormat | None) -> JsonObject | None:
    match response_format:
        case None | _ResponseFormat(type="text"):
            return None
        case _ResponseFormat(json_schema=_JsonSchema(schema_=schema)):
            return schema
        case _:
            return _ANY_JSON_OBJECT


def _tool_call(name: str, arguments: str, index: int, stamp: Stamp) -> JsonObject:
    return {
        "id": stamp.id("call_", 24, of=index),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _choice(reply: Reply, index: int, stamp: Stamp) -> JsonObject:
    message: JsonObject = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    if reply.tool is None:
        message["content"] = reply.text
    else:
        message["tool_calls"] = [_tool_call(reply.tool, reply.text, index, stamp)]
    return {"index": index, "message": message, "logprobs": None, "finish_reason": _FINISH_REASON[reply.ending]}


def _first_delta(reply: Reply, index: int, stamp: Stamp) -> JsonObject:
    if reply.tool is None:
        return {"role": "assistant", "content": "", "refusal": None}
    call = {"index": 0} | _tool_call(reply.tool, "", index, stamp)
    return {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None}


def _piece_delta(reply: Reply) -> JsonObject:
    if reply.tool is None:
        return {"content": SLOT}
    return {"tool_calls": [{"index": 0, "function": {"arguments": SLOT}}]}


def usage_of(usage: Usage) -> JsonObject:
    """The usage as chat and completions write it."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
