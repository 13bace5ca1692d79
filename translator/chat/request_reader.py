"""A chat completions request as a conversation. Pure.

Source: OpenAI's API reference (chat completions). `cache_control`, `reasoning_content` and `thinking_blocks` are what other
gateways and providers added to it, `extra_content.google` what Gemini's compatible endpoint did.
"""

from collections.abc import Mapping
from typing import Final, TypeVar

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
from translator.json_values import Fields, JsonObject, ShapeError
from translator.parts import (
    Audio,
    Document,
    Image,
    ModelPart,
    Refusal,
    Remote,
    ResultPart,
    Seal,
    SealKind,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    UserPart,
    source_of_url,
)

FIELD_NAMES: Final[Mapping[Feature, str]] = {
    Feature.REASONING: "reasoning_effort",
    Feature.AUDIO: "messages.content.input_audio",
    Feature.DOCUMENT: "messages.content.file.file_data",
    Feature.DOCUMENT_URL: "messages.content.file",
    Feature.IMAGE_URL: "messages.content.image_url",
    Feature.IMAGE_DETAIL: "messages.content.image_url.detail",
    Feature.STRICT_TOOLS: "tools.function.strict",
    Feature.CACHE: "messages.content.cache_control",
    Feature.THINKING: "messages.thinking_blocks",
    Feature.ARGUMENTS: "messages.tool_calls.function.arguments",
}
"""Chat's names where they are not the features' own."""

_CHOICES: Final[Mapping[str, Choice]] = {"auto": Choice.AUTO, "required": Choice.ANY, "none": Choice.NONE}
_TIERS: Final[Mapping[str, Tier]] = {"auto": Tier.ANY, "default": Tier.STANDARD}


def read_request(body: JsonObject) -> Conversation:
    """Read a request.

    Raises:
        ShapeError: it is none.
        UnsupportedFieldError: it asks for what no other dialect has.
    """
    fields = Fields(body)
    _refuse_what_changes_the_answer(fields)
    system: list[Text] = []
    turns: list[Turn] = []
    dropped: list[str] = []
    for message in fields.objects("messages"):
        _read_message(message, system, turns, dropped)
    tools = tuple(_tool(each, dropped) for each in fields.objects("tools"))
    fields.raw("stream_options")
    bound, other_bound = fields.whole("max_completion_tokens"), fields.whole("max_tokens")
    if bound is not None and other_bound is not None:
        bound = min(bound, other_bound)
    effort = _word(fields, "reasoning_effort", {each.value: each for each in Effort})
    return Conversation(
        model=fields.text("model"),
        system=tuple(system),
        turns=tuple(turns),
        tools=tools,
        choice=_choice(fields),
        parallel_calls=fields.flag("parallel_tool_calls"),
        sampling=Sampling(
            max_tokens=other_bound if bound is None else bound,
            temperature=fields.number("temperature"),
            top_p=fields.number("top_p"),
            stops=_stops(fields),
            seed=fields.whole("seed"),
            presence_penalty=fields.number("presence_penalty") or None,
            frequency_penalty=fields.number("frequency_penalty") or None,
        ),
        reasoning=None if effort is None else Reasoning(effort=effort),
        format=_format(fields.object_or_none("response_format")),
        tier=_tier(fields),
        stream=fields.flag("stream") or False,
        end_user=fields.text_or_none("user"),
        dropped=(*dropped, *(name for name in fields.unread() if body[name] is not False)),
    )


def _refuse_what_changes_the_answer(fields: Fields) -> None:
    if (fields.whole("n") or 1) != 1:
        raise UnsupportedFieldError("n")
    for name in ("logprobs", "top_logprobs", "logit_bias", "audio", "web_search_options", "functions", "function_call"):
        if fields.raw(name):
            raise UnsupportedFieldError(name)
    if any(each != "text" for each in fields.texts("modalities")):
        raise UnsupportedFieldError("modalities")


def _read_message(message: Fields, system: list[Text], turns: list[Turn], dropped: list[str]) -> None:
    match message.text("role"):
        case "system" | "developer":
            system.extend(_texts(message, "content"))
        case "user":
            turns.append(UserTurn(tuple(_user_parts(message))))
            if message.text_or_none("name") is not None:
                dropped.append("messages.name")
        case "assistant":
            turns.append(ModelTurn(tuple(_model_parts(message))))
        case "tool":
            result = ToolResult(message.text("tool_call_id"), tuple(_result_parts(message)))
            turns.append(UserTurn((result,)))
        case _:
            raise UnsupportedFieldError(message.at("role"))


def _texts(message: Fields, name: str) -> list[Text]:
    content = message.raw(name)
    if content is None or isinstance(content, str):
        return [Text(content)] if content else []
    found = []
    for part in message.objects(name):
        if part.text("type") not in {"text", "refusal"}:
            raise UnsupportedFieldError(part.at("type"))
        found.append(_text(part))
    return found


def _text(part: Fields) -> Text:
    cache = part.object_or_none("cache_control")
    return Text(part.text("text"), None if cache is None else cache.value)


def _user_parts(message: Fields) -> list[UserPart]:
    content = message.raw("content")
    if content is None or isinstance(content, str):
        return [Text(content)] if content else []
    return [_user_part(part) for part in message.objects("content")]


def _user_part(part: Fields) -> Text | Image | Document | Audio:
    match part.text("type"):
        case "text":
            return _text(part)
        case "image_url":
            image = part.object("image_url")
            detail = image.text_or_none("detail")
            return Image(source_of_url(image.text("url")), None if detail == "auto" else detail)
        case "file":
            file = part.object("file")
            if file.text_or_none("file_id") is not None:
                raise UnsupportedFieldError(file.at("file_id"))
            source = source_of_url(file.text("file_data"))
            if isinstance(source, Remote):
                raise ShapeError(file.at("file_data"), "not a data URL")
            return Document(source, file.text_or_none("filename"))
        case "input_audio":
            audio = part.object("input_audio")
            return Audio(audio.text("format"), audio.text("data"))
        case _:
            raise UnsupportedFieldError(part.at("type"))


def _result_parts(message: Fields) -> list[ResultPart]:
    found: list[ResultPart] = []
    for part in _user_parts(message):
        if not isinstance(part, Text | Image | Document):
            raise UnsupportedFieldError(message.at("content"))
        found.append(part)
    return found


def _model_parts(message: Fields) -> list[ModelPart]:
    found: list[ModelPart] = list(_thinking(message))
    if message.raw("audio") is not None or message.raw("function_call") is not None:
        raise UnsupportedFieldError(message.at("audio" if message.raw("audio") is not None else "function_call"))
    content = message.raw("content")
    if isinstance(content, list):
        for part in message.objects("content"):
            is_refusal = part.text("type") == "refusal"
            found.append(Refusal(part.text("refusal")) if is_refusal else _text(part))
    else:
        found.extend(_texts(message, "content"))
    if refusal := message.text_or_none("refusal"):
        found.append(Refusal(refusal))
    for call in message.objects("tool_calls"):
        if call.text_or_none("type") not in {None, "function"}:
            raise UnsupportedFieldError(call.at("type"))
        function = call.object("function")
        found.append(ToolCall(call.text("id"), function.text("name"), function.text("arguments"), _google_seal(call)))
    return found


def _thinking(message: Fields) -> list[Thinking]:
    """Thinking as our own answers have it; the plain words alone, as DeepSeek has them, where there is no more."""
    found = []
    for block in message.objects("thinking_blocks"):
        if block.text("type") == "redacted_thinking":
            found.append(Thinking("", Seal(Dialect.ANTHROPIC, SealKind.WHOLE, block.text("data"))))
        else:
            signature = block.text_or_none("signature")
            seal = Seal(Dialect.ANTHROPIC, SealKind.SIGNATURE, signature) if signature else None
            found.append(Thinking(block.text("thinking"), seal))
    plain = message.text_or_none("reasoning_content") or message.text_or_none("reasoning")
    return found or ([Thinking(plain)] if plain else [])


def _google_seal(call: Fields) -> Seal | None:
    extra = call.object_or_none("extra_content")
    google = None if extra is None else extra.object_or_none("google")
    signature = None if google is None else google.text_or_none("thought_signature")
    return None if signature is None else Seal(Dialect.GEMINI, SealKind.SIGNATURE, signature)


def _tool(tool: Fields, dropped: list[str]) -> Tool:
    if tool.text("type") != "function":
        raise UnsupportedFieldError(tool.at("type"))
    function = tool.object("function")
    schema = function.object_or_none("parameters")
    cache = tool.object_or_none("cache_control")
    found = Tool(
        function.text("name"),
        function.text_or_none("description"),
        {"type": "object", "properties": {}} if schema is None else schema.value,
        strict=function.flag("strict"),
        cache=None if cache is None else cache.value,
    )
    dropped.extend((*tool.unread(), *function.unread()))
    return found


def _choice(fields: Fields) -> Choice | Named | None:
    value = fields.raw("tool_choice")
    if value is None or isinstance(value, str):
        return _word(fields, "tool_choice", _CHOICES)
    choice = fields.object("tool_choice")
    if choice.text("type") != "function":
        raise UnsupportedFieldError(choice.at("type"))
    return Named(choice.object("function").text("name"))


def _stops(fields: Fields) -> tuple[str, ...]:
    value = fields.raw("stop")
    return (value,) if isinstance(value, str) else tuple(fields.texts("stop"))


def _format(format_: Fields | None) -> JsonAnswer | None:
    if format_ is None:
        return None
    match format_.text("type"):
        case "text":
            return None
        case "json_object":
            return JsonAnswer()
        case "json_schema":
            spec = format_.object("json_schema")
            schema = spec.object("schema").value
            return JsonAnswer(schema, spec.text("name"), spec.flag("strict"))
        case _:
            raise UnsupportedFieldError(format_.at("type"))


def _tier(fields: Fields) -> Tier | None:
    return _word(fields, "service_tier", _TIERS)


_T = TypeVar("_T")


def _word(fields: Fields, name: str, words: Mapping[str, _T]) -> _T | None:
    value = fields.text_or_none(name)
    if value is None:
        return None
    found = words.get(value)
    if found is None:
        raise UnsupportedFieldError(name)
    return found
