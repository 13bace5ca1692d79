"""A chat request and its answer as nouns that no dialect owns. Pure.

The dialects read their JSON into a `ChatRequest` and write an `Answer` as theirs; `compose` stands between.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto

from simulator.knobs import take_directives
from simulator.refusal import RefusalError
from simulator.words import ATTACHMENT_TOKENS, MESSAGE_TOKENS, count_tokens, fingerprint

JsonObject = dict[str, object]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation, or the instructions before it."""

    text: str
    """All that is said in it, tool calls and tool results as JSON included."""
    attachments: int = 0
    """Images, sounds and files."""
    from_user: bool = False
    """Whether a person wrote it. A message of nothing but tool results is not a person's."""

    @property
    def tokens(self) -> int:
        """What it costs as part of a prompt."""
        return count_tokens(self.text) + ATTACHMENT_TOKENS * self.attachments + MESSAGE_TOKENS


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call."""

    name: str
    schema: JsonObject
    text: str
    """The whole definition, as counted in the prompt."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a client asks for."""

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    call: Tool | None = None
    """The tool the reply must call; None for a reply in text."""
    json_schema: JsonObject | None = None
    """What the text must fit as JSON; None for prose."""
    output_tokens_max: int | None = None
    stops: tuple[str, ...] = ()
    choices: int = 1
    stream: bool = False
    stream_usage: bool = True
    """Whether a stream reports usage; only OpenAI lets the client decide."""

    @property
    def input_tokens(self) -> int:
        """All tokens of the prompt, tool definitions included."""
        return sum(message.tokens for message in self.messages) + sum(count_tokens(tool.text) for tool in self.tools)

    @property
    def seed(self) -> str:
        """Fingerprint of the conversation. Not of the model, so that a renamed one says the same words."""
        return fingerprint(message.text for message in self.messages)


class Ending(Enum):
    """Why a reply ended."""

    STOP = auto()
    STOP_SEQUENCE = auto()
    LENGTH = auto()
    TOOL_CALL = auto()


@dataclass(frozen=True, slots=True)
class Reply:
    """One choice of an answer."""

    pieces: tuple[str, ...]
    """One token each: of the text or, when a tool is called, of its arguments as JSON."""
    ending: Ending
    tool: str | None = None
    stop_sequence: str | None = None

    @property
    def text(self) -> str:
        """All pieces together."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts of one answer over all its replies; the parts are inside their wholes."""

    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int


@dataclass(frozen=True, slots=True)
class Stamp:
    """What marks one exchange: a digest of the request, from which all ids come, and the moment."""

    digest: str
    at: datetime

    def id(self, prefix: str, length: int, *, of: object = "") -> str:
        """An id such as `msg_01ab...`: the prefix and that many hex digits, at most 64."""
        return prefix + fingerprint((self.digest, prefix, str(of)))[:length]


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything a dialect needs to write the response."""

    model: str
    replies: tuple[Reply, ...]
    usage: Usage
    stamp: Stamp
    report_usage: bool = True
    """False for an answer that keeps its usage to itself."""
    stream_usage: bool = True


def without_directives(request: ChatRequest) -> tuple[ChatRequest, str]:
    """The request as a person meant it, and the knobs it sets.

    Directives of earlier turns, which a chat sends again as history, are taken out but not obeyed.
    """
    directives = ""
    messages = []
    for message in request.messages:
        said = message
        if message.from_user:
            text, directives = take_directives(message.text)
            said = replace(message, text=text)
        messages.append(said)
    return replace(request, messages=tuple(messages)), directives


def tool_to_call(tools: Sequence[Tool], name: str | None = None) -> Tool | None:
    """The tool of that name, or the first one.

    Raises:
        RefusalError: a name that no tool has.
    """
    if name is None:
        return tools[0] if tools else None
    for tool in tools:
        if tool.name == name:
            return tool
    raise RefusalError(400, f"Tool '{name}' is not among the tools of the request.", param="tool_choice")
