"""The kinds of providers, and which endpoints each kind serves in the endpoint's own dialect or in another. Pure facts."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway_core.endpoints import FACTS, Dialect, Endpoint


class ProviderKind(StrEnum):
    """Whose API a provider speaks."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"
    """Gemini's OpenAI-compatible endpoints."""
    GEMINI_NATIVE = "gemini-native"
    """Gemini's own."""
    AZURE = "azure"
    """Azure OpenAI's v1 API, the same for every deployment of a resource."""
    BEDROCK = "bedrock"
    """AWS Bedrock, those of its models that are asked in OpenAI's dialect."""
    BEDROCK_ANTHROPIC = "bedrock-anthropic"
    """AWS Bedrock, Anthropic's models in their own dialect."""
    OPENROUTER = "openrouter"
    MISTRAL = "mistral"
    GROQ = "groq"
    DEEPSEEK = "deepseek"
    TOGETHER = "together"
    XAI = "xai"
    COHERE = "cohere"
    """Its Compatibility API."""
    OLLAMA = "ollama"
    VLLM = "vllm"
    OPENAI_COMPATIBLE = "openai-compatible"
    """Any other server that takes chat completions."""


_OPENAI: Final[Mapping[Endpoint, str]] = {
    Endpoint.CHAT: "/chat/completions",
    Endpoint.RESPONSES: "/responses",
    Endpoint.STORED_RESPONSES: "/responses",
    Endpoint.RESPONSE: "/responses/{id}",
    Endpoint.RESPONSE_INPUT_ITEMS: "/responses/{id}/input_items",
    Endpoint.RESPONSE_CANCEL: "/responses/{id}/cancel",
    Endpoint.RESPONSE_DELETE: "/responses/{id}",
    Endpoint.FILE_UPLOAD: "/files",
    Endpoint.FILE: "/files/{id}",
    Endpoint.FILE_CONTENT: "/files/{id}/content",
    Endpoint.FILE_DELETE: "/files/{id}",
    Endpoint.BATCH_CREATE: "/batches",
    Endpoint.BATCH: "/batches/{id}",
    Endpoint.BATCH_CANCEL: "/batches/{id}/cancel",
    Endpoint.COMPLETIONS: "/completions",
    Endpoint.EMBEDDINGS: "/embeddings",
    Endpoint.MODERATIONS: "/moderations",
    # Not OpenAI's: Cohere, Jina and Voyage have it there.
    Endpoint.RERANK: "/rerank",
    Endpoint.IMAGES: "/images/generations",
    Endpoint.IMAGE_EDITS: "/images/edits",
    Endpoint.SPEECH: "/audio/speech",
    Endpoint.TRANSCRIPTIONS: "/audio/transcriptions",
    Endpoint.TRANSLATIONS: "/audio/translations",
    Endpoint.REALTIME: "/realtime",
}


_STORED_RESPONSES: Final = (
    *(Endpoint.STORED_RESPONSES, Endpoint.RESPONSE, Endpoint.RESPONSE_INPUT_ITEMS),
    *(Endpoint.RESPONSE_CANCEL, Endpoint.RESPONSE_DELETE),
)
_FILES: Final = (Endpoint.FILE_UPLOAD, Endpoint.FILE, Endpoint.FILE_CONTENT, Endpoint.FILE_DELETE)


def _of_openai(*endpoints: Endpoint) -> Mapping[Endpoint, str]:
    return {endpoint: _OPENAI[endpoint] for endpoint in endpoints}


PATHS_BY_KIND: Final[Mapping[ProviderKind, Mapping[Endpoint, str]]] = {
    ProviderKind.OPENAI: _OPENAI,
    ProviderKind.ANTHROPIC: {Endpoint.MESSAGES: "/messages", Endpoint.COUNT_TOKENS: "/messages/count_tokens"},
    # Gemini's OpenAI-compatible endpoints.
    ProviderKind.GEMINI: {
        Endpoint.CHAT: "/openai/chat/completions",
        Endpoint.EMBEDDINGS: "/openai/embeddings",
        Endpoint.IMAGES: "/openai/images/generations",
    },
    ProviderKind.GEMINI_NATIVE: {
        Endpoint.GENERATE: "/models/{model}:generateContent",
        Endpoint.STREAM_GENERATE: "/models/{model}:streamGenerateContent",
    },
    # One host for several dialects, each behind a path of its own; what a model takes is its kind.
    ProviderKind.BEDROCK: {Endpoint.CHAT: "/openai/v1/chat/completions"},
    ProviderKind.BEDROCK_ANTHROPIC: {Endpoint.MESSAGES: "/anthropic/v1/messages"},
    ProviderKind.AZURE: _of_openai(
        *(Endpoint.CHAT, Endpoint.RESPONSES, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS, Endpoint.IMAGES),
        *(Endpoint.IMAGE_EDITS, Endpoint.TRANSCRIPTIONS, Endpoint.TRANSLATIONS, Endpoint.REALTIME),
        *(*_STORED_RESPONSES, *_FILES),
    ),
    ProviderKind.OPENROUTER: _of_openai(Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS),
    ProviderKind.MISTRAL: _of_openai(Endpoint.CHAT, Endpoint.EMBEDDINGS, Endpoint.MODERATIONS),
    ProviderKind.GROQ: _of_openai(
        Endpoint.CHAT, Endpoint.RESPONSES, Endpoint.SPEECH, Endpoint.TRANSCRIPTIONS, Endpoint.TRANSLATIONS
    ),
    ProviderKind.DEEPSEEK: _of_openai(Endpoint.CHAT),
    ProviderKind.TOGETHER: _of_openai(
        *(Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS, Endpoint.RERANK, Endpoint.IMAGES, Endpoint.SPEECH),
        *(Endpoint.TRANSCRIPTIONS, Endpoint.TRANSLATIONS),
    ),
    ProviderKind.XAI: _of_openai(
        *(Endpoint.CHAT, Endpoint.RESPONSES, Endpoint.IMAGES),
        *(Endpoint.STORED_RESPONSES, Endpoint.RESPONSE, Endpoint.RESPONSE_DELETE),
    ),
    ProviderKind.COHERE: _of_openai(Endpoint.CHAT, Endpoint.EMBEDDINGS),
    ProviderKind.OLLAMA: _of_openai(Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS),
    ProviderKind.VLLM: _of_openai(
        *(Endpoint.CHAT, Endpoint.RESPONSES, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS, Endpoint.RERANK),
        *(Endpoint.TRANSCRIPTIONS, Endpoint.TRANSLATIONS),
    ),
    ProviderKind.OPENAI_COMPATIBLE: _OPENAI,
}
"""For each endpoint a kind serves, the path behind the provider's base URL."""


@dataclass(frozen=True, slots=True)
class Translation:
    """How a kind serves an endpoint that it does not have: in another dialect, on another path behind its base URL.

    Attributes:
        client: the endpoint's dialect.
        provider: the kind's.
        told: what goes to the translator behind the path, because the client's dialect says it in a path of its own.
    """

    client: Dialect
    provider: Dialect
    path: str
    told: str = ""


_ASKED_INSTEAD: Final[Mapping[Endpoint, tuple[Endpoint, ...]]] = {
    Endpoint.CHAT: (Endpoint.MESSAGES, Endpoint.GENERATE),
    Endpoint.MESSAGES: (Endpoint.CHAT, Endpoint.GENERATE),
    Endpoint.RESPONSES: (Endpoint.CHAT, Endpoint.MESSAGES, Endpoint.GENERATE),
    Endpoint.GENERATE: (Endpoint.CHAT, Endpoint.MESSAGES),
    Endpoint.STREAM_GENERATE: (Endpoint.CHAT, Endpoint.MESSAGES),
}
"""What a provider that lacks an endpoint can be asked instead, the first that it has, if the request is translated."""


def _told(endpoint: Endpoint) -> str:
    return f"?{endpoint}={{model}}" if "{model}" in FACTS[endpoint].path else ""


def _translations(paths: Mapping[Endpoint, str]) -> Mapping[Endpoint, Translation]:
    return {
        endpoint: Translation(FACTS[endpoint].dialect, FACTS[able[0]].dialect, paths[able[0]], _told(endpoint))
        for endpoint, others in _ASKED_INSTEAD.items()
        if endpoint not in paths and (able := [other for other in others if other in paths])
    }


TRANSLATIONS_BY_KIND: Final[Mapping[ProviderKind, Mapping[Endpoint, Translation]]] = {
    kind: _translations(paths) for kind, paths in PATHS_BY_KIND.items()
}
"""For each endpoint that a kind serves through the translator, how. None of them is in `PATHS_BY_KIND`, which needs none."""


def served(kind: ProviderKind, endpoints: Collection[Endpoint], *, translated: bool) -> tuple[Endpoint, ...]:
    """Those of a model's endpoints that a provider of the kind serves, with the translator's help or without."""
    return tuple(
        each for each in endpoints if each in PATHS_BY_KIND[kind] or (translated and each in TRANSLATIONS_BY_KIND[kind])
    )
