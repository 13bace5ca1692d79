"""LiteLLM as a client, of chat and of Anthropic's messages."""

from typing import Any

import litellm
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

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPT}]
WEATHER = [{"role": "user", "content": "How is the weather in Bonn?"}]
BASES = {"openai": f"{GATEWAY}/v1", "anthropic": GATEWAY, "gemini": f"{GATEWAY}/v1beta"}
"""Where it finds the gateway as one of its own providers."""


def ask(style: str, model: str, messages: list[Any], key: str = KEY, **fields: Any) -> Any:
    return litellm.completion(f"{style}/{model}", messages, api_base=BASES[style], api_key=key, **fields)


def told(call: str, model: str, usage: Any, *, said: bool) -> None:
    details = usage.prompt_tokens_details
    cached = (details.cached_tokens if details else None) or 0
    answered(call, model, read=usage.prompt_tokens - cached, cached=cached, written=usage.completion_tokens, said=said)


def conversation(style: str, model: str) -> None:
    answer = ask(style, model, HELLO, max_tokens=50)
    told(f"{style}", model, answer.usage, said=bool(answer.choices[0].message.content))

    text, usage = "", None
    for chunk in ask(style, model, HELLO, stream=True, stream_options={"include_usage": True}):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = getattr(chunk, "usage", None) or usage
    told(f"{style} stream", model, usage, said=bool(text))

    asked: list[Any] = list(WEATHER)
    called = ask(style, model, asked, tools=[TOOL], tool_choice="required")
    [call] = called.choices[0].message.tool_calls
    told(f"{style} tool", model, called.usage, said=call.function.name == "weather")
    asked += [called.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    again = ask(style, model, asked, tools=[TOOL])
    told(f"{style} tool result", model, again.usage, said=again.choices[0].finish_reason == "stop")


def main() -> None:
    for style in BASES:
        for model in MODELS.values():
            conversation(style, model)
    found = litellm.embedding(f"openai/{EMBEDDING_MODEL}", ["one", "two"], api_base=BASES["openai"], api_key=KEY)
    assert found.usage is not None
    answered(
        "embeddings", EMBEDDING_MODEL, read=found.usage.prompt_tokens, cached=0, written=0, said=len(found.data) == 2
    )
    refused("unknown key", lambda: ask("openai", MODELS["openai"], HELLO, UNKNOWN_KEY))
    refused("no money", lambda: ask("openai", MODELS["openai"], HELLO, EMPTY_KEY))
    refused("no model", lambda: ask("openai", NO_MODEL, HELLO))


main()
