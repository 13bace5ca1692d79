"""What of a request for Gemini's generateContent is said in its path: the model, and whether the answer is to be streamed. Pure.

The path of a client is gone by the time a request is translated: it has the one that the route has for the provider. So the route
puts behind that one what was in the other (`Translation.told` in gateway_core/providers.py).
"""

from gateway_core.endpoints import Endpoint
from translator.json_values import JsonObject


def told_behind(path: str) -> tuple[str, JsonObject]:
    """The provider's path, and what was said behind it: `?stream_generate=MODEL` or `?generate=MODEL`."""
    provider_path, _, told = path.partition("?")
    endpoint, _, model = told.partition("=")
    return provider_path, {"model": model, "stream": endpoint == Endpoint.STREAM_GENERATE}


def path_of(whole: str, *, stream: bool) -> str:
    """The path at a provider of Gemini, made of the one for whole answers."""
    return f"{whole.removesuffix('generateContent')}streamGenerateContent?alt=sse" if stream else whole
