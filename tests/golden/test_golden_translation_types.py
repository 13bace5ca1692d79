"""The types of the official SDKs take every answer that the golden files of translations have, strictly.

The SDKs themselves take anything; a field that is missing is found only by whoever looks at it. Google's, whose types are strict by themselves, is
installed where `tests/clients` run, and reads its answers there.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

FOLDER = Path(__file__).parent / "translation" / "expected"
WHOLE: dict[str, type[BaseModel]] = {"chat": ChatCompletion, "messages": Message, "responses": Response}
EVENTS: dict[str, TypeAdapter[Any]] = {
    "chat": TypeAdapter(ChatCompletionChunk),
    "messages": TypeAdapter(RawMessageStreamEvent),
    "responses": TypeAdapter(ResponseStreamEvent),
}


def client_of(path: Path) -> str:
    return path.parts[-3].split("-")[0]


def found(suffix: str) -> list[object]:
    paths = sorted(FOLDER.glob(f"*/answers/*{suffix}"))
    return [pytest.param(path, id=f"{path.parts[-3]}-{path.stem}") for path in paths if client_of(path) in WHOLE]


@pytest.mark.parametrize("path", found(".json"))
def test_a_whole_answer_is_of_the_sdks_type(path: Path) -> None:
    client = client_of(path)
    answer = json.loads(path.read_text(encoding="utf-8"))
    if client == "messages":
        # Without a count of the provider there is none.
        answer.setdefault("usage", {"input_tokens": 0, "output_tokens": 0})
        # A tier is its provider's word, and Anthropic has not all of them.
        answer["usage"].pop("service_tier", None)
    WHOLE[client].model_validate(answer)


@pytest.mark.parametrize("path", found(".sse"))
def test_every_event_of_a_stream_is_of_the_sdks_type(path: Path) -> None:
    client = client_of(path)
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("data: ")]
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line != "data: [DONE]"]
    assert events
    for event in events:
        if "error" not in event:
            EVENTS[client].validate_python(event)
