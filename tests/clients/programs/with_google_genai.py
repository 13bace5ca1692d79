"""The official Google client for Python."""

from functools import partial

from google.genai import Client
from google.genai.types import (
    GenerateContentConfig,
    GenerateContentResponse,
    GenerateContentResponseUsageMetadata,
    HttpOptions,
    Part,
)
from pydantic import BaseModel
from telling import EMPTY_KEY, GATEWAY, KEY, MODELS, NO_MODEL, PROMPT, UNKNOWN_KEY, answered, refused

PICTURE = bytes(range(256))
"""No picture, but bytes that the two alphabets of base64 write in different ways."""


class Planet(BaseModel):
    """What is asked for as JSON."""

    name: str
    moons: int


def client_of(key: str) -> Client:
    return Client(api_key=key, http_options=HttpOptions(base_url=GATEWAY))


def told(call: str, model: str, usage: GenerateContentResponseUsageMetadata | None, *, said: bool) -> None:
    assert usage is not None
    read, cached = usage.prompt_token_count or 0, usage.cached_content_token_count or 0
    written = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
    assert usage.total_token_count == read + written
    answered(call, model, read=read - cached, cached=cached, written=written, said=said)


def generates(client: Client, model: str) -> None:
    config = GenerateContentConfig(system_instruction="Be brief.", temperature=0.5, max_output_tokens=50)
    answer = client.models.generate_content(model=model, contents=PROMPT, config=config)
    told("generate", model, answer.usage_metadata, said=bool(answer.text))

    chunks = list(client.models.generate_content_stream(model=model, contents=PROMPT, config=config))
    text = "".join(chunk.text or "" for chunk in chunks)
    told("generate stream", model, chunks[-1].usage_metadata, said=bool(text) and len(chunks) > 5)

    picture = Part.from_bytes(data=PICTURE, mime_type="image/png")
    seen = client.models.generate_content(model=model, contents=[picture, PROMPT])
    told("picture", model, seen.usage_metadata, said=bool(seen.text))

    config = GenerateContentConfig(response_mime_type="application/json", response_schema=Planet)
    parsed = client.models.generate_content(model=model, contents="A planet.", config=config)
    told("schema", model, parsed.usage_metadata, said=isinstance(parsed.parsed, Planet))


def calls(client: Client, model: str) -> None:
    """The client calls the function by itself and asks again, so there are two requests."""
    asked: list[str] = []

    def weather(city: str) -> str:
        """Tells the weather of a city."""
        asked.append(city)
        return "rain"

    answer = client.models.generate_content(
        model=model, contents="How is the weather in Bonn?", config=GenerateContentConfig(tools=[weather])
    )
    assert len(asked) == 1
    told_twice(model, answer)


def told_twice(model: str, answer: GenerateContentResponse) -> None:
    # Of the first of them the client keeps no usage: it is what the ledger says, and nothing else is asked of it.
    answered("function", model, read=-1, cached=-1, written=-1, said=True)
    told("function result", model, answer.usage_metadata, said=bool(answer.text))


def refusals() -> None:
    for call, key, model in (
        ("unknown key", UNKNOWN_KEY, MODELS["gemini"]),
        ("no money", EMPTY_KEY, MODELS["gemini"]),
        ("no model", KEY, NO_MODEL),
    ):
        # Once nobody holds it, it is closed.
        client = client_of(key)
        refused(call, partial(client.models.generate_content, model=model, contents=PROMPT))


def main() -> None:
    client = client_of(KEY)
    for model in MODELS.values():
        generates(client, model)
        calls(client, model)
    refusals()


main()
