"""A request for Anthropic's messages as a conversation. Pure.

Source: Anthropic's API reference (messages, tool use, extended thinking, structured outputs).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from gateway_core.endpoints import Dialect
from translator.conversation import (
    Choice,
    Conversation,
    Effort,
    JsonAnswer,
    ModelTurn,
    Named,
    Reasoning,
    Sampling,
    Tier,
    Tool,
    Turn,
    UserTurn,
)
from translator.faults import Feature, UnsupportedFieldError
from translator.json_values import Fields, JsonObject, ShapeError, compact
from translator.parts import (
    Document,
    Image,
    Inline,
    ModelPart,
    Remote,
    ResultPart,
    Seal,
    SealKind,
    Source,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    UserPart,
)

FIELD_NAMES: Final[Mapping[Feature, str]] = {
    Feature.STOPS: "stop_sequences",
    Feature.REASONING: "thinking",
    Feature.FORMAT: "output_config.format",
    Feature.PARALLEL_CALLS: "tool_choice.disable_parallel_tool_use",
    Feature.END_USER: "metadata.user_id",
    Feature.DOCUMENT_URL: "messages.content.source.url",
    Feature.IMAGE_URL: "messages.content.source.url",
    Feature.TOOL_ERROR: "messages.content.is_error",
    Feature.THINKING: "messages.content.thinking",
}
"""Anthropic's names where they are not the features' own."""

_CHOICES: Final[Mapping[str, Choice]] = {"auto": Choice.AUTO, "any": Choice.ANY, "none": Choice.NONE}
_TIERS: Final[Mapping[str, Tier]] = {"auto": Tier.ANY, "standard_only": Tier.STANDARD}
_EFFORTS: Final[Mapping[str, Effort]] = {
    "low": Effort.LOW,
    "medium": Effort.MEDIUM,
    "high": Effort.HIGH,
    "xhigh": Effort.XHIGH,
    "max": Effort.XHIGH,
}


def read_request(body: JsonObject) -> Conversation:
    """Read a request.

    Raises:
        ShapeError: it is none.
        UnsupportedFieldError: it asks for what no other dialect has.
    """
    fields = Fields(body)
    for name in ("mcp_servers", "container"):
        if fields.raw(name):
            raise UnsupportedFieldError(name)
    if fields.text_or_none("speed") not in {None, "standard"}:
        raise UnsupportedFieldError("speed")
    dropped: list[str] = []
    turns = tuple(_turn(each) for each in fields.objects("messages"))
    tools = tuple(tool for each in fields.objects("tools") if (tool := _tool(each, dropped)) is not None)
    choice, parallel = _choice(fields.object_or_none("tool_choice"))
    if isinstance(choice, Named) and choice.name not in {tool.name for tool in tools}:
        raise UnsupportedFieldError("tool_choice.name")
    output = fields.object_or_none("output_config")
    metadata = fields.object_or_none("metadata")
    found = Conversation(
        model=fields.text("model"),
        system=_system(fields),
        turns=turns,
        tools=tools,
        choice=choice,
        parallel_calls=parallel,
        sampling=Sampling(
            max_tokens=fields.whole("max_tokens"),
            temperature=fields.number("temperature"),
            top_p=fields.number("top_p"),
            top_k=fields.whole("top_k"),
            stops=tuple(fields.texts("stop_sequences")),
        ),
        reasoning=_reasoning(fields.object_or_none("thinking"), output),
        format=_format(output),
        tier=_tier(fields),
        stream=fields.flag("stream") or False,
        end_user=None if metadata is None else metadata.text_or_none("user_id"),
    )
    dropped.extend(name for each in (output, metadata) if each is not None for name in each.unread())
    return replace(found, dropped=(*dropped, *fields.unread()))


def _system(fields: Fields) -> tuple[Text, ...]:
    value = fields.raw("system")
    if value is None or isinstance(value, str):
        return (Text(value),) if value else ()
    return tuple(_text(block) for block in fields.objects("system"))


def _turn(message: Fields) -> Turn:
    content = message.raw("content")
    role = message.text("role")
    if role == "user":
        if isinstance(content, str):
            return UserTurn((Text(content),) if content else ())
        return UserTurn(tuple(_user_part(block) for block in message.objects("content")))
    if role == "assistant":
        if isinstance(content, str):
            return ModelTurn((Text(content),) if content else ())
        return ModelTurn(tuple(_model_part(block) for block in message.objects("content")))
    raise ShapeError(message.at("role"), "neither user nor assistant")


def _user_part(block: Fields) -> UserPart:
    if block.text("type") != "tool_result":
        return _result_part(block)
    content = block.raw("content")
    parts: tuple[ResultPart, ...]
    if content is None or isinstance(content, str):
        parts = (Text(content),) if content else ()
    else:
        parts = tuple(_result_part(each) for each in block.objects("content"))
    return ToolResult(block.text("tool_use_id"), parts, is_error=block.flag("is_error") or False, cache=_cache(block))


def _result_part(block: Fields) -> ResultPart:
    match block.text("type"):
        case "text":
            return _text(block)
        case "image":
            return Image(_source(block), cache=_cache(block))
        case "document":
            source = block.object("source")
            if source.text("type") == "text":
                return Text(source.text("data"), _cache(block))
            return Document(_source(block), block.text_or_none("title"), _cache(block))
        case _:
            raise UnsupportedFieldError(block.at("type"))


def _model_part(block: Fields) -> ModelPart:
    match block.text("type"):
        case "text":
            return _text(block)
        case "thinking":
            signature = block.text_or_none("signature")
            seal = Seal(Dialect.ANTHROPIC, SealKind.SIGNATURE, signature) if signature else None
            return Thinking(block.text("thinking"), seal)
        case "redacted_thinking":
            return Thinking("", Seal(Dialect.ANTHROPIC, SealKind.WHOLE, block.text("data")))
        case "tool_use":
            return ToolCall(block.text("id"), block.text("name"), compact(block.object("input").value))
        case _:
            raise UnsupportedFieldError(block.at("type"))


def _text(block: Fields) -> Text:
    return Text(block.text("text"), _cache(block))


def _cache(block: Fields) -> JsonObject | None:
    found = block.object_or_none("cache_control")
    return None if found is None else found.value


def _source(block: Fields) -> Source:
    source = block.object("source")
    match source.text("type"):
        case "base64":
            return Inline(source.text("media_type"), source.text("data"))
        case "url":
            return Remote(source.text("url"))
        case _:
            raise UnsupportedFieldError(source.at("type"))


def _tool(tool: Fields, dropped: list[str]) -> Tool | None:
    kind = tool.text_or_none("type")
    name = tool.text("name")
    if kind not in {None, "custom"}:
        # A tool that Anthropic runs itself, or trains its models for.
        dropped.append(tool.path)
        return None
    description, schema = tool.text_or_none("description"), tool.object("input_schema").value
    found = Tool(name, description, schema, strict=tool.flag("strict"), cache=_cache(tool))
    dropped.extend(tool.unread())
    return found


def _choice(choice: Fields | None) -> tuple[Choice | Named | None, bool | None]:
    if choice is None:
        return None, None
    parallel = False if choice.flag("disable_parallel_tool_use") else None
    kind = choice.text("type")
    if kind == "tool":
        return Named(choice.text("name")), parallel
    found = _CHOICES.get(kind)
    if found is None:
        raise UnsupportedFieldError(choice.at("type"))
    return found, parallel


def _reasoning(thinking: Fields | None, output: Fields | None) -> Reasoning | None:
    if thinking is None:
        return None
    match thinking.text("type"):
        case "disabled":
            return Reasoning(effort=Effort.NONE)
        case "enabled":
            return Reasoning(budget_tokens=thinking.whole("budget_tokens"))
        case "adaptive":
            effort = None if output is None else output.text_or_none("effort")
            if effort is not None and effort not in _EFFORTS:
                raise UnsupportedFieldError("output_config.effort")
            return Reasoning(effort=None if effort is None else _EFFORTS[effort])
        case _:
            raise UnsupportedFieldError(thinking.at("type"))


def _format(output: Fields | None) -> JsonAnswer | None:
    found = None if output is None else output.object_or_none("format")
    if found is None:
        return None
    if found.text("type") != "json_schema":
        raise UnsupportedFieldError(found.at("type"))
    return JsonAnswer(found.object("schema").value, strict=True)


def _tier(fields: Fields) -> Tier | None:
    value = fields.text_or_none("service_tier")
    if value is None:
        return None
    if value not in _TIERS:
        raise UnsupportedFieldError("service_tier")
    return _TIERS[value]
