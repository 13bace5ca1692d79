"""The endpoints a client may call and the dialect each one speaks.

A dialect decides how usage is read and how errors look; an endpoint decides what a provider must offer to serve it.
request.lua holds the same paths; a test compares them.
"""

from enum import StrEnum


class Endpoint(StrEnum):
    """What a client asks for, by path."""

    CHAT = "chat"
    MESSAGES = "messages"
    MODELS = "models"


class Dialect(StrEnum):
    """Whose JSON a request and its answer are written in."""

    OPENAI = "openai"
    """Chat completions."""
    RESPONSES = "responses"
    """OpenAI's Responses API."""
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"


PATH_BY_ENDPOINT = {
    Endpoint.CHAT: "/v1/chat/completions",
    Endpoint.MESSAGES: "/v1/messages",
    Endpoint.MODELS: "/v1/models",
}

DIALECT_BY_ENDPOINT = {
    Endpoint.CHAT: Dialect.OPENAI,
    Endpoint.MESSAGES: Dialect.ANTHROPIC,
    Endpoint.MODELS: Dialect.OPENAI,
}
