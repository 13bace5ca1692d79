"""The official Anthropic client for Python, with its own retries."""

from functools import partial

from anthropic import Anthropic
from anthropic.types import Message, MessageParam, ToolParam, Usage
from telling import EMPTY_KEY, GATEWAY, KEY, MODELS, NO_MODEL, PROMPT, UNKNOWN_KEY, answered, refused

TOOL: ToolParam = {
    "name": "weather",
    "description": "Tells the weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
HELLO: list[MessageParam] = [{"role": "user", "content": PROMPT}]
WEATHER: list[MessageParam] = [{"role": "user", "content": "How is the weather in Bonn?"}]


def client_of(key: str) -> Anthropic:
    return Anthropic(base_url=GATEWAY, api_key=key)


def told(call: str, model: str, usage: Usage, *, said: bool) -> None:
    cached = usage.cache_read_input_tokens or 0
    answered(call, model, read=usage.input_tokens, cached=cached, written=usage.output_tokens, said=said)


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def messages(client: Anthropic, model: str) -> None:
    answer = client.messages.create(
        model=model, max_tokens=50, system=[{"type": "text", "text": "Be brief."}], messages=HELLO
    )
    told("message", model, answer.usage, said=bool(text_of(answer)) and answer.stop_reason == "end_turn")

    with client.messages.stream(model=model, max_tokens=50, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        whole = stream.get_final_message()
    told("message stream", model, whole.usage, said=bool(text) and text == text_of(whole))


def tools(client: Anthropic, model: str) -> None:
    asked = list(WEATHER)
    answer = client.messages.create(
        model=model, max_tokens=200, messages=asked, tools=[TOOL], tool_choice={"type": "any"}
    )
    [call] = [block for block in answer.content if block.type == "tool_use"]
    told("tool", model, answer.usage, said=call.name == "weather" and answer.stop_reason == "tool_use")

    result: MessageParam = {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "rain"}],
    }
    asked += [{"role": "assistant", "content": answer.content}, result]
    again = client.messages.create(model=model, max_tokens=50, messages=asked, tools=[TOOL])
    told("tool result", model, again.usage, said=again.stop_reason == "end_turn")

    with client.messages.stream(
        model=model, max_tokens=200, messages=WEATHER, tools=[TOOL], tool_choice={"type": "any"}
    ) as stream:
        whole = stream.get_final_message()
    [streamed] = [block for block in whole.content if block.type == "tool_use"]
    told("tool stream", model, whole.usage, said="city" in streamed.input)


def refusals() -> None:
    for call, key, model in (
        ("unknown key", UNKNOWN_KEY, MODELS["anthropic"]),
        ("no money", EMPTY_KEY, MODELS["anthropic"]),
        ("no model", KEY, NO_MODEL),
    ):
        refused(call, partial(client_of(key).messages.create, model=model, max_tokens=9, messages=HELLO))


def main() -> None:
    client = client_of(KEY)
    for model in MODELS.values():
        messages(client, model)
        tools(client, model)
    counted = client.messages.count_tokens(model=MODELS["anthropic"], messages=HELLO)
    answered("count", MODELS["anthropic"], read=0, cached=0, written=0, said=counted.input_tokens > 0)
    refusals()


main()
