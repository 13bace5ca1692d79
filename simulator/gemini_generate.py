"""Gemini's generateContent and streamGenerateContent. Pure.

Source: the API reference of the Gemini API, generating content and function calling.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from simulator.chat import Answer, ChatRequest, Ending, JsonObject, Message, Reply, Stamp, Tool, tool_to_call
from simulator.dialect import Body, OutputTokensMax, has_bearer, parse_body
from simulator.frames import compact, sse
from simulator.refusal import RETRY_AFTER_S, RefusalError

_STATUS: Final[Mapping[int, str]] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    504: "DEADLINE_EXCEEDED",
}
_ANY_JSON: Final[JsonObject] = {"type": "object", "properties": {"answer": {"type": "string"}}}


class Framing(Enum):
    """How an answer travels; the path decides, not the body."""

    UNARY = auto()
    ARRAY = auto()
    """A JSON array that grows."""
    SSE = auto()


class _GeminiBody(Body):
    # Protobuf's JSON takes both spellings of a name.
    model_config: ClassVar[ConfigDict] = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class _FunctionValue(_GeminiBody):
    name: str
    args: JsonObject | None = None
    response: JsonObject | None = None


class _Part(_GeminiBody):
    text: str | None = None
    function_call: _FunctionValue | None = None
    function_response: _FunctionValue | None = None

    def said(self) -> str | None:
        """Its text; None for an attachment."""
        function = self.function_call or self.function_response
        return self.text if function is None else compact(function.model_dump(exclude_none=True))


class _Content(_GeminiBody):
    role: Literal["user", "model", "function", "system"] | None = None
    parts: list[_Part] = Field(default_factory=list)

    def message(self) -> Message:
        said = [part.said() for part in self.parts]
        return Message(
            text="".join(text for text in said if text is not None),
            attachments=said.count(None),
            from_user=self.role in {"user", None} and not all(part.function_response for part in self.parts),
        )


class _FunctionDeclaration(_GeminiBody):
    name: str
    description: str | None = None
    parameters: JsonObject | None = None
    parameters_json_schema: JsonObject | None = None


class _Tool(_GeminiBody):
    function_declarations: list[_FunctionDeclaration] = Field(default_factory=list)


class _FunctionCallingConfig(_GeminiBody):
    mode: Literal["MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED"] = "AUTO"
    allowed_function_names: list[str] = Field(default_factory=list)


class _ToolConfig(_GeminiBody):
    function_calling_config: _FunctionCallingConfig = _FunctionCallingConfig()


class _GenerationConfig(_GeminiBody):
    max_output_tokens: OutputTokensMax | None = None
    stop_sequences: Annotated[list[str], Field(max_length=5)] = Field(default_factory=list)
    candidate_count: Annotated[int, Field(ge=1, le=8)] = 1
    response_mime_type: str = "text/plain"
    response_schema: JsonObject | None = None
    response_json_schema: JsonObject | None = None

    def json_schema(self) -> JsonObject | None:
        if self.response_mime_type != "application/json":
            return None
        return self.response_json_schema or self.response_schema or _ANY_JSON


class _Request(_GeminiBody):
    contents: Annotated[list[_Content], Field(min_length=1)]
    system_instruction: _Content | None = None
    tools: list[_Tool] = Field(default_factory=list)
    tool_config: _ToolConfig = _ToolConfig()
    generation_config: _GenerationConfig = _GenerationConfig()


@dataclass(frozen=True, slots=True)
class GeminiGenerate:
    """The dialect of `/v1beta/models/{model}:generateContent` and its streaming sister."""

    model: str
    framing: Framing

    @property
    def stream_type(self) -> str:
        """A stream is JSON unless events were asked for."""
        return "text/event-stream" if self.framing is Framing.SSE else "application/json; charset=UTF-8"

    def check_headers(self, headers: Mapping[str, str], query: Mapping[str, str]) -> None:
        """`x-goog-api-key`, `?key=` or `Authorization: Bearer`."""
        if not headers.get("x-goog-api-key") and not query.get("key") and not has_bearer(headers):
            raise RefusalError(401, "Request is missing required authentication credential.")

    def parse(self, body: bytes) -> ChatRequest:
        """Read the body; the model and the way to answer come from the path."""
        request = parse_body(_Request, body)
        config = request.generation_config
        tools = tuple(
            Tool(
                name=function.name,
                schema=function.parameters_json_schema or function.parameters or {},
                text=compact(function.model_dump(exclude_none=True)),
            )
            for tool in request.tools
            for function in tool.function_declarations
        )
        system = () if request.system_instruction is None else (request.system_instruction,)
        return ChatRequest(
            model=self.model,
            messages=tuple(content.message() for content in (*system, *request.contents)),
            tools=tools,
            call=_call(request, tools),
            json_schema=config.json_schema(),
            output_tokens_max=config.max_output_tokens,
            stops=tuple(config.stop_sequences),
            choices=config.candidate_count,
            stream=self.framing is not Framing.UNARY,
        )

    def unary(self, answer: Answer) -> JsonObject:
        """One `GenerateContentResponse` that holds everything."""
        candidates = [
            _candidate(index, _parts(reply, reply.text), reply.ending) for index, reply in enumerate(answer.replies)
        ]
        return _response(answer, candidates, sum(len(reply.pieces) for reply in answer.replies))

    def stream(self, answer: Answer) -> list[bytes]:
        """Responses with a piece of every candidate each; the usage in them is a running total."""
        steps = max((len(_deltas(reply)) for reply in answer.replies), default=0)
        responses = []
        tokens = 0
        for step in range(steps):
            candidates = []
            for index, reply in enumerate(answer.replies):
                deltas = _deltas(reply)
                if step < len(deltas):
                    last = step == len(deltas) - 1
                    tokens += len(reply.pieces) if reply.tool is not None else min(1, len(reply.pieces))
                    candidates.append(_candidate(index, _parts(reply, deltas[step]), reply.ending if last else None))
            responses.append(_response(answer, candidates, tokens))
        if self.framing is Framing.SSE:
            return [sse(response, end="\r\n") for response in responses]
        return _array(responses)

    def error(self, refusal: RefusalError, _stamp: Stamp) -> JsonObject:
        """`{"error": {code, message, status}}`, with the time to wait in `details`."""
        error: JsonObject = {
            "code": refusal.status,
            "message": refusal.message,
            "status": _STATUS.get(refusal.status, "UNAVAILABLE"),
        }
        if refusal.status == 429:  # noqa: PLR2004 - Too Many Requests
            retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{RETRY_AFTER_S}s"}
            error["details"] = [retry]
        return {"error": error}

    def headers(self, stamp: Stamp, *, status: int, latency_ms: int) -> dict[str, str]:  # noqa: ARG002 - nothing in them repeats
        """Google's usual ones; there is no request id among them."""
        headers = {
            "server-timing": f"gfet4t7; dur={latency_ms}",
            "vary": "Origin, X-Origin, Referer",
            "x-content-type-options": "nosniff",
            "x-frame-options": "SAMEORIGIN",
            "x-xss-protection": "0",
        }
        limited = status == 429  # noqa: PLR2004 - Too Many Requests
        return headers | {"retry-after": str(RETRY_AFTER_S)} if limited else headers


def _call(request: _Request, tools: tuple[Tool, ...]) -> Tool | None:
    config = request.tool_config.function_calling_config
    if config.mode == "NONE" or any(part.function_response for part in request.contents[-1].parts):
        return None
    return tool_to_call(tools, next(iter(config.allowed_function_names), None))


def _deltas(reply: Reply) -> Sequence[str]:
    """What the events of a stream carry. A function call arrives whole; an empty reply still has its end to tell."""
    return (reply.text,) if reply.tool is not None else reply.pieces or ("",)


def _parts(reply: Reply, text: str) -> list[JsonObject]:
    if reply.tool is None:
        return [{"text": text}] if text else []
    # Arguments that were cut short are no JSON, so there is no call.
    return (
        [{"functionCall": {"name": reply.tool, "args": json.loads(text)}}] if reply.ending is Ending.TOOL_CALL else []
    )


def _candidate(index: int, parts: list[JsonObject], ending: Ending | None) -> JsonObject:
    candidate: JsonObject = {"content": {"parts": parts, "role": "model"}}
    if ending is not None:
        candidate["finishReason"] = "MAX_TOKENS" if ending is Ending.LENGTH else "STOP"
    return candidate | {"index": index}


def _response(answer: Answer, candidates: list[JsonObject], candidate_tokens: int) -> JsonObject:
    response: JsonObject = {"candidates": candidates}
    if answer.report_usage:
        response["usageMetadata"] = _usage(answer, candidate_tokens)
    return response | {"modelVersion": answer.model, "responseId": answer.stamp.id("", 22)}


def _usage(answer: Answer, candidate_tokens: int) -> JsonObject:
    # Thoughts are counted beside the candidates, cached tokens inside the prompt.
    usage = answer.usage
    counts: JsonObject = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": candidate_tokens,
        "totalTokenCount": usage.input_tokens + candidate_tokens + usage.reasoning_tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": usage.input_tokens}],
        "thoughtsTokenCount": usage.reasoning_tokens,
    }
    return counts | {"cachedContentTokenCount": usage.cached_tokens} if usage.cached_tokens else counts


def _array(responses: Sequence[JsonObject]) -> list[bytes]:
    """The members of a JSON array, each with the bracket or comma before it, and the end."""
    members = [(b",\r\n" if position else b"[") + compact(item).encode() for position, item in enumerate(responses)]
    return [*members, b"]"]
