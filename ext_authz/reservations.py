"""What requests take up of the limits they are under, and what those have left. Nouns, and the guess at a request's tokens. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Self

from gateway_core.ids import RequestId
from gateway_core.limits import Limits, Scope, ScopedLimits, Tally
from gateway_core.usage import BYTES_PER_TOKEN

OUTPUT_TOKENS: Final = 1024
"""What an answer is expected to have if the client names no bound."""
TOKENS_MAX: Final = 1 << 32
"""No request counts as more, whatever it asks for: Redis has to be able to add a minute of them up."""
OPEN_S: Final = 30
"""After so long without a word of it what is open is given up: its Envoy has died, which would have spoken of it every ten seconds."""


class Limit(StrEnum):
    """Which one is in the way."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENCY = "concurrency"


@dataclass(frozen=True, slots=True)
class Room:
    """What a tally has used of its limits.

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
    """Requests count, each as so many tokens; the one that asked counts as open besides.

    Attributes:
        tallies: against which they count.
        at: the second, by the clock of who counts, that they count in.
        uses: how many they are.
        rooms: one for each tally.
    """

    tallies: tuple[Tally, ...]
    tokens: int
    at: int
    rooms: tuple[Room, ...]
    uses: int = 1


@dataclass(frozen=True, slots=True)
class Exceeded:
    """A limit is in the way, for about so long if nothing else happens.

    Attributes:
        scope: whose limit it is.
        room: of that.
    """

    limit: Limit
    scope: Scope
    retry_after_s: int
    room: Room


@dataclass(frozen=True, slots=True)
class Running:
    """A request that has a reservation still runs."""

    tallies: tuple[Tally, ...]
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that has a reservation is over.

    Attributes:
        at: the second in which it counts.
        more_tokens: used, than it was expected to; may be less than none.
    """

    tallies: tuple[Tally, ...]
    request_id: RequestId
    at: int
    more_tokens: int


@dataclass(frozen=True, slots=True)
class Amended:
    """Requests that came by leases count otherwise than was expected: they used more or fewer tokens, or have not come at all.

    Attributes:
        at: the second in which they count.
        more_requests: none, or less than none.
    """

    tallies: tuple[Tally, ...]
    at: int
    more_requests: int
    more_tokens: int


Told = Running | Ended | Amended
"""What is heard of reservations after they were made."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a request will read and write, together, before anybody knows.

    No more than the smallest whole limit: a request that is larger than that is admitted when nothing else counts.

    Attributes:
        tokens: about; put right when it is over.
        at_most: what counts where nobody puts it right.
    """

    tokens: int
    at_most: int

    @classmethod
    def of(cls, limits: Iterable[ScopedLimits], *, body_bytes: int, output_tokens: int, output_tokens_max: int) -> Self:
        """Of a request with so long a body, and so much output as it will about have, and at most."""
        read = body_bytes // BYTES_PER_TOKEN
        tokens, at_most = min(read + output_tokens, TOKENS_MAX), min(read + output_tokens_max, TOKENS_MAX)
        for each in limits:
            if (most := each.limits.tokens_per_minute) is not None:
                tokens, at_most = min(tokens, most), min(at_most, most)
        return cls(tokens, at_most)


def tightest(rooms: Iterable[Room]) -> Room:
    """What a client has left altogether: of requests and of tokens, where the least is left of each."""
    requests = tokens = None
    for room in rooms:
        if room.limits.requests_per_minute is not None:
            left = room.limits.requests_per_minute - room.requests
            if requests is None or left < requests[0]:
                requests = left, room
        if room.limits.tokens_per_minute is not None:
            left = room.limits.tokens_per_minute - room.tokens
            if tokens is None or left < tokens[0]:
                tokens = left, room
    return Room(
        Limits(
            None if requests is None else requests[1].limits.requests_per_minute,
            None if tokens is None else tokens[1].limits.tokens_per_minute,
        ),
        0 if requests is None else requests[1].requests,
        0 if tokens is None else tokens[1].tokens,
        max((found[1].renews_in_s for found in (requests, tokens) if found is not None), default=0),
    )
