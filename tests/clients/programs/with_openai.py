"""The official OpenAI client for Python, with its own retries."""

from functools import partial
from typing import Any

from openai import OpenAI
from openai.lib.streaming.chat import ChatCompletionStreamManager
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from openai.types.responses import Response
from pydantic import BaseModel
from telling import (
    EMBEDDING_MODEL,
    EMPTY_KEY,
    GATEWAY,
    KEY,
    MODELS,
    NO_MODEL,
    PROMPT,
    UNKNOWN_KEY,
    answered,
    refused,
)


class Planet(BaseModel):
    """What is asked for as JSON."""

    name: str
    moons: int


TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
HELLO: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": PROMPT},
]
WEATHER: list[ChatCompletionMessageParam] = [{"role": "user", "content": "How is the weather in Bonn?"}]


def client_of(key: str) -> OpenAI:
    return OpenAI(base_url=f"{GATEWAY}/v1", api_key=key)


def told(call: str, model: str, usage: CompletionUsage | None, *, said: bool) -> None:
    assert usage is not None
    details = usage.prompt_tokens_details
    cached = (details.cached_tokens if details else None) or 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    answered(call, model, read=usage.prompt_tokens - cached, cached=cached, written=usage.completion_tokens, said=said)


def told_of_response(call: str, model: str, response: Response) -> None:
    usage = response.usage
    assert usage is not None
    cached = usage.input_tokens_details.cached_tokens
    said = response.status == "completed" and bool(response.output_text)
    answered(call, model, read=usage.input_tokens - cached, cached=cached, written=usage.output_tokens, said=said)


def chats(client: OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=HELLO, temperature=0.5, max_tokens=50)
    told("chat", model, answer.usage, said=bool(answer.choices[0].message.content))

    text, usage = "", None
    for chunk in client.chat.completions.create(
        model=model, messages=HELLO, stream=True, stream_options={"include_usage": True}
    ):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    told("chat stream", model, usage, said=bool(text))

    parsed = client.chat.completions.parse(
        model=model, messages=[{"role": "user", "content": "A planet."}], response_format=Planet
    )
    told("chat schema", model, parsed.usage, said=parsed.choices[0].message.parsed is not None)


def tools(client: OpenAI, model: str) -> None:
    asked: list[Any] = list(WEATHER)
    answer = client.chat.completions.create(model=model, messages=asked, tools=[TOOL], tool_choice="required")
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    told("tool", model, answer.usage, said=call.function.name == "weather" and "city" in call.function.arguments)

    asked += [answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    again = client.chat.completions.create(model=model, messages=asked, tools=[TOOL])
    told("tool result", model, again.usage, said=again.choices[0].finish_reason == "stop")

    manager: ChatCompletionStreamManager[None] = client.chat.completions.stream(
        model=model, messages=WEATHER, tools=[TOOL], tool_choice="required", stream_options={"include_usage": True}
    )
    with manager as stream:
        whole = stream.get_final_completion()
    [streamed] = whole.choices[0].message.tool_calls or []
    told("tool stream", model, whole.usage, said=streamed.function.name == "weather")


def responses(client: OpenAI, model: str) -> None:
    told_of_response("response", model, client.responses.create(model=model, input=PROMPT, instructions="Be brief."))
    with client.responses.stream(model=model, input=PROMPT) as stream:
        told_of_response("response stream", model, stream.get_final_response())


def refusals() -> None:
    for call, key, model in (
        ("unknown key", UNKNOWN_KEY, MODELS["openai"]),
        ("no money", EMPTY_KEY, MODELS["openai"]),
        ("no model", KEY, NO_MODEL),
    ):
        refused(call, partial(client_of(key).chat.completions.create, model=model, messages=HELLO))


def main() -> None:
    client = client_of(KEY)
    for model in MODELS.values():
        chats(client, model)
        tools(client, model)
        responses(client, model)
    # As numbers in base64, which is what the client asks for unless it is told otherwise.
    found = client.embeddings.create(model=EMBEDDING_MODEL, input=["one", "two"])
    answered(
        "embeddings", EMBEDDING_MODEL, read=found.usage.prompt_tokens, cached=0, written=0, said=len(found.data) == 2
    )
    refusals()


main()
