"""LangChain's client for OpenAI, with its own retries."""

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr
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
    """A planet."""

    name: str
    moons: int


@tool
def weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"rain in {city}"


def chat_of(model: str, key: str = KEY) -> ChatOpenAI:
    return ChatOpenAI(model=model, base_url=f"{GATEWAY}/v1", api_key=SecretStr(key), stream_usage=True)


def told(call: str, model: str, answer: BaseMessage, *, said: bool) -> None:
    assert isinstance(answer, AIMessage)
    usage = answer.usage_metadata
    assert usage is not None
    cached = usage.get("input_token_details", {}).get("cache_read", 0)
    answered(call, model, read=usage["input_tokens"] - cached, cached=cached, written=usage["output_tokens"], said=said)


def chats(model: str) -> None:
    chat = chat_of(model)
    answer = chat.invoke([("system", "Be brief."), ("user", PROMPT)])
    told("chat", model, answer, said=bool(answer.text))

    whole: BaseMessage | None = None
    for chunk in chat.stream([("system", "Be brief."), ("user", PROMPT)]):
        assert isinstance(chunk, AIMessageChunk)
        whole = chunk if whole is None else whole + chunk  # type: ignore[assignment]  # chunks add up to one
    assert whole is not None
    told("chat stream", model, whole, said=bool(whole.text))

    found = chat.with_structured_output(Planet, include_raw=True).invoke("A planet.")
    assert isinstance(found, dict)
    told("chat schema", model, found["raw"], said=isinstance(found["parsed"], Planet))


def tools(model: str) -> None:
    asked: list[BaseMessage] = [HumanMessage("How is the weather in Bonn?")]
    chat = chat_of(model)
    answer = chat.bind_tools([weather], tool_choice="any").invoke(asked)
    [call] = answer.tool_calls
    told("tool", model, answer, said=call["name"] == "weather" and "city" in call["args"])

    result = weather.invoke(call)
    assert isinstance(result, ToolMessage)
    again = chat.bind_tools([weather]).invoke([*asked, answer, result])
    told("tool result", model, again, said=bool(again.text))


def main() -> None:
    for model in MODELS.values():
        chats(model)
        tools(model)
    # Otherwise it would cut the text into OpenAI's tokens, for which it has to fetch their list.
    embeddings = OpenAIEmbeddings(
        model=EMBEDDING_MODEL,
        openai_api_base=f"{GATEWAY}/v1",
        openai_api_key=SecretStr(KEY),
        check_embedding_ctx_length=False,
    )
    found = embeddings.embed_documents(["one", "two"])
    answered("embeddings", EMBEDDING_MODEL, read=-1, cached=-1, written=-1, said=len(found) == 2)
    refused("unknown key", lambda: chat_of(MODELS["openai"], UNKNOWN_KEY).invoke(PROMPT))
    refused("no money", lambda: chat_of(MODELS["openai"], EMPTY_KEY).invoke(PROMPT))
    refused("no model", lambda: chat_of(NO_MODEL).invoke(PROMPT))


main()
