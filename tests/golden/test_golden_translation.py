"""Every request and every answer in `translation/`, from one dialect into another, word for word.

The inputs are made after the providers' documentation: `requests/<client's dialect>/` and `answers/<provider's dialect>/`. What
becomes of them in each pair is in `expected/`; `--update-golden` writes that anew; read the diff.
"""

import json
from pathlib import Path

import pytest

from gateway_core.endpoints import Dialect
from translator.json_values import Json, parse_object
from translator.translation import Request, UntranslatableError, translate_request

FOLDER = Path(__file__).parent / "translation"
DIALECTS = {
    "chat": Dialect.OPENAI,
    "messages": Dialect.ANTHROPIC,
    "gemini": Dialect.GEMINI,
    "responses": Dialect.RESPONSES,
}
PAIRS = (
    ("chat", "messages"),
    ("chat", "gemini"),
    ("messages", "chat"),
    ("responses", "chat"),
    ("responses", "messages"),
    ("messages", "gemini"),
    ("responses", "gemini"),
    ("gemini", "chat"),
    ("gemini", "messages"),
)
PATHS = {
    "chat": "/base/chat/completions",
    "messages": "/base/messages",
    "gemini": "/base/models/gemini-x:generateContent",
}
REQUESTS = [
    pytest.param(client, provider, path, id=f"{client}-{provider}-{path.stem}")
    for client, provider in PAIRS
    for path in sorted((FOLDER / "requests" / client).iterdir())
]


def answers(suffix: str) -> list[object]:
    return [
        pytest.param(client, provider, path, id=f"{client}-{provider}-{path.stem}")
        for client, provider in PAIRS
        for path in sorted((FOLDER / "answers" / provider).glob(f"*{suffix}"))
    ]


class Calls:
    """Names for calls that have none."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> str:
        self.made += 1
        return f"call_{self.made}"


def translated(client: str, provider: str, body: bytes, calls: Calls) -> Request:
    told = "?stream_generate=their-model" if client == "gemini" else ""
    return translate_request(
        body, PATHS[provider] + told, DIALECTS[client], DIALECTS[provider], now_s=1_700_000_000, new_call_id=calls
    )


def asked(client: str, provider: str, calls: Calls) -> Request:
    """The request that the answers belong to: it has their tools."""
    name = "tools" if client in {"chat", "gemini"} else "agent"
    return translated(client, provider, (FOLDER / "requests" / client / f"{name}.json").read_bytes(), calls)


def same(path: Path, found: str, *, update: bool) -> None:
    if update:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found, encoding="utf-8", newline="")
    assert found == path.read_bytes().decode()


def pretty(value: Json) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


@pytest.mark.parametrize(("client", "provider", "path"), REQUESTS)
def test_a_request_becomes_exactly_that_of_its_golden_file(
    client: str, provider: str, path: Path, request: pytest.FixtureRequest
) -> None:
    found: dict[str, Json]
    try:
        made = translated(client, provider, path.read_bytes(), Calls())
    except UntranslatableError as error:
        found = {"refused": parse_object(error.body)}
    else:
        found = {"path": made.path, "dropped": list(made.dropped), "body": parse_object(made.body)}
    same(
        FOLDER / "expected" / f"{client}-{provider}" / "requests" / path.name,
        pretty(found),
        update=request.config.getoption("--update-golden"),
    )


@pytest.mark.parametrize(("client", "provider", "path"), answers(".json"))
def test_a_whole_answer_becomes_exactly_that_of_its_golden_file(
    client: str, provider: str, path: Path, request: pytest.FixtureRequest
) -> None:
    found = asked(client, provider, Calls()).answer.whole(path.read_bytes())
    same(
        FOLDER / "expected" / f"{client}-{provider}" / "answers" / path.name,
        pretty(parse_object(found)),
        update=request.config.getoption("--update-golden"),
    )


@pytest.mark.parametrize(("client", "provider", "path"), answers(".sse"))
def test_a_stream_becomes_exactly_that_of_its_golden_file_wherever_it_is_cut(
    client: str, provider: str, path: Path, request: pytest.FixtureRequest
) -> None:
    stream, calls = path.read_bytes(), Calls()
    made = asked(client, provider, calls)

    def fed(*pieces: bytes) -> bytes:
        calls.made = 0
        answer = made.answer.stream()
        return b"".join([*(answer.feed(piece) for piece in pieces), answer.end()])

    whole = fed(stream)
    same(
        FOLDER / "expected" / f"{client}-{provider}" / "answers" / path.name,
        whole.decode(),
        update=request.config.getoption("--update-golden"),
    )
    assert fed(*(stream[i : i + 1] for i in range(len(stream)))) == whole
    for cut in range(len(stream)):
        assert fed(stream[:cut], stream[cut:]) == whole, cut
    for line_end in (b"\r\n", b"\r"):
        assert fed(stream.replace(b"\r\n", b"\n").replace(b"\n", line_end)) == whole


def test_every_expected_file_has_its_input() -> None:
    for path in FOLDER.glob("expected/*/*/*"):
        client, provider = path.parts[-3].split("-")
        assert (FOLDER / path.parts[-2] / (client if path.parts[-2] == "requests" else provider) / path.name).exists()
