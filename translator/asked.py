"""What an answer has to know of its request. Pure."""

from dataclasses import dataclass

from gateway_core.usage import BYTES_PER_TOKEN
from translator.conversation import Conversation
from translator.json_values import JsonObject


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is being answered.

    Attributes:
        body: as the client wrote it.
        body_bytes: how long it was.
        conversation: what it said.
        created: when it was asked, in seconds since 1970.
    """

    body: JsonObject
    body_bytes: int
    conversation: Conversation
    created: int

    @property
    def input_estimate(self) -> int:
        """Its tokens, as billing_sink estimates them where no provider has counted."""
        return -(-self.body_bytes // BYTES_PER_TOKEN)
