"""What is asked for, and how much of each: the models that the demo sells, and what goes wrong now and then. Pure."""

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway_core.endpoints import Endpoint

ASSISTANT: Final = "demo-assistant"
"""A model with a provider to fall back to, and one more; the demo's own have one each."""


class Story(StrEnum):
    """What a request is there to show; the text is what people read."""

    WHOLE = "answered whole"
    STREAM = "answered as a stream"
    CACHED = "asked again, with the cache on"
    TEST = "with a test key"
    FALLBACK = "a provider fails, another one may answer"
    OUTAGE = "a provider is down, there is no other"
    BROKEN = "an answer breaks off"
    LEAVING = "the client leaves in the middle"
    IMPATIENT = "the client leaves before the answer"
    UNKNOWN_KEY = "a key that there is not"
    UNKNOWN_MODEL = "a model that there is not"
    MALFORMED = "a body that is not good"
    HURRIED = "a key with a small limit"
    PENNILESS = "no money"


@dataclass(frozen=True, slots=True)
class Activity:
    """One kind of request.

    Attributes:
        per_mille: its part of all requests.
        least: how many there are in any case, so that a short run shows all kinds.
    """

    story: Story
    endpoint: Endpoint
    model: str
    per_mille: int
    least: int = 1

    @property
    def is_stream(self) -> bool:
        """Whether the answer comes in events."""
        return self.story in _STREAMED or self.endpoint is Endpoint.STREAM_GENERATE


_STREAMED: Final = frozenset({Story.STREAM, Story.BROKEN, Story.LEAVING})

MINI: Final = "gpt-4o-mini"
LARGE: Final = "gpt-4o"
CLAUDE: Final = "claude-sonnet-4-6"
FLASH: Final = "gemini-2.5-flash"
UNKNOWN: Final = "gpt-99-imagined"

MIX: Final = (
    Activity(Story.STREAM, Endpoint.CHAT, MINI, 170),
    Activity(Story.STREAM, Endpoint.CHAT, LARGE, 75),
    Activity(Story.STREAM, Endpoint.CHAT, ASSISTANT, 75),
    Activity(Story.STREAM, Endpoint.CHAT, FLASH, 30),
    Activity(Story.STREAM, Endpoint.MESSAGES, CLAUDE, 85),
    Activity(Story.STREAM, Endpoint.STREAM_GENERATE, FLASH, 20),
    Activity(Story.STREAM, Endpoint.RESPONSES, MINI, 20),
    Activity(Story.WHOLE, Endpoint.CHAT, MINI, 100),
    Activity(Story.WHOLE, Endpoint.CHAT, LARGE, 35),
    Activity(Story.WHOLE, Endpoint.CHAT, ASSISTANT, 35),
    Activity(Story.WHOLE, Endpoint.CHAT, CLAUDE, 15),
    Activity(Story.WHOLE, Endpoint.MESSAGES, CLAUDE, 40),
    Activity(Story.WHOLE, Endpoint.RESPONSES, LARGE, 20),
    Activity(Story.WHOLE, Endpoint.GENERATE, FLASH, 25),
    Activity(Story.WHOLE, Endpoint.COMPLETIONS, "gpt-3.5-turbo-instruct", 10),
    Activity(Story.WHOLE, Endpoint.EMBEDDINGS, "text-embedding-3-small", 60),
    Activity(Story.WHOLE, Endpoint.MODERATIONS, "omni-moderation-latest", 20),
    Activity(Story.WHOLE, Endpoint.IMAGES, "gpt-image-1", 5),
    Activity(Story.WHOLE, Endpoint.SPEECH, "tts-1", 5),
    Activity(Story.CACHED, Endpoint.CHAT, MINI, 30, least=6),
    Activity(Story.TEST, Endpoint.CHAT, MINI, 15),
    Activity(Story.FALLBACK, Endpoint.CHAT, ASSISTANT, 35, least=12),
    Activity(Story.BROKEN, Endpoint.CHAT, MINI, 5),
    Activity(Story.LEAVING, Endpoint.CHAT, MINI, 12, least=2),
    Activity(Story.LEAVING, Endpoint.MESSAGES, CLAUDE, 6),
    Activity(Story.IMPATIENT, Endpoint.CHAT, LARGE, 6),
    Activity(Story.UNKNOWN_KEY, Endpoint.CHAT, MINI, 6),
    Activity(Story.UNKNOWN_MODEL, Endpoint.CHAT, UNKNOWN, 6),
    Activity(Story.MALFORMED, Endpoint.CHAT, MINI, 4),
    Activity(Story.HURRIED, Endpoint.CHAT, MINI, 20, least=8),
    Activity(Story.PENNILESS, Endpoint.CHAT, MINI, 10),
)

MODELS: Final = frozenset(activity.model for activity in MIX) - {UNKNOWN}
"""That have to be sold."""


def drawn(rng: random.Random, count: int) -> list[Activity]:
    """So many requests, each kind by its part, in no order; some more where the least of a kind is more than its part."""
    found = [activity for activity in MIX for _ in range(max(activity.least, round(count * activity.per_mille / 1000)))]
    rng.shuffle(found)
    return found
