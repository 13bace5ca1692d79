"""What turns and answers are made of, in no dialect. Pure values."""

from dataclasses import dataclass
from enum import StrEnum

from gateway_core.endpoints import Dialect
from translator.json_values import JsonObject, ShapeError, parse_object


@dataclass(frozen=True, slots=True)
class Inline:
    """Content that is in the request, in base64."""

    media_type: str
    data: str

    @property
    def data_url(self) -> str:
        """As a `data:` URL."""
        return f"data:{self.media_type};base64,{self.data}"


@dataclass(frozen=True, slots=True)
class Remote:
    """Content that whoever serves the model fetches."""

    url: str


Source = Inline | Remote


def source_of_url(url: str) -> Source:
    """What a URL names; one that begins with `data:` holds it."""
    head, comma, data = url.partition(",")
    if comma and head.startswith("data:") and head.endswith(";base64"):
        return Inline(head.removeprefix("data:").removesuffix(";base64"), data)
    return Remote(url)


@dataclass(frozen=True, slots=True)
class Text:
    """Words.

    Attributes:
        cache: a wish that all up to here be cached, in Anthropic's words.
    """

    text: str
    cache: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """A picture."""

    source: Source
    detail: str | None = None
    cache: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A file such as a PDF."""

    source: Source
    name: str | None = None
    cache: JsonObject | None = None


@dataclass(frozen=True, slots=True)
class Audio:
    """Sound; its format is a short word such as `wav`."""

    format: str
    data: str


class SealKind(StrEnum):
    """What a maker's seal is."""

    SIGNATURE = "signature"
    """Proves that the thinking beside it is the maker's own."""
    WHOLE = "whole"
    """Is the thinking, which only its maker can read."""


@dataclass(frozen=True, slots=True)
class Seal:
    """Opaque text that only the API that made it takes back."""

    maker: Dialect
    kind: SealKind
    data: str


@dataclass(frozen=True, slots=True)
class Thinking:
    """What a model thought before it said something."""

    text: str
    seal: Seal | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model wants a tool of the client's to run.

    Attributes:
        arguments: JSON text of an object; of a freeform tool, an object with the one text `input`.
    """

    id: str
    name: str
    arguments: str
    seal: Seal | None = None

    def arguments_object(self) -> JsonObject | None:
        """The arguments as they are for those who want them read; None if they are no object."""
        try:
            return parse_object(self.arguments or "{}")
        except ShapeError:
            return None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Words with which a model declines, where the dialect keeps them apart."""

    text: str


ResultPart = Text | Image | Document


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool gave back."""

    call_id: str
    parts: tuple[ResultPart, ...]
    is_error: bool = False
    cache: JsonObject | None = None


UserPart = Text | Image | Document | Audio | ToolResult
ModelPart = Text | Thinking | ToolCall | Refusal
