"""The kinds of providers, and which endpoints each kind serves in the endpoint's own dialect. Pure facts."""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final

from gateway_core.endpoints import Endpoint


class ProviderKind(StrEnum):
    """Whose API a provider speaks."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"


PATHS_BY_KIND: Final[Mapping[ProviderKind, Mapping[Endpoint, str]]] = {
    ProviderKind.OPENAI: {
        Endpoint.CHAT: "/chat/completions",
        Endpoint.RESPONSES: "/responses",
        Endpoint.COMPLETIONS: "/completions",
        Endpoint.EMBEDDINGS: "/embeddings",
        Endpoint.MODERATIONS: "/moderations",
        # Not OpenAI's: Cohere, Jina and Voyage have it there.
        Endpoint.RERANK: "/rerank",
        Endpoint.IMAGES: "/images/generations",
        Endpoint.SPEECH: "/audio/speech",
    },
    ProviderKind.ANTHROPIC: {Endpoint.MESSAGES: "/messages", Endpoint.COUNT_TOKENS: "/messages/count_tokens"},
    # Gemini's OpenAI-compatible endpoints.
    ProviderKind.GEMINI: {
        Endpoint.CHAT: "/openai/chat/completions",
        Endpoint.EMBEDDINGS: "/openai/embeddings",
        Endpoint.IMAGES: "/openai/images/generations",
    },
}
"""For each endpoint a kind serves, the path behind the provider's base URL."""


def served(kind: ProviderKind, endpoints: Collection[Endpoint]) -> tuple[Endpoint, ...]:
    """Those of a model's endpoints that a provider of the kind serves."""
    return tuple(each for each in PATHS_BY_KIND[kind] if each in endpoints)
