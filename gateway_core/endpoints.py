"""The endpoints a client may call: where each is, how it is counted, and what it needs a price for. Pure facts.

A dialect decides how usage is read and how errors look; an endpoint decides what a provider must offer to serve it.
paths.lua and bodies.lua hold the same paths and bounds; a test compares them.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway_core.errors import ANTHROPIC_PATHS, GOOGLE_PATHS, ErrorForm
from gateway_core.kept import KeptKind
from gateway_core.usage import HTTP_OK, SWITCHED, Meter


class Endpoint(StrEnum):
    """What a client asks for, by path."""

    CHAT = "chat"
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    RESPONSES = "responses"
    STORED_RESPONSES = "stored_responses"
    """At the same path, for what the provider shall keep, and what refers to something that it keeps."""
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    MODERATIONS = "moderations"
    RERANK = "rerank"
    IMAGES = "images"
    IMAGE_EDITS = "image_edits"
    SPEECH = "speech"
    TRANSCRIPTIONS = "transcriptions"
    TRANSLATIONS = "translations"
    GENERATE = "generate"
    STREAM_GENERATE = "stream_generate"
    REALTIME = "realtime"
    MODELS = "models"
    MODEL = "model"
    RESPONSE = "response"
    RESPONSE_INPUT_ITEMS = "response_input_items"
    RESPONSE_CANCEL = "response_cancel"
    RESPONSE_DELETE = "response_delete"
    FILE_UPLOAD = "file_upload"
    FILES = "files"
    FILE = "file"
    FILE_CONTENT = "file_content"
    FILE_DELETE = "file_delete"
    BATCH_CREATE = "batch_create"
    BATCHES = "batches"
    BATCH = "batch"
    BATCH_CANCEL = "batch_cancel"


class Dialect(StrEnum):
    """Whose JSON a request and its answer are written in."""

    OPENAI = "openai"
    """Chat completions, and what counts like them."""
    RESPONSES = "responses"
    """OpenAI's Responses API."""
    IMAGES = "images"
    """OpenAI's pictures: as Responses, and what is written is a picture where nothing else is said."""
    SPEECH = "speech"
    """OpenAI's speech: as Responses, and what is written is sound."""
    TRANSCRIPTION = "transcription"
    """OpenAI's transcriptions: tokens as in Responses, or seconds of sound."""
    REALTIME = "realtime"
    """OpenAI's sessions over a WebSocket: the sums of what their responses and transcriptions used."""
    RERANK = "rerank"
    """Cohere's billed units, or the usage of Jina and Voyage."""
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"


class CountedBy(StrEnum):
    """Whose figures a request is charged by."""

    USAGE = "usage"
    """The provider's, in its answer."""
    REQUEST = "request"
    """Nobody's: the request itself is what is counted."""
    NOTHING = "nothing"
    """It costs nothing."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is to know of an endpoint.

    Attributes:
        output_bound: the field that bounds the output of an answer where the client bounds it by nothing; None if there is none, so that
            an answer cannot be made shorter.
        priced_by: the meters of which a price is needed: all of one of these sets. An empty one: none is.
        asked: the meter that counts what the request asks for. Where it has a price, the request is charged by that, and by nothing that
            the provider counts.
        output: the meter of what is written; None if nothing is that has a price.
        is_usage_in_stream_only: whether the provider tells its usage in streams and nowhere else.
        has_many_inputs: whether one request may bring many inputs, each as long as the model's whole context.
        is_form: whether the body is a form with files.
        is_session: whether it is a connection that stays open, on which the model answers many times.
        query: what is behind the path at every provider.
        keeps: what the provider may keep from then on, under an id that its answer says.
        names: what the request names that a provider keeps: in its path, where that has an id.
        forgets: whether the provider keeps that no longer once it has answered.
        lists: of what that the organisation has it is a list.
        is_answered_here: whether a service of ours answers, in the place of a provider.
    """

    method: str
    path: str
    dialect: Dialect
    counted_by: CountedBy = CountedBy.USAGE
    output_bound: str | None = None
    priced_by: tuple[frozenset[Meter], ...] = ()
    asked: Meter | None = None
    output: Meter | None = None
    is_usage_in_stream_only: bool = False
    has_many_inputs: bool = False
    is_form: bool = False
    is_session: bool = False
    query: str = ""
    keeps: KeptKind | None = None
    names: KeptKind | None = None
    forgets: bool = False
    lists: KeptKind | None = None
    is_answered_here: bool = False

    @property
    def error_form(self) -> ErrorForm:
        """How its errors look."""
        if self.path.startswith(ANTHROPIC_PATHS):
            return ErrorForm.ANTHROPIC
        return ErrorForm.GOOGLE if self.path.startswith(GOOGLE_PATHS) else ErrorForm.OPENAI

    @property
    def is_of_a_model(self) -> bool:
        """Whether a request names a model, and a provider serves it."""
        return self.counted_by is not CountedBy.NOTHING

    @property
    def is_of_what_is_kept(self) -> bool:
        """Whether a request is no model's, and for the one provider that keeps something, or shall."""
        return not self.is_of_a_model and (self.keeps or self.names) is not None

    @property
    def needs_balance(self) -> bool:
        """Whether it costs our account something although it is free: it is for who has something to spend."""
        return not self.is_of_a_model and self.keeps is not None

    def is_answered(self, status: int) -> bool:
        """Whether a provider that answers so has done, or begun, what it was asked for. Only then anything was used."""
        return status == SWITCHED if self.is_session else status in HTTP_OK

    def is_priced(self, meters: AbstractSet[Meter]) -> bool:
        """Whether these are prices enough to sell it."""
        return any(needed <= meters for needed in self.priced_by)


_TEXT: Final = (frozenset({Meter.INPUT, Meter.OUTPUT}),)
_READING: Final = (frozenset({Meter.INPUT}),)
"""Of chat no more was ever asked for: what else is counted and has no price is set aside."""
_HEARING: Final = (frozenset({Meter.AUDIO_SECOND}), frozenset({Meter.INPUT, Meter.AUDIO_INPUT, Meter.OUTPUT}))

FACTS: Final[Mapping[Endpoint, Facts]] = {
    Endpoint.CHAT: Facts(
        "POST",
        "/v1/chat/completions",
        Dialect.OPENAI,
        output_bound="max_completion_tokens",
        priced_by=_READING,
        output=Meter.OUTPUT,
    ),
    Endpoint.MESSAGES: Facts(
        "POST", "/v1/messages", Dialect.ANTHROPIC, output_bound="max_tokens", priced_by=_READING, output=Meter.OUTPUT
    ),
    # Free, unless a price is asked for each request.
    Endpoint.COUNT_TOKENS: Facts(
        "POST", "/v1/messages/count_tokens", Dialect.ANTHROPIC, CountedBy.REQUEST, priced_by=(frozenset(),)
    ),
    Endpoint.RESPONSES: Facts(
        "POST",
        "/v1/responses",
        Dialect.RESPONSES,
        output_bound="max_output_tokens",
        priced_by=_TEXT,
        output=Meter.OUTPUT,
    ),
    # Sold by itself: what is kept, is in the operator's account.
    Endpoint.STORED_RESPONSES: Facts(
        "POST",
        "/v1/responses",
        Dialect.RESPONSES,
        output_bound="max_output_tokens",
        priced_by=_TEXT,
        output=Meter.OUTPUT,
        keeps=KeptKind.RESPONSE,
    ),
    Endpoint.COMPLETIONS: Facts(
        "POST",
        "/v1/completions",
        Dialect.OPENAI,
        output_bound="max_tokens",
        priced_by=_TEXT,
        output=Meter.OUTPUT,
        has_many_inputs=True,
    ),
    Endpoint.EMBEDDINGS: Facts(
        "POST",
        "/v1/embeddings",
        Dialect.OPENAI,
        priced_by=_READING,
        has_many_inputs=True,
    ),
    Endpoint.MODERATIONS: Facts(
        "POST", "/v1/moderations", Dialect.OPENAI, CountedBy.REQUEST, priced_by=(frozenset({Meter.REQUEST}),)
    ),
    Endpoint.RERANK: Facts(
        "POST",
        "/v1/rerank",
        Dialect.RERANK,
        priced_by=(frozenset({Meter.SEARCH_UNIT}), frozenset({Meter.INPUT})),
        has_many_inputs=True,
    ),
    Endpoint.IMAGES: Facts(
        "POST",
        "/v1/images/generations",
        Dialect.IMAGES,
        priced_by=(frozenset({Meter.IMAGE}), frozenset({Meter.INPUT, Meter.IMAGE_OUTPUT})),
        asked=Meter.IMAGE,
        output=Meter.IMAGE_OUTPUT,
    ),
    Endpoint.SPEECH: Facts(
        "POST",
        "/v1/audio/speech",
        Dialect.SPEECH,
        priced_by=(frozenset({Meter.CHARACTER}), frozenset({Meter.INPUT, Meter.AUDIO_OUTPUT})),
        asked=Meter.CHARACTER,
        output=Meter.AUDIO_OUTPUT,
        is_usage_in_stream_only=True,
    ),
    # Pictures are always read, so they need a price.
    Endpoint.IMAGE_EDITS: Facts(
        "POST",
        "/v1/images/edits",
        Dialect.IMAGES,
        priced_by=(frozenset({Meter.IMAGE}), frozenset({Meter.INPUT, Meter.IMAGE_INPUT, Meter.IMAGE_OUTPUT})),
        asked=Meter.IMAGE,
        output=Meter.IMAGE_OUTPUT,
        is_form=True,
    ),
    Endpoint.TRANSCRIPTIONS: Facts(
        "POST",
        "/v1/audio/transcriptions",
        Dialect.TRANSCRIPTION,
        priced_by=_HEARING,
        output=Meter.OUTPUT,
        is_form=True,
    ),
    Endpoint.TRANSLATIONS: Facts(
        "POST",
        "/v1/audio/translations",
        Dialect.TRANSCRIPTION,
        priced_by=_HEARING,
        output=Meter.OUTPUT,
        is_form=True,
    ),
    # The bound on the output is inside another object, where nobody writes over it.
    Endpoint.GENERATE: Facts(
        "POST", "/v1beta/models/{model}:generateContent", Dialect.GEMINI, priced_by=_TEXT, output=Meter.OUTPUT
    ),
    Endpoint.STREAM_GENERATE: Facts(
        "POST",
        "/v1beta/models/{model}:streamGenerateContent",
        Dialect.GEMINI,
        priced_by=_TEXT,
        output=Meter.OUTPUT,
        query="?alt=sse",
    ),
    # What was said before is read again for every response, from a cache where there is one: parts of all kinds are certain.
    Endpoint.REALTIME: Facts(
        "GET",
        "/v1/realtime",
        Dialect.REALTIME,
        priced_by=(
            frozenset(
                {
                    *(Meter.INPUT, Meter.CACHED_INPUT, Meter.AUDIO_INPUT, Meter.CACHED_AUDIO_INPUT),
                    *(Meter.OUTPUT, Meter.AUDIO_OUTPUT),
                }
            ),
        ),
        output=Meter.OUTPUT,
        is_session=True,
        query="?model={model}",
    ),
    Endpoint.MODELS: Facts("GET", "/v1/models", Dialect.OPENAI, CountedBy.NOTHING, is_answered_here=True),
    Endpoint.MODEL: Facts("GET", "/v1/models/{model}", Dialect.OPENAI, CountedBy.NOTHING, is_answered_here=True),
    Endpoint.RESPONSE: Facts(
        "GET", "/v1/responses/{id}", Dialect.RESPONSES, CountedBy.NOTHING, names=KeptKind.RESPONSE
    ),
    Endpoint.RESPONSE_INPUT_ITEMS: Facts(
        "GET", "/v1/responses/{id}/input_items", Dialect.RESPONSES, CountedBy.NOTHING, names=KeptKind.RESPONSE
    ),
    Endpoint.RESPONSE_CANCEL: Facts(
        "POST", "/v1/responses/{id}/cancel", Dialect.RESPONSES, CountedBy.NOTHING, names=KeptKind.RESPONSE
    ),
    Endpoint.RESPONSE_DELETE: Facts(
        "DELETE", "/v1/responses/{id}", Dialect.RESPONSES, CountedBy.NOTHING, names=KeptKind.RESPONSE, forgets=True
    ),
    Endpoint.FILE_UPLOAD: Facts(
        "POST", "/v1/files", Dialect.OPENAI, CountedBy.NOTHING, is_form=True, keeps=KeptKind.FILE
    ),
    Endpoint.FILES: Facts(
        "GET", "/v1/files", Dialect.OPENAI, CountedBy.NOTHING, lists=KeptKind.FILE, is_answered_here=True
    ),
    Endpoint.FILE: Facts("GET", "/v1/files/{id}", Dialect.OPENAI, CountedBy.NOTHING, names=KeptKind.FILE),
    Endpoint.FILE_CONTENT: Facts(
        "GET", "/v1/files/{id}/content", Dialect.OPENAI, CountedBy.NOTHING, names=KeptKind.FILE
    ),
    Endpoint.FILE_DELETE: Facts(
        "DELETE", "/v1/files/{id}", Dialect.OPENAI, CountedBy.NOTHING, names=KeptKind.FILE, forgets=True
    ),
    # Its input. What its lines cost is held for by billing_sink, which reads them.
    Endpoint.BATCH_CREATE: Facts(
        "POST",
        "/v1/batches",
        Dialect.OPENAI,
        CountedBy.NOTHING,
        keeps=KeptKind.BATCH,
        names=KeptKind.FILE,
        is_answered_here=True,
    ),
    Endpoint.BATCHES: Facts(
        "GET", "/v1/batches", Dialect.OPENAI, CountedBy.NOTHING, lists=KeptKind.BATCH, is_answered_here=True
    ),
    Endpoint.BATCH: Facts(
        "GET", "/v1/batches/{id}", Dialect.OPENAI, CountedBy.NOTHING, names=KeptKind.BATCH, is_answered_here=True
    ),
    Endpoint.BATCH_CANCEL: Facts(
        "POST",
        "/v1/batches/{id}/cancel",
        Dialect.OPENAI,
        CountedBy.NOTHING,
        names=KeptKind.BATCH,
        is_answered_here=True,
    ),
}

SOLD: Final = tuple(endpoint for endpoint in Endpoint if FACTS[endpoint].is_of_a_model)
"""Those on which a model can be bought."""

OF_WHAT_IS_KEPT: Final = tuple(endpoint for endpoint in Endpoint if FACTS[endpoint].is_of_what_is_kept)
"""Those of no model that are about what one provider keeps, or shall."""

IN_BATCHES: Final = (Endpoint.CHAT, Endpoint.RESPONSES, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS)
"""Those that the lines of a batch may be for: all of JSON, and counted by the usage in each answer."""

SOLD_UNLESS_TOLD: Final = (Endpoint.CHAT, Endpoint.MESSAGES, Endpoint.COUNT_TOKENS)
"""Those of a model of which nobody says more."""
