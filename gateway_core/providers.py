"""The kinds of providers, and which endpoints each kind serves in the endpoint's own dialect. Pure facts."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from gateway_core.endpoints import Endpoint


class ProviderKind(StrEnum):
    """Whose API a provider speaks."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"


PATHS_BY_KIND: Final[Mapping[ProviderKind, Mapping[Endpoint, str]]] = {
    ProviderKind.OPENAI: {Endpoint.CHAT: "/chat/completions"},
    ProviderKind.ANTHROPIC: {Endpoint.MESSAGES: "/messages"},
    # Gemini's OpenAI-compatible endpoint.
    ProviderKind.GEMINI: {Endpoint.CHAT: "/openai/chat/completions"},
}
"""For each endpoint a kind serves, the path behind the provider's base URL."""
