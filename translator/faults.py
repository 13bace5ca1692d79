"""What can go wrong in a translation, and whose fault it is. Pure."""

from enum import StrEnum


class Feature(StrEnum):
    """What a writer may be unable to say. Each reader knows its own dialect's name for it."""

    TEMPERATURE = "temperature"
    TOP_P = "top_p"
    TOP_K = "top_k"
    SEED = "seed"
    PRESENCE_PENALTY = "presence_penalty"
    FREQUENCY_PENALTY = "frequency_penalty"
    STOPS = "stop"
    REASONING = "reasoning"
    FORMAT = "response_format"
    PARALLEL_CALLS = "parallel_tool_calls"
    END_USER = "user"
    TIER = "service_tier"
    CACHE = "cache_control"
    AUDIO = "audio"
    DOCUMENT = "document"
    """One of words that are not words in UTF-8."""
    DOCUMENT_URL = "document_url"
    IMAGE_URL = "image_url"
    IMAGE_DETAIL = "image_detail"
    STRICT_TOOLS = "tools.strict"
    TOOL_ERROR = "is_error"
    THINKING = "thinking"
    ARGUMENTS = "arguments"
    """Of a call that the model made earlier, and that are no JSON object."""


class InexpressibleError(ValueError):
    """The provider's dialect cannot say what the request asks for; another provider's may.

    Attributes:
        feature: what it is; its name in the client's dialect is looked up where the error is worded.
    """

    def __init__(self, feature: Feature) -> None:
        super().__init__(feature)
        self.feature = feature


class UnsupportedFieldError(ValueError):
    """A field that is expressed in no other dialect.

    Attributes:
        field: its path in the client's dialect.
    """

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field


class UnreadableAnswerError(ValueError):
    """The provider's answer is not of its dialect. The message never quotes it."""
