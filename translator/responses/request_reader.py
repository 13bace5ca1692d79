"""A request for the Responses API as a conversation. Pure.

Source: OpenAI's API reference (responses).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from gateway_core.endpoints import Dialect
from translator.conversation import (
    FREEFORM_FIELD,
    FREEFORM_SCHEMA,
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
from translator.json_values import Fields, JsonObject, compact
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
    Feature.REASONING: "reasoning",
    Feature.FORMAT: "text.format",
    Feature.AUDIO: "input.content.input_audio",
    Feature.DOCUMENT: "input.content.file_data",
    Feature.DOCUMENT_URL: "input.content.file_url",
    Feature.IMAGE_URL: "input.content.image_url",
    Feature.IMAGE_DETAIL: "input.content.detail",
    Feature.STRICT_TOOLS: "tools.strict",
    Feature.THINKING: "input.reasoning",
    Feature.ARGUMENTS: "input.arguments",
}
"""The Responses API's names where they are not the features' own."""

_CHOICES: Final[Mapping[str, Choice]] = {"auto": Choice.AUTO, "required": Choice.ANY, "none": Choice.NONE}
_TIERS: Final[Mapping[str, Tier]] = {"auto": Tier.ANY, "default": Tier.STANDARD}
_STATEFUL: Final = ("previous_response_id", "conversation", "prompt", "background")
_SEALS: Final[Mapping[str, tuple[Dialect, SealKind]]] = {
    "tollgate.anthropic.signature.": (Dialect.ANTHROPIC, SealKind.SIGNATURE),
    "tollgate.anthropic.whole.": (Dialect.ANTHROPIC, SealKind.WHOLE),
    "tollgate.gemini.signature.": (Dialect.GEMINI, SealKind.SIGNATURE),
}
"""How a seal begins that we have put in the place of encrypted content; all else there is OpenAI's own."""


def read_request(body: JsonObject) -> Conversation:
    """Read a request.

    Raises:
        ShapeError: it is none.
        UnsupportedFieldError: it asks for what no other dialect has.
    """
    fields = Fields(body)
    for name in (*_STATEFUL, "top_logprobs"):
        if fields.raw(name):
            raise UnsupportedFieldError(name)
    dropped: list[str] = []
    system: list[Text] = []
    if instructions := fields.text_or_none("instructions"):
        system.append(Text(instructions))
    turns = _turns(fields, system)
    tools = tuple(tool for each in fields.objects("tools") if (tool := _tool(each, dropped)) is not None)
    choice = _choice(fields)
    if isinstance(choice, Named) and choice.name not in {tool.name for tool in tools}:
        raise UnsupportedFieldError("tool_choice.name")
    text = fields.object_or_none("text")
    fields.texts("include")
    reasoning = fields.object_or_none("reasoning")
    found = Conversation(
        model=fields.text("model"),
        system=tuple(system),
        turns=tuple(turns),
        tools=tools,
        choice=choice,
        parallel_calls=fields.flag("parallel_tool_calls"),
        sampling=Sampling(
            max_tokens=fields.whole("max_output_tokens"),
            temperature=fields.number("temperature"),
            top_p=fields.number("top_p"),
        ),
        reasoning=_reasoning(reasoning),
        format=None if text is None else _format(text.object_or_none("format")),
        tier=_tier(fields),
        stream=fields.flag("stream") or False,
        end_user=fields.text_or_none("user"),
    )
    dropped.extend(name for each in (text, reasoning) if each is not None for name in each.unread())
    dropped.extend(name for name in fields.unread() if body[name] is not False)
    return replace(found, dropped=tuple(dropped))


def sealed_text(seal: Seal) -> str:
    """A seal as it stands in the place of encrypted content."""
    for beginning, made in _SEALS.items():
        if made == (seal.maker, seal.kind):
            return beginning + seal.data
    raise AssertionError("every seal that is made has a beginning")


def _seal(text: str | None) -> Seal | None:
    for beginning, (maker, kind) in _SEALS.items():
        if text is not None and text.startswith(beginning):
            return Seal(maker, kind, text.removeprefix(beginning))
    return None


def _turns(fields: Fields, system: list[Text]) -> list[Turn]:
    value = fields.raw("input")
    if isinstance(value, str):
        return [UserTurn((Text(value),))]
    turns: list[Turn] = []
    for item in fields.objects("input"):
        kind = item.text_or_none("type")
        if kind in {None, "message"}:
            _read_message(item, system, turns)
        elif kind in {"function_call_output", "custom_tool_call_output"}:
            turns.append(UserTurn((ToolResult(item.text("call_id"), _result_parts(item)),)))
        else:
            turns.append(ModelTurn((_model_item(item, kind),)))
    return turns


def _model_item(item: Fields, kind: str | None) -> ModelPart:
    match kind:
        case "function_call":
            return ToolCall(item.text("call_id"), item.text("name"), item.text("arguments"))
        case "custom_tool_call":
            return ToolCall(item.text("call_id"), item.text("name"), compact({FREEFORM_FIELD: item.text("input")}))
        case "reasoning":
            told = "\n\n".join(each.text("text") for each in item.objects("summary"))
            told = told or "".join(each.text("text") for each in item.objects("content"))
            return Thinking(told, _seal(item.text_or_none("encrypted_content")))
        case _:
            raise UnsupportedFieldError(item.at("type"))


def _read_message(item: Fields, system: list[Text], turns: list[Turn]) -> None:
    match item.text("role"):
        case "system" | "developer":
            parts = _user_parts(item, "content")
            if not all(isinstance(part, Text) for part in parts):
                raise UnsupportedFieldError(item.at("content"))
            system.extend(part for part in parts if isinstance(part, Text))
        case "user":
            turns.append(UserTurn(tuple(_user_parts(item, "content"))))
        case "assistant":
            turns.append(ModelTurn(tuple(_model_parts(item))))
        case _:
            raise UnsupportedFieldError(item.at("role"))


def _user_parts(item: Fields, name: str) -> list[UserPart]:
    content = item.raw(name)
    if content is None or isinstance(content, str):
        return [Text(content)] if content else []
    return [_user_part(part) for part in item.objects(name)]


def _user_part(part: Fields) -> Text | Image | Document | Audio:
    match part.text("type"):
        case "input_text" | "output_text" | "text":
            return Text(part.text("text"))
        case "input_image":
            if part.text_or_none("file_id") is not None:
                raise UnsupportedFieldError(part.at("file_id"))
            detail = part.text_or_none("detail")
            return Image(source_of_url(part.text("image_url")), None if detail == "auto" else detail)
        case "input_file":
            if part.text_or_none("file_id") is not None:
                raise UnsupportedFieldError(part.at("file_id"))
            url = part.text_or_none("file_url")
            source = Remote(url) if url is not None else source_of_url(part.text("file_data"))
            return Document(source, part.text_or_none("filename"))
        case "input_audio":
            audio = part.object("input_audio")
            return Audio(audio.text("format"), audio.text("data"))
        case _:
            raise UnsupportedFieldError(part.at("type"))


def _result_parts(item: Fields) -> tuple[ResultPart, ...]:
    found: list[ResultPart] = []
    for part in _user_parts(item, "output"):
        if not isinstance(part, Text | Image | Document):
            raise UnsupportedFieldError(item.at("output"))
        found.append(part)
    return tuple(found)


def _model_parts(item: Fields) -> list[ModelPart]:
    content = item.raw("content")
    if content is None or isinstance(content, str):
        return [Text(content)] if content else []
    found: list[ModelPart] = []
    for part in item.objects("content"):
        match part.text("type"):
            case "output_text" | "input_text":
                found.append(Text(part.text("text")))
            case "refusal":
                found.append(Refusal(part.text("refusal")))
            case _:
                raise UnsupportedFieldError(part.at("type"))
    return found


def _tool(tool: Fields, dropped: list[str]) -> Tool | None:
    match tool.text("type"):
        case "function":
            schema = tool.object_or_none("parameters")
            found = Tool(
                tool.text("name"),
                tool.text_or_none("description"),
                {"type": "object", "properties": {}} if schema is None else schema.value,
                strict=tool.flag("strict"),
            )
        case "custom":
            # The grammar of its text, if there is one, can only be told in words.
            grammar = tool.object_or_none("format")
            definition = None if grammar is None else grammar.text_or_none("definition")
            words = (tool.text_or_none("description"), definition)
            described = "\n\n".join(each for each in words if each) or None
            found = Tool(tool.text("name"), described, FREEFORM_SCHEMA, freeform=True)
        case _:
            # A tool that OpenAI runs itself.
            dropped.append(tool.path)
            return None
    dropped.extend(tool.unread())
    return found


def _choice(fields: Fields) -> Choice | Named | None:
    value = fields.raw("tool_choice")
    if value is None:
        return None
    if isinstance(value, str):
        if value not in _CHOICES:
            raise UnsupportedFieldError("tool_choice")
        return _CHOICES[value]
    choice = fields.object("tool_choice")
    if choice.text("type") not in {"function", "custom"}:
        raise UnsupportedFieldError(choice.at("type"))
    return Named(choice.text("name"))


def _reasoning(reasoning: Fields | None) -> Reasoning | None:
    if reasoning is None:
        return None
    effort = reasoning.text_or_none("effort")
    for name in ("summary", "generate_summary"):
        # How much is told of the thinking is the provider's to say.
        reasoning.text_or_none(name)
    if effort is None:
        return None
    if effort not in set(Effort):
        raise UnsupportedFieldError("reasoning.effort")
    return Reasoning(effort=Effort(effort))


def _format(format_: Fields | None) -> JsonAnswer | None:
    if format_ is None:
        return None
    match format_.text("type"):
        case "text":
            return None
        case "json_object":
            return JsonAnswer()
        case "json_schema":
            return JsonAnswer(format_.object("schema").value, format_.text("name"), format_.flag("strict"))
        case _:
            raise UnsupportedFieldError(format_.at("type"))


def _tier(fields: Fields) -> Tier | None:
    value = fields.text_or_none("service_tier")
    if value is None:
        return None
    if value not in _TIERS:
        raise UnsupportedFieldError("service_tier")
    return _TIERS[value]
