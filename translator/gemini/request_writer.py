"""A conversation as a request for Gemini's generateContent. Pure.

Source: Google's API reference (generateContent, function calling, thinking, thought signatures, structured output).
"""

import mimetypes
from collections.abc import Mapping
from typing import Final, TypeGuard, assert_never
from urllib.parse import urlsplit

from gateway_core.endpoints import Dialect
from translator.conversation import (
    Choice,
    Conversation,
    Effort,
    JsonAnswer,
    ModelTurn,
    Named,
    Reasoning,
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
    Seal,
    Source,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    UserPart,
)
from translator.thinking_budget import budget_of

_READ_WITH_OUR_KEY: Final = (".googleapis.com", ".google.com", ".googleusercontent.com")
STOPS_MAX: Final = 5
_BUDGET_OF: Final = 8192
"""The bound a budget is a share of, where an answer has none."""
_BUDGET_MAX: Final = 24576
_CHOICES: Final[Mapping[Choice, str]] = {Choice.AUTO: "AUTO", Choice.ANY: "ANY", Choice.NONE: "NONE"}


def write_request(conversation: Conversation, lost: set[Feature]) -> JsonObject:
    """The body; the model and the wish for a stream are in the path.

    Args:
        conversation: what it says.
        lost: is given what is left out.

    Raises:
        InexpressibleError: it cannot be said, and leaving it out would change the answer.
    """
    turns = merged(list(conversation.turns))
    names = {
        part.id: part.name
        for turn in turns
        if isinstance(turn, ModelTurn)
        for part in turn.parts
        if isinstance(part, ToolCall)
    }
    contents = [_content(turn, names, lost) for turn in turns]
    # Gemini refuses one without parts.
    body: JsonObject = {"contents": [content for content in contents if content["parts"]]}
    if system := [_said(part.text) for part in conversation.system if part.text]:
        body["systemInstruction"] = {"parts": system}
    if conversation.tools:
        body["tools"] = [{"functionDeclarations": [_tool(tool, lost) for tool in conversation.tools]}]
        if conversation.choice is not None:
            body["toolConfig"] = {"functionCallingConfig": _choice(conversation.choice)}
        if conversation.parallel_calls is False:
            lost.add(Feature.PARALLEL_CALLS)
    if config := _config(conversation, lost):
        body["generationConfig"] = config
    if conversation.end_user is not None:
        lost.add(Feature.END_USER)
    return body


def _content(turn: Turn, names: Mapping[str, str], lost: set[Feature]) -> JsonObject:
    parts: list[Json]
    if isinstance(turn, UserTurn):
        parts = [each for part in turn.parts for each in _user_part(part, names, lost)]
        return {"role": "user", "parts": parts}
    parts = [each for part in turn.parts for each in _model_part(part, lost)]
    return {"role": "model", "parts": parts}


def _said(text: str) -> Json:
    return {"text": text}


def _user_part(part: UserPart, names: Mapping[str, str], lost: set[Feature]) -> list[Json]:
    if getattr(part, "cache", None) is not None:
        lost.add(Feature.CACHE)
    match part:
        case Text():
            return [_said(part.text)]
        case Image():
            if part.detail is not None:
                lost.add(Feature.IMAGE_DETAIL)
            return [_data(part.source, "image/jpeg", Feature.IMAGE_URL)]
        case Document():
            return [_data(part.source, "application/pdf", Feature.DOCUMENT_URL)]
        case Audio():
            return [{"inlineData": {"mimeType": f"audio/{part.format}", "data": part.data}}]
        case ToolResult():
            said = "\n".join(inner.text for inner in part.parts if isinstance(inner, Text))
            answer: JsonObject = {
                "name": names.get(part.call_id, part.call_id),
                "response": {"error" if part.is_error else "output": said},
            }
            shown = [inner for inner in part.parts if not isinstance(inner, Text)]
            return [
                {"functionResponse": answer},
                *(each for inner in shown for each in _user_part(inner, names, lost)),
            ]
        case _:
            assert_never(part)


def _model_part(part: ModelPart, lost: set[Feature]) -> list[Json]:
    match part:
        case Text() | Refusal():
            return [_said(part.text)] if part.text else []
        case Thinking():
            lost.add(Feature.THINKING)
            return []
        case ToolCall():
            if (arguments := part.arguments_object()) is None:
                raise InexpressibleError(Feature.ARGUMENTS)
            call: JsonObject = {"functionCall": {"name": part.name, "args": arguments}}
            if _is_ours(part.seal):
                call["thoughtSignature"] = part.seal.data
            return [call]
        case _:
            assert_never(part)


def _is_ours(seal: Seal | None) -> TypeGuard[Seal]:
    return seal is not None and seal.maker is Dialect.GEMINI


def _data(source: Source, usual: str, feature: Feature) -> Json:
    if isinstance(source, Inline):
        return {"inlineData": {"mimeType": source.media_type, "data": source.data}}
    if not _is_public(source.url):
        raise InexpressibleError(feature)
    guessed, _ = mimetypes.guess_type(source.url.partition("?")[0])
    return {"fileData": {"mimeType": guessed or usual, "fileUri": source.url}}


def _is_public(url: str) -> bool:
    """Whether anybody could read it. A name at Google, and any other scheme, is read with the provider's credential: those files are not the client's."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        return False
    return parts.scheme == "https" and bool(host) and not f".{host}".endswith(_READ_WITH_OUR_KEY)


def _tool(tool: Tool, lost: set[Feature]) -> Json:
    if tool.strict:
        lost.add(Feature.STRICT_TOOLS)
    if tool.cache is not None:
        lost.add(Feature.CACHE)
    found: JsonObject = {"name": tool.name, "parametersJsonSchema": tool.schema}
    if tool.description is not None:
        found["description"] = tool.description
    return found


def _choice(choice: Choice | Named) -> JsonObject:
    if isinstance(choice, Named):
        return {"mode": "ANY", "allowedFunctionNames": [choice.name]}
    return {"mode": _CHOICES[choice]}


def _config(conversation: Conversation, lost: set[Feature]) -> JsonObject:
    sampling = conversation.sampling
    if len(sampling.stops) > STOPS_MAX:
        raise InexpressibleError(Feature.STOPS)
    values = (
        ("maxOutputTokens", sampling.max_tokens),
        ("temperature", sampling.temperature),
        ("topP", sampling.top_p),
        ("topK", sampling.top_k),
        ("seed", sampling.seed),
        ("presencePenalty", sampling.presence_penalty),
        ("frequencyPenalty", sampling.frequency_penalty),
    )
    config: JsonObject = {name: value for name, value in values if value is not None}
    if sampling.stops:
        config["stopSequences"] = list(sampling.stops)
    if conversation.format is not None:
        config |= _format(conversation.format)
    if conversation.reasoning is not None and (
        thinking := _thinking(conversation.reasoning, sampling.max_tokens, lost)
    ):
        config["thinkingConfig"] = thinking
    return config


def _format(answer: JsonAnswer) -> JsonObject:
    found: JsonObject = {"responseMimeType": "application/json"}
    if answer.schema is not None:
        found["responseJsonSchema"] = answer.schema
    return found


def _thinking(reasoning: Reasoning, max_tokens: int | None, lost: set[Feature]) -> JsonObject:
    if reasoning.is_off:
        return {"thinkingBudget": 0}
    budget = reasoning.budget_tokens
    if budget is None and reasoning.effort is not None and reasoning.effort is not Effort.NONE:
        budget = budget_of(reasoning.effort, max_tokens or _BUDGET_OF)
        if budget is None:
            lost.add(Feature.REASONING)
            return {}
    found: JsonObject = {"includeThoughts": True}
    if budget is not None:
        found["thinkingBudget"] = min(budget, _BUDGET_MAX)
    return found
