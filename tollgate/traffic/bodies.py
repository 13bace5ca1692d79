"""The body of a request, as the clients of each endpoint write it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway_core.endpoints import FACTS, Endpoint


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Attributes:
        text: of the person, with a directive for the simulator.
        output_tokens_max: beyond which the answer is cut off.
    """

    endpoint: Endpoint
    model: str
    text: str
    output_tokens_max: int
    is_stream: bool = False

    @property
    def path(self) -> str:
        """Where it goes, from the root of the gateway."""
        facts = FACTS[self.endpoint]
        return facts.path.replace("{model}", self.model) + facts.query

    def body(self) -> Mapping[str, Any]:
        """As JSON.

        Raises:
            ValueError: an endpoint that nothing here is asked at.
        """
        bound = self.output_tokens_max
        match self.endpoint:
            case Endpoint.CHAT:
                options = {"stream_options": {"include_usage": True}} if self.is_stream else {}
                return self._named(messages=self._messages, max_tokens=bound, stream=self.is_stream, **options)
            case Endpoint.MESSAGES:
                return self._named(messages=self._messages, max_tokens=bound, stream=self.is_stream)
            case Endpoint.RESPONSES:
                return self._named(input=self.text, max_output_tokens=bound, stream=self.is_stream)
            case Endpoint.GENERATE | Endpoint.STREAM_GENERATE:
                contents = [{"role": "user", "parts": [{"text": self.text}]}]
                return {"contents": contents, "generationConfig": {"maxOutputTokens": bound}}
            case Endpoint.COMPLETIONS:
                return self._named(prompt=self.text, max_tokens=bound, stream=self.is_stream)
            case Endpoint.EMBEDDINGS | Endpoint.MODERATIONS:
                return self._named(input=self.text)
            case Endpoint.IMAGES:
                return self._named(prompt=self.text, n=1)
            case Endpoint.SPEECH:
                return self._named(input=self.text, voice="alloy")
            case _:
                raise ValueError(self.endpoint)

    @property
    def _messages(self) -> list[Mapping[str, str]]:
        return [{"role": "user", "content": self.text}]

    def _named(self, **fields: Any) -> Mapping[str, Any]:
        return {"model": self.model, **fields}
