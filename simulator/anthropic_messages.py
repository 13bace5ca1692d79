"""Anthropic's messages. Pure.

Source: the API reference of Anthropic: messages, streaming messages, errors, rate limits.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
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

_STOP_REASON: Final = {
    Ending.STOP: "end_turn",
    Ending.STOP_SEQUENCE: "stop_sequence",
    Ending.LENGTH: "max_tokens",
    Ending.TOOL_CALL: "tool_use",
}
_ERROR_TYPE: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class _Block(Body):
    type: str
    text: str | None = None
    thinking: str | None = None
    name: str | None = None
    input: JsonObject | None = None
    content: "str | list[_Block] | JsonObject | None" = None

    def said(self) -> tuple[str, int]:
        """Its text, and how many attachments it holds."""
        match self.type:
            case "text":
                return self.text or "", 0
            case "thinking":
                return self.thinking or "", 0
            case "tool_use":
                return compact({"name": self.name, "input": self.input}), 0
            case "tool_result" if not isinstance(self.content, dict):
                return _said(self.content or "")
            case _:
                return "", 1


class _Message(Body):
    role: Literal["user", "assistant"]
    content: str | list[_Block]

    def message(self) -> Message:
        text, attachments = _said(self.content)
        return Message(text, attachments, from_user=self.role == "user" and not self._only_results())

    def holds_result(self) -> bool:
        return isinstance(self.content, list) and any(block.type == "tool_result" for block in self.content)

    def _only_results(self) -> bool:
        return isinstance(self.content, list) and all(block.type == "tool_result" for block in self.content)


class _Tool(Body):
    name: str
    description: str | None = None
    input_schema: JsonObject | None = None


class _ToolChoice(Body):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None


class _Format(Body):
    type: Literal["json_schema"]
    schema_: JsonObject = Field(alias="schema")


class _OutputConfig(Body):
    format: _Format | None = None


class _Request(Body):
    model: ModelName
    messages: Annotated[list[_Message], Field(min_length=1)]
    max_tokens: OutputTokensMax
    system: str | list[_Block] | None = None
    stop_sequences: Annotated[list[str], Field(max_length=64)] | None = None
    stream: bool | None = None
    tools: list[_Tool] | None = None
    tool_choice: _ToolChoice | None = None
    output_config: _OutputConfig | None = None


def _json_schema(output: _OutputConfig | None) -> JsonObject | None:
    return None if output is None or output.format is None else output.format.schema_


class AnthropicMessages:
    """The dialect of `/v1/messages`."""

    stream_type: Final = "text/event-stream; charset=utf-8"

    def check_headers(self, headers: Mapping[str, str], _query: Mapping[str, str]) -> None:
        """`x-api-key` or `Authorization: Bearer`, and the version of the API."""
        if not headers.get("x-api-key") and not has_bearer(headers):
            raise RefusalError(401, "x-api-key header is required")
        if not headers.get("anthropic-version"):
            raise RefusalError(400, "anthropic-version: header is required")

    def parse(self, body: bytes) -> ChatRequest:
        """Read the body of a message request."""
        request = parse_body(_Request, body)
        # A tool without a schema is one that the provider runs itself; it is accepted and never called.
        tools = tuple(
            Tool(tool.name, tool.input_schema, compact(tool.model_dump(exclude_none=True)))
            for tool in request.tools or ()
            if tool.input_schema is not None
        )
        system = () if request.system is None else (Message(*_said(request.system)),)
        return ChatRequest(
            model=request.model,
            messages=(*system, *(message.message() for message in request.messages)),
            tools=tools,
            call=_call(request, tools),
            output_tokens_max=request.max_tokens,
            stops=tuple(request.stop_sequences or ()),
            json_schema=_json_schema(request.output_config),
            stream=request.stream or False,
        )

    def unary(self, answer: Answer) -> JsonObject:
        """A `message` with one block of content, or none when there was no room for it."""
        (reply,) = answer.replies
        body = _message(answer.model, answer.stamp)
        body["content"] = _content(reply, answer.stamp)
        body |= _ending(reply)
        if answer.report_usage:
            body["usage"] = _usage(answer.usage, answer.usage.output_tokens)
        return body

    def stream(self, answer: Answer) -> list[bytes]:
        """Named events, from `message_start` to `message_stop`."""
        (reply,) = answer.replies
        start = _message(answer.model, answer.stamp)
        end: JsonObject = {"type": "message_delta", "delta": _ending(reply)}
        if answer.report_usage:
            # A stream starts before its output is known; one token is what the provider writes there too.
            start["usage"] = _usage(answer.usage, output_tokens=1)
            end["usage"] = {"output_tokens": answer.usage.output_tokens}
        return [
            _event({"type": "message_start", "message": start}),
            *_block_frames(reply, answer.stamp),
            _event(end),
            _event({"type": "message_stop"}),
        ]

    def error(self, refusal: RefusalError, stamp: Stamp) -> JsonObject:
        """`{"type": "error", "error": {type, message}, "request_id"}`."""
        return {
            "type": "error",
            "error": {"type": _ERROR_TYPE.get(refusal.status, "api_error"), "message": refusal.message},
            "request_id": _request_id(stamp),
        }

    def headers(self, stamp: Stamp, *, status: int, latency_ms: int) -> dict[str, str]:  # noqa: ARG002 - Anthropic does not tell its latency
        """Request id and what is left of the rate limits."""
        limited = status == 429  # noqa: PLR2004 - Too Many Requests
        reset = (stamp.at + timedelta(seconds=RETRY_AFTER_S)).strftime("%Y-%m-%dT%H:%M:%SZ")
        headers = {
            "request-id": _request_id(stamp),
            "anthropic-organization-id": "00000000-0000-4000-8000-000000000000",
            "anthropic-ratelimit-requests-limit": "4000",
            "anthropic-ratelimit-requests-remaining": "0" if limited else "3999",
            "anthropic-ratelimit-requests-reset": reset,
            "anthropic-ratelimit-input-tokens-limit": "2000000",
            "anthropic-ratelimit-input-tokens-remaining": "1999000",
            "anthropic-ratelimit-input-tokens-reset": reset,
            "anthropic-ratelimit-output-tokens-limit": "400000",
            "anthropic-ratelimit-output-tokens-remaining": "399000",
            "anthropic-ratelimit-output-tokens-reset": reset,
        }
        return headers | {"retry-after": str(RETRY_AFTER_S)} if limited else headers


def _said(content: str | Sequence[_Block]) -> tuple[str, int]:
    if isinstance(content, str):
        return content, 0
    said = [block.said() for block in content]
    return "".join(text for text, _ in said), sum(attachments for _, attachments in said)


def _call(request: _Request, tools: tuple[Tool, ...]) -> Tool | None:
    match request.tool_choice:
        case _ if request.messages[-1].holds_result():
            return None
        case _ToolChoice(type="none"):
            return None
        case _ToolChoice(type="tool", name=name):
            return tool_to_call(tools, name)
        case _:
            return tool_to_call(tools)


def _event(data: JsonObject) -> bytes:
    return sse(data, event=str(data["type"]))


def _message(model: str, stamp: Stamp) -> JsonObject:
    return {
        "id": stamp.id("msg_01", 22),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _ending(reply: Reply) -> JsonObject:
    return {"stop_reason": _STOP_REASON[reply.ending], "stop_sequence": reply.stop_sequence}


def _content(reply: Reply, stamp: Stamp) -> list[JsonObject]:
    if reply.tool is not None:
        # Arguments that were cut short are no JSON; what is left of them is an empty object.
        arguments = json.loads(reply.text) if reply.ending is Ending.TOOL_CALL else {}
        return [_tool_use(reply.tool, stamp) | {"input": arguments}]
    return [{"type": "text", "text": reply.text}] if reply.pieces else []


def _block_frames(reply: Reply, stamp: Stamp) -> list[bytes]:
    ping = _event({"type": "ping"})
    if reply.tool is None and not reply.pieces:
        return [ping]
    if reply.tool is None:
        block: JsonObject = {"type": "text", "text": ""}
        delta: JsonObject = {"type": "text_delta", "text": SLOT}
    else:
        block = _tool_use(reply.tool, stamp)
        delta = {"type": "input_json_delta", "partial_json": SLOT}
    template = Template(_event({"type": "content_block_delta", "index": 0, "delta": delta}))
    return [
        _event({"type": "content_block_start", "index": 0, "content_block": block}),
        ping,
        *(template.fill(piece) for piece in reply.pieces),
        _event({"type": "content_block_stop", "index": 0}),
    ]


def _tool_use(name: str, stamp: Stamp) -> JsonObject:
    return {"type": "tool_use", "id": stamp.id("toolu_01", 22), "name": name, "input": {}}


def _usage(usage: Usage, output_tokens: int) -> JsonObject:
    # Tokens read from and written to the cache are counted beside the input, not in it.
    return {
        "input_tokens": usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_tokens,
            "ephemeral_1h_input_tokens": 0,
        },
        "output_tokens": output_tokens,
        "service_tier": "standard",
    }


def _request_id(stamp: Stamp) -> str:
    return stamp.id("req_01", 22)
