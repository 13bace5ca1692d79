"""An answer, in no dialect: whole, as a series of events, or a failure. Pure values."""

from dataclasses import dataclass
from enum import Enum, auto

from gateway_core.usage import Usage
from translator.json_values import JsonObject
from translator.parts import ModelPart, Seal


class Stop(Enum):
    """Why an answer ended."""

    END = auto()
    SEQUENCE = auto()
    """At a stop sequence; a dialect that does not tell that has `END`."""
    LENGTH = auto()
    TOOL_USE = auto()
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class Unpriced:
    """A usage that nobody here can read. It is handed on as it is, so that whoever charges sees it and sets it aside."""

    raw: JsonObject


Metered = Usage | Unpriced | None
"""What an answer used; None if the provider did not say."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    id: str
    model: str
    parts: tuple[ModelPart, ...]
    stop: Stop
    metered: Metered
    stop_sequence: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A provider's refusal or breakdown, in its own words.

    Attributes:
        status: of HTTP; 0 where it came in the middle of an answer and named none.
        kind: the provider's word for its class, if it has one.
        param: the field of the client's request that is the reason, if that is known.
    """

    status: int
    message: str
    kind: str | None = None
    code: str | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Began:
    """The first event of every stream that does not fail at once."""

    id: str
    model: str


@dataclass(frozen=True, slots=True)
class Said:
    """More words of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Declined:
    """More words of a refusal."""

    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    """More thinking."""

    text: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """The seal of the thinking that was just told; of a `WHOLE` one, there was none to tell."""

    seal: Seal


@dataclass(frozen=True, slots=True)
class CallBegan:
    """A tool is called."""

    id: str
    name: str
    seal: Seal | None = None


@dataclass(frozen=True, slots=True)
class CallContinued:
    """More of the arguments of the call that began last."""

    arguments: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The last event of a good stream."""

    stop: Stop
    metered: Metered
    stop_sequence: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of a bad one."""

    failure: Failure


Event = Began | Said | Declined | Thought | Sealed | CallBegan | CallContinued | Ended | Failed
