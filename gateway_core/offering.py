"""What a route stands for: a model, and the deployments that may serve it. Pure.

Envoy's route says it, the front filter hands it on, admission decides by it, and the line of the spool keeps it. So what is
held, what is served and what is charged are of one route, whichever revision of the catalogue each process has come to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote

from gateway_core.ids import ModelName, ProviderName

_PLAIN: Final = "/:@"
"""Besides letters, digits and `-._~`: what names of models are full of, and neither a space nor an equals sign."""


READ_MAX: Final = 4096
"""Every request brings one, and there are few: so many are kept as they were read."""


class InvalidOfferingError(ValueError):
    """Text that no route has. The message does not quote it."""


@dataclass(frozen=True, slots=True)
class Offering:
    """What a request gets that takes a route.

    Attributes:
        model: the model's own name, whichever of its names was asked for.
        deployments: every provider that may be asked, and its own name for the model; at least one.
    """

    model: ModelName
    deployments: Mapping[ProviderName, str]

    def __str__(self) -> str:
        """One line of plain ASCII; equal offerings have equal text."""
        parts = (f"{_text(name)}={_text(upstream)}" for name, upstream in sorted(self.deployments.items()))
        return " ".join((_text(self.model), *parts))

    @staticmethod
    @lru_cache(maxsize=READ_MAX)
    def parse(text: str) -> "Offering":
        """Read what `str` has written.

        Raises:
            InvalidOfferingError: it has not.
        """
        model, *parts = text.split(" ")
        deployments = {}
        for part in parts:
            name, equals, upstream = part.partition("=")
            if not (name and equals and upstream):
                raise InvalidOfferingError("not an offering")
            deployments[ProviderName(unquote(name))] = unquote(upstream)
        if not model or not deployments:
            raise InvalidOfferingError("not an offering")
        return Offering(ModelName(unquote(model)), deployments)


def _text(name: str) -> str:
    return quote(name, safe=_PLAIN)
