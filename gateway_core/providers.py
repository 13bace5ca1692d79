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


PATHS_BY_KIND: Final[Mapping[ProviderKind, Mapping[Endpoint, str]]] = {
    ProviderKind.OPENAI: {Endpoint.CHAT: "/chat/completions"},
    ProviderKind.ANTHROPIC: {Endpoint.MESSAGES: "/messages"},
    # Gemini's OpenAI-compatible endpoint.
    ProviderKind.GEMINI: {Endpoint.CHAT: "/openai/chat/completions"},
    # One host for several dialects, each behind a path of its own; what a model takes is its kind.
    ProviderKind.BEDROCK: {Endpoint.CHAT: "/openai/v1/chat/completions"},
    ProviderKind.BEDROCK_ANTHROPIC: {Endpoint.MESSAGES: "/anthropic/v1/messages"},
    ProviderKind.AZURE: {Endpoint.CHAT: "/chat/completions"},
    ProviderKind.OPENROUTER: {Endpoint.CHAT: "/chat/completions"},
    ProviderKind.MISTRAL: {Endpoint.CHAT: "/chat/completions"},
    ProviderKind.GROQ: {Endpoint.CHAT: "/chat/completions"},
    ProviderKind.DEEPSEEK: {Endpoint.CHAT: "/chat/completions"},
    ProviderKind.TOGETHER: {Endpoint.CHAT: "/chat/completions"},
    ProviderKind.XAI: {Endpoint.CHAT: "/chat/completions"},
    ProviderKind.COHERE: {Endpoint.CHAT: "/chat/completions"},
    ProviderKind.OLLAMA: {Endpoint.CHAT: "/chat/completions"},
    ProviderKind.VLLM: {Endpoint.CHAT: "/chat/completions"},
    ProviderKind.OPENAI_COMPATIBLE: {Endpoint.CHAT: "/chat/completions"},
}
"""For each endpoint a kind serves, the path behind the provider's base URL."""
