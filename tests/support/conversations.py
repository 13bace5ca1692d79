"""Conversations drawn at random, as far as a dialect can say them."""

import base64
import json
from collections.abc import Mapping

from hypothesis import strategies as st

from gateway_core.endpoints import Dialect
from translator.conversation import (
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
    UserTurn,
)
from translator.json_values import JsonObject
from translator.parts import (
    Document,
    Image,
    Inline,
    ModelPart,
    Remote,
    ResultPart,
    Seal,
    SealKind,
    Source,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    UserPart,
)

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
NAMES = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
_INLINE = st.binary(max_size=9).map(lambda data: base64.b64encode(data).decode())
_URLS = st.sampled_from(["https://example.com/a.png", "https://example.com/b?c=d"])
JSON_OBJECTS: st.SearchStrategy[JsonObject] = st.dictionaries(
    NAMES, st.recursive(st.none() | st.booleans() | st.integers() | WORDS, lambda inner: st.lists(inner, max_size=3))
)

_REASONINGS: Mapping[Dialect, list[Reasoning | None]] = {
    Dialect.OPENAI: [Reasoning(effort=Effort.LOW), None],
    Dialect.ANTHROPIC: [None],
    Dialect.GEMINI: [Reasoning(budget_tokens=0), Reasoning(budget_tokens=1024), Reasoning(), None],
}
_STRICT: Mapping[Dialect, list[bool | None]] = {
    Dialect.OPENAI: [True, False, None],
    Dialect.ANTHROPIC: [True, None],
    Dialect.GEMINI: [None],
}


def _sources(kind: str) -> st.SearchStrategy[Source]:
    return _INLINE.map(lambda data: Inline(kind, data)) | _URLS.map(Remote)


def _calls(number: int) -> st.SearchStrategy[ToolCall]:
    arguments = JSON_OBJECTS.map(lambda value: json.dumps(value, separators=(",", ":"), ensure_ascii=False))
    return st.builds(ToolCall, st.just(f"call_{number}"), NAMES, arguments)


@st.composite
def conversations(draw: st.DrawFn, dialect: Dialect) -> Conversation:
    """A conversation that a dialect can say, in the one form in which it says it."""
    is_messages, is_gemini = dialect is Dialect.ANTHROPIC, dialect is Dialect.GEMINI
    texts = st.builds(Text, WORDS, st.just({"type": "ephemeral"}) | st.none() if is_messages else st.none())
    images: st.SearchStrategy[ResultPart] = st.builds(Image, _sources("image/png"))
    documents: st.SearchStrategy[ResultPart] = st.builds(
        Document,
        _sources("application/pdf") if is_messages else _INLINE.map(lambda data: Inline("application/pdf", data)),
        st.none() if is_gemini else WORDS if not is_messages else WORDS | st.none(),
    )
    seen: st.SearchStrategy[ResultPart] = texts | images | documents
    turns: list[UserTurn | ModelTurn] = []
    called = 0
    for _ in range(draw(st.integers(1, 3))):
        turns.append(
            UserTurn(
                (
                    *_results_of(draw, turns, texts if not is_messages else seen, can_fail=is_messages or is_gemini),
                    *draw(st.lists(seen, min_size=1, max_size=3)),
                )
            )
        )
        parts: list[ModelPart] = []
        if is_messages and draw(st.booleans()):
            kinds = st.sampled_from([SealKind.SIGNATURE, SealKind.WHOLE])
            kind = draw(kinds)
            thought = draw(WORDS) if kind is SealKind.SIGNATURE else ""
            parts.append(Thinking(thought, Seal(Dialect.ANTHROPIC, kind, draw(WORDS))))
        parts.append(draw(texts))
        calls = draw(st.lists(_calls(called + 1), max_size=1))
        called += len(calls)
        parts.extend(calls)
        turns.append(ModelTurn(tuple(parts)))
    tools = tuple(draw(st.lists(_tools(dialect), max_size=2, unique_by=lambda tool: tool.name)))
    choices: list[Choice | Named] = [Choice.AUTO, Choice.ANY, Choice.NONE, *(Named(tool.name) for tool in tools)]
    system = draw(st.lists(texts, max_size=2 if is_messages or is_gemini else 1))
    return Conversation(
        model="m",
        system=tuple(system),
        turns=tuple(turns),
        tools=tools,
        choice=draw(st.sampled_from(choices)) if tools else None,
        sampling=Sampling(
            max_tokens=draw(st.integers(2000, 9999)),
            temperature=draw(st.floats(0, 1) | st.none()),
            stops=tuple(draw(st.lists(NAMES, max_size=4))),
            seed=None if is_messages else draw(st.integers() | st.none()),
        ),
        reasoning=draw(st.sampled_from(_REASONINGS[dialect])),
        format=draw(
            st.builds(JsonAnswer, JSON_OBJECTS, st.just("answer"), st.just(None if is_gemini else True)) | st.none()
        ),
        tier=None if is_gemini else draw(st.sampled_from([Tier.STANDARD, None])),
        stream=draw(st.booleans()),
        end_user=None if is_gemini else draw(WORDS | st.none()),
    )


def _results_of(
    draw: st.DrawFn, turns: list[UserTurn | ModelTurn], parts: st.SearchStrategy[ResultPart], *, can_fail: bool
) -> list[UserPart]:
    last = turns[-1].parts if turns else ()
    calls = [part for part in last if isinstance(part, ToolCall)]
    return [
        ToolResult(
            call.id,
            tuple(draw(st.lists(parts, min_size=1, max_size=1))),
            is_error=draw(st.booleans()) if can_fail else False,
        )
        for call in calls
    ]


def _tools(dialect: Dialect) -> st.SearchStrategy[Tool]:
    return st.builds(Tool, NAMES, WORDS | st.none(), JSON_OBJECTS, st.sampled_from(_STRICT[dialect]))
