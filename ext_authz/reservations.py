"""What a request takes up of its key's limits, and what they have left. Nouns, and the guess at a request's tokens. Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from gateway_core.ids import KeyId, RequestId
from gateway_core.limits import Limits
from gateway_core.usage import BYTES_PER_TOKEN

OUTPUT_TOKENS: Final = 1024
"""What an answer is expected to have if the client names no bound."""


class Limit(StrEnum):
    """Which one is in the way."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENCY = "concurrency"


@dataclass(frozen=True, slots=True)
class Room:
    """What a key has used of its limits.

    Attributes:
        requests: counted now, in the last minute.
        tokens: the same of tokens.
        renews_in_s: until the oldest of both no longer count.
    """

    limits: Limits
    requests: int
    tokens: int
    renews_in_s: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """A request counts as open, and as so many tokens.

    Attributes:
        at: the second, by the clock of who counts, that it counts in.
    """

    tokens: int
    at: int
    room: Room


@dataclass(frozen=True, slots=True)
class Exceeded:
    """A limit is in the way, for about so long if nothing else happens."""

    limit: Limit
    retry_after_s: int
    room: Room


@dataclass(frozen=True, slots=True)
class Told:
    """What is heard of a request that has a reservation.

    Attributes:
        is_over: else it still runs.
        at: the second in which it counts.
        expected: tokens that it counts as.
        tokens: what it has used, if it is over.
    """

    key_id: KeyId
    request_id: RequestId
    is_over: bool
    at: int
    expected: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Expected:
    """What a request will read and write, together, before anybody knows.

    No more than the whole limit: a request that is larger than that is admitted when nothing else counts.

    Attributes:
        tokens: about; put right when it is over.
        at_most: what counts where nobody puts it right.
    """

    tokens: int
    at_most: int

    @classmethod
    def of(cls, limits: Limits, *, body_bytes: int, output_tokens: int, output_tokens_max: int) -> Self:
        """Of a request with so long a body, and so much output as it will about have, and at most."""
        read = body_bytes // BYTES_PER_TOKEN
        tokens, at_most = read + output_tokens, read + output_tokens_max
        if limits.tokens_per_minute is None:
            return cls(tokens, at_most)
        return cls(min(tokens, limits.tokens_per_minute), min(at_most, limits.tokens_per_minute))
