"""A request, in no dialect: what each reader makes and each writer takes. Pure values.

Every dialect needs one reader and one writer, so the fourth costs two modules and not six. What only one pair could express is
kept where it does no harm to others (a seal names who takes it back); what no value here can hold, the reader itself refuses or
lists, in the client's own words.
"""

from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto

from translator.json_values import JsonObject
from translator.parts import ModelPart, Text, UserPart


@dataclass(frozen=True, slots=True)
class UserTurn:
    """What the client says, results of tools included."""

    parts: tuple[UserPart, ...]


@dataclass(frozen=True, slots=True)
class ModelTurn:
    """What the model said earlier, or the beginning it is to go on from."""

    parts: tuple[ModelPart, ...]


Turn = UserTurn | ModelTurn


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the client runs.

    Attributes:
        schema: JSON schema of its arguments.
        freeform: it takes one text instead of arguments; the schema then says so.
    """

    name: str
    description: str | None
    schema: JsonObject
    strict: bool | None = None
    freeform: bool = False
    cache: JsonObject | None = None


FREEFORM_FIELD = "input"
FREEFORM_SCHEMA: JsonObject = {
    "type": "object",
    "properties": {FREEFORM_FIELD: {"type": "string"}},
    "required": [FREEFORM_FIELD],
    "additionalProperties": False,
}
"""How a tool that takes a text is offered to an API that knows only arguments."""


class Choice(Enum):
    """Whether the model calls a tool."""

    AUTO = auto()
    ANY = auto()
    """It must call one."""
    NONE = auto()


@dataclass(frozen=True, slots=True)
class Named:
    """The model must call this tool."""

    name: str


class Effort(StrEnum):
    """How hard a model is to think, in OpenAI's words."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"


@dataclass(frozen=True, slots=True)
class Reasoning:
    """How much a model is to think. At most one of the two is there; with neither, as much as it likes."""

    effort: Effort | None = None
    budget_tokens: int | None = None

    @property
    def is_off(self) -> bool:
        """Whether it is not to think at all."""
        return self.effort is Effort.NONE or self.budget_tokens == 0


@dataclass(frozen=True, slots=True)
class JsonAnswer:
    """The answer is to be JSON; of this schema if there is one."""

    schema: JsonObject | None = None
    name: str = "answer"
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How words are drawn, and where the answer ends."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stops: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


class Tier(Enum):
    """Which service tier is asked for, as far as dialects agree on one."""

    ANY = auto()
    STANDARD = auto()


@dataclass(frozen=True, slots=True)
class Conversation:
    """A request.

    Attributes:
        system: what the model is told before the first turn; wherever in the request it stood.
        parallel_calls: whether it may call several tools at once; None for its default.
        end_user: who the client says is asking.
        dropped: fields that no value here holds and that can go, in the client's own words.
    """

    model: str
    system: tuple[Text, ...]
    turns: tuple[Turn, ...]
    tools: tuple[Tool, ...] = ()
    choice: Choice | Named | None = None
    parallel_calls: bool | None = None
    sampling: Sampling = Sampling()
    reasoning: Reasoning | None = None
    format: JsonAnswer | None = None
    tier: Tier | None = None
    stream: bool = False
    end_user: str | None = None
    dropped: tuple[str, ...] = field(default=())


def merged(turns: list[Turn]) -> tuple[Turn, ...]:
    """Turns with neighbours of one speaker made one, and empty ones left out: what dialects with strict turns demand."""
    found: list[Turn] = []
    for turn in turns:
        if not turn.parts:
            continue
        last = found[-1] if found else None
        if isinstance(turn, UserTurn) and isinstance(last, UserTurn):
            found[-1] = UserTurn(last.parts + turn.parts)
        elif isinstance(turn, ModelTurn) and isinstance(last, ModelTurn):
            found[-1] = ModelTurn(last.parts + turn.parts)
        else:
            found.append(turn)
    return tuple(found)
