"""What a provider takes of a chat completions request in another way than others. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from translator.faults import Feature
from translator.json_values import JsonObject

_FEATURES: Final[Mapping[str, Feature]] = {
    "seed": Feature.SEED,
    "service_tier": Feature.TIER,
    "user": Feature.END_USER,
}
"""What a client misses where a field is left out; of the others it has not asked for any."""


@dataclass(frozen=True, slots=True)
class Peculiarities:
    """Of one provider; without any, it takes what most do.

    Attributes:
        fields: the names that it has for fields at the top of a request; None for one that it refuses.
    """

    fields: Mapping[str, str | None] = field(default_factory=dict)

    @staticmethod
    def parse(text: str) -> "Peculiarities":
        """Read them as a cluster tells them: `seed=random_seed,user=`."""
        told = (each.partition("=") for each in text.split(",") if each)
        return Peculiarities({name: other or None for name, _, other in told})

    def adapted(self, body: JsonObject, lost: set[Feature]) -> JsonObject:
        """A request that anybody takes, as this one does; `lost` is given what is left out."""
        named = {name: self.fields.get(name, name) for name in body}
        lost |= {_FEATURES[name] for name, other in named.items() if other is None and name in _FEATURES}
        return {other: body[name] for name, other in named.items() if other is not None}


NONE: Final = Peculiarities()
