"""A conversation as a request for Anthropic's messages. Pure.

Source: Anthropic's API reference (messages, tool use, extended thinking, structured outputs).
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final, assert_never

from gateway_core.endpoints import Dialect
from translator.conversation import (
    Choice,
    Conversation,
    ModelTurn,
    Named,
    Reasoning,
    Tier,
    Tool,
    Turn,
    UserTurn,
    merged,
)
from translator.faults import Feature, InexpressibleError
from translator.json_values import Json, JsonObject
from translator.parts import (
    Audio,
    Document,
    Image,
    Inline,
    ModelPart,
    Refusal,
    Remote,
    SealKind,
    Source,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    UserPart,
)
from translator.thinking_budget import budget_of

MAX_TOKENS_DEFAULT: Final = 8192
"""Anthropic demands a bound; most of its models take this one."""

_TEMPERATURE_MAX: Final = 1
_TOP_P_MIN_THINKING: Final = 0.95
_CHOICES: Final[Mapping[Choice, str]] = {Choice.AUTO: "auto", Choice.ANY: "any", Choice.NONE: "none"}
_ID_OTHER: Final = re.compile(r"[^a-zA-Z0-9_-]")


def write_request(conversation: Conversation, lost: set[Feature]) -> JsonObject:
    """The body.

    Args:
        conversation: what it says.
        lost: is given what is left out.

    Raises:
        InexpressibleError: it cannot be said, and leaving it out would change the answer.
    """
    turns = merged(list(conversation.turns))
    messages = [_message(turn, lost) for turn in turns]
    max_tokens = conversation.sampling.max_tokens or MAX_TOKENS_DEFAULT
    body: JsonObject = {
        "model": conversation.model,
        "max_tokens": max_tokens,
        # Anthropic refuses a message without content.
        "messages": [message for message in messages if message["content"]],
    }
    if conversation.system:
        body["system"] = [_text(part) for part in conversation.system if part.text]
    if conversation.tools:
        body["tools"] = [_tool(tool) for tool in conversation.tools]
        if (choice := _choice(conversation)) is not None:
            body["tool_choice"] = choice
    thinking = _thinking(conversation.reasoning, max_tokens)
    if thinking is not None and _may_not_think(conversation, turns):
        thinking = None
    if thinking is not None:
        body["thinking"] = thinking
    elif conversation.reasoning is not None and not conversation.reasoning.is_off:
        lost.add(Feature.REASONING)
    body |= _sampling(conversation, lost, thinks=thinking is not None)
    if conversation.format is not None:
        if conversation.format.schema is None:
            raise InexpressibleError(Feature.FORMAT)
        body["output_config"] = {"format": {"type": "json_schema", "schema": conversation.format.schema}}
    if conversation.end_user is not None:
        body["metadata"] = {"user_id": conversation.end_user}
    if conversation.tier is Tier.STANDARD:
        body["service_tier"] = "standard_only"
    if conversation.stream:
        body["stream"] = True
    return body


def call_id(text: str) -> str:
    """The id of a call as Anthropic takes one."""
    return _ID_OTHER.sub("_", text) or "call"


def _message(turn: Turn, lost: set[Feature]) -> JsonObject:
    if isinstance(turn, ModelTurn):
        return {"role": "assistant", "content": [each for part in turn.parts for each in _model_part(part, lost)]}
    # Results have to stand first.
    parts = sorted(turn.parts, key=lambda part: not isinstance(part, ToolResult))
    return {"role": "user", "content": [each for part in parts for each in _user_part(part, lost)]}


def _user_part(part: UserPart, lost: set[Feature]) -> list[Json]:
    match part:
        case Text():
            # Anthropic refuses a text without a letter.
            return [_text(part)] if part.text else []
        case Image():
            if part.detail is not None:
                lost.add(Feature.IMAGE_DETAIL)
            return [_cached({"type": "image", "source": _source(part.source)}, part.cache)]
        case Document():
            block: JsonObject = {"type": "document", "source": _document_source(part.source)}
            if part.name is not None:
                block["title"] = part.name
            return [_cached(block, part.cache)]
        case Audio():
            raise InexpressibleError(Feature.AUDIO)
        case ToolResult():
            content = [each for inner in part.parts for each in _user_part(inner, lost)]
            result: JsonObject = {"type": "tool_result", "tool_use_id": call_id(part.call_id), "content": content}
            if part.is_error:
                result["is_error"] = True
            return [_cached(result, part.cache)]
        case _:
            assert_never(part)


def _model_part(part: ModelPart, lost: set[Feature]) -> list[Json]:
    match part:
        case Text():
            return [_text(part)] if part.text else []
        case Refusal():
            return [{"type": "text", "text": part.text}] if part.text else []
        case ToolCall():
            if (arguments := part.arguments_object()) is None:
                raise InexpressibleError(Feature.ARGUMENTS)
            return [{"type": "tool_use", "id": call_id(part.id), "name": part.name, "input": arguments}]
        case Thinking(text=text, seal=seal):
            if seal is None or seal.maker is not Dialect.ANTHROPIC:
                lost.add(Feature.THINKING)
                return []
            if seal.kind is SealKind.WHOLE:
                return [{"type": "redacted_thinking", "data": seal.data}]
            return [{"type": "thinking", "thinking": text, "signature": seal.data}]
        case _:
            assert_never(part)


def _text(part: Text) -> JsonObject:
    return _cached({"type": "text", "text": part.text}, part.cache)


def _cached(block: JsonObject, cache: JsonObject | None) -> JsonObject:
    return block if cache is None else {**block, "cache_control": cache}


def _source(source: Source) -> JsonObject:
    match source:
        case Inline():
            return {"type": "base64", "media_type": source.media_type, "data": source.data}
        case Remote():
            return {"type": "url", "url": source.url}
        case _:
            assert_never(source)


def _document_source(source: Source) -> JsonObject:
    if isinstance(source, Inline) and source.media_type.startswith("text/"):
        try:
            text = base64.b64decode(source.data, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise InexpressibleError(Feature.DOCUMENT) from error
        return {"type": "text", "media_type": "text/plain", "data": text}
    return _source(source)


def _tool(tool: Tool) -> JsonObject:
    found: JsonObject = {"name": tool.name, "input_schema": tool.schema}
    if tool.description is not None:
        found["description"] = tool.description
    if tool.strict:
        found["strict"] = True
    return _cached(found, tool.cache)


def _choice(conversation: Conversation) -> JsonObject | None:
    choice: JsonObject
    match conversation.choice:
        case Named(name=name):
            choice = {"type": "tool", "name": name}
        case Choice() as found:
            choice = {"type": _CHOICES[found]}
        case None:
            if conversation.parallel_calls is not False:
                return None
            choice = {"type": "auto"}
        case _:
            assert_never(conversation.choice)
    if conversation.parallel_calls is False and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = True
    return choice


def _thinking(reasoning: Reasoning | None, max_tokens: int) -> JsonObject | None:
    if reasoning is None or reasoning.is_off:
        return None
    if reasoning.budget_tokens is not None:
        return {"type": "enabled", "budget_tokens": reasoning.budget_tokens}
    budget = None if reasoning.effort is None else budget_of(reasoning.effort, max_tokens)
    return None if budget is None else {"type": "enabled", "budget_tokens": budget}


def _may_not_think(conversation: Conversation, turns: tuple[Turn, ...]) -> bool:
    """Anthropic refuses to think where a call is forced, and within a turn whose own thinking is not sent back to it."""
    if conversation.choice is Choice.ANY or isinstance(conversation.choice, Named):
        return True
    for turn in reversed(turns):
        if isinstance(turn, UserTurn) and not any(isinstance(part, ToolResult) for part in turn.parts):
            return False
        if isinstance(turn, ModelTurn) and any(isinstance(part, ToolCall) for part in turn.parts):
            first = turn.parts[0]
            if not (isinstance(first, Thinking) and first.seal is not None and first.seal.maker is Dialect.ANTHROPIC):
                return True
    return False


def _sampling(conversation: Conversation, lost: set[Feature], *, thinks: bool) -> JsonObject:
    sampling = conversation.sampling
    body: JsonObject = {}
    for value, feature in (
        (sampling.seed, Feature.SEED),
        (sampling.presence_penalty, Feature.PRESENCE_PENALTY),
        (sampling.frequency_penalty, Feature.FREQUENCY_PENALTY),
    ):
        if value is not None:
            lost.add(feature)
    temperature, top_p, top_k = sampling.temperature, sampling.top_p, sampling.top_k
    if temperature is not None and temperature > _TEMPERATURE_MAX:
        temperature = _TEMPERATURE_MAX
        lost.add(Feature.TEMPERATURE)
    if thinks:
        if temperature not in {None, 1}:
            temperature = None
            lost.add(Feature.TEMPERATURE)
        if top_k is not None:
            top_k = None
            lost.add(Feature.TOP_K)
        if top_p is not None and top_p < _TOP_P_MIN_THINKING:
            top_p = None
            lost.add(Feature.TOP_P)
    if temperature is not None and top_p is not None:
        # Newer models take one of the two.
        if top_p != 1:
            lost.add(Feature.TOP_P)
        top_p = None
    values = (("temperature", temperature), ("top_p", top_p), ("top_k", top_k))
    body |= {name: value for name, value in values if value is not None}
    if sampling.stops:
        if not all(stop.strip() for stop in sampling.stops):
            raise InexpressibleError(Feature.STOPS)
        body["stop_sequences"] = list(sampling.stops)
    return body
