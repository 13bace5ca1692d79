"""A conversation as a chat completions request. Pure.

Source: OpenAI's API reference (chat completions); kept to what servers that imitate it take as well.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, assert_never

from gateway_core.endpoints import Dialect
from translator.conversation import (
    Choice,
    Conversation,
    Effort,
    JsonAnswer,
    ModelTurn,
    Named,
    Reasoning,
    Tier,
    Tool,
    Turn,
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
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    UserPart,
)
from translator.thinking_budget import effort_of

STOPS_MAX: Final = 4
_CHOICES: Final[Mapping[Choice, str]] = {Choice.AUTO: "auto", Choice.ANY: "required", Choice.NONE: "none"}
_TIERS: Final[Mapping[Tier, str]] = {Tier.ANY: "auto", Tier.STANDARD: "default"}


def write_request(conversation: Conversation, lost: set[Feature]) -> JsonObject:
    """The body.

    Args:
        conversation: what it says.
        lost: is given what is left out.

    Raises:
        InexpressibleError: it cannot be said, and leaving it out would change the answer.
    """
    messages: list[Json] = []
    if system := "\n\n".join(part.text for part in conversation.system if part.text):
        messages.append({"role": "system", "content": system})
    for turn in merged(list(conversation.turns)):
        messages.extend(_messages(turn, lost))
    body: JsonObject = {"model": conversation.model, "messages": messages}
    if conversation.tools:
        body["tools"] = [_tool(tool) for tool in conversation.tools]
        if conversation.choice is not None:
            body["tool_choice"] = _choice(conversation.choice)
        if conversation.parallel_calls is not None:
            body["parallel_tool_calls"] = conversation.parallel_calls
    body |= _sampling(conversation, lost)
    if (effort := _effort(conversation, lost)) is not None:
        body["reasoning_effort"] = effort
    if conversation.format is not None:
        body["response_format"] = _format(conversation.format)
    if conversation.end_user is not None:
        body["user"] = conversation.end_user
    if conversation.tier is not None:
        body["service_tier"] = _TIERS[conversation.tier]
    if conversation.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if _is_marked_for_cache(conversation):
        lost.add(Feature.CACHE)
    return body


def _messages(turn: Turn, lost: set[Feature]) -> Iterable[JsonObject]:
    if isinstance(turn, ModelTurn):
        message = _assistant(turn.parts, lost)
        if len(message) > len(("role", "content")) or message["content"] is not None:
            yield message
        return
    rest: list[UserPart] = []
    attached: list[UserPart] = []
    for part in turn.parts:
        if not isinstance(part, ToolResult):
            rest.append(part)
            continue
        if part.is_error:
            lost.add(Feature.TOOL_ERROR)
        said = "\n".join(inner.text for inner in part.parts if isinstance(inner, Text))
        yield {"role": "tool", "tool_call_id": part.call_id, "content": said}
        # A tool can answer in words only: what it shows comes in the name of the user, behind the words.
        attached.extend(inner for inner in part.parts if not isinstance(inner, Text))
    if content := [*attached, *rest]:
        yield {"role": "user", "content": _content(content)}


def _content(parts: Sequence[UserPart]) -> Json:
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    return [_user_part(part) for part in parts]


def _user_part(part: UserPart) -> JsonObject:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Image():
            source = part.source
            url = source.data_url if isinstance(source, Inline) else source.url
            image: JsonObject = {"url": url}
            if part.detail is not None:
                image["detail"] = part.detail
            return {"type": "image_url", "image_url": image}
        case Document():
            if isinstance(part.source, Remote):
                raise InexpressibleError(Feature.DOCUMENT_URL)
            name = part.name or "document.pdf"
            return {"type": "file", "file": {"filename": name, "file_data": part.source.data_url}}
        case Audio():
            return {"type": "input_audio", "input_audio": {"format": part.format, "data": part.data}}
        case ToolResult():
            raise AssertionError("results are messages of their own")
        case _:
            assert_never(part)


def _assistant(parts: Sequence[ModelPart], lost: set[Feature]) -> JsonObject:
    said = "".join(part.text for part in parts if isinstance(part, Text))
    refused = "".join(part.text for part in parts if isinstance(part, Refusal))
    if any(isinstance(part, Thinking) for part in parts):
        # Only who thought it could use it, and none of these servers takes it back.
        lost.add(Feature.THINKING)
    message: JsonObject = {"role": "assistant", "content": said or None}
    if refused:
        message["refusal"] = refused
    if calls := [_call(part) for part in parts if isinstance(part, ToolCall)]:
        message["tool_calls"] = calls
    return message


def _call(call: ToolCall) -> Json:
    arguments = call.arguments or "{}"
    found: JsonObject = {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }
    if call.seal is not None and call.seal.maker is Dialect.GEMINI:
        found["extra_content"] = {"google": {"thought_signature": call.seal.data}}
    return found


def _tool(tool: Tool) -> JsonObject:
    function: JsonObject = {"name": tool.name, "parameters": tool.schema}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _choice(choice: Choice | Named) -> Json:
    if isinstance(choice, Named):
        return {"type": "function", "function": {"name": choice.name}}
    return _CHOICES[choice]


def _sampling(conversation: Conversation, lost: set[Feature]) -> JsonObject:
    sampling = conversation.sampling
    if sampling.top_k is not None:
        lost.add(Feature.TOP_K)
    if len(sampling.stops) > STOPS_MAX:
        raise InexpressibleError(Feature.STOPS)
    values = (
        ("max_completion_tokens", sampling.max_tokens),
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
        ("seed", sampling.seed),
        ("presence_penalty", sampling.presence_penalty),
        ("frequency_penalty", sampling.frequency_penalty),
    )
    body: JsonObject = {name: value for name, value in values if value is not None}
    if sampling.stops:
        body["stop"] = list(sampling.stops)
    return body


def _effort(conversation: Conversation, lost: set[Feature]) -> str | None:
    reasoning: Reasoning | None = conversation.reasoning
    if reasoning is None:
        return None
    if reasoning.is_off:
        # There is a word for it that few models take; the others think or do not, whatever they are told.
        lost.add(Feature.REASONING)
        return None
    effort = reasoning.effort
    if reasoning.budget_tokens is not None:
        effort = effort_of(reasoning.budget_tokens, conversation.sampling.max_tokens)
    elif effort is Effort.XHIGH:
        lost.add(Feature.REASONING)
    return Effort.HIGH if effort is Effort.XHIGH else effort


def _format(answer: JsonAnswer) -> JsonObject:
    if answer.schema is None:
        return {"type": "json_object"}
    spec: JsonObject = {"name": answer.name, "schema": answer.schema}
    if answer.strict is not None:
        spec["strict"] = answer.strict
    return {"type": "json_schema", "json_schema": spec}


def _is_marked_for_cache(conversation: Conversation) -> bool:
    marked: list[JsonObject | None] = [
        *(part.cache for part in conversation.system),
        *(tool.cache for tool in conversation.tools),
    ]
    for turn in conversation.turns:
        marked.extend(part.cache for part in turn.parts if isinstance(part, Text | Image | Document | ToolResult))
    return any(each is not None for each in marked)
