"""What a provider takes of a chat completions request in another way than others. Pure."""

from dataclasses import dataclass
from typing import Final

from translator.json_values import JsonObject

_USUAL_BOUND: Final = "max_completion_tokens"


@dataclass(frozen=True, slots=True)
class Peculiarities:
    """Of one provider; without any, it takes what most do.

    Attributes:
        output_bound: the field in which it takes the bound on the output.
        refuses_stream_options: whether it takes none. Its streams end with usage anyway.
    """

    output_bound: str = _USUAL_BOUND
    refuses_stream_options: bool = False

    def adapted(self, body: JsonObject) -> JsonObject:
        """A request that anybody takes, as this one does."""
        return {
            self.output_bound if name == _USUAL_BOUND else name: value
            for name, value in body.items()
            if not (self.refuses_stream_options and name == "stream_options")
        }


NONE: Final = Peculiarities()
