"""The kinds of providers, and which endpoints each kind serves in the endpoint's own dialect. Pure facts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway_core.endpoints import DIALECT_BY_ENDPOINT, Dialect, Endpoint


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


@dataclass(frozen=True, slots=True)
class Translation:
    """How a kind serves an endpoint that it does not have: in another dialect, on another path behind its base URL.

    Attributes:
        client: the endpoint's dialect.
        provider: the kind's.
    """

    client: Dialect
    provider: Dialect
    path: str


def _translation(endpoint: Endpoint, provider: Dialect, path: str) -> tuple[Endpoint, Translation]:
    return endpoint, Translation(DIALECT_BY_ENDPOINT[endpoint], provider, path)


TRANSLATIONS_BY_KIND: Final[Mapping[ProviderKind, Mapping[Endpoint, Translation]]] = {
    ProviderKind.OPENAI: dict([_translation(Endpoint.MESSAGES, Dialect.OPENAI, "/chat/completions")]),
    ProviderKind.ANTHROPIC: dict([_translation(Endpoint.CHAT, Dialect.ANTHROPIC, "/messages")]),
    ProviderKind.GEMINI: dict([_translation(Endpoint.MESSAGES, Dialect.OPENAI, "/openai/chat/completions")]),
}
"""For each endpoint that a kind serves through the translator, how. None of them is in `PATHS_BY_KIND`, which needs none."""


def endpoints_of(kind: ProviderKind, *, translated: bool) -> Iterable[Endpoint]:
    """The endpoints a kind serves, with the translator's help or without."""
    return (*PATHS_BY_KIND[kind], *(TRANSLATIONS_BY_KIND[kind] if translated else ()))
