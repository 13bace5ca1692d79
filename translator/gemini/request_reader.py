"""A request for Gemini's generateContent as a conversation. Pure.

Source: Google's API reference (generateContent, function calling, thinking, thought signatures, structured output).
"""

from collections.abc import Iterable, Mapping
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
    Tool,
    Turn,
    UserTurn,
)
from translator.faults import Feature, UnsupportedFieldError
from translator.gemini.calls import Calls
from translator.gemini.schema import json_schema
from translator.gemini.spelling import in_camel_case
from translator.json_values import Fields, JsonObject, ShapeError, compact
from translator.parts import (
    Audio,
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

_CONFIG: Final = "generationConfig"
FIELD_NAMES: Final[Mapping[Feature, str]] = {
    Feature.TEMPERATURE: f"{_CONFIG}.temperature",
    Feature.TOP_P: f"{_CONFIG}.topP",
    Feature.TOP_K: f"{_CONFIG}.topK",
    Feature.SEED: f"{_CONFIG}.seed",
    Feature.PRESENCE_PENALTY: f"{_CONFIG}.presencePenalty",
    Feature.FREQUENCY_PENALTY: f"{_CONFIG}.frequencyPenalty",
    Feature.STOPS: f"{_CONFIG}.stopSequences",
    Feature.REASONING: f"{_CONFIG}.thinkingConfig",
    Feature.FORMAT: f"{_CONFIG}.responseMimeType",
    Feature.AUDIO: "contents.parts.inlineData",
    Feature.ARGUMENTS: "contents.parts.functionCall.args",
    Feature.DOCUMENT: "contents.parts.inlineData",
    Feature.DOCUMENT_URL: "contents.parts.fileData",
    Feature.IMAGE_URL: "contents.parts.fileData",
    Feature.TOOL_ERROR: "contents.parts.functionResponse.response.error",
    Feature.THINKING: "contents.parts.thought",
}
"""Gemini's names where they are not the features' own."""

_CHOICES: Final[Mapping[str, Choice]] = {"AUTO": Choice.AUTO, "ANY": Choice.ANY, "NONE": Choice.NONE}
_LEVELS: Final[Mapping[str, Effort]] = {
    "MINIMAL": Effort.MINIMAL,
    "LOW": Effort.LOW,
    "MEDIUM": Effort.MEDIUM,
    "HIGH": Effort.HIGH,
}
_AS_MUCH_AS_IT_LIKES: Final = -1
_AUDIO_FORMATS: Final[Mapping[str, str]] = {"mpeg": "mp3", "x-wav": "wav"}
_STANDARD_ALPHABET: Final = str.maketrans("-_", "+/")
_RESULTS: Final = frozenset({"output", "result", "error"})
"""Names under which Google's documentation and clients put the text that a function gave back."""


def read_request(body: JsonObject) -> Conversation:
    """Read a request, with the `model` and the `stream` of its path beside its fields.

    Raises:
        ShapeError: it is none.
        UnsupportedFieldError: it asks for what no other dialect has.
    """
    fields = Fields(in_camel_case(body))
    if fields.raw("cachedContent"):
        raise UnsupportedFieldError("cachedContent")
    dropped: list[str] = []
    calls = Calls()
    turns = tuple(_turn(each, calls, dropped) for each in fields.objects("contents"))
    tools = tuple(each for tool in fields.objects("tools") for each in _tools(tool, dropped))
    instruction = fields.object_or_none("systemInstruction")
    config = fields.object_or_none(_CONFIG) or Fields({}, _CONFIG)
    _refuse_what_changes_the_answer(config)
    found = Conversation(
        model=fields.text("model"),
        system=() if instruction is None else tuple(_system(instruction)),
        turns=turns,
        tools=tools,
        choice=_choice(fields.object_or_none("toolConfig"), tools, dropped),
        sampling=Sampling(
            max_tokens=config.whole("maxOutputTokens"),
            temperature=config.number("temperature"),
            top_p=config.number("topP"),
            top_k=config.whole("topK"),
            stops=tuple(config.texts("stopSequences")),
            seed=config.whole("seed"),
            presence_penalty=config.number("presencePenalty") or None,
            frequency_penalty=config.number("frequencyPenalty") or None,
        ),
        reasoning=_reasoning(config.object_or_none("thinkingConfig")),
        format=_format(config),
        stream=fields.flag("stream") or False,
    )
    rest = (name for name in fields.unread() if fields.value[name] is not False)
    return replace(found, dropped=(*dropped, *config.unread(), *rest))


def _refuse_what_changes_the_answer(config: Fields) -> None:
    if (config.whole("candidateCount") or 1) != 1:
        raise UnsupportedFieldError(config.at("candidateCount"))
    for name in ("responseLogprobs", "logprobs", "speechConfig", "imageConfig"):
        if config.raw(name):
            raise UnsupportedFieldError(config.at(name))
    if any(each.upper() != "TEXT" for each in config.texts("responseModalities")):
        raise UnsupportedFieldError(config.at("responseModalities"))


def _system(instruction: Fields) -> Iterable[Text]:
    for part in instruction.objects("parts"):
        text = part.text_or_none("text")
        if text is None:
            raise UnsupportedFieldError(part.path)
        if text:
            yield Text(text)


def _turn(content: Fields, calls: Calls, dropped: list[str]) -> Turn:
    role = content.text_or_none("role") or "user"
    parts = content.objects("parts")
    if role == "model":
        return ModelTurn(tuple(each for part in parts for each in _model_parts(part, calls, dropped)))
    if role not in {"user", "function"}:
        raise ShapeError(content.at("role"), "neither user nor model")
    return UserTurn(tuple(each for part in parts for each in _user_parts(part, calls)))


def _user_parts(part: Fields, calls: Calls) -> Iterable[UserPart]:
    result = part.object_or_none("functionResponse")
    if result is not None:
        yield _result(result, calls)
    elif (text := part.text_or_none("text")) is None:
        yield _shown(part)
    elif text:
        yield Text(text)


def _shown(part: Fields) -> Image | Document | Audio:
    source, media_type = _source(part)
    kind, _, form = media_type.lower().partition("/")
    if kind == "image":
        return Image(source)
    if kind == "audio" and isinstance(source, Inline):
        return Audio(_AUDIO_FORMATS.get(form, form), source.data)
    if media_type == "application/pdf" or kind == "text":
        return Document(source)
    raise UnsupportedFieldError(part.path)


def _source(part: Fields) -> tuple[Source, str]:
    if (inline := part.object_or_none("inlineData")) is not None:
        media_type = inline.text("mimeType")
        # Google takes both alphabets of base64, and its clients write the other one.
        return Inline(media_type, inline.text("data").translate(_STANDARD_ALPHABET)), media_type
    if (file := part.object_or_none("fileData")) is not None:
        return Remote(file.text("fileUri")), file.text("mimeType")
    raise UnsupportedFieldError(part.path)


def _result(result: Fields, calls: Calls) -> ToolResult:
    name = result.text("name")
    call_id = calls.answered(result.text_or_none("id"), name, result.at("name"))
    said = result.object("response").value
    text = next(iter(said.values())) if len(said) == 1 and said.keys() <= _RESULTS else None
    parts: list[ResultPart] = [Text(text if isinstance(text, str) else compact(said))] if text != "" else []
    for part in result.objects("parts"):
        shown = _shown(part)
        if isinstance(shown, Audio):
            raise UnsupportedFieldError(part.path)
        parts.append(shown)
    return ToolResult(call_id, tuple(parts), is_error=said.keys() == {"error"})


def _model_parts(part: Fields, calls: Calls, dropped: list[str]) -> Iterable[ModelPart]:
    signature = part.text_or_none("thoughtSignature")
    call = part.object_or_none("functionCall")
    if call is not None:
        name = call.text("name")
        arguments = call.object_or_none("args")
        yield ToolCall(
            calls.began(call.text_or_none("id"), name),
            name,
            "{}" if arguments is None else compact(arguments.value),
            None if signature is None else Seal(Dialect.GEMINI, SealKind.SIGNATURE, signature),
        )
        return
    if signature is not None:
        # Only calls carry one on.
        dropped.append("contents.parts.thoughtSignature")
    text = part.text_or_none("text")
    if text is None and signature is None:
        raise UnsupportedFieldError(part.path)
    if text:
        yield Thinking(text) if part.flag("thought") else Text(text)


def _tools(tool: Fields, dropped: list[str]) -> Iterable[Tool]:
    for declared in tool.objects("functionDeclarations"):
        schema = declared.object_or_none("parametersJsonSchema")
        googles = declared.object_or_none("parameters")
        if schema is not None:
            parameters = schema.value
        else:
            parameters = {"type": "object", "properties": {}} if googles is None else json_schema(googles.value)
        yield Tool(declared.text("name"), declared.text_or_none("description"), parameters)
        dropped.extend(_unplaced(declared))
    dropped.extend(_unplaced(tool))


def _unplaced(fields: Fields) -> Iterable[str]:
    """What nobody has asked for, without the places in lists: one name says it for all of them."""
    return (f"tools.{name.rpartition('.')[2]}" for name in fields.unread())


def _choice(config: Fields | None, tools: tuple[Tool, ...], dropped: list[str]) -> Choice | Named | None:
    calling = None if config is None else config.object_or_none("functionCallingConfig")
    if config is not None:
        dropped.extend(config.unread())
    if calling is None:
        return None
    mode = calling.text_or_none("mode") or "AUTO"
    names = calling.texts("allowedFunctionNames")
    if names and mode == "ANY":
        if len(names) == 1:
            return Named(names[0])
        if set(names) != {tool.name for tool in tools}:
            raise UnsupportedFieldError(calling.at("allowedFunctionNames"))
    if mode not in _CHOICES:
        raise UnsupportedFieldError(calling.at("mode"))
    return _CHOICES[mode]


def _reasoning(thinking: Fields | None) -> Reasoning | None:
    if thinking is None:
        return None
    budget, level = thinking.whole("thinkingBudget"), thinking.text_or_none("thinkingLevel")
    if level is not None and level.upper() not in _LEVELS:
        raise UnsupportedFieldError(thinking.at("thinkingLevel"))
    if budget is not None and budget != _AS_MUCH_AS_IT_LIKES:
        return Reasoning(budget_tokens=budget)
    return Reasoning(effort=None if level is None else _LEVELS[level.upper()])


def _format(config: Fields) -> JsonAnswer | None:
    kind = config.text_or_none("responseMimeType")
    schema, googles = config.object_or_none("responseJsonSchema"), config.object_or_none("responseSchema")
    if kind in {None, "text/plain"}:
        return None
    if kind != "application/json":
        raise UnsupportedFieldError(config.at("responseMimeType"))
    if schema is not None:
        return JsonAnswer(schema.value)
    return JsonAnswer(None if googles is None else json_schema(googles.value))
